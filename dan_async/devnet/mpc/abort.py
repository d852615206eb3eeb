"""How a key generation ends early: who is to blame, and how a third party can tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dan_async.devnet.mpc.dealing import DealingError, Reason, check_dealing
from dan_async.devnet.mpc.messages import ComplaintMessage, ShareMessage, opening_commitment
from dan_async.devnet.mpc.session import Session
from dan_async.errors import DanError, InvalidFieldError
from dan_async.models.threshold import Threshold
from dan_async.types import OperatorAddress

__all__ = ["DkgAbort", "ProtocolStateError", "Reason", "check_complaint", "make_complaint"]


class ProtocolStateError(DanError, RuntimeError):
    """A party was asked for a step that is not its next one: out of order, twice, or after it had ended."""


class DkgAbort(DanError):  # noqa: N818 - "abort" is what the papers call it
    """
    The key generation has ended without a key.

    Args:
        reason: A ``Reason``.
        culprits: Indices of the parties to blame, ascending. Empty where it cannot be told who lied: equivocation is
            seen only as differing signed hashes, and either side may be the honest one.
        complaint: Bytes for ``check_complaint``, if the first culprit's guilt can be shown to others.
        echoes: With equivocation, every party's echo message: the differing hashes, each with its signature.
    """

    def __init__(
        self,
        reason: Reason,
        culprits: Sequence[int] = (),
        *,
        complaint: bytes | None = None,
        echoes: Mapping[int, bytes] | None = None,
    ) -> None:
        self.reason: str = reason
        self.culprits = tuple(sorted(culprits))
        self.complaint = complaint
        self.echoes = dict(echoes or {})
        who = f" by party {', '.join(map(str, self.culprits))}" if self.culprits else ""
        super().__init__(
            f"Key generation was aborted: {reason}{who}",
            hint="No key was made; start again under a new session id",
            phase="keygen",
        )


def make_complaint(
    session: Session, *, index: int, share_message: bytes, opening: bytes, sign: Callable[[bytes], bytes]
) -> bytes:
    """
    Write a complaint about a share.

    Args:
        session: The session.
        index: The party that complains.
        share_message: The share message as it was received.
        opening: The dealer's opening message as it was received.
        sign: Signs a digest with the complaining party's identity key.
    """
    digest = ComplaintMessage.digest(
        session.context, sender=index, share_message=share_message, opening=opening
    )
    message = ComplaintMessage(
        sender=index, share_message=share_message, opening=opening, signature=sign(digest)
    )
    return message.encode(session.context)


def check_complaint(
    complaint: bytes, *, session_id: bytes, threshold: Threshold, identities: tuple[OperatorAddress, ...]
) -> int | None:
    """
    Find out who is to blame, from the complaint alone.

    The dealer has signed the share together with the commitment that its opening hashes to. So nobody can put words in
    the dealer's mouth, and whoever complains without reason has signed that as well. (The complaint phase of Pedersen,
    EUROCRYPT 1991, section 4.1, where the dealer would answer by publishing the share; with signatures one message will
    do.)

    Args:
        complaint: What ``DkgAbort.complaint`` held at the party that complains.
        session_id: The session's id.
        threshold: t and n.
        identities: The parties' addresses, in the order of their indices.

    Returns:
        The dealer's index, if the opening or the share is really wrong and really the dealer's; else the index of the
        party that complained. None if the complaint is malformed, of another session, or not signed by the party in
        whose name it speaks: whoever handed it over is to blame for that.

    Raises:
        InvalidFieldError: The arguments describe no session.
    """
    session = Session(session_id=session_id, threshold=threshold, identities=identities)
    try:
        message = ComplaintMessage.decode(complaint, session.context)
    except InvalidFieldError:
        return None
    if not message.is_signed(session):
        return None
    try:
        share = ShareMessage.decode(message.share_message, session.context)
    except InvalidFieldError:
        return message.sender
    if share.recipient != message.sender or not share.is_signed(session):
        return message.sender
    if opening_commitment(message.opening) != share.commitment:
        return message.sender
    try:
        check_dealing(
            session,
            dealer=share.sender,
            recipient=share.recipient,
            opening=message.opening,
            share=share.share,
        )
    except DealingError:
        return share.sender
    return message.sender

"""
One dealer's opening and the share that came with it, checked.

Every check here depends only on bytes that the dealer has signed or committed to, so that a third party who is shown
them comes to the same verdict (``abort.check_complaint``).
"""

from __future__ import annotations

from enum import StrEnum

from dan_async.crypto.point import decode
from dan_async.devnet.mpc.commitments import CommitmentVector, share_matches
from dan_async.devnet.mpc.field import scalar_from_bytes
from dan_async.devnet.mpc.hashing import tagged_hash, u32
from dan_async.devnet.mpc.messages import OpeningMessage
from dan_async.devnet.mpc.schnorr import is_valid_proof
from dan_async.devnet.mpc.session import Session
from dan_async.errors import InvalidFieldError


class Reason(StrEnum):
    """Why a key generation was aborted."""

    MISSING_MESSAGE = "missing message"
    MALFORMED_MESSAGE = "malformed message"
    COMMITMENT_MISMATCH = "opening does not match its commitment"
    VECTOR_LENGTH = "number of commitments is not t"
    INVALID_POINT = "invalid point"
    PROOF_OF_POSSESSION = "proof of possession does not hold"
    SHARE_SIGNATURE = "share is not signed by its sender"
    SHARE_COMMITMENT = "share belongs to another commitment"
    WRONG_SHARE = "wrong share"
    ECHO_SIGNATURE = "echo is not signed by its sender"
    EQUIVOCATION = "equivocation"
    DEGENERATE_KEY = "degenerate key"


class DealingError(Exception):
    """
    A dealer broke the protocol.

    Args:
        reason: In which way.
        provable: Whether the dealer's own signature shows it to others.
    """

    def __init__(self, reason: Reason, *, provable: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.provable = provable


def proof_context(session: Session, dealer: int, points: tuple[bytes, ...]) -> bytes:
    """Give what a proof of possession is bound to: the session, the dealer's index and the whole commitment vector."""
    return tagged_hash("dan-dkg/1 proof context", session.context, u32(dealer), *points)


def check_dealing(
    session: Session, *, dealer: int, recipient: int, opening: bytes, share: bytes
) -> tuple[CommitmentVector, int]:
    """
    Check an opening by itself, and a share against it.

    The caller has made sure that the dealer committed to these very bytes of the opening and signed the share.

    Args:
        session: The session.
        dealer: Whose polynomial it is.
        recipient: Whose share it is.
        opening: The opening message's bytes.
        share: The share's 32 bytes.

    Returns:
        The Feldman commitments, and the share as a number.

    Raises:
        DealingError: The opening is malformed or another party's, has not exactly t points, has one that is not on the
            curve (infinity has no encoding at all), its proof of possession does not hold (Schnorr), or the share is
            not the committed polynomial's value at the recipient's index (Feldman).
    """
    try:
        message = OpeningMessage.decode(opening, session.context)
    except InvalidFieldError:
        raise DealingError(Reason.MALFORMED_MESSAGE, provable=True) from None
    if message.sender != dealer:
        raise DealingError(Reason.MALFORMED_MESSAGE, provable=True)
    if len(message.points) != session.threshold.t:
        raise DealingError(Reason.VECTOR_LENGTH, provable=True)
    try:
        vector = tuple(decode(point) for point in message.points)
    except InvalidFieldError:
        raise DealingError(Reason.INVALID_POINT, provable=True) from None
    if not is_valid_proof(message.proof, vector[0], context=proof_context(session, dealer, message.points)):
        raise DealingError(Reason.PROOF_OF_POSSESSION, provable=True)
    try:
        value = scalar_from_bytes("share", share)
    except InvalidFieldError:
        raise DealingError(Reason.WRONG_SHARE, provable=True) from None
    if not share_matches(vector, recipient, value):
        raise DealingError(Reason.WRONG_SHARE, provable=True)
    return vector, value

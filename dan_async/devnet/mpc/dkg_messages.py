"""
The messages of key generation, and the session that its parties agree on beforehand. The checks are in ``dkg``.

Everything that is signed is bound to the session's context: a signature holds for one session, sender and recipient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, TypeVar

from attrs import evolve, field, frozen

from dan_async._values import check_int, from_hex
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.crypto.signature import parse_signature, recover_address
from dan_async.devnet.mpc.field import PROOF_BYTES
from dan_async.devnet.mpc.framing import (
    NONCE_BYTES,
    POINT_BYTES,
    SCALAR_BYTES,
    SIGNATURE_BYTES,
    Digest,
    Index,
    Message,
    Nonce,
    Signature,
    check_session_id,
    counted,
    sized,
    up_to_last,
)
from dan_async.errors import InvalidFieldError
from dan_async.types import OperatorAddress

#: Most keys that one session makes: the points of all of them are counted in one byte.
MOST_KEYS = 16


# --- the session ------------------------------------------------------------------------------------------------------


def _checksummed(identities: Iterable[str]) -> tuple[OperatorAddress, ...]:
    return tuple(OperatorAddress(parse_address("identities", identity)) for identity in identities)


@frozen(kw_only=True)
class Session:
    """A session id that is never used twice, t and n, the addresses of parties 1 to n, and how many keys are made."""

    session_id: bytes
    threshold: Threshold
    identities: tuple[OperatorAddress, ...] = field(converter=_checksummed)
    count: int = 1
    #: H("dan-dkg/1 context", session id, t, n, each identity): in every hash, proof and signature of the session. With
    #: several keys their number is in it too.
    context: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_session_id(self.session_id)
        check_int("count", self.count, least=1, most=min(MOST_KEYS, 255 // self.threshold.t))
        if len(self.identities) != self.threshold.n:
            raise InvalidFieldError("identities", f"must be {self.threshold.n}, one for each party")
        if len(set(self.identities)) != len(self.identities):
            raise InvalidFieldError("identities", "must differ from each other")
        raw = (from_hex(identity, field="identities") for identity in self.identities)
        tag = "dan-dkg/1 context" if self.count == 1 else f"dan-dkg/1 context of {self.count} keys"
        context = tagged_hash(tag, self.session_id, self.threshold.t, self.threshold.n, *raw)
        object.__setattr__(self, "context", context)

    def is_signed_by(self, index: int, digest: bytes, signature: bytes) -> bool:
        """Return whether a party signed a digest, in the one canonical form (low s, v 27 or 28) that counts."""
        if not 1 <= index <= self.threshold.n:
            return False
        try:
            canonical = parse_signature(signature)
            signer = OperatorAddress(recover_address(digest, canonical))
        except InvalidFieldError:
            return False
        return signature == canonical and signer == self.identities[index - 1]


# --- messages ---------------------------------------------------------------------------------------------------------


def _check_whole(name: str, parts: bytes, size: int) -> None:
    """Check that bytes are one part for each key: of how many keys is for the protocol to check."""
    if not parts or len(parts) % size:
        raise InvalidFieldError(name, "is too short or too long")


@frozen(kw_only=True)
class CommitmentMessage(Message):
    """Round 1, to everybody: a hash commitment to the opening that follows."""

    KIND = 1

    sender: Index
    commitment: Digest


@frozen(kw_only=True)
class OpeningMessage(Message):
    """
    Round 2, to everybody: key after key Feldman commitments, and a proof of possession of the first of them.

    Whether they are t for each key is not read.
    """

    KIND = 2

    sender: Index
    points: Annotated[tuple[bytes, ...], counted(POINT_BYTES)]
    proofs: Annotated[bytes, up_to_last(NONCE_BYTES)]
    nonce: Nonce

    def __attrs_post_init__(self) -> None:
        _check_whole("opening", self.proofs, PROOF_BYTES)


@frozen(kw_only=True, repr=False)
class ShareMessage(Message):
    """
    Round 2, to one party only: its share of each key, signed along with the commitment.

    So a wrong one can be shown to others.
    """

    KIND = 3

    sender: Index
    recipient: Index
    share: Annotated[bytes, up_to_last(DIGEST_BYTES + SIGNATURE_BYTES)]
    commitment: Digest
    signature: Signature = b""

    def __attrs_post_init__(self) -> None:
        _check_whole("share", self.share, SCALAR_BYTES)

    def __repr__(self) -> str:
        return f"ShareMessage(sender={self.sender}, recipient={self.recipient}, share=***)"

    def digest(self, context: bytes) -> bytes:
        return tagged_hash(
            "dan-dkg/1 share", context, self.sender, self.recipient, self.share, self.commitment
        )


@frozen(kw_only=True)
class EchoMessage(Message):
    """Round 3, to everybody: the hash of all that was broadcast, signed."""

    KIND = 4

    sender: Index
    transcript_hash: Digest
    signature: Signature = b""

    def digest(self, context: bytes) -> bytes:
        return tagged_hash("dan-dkg/1 echo", context, self.transcript_hash)


@frozen(kw_only=True, repr=False)
class ComplaintMessage(Message):
    """A share that does not fit its dealer's commitments, shown to others: its key generation has failed anyway."""

    KIND = 5

    sender: Index
    share_message: Annotated[bytes, sized()]
    opening: Annotated[bytes, up_to_last(SIGNATURE_BYTES)]
    signature: Signature = b""

    def __repr__(self) -> str:
        return f"ComplaintMessage(sender={self.sender}, share_message=***)"

    def digest(self, context: bytes) -> bytes:
        return tagged_hash("dan-dkg/1 complaint", context, self.sender, self.share_message, self.opening)


Signed = TypeVar("Signed", ShareMessage, EchoMessage, ComplaintMessage)


def sign_message(message: Signed, context: bytes, sign: Callable[[bytes], bytes]) -> Signed:
    return evolve(message, signature=sign(message.digest(context)))


def is_signed(message: Signed, session: Session) -> bool:
    return session.is_signed_by(message.sender, message.digest(session.context), message.signature)


def opening_commitment(opening: bytes) -> bytes:
    return tagged_hash("dan-dkg/1 commitment", opening)


def transcript_hash(context: bytes, commitments: Mapping[int, bytes], openings: Mapping[int, bytes]) -> bytes:
    parts = [part for index in sorted(openings) for part in (commitments[index], openings[index])]
    return tagged_hash("dan-dkg/1 transcript", context, *parts)

"""
The messages of key generation, and the session that its parties agree on beforehand. The checks are in ``dkg``.

Everything that is signed is bound to the session's context: a signature holds for one session, sender and recipient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, TypeVar

from attrs import evolve, field, frozen

from dan_async._values import from_hex
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.crypto.signature import parse_signature, recover_address
from dan_async.devnet.mpc.field import PROOF_BYTES
from dan_async.devnet.mpc.framing import (
    POINT_BYTES,
    SCALAR_BYTES,
    SIGNATURE_BYTES,
    Digest,
    EncodedScalar,
    Index,
    Message,
    Nonce,
    Signature,
    check_session_id,
    counted,
    fixed,
    up_to_last,
)
from dan_async.errors import InvalidFieldError
from dan_async.types import OperatorAddress

#: Kind, context, sender, recipient, share, commitment, signature.
_SHARE_MESSAGE_BYTES = 1 + DIGEST_BYTES + 2 + SCALAR_BYTES + DIGEST_BYTES + SIGNATURE_BYTES


# --- the session ------------------------------------------------------------------------------------------------------


def _checksummed(identities: Iterable[str]) -> tuple[OperatorAddress, ...]:
    return tuple(OperatorAddress(parse_address("identities", identity)) for identity in identities)


@frozen(kw_only=True)
class Session:
    """A session id that is never used twice, t and n, and the addresses of the identity keys of parties 1 to n."""

    session_id: bytes
    threshold: Threshold
    identities: tuple[OperatorAddress, ...] = field(converter=_checksummed)
    #: H("dan-dkg/1 context", session id, t, n, each identity): in every hash, proof and signature of the session.
    context: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_session_id(self.session_id)
        if len(self.identities) != self.threshold.n:
            raise InvalidFieldError("identities", f"must be {self.threshold.n}, one for each party")
        if len(set(self.identities)) != len(self.identities):
            raise InvalidFieldError("identities", "must differ from each other")
        raw = (from_hex(identity, field="identities") for identity in self.identities)
        context = tagged_hash("dan-dkg/1 context", self.session_id, self.threshold.t, self.threshold.n, *raw)
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


@frozen(kw_only=True)
class CommitmentMessage(Message):
    """Round 1, to everybody: a hash commitment to the opening that follows."""

    KIND = 1

    sender: Index
    commitment: Digest


@frozen(kw_only=True)
class OpeningMessage(Message):
    """Round 2, to everybody: Feldman commitments, proof of possession of the first one. Whether they are t is not read."""

    KIND = 2

    sender: Index
    points: Annotated[tuple[bytes, ...], counted(POINT_BYTES)]
    proof: Annotated[bytes, fixed(PROOF_BYTES)]
    nonce: Nonce


@frozen(kw_only=True, repr=False)
class ShareMessage(Message):
    """Round 2, to one party only: its share, signed along with the commitment so that a wrong one can be shown to others."""

    KIND = 3

    sender: Index
    recipient: Index
    share: EncodedScalar
    commitment: Digest
    signature: Signature = b""

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
    share_message: Annotated[bytes, fixed(_SHARE_MESSAGE_BYTES)]
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

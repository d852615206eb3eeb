"""
The messages of key generation, as bytes.

Every message begins with 34 bytes: its kind, the session's context (32 bytes, see ``Session``) and the sender's index.
Lengths are fixed or follow from a count, so that each message has one encoding; anything else is refused::

    commitment  header, commitment (32)
    opening     header, count (1), count commitment points (33 each), proof of possession (65), nonce (32)
    share       header, recipient (1), share (32), sender's commitment (32), sender's signature (65)
    echo        header, transcript hash (32), sender's signature (65)
    complaint   header, the share message (164), the opening that goes with it, sender's signature (65)

Reading a message believes nothing in it; the checks are in ``dkg`` and ``abort``.

What all parties of one key generation agree on beforehand, and who signed what in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

from attrs import field, frozen

from dan_async._values import from_hex
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash, u32
from dan_async.crypto.signature import parse_signature, recover_address
from dan_async.devnet.mpc.field import POINT_BYTES, PROOF_BYTES, SCALAR_BYTES
from dan_async.errors import InvalidFieldError
from dan_async.types import OperatorAddress

SESSION_ID_BYTES = 32


def _check_session_id(_: Any, __: Any, value: Any) -> None:
    if not isinstance(value, bytes) or len(value) != SESSION_ID_BYTES:
        raise InvalidFieldError("session_id", f"must be {SESSION_ID_BYTES} bytes")


def _checksummed(identities: Iterable[str]) -> tuple[OperatorAddress, ...]:
    return tuple(OperatorAddress(parse_address("identities", identity)) for identity in identities)


@frozen(kw_only=True)
class Session:
    """
    What all parties of one key generation agree on beforehand.

    Args:
        session_id: 32 bytes, never used twice.
        threshold: t and n.
        identities: The addresses of the parties' identity keys, in the order of their indices 1 to n.

    Raises:
        InvalidFieldError: The session id is not 32 bytes, an identity is no address or appears twice, or there are not
            exactly n of them.
    """

    session_id: bytes = field(validator=_check_session_id)
    threshold: Threshold
    identities: tuple[OperatorAddress, ...] = field(converter=_checksummed)
    #: H("dan-dkg/1 context", session id, t, n, each identity): in every hash, proof and signature of the session.
    context: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if len(self.identities) != self.threshold.n:
            raise InvalidFieldError("identities", f"must be {self.threshold.n}, one for each party")
        if len(set(self.identities)) != len(self.identities):
            raise InvalidFieldError("identities", "must differ from each other")
        raw = (from_hex(identity, field="identities") for identity in self.identities)
        context = tagged_hash(
            "dan-dkg/1 context", self.session_id, u32(self.threshold.t), u32(self.threshold.n), *raw
        )
        object.__setattr__(self, "context", context)

    def is_signed_by(self, index: int, digest: bytes, signature: bytes) -> bool:
        """
        Tell whether a party signed a digest.

        Args:
            index: The party's index; nobody has signed for an index outside of 1 to n.
            digest: 32 bytes.
            signature: 65 bytes. Only the canonical form (low s, v 27 or 28) counts, so that a signature has one form.
        """
        if not 1 <= index <= self.threshold.n:
            return False
        try:
            canonical = parse_signature(signature)
            signer = OperatorAddress(recover_address(digest, canonical))
        except InvalidFieldError:
            return False
        return signature == canonical and signer == self.identities[index - 1]


NONCE_BYTES = 32

SIGNATURE_BYTES = 65

_HEADER_BYTES = 1 + DIGEST_BYTES + 1

_SHARE_MESSAGE_BYTES = _HEADER_BYTES + 1 + SCALAR_BYTES + DIGEST_BYTES + SIGNATURE_BYTES


class Kind(IntEnum):
    """First byte of a message."""

    COMMITMENT = 1
    OPENING = 2
    SHARE = 3
    ECHO = 4
    COMPLAINT = 5


class _Reader:
    """Takes a message apart, refusing what is too short, too long, of another kind, session or sender."""

    def __init__(self, message: bytes, kind: Kind, context: bytes) -> None:
        name = kind.name.lower()
        if not isinstance(message, bytes):
            raise InvalidFieldError(name, "must be bytes")
        self._name, self._data, self._at = name, message, 0
        if self.take(1)[0] != kind:
            raise InvalidFieldError(name, "is a message of another kind")
        if self.take(DIGEST_BYTES) != context:
            raise InvalidFieldError(name, "belongs to another session")
        self.sender = self.take(1)[0]

    def take(self, length: int) -> bytes:
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise InvalidFieldError(self._name, "is too short")
        self._at += length
        return part

    def take_up_to(self, tail: int) -> bytes:
        return self.take(max(0, len(self._data) - self._at - tail))

    def end(self) -> None:
        if self._at != len(self._data):
            raise InvalidFieldError(self._name, "is too long")


def _header(kind: Kind, context: bytes, sender: int) -> bytes:
    return bytes((kind,)) + context + bytes((sender,))


@frozen(kw_only=True)
class CommitmentMessage:
    """Round 1, to everybody: a hash commitment to the opening that follows."""

    sender: int
    commitment: bytes

    def encode(self, context: bytes) -> bytes:
        """Give the message's bytes."""
        return _header(Kind.COMMITMENT, context, self.sender) + self.commitment

    @classmethod
    def decode(cls, message: bytes, context: bytes) -> CommitmentMessage:
        """
        Read the message.

        Raises:
            InvalidFieldError: It is malformed or of another session.
        """
        reader = _Reader(message, Kind.COMMITMENT, context)
        commitment = reader.take(DIGEST_BYTES)
        reader.end()
        return cls(sender=reader.sender, commitment=commitment)


@frozen(kw_only=True)
class OpeningMessage:
    """Round 2, to everybody: Feldman commitments (still as bytes), proof of possession of the first one, nonce."""

    sender: int
    points: tuple[bytes, ...]
    proof: bytes
    nonce: bytes

    def encode(self, context: bytes) -> bytes:
        """Give the message's bytes."""
        head = _header(Kind.OPENING, context, self.sender) + bytes((len(self.points),))
        return head + b"".join(self.points) + self.proof + self.nonce

    @classmethod
    def decode(cls, message: bytes, context: bytes) -> OpeningMessage:
        """
        Read the message. The number of points is what it says; whether that is t is for the caller to check.

        Raises:
            InvalidFieldError: It is malformed or of another session.
        """
        reader = _Reader(message, Kind.OPENING, context)
        points = tuple(reader.take(POINT_BYTES) for _ in range(reader.take(1)[0]))
        proof = reader.take(PROOF_BYTES)
        nonce = reader.take(NONCE_BYTES)
        reader.end()
        return cls(sender=reader.sender, points=points, proof=proof, nonce=nonce)


def opening_commitment(opening: bytes) -> bytes:
    """Give H("dan-dkg/1 commitment", opening message): the message has session and sender in it, so the hash binds both."""
    return tagged_hash("dan-dkg/1 commitment", opening)


@frozen(kw_only=True, repr=False)
class ShareMessage:
    """Round 2, to one party only: its share, signed so that a wrong one can be shown to others. Its repr shows no share."""

    sender: int
    recipient: int
    share: bytes
    commitment: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"ShareMessage(sender={self.sender}, recipient={self.recipient}, share=***)"

    @staticmethod
    def digest(context: bytes, *, sender: int, recipient: int, share: bytes, commitment: bytes) -> bytes:
        """Give H("dan-dkg/1 share", context, sender, recipient, share, sender's commitment): what the sender signs."""
        return tagged_hash("dan-dkg/1 share", context, u32(sender), u32(recipient), share, commitment)

    def is_signed(self, session: Session) -> bool:
        """Tell whether the sender's identity key signed it."""
        digest = self.digest(
            session.context,
            sender=self.sender,
            recipient=self.recipient,
            share=self.share,
            commitment=self.commitment,
        )
        return session.is_signed_by(self.sender, digest, self.signature)

    def encode(self, context: bytes) -> bytes:
        """Give the message's bytes."""
        head = _header(Kind.SHARE, context, self.sender) + bytes((self.recipient,))
        return head + self.share + self.commitment + self.signature

    @classmethod
    def decode(cls, message: bytes, context: bytes) -> ShareMessage:
        """
        Read the message.

        Raises:
            InvalidFieldError: It is malformed or of another session.
        """
        reader = _Reader(message, Kind.SHARE, context)
        found = cls(
            sender=reader.sender,
            recipient=reader.take(1)[0],
            share=reader.take(SCALAR_BYTES),
            commitment=reader.take(DIGEST_BYTES),
            signature=reader.take(SIGNATURE_BYTES),
        )
        reader.end()
        return found


@frozen(kw_only=True)
class EchoMessage:
    """Round 3, to everybody: the hash of all that was broadcast, signed."""

    sender: int
    transcript_hash: bytes
    signature: bytes

    @staticmethod
    def digest(context: bytes, transcript_hash: bytes) -> bytes:
        """Give H("dan-dkg/1 echo", context, transcript hash): what every party signs."""
        return tagged_hash("dan-dkg/1 echo", context, transcript_hash)

    def is_signed(self, session: Session) -> bool:
        """Tell whether the sender's identity key signed it."""
        return session.is_signed_by(
            self.sender, self.digest(session.context, self.transcript_hash), self.signature
        )

    def encode(self, context: bytes) -> bytes:
        """Give the message's bytes."""
        return _header(Kind.ECHO, context, self.sender) + self.transcript_hash + self.signature

    @classmethod
    def decode(cls, message: bytes, context: bytes) -> EchoMessage:
        """
        Read the message.

        Raises:
            InvalidFieldError: It is malformed or of another session.
        """
        reader = _Reader(message, Kind.ECHO, context)
        found = cls(
            sender=reader.sender,
            transcript_hash=reader.take(DIGEST_BYTES),
            signature=reader.take(SIGNATURE_BYTES),
        )
        reader.end()
        return found


def transcript_hash(context: bytes, commitments: Mapping[int, bytes], openings: Mapping[int, bytes]) -> bytes:
    """Give H("dan-dkg/1 transcript", context, commitment and opening message of each party in the order of indices)."""
    parts = [part for index in sorted(openings) for part in (commitments[index], openings[index])]
    return tagged_hash("dan-dkg/1 transcript", context, *parts)


@frozen(kw_only=True, repr=False)
class ComplaintMessage:
    """
    What a party shows to others when a share does not fit its dealer's commitments.

    It lays the share open. The key generation it belongs to has failed, so that the share is of no use to anybody.
    """

    sender: int
    share_message: bytes
    opening: bytes
    signature: bytes

    def __repr__(self) -> str:
        return f"ComplaintMessage(sender={self.sender}, share_message=***)"

    @staticmethod
    def digest(context: bytes, *, sender: int, share_message: bytes, opening: bytes) -> bytes:
        """Give H("dan-dkg/1 complaint", context, sender, share message, opening): what the complaining party signs."""
        return tagged_hash("dan-dkg/1 complaint", context, u32(sender), share_message, opening)

    def is_signed(self, session: Session) -> bool:
        """Tell whether the complaining party's identity key signed it."""
        digest = self.digest(
            session.context, sender=self.sender, share_message=self.share_message, opening=self.opening
        )
        return session.is_signed_by(self.sender, digest, self.signature)

    def encode(self, context: bytes) -> bytes:
        """Give the message's bytes."""
        return (
            _header(Kind.COMPLAINT, context, self.sender) + self.share_message + self.opening + self.signature
        )

    @classmethod
    def decode(cls, message: bytes, context: bytes) -> ComplaintMessage:
        """
        Read the message. What it quotes is not read yet.

        Raises:
            InvalidFieldError: It is malformed or of another session.
        """
        reader = _Reader(message, Kind.COMPLAINT, context)
        share_message = reader.take(_SHARE_MESSAGE_BYTES)
        opening = reader.take_up_to(SIGNATURE_BYTES)
        signature = reader.take(SIGNATURE_BYTES)
        reader.end()
        return cls(sender=reader.sender, share_message=share_message, opening=opening, signature=signature)

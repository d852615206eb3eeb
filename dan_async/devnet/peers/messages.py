"""What nodes say to each other over a link: pure; docs/devnet.md has the bytes."""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from dan_async._json import dump, load
from dan_async._values import check_int, check_text, from_hex, to_hex
from dan_async.config import MAX_PARTIES
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import members

_SESSION_LENGTH = 32

_HEAD_LENGTH = 1 + _SESSION_LENGTH + 1

_LONGEST_REASON = 500


class Kind(IntEnum):
    """What a message is about."""

    KEYGEN = 1
    ABORT = 2
    #: Which set-up for signing the sender has: the session id is the set-up's, or zeros. Round 1 asks for an answer.
    PAIR_STATUS = 3
    PAIR_SETUP = 4
    PRESIGN = 5
    #: The sender takes part in the session, and is still at work.
    ALIVE = 6


@frozen
class PeerMessage:
    """
    One message of one session.

    Args:
        kind: What it is about.
        session_id: The session, 32 bytes.
        round: The round within it; 0 for an abort, 0 or 1 for a status.
        body: What the round's step made, or the abort's text.
    """

    kind: Kind
    session_id: bytes
    round: int
    body: bytes

    def encode(self) -> bytes:
        """Give kind (1 byte), session id (32), round (1), body."""
        return bytes((self.kind,)) + self.session_id + bytes((self.round,)) + self.body

    @classmethod
    def decode(cls, frame: bytes) -> PeerMessage:
        """
        Read a frame.

        Raises:
            ProtocolError: It is too short or of an unknown kind.
        """
        if len(frame) < _HEAD_LENGTH:
            raise ProtocolError("a message from the peer is too short")
        try:
            kind = Kind(frame[0])
        except ValueError:
            raise ProtocolError("a message from the peer is of an unknown kind") from None
        return cls(kind, frame[1 : 1 + _SESSION_LENGTH], frame[_HEAD_LENGTH - 1], frame[_HEAD_LENGTH:])


@frozen
class AbortNotice:
    """
    Why a party gives a session up.

    Args:
        reason: In words.
        culprits: The indices of the parties that it blames; only those that prove it themselves, or that the
            complaint proves guilty, are believed to be.
        complaint: Evidence in the form that ``mpc`` makes and checks, if there is any.
    """

    reason: str
    culprits: tuple[int, ...] = ()
    complaint: bytes | None = None

    def encode(self) -> bytes:
        """Write it as JSON."""
        text = dump(
            {
                "reason": self.reason[:_LONGEST_REASON],
                "culprits": list(self.culprits),
                "complaint": None if self.complaint is None else to_hex(self.complaint),
            }
        )
        return text.encode()

    @classmethod
    def decode(cls, body: bytes) -> AbortNotice:
        """
        Read it.

        Raises:
            ProtocolError: It is malformed.
        """
        try:
            found = members(load(body), "abort", ("reason", "culprits", "complaint"))
            complaint, culprits = found["complaint"], found["culprits"]
            if not isinstance(culprits, list) or len(culprits) > MAX_PARTIES:
                raise InvalidFieldError("culprits", "must be a list of indices")
            return cls(
                reason=check_text("reason", found["reason"], least=0, most=_LONGEST_REASON),
                culprits=tuple(check_int("culprits", c, least=1, most=MAX_PARTIES) for c in culprits),
                complaint=None if complaint is None else from_hex(complaint, field="complaint", prefix=True),
            )
        except InvalidFieldError as error:
            raise ProtocolError(f"the peer's abort is malformed: {error.message}") from error

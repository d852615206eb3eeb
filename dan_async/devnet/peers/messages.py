"""The messages between nodes; docs/devnet.md has the bytes. Pure."""

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
    """The subject of a message."""

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
    """One message of one session."""

    kind: Kind
    #: 32 bytes.
    session_id: bytes
    #: 0 for an abort, 0 or 1 for a status.
    round: int
    #: The message of the protocol's step, or the abort's text.
    body: bytes

    def encode(self) -> bytes:
        """Return kind (1 byte), session id (32), round (1), body."""
        return bytes((self.kind,)) + self.session_id + bytes((self.round,)) + self.body

    @classmethod
    def decode(cls, frame: bytes) -> PeerMessage:
        """Read a frame; raise ProtocolError if it is too short or of an unknown kind."""
        if len(frame) < _HEAD_LENGTH:
            raise ProtocolError("a message from the peer is too short")
        try:
            kind = Kind(frame[0])
        except ValueError:
            raise ProtocolError("a message from the peer is of an unknown kind") from None
        return cls(kind, frame[1 : 1 + _SESSION_LENGTH], frame[_HEAD_LENGTH - 1], frame[_HEAD_LENGTH:])


@frozen
class AbortNotice:
    """A party's reason to give a session up; see ``RoundSession.judge`` for how far it is believed."""

    reason: str
    #: The indices of the parties that it blames.
    culprits: tuple[int, ...] = ()
    #: Evidence in the form that ``mpc`` makes and checks.
    complaint: bytes | None = None

    def encode(self) -> bytes:
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
        """Read it; raise ProtocolError if it is malformed."""
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

"""The messages between nodes; docs/reference/devnet.md has the bytes. Pure."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from attrs import evolve, frozen

from dan_async._json import load
from dan_async._values import from_hex, to_hex
from dan_async.config import MAX_PARTIES
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import Form, decode, encode, list_of, number, string, wire

_SESSION_LENGTH = 32
_HEAD_LENGTH = 1 + _SESSION_LENGTH + 1
_LONGEST_REASON = 500

#: Bytes, or null.
_EVIDENCE: Form[bytes | None] = Form(
    lambda name, value: None if value is None else from_hex(value, field=name, prefix=True),
    lambda evidence: None if evidence is None else to_hex(evidence),
)


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
    #: Round 0 asks for the certificate of a key generation, round 1 passes it on. In the session's place is the request id.
    CERTIFICATE = 7


@frozen
class PeerMessage:
    """One message of one session."""

    kind: Kind
    #: 32 bytes.
    session_id: bytes
    #: 0 or 1 for a status; for an abort and a sign of life, the kind of their session.
    round: int
    #: The message of the protocol's step, or the abort's text.
    body: bytes

    @property
    def session(self) -> tuple[Kind, bytes]:
        """The session that it is about: ids of different kinds have nothing to do with each other."""
        is_about_one = self.kind in {Kind.ABORT, Kind.ALIVE}
        return Kind(self.round) if is_about_one else self.kind, self.session_id

    def encode(self) -> bytes:
        """Return kind (1 byte), session id (32), round (1), body."""
        return bytes((self.kind,)) + self.session_id + bytes((self.round,)) + self.body

    @classmethod
    def decode(cls, frame: bytes) -> PeerMessage:
        """Read a frame; raise ProtocolError if it is too short or of an unknown kind."""
        if len(frame) < _HEAD_LENGTH:
            raise ProtocolError("a message from the peer is too short")
        session_id = frame[1 : 1 + _SESSION_LENGTH]
        try:
            message = cls(Kind(frame[0]), session_id, frame[_HEAD_LENGTH - 1], frame[_HEAD_LENGTH:])
            _ = message.session  # raises if its kind is not known
        except ValueError:
            raise ProtocolError("a message from the peer is of an unknown kind") from None
        return message


@frozen
class AbortNotice:
    """A party's reason to give a session up; see ``RoundSession.judge`` for how far it is believed."""

    reason: Annotated[str, wire("reason", string(_LONGEST_REASON, least=0))]
    #: The indices of the parties that it blames.
    culprits: Annotated[
        tuple[int, ...], wire("culprits", list_of(number(1, MAX_PARTIES), 0, MAX_PARTIES))
    ] = ()
    #: Evidence in the form that ``mpc`` makes and checks.
    complaint: Annotated[bytes | None, wire("complaint", _EVIDENCE)] = None

    def encode(self) -> bytes:
        return encode(evolve(self, reason=self.reason[:_LONGEST_REASON])).encode()

    @classmethod
    def decode(cls, body: bytes) -> AbortNotice:
        """Read it; raise ProtocolError if it is malformed."""
        try:
            return decode(cls, load(body), "abort")
        except InvalidFieldError as error:
            raise ProtocolError(f"the peer's abort is malformed: {error.message}") from error

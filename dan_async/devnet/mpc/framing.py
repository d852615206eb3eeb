"""
The one framing of all messages between parties: declared fields, each with exactly one encoding.

A message is its kind (one byte), a prefix that both sides know beforehand (the session's context; in signing also sender
and recipient), then its fields in the order of the class: nothing can be hidden, and nothing left over. Whether points are
on the curve and scalars below the order is for the protocols to check, each with its own blame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import Annotated, Any, ClassVar, Self, get_origin, get_type_hints

from attrs import frozen

from dan_async.crypto.hashes import DIGEST_BYTES
from dan_async.errors import InvalidFieldError, ProtocolError

SESSION_ID_BYTES = 32
NONCE_BYTES = 32
POINT_BYTES = 33
SCALAR_BYTES = 32
SIGNATURE_BYTES = 65


def check_session_id(value: object) -> None:
    if not isinstance(value, bytes) or len(value) != SESSION_ID_BYTES:
        raise InvalidFieldError("session_id", f"must be {SESSION_ID_BYTES} bytes")


class _Reader:
    """Takes bytes apart from left to right, and never beyond their end."""

    def __init__(self, name: str, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise InvalidFieldError(name, "must be bytes")
        self._name, self._data, self._at = name, data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise InvalidFieldError(self._name, "is too short")
        self._at += length
        return part

    def end(self) -> None:
        if self._at != len(self._data):
            raise InvalidFieldError(self._name, "is too long")


# --- forms of fields --------------------------------------------------------------------------------------------------


@frozen
class Form:
    """How a field is read and written."""

    read: Callable[[_Reader], Any]
    write: Callable[[Any], bytes] = bytes


#: A number from 0 to 255.
BYTE = Form(lambda reader: reader.take(1)[0], lambda number: bytes((number,)))


def fixed(length: int) -> Form:
    return Form(methodcaller("take", length))


def counted(length: int) -> Form:
    """A count of one byte, then so many entries of one length."""
    return Form(
        lambda reader: tuple(reader.take(length) for _ in range(reader.take(1)[0])),
        lambda entries: bytes((len(entries),)) + b"".join(entries),
    )


def sized() -> Form:
    """A length of two bytes, then so many bytes."""
    return Form(
        lambda reader: reader.take(int.from_bytes(reader.take(2), "big")),
        lambda value: len(value).to_bytes(2, "big") + value,
    )


def up_to_last(length: int) -> Form:
    """Everything before the last so many bytes, which are the fields that follow."""
    return Form(lambda reader: reader.take(max(0, reader.left - length)))


Index = Annotated[int, BYTE]
Digest = Annotated[bytes, fixed(DIGEST_BYTES)]
Nonce = Annotated[bytes, fixed(NONCE_BYTES)]
EncodedPoint = Annotated[bytes, fixed(POINT_BYTES)]
EncodedScalar = Annotated[bytes, fixed(SCALAR_BYTES)]
Signature = Annotated[bytes, fixed(SIGNATURE_BYTES)]


# --- records and messages ---------------------------------------------------------------------------------------------


class Record:
    """Fields one after the other. Subclasses are attrs classes each of whose fields is annotated with its form."""

    __slots__ = ()

    _name: ClassVar[str]
    _forms: ClassVar[Mapping[str, Form]]

    def __init_subclass__(cls) -> None:
        hints = get_type_hints(cls, include_extras=True)
        cls._name = cls.__name__.removesuffix("Message").lower()
        cls._forms = {
            name: hint.__metadata__[0] for name, hint in hints.items() if get_origin(hint) is Annotated
        }

    def pack(self) -> bytes:
        return b"".join([form.write(getattr(self, name)) for name, form in self._forms.items()])

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """Read the fields; raise InvalidFieldError if the bytes are anything but them."""
        return cls._read(_Reader(cls._name, data))

    @classmethod
    def _read(cls, reader: _Reader) -> Self:
        found = {name: form.read(reader) for name, form in cls._forms.items()}
        reader.end()
        make: Callable[..., Self] = cls
        return make(**found)


class Message(Record):
    """A record behind its header: its kind, and the prefix that both sides know beforehand."""

    __slots__ = ()

    #: The first byte.
    KIND: ClassVar[int]

    def encode(self, prefix: bytes) -> bytes:
        return bytes((self.KIND,)) + prefix + self.pack()

    @classmethod
    def decode(cls, data: bytes, prefix: bytes) -> Self:
        """Read a message; raise InvalidFieldError if it is malformed, of another kind or of another session."""
        reader = _Reader(cls._name, data)
        if reader.take(1)[0] != cls.KIND:
            raise InvalidFieldError(cls._name, "is a message of another kind")
        if reader.take(len(prefix)) != prefix:
            raise InvalidFieldError(cls._name, "belongs to another session")
        return cls._read(reader)


# --- parts ------------------------------------------------------------------------------------------------------------


def join_parts(parts: Sequence[bytes]) -> bytes:
    """Put parts one after the other, each preceded by its length as a 32-bit big-endian number."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def split_parts(body: bytes, count: int) -> list[bytes]:
    """Take parts apart again; raise ProtocolError if they are not exactly *count*."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        if end > len(body) or len(parts) == count:
            raise ProtocolError("the parts of a peer's message do not add up")
        parts.append(body[at + 4 : end])
        at = end
    if len(parts) != count:
        raise ProtocolError("the parts of a peer's message do not add up")
    return parts

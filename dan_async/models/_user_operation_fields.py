"""Values of user operations as the clients write them: numbers as int, hex or decimal text; bytes with or without 0x."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from attrs import frozen

from dan_async._hex import from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.types import Address

#: Longest member of variable length, in bytes; no block takes a longer one.
_MOST_BYTES = 128 * 1024

_SHOWN_BYTES = 16
_WORD = 32


def data(value: object, name: str) -> bytes:
    """Read bytes, given as bytes or as hex text."""
    found = value if isinstance(value, bytes) else from_hex(value, field=name)
    if len(found) > _MOST_BYTES:
        raise InvalidFieldError(name, f"must hold at most {_MOST_BYTES} bytes")
    return found


def word(value: object, name: str) -> bytes:
    """Read 32 bytes."""
    found = data(value, name)
    if len(found) != _WORD:
        raise InvalidFieldError(name, f"must hold {_WORD} bytes, not {len(found)}")
    return found


def address(value: object, name: str) -> Address:
    """Read an address."""
    return parse_address(name, value)


def address_and_data(least: int) -> Callable[[Any, str], bytes]:
    """Make a reader of bytes that begin with an address and take so many bytes at least; or are none."""

    def read(value: object, name: str) -> bytes:
        found = data(value, name)
        if found and len(found) < least:
            raise InvalidFieldError(name, f"must be empty or hold {least} bytes or more, an address first")
        return found

    return read


def shorten(value: bytes | None) -> str:
    """Show the beginning of bytes, for a repr."""
    if value is None or len(value) <= _SHOWN_BYTES:
        return "None" if value is None else to_hex(value)
    return f"{to_hex(value[:_SHOWN_BYTES])}… ({len(value)} bytes)"


@frozen
class Member:
    """
    A member of the JSON-RPC form.

    Args:
        wire: Its name there.
        read: Reads its value; takes the value and the name for errors.
        needed: Whether it must be there.
    """

    wire: str
    read: Callable[[Any, str], Any]
    needed: bool = True


class JsonRpcForm:
    """What the forms of a user operation have in common: fields that are normalised, and the way to JSON and back."""

    __slots__ = ()

    #: Our field name -> its member, in the order of the JSON-RPC form.
    members: ClassVar[Mapping[str, Member]]

    def __attrs_post_init__(self) -> None:
        for ours, member in self.members.items():
            value = getattr(self, ours)
            if value is not None or member.needed:
                object.__setattr__(self, ours, member.read(value, ours))

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """
        Read the camelCase form of JSON-RPC, strictly.

        Args:
            found: A mapping, as ``json.loads`` gives it. A null counts as left out.

        Raises:
            InvalidFieldError: A member is missing, unknown or wrong; unknown names are not repeated.
        """
        if not isinstance(found, Mapping):
            raise InvalidFieldError("userOperation", f"must be a JSON object, not {type(found).__name__}")
        values: dict[str, Any] = {}
        for ours, member in cls.members.items():
            value = found.get(member.wire)
            if value is not None:
                values[ours] = member.read(value, member.wire)
            elif member.needed:
                raise InvalidFieldError(member.wire, "is missing from the user operation")
        known = [member.wire for member in cls.members.values()]
        if not set(found) <= set(known):
            raise InvalidFieldError(
                "userOperation",
                "has members that this form of user operation does not know",
                hint=f"Members: {', '.join(known)}",
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Give the camelCase form of JSON-RPC: quantities and bytes as 0x hex; what is None is left out."""
        values = ((member.wire, getattr(self, ours)) for ours, member in self.members.items())
        return {wire: _wire_value(value) for wire, value in values if value is not None}


def _wire_value(value: bytes | int | str) -> str:
    if isinstance(value, bytes):
        return to_hex(value)
    return hex(value) if isinstance(value, int) else value

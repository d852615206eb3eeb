"""Reads members of decoded JSON objects, strictly: nothing missing, nothing unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.types import Json
from dan_async.wire.json_text import load

__all__ = ["load_text", "members", "only"]

T = TypeVar("T")


def load_text(text: object) -> Json:
    """
    Read a JSON text frame.

    Raises:
        ProtocolError: It is binary, or not a JSON text that we would write.
    """
    if not isinstance(text, str):
        raise ProtocolError(f"the frame must be text, not {type(text).__name__}")
    return load(text)


def members(
    value: Json, name: str, required: Iterable[str], optional: Iterable[str] = ()
) -> Mapping[str, Any]:
    """
    Check that a decoded value is an object with these members and no others, in any order.

    Args:
        value: The decoded value.
        name: What it is called, for the error.
        required: Members that must be there.
        optional: Members that may be there.

    Raises:
        InvalidFieldError: It is not such an object. Unknown names are not repeated: they came from outside.
    """
    if not isinstance(value, dict):
        raise InvalidFieldError(name, "must be a JSON object")
    known = 0
    for key in required:
        if key not in value:
            raise InvalidFieldError(f"{name}.{key}", "is missing")
        known += 1
    known += sum(key in value for key in optional)
    if len(value) != known:
        raise InvalidFieldError(name, "has members that this revision does not know")
    return value


def only(values: Sequence[T], name: str) -> T:
    """
    Give the one value there must be, in revisions that take one setup at a time.

    Raises:
        InvalidFieldError: There is none, or more than one.
    """
    if len(values) != 1:
        raise InvalidFieldError(name, "must be exactly one in this revision")
    return values[0]

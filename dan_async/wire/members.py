"""Reads members of decoded JSON objects, strictly: nothing missing, nothing unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_text
from dan_async.types import Json

__all__ = ["members", "text_member"]


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


def text_member(value: Json, name: str, *, least: int = 1, most: int = 1024) -> str:
    """Check that a decoded value is text that UTF-8 can carry, within these lengths."""
    return check_text(name, value, least=least, most=most)

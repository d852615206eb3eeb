"""Reads members of decoded JSON objects, strictly: nothing missing, nothing unknown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dan_async._json import load
from dan_async._values import check_text
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.types import Json

#: Longest setup text that is signed.
_LONGEST_SETUP = 4 * 1024 * 1024


def encode_base64(field: str, text: str) -> str:
    """
    Give standard Base64 of the UTF-8 text. Done once: what is signed is the encoded form, as it is sent.

    Raises:
        InvalidFieldError: UTF-8 cannot carry the text.
    """
    return base64.b64encode(check_text(field, text, least=0, most=512 * 1024).encode()).decode()


def decode_base64(field: str, text: object) -> str:
    """
    Read standard Base64 of UTF-8 text, in its one canonical form.

    Raises:
        InvalidFieldError: It is not that.
    """
    encoded = check_text(field, text, least=0, most=1024 * 1024)
    try:
        raw = base64.b64decode(encoded, validate=True)
        decoded = raw.decode()
    except ValueError:  # not ASCII, not Base64, or not UTF-8
        raise InvalidFieldError(field, "must be standard Base64 of UTF-8 text") from None
    if base64.b64encode(raw).decode() != encoded:
        raise InvalidFieldError(field, "must be Base64 in its canonical form")
    return decoded


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

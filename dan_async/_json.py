"""
JSON exactly as JavaScript's JSON.stringify writes it, and a reader that refuses what we would never write.

Signatures cover texts, so a text is made once and sent as it was signed. Floats are refused in both directions: other
languages write 1.0 and -0.0 differently, and no protocol needs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

from dan_async._values import MAX_SAFE_INT
from dan_async.errors import ProtocolError
from dan_async.types import Json

#: Deepest nesting of arrays and objects that is read.
MAX_DEPTH = 64

#: Most commas and brackets outside of strings, and so values: a MiB of nothing else would keep a loop busy for 0.6 s.
MAX_MARKS = 64 * 1024


def _refuse_float(_: str) -> Any:
    raise ProtocolError("the JSON text holds a number that is not a whole number")


def _to_int(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > MAX_SAFE_INT:
        raise ProtocolError("the JSON text holds a whole number beyond 2**53 - 1")
    return int(digits)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("the JSON text holds an object with a repeated key")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates,
    parse_float=_refuse_float,
    parse_constant=_refuse_float,
    parse_int=_to_int,
)

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False)


#: Writes a value without spaces, keys in their order, non-ASCII characters as they are.
dump: Callable[[Json], str] = _ENCODER.encode

#: Writes one string: what JSONEncoder itself uses with ensure_ascii=False.
quote: Callable[[str], str] = encode_basestring


def load(text: str | bytes) -> Json:
    """Read a JSON text: UTF-8, no repeated keys, whole numbers only. The error does not repeat its content."""
    try:
        decoded = text if isinstance(text, str) else text.decode()
    except UnicodeDecodeError:
        raise ProtocolError("the text is not UTF-8") from None
    check_extent(decoded, "the JSON text", MAX_DEPTH)
    try:
        return _DECODER.decode(decoded)
    except ValueError:
        raise ProtocolError("the text is not JSON") from None


#: A whole string, or one that never ends: brackets inside do not nest anything.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)

_BRACKET = re.compile(r"[\[{\]}]")


def check_extent(text: str, name: str, deepest: int) -> None:
    """Refuse a text, JSON or not, of more values than are read, or nested more than *deepest* times."""
    # Almost every text is too short for the one and has too few brackets for the other.
    if len(text) > MAX_MARKS and has_too_many_values(text, MAX_MARKS):
        raise ProtocolError(f"{name} holds too many values, or is nested too deeply")
    if text.count("[") + text.count("{") > deepest and is_too_deep(text, deepest):
        raise ProtocolError(f"{name} is nested too deeply")


def has_too_many_values(text: str, most: int) -> bool:
    """Return whether there are more than *most* commas and brackets outside of strings."""
    return _count_marks(text) > most and _count_marks(_STRING.sub("", text)) > most


def _count_marks(text: str) -> int:
    return sum([text.count(mark) for mark in ",[]{}"])


def is_too_deep(text: str, most: int) -> bool:
    """
    Return whether arrays and objects are nested in each other more than *most* times, whether the text is JSON or not.

    The standard library's parser recurses for each level and counts on Python's recursion limit to stop it: a row of
    brackets from a peer would crash a program that has raised that limit.
    """
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > most:
            return True
    return False

"""Checks of single values, which name the field and never repeat its value, and foreign text made fit to be shown."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from dan_async.errors import InvalidFieldError, escape_controls
from dan_async.types import TimeSpan

T = TypeVar("T")

E = TypeVar("E", bound=StrEnum)

# --- hex --------------------------------------------------------------------------------------------------------------


def to_hex(data: bytes) -> str:
    """Return ``0x`` and lower-case hex digits."""
    return "0x" + data.hex()


def from_hex(text: object, *, field: str, length: int | None = None, prefix: bool | None = None) -> bytes:
    """Decode hex text, strictly; *prefix* says whether it must (True), must not (False) or may (None) begin with 0x."""
    if not isinstance(text, str):
        raise InvalidFieldError(field, f"must be hex text, not {type(text).__name__}")
    has_prefix = text.startswith(("0x", "0X"))
    digits = text[2:] if has_prefix else text
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        data = None
    if data is None or 2 * len(data) != len(digits):  # fromhex() passes over white space
        is_odd = length is None and all(digit in string.hexdigits for digit in digits)
        count = "an even number of " if is_odd else "" if length is None else f"{2 * length} "
        raise InvalidFieldError(field, f"must be {count}hex digits")
    if prefix is not None and has_prefix is not prefix:
        raise InvalidFieldError(field, f"must be {'given with' if prefix else 'given without'} the 0x prefix")
    if length is not None and len(data) != length:
        raise InvalidFieldError(field, f"must hold {length} bytes, not {len(data)}")
    return data


# --- checks -----------------------------------------------------------------------------------------------------------

_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]{1,64}|[0-9]{1,78})\Z")

_ALGORITHMS = ("secp256k1", "ed25519")

#: Bundler URLs that name their chain: …/api/v2/80002/key, …/api/v3/80002/key.
_CHAIN_IN_URL = re.compile(r"/api/v[23]/([0-9]{1,16})(?:/|\Z)")

#: The largest whole number that JavaScript, and so the wire's JSON, holds exactly.
MAX_SAFE_INT = 2**53 - 1

#: Longest life of an ephemeral key, in seconds: the wire's own limit.
MAX_LIFETIME_S = 365 * 24 * 3600

#: Longest permissions text, in characters.
MAX_PERMISSIONS_LENGTH = 64 * 1024


#: Any more seconds than that, and sums and databases stop taking them.
_LARGEST_NUMBER = 1e12


def check_int(field: str, value: object, *, least: int, most: int, unit: str = "") -> int:
    """Check a whole number within bounds. ``True`` is not a number here, nor is ``1.0``."""
    if isinstance(value, bool) or not isinstance(value, int):
        of_what = f" of{unit}" if unit else ""
        raise InvalidFieldError(field, f"must be a whole number{of_what}, not {type(value).__name__}")
    if not least <= value <= most:
        raise InvalidFieldError(field, f"must be from {least} to {most}{unit}")
    return value


def number_of(bits: int, *, may_be_empty: bool = False) -> Callable[[str, Any], int]:
    """Return a reader of unsigned numbers. An empty text, which the earliest clients send, is 0 or refused."""

    def read(name: str, value: object) -> int:
        if isinstance(value, str):
            if not (_NUMBER.match(value) or (may_be_empty and value == "")):
                raise InvalidFieldError(name, "must be a whole number: an int, 0x and hex digits, or digits")
            value = int(value or "0", 16 if value[:2] in ("0x", "0X") else 10)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidFieldError(name, f"must be a whole number or its text, not {type(value).__name__}")
        if not 0 <= value < 1 << bits:
            raise InvalidFieldError(name, f"must be from 0 to 2**{bits} - 1")
        return value

    return read


def check_text(field: str, value: object, *, least: int = 1, most: int = 1024) -> str:
    """Check a text that UTF-8 can carry and whose length is within bounds."""
    if not isinstance(value, str):
        raise InvalidFieldError(field, f"must be text, not {type(value).__name__}")
    if not least <= len(value) <= most:
        raise InvalidFieldError(field, f"must be {least} to {most} characters long")
    utf8(field, value)
    return value


def utf8(field: str, text: str, *, hint: str = "") -> bytes:
    """Encode a text, which may hold half of a character that UTF-16 writes as two."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        problem = "has a lone surrogate, which UTF-8 cannot carry"
        raise InvalidFieldError(field, problem, hint=hint) from None


def duration_s(value: int | timedelta) -> int:
    """Return a lifetime in whole seconds; it may be given as a ``timedelta``."""
    given: object = value
    if isinstance(value, timedelta):
        seconds = value // timedelta(seconds=1)
        given = seconds if value == timedelta(seconds=seconds) else value.total_seconds()
    return check_int("duration", given, least=1, most=MAX_LIFETIME_S, unit=" seconds")


def check_reference(field: str, value: object) -> str:
    """Check a caller's own name for something that is stored: PostgreSQL's texts cannot hold a NUL."""
    text = check_text(field, value, most=200)
    if "\0" in text:
        raise InvalidFieldError(field, "has a NUL character, which not every store can keep")
    return text


def check_bool(field: str, value: object) -> bool:
    """Check that a value is True or False, and not only something that counts as one."""
    return check_instance(field, value, bool, "True or False")


def check_instance(field: str, value: object, kind: type[T], named: str = "") -> T:
    """Check that a value is of a type; *named* is what the error calls that, instead of its name."""
    if not isinstance(value, kind):
        raise InvalidFieldError(field, f"must be {named or kind.__name__}, not {type(value).__name__}")
    return value


def check_list(field: str, value: object) -> tuple[Any, ...]:
    """Return the members of a list, or of anything else to iterate over but text and bytes."""
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise InvalidFieldError(field, f"must be a list, not {type(value).__name__}")
    return tuple(value)


def check_mapping(field: str, value: object, named: str = "a mapping") -> Mapping[Any, Any]:
    """Check that a value is a mapping; *named* is what the error calls that."""
    if not isinstance(value, Mapping):
        raise InvalidFieldError(field, f"must be {named}, not {type(value).__name__}")
    return value


def setting(field: str, value: T | None, kind: type[T]) -> T:
    """Return settings as they are given, or the usual ones."""
    return kind() if value is None else check_instance(field, value, kind)


def check_algorithm(field: str, value: object) -> str:
    """Check the name of a signature algorithm."""
    if not isinstance(value, str) or value not in _ALGORITHMS:
        raise InvalidFieldError(field, "must be 'secp256k1' or 'ed25519'")
    return str(value)


def member_of(kind: type[E], name: str, value: object, *, hint: str = "") -> E:
    """Return the member of an enumeration that a value names; the error lists those there are."""
    try:
        return kind(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidFieldError(name, f"must be one of {', '.join(kind)}", hint=hint) from None


def chain_in_url(url: object) -> int | None:
    """Return the chain that a bundler's URL names, if it is one that does."""
    found = _CHAIN_IN_URL.search(url) if isinstance(url, str) else None
    return int(found[1]) if found else None


def check_private_key_hex(field: str, value: object) -> str:
    """Check a private key as 64 hex digits without 0x."""
    from_hex(value, field=field, length=32, prefix=False)
    return str(value)


def in_seconds(value: TimeSpan) -> float:
    """Return a time span in seconds. Anything else is returned as it is, for the check to refuse."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def check_number(field: str, value: object) -> float:
    """Check a finite number that is not negative, or a ``timedelta`` that is not."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFieldError(field, f"must be a number, not {type(value).__name__}")
    if not 0 <= value <= _LARGEST_NUMBER:  # neither is NaN
        raise InvalidFieldError(field, f"must be a number from 0 to {_LARGEST_NUMBER:g}")
    return float(value)


def check_seconds(field: str, value: object, *, most: float = math.inf) -> float:
    """Return a positive, finite time span in seconds; it may be given as a ``timedelta``."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFieldError(field, f"must be a number of seconds, not {type(value).__name__}")
    if not 0 < value <= min(most, _LARGEST_NUMBER):
        bound = "" if most == math.inf else f" and at most {most:g}"
        raise InvalidFieldError(field, f"must be a number of seconds greater than 0{bound}")
    return float(value)


def check_not_milliseconds(field: str, moment: int | None, *, now: float, ends: float) -> None:
    """Refuse a time in Unix seconds that would be in a session's life if it were milliseconds: it was meant so."""
    if moment is not None and now <= moment / 1000 <= ends:
        raise InvalidFieldError(field, "must be in Unix seconds, and looks like milliseconds")


def check_rate(field: str, value: object) -> float:
    """Check how many of something there may be in a second."""
    try:
        return check_seconds(field, None if isinstance(value, timedelta) else value)
    except InvalidFieldError:
        raise InvalidFieldError(field, "must be a number per second, greater than 0") from None


def optional(check: Callable[..., Any], **bounds: Any) -> Callable[[Any, Any, Any], None]:
    """Return a check as the attrs validator of a field that may be None."""
    return required(check, may_be_none=True, **bounds)


def required(
    check: Callable[..., Any], *, may_be_none: bool = False, **bounds: Any
) -> Callable[[Any, Any, Any], None]:
    """
    Return a check as an attrs validator.

    A key generation checks some sixty texts and numbers, so plain ones pass without a further call.
    """
    if check is check_text:
        return _text_validator(may_be_none=may_be_none, **bounds)
    if check is check_int:
        return _int_validator(may_be_none=may_be_none, **bounds)

    def validate(_: object, attribute: Any, value: object) -> None:
        if not (may_be_none and value is None):
            check(attribute.name, value, **bounds)

    return validate


def _text_validator(
    *, may_be_none: bool, least: int = 1, most: int = 1024
) -> Callable[[Any, Any, Any], None]:
    def validate(_: object, attribute: Any, value: object) -> None:
        is_usual = type(value) is str and least <= len(value) <= most and value.isascii()
        if not (is_usual or (may_be_none and value is None)):
            check_text(attribute.name, value, least=least, most=most)

    return validate


def _int_validator(
    *, may_be_none: bool, least: int, most: int, unit: str = ""
) -> Callable[[Any, Any, Any], None]:
    def validate(_: object, attribute: Any, value: object) -> None:
        is_usual = type(value) is int and least <= value <= most
        if not (is_usual or (may_be_none and value is None)):
            check_int(attribute.name, value, least=least, most=most, unit=unit)

    return validate


# --- names and foreign text -------------------------------------------------------------------------------------------


def camel_case(name: str) -> str:
    """Return a name of ours as it stands in JSON: ``chain_id`` is ``chainId``."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def mask_secret(_: object) -> str:
    """Return what stands for a secret in the repr of an attrs class."""
    return "'***'"


_MOST_SHOWN = 80
_HEX_RUN = re.compile(r"[0-9a-fA-F]{64,}")

#: How far to look: enough to see a run of hex digits that begins before the cut.
_LOOK_AT = 4 * _MOST_SHOWN


def shown_name(name: object, *, otherwise: str) -> str:
    """Return an unknown field's name, if it is short enough to be repeated in an error: it may be a secret."""
    return name if isinstance(name, str) and name.isidentifier() and len(name) <= 40 else otherwise


def shown(text: object) -> str:
    """
    Quote a peer's text for an error message: about 80 characters, of binary data the length alone.

    Control characters and lone surrogates are escaped, runs of 64 or more hex digits masked.
    """
    if isinstance(text, bytes | bytearray | memoryview):
        return f"{len(text)} bytes of binary data"
    if not isinstance(text, str):
        return type(text).__name__
    masked = _HEX_RUN.sub("[hex masked]", text[:_LOOK_AT])
    cut = len(masked) > _MOST_SHOWN or len(text) > _LOOK_AT
    escaped = escape_controls(masked[:_MOST_SHOWN]).replace("\n", "\\n")
    return f"'{escaped}{'…' if cut else ''}'"

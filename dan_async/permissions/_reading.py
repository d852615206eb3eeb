"""Reads the members of permissions, strictly: an unknown restriction must not be passed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from dan_async.crypto.abi import function_selector
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int, number_of
from dan_async.models.permissions import permissions_text
from dan_async.types import Address

T = TypeVar("T")

_MOST_ITEMS = 256
_SELECTOR_LENGTH = 4
_read_uint256 = number_of(256)


def load(text: str) -> Any:
    """
    Read the JSON text: repeated members and numbers that are not whole are refused.

    Raises:
        InvalidFieldError: It is not such a text.
    """
    permissions_text(text)  # length, depth, and that it is JSON at all
    return json.loads(text, object_pairs_hook=_refuse_repeated, parse_float=_refuse_float)


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidFieldError("permissions", "has an object with a member given twice")
    return found


def _refuse_float(_: str) -> Any:
    raise InvalidFieldError(
        "permissions", "holds a number that is not whole", hint="Give large numbers as text"
    )


def read_object(value: Any, path: str, known: Iterable[str], required: Iterable[str]) -> Mapping[str, Any]:
    """Check an object's members; unknown names are not repeated."""
    known = tuple(known)
    if not isinstance(value, dict):
        raise InvalidFieldError(path, "must be a JSON object")
    for name in required:
        if name not in value:
            raise InvalidFieldError(f"{path}.{name}", "is missing")
    if not set(value) <= set(known):
        raise InvalidFieldError(
            path, "has members that are not known here", hint=f"Members: {', '.join(known)}"
        )
    return value


def read_list(value: Any, path: str, read: Callable[[Any, str], T], *, least: int = 0) -> tuple[T, ...]:
    """Read a list."""
    if not isinstance(value, list):
        raise InvalidFieldError(path, "must be a list")
    if not least <= len(value) <= _MOST_ITEMS:
        raise InvalidFieldError(path, f"must be a list of {least} to {_MOST_ITEMS}")
    return tuple(read(item, f"{path}[{index}]") for index, item in enumerate(value))


def read_one_or_list(value: Any, path: str, read: Callable[[Any, str], T]) -> frozenset[T]:
    """Read one value, or a list of one or more."""
    if isinstance(value, list):
        return frozenset(read_list(value, path, read, least=1))
    return frozenset({read(value, path)})


def read_address(value: Any, path: str) -> Address:
    """Read an address and give its EIP-55 form."""
    return parse_address(path, value)


def read_amount(value: Any, path: str) -> int:
    """Read an amount of up to 256 bits: a whole number, or its decimal or 0x text."""
    if value == "":
        raise InvalidFieldError(path, "must be a whole number or its text")
    return _read_uint256(value, path)


def read_chain_id(value: Any, path: str) -> int:
    """Read a chain's id."""
    return check_int(path, value, least=1, most=2**53 - 1)


def read_time(value: Any, path: str) -> int:
    """Read a time in Unix seconds."""
    return check_int(path, value, least=0, most=2**48 - 1)


def read_selector(value: Any, path: str) -> bytes:
    """Read a selector: 0x and 8 hex digits, a function's signature, or 0x for no call data at all."""
    if isinstance(value, str) and "(" in value:
        try:
            return function_selector(value)
        except InvalidFieldError as error:
            raise InvalidFieldError(path, error.message.removeprefix("signature ")) from None
    if isinstance(value, str) and value.startswith("0x"):
        try:
            found = bytes.fromhex(value[2:])
        except ValueError:
            found = b"?"
        if len(found) in (0, _SELECTOR_LENGTH) and len(value) == 2 + 2 * len(found):
            return found
    raise InvalidFieldError(
        path, "must be a function's signature, 0x and 8 hex digits, or 0x for a transfer without call data"
    )

"""
Encoders for EIP-712's atomic and dynamic types: one JSON value to one 32-byte word.

Values are those that JSON can carry, in the one form on which wallets agree: numbers as whole numbers or as decimal or
0x text, bytes and addresses as 0x text. What one wallet would pad, round, guess or coerce and another refuse is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from dan_async.crypto.address import parse_address
from dan_async.crypto.keccak import keccak256
from dan_async.errors import InvalidFieldError

#: Turns one value into its 32-byte word; told how deep in the message it lies.
Encoder: TypeAlias = Callable[[Any, int], bytes]

_DECIMAL = re.compile(r"-?[0-9]{1,80}\Z")
_HEX_NUMBER = re.compile(r"0x[0-9a-fA-F]{1,64}\Z")
_HEX_BYTES = re.compile(r"0x(?:[0-9a-fA-F]{2})*\Z")
_TRUE = (1).to_bytes(32, "big")
_FALSE = bytes(32)
_INTEGERS = re.compile(r"(u?)int([1-9][0-9]{0,2})\Z")
_FIXED_BYTES = re.compile(r"bytes([1-9]|[12][0-9]|3[0-2])\Z")
_MOST_BITS = 256

#: Names that a struct must not take: every atomic and dynamic type, and the aliases and types that EIP-712 leaves out.
RESERVED_NAME = re.compile(
    r"(?:u?int[0-9]*|u?fixed(?:[0-9]+x[0-9]+)?|bytes[0-9]*|bool|address|string|function)\Z"
)


class RefusedError(Exception):
    """A value that cannot be encoded. On its way up it collects the path, innermost step first."""

    def __init__(self, problem: str, *path: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = list(path)


def atomic_encoder(type_name: str) -> Encoder | None:
    """Give the encoder of an atomic or dynamic type; None if that is no name of one."""
    named = _NAMED.get(type_name)
    if named is not None:
        return named
    if match := _INTEGERS.match(type_name):
        bits = int(match[2])
        if bits % 8 == 0 and bits <= _MOST_BITS:
            return _unsigned(bits) if match[1] else _signed(bits)
    if match := _FIXED_BYTES.match(type_name):
        return _fixed_bytes(int(match[1]))
    return None


def _whole_number(value: object) -> int:
    if isinstance(value, str):
        if _DECIMAL.match(value):
            return int(value)
        if _HEX_NUMBER.match(value):
            return int(value, 16)
        raise RefusedError("must be a whole number, or one as decimal or 0x text")
    if isinstance(value, bool) or not isinstance(value, int):
        raise RefusedError(f"must be a whole number, not {type(value).__name__}")
    return value


def _unsigned(bits: int) -> Encoder:
    limit = 1 << bits
    problem = f"must be a uint{bits}: from 0 to 2**{bits} - 1"

    def encode(value: Any, _depth: int) -> bytes:
        number: int = value if type(value) is int else _whole_number(value)
        if not 0 <= number < limit:
            raise RefusedError(problem)
        return number.to_bytes(32, "big")

    return encode


def _signed(bits: int) -> Encoder:
    limit = 1 << (bits - 1)
    problem = f"must be an int{bits}: from -2**{bits - 1} to 2**{bits - 1} - 1"

    def encode(value: Any, _depth: int) -> bytes:
        number = _whole_number(value)
        if not -limit <= number < limit:
            raise RefusedError(problem)
        return number.to_bytes(32, "big", signed=True)

    return encode


def _bytes_of(value: object) -> bytes:
    if not isinstance(value, str):
        raise RefusedError(f"must be bytes as 0x text, not {type(value).__name__}")
    if not _HEX_BYTES.match(value):
        raise RefusedError("must be bytes as text: 0x and an even number of hex digits")
    return bytes.fromhex(value[2:])


def _fixed_bytes(length: int) -> Encoder:
    def encode(value: Any, _depth: int) -> bytes:
        data = _bytes_of(value)
        if len(data) != length:
            raise RefusedError(f"must hold {length} bytes, not {len(data)}")
        return data.ljust(32, b"\0")

    return encode


def _dynamic_bytes(value: Any, _depth: int) -> bytes:
    return keccak256(_bytes_of(value))


def _string(value: Any, _depth: int) -> bytes:
    if not isinstance(value, str):
        raise RefusedError(f"must be text, not {type(value).__name__}")
    try:
        return keccak256(value.encode())
    except UnicodeEncodeError:
        raise RefusedError("has a lone surrogate, which UTF-8 cannot carry") from None


def _bool(value: Any, _depth: int) -> bytes:
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    raise RefusedError(f"must be true or false, not {type(value).__name__}")


def _address(value: Any, _depth: int) -> bytes:
    try:
        address = parse_address("value", value)
    except InvalidFieldError as error:
        raise RefusedError(error.message.removeprefix("value ")) from None
    return bytes(12) + bytes.fromhex(address[2:])


_NAMED: dict[str, Encoder] = {"address": _address, "bool": _bool, "bytes": _dynamic_bytes, "string": _string}

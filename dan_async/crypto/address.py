"""
Public key to address, and the EIP-55 checksum.

Written out here instead of taken from eth-utils, as ``crypto.abi`` does: every key generation computes addresses, and
eth-utils takes ten times as long for one and 0.3 s to import. The tests compare the two.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeGuard

from coincurve import PublicKey

from dan_async._values import check_instance, from_hex
from dan_async.crypto.curve import read_public_key
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.types import Address

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")

_ADDRESS_LENGTH = 20
_ADDRESS_DIGITS = 42

#: Marks the hex digits from 8 on with 0x20, the bit in which a capital letter of ASCII differs from a small one.
_MARKS = bytes(0x20 if chr(code) in "89abcdef" else 0 for code in range(256))


def to_checksum_address(raw: bytes) -> Address:
    """
    Write 20 bytes as an EIP-55 address.

    Args:
        raw: The 20 bytes.

    Returns:
        ``0x`` and 40 hex digits with their checksum.

    Raises:
        InvalidFieldError: They are not 20.
    """
    if not isinstance(raw, bytes) or len(raw) != _ADDRESS_LENGTH:
        raise InvalidFieldError("address", f"must be {_ADDRESS_LENGTH} bytes")
    return _checksummed(raw)


@lru_cache(maxsize=1024)  # needed twice for a new key, again and again for an owner
def _checksummed(raw: bytes) -> Address:
    digits = raw.hex().encode()
    # EIP-55: a letter is a capital where the hash of the digits has a digit from 8 on in the same place. All forty at once:
    # small letters have the bit 0x40, one up from the one that makes them capitals, and decimal digits do not.
    marks = keccak256(digits)[:_ADDRESS_LENGTH].hex().encode().translate(_MARKS)
    text = int.from_bytes(digits, "big")
    capitals = int.from_bytes(marks, "big") & (text >> 1)
    return Address("0x" + (text ^ capitals).to_bytes(len(digits), "big").decode())


def has_address_form(value: object) -> TypeGuard[str]:
    """Whether it is a text of ``0x`` and 40 hex digits; its checksum is not looked at."""
    return isinstance(value, str) and _ADDRESS.match(value) is not None


def parse_address(field: str, value: object) -> Address:
    """
    Check an address and return its EIP-55 form.

    Args:
        field: Its name, for the error.
        value: ``0x`` and 40 hex digits; in mixed case they must carry the right checksum.

    Returns:
        The address with its EIP-55 checksum.

    Raises:
        InvalidFieldError: It is not such an address.
    """
    if not isinstance(value, str):
        raise InvalidFieldError(field, f"must be an address as text, not {type(value).__name__}")
    address = _checked(value) if len(value) == _ADDRESS_DIGITS else None
    if address is not None:
        return address
    if not has_address_form(value):
        raise InvalidFieldError(field, "must be an address: 0x and 40 hex digits")
    raise InvalidFieldError(field, "has a wrong EIP-55 checksum", hint="Check it for a typing error")


@lru_cache(maxsize=4096)  # the same few owners and operators come by in every message
def _checked(value: str) -> Address | None:
    """Return an address in its EIP-55 form; None if it is none, or the case of its letters contradicts it."""
    if _ADDRESS.match(value) is None:
        return None
    address = _checksummed(bytes.fromhex(value[2:]))
    return address if value == address or value[2:] in (value[2:].lower(), value[2:].upper()) else None


def point_to_address(point: PublicKey) -> Address:
    """Return the address of a point of secp256k1: the last 20 bytes of the hash of its two coordinates."""
    return _checksummed(keccak256(point.format(compressed=False)[1:])[12:])


def public_key_to_address(public_key: bytes | str) -> Address:
    """
    Return the Ethereum address of a secp256k1 public key.

    Args:
        public_key: SEC1, 33 bytes compressed or 65 uncompressed, as bytes or as hex with or without 0x. The bare
            64 bytes x, y are refused: without their first byte nothing tells them from other data.

    Raises:
        InvalidFieldError: It is not such a key, or not a point of the curve.
    """
    if isinstance(public_key, str):
        public_key = from_hex(public_key, field="public_key")
    return point_to_address(
        read_public_key(check_instance("public_key", public_key, bytes, "bytes or hex text"))
    )

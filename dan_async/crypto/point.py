"""
Points of secp256k1: 33 bytes compressed at the edges, ``coincurve.PublicKey`` inside.

The point at infinity has no ``PublicKey`` and no encoding; where a sum may be infinity, it is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

from coincurve import PublicKey

from dan_async.errors import InvalidFieldError

__all__ = [
    "FIELD_PRIME",
    "ORDER",
    "Point",
    "add",
    "base_multiply",
    "compress",
    "decode",
    "encode",
    "multiply",
    "negate",
    "point_of_key",
    "uncompress",
]

#: A point of the curve, never infinity.
Point: TypeAlias = PublicKey

#: The order q of the group (SEC 2, section 2.4.1).
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

#: The prime p of the field that coordinates are in.
FIELD_PRIME = 2**256 - 2**32 - 977

_COMPRESSED_LENGTH = 33
_UNCOMPRESSED_LENGTH = 65


def decode(point: bytes, *, field: str = "point") -> Point:
    """
    Read a compressed point.

    Args:
        point: 33 bytes, the first one 02 or 03.
        field: Its name, for the error.

    Raises:
        InvalidFieldError: It is not such a point, or not on the curve.
    """
    if not isinstance(point, bytes) or len(point) != _COMPRESSED_LENGTH:
        raise InvalidFieldError(field, "must be a compressed point of 33 bytes")
    return _parse(point, field)


def encode(point: Point) -> bytes:
    """Write a point in its compressed form, 33 bytes."""
    return point.format(compressed=True)


def base_multiply(scalar: int) -> Point:
    """
    Give scalar·G.

    Args:
        scalar: Any whole number; it is reduced mod q.

    Raises:
        ValueError: It is 0 mod q, and the result infinity.
    """
    return PublicKey.from_valid_secret(_scalar_bytes(scalar))


def multiply(point: Point, scalar: int) -> Point:
    """
    Give scalar·point.

    Args:
        point: The point.
        scalar: Any whole number; it is reduced mod q.

    Raises:
        ValueError: It is 0 mod q, and the result infinity.
    """
    return point.multiply(_scalar_bytes(scalar))


def add(points: Sequence[Point]) -> Point | None:
    """Give the sum of the points; None if it is infinity, as the empty sum is."""
    if not points:
        return None
    try:
        return PublicKey.combine_keys(list(points))
    except ValueError:
        return None  # every summand is a valid point, so infinity is the one reason


def negate(point: Point) -> Point:
    """Give -point, by its coordinates: (x, p - y)."""
    raw = point.format(compressed=False)
    y = FIELD_PRIME - int.from_bytes(raw[33:], "big")
    return PublicKey(raw[:33] + y.to_bytes(32, "big"))


def compress(sec1: bytes) -> bytes:
    """
    Give the 33-byte form of a SEC1 key of either form.

    Raises:
        InvalidFieldError: It is not a SEC1 key, or not on the curve.
    """
    _check_form(sec1, "public_key")
    try:
        point = point_of_key(sec1)
    except ValueError:
        raise InvalidFieldError("public_key", "is not a point of secp256k1") from None
    # There is but one compressed form of a point.
    return sec1 if len(sec1) == _COMPRESSED_LENGTH else point.format(compressed=True)


@lru_cache(maxsize=256)
def point_of_key(sec1: bytes) -> Point:
    """
    Give the point of a SEC1 public key.

    Remembered, since a new key is read by everyone who checks it: the codec, the client, and once for each node.

    Raises:
        ValueError: It is not a point of the curve, or has another length.
    """
    return PublicKey(sec1)


def uncompress(sec1: bytes) -> bytes:
    """
    Give the 65-byte form of a SEC1 key of either form.

    Raises:
        InvalidFieldError: It is not a SEC1 key, or not on the curve.
    """
    return _parse(sec1, "public_key").format(compressed=False)


def _parse(sec1: bytes, field: str) -> Point:
    _check_form(sec1, field)
    try:
        return PublicKey(sec1)
    except ValueError:
        raise InvalidFieldError(field, "is not a point of secp256k1") from None


def _check_form(sec1: object, field: str) -> None:
    # libsecp256k1 would also take the hybrid forms 06 and 07: a second encoding of the same point.
    if not isinstance(sec1, bytes) or (len(sec1) == _UNCOMPRESSED_LENGTH and sec1[0] != 4):
        raise InvalidFieldError(field, "must be a SEC1 key: 33 bytes from 02 or 03, or 65 bytes from 04")


def _scalar_bytes(scalar: int) -> bytes:
    reduced = scalar % ORDER
    if not reduced:
        raise ValueError("the scalar is 0 mod q, so the result would be the point at infinity")
    return reduced.to_bytes(32, "big")

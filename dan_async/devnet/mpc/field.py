"""
Scalars modulo the order of secp256k1, and polynomials over them (Shamir, "How to share a secret", CACM 1979).

Python's integers do not compute in constant time. Nodes of the devnet that could time each other to the nanosecond could
learn about scalars that way; the devnet is for development and says so.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from dan_async.crypto.point import ORDER
from dan_async.errors import InvalidFieldError

#: Gives that many random bytes.
Entropy = Callable[[int], bytes]

SCALAR_BYTES = 32

#: Drawn for each random scalar: 128 bits more than the order has, so that the remainder is 2^-128 close to uniform.
_WIDE_BYTES = 48


def random_scalar(entropy: Entropy) -> int:
    """Draw a scalar uniformly from 1 to ORDER - 1."""
    return int.from_bytes(entropy(_WIDE_BYTES), "big") % (ORDER - 1) + 1


def scalar_to_bytes(scalar: int) -> bytes:
    """Give a scalar as 32 bytes, big-endian."""
    return scalar.to_bytes(SCALAR_BYTES, "big")


def scalar_from_bytes(field_name: str, data: bytes) -> int:
    """
    Read a scalar from 32 bytes.

    Args:
        field_name: Its name, for the error.
        data: The bytes, big-endian.

    Raises:
        InvalidFieldError: It is not 32 bytes long, or not below the group order: each scalar has one encoding.
    """
    if len(data) != SCALAR_BYTES:
        raise InvalidFieldError(field_name, f"must hold {SCALAR_BYTES} bytes, not {len(data)}")
    scalar = int.from_bytes(data, "big")
    if scalar >= ORDER:
        raise InvalidFieldError(field_name, "must be below the group order")
    return scalar


@frozen(repr=False)
class Polynomial:
    """
    A polynomial over the scalars; its coefficients are secret and its repr does not show them.

    Args:
        coefficients: From the constant term upwards.
    """

    coefficients: tuple[int, ...] = field()

    def __repr__(self) -> str:
        return f"Polynomial(degree={self.degree}, coefficients=***)"

    @classmethod
    def random(cls, degree: int, entropy: Entropy) -> Polynomial:
        """Draw a polynomial of exactly that degree, with no coefficient zero (a commitment to zero has no encoding)."""
        return cls(tuple(random_scalar(entropy) for _ in range(degree + 1)))

    @property
    def degree(self) -> int:
        """The degree."""
        return len(self.coefficients) - 1

    def evaluate(self, at: int) -> int:
        """Give the value at a point, by Horner's rule."""
        value = 0
        for coefficient in reversed(self.coefficients):
            value = (value * at + coefficient) % ORDER
        return value

"""A polynomial from shares, plain and in the exponent, with the package's Lagrange coefficients."""

from __future__ import annotations

from collections.abc import Mapping

from dan_async.crypto.curve import ORDER, Point, add, lagrange_coefficients, multiply


def interpolate_scalar(shares: Mapping[int, int], at: int = 0) -> int:
    """Return f(at) mod q for the polynomial f of least degree with f(i) = shares[i]."""
    coefficients = lagrange_coefficients(list(shares), at)
    return sum(c * share for c, share in zip(coefficients, shares.values(), strict=True)) % ORDER


def interpolate_point(shares: Mapping[int, Point], at: int = 0) -> Point | None:
    """Return f(at)·G for the polynomial f of least degree with f(i)·G = shares[i]; None if it is infinity."""
    coefficients = lagrange_coefficients(list(shares), at)
    return add([multiply(point, c) for c, point in zip(coefficients, shares.values(), strict=True) if c])

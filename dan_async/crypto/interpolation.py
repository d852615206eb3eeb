"""
Polynomials over the scalars of secp256k1, given by their values: Lagrange interpolation, plain and in the exponent.

Indices are the parties' numbers 1 … n; index 0 stands for the shared secret, or for the public key in the exponent.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from dan_async.crypto.point import ORDER, Point, add, multiply

__all__ = ["interpolate_point", "interpolate_scalar", "lagrange_coefficients", "points_fit_degree"]

#: Bytes drawn for one scalar: 128 bits more than q has, so that the bias of reducing them mod q is below 2**-128.
_SCALAR_ENTROPY = 48

#: About how many multiplications by a small number take as long as one by a full scalar.
_SMALL_FACTORS_PER_FULL = 3


def lagrange_coefficients(indices: Sequence[int], at: int = 0) -> list[int]:
    """
    Give the λ_i with f(at) = Σ λ_i·f(i), for every polynomial f of degree less than the number of indices.

    Args:
        indices: Where f is known: distinct whole numbers from 0 to q - 1, at least one.
        at: Where f is wanted. If it is one of the indices, that coefficient is 1 and the others are 0.

    Returns:
        The coefficients mod q, in the order of the indices.

    Raises:
        ValueError: There are no indices, or one is out of range or repeated.
    """
    return list(_coefficients(tuple(indices), at))


@lru_cache(maxsize=1024)
def _coefficients(indices: tuple[int, ...], at: int) -> tuple[int, ...]:
    _check_indices(indices)
    numerators, denominators = [], []
    for i in indices:
        numerator = denominator = 1
        for j in indices:
            if j != i:
                numerator = numerator * (at - j) % ORDER
                denominator = denominator * (i - j) % ORDER
        numerators.append(numerator)
        denominators.append(denominator)
    return tuple(n * pow(d, -1, ORDER) % ORDER for n, d in zip(numerators, denominators, strict=True))


def _check_indices(indices: tuple[int, ...]) -> None:
    if not indices:
        raise ValueError("there is nothing to interpolate: no indices")
    if any(not 0 <= i < ORDER for i in indices):
        raise ValueError("an index is not from 0 to q - 1")
    if len(set(indices)) != len(indices):
        raise ValueError("an index is given twice")


def interpolate_scalar(shares: Mapping[int, int], at: int = 0) -> int:
    """
    Give f(at) mod q for the polynomial f of least degree with f(i) = shares[i].

    Args:
        shares: Index to value.
        at: Where the value is wanted.

    Raises:
        ValueError: There are no shares, or an index is out of range.
    """
    coefficients = _coefficients(tuple(shares), at)
    return sum(c * share for c, share in zip(coefficients, shares.values(), strict=True)) % ORDER


def interpolate_point(shares: Mapping[int, Point], at: int = 0) -> Point | None:
    """
    Give f(at)·G for the polynomial f of least degree with f(i)·G = shares[i]; None if it is infinity.

    Args:
        shares: Index to point.
        at: Where the point is wanted.

    Raises:
        ValueError: There are no shares, or an index is out of range.
    """
    indices = tuple(shares)
    return _weighted_sum(shares, indices, _coefficients(indices, at))


def points_fit_degree(
    points: Mapping[int, Point],
    degree: int,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> bool:
    """
    Tell whether all points lie on one polynomial of at most that degree, in the exponent.

    Interpolating every set of degree + 1 points and comparing the results would tell the same, at a cost that grows
    with the number of sets. Two ways are cheaper, and the cheaper one for the given numbers is taken. N is the number of
    points, and v_i = Π 1/(i - j) over the other indices j of the same set.

    - Few points: every degree + 2 neighbours lie on one polynomial of that degree exactly when their sum Σ v_i·f(i) is
      0. Neighbouring sets have degree + 1 points in common, which fix the polynomial, so it is the same one for all.
      The v_i are scaled to small whole numbers, and multiplying by those is quick.
    - Many points: the dual code, with one full multiplication a point (SCRAPE, ePrint 2017/216, section 2.1, Lemma 1).
      The sum Σ v_i·m(i)·f(i) over all points is 0 for *every* polynomial m of degree N - degree - 2 exactly when f has
      at most that degree. For one random m, points that do not fit pass with probability 1/q. Whoever chose the points
      must not know m.

    Args:
        points: Index to point; the caller includes the public key as index 0.
        degree: The degree, t - 1 for a t-of-n key.
        entropy: Gives random bytes; injected by tests.

    Returns:
        The verdict. With exactly degree + 1 points there is nothing to test and it is True: compare
        ``interpolate_point`` of t shares with the public key instead, or include one more point.

    Raises:
        ValueError: The degree is negative, there are fewer than degree + 1 points, or an index is out of range.
    """
    spare = len(points) - degree - 1
    if degree < 0 or spare < 0:
        raise ValueError(f"{len(points)} points say nothing about degree {degree}")
    if not spare:
        return True
    indices = tuple(points)
    _check_indices(indices)
    if spare * (degree + 2) <= _SMALL_FACTORS_PER_FULL * len(points):
        windows = (indices[start : start + degree + 2] for start in range(spare))
        return all(_weighted_sum(points, window, _whole_dual_weights(window)) is None for window in windows)
    mask = [int.from_bytes(entropy(_SCALAR_ENTROPY), "big") % ORDER for _ in range(spare)]
    scalars = []
    for index, weight in zip(indices, _dual_weights(indices), strict=True):
        value = 0
        for coefficient in mask:  # m(index), by Horner's rule
            value = (value * index + coefficient) % ORDER
        scalars.append(weight * value)
    return _weighted_sum(points, indices, scalars) is None


def _weighted_sum(
    points: Mapping[int, Point], indices: Sequence[int], weights: Sequence[int]
) -> Point | None:
    return add([multiply(points[i], w) for i, w in zip(indices, weights, strict=True) if w % ORDER])


@lru_cache(maxsize=1024)
def _dual_weights(indices: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(pow(product, -1, ORDER) for product in _differences(indices))


@lru_cache(maxsize=1024)
def _whole_dual_weights(indices: tuple[int, ...]) -> tuple[int, ...]:
    products = _differences(indices)
    scale = math.lcm(*products)
    return tuple(scale // product for product in products)


def _differences(indices: tuple[int, ...]) -> list[int]:
    """Give Π (i - j) over the other indices j, for each i."""
    return [math.prod(i - j for j in indices if j != i) for i in indices]

"""
Polynomials over the scalars of secp256k1, given by their values: Lagrange interpolation, plain and in the exponent.

Indices are the parties' numbers 1 … n; index 0 stands for the shared secret, or for the public key in the exponent.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from coincurve import PublicKey

from dan_async.crypto.point import ORDER, add, multiply

__all__ = ["interpolate_point", "interpolate_scalar", "lagrange_coefficients", "points_fit_degree"]

#: Bytes drawn for one scalar: 128 bits more than q has, so that the bias of reducing them mod q is below 2**-128.
_SCALAR_ENTROPY = 48


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


def interpolate_point(shares: Mapping[int, PublicKey], at: int = 0) -> PublicKey | None:
    """
    Give f(at)·G for the polynomial f of least degree with f(i)·G = shares[i]; None if it is infinity.

    Args:
        shares: Index to point.
        at: Where the point is wanted.

    Raises:
        ValueError: There are no shares, or an index is out of range.
    """
    coefficients = _coefficients(tuple(shares), at)
    return add([multiply(point, c) for c, point in zip(coefficients, shares.values(), strict=True) if c])


def points_fit_degree(
    points: Mapping[int, PublicKey],
    degree: int,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> bool:
    """
    Tell whether all points lie on one polynomial of at most that degree, in the exponent.

    Interpolating every set of degree + 1 points and comparing the results would tell the same, at a cost that grows
    with the number of sets. The dual code does it with one multiplication a point (SCRAPE, ePrint 2017/216, section 2.1,
    Lemma 1): with v_i = Π 1/(i - j) over the other indices j, and N points, the sum Σ v_i·m(i)·f(i) is 0 for *every*
    polynomial m of degree N - degree - 2 exactly when f has at most that degree. For a random m, values that lie on no
    such polynomial pass with probability 1/q. The random m must not be known to whoever chose the points.

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
    mask = [int.from_bytes(entropy(_SCALAR_ENTROPY), "big") % ORDER for _ in range(spare)]
    terms = []
    for (index, point), weight in zip(points.items(), _dual_weights(tuple(points)), strict=True):
        value = 0
        for coefficient in mask:  # m(index), by Horner's rule
            value = (value * index + coefficient) % ORDER
        scalar = weight * value % ORDER
        if scalar:
            terms.append(multiply(point, scalar))
    return add(terms) is None


@lru_cache(maxsize=1024)
def _dual_weights(indices: tuple[int, ...]) -> tuple[int, ...]:
    _check_indices(indices)
    weights = []
    for i in indices:
        product = 1
        for j in indices:
            if j != i:
                product = product * (i - j) % ORDER
        weights.append(pow(product, -1, ORDER))
    return tuple(weights)

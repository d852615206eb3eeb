"""
secp256k1: its points, and polynomials over its scalars, plain and in the exponent.

A point is 33 bytes compressed at the edges and a ``coincurve.PublicKey`` inside. The point at infinity has neither; where a
sum may be infinity, it is None.

A polynomial is known by its values at the parties' numbers 1 … n; index 0 stands for the shared secret, or for the public
key in the exponent.
"""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from coincurve import PublicKey

from dan_async.errors import InvalidFieldError

#: A point of the curve, never infinity.
Point: TypeAlias = PublicKey

#: The order q of the group (SEC 2, section 2.4.1).
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_MINUS_ONE = ORDER - 1

#: The largest s of a signature in its low form.
HALF_ORDER = ORDER // 2

#: The prime p of the field that coordinates are in.
FIELD_PRIME = 2**256 - 2**32 - 977

_COMPRESSED_LENGTH = 33

#: First byte of a SEC1 public key -> its length.
_SEC1_LENGTHS = {b"\2": 33, b"\3": 33, b"\4": 65}


def decode(point: bytes, *, field: str = "point") -> Point:
    """Read a compressed point, 33 bytes from 02 or 03; *field* is its name for the error."""
    if not isinstance(point, bytes) or len(point) != _COMPRESSED_LENGTH:
        raise InvalidFieldError(field, "must be a compressed point of 33 bytes")
    try:
        return point_of_key(point)
    except ValueError:
        raise InvalidFieldError(field, "is not a point of secp256k1") from None


def encode(point: Point) -> bytes:
    """Write a point in its compressed form, 33 bytes."""
    return point.format(compressed=True)


def read_public_key(sec1: object) -> Point:
    """Return the point of a SEC1 key of either form."""
    # libsecp256k1 would also take the hybrid forms 06 and 07: a second encoding of the same point.
    if not isinstance(sec1, bytes) or _SEC1_LENGTHS.get(sec1[:1]) != len(sec1):
        raise InvalidFieldError(
            "public_key", "must be a SEC1 key: 33 bytes from 02 or 03, or 65 bytes from 04"
        )
    try:
        return point_of_key(sec1)
    except ValueError:
        raise InvalidFieldError("public_key", "is not a point of secp256k1") from None


def compress(sec1: bytes) -> bytes:
    """Return the 33-byte form of a SEC1 key of either form."""
    point = read_public_key(sec1)
    return sec1 if len(sec1) == _COMPRESSED_LENGTH else encode(point)  # there is but one compressed form


#: Returns the point of a SEC1 public key; ValueError if it is none. Remembered, since a new key is read by everyone who
#: checks it: the codec, the client, and once for each node.
point_of_key: Callable[[bytes], Point] = lru_cache(maxsize=256)(PublicKey)


def base_multiply(scalar: int) -> Point:
    """Return scalar·G, the scalar mod q. Raises ValueError for 0, whose result would be infinity."""
    return PublicKey.from_valid_secret(_scalar_bytes(scalar))


def multiply(point: Point, scalar: int) -> Point:
    """Return scalar·point, the scalar mod q. Raises ValueError for 0, whose result would be infinity."""
    return point.multiply(_scalar_bytes(scalar))


def _scalar_bytes(scalar: int) -> bytes:
    reduced = scalar % ORDER
    if not reduced:
        raise ValueError("the scalar is 0 mod q, so the result would be the point at infinity")
    return reduced.to_bytes(32, "big")


def add(points: Sequence[Point]) -> Point | None:
    """Return the sum of the points; None if it is infinity, as the empty sum is."""
    if not points:
        return None
    try:
        return PublicKey.combine_keys(list(points))
    except ValueError:
        return None  # every summand is a valid point, so infinity is the one reason


def negate(point: Point) -> Point:
    """Return -point, by its coordinates: (x, p - y)."""
    raw = point.format(compressed=False)
    y = FIELD_PRIME - int.from_bytes(raw[33:], "big")
    return PublicKey(raw[:33] + y.to_bytes(32, "big"))


def weighted_sum(terms: Iterable[tuple[int, Point]]) -> Point | None:
    """Return Σ scalar·point, the scalars mod q; None if it is infinity."""
    found = []
    for scalar, point in terms:
        reduced = scalar % ORDER
        if reduced == 1:
            found.append(point)
        elif reduced == _MINUS_ONE:
            found.append(negate(point))
        elif reduced:
            found.append(point.multiply(reduced.to_bytes(32, "big")))
    return add(found)


def lagrange_coefficients(indices: Sequence[int], at: int = 0) -> list[int]:
    """
    Return the λ_i mod q with f(at) = Σ λ_i·f(i), for every polynomial f of degree less than the number of indices.

    The indices are distinct whole numbers from 0 to q - 1, at least one; anything else is a ValueError.
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
    if min(indices) < 0 or max(indices) >= ORDER:
        raise ValueError("an index is not from 0 to q - 1")
    if len(set(indices)) != len(indices):
        raise ValueError("an index is given twice")


#: Bytes drawn for one scalar: 128 bits more than q has, so that the bias of reducing them mod q is below 2**-128.
_SCALAR_ENTROPY = 48

#: About how many multiplications by a small number take as long as one by a full scalar.
_SMALL_FACTORS_PER_FULL = 3


def points_fit_degree(
    points: Mapping[int, Point],
    degree: int,
    entropy: Callable[[int], bytes] = secrets.token_bytes,
) -> bool:
    """
    Return whether all points lie on one polynomial of at most that degree, in the exponent.

    Interpolating every set of degree + 1 points and comparing the results would tell the same, at a cost that grows
    with the number of sets. Two ways are cheaper, and the cheaper one for the given numbers is taken. N is the number of
    points, and v_i = Π 1/(i - j) over the other indices j of the same set.

    - Few points: every degree + 2 neighbours lie on one polynomial of that degree exactly when their sum Σ v_i·f(i) is
      0. Neighbouring sets have degree + 1 points in common, which fix the polynomial, so it is the same one for all.
      The v_i are scaled to small whole numbers, and multiplying by those is quick.
    - Many points: the dual code, with one full multiplication a point (SCRAPE, ePrint 2017/216, section 2.1, Lemma 1).
      The sum Σ v_i·m(i)·f(i) over all points is 0 for *every* polynomial m of degree N - degree - 2 exactly when f has
      at most that degree. For one random m, points that do not fit pass with probability 1/q. Whoever chose the points
      must not know m, which is drawn from *entropy*.

    The caller includes the public key as index 0. With exactly degree + 1 points there is nothing to test and the result
    is True: include one more. Fewer points, or an index out of range, are a ValueError.
    """
    spare = len(points) - degree - 1
    if degree < 0 or spare < 0:
        raise ValueError(f"{len(points)} points say nothing about degree {degree}")
    if not spare:
        return True
    indices = tuple(points)
    _check_indices(indices)
    if spare * (degree + 2) <= _SMALL_FACTORS_PER_FULL * len(points):
        for start in range(spare):
            window = indices[start : start + degree + 2]
            weights = _whole_dual_weights(window)
            if weighted_sum(zip(weights, [points[index] for index in window], strict=True)) is not None:
                return False
        return True
    mask = [int.from_bytes(entropy(_SCALAR_ENTROPY), "big") % ORDER for _ in range(spare)]
    values = [sum(map(operator.mul, mask, powers)) for powers in _powers(indices, spare)]  # m(index) of each
    factors = map(operator.mul, values, _dual_weights(indices))
    return weighted_sum(zip(factors, points.values(), strict=True)) is None


@lru_cache(maxsize=256)
def _powers(indices: tuple[int, ...], count: int) -> tuple[tuple[int, ...], ...]:
    """Return so many powers of each index, down to its zeroth."""
    exponents = range(count - 1, -1, -1)
    return tuple(tuple([pow(index, exponent, ORDER) for exponent in exponents]) for index in indices)


@lru_cache(maxsize=1024)
def _dual_weights(indices: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(pow(product, -1, ORDER) for product in _differences(indices))


@lru_cache(maxsize=1024)
def _whole_dual_weights(indices: tuple[int, ...]) -> tuple[int, ...]:
    products = _differences(indices)
    scale = math.lcm(*products)
    return tuple(scale // product for product in products)


def _differences(indices: tuple[int, ...]) -> list[int]:
    """Return Π (i - j) over the other indices j, for each i."""
    return [math.prod(i - j for j in indices if j != i) for i in indices]

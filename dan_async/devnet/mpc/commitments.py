"""
Feldman's commitments: a polynomial's coefficients in the exponent.

P. Feldman, "A practical scheme for non-interactive verifiable secret sharing", FOCS 1987, section 4. Whoever holds
``F_k = f_k·G`` for every coefficient can check that a share is ``f(i)``. The commitments bind unconditionally and show
``f(0)·G``, which is what a public key is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from dan_async.crypto.point import Point, add, base_multiply, multiply
from dan_async.devnet.mpc.field import Polynomial

#: The commitments to one polynomial, constant term first.
CommitmentVector = tuple[Point, ...]


def commit(polynomial: Polynomial) -> CommitmentVector:
    """Commit to every coefficient, constant term first."""
    return tuple(base_multiply(coefficient) for coefficient in polynomial.coefficients)


def evaluate_in_exponent(commitments: Sequence[Point], at: int) -> Point | None:
    """
    Give ``f(at)·G`` from the commitments to f, by Horner's rule: every multiplication is by the small number ``at``.

    Args:
        commitments: Constant term first.
        at: A party index, 1 or more.

    Returns:
        The point; None for the point at infinity.
    """
    value: Point | None = commitments[-1]
    for commitment in reversed(commitments[:-1]):
        value = (
            add([multiply(value, at) if at > 1 else value, commitment]) if value is not None else commitment
        )
    return value


def share_matches(commitments: Sequence[Point], index: int, share: int) -> bool:
    """Tell whether ``share`` is the committed polynomial's value at ``index``: share·G = Σ index^k·F_k."""
    return share != 0 and base_multiply(share) == evaluate_in_exponent(commitments, index)


def add_commitments(vectors: Sequence[CommitmentVector]) -> CommitmentVector | None:
    """
    Commit to the sum of polynomials of one degree.

    Returns:
        The sums, constant term first; None if one of them is the point at infinity.
    """
    sums = [add(column) for column in zip(*vectors, strict=True)]
    found = tuple(point for point in sums if point is not None)
    return found if len(found) == len(sums) else None

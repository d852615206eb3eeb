"""Lagrange interpolation, plain and in the exponent."""

import secrets
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import (
    ORDER,
    add,
    base_multiply,
    lagrange_coefficients,
    points_fit_degree,
)
from tests.interpolation import interpolate_point, interpolate_scalar

SCALARS = st.integers(0, ORDER - 1)
INDICES = st.lists(st.integers(0, 40), min_size=1, max_size=6, unique=True)


def evaluate(polynomial, x):
    """f(x) mod q; the constant coefficient first."""
    return sum(c * pow(x, e, ORDER) for e, c in enumerate(polynomial)) % ORDER


def points_of(polynomial, indices):
    """f(i)·G by index."""
    return {i: base_multiply(evaluate(polynomial, i)) for i in indices}


@given(st.lists(SCALARS, min_size=1, max_size=6), st.data())
def test_as_many_shares_as_coefficients_give_the_polynomial(polynomial, data):
    """Any set of t shares gives f anywhere."""
    t = len(polynomial)
    indices = data.draw(st.lists(st.integers(0, ORDER - 1), min_size=t, max_size=t, unique=True))
    at = data.draw(st.integers(0, ORDER - 1))
    assert interpolate_scalar({i: evaluate(polynomial, i) for i in indices}, at) == evaluate(polynomial, at)


@given(st.lists(SCALARS, min_size=2, max_size=6), st.data())
def test_one_share_less_does_not(polynomial, data):
    """t - 1 shares give another value, as long as the leading coefficient is not 0."""
    if polynomial[-1]:
        t = len(polynomial)
        indices = data.draw(st.lists(st.integers(1, 40), min_size=t - 1, max_size=t - 1, unique=True))
        assert interpolate_scalar({i: evaluate(polynomial, i) for i in indices}) != polynomial[0]


@given(INDICES, st.integers(0, 40))
def test_coefficients_add_up_to_one(indices, at):
    """The constant polynomial 1 is interpolated to 1."""
    assert sum(lagrange_coefficients(indices, at)) % ORDER == 1


def test_coefficients_known_by_hand():
    """For 1 and 2 at 0 they are 2 and -1."""
    assert lagrange_coefficients([1, 2]) == [2, ORDER - 1]


def test_coefficients_follow_the_order_of_the_indices():
    """The result belongs to the indices as they were given."""
    assert lagrange_coefficients([2, 1]) == [ORDER - 1, 2]


def test_at_an_index_the_value_is_the_share_itself():
    """Where f is known nothing is mixed in."""
    assert lagrange_coefficients([3, 5, 9], at=5) == [0, 1, 0]
    shares = {i: base_multiply(i + 1) for i in (3, 5, 9)}
    assert interpolate_point(shares, at=5) == shares[5]


def test_the_result_is_the_callers_own():
    """Changing a result does not change the next one."""
    lagrange_coefficients([1, 2])[0] = 0
    assert lagrange_coefficients([1, 2]) == [2, ORDER - 1]


@pytest.mark.parametrize("indices", [[], [1, 1], [-1, 2], [ORDER], [0, ORDER]])
def test_wrong_indices_are_refused(indices):
    """No indices, an index twice, and indices out of range are refused."""
    with pytest.raises(ValueError, match=r"index|indices"):
        lagrange_coefficients(indices)


def test_no_shares_are_refused():
    """There is no polynomial through nothing."""
    with pytest.raises(ValueError, match="no indices"):
        interpolate_scalar({})
    with pytest.raises(ValueError, match="no indices"):
        interpolate_point({})


@settings(max_examples=40)
@given(st.lists(st.integers(1, ORDER - 1), min_size=1, max_size=5), st.integers(0, 9))
def test_points_interpolate_as_scalars_do(polynomial, at):
    """In the exponent the same polynomial comes out."""
    indices = range(10, 10 + len(polynomial))
    expected = evaluate(polynomial, at)
    assert interpolate_point(points_of(polynomial, indices), at) == (
        base_multiply(expected) if expected else None
    )


def test_a_result_of_infinity_is_none():
    """A polynomial through (1, 1) and (2, 2) is 0 at 0."""
    assert interpolate_point({1: base_multiply(1), 2: base_multiply(2)}) is None


SIZES = [(2, 2), (2, 3), (3, 5), (5, 7), (2, 8), (4, 10), (11, 20), (20, 20)]


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_shares_of_one_polynomial_fit(t, n):
    """The public key and all shares of a t-of-n key lie on a polynomial of degree t - 1."""
    polynomial = [secrets.randbelow(ORDER - 1) + 1 for _ in range(t)]
    assert points_fit_degree(points_of(polynomial, range(n + 1)), t - 1)


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_one_wrong_point_anywhere_does_not_fit(t, n):
    """Whichever point is changed, the public key included, the test says no."""
    polynomial = [secrets.randbelow(ORDER - 1) + 1 for _ in range(t)]
    points = points_of(polynomial, range(n + 1))
    for index in points if n < 10 else (0, 1, n // 2, n):
        changed = points | {index: add([points[index], base_multiply(1)])}
        assert not points_fit_degree(changed, t - 1)


@pytest.mark.parametrize(("t", "n"), SIZES)
def test_a_polynomial_of_higher_degree_does_not_fit(t, n):
    """Shares of a (t + 1)-of-n key are no shares of a t-of-n key."""
    polynomial = [secrets.randbelow(ORDER - 1) + 1 for _ in range(t + 1)]
    assert not points_fit_degree(points_of(polynomial, range(n + 1)), t - 1)


def test_a_polynomial_of_lower_degree_fits():
    """The degree is an upper bound."""
    assert points_fit_degree(points_of([5, 7], range(6)), 2)


def test_any_subset_of_shares_fits():
    """Shares may be missing, and come in any order."""
    points = points_of([5, 7, 11], [9, 4, 0, 20, 13, 1])
    for size in range(3, 7):
        for chosen in combinations(points, size):
            assert points_fit_degree({i: points[i] for i in chosen}, 2)


@pytest.mark.parametrize("wrong", [0, 4, 20])
def test_a_wrong_point_among_scattered_shares_does_not_fit(wrong):
    """Scattered indices hide nothing."""
    points = points_of([5, 7, 11], [9, 4, 0, 20])
    assert not points_fit_degree(points | {wrong: base_multiply(123)}, 2)


def test_two_wrong_points_that_cancel_for_equal_weights_do_not_fit():
    """Errors that add up to nothing are found all the same, whichever way is taken."""
    for t, n in ((3, 5), (11, 20)):
        points = points_of([secrets.randbelow(ORDER - 1) + 1 for _ in range(t)], range(n + 1))
        wrong = points | {1: add([points[1], base_multiply(1)]), 2: add([points[2], base_multiply(-1)])}
        assert not points_fit_degree(wrong, t - 1)


def test_with_nothing_to_spare_there_is_nothing_to_test():
    """Any degree + 1 points lie on a polynomial of that degree."""
    assert points_fit_degree({0: base_multiply(3), 1: base_multiply(99), 2: base_multiply(1)}, 2)


@pytest.mark.parametrize(("count", "degree"), [(2, 2), (0, 0), (3, -1)])
def test_too_few_points_or_a_negative_degree_are_refused(count, degree):
    """A question without an answer is the caller's mistake."""
    with pytest.raises(ValueError, match="say nothing"):
        points_fit_degree(points_of([1], range(count)), degree)


@pytest.mark.parametrize("index", [-1, ORDER])
def test_an_index_out_of_range_is_refused(index):
    """q + 1 would be the same index as 1."""
    with pytest.raises(ValueError, match="index"):
        points_fit_degree({0: base_multiply(1), 1: base_multiply(1), index: base_multiply(1)}, 1)


def test_many_points_draw_fresh_randomness():
    """One scalar for each point to spare, with bytes enough that reducing them leaves no bias."""
    drawn = []

    def entropy(length):
        drawn.append(length)
        return secrets.token_bytes(length)

    points_fit_degree(points_of([1, 2, 3], range(21)), 2, entropy=entropy)
    assert drawn == [48] * 18


def test_a_known_mask_can_be_cheated():
    """With a constant mask, errors that cancel under it pass: this is what the randomness is for."""
    points = points_of([5, 7, 11], range(21))
    # m = x**17, from the bytes 1, 0, 0, ...: index 0 then has weight 0, and any public key passes.
    bytes_of = iter([(1).to_bytes(48, "big")] + [bytes(48)] * 17)
    assert points_fit_degree(points | {0: base_multiply(99)}, 2, entropy=lambda _: next(bytes_of))
    assert not points_fit_degree(points | {0: base_multiply(99)}, 2)

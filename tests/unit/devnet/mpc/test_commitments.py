"""Feldman's commitments."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER, base_multiply
from dan_async.devnet.mpc.field import (
    Polynomial,
    add_commitments,
    commit,
    evaluate_in_exponent,
    share_matches,
)

coefficients = st.lists(st.integers(1, ORDER - 1), min_size=1, max_size=5)


@settings(max_examples=40)
@given(coefficients, st.integers(1, 20))
def test_evaluation_in_the_exponent_is_evaluation(found, at):
    """f(at)·G either way."""
    polynomial = Polynomial(tuple(found))
    value = polynomial.evaluate(at)
    assert evaluate_in_exponent(commit(polynomial), at) == (base_multiply(value) if value else None)


def test_a_root_evaluates_to_infinity():
    """f(x) = 3x - 6 at 2."""
    assert evaluate_in_exponent(commit(Polynomial((ORDER - 6, 3))), 2) is None


def test_infinity_on_the_way_does_not_stop_the_evaluation():
    """f(x) = 3x^2 - 6x + 5 at 2: Horner's rule passes through 3·2 - 6 = 0."""
    assert evaluate_in_exponent(commit(Polynomial((5, ORDER - 6, 3))), 2) == base_multiply(5)


@settings(max_examples=30)
@given(coefficients, st.integers(1, 20), st.integers(1, ORDER - 1))
def test_only_the_right_share_matches(found, index, offset):
    """f(i) matches; f(i) plus anything does not."""
    polynomial = Polynomial(tuple(found))
    share = polynomial.evaluate(index)
    vector = commit(polynomial)
    assert share_matches(vector, index, share) is (share != 0)
    assert not share_matches(vector, index, (share + offset) % ORDER)


def test_share_zero_never_matches():
    """Not even where it is the value: zero times G has no encoding."""
    assert not share_matches(commit(Polynomial((ORDER - 6, 3))), 2, 0)
    assert not share_matches(commit(Polynomial((ORDER - 6, 3))), 1, 0)


def test_no_share_matches_where_the_value_is_zero():
    """A dealer may choose its polynomial so, and send a share all the same: that is a wrong share like any other."""
    assert not share_matches(commit(Polynomial((ORDER - 6, 3))), 2, 5)


def test_the_sum_of_commitments_commits_to_the_sum():
    """Term by term."""
    assert add_commitments([commit(Polynomial((1, 2))), commit(Polynomial((10, 20)))]) == commit(
        Polynomial((11, 22))
    )


def test_a_sum_with_infinity_in_it_is_none():
    """Opposite coefficients cancel."""
    assert add_commitments([commit(Polynomial((1, 2))), commit(Polynomial((10, ORDER - 2)))]) is None

"""Scalars and polynomials."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER
from dan_async.devnet.mpc.field import Polynomial, random_scalar, scalar_from_bytes, scalar_to_bytes
from dan_async.errors import InvalidFieldError
from tests.interpolation import interpolate_scalar

scalars = st.integers(0, ORDER - 1)


@given(scalars)
def test_a_scalar_survives_its_encoding(scalar):
    """32 bytes and back."""
    assert scalar_from_bytes("x", scalar_to_bytes(scalar)) == scalar


@pytest.mark.parametrize("value", [ORDER, ORDER + 1, 2**256 - 1])
def test_a_scalar_has_one_encoding_only(value):
    """Numbers from the order upwards are refused, not reduced."""
    with pytest.raises(InvalidFieldError, match="share must be below"):
        scalar_from_bytes("share", value.to_bytes(32, "big"))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_scalar_is_32_bytes(length):
    """No other length."""
    with pytest.raises(InvalidFieldError, match="32 bytes"):
        scalar_from_bytes("share", bytes(length))


@pytest.mark.parametrize("byte", [b"\x00", b"\xff", b"\x7f"])
def test_a_random_scalar_is_never_zero_and_below_the_order(byte):
    """Even from a source that gives the same byte for ever."""
    assert 0 < random_scalar(lambda length: byte * length) < ORDER


def test_a_random_scalar_draws_more_bytes_than_the_order_has():
    """So that its remainder is not biased."""
    drawn = []
    random_scalar(lambda length: drawn.append(length) or bytes(length))
    assert drawn == [48]


@given(st.lists(scalars, min_size=1, max_size=6))
def test_a_polynomial_is_what_its_values_interpolate_to(coefficients):
    """Values at degree + 1 places give back the constant term and any other value."""
    polynomial = Polynomial(tuple(coefficients))
    values = {i: polynomial.evaluate(i) for i in range(1, len(coefficients) + 1)}
    assert interpolate_scalar(values) == coefficients[0]
    assert interpolate_scalar(values, at=77) == polynomial.evaluate(77)


def test_a_random_polynomial_has_the_degree_asked_for():
    """No leading coefficient is zero."""
    polynomial = Polynomial.random(3, bytes)
    assert polynomial.degree == 3
    assert all(polynomial.coefficients)


def test_a_polynomial_hides_its_coefficients():
    """In repr and str."""
    polynomial = Polynomial((123456789, 987654321))
    assert "123456789" not in f"{polynomial!r} {polynomial}"

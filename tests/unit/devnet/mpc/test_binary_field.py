"""Linear hashing over GF(2^208)."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.devnet.mpc.ot import BLOCK_BITS, REDUCTION, ROW_BITS, TRANSFERS, hash_rows

MODULUS = (1 << BLOCK_BITS) | sum(1 << power for power in REDUCTION)
elements = st.integers(0, 2**BLOCK_BITS - 1)
rows = st.integers(0, 2**ROW_BITS - 1)
BLOCK = 2**BLOCK_BITS - 1
matrices = st.integers(0, 2**64).map(lambda seed: random.Random(seed).getrandbits(TRANSFERS * ROW_BITS))


def remainder(value, modulus):
    while value.bit_length() >= modulus.bit_length():
        value ^= modulus << (value.bit_length() - modulus.bit_length())
    return value


def times(one, other):
    """Schoolbook multiplication of polynomials over GF(2), then division."""
    product = 0
    while other:
        product ^= one if other & 1 else 0
        one, other = one << 1, other >> 1
    return remainder(product, MODULUS)


def test_the_modulus_is_irreducible():
    """Rabin's test for degree 208 = 2^4·13: X^(2^208) = X, and X^(2^(208/p)) - X has no factor in common for p = 2, 13."""

    def frobenius(steps):
        value = 2
        for _ in range(steps):
            value = times(value, value)
        return value

    def gcd(one, other):
        while other:
            one, other = other, remainder(one, other)
        return one

    assert frobenius(208) == 2
    assert gcd(MODULUS, frobenius(208 // 2) ^ 2) == 1
    assert gcd(MODULUS, frobenius(208 // 13) ^ 2) == 1


@settings(max_examples=40)
@given(rows, elements, elements)
def test_the_hash_is_what_the_formula_says(row, first, second):
    """x1·block1 + x2·block2 + block3; the last 16 bits of the row do not count."""
    one, two, three = (row >> BLOCK_BITS * k & BLOCK for k in range(3))
    assert hash_rows(row, first, second) == times(first, one) ^ times(second, two) ^ three


@settings(max_examples=10)
@given(matrices, elements, elements)
def test_every_row_is_hashed_by_itself(matrix, first, second):
    """All rows at once or one at a time."""
    together = hash_rows(matrix, first, second)
    for i in (0, 1, 64, 127):
        row = matrix >> ROW_BITS * i & ((1 << ROW_BITS) - 1)
        assert together >> ROW_BITS * i & ((1 << ROW_BITS) - 1) == hash_rows(row, first, second)


@settings(max_examples=20)
@given(rows, rows, elements, elements)
def test_the_hash_is_linear(one, other, first, second):
    """Which is what the consistency check rests on."""
    assert hash_rows(one ^ other, first, second) == hash_rows(one, first, second) ^ hash_rows(
        other, first, second
    )

"""Bit matrices."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.devnet.mpc.ot import ROW_BITS, TRANSFERS, repeat_row, select_rows, transpose

matrices = st.integers(0, 2**64).map(lambda seed: random.Random(seed).getrandbits(TRANSFERS * ROW_BITS))


def rows_of(matrix):
    return [matrix >> ROW_BITS * i & ((1 << ROW_BITS) - 1) for i in range(TRANSFERS)]


@settings(max_examples=10)
@given(matrices, st.sampled_from([1, 128, 416, 640]))
def test_transposing_exchanges_rows_and_columns(matrix, columns):
    """Bit i of column j is bit j of row i."""
    rows = rows_of(matrix)
    found = [int.from_bytes(column, "little") for column in transpose(matrix, columns)]
    assert found == [sum((row >> j & 1) << i for i, row in enumerate(rows)) for j in range(columns)]


def test_a_single_bit_lands_where_it_belongs():
    """Not in its mirror image."""
    columns = transpose(1 << ROW_BITS * 3 + 200, 416)
    assert [j for j, column in enumerate(columns) if any(column)] == [200]
    assert int.from_bytes(columns[200], "little") == 1 << 3


@settings(max_examples=20)
@given(st.integers(0, 2**ROW_BITS - 1))
def test_a_repeated_row_is_every_row(row):
    """128 times."""
    assert rows_of(repeat_row(row)) == [row] * TRANSFERS


@settings(max_examples=20)
@given(st.integers(0, 2**TRANSFERS - 1))
def test_selected_rows_are_all_ones(selection):
    """And the others zero."""
    assert rows_of(select_rows(selection)) == [
        (1 << ROW_BITS) - 1 if selection >> i & 1 else 0 for i in range(TRANSFERS)
    ]

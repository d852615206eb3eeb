"""
Bit matrices of 128 rows as one large integer, so that each step works on all rows at once.

Row i is bits 640·i to 640·i + 639 of the integer; bit j of a row is column j.
"""

from __future__ import annotations

from functools import lru_cache

ROWS = 128
ROW_BITS = 640
ROW_BYTES = ROW_BITS // 8

_COLUMN_BYTES = ROWS // 8


def repeat_row(row: int) -> int:
    """Give the matrix with that row 128 times."""
    return int.from_bytes(row.to_bytes(ROW_BYTES, "little") * ROWS, "little")


def select_rows(selection: int) -> int:
    """Give the matrix with ones in row i where bit i is set, and zeros elsewhere."""
    rows = (b"\xff" if selection >> i & 1 else b"\0" for i in range(ROWS))
    return int.from_bytes(b"".join(row * ROW_BYTES for row in rows), "little")


@lru_cache(maxsize=1)
def _stages() -> tuple[tuple[int, int], ...]:
    """Give shift and mask of each round of swaps; a mask has the even rows and odd columns, counted in steps of 1 to 64."""
    stages = []
    for step in (1, 2, 4, 8, 16, 32, 64):
        columns = sum(1 << column for column in range(ROW_BITS) if column & step)
        mask = sum(columns << ROW_BITS * row for row in range(ROWS) if not row & step)
        stages.append(((ROW_BITS - 1) * step, mask))
    return tuple(stages)


def transpose(matrix: int, columns: int) -> list[bytes]:
    """
    Give the columns of a matrix, by swapping ever larger blocks (Hacker's Delight, section 7-3).

    Args:
        matrix: The matrix.
        columns: How many columns are wanted.

    Returns:
        Each column as 16 bytes, little-endian: bit i is row i.
    """
    for shift, mask in _stages():
        swapped = (matrix >> shift ^ matrix) & mask
        matrix ^= swapped | swapped << shift
    data = matrix.to_bytes(ROWS * ROW_BYTES, "little")
    # Column j is now in row j mod 128, within the block of 128 columns that it was in.
    starts = (ROW_BYTES * (j % ROWS) + _COLUMN_BYTES * (j // ROWS) for j in range(columns))
    return [data[start : start + _COLUMN_BYTES] for start in starts]

"""
Linear hashing over GF(2^208), for the consistency check of the oblivious-transfer extension.

The hash of a row is ``x1·block1 + x2·block2 + block3``, where the blocks are its first 624 bits, 208 each, and x1 and x2 are
field elements that are chosen after the rows. Field elements are integers: bit i is the coefficient of X^i.
"""

from __future__ import annotations

from dan_async.devnet.mpc.bit_matrix import repeat_row

#: λc + λs: the two elements come from a hash (Fiat-Shamir), so that a cheat may try 2^128 of them, and must still fail
#: but for 2^-80.
BLOCK_BITS = 208

#: X^208 + X^9 + X^3 + X + 1 is irreducible, so X^208 = X^9 + X^3 + X + 1.
REDUCTION = (0, 1, 3, 9)

_WINDOW = 4
_BLOCK = repeat_row((1 << BLOCK_BITS) - 1)


def _reduce(product: int) -> int:
    """Bring every row below degree 208, from at most 2·208 - 2. The second fold takes what the first leaves above."""
    for _ in range(2):
        high = product >> BLOCK_BITS & _BLOCK
        product &= _BLOCK
        for power in REDUCTION:
            product ^= high << power
    return product


def hash_rows(matrix: int, first: int, second: int) -> int:
    """
    Hash every row of a matrix; a single row will do as a matrix whose other rows are zero.

    Args:
        matrix: The rows, see ``bit_matrix``.
        first: x1.
        second: x2.

    Returns:
        The matrix of the rows' hashes, 208 bits each.
    """
    tables = []
    for block in (matrix & _BLOCK, matrix >> BLOCK_BITS & _BLOCK):
        multiples = [0]
        for power in range(_WINDOW):
            multiples += [multiple ^ block << power for multiple in multiples]
        tables.append(multiples)
    product = 0
    for power in reversed(
        range(0, BLOCK_BITS, _WINDOW)
    ):  # Horner's rule in X^4, for both products and all rows together
        product = product << _WINDOW ^ tables[0][first >> power & 15] ^ tables[1][second >> power & 15]
    return _reduce(product) ^ (matrix >> 2 * BLOCK_BITS & _BLOCK)

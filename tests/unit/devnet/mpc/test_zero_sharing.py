"""Shares of zero."""

import secrets

from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER
from dan_async.devnet.mpc.field import zero_shares


def shares(group, context=b"context", seeds=None):
    seeds = seeds or {frozenset((i, j)): secrets.token_bytes(32) for i in group for j in group if i < j}
    parts = {
        i: zero_shares(i, {j: seeds[frozenset((i, j))] for j in group if j != i}, context) for i in group
    }
    assert all((parts[i][j] + parts[j][i]) % ORDER == 0 for i in group for j in parts[i])
    return {i: sum(found.values()) % ORDER for i, found in parts.items()}


@given(st.sets(st.integers(1, 20), min_size=2, max_size=6), st.binary(max_size=40))
def test_the_shares_of_any_group_add_up_to_zero(group, context):
    """For every group and occasion."""
    found = shares(group, context)
    assert sum(found.values()) % ORDER == 0
    assert all(0 < share < ORDER for share in found.values())


def test_another_occasion_gives_other_shares():
    """From the same seeds."""
    seeds = {frozenset(pair): secrets.token_bytes(32) for pair in ((1, 2), (1, 3), (2, 3))}
    one, other = shares((1, 2, 3), b"one", seeds), shares((1, 2, 3), b"other", seeds)
    assert not set(one.values()) & set(other.values())


def test_another_group_gives_other_shares():
    """A party that is left out takes its terms with it."""
    seeds = {frozenset(pair): secrets.token_bytes(32) for pair in ((1, 2), (1, 3), (2, 3))}
    assert shares((1, 2, 3), b"c", seeds)[1] != shares((1, 2), b"c", seeds)[1]

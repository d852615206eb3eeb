"""The rate limit: a burst, then so many per second, for each address."""

from __future__ import annotations

import pytest

from dan_async.devnet.context import RateLimit
from tests.helpers import ManualClock


@pytest.fixture
def clock():
    return ManualClock(0.0)


@pytest.fixture
def limit(clock):
    return RateLimit(10.0, 3, clock=clock, max_addresses=2)


def test_a_burst_passes_and_the_next_must_wait(limit):
    """The wait is what it takes for one more token."""
    assert [limit.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limit.take("a") == pytest.approx(0.1)


def test_tokens_come_back_with_time(limit, clock):
    """One for each tenth of a second, and never more than the burst."""
    for _ in range(3):
        limit.take("a")
    clock.advance(0.1)
    assert limit.take("a") == 0.0
    assert limit.take("a") > 0.0
    clock.advance(100)
    assert [limit.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_addresses_do_not_share(limit):
    """One client's haste is not another's."""
    for _ in range(4):
        limit.take("a")
    assert limit.take("b") == 0.0


def test_memory_is_bounded(limit):
    """The address not seen for longest is forgotten."""
    for address in ("a", "b", "c", "d"):
        limit.take(address)
    assert len(limit._buckets) == 2

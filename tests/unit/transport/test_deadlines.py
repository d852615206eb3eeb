"""One timer for the time limits of many requests."""

from __future__ import annotations

import asyncio
import random

import pytest

from dan_async.transport._limits import Deadlines
from tests.helpers import wait_until


class Requests:
    """Requests in flight, and when each of them expired."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.pending = {}
        self.expired = {}
        self.deadlines = Deadlines(self.pending, self._expire)
        self.start = self.loop.time()

    def _expire(self, answer):
        number = next(number for number, each in self.pending.items() if each is answer)
        self.expired[number] = self.loop.time() - self.start
        del self.pending[number]

    def add(self, number, left_s):
        self.pending[number] = self.loop.create_future()
        self.deadlines.add(number, left_s)


async def test_each_expires_in_its_own_time_whatever_the_order():
    """Short after long, long after short: none early, none much late, each once."""
    requests = Requests()
    times = [i * 0.002 for i in range(1, 51)]
    random.Random(3).shuffle(times)
    for number, left_s in enumerate(times):
        requests.add(number, left_s)
    await wait_until(lambda: not requests.pending)
    assert sorted(requests.expired) == list(range(50))
    for number, left_s in enumerate(times):
        assert left_s - 0.001 <= requests.expired[number] < left_s + 1
    assert len(requests.deadlines) == 0


async def test_request_that_has_ended_does_not_expire():
    """What is no longer pending is passed over."""
    requests = Requests()
    requests.add(1, 0.01)
    requests.add(2, 0.02)
    del requests.pending[1]
    await asyncio.sleep(0.1)
    assert list(requests.expired) == [2]


async def test_later_requests_do_not_expire_with_an_earlier_one_that_was_swept_out():
    """The timer of a request that has ended may fire; what it finds first is not due for that reason."""
    requests = Requests()
    requests.add(0, 0.03)
    del requests.pending[0]
    for number in range(1, 200):
        requests.add(number, 60)
        if number < 199:
            del requests.pending[number]
    assert len(requests.deadlines) < 100
    await asyncio.sleep(0.1)
    assert requests.expired == {}
    assert list(requests.pending) == [199]
    requests.deadlines.close()


async def test_ended_requests_do_not_pile_up():
    """A million quick calls with a long time limit keep no list of a million."""
    requests = Requests()
    for number in range(20_000):
        requests.add(number, 60)
        del requests.pending[number]
    assert len(requests.deadlines) <= 65
    requests.deadlines.close()


async def test_zero_seconds_expire_at_once():
    """No time left is a deadline like any other."""
    requests = Requests()
    requests.add(1, 0.0)
    await asyncio.sleep(0.01)
    assert list(requests.expired) == [1]


async def test_timer_is_set_again_after_a_pause():
    """When all has ended and a new request comes, it expires as well."""
    requests = Requests()
    requests.add(1, 0.005)
    await asyncio.sleep(0.05)
    requests.add(2, 0.005)
    await asyncio.sleep(0.05)
    assert list(requests.expired) == [1, 2]


@pytest.mark.parametrize("count", [0, 3])
async def test_closing_forgets_everything(count):
    """Nothing expires afterwards."""
    requests = Requests()
    for number in range(count):
        requests.add(number, 0.005)
    requests.deadlines.close()
    await asyncio.sleep(0.03)
    assert requests.expired == {}
    assert len(requests.deadlines) == 0

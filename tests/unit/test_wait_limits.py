"""One timer for the time limits of many waits."""

from __future__ import annotations

import asyncio
import random

import pytest

from dan_async.deadline import WaitLimits
from tests.helpers import wait_until


class Requests:
    """Requests in flight, and when each of them expired."""

    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.pending = {}
        self.expired = {}
        self.limits = WaitLimits()
        self.start = self.loop.time()

    def _expire(self, number):
        self.expired[number] = self.loop.time() - self.start
        del self.pending[number]

    def add(self, number, left_s):
        self.pending[number] = self.limits.begin(left_s, lambda: self._expire(number))

    def end(self, number):
        self.limits.end(self.pending.pop(number))

    @property
    def kept(self):
        return len(self.limits._heap)


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
    assert requests.kept == 0


async def test_request_that_has_ended_does_not_expire():
    """What is no longer pending is passed over."""
    requests = Requests()
    requests.add(1, 0.01)
    requests.add(2, 0.02)
    requests.end(1)
    await asyncio.sleep(0.1)
    assert list(requests.expired) == [2]


async def test_later_requests_do_not_expire_with_an_earlier_one_that_was_swept_out():
    """The timer of a request that has ended may fire; what it finds first is not due for that reason."""
    requests = Requests()
    requests.add(0, 0.03)
    requests.end(0)
    for number in range(1, 200):
        requests.add(number, 60)
        if number < 199:
            requests.end(number)
    assert requests.kept < 100
    await asyncio.sleep(0.1)
    assert requests.expired == {}
    assert list(requests.pending) == [199]
    requests.limits.close()


async def test_ended_requests_do_not_pile_up():
    """A million quick calls with a long time limit keep no list of a million."""
    requests = Requests()
    for number in range(20_000):
        requests.add(number, 60)
        requests.end(number)
    assert requests.kept <= 65
    requests.limits.close()


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
    requests.limits.close()
    await asyncio.sleep(0.03)
    assert requests.expired == {}
    assert requests.kept == 0


async def test_who_waits_too_long_is_called_once():
    """Each in its own time, whatever the order in which they began."""
    limits, late = WaitLimits(), []
    for name, limit_s in (("third", 0.06), ("first", 0.01), ("second", 0.03)):
        limits.begin(limit_s, lambda name=name: late.append(name))
    await wait_until(lambda: len(late) == 3)
    await asyncio.sleep(0.02)
    assert late == ["first", "second", "third"]
    limits.close()


async def test_a_wait_that_ended_in_time_is_not_called():
    """Ending it twice is as good as once."""
    limits, late = WaitLimits(), []
    ended = limits.begin(0.01, lambda: late.append("ended"))
    limits.begin(0.02, lambda: late.append("late"))
    limits.end(ended)
    limits.end(ended)
    await wait_until(lambda: late)
    assert late == ["late"]
    limits.close()


async def test_nobody_is_called_after_the_end():
    """Closing forgets every wait."""
    limits, late = WaitLimits(), []
    limits.begin(0.01, lambda: late.append("late"))
    assert len(limits) == 1
    limits.close()
    assert len(limits) == 0
    await asyncio.sleep(0.03)
    assert late == []

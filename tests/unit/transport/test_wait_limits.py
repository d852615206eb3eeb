"""Time limits of many waits."""

from __future__ import annotations

import asyncio

from dan_async.transport._limits import WaitLimits
from tests.helpers import wait_until


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

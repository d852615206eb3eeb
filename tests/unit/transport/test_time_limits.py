"""TimeLimits: many waits, one timer."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

from dan_async.transport.connecting import TimeLimits


async def until_over(ended: list[str], count: int) -> None:
    async with asyncio.timeout(5):
        while len(ended) < count:
            await asyncio.sleep(0.001)


async def test_waits_end_in_the_order_of_their_limits():
    """Whichever began first."""
    ended: list[str] = []
    limits = TimeLimits()
    for name, timeout_s in (("third", 0.06), ("first", 0.01), ("second", 0.03)):
        limits.begin(name, timeout_s, lambda name=name: ended.append(name))
    await until_over(ended, 3)
    assert ended == ["first", "second", "third"]


async def test_a_wait_that_ended_is_not_told():
    """Nor one that ends while the loop reads what has come in the last moment; one that begins again has its new limit."""
    ended: list[str] = []
    limits = TimeLimits()
    limits.begin("ended", 0.005, lambda: ended.append("ended"))
    limits.begin("late", 0.005, lambda: ended.append("late"))
    limits.begin("again", 0.005, lambda: ended.append("old limit"))
    limits.begin("again", 0.02, lambda: ended.append("new limit"))
    limits.end("ended")
    limits.end("never began")
    with patch(
        "dan_async.transport.connecting.after_reading",
        side_effect=lambda judge, over: (limits.end("late"), judge(over)),
    ):
        await until_over(ended, 1)
    assert ended == ["new limit"]


async def test_one_timer_serves_all():
    """It is set again for an earlier limit only, however many waits begin and end."""
    loop = asyncio.get_running_loop()
    limits = TimeLimits()
    with patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
        limits.begin("first", 10.0, lambda: None)
        for number in range(100):
            limits.begin(number, 20.0, lambda: None)
            limits.end(number)
        assert call_at.call_count == 1
        limits.begin("earlier", 5.0, lambda: None)
        assert call_at.call_count == 2
    limits.close()


async def test_limits_close_together_are_looked_at_together():
    """A thousand waits that end one after the other do not cost a thousand looks through all of them."""
    loop = asyncio.get_running_loop()
    ended: list[str] = []
    limits = TimeLimits()
    with patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
        for number in range(1000):
            limits.begin(number, 0.01 + number * 1e-5, lambda: ended.append(""))
        await until_over(ended, 1000)
    assert sum(call.args[1] == limits._look for call in call_at.call_args_list) <= 100


async def test_nothing_ends_after_closing():
    """Every wait is forgotten, and the timer with them; later ones count as ever."""
    ended: list[str] = []
    limits = TimeLimits()
    limits.begin("before", 0.005, lambda: ended.append("before"))
    limits.close()
    limits.begin("after", 0.01, lambda: ended.append("after"))
    await until_over(ended, 1)
    assert ended == ["after"]

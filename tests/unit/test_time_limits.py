"""TimeLimits: many waits, one timer."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest.mock import patch

from dan_async.deadline import TimeLimits


async def until_over(ended: list[Any], count: int) -> None:
    async with asyncio.timeout(5):
        while len(ended) < count:
            await asyncio.sleep(0.001)


async def test_waits_end_in_the_order_of_their_limits():
    """Whichever began first."""
    ended: list[str] = []
    limits = TimeLimits(ended.append)
    for name, timeout_s in (("third", 0.06), ("first", 0.01), ("second", 0.03)):
        limits.begin(name, timeout_s)
    await until_over(ended, 3)
    assert ended == ["first", "second", "third"]


async def test_a_wait_that_ended_is_not_told():
    """Nor one that ends while the loop reads what has come in the last moment; one that begins again has its new limit."""
    ended: list[str] = []
    limits = TimeLimits(ended.append)
    began = time.monotonic()
    limits.begin("ended", 0.005)
    limits.begin("late", 0.005)
    limits.begin("again", 0.005)
    limits.begin("again", 0.02)
    limits.end("ended")
    limits.end("never began")
    with patch(
        "dan_async.deadline.after_reading",
        side_effect=lambda judge, over: (limits.end("late"), judge(over)),
    ):
        await until_over(ended, 1)
    assert ended == ["again"]
    assert time.monotonic() - began >= 0.02


async def test_one_timer_serves_all():
    """It is set again for an earlier limit only, however many waits begin and end."""
    loop = asyncio.get_running_loop()
    limits: TimeLimits[object] = TimeLimits(print)
    with patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
        limits.begin("first", 10.0)
        for number in range(100):
            limits.begin(number, 20.0)
            limits.end(number)
        assert call_at.call_count == 1
        limits.begin("earlier", 5.0)
        assert call_at.call_count == 2
    limits.close()


async def test_limits_close_together_are_looked_at_together():
    """A thousand waits that end one after the other do not cost a thousand looks through all of them."""
    loop = asyncio.get_running_loop()
    ended: list[str] = []
    limits = TimeLimits(ended.append)
    with patch.object(loop, "call_at", wraps=loop.call_at) as call_at:
        for number in range(1000):
            limits.begin(str(number), 0.01 + number * 1e-5)
        await until_over(ended, 1000)
    assert sum(call.args[1] == limits._look for call in call_at.call_args_list) <= 100


async def test_few_waits_end_in_one_turn_of_the_loop():
    """A thousand that are over at the same time do not hold up the host's own work."""
    turn, ended = 0, list[int]()
    limits: TimeLimits[int] = TimeLimits(lambda _: ended.append(turn))

    def count() -> None:
        nonlocal turn
        turn += 1
        asyncio.get_running_loop().call_soon(count)

    count()
    for number in range(1000):
        limits.begin(number, 0.0)
    await until_over(ended, 1000)
    assert max(map(ended.count, set(ended))) <= 32


async def test_nothing_ends_after_closing():
    """Every wait is forgotten, and the timer with them; later ones count as ever."""
    ended: list[str] = []
    limits = TimeLimits(ended.append)
    limits.begin("before", 0.005)
    limits.close()
    limits.begin("after", 0.01)
    await until_over(ended, 1)
    assert ended == ["after"]


def test_another_event_loop_has_a_timer_of_its_own():
    """Though the one of a loop before, which has ended, would go off sooner."""
    ended: list[str] = []
    limits = TimeLimits(ended.append)

    async def begin_and_end() -> None:
        limits.begin("before", 0.01)
        limits.end("before")

    async def wait() -> None:
        limits.begin("after", 0.02)
        await until_over(ended, 1)

    asyncio.run(begin_and_end())
    asyncio.run(wait())
    assert ended == ["after"]

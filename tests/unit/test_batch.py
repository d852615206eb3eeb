"""Working on a stream of items: order, bounds, failures, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.batch import WorkStream
from dan_async.errors import InvalidFieldError
from dan_async.turns import BUDGET_S
from tests.helpers import ManualClock, assert_runs_under, cancelled_at, no_leaks


async def double(item: int) -> int:
    await asyncio.sleep(0)
    return 2 * item


class Source:
    """Counts what is read of it."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.read = 0

    def __iter__(self) -> Iterator[int]:
        while self.length is None or self.read < self.length:
            self.read += 1
            yield self.read - 1

    async def slowly(self) -> AsyncIterator[int]:
        for item in self:
            await asyncio.sleep(0)
            yield item


async def collect(stream: WorkStream[Any, Any]) -> dict[int, Any]:
    return {result.index: result.error or result.value async for result in stream}


@settings(max_examples=30)
@given(length=st.integers(0, 40), concurrency=st.integers(1, 12), is_async=st.booleans())
async def test_every_item_gives_one_result(length: int, concurrency: int, is_async: bool) -> None:
    """Whatever the length, the concurrency and the kind of source: each index once, with its own value."""
    source = Source(length)
    items = source.slowly() if is_async else source
    found = await collect(WorkStream(items, double, concurrency=concurrency))
    assert found == {index: 2 * index for index in range(length)}


async def test_results_come_as_they_are_finished() -> None:
    """A slow item does not hold up those after it."""
    gates = [asyncio.Event() for _ in range(4)]

    async def work(item: int) -> int:
        await gates[item].wait()
        return item

    stream = WorkStream(range(4), work, concurrency=4)
    order = []
    for item in (2, 0, 3, 1):
        gates[item].set()
        order.append((await anext(stream)).index)
    assert order == [2, 0, 3, 1]


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_endless_source_is_read_no_further_than_needed(is_async: bool) -> None:
    """At most the concurrency beyond the results that were taken, however slow the consumer is."""
    source = Source()
    async with assert_runs_under(10):
        stream = WorkStream(source.slowly() if is_async else source, double, concurrency=5)
        for taken in range(1, 50):
            await anext(stream)
            for _ in range(20):
                await asyncio.sleep(0)
            assert source.read <= taken + 5
        await stream.aclose()


async def test_nothing_is_read_before_the_first_result_is_asked_for() -> None:
    """Making a stream does nothing."""
    source = Source()
    stream = WorkStream(source, double, concurrency=5)
    await asyncio.sleep(0)
    assert source.read == 0
    await stream.aclose()


async def test_no_more_run_at_a_time_than_asked_for() -> None:
    """And that many do run."""
    running = most = 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    await collect(WorkStream(range(40), work, concurrency=7))
    assert most == 7


async def test_a_failure_is_one_result() -> None:
    """The others go on."""

    async def work(item: int) -> int:
        if item % 3 == 0:
            raise ValueError(item)
        return item

    found = await collect(WorkStream(range(9), work, concurrency=4))
    assert {i for i, value in found.items() if isinstance(value, ValueError)} == {0, 3, 6}
    assert found[4] == 4


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_source_that_breaks_is_reported_last(is_async: bool) -> None:
    """What was begun before is finished and given; then the source's own error is raised."""

    def broken() -> Iterator[int]:
        yield from range(5)
        raise OSError("the file is gone")

    async def broken_slowly() -> AsyncIterator[int]:
        for item in broken():
            yield item

    stream = WorkStream(broken_slowly() if is_async else broken(), double, concurrency=2)
    found = []
    with pytest.raises(OSError, match="gone"):
        async for result in stream:
            found.append(result.index)
    assert sorted(found) == [0, 1, 2, 3, 4]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_fatal_error_ends_it() -> None:
    """Nothing more is begun; it is raised when the others have ended."""
    source = Source(1000)

    async def work(item: int) -> int:
        if item == 3:
            raise KeyError("closed")
        return item

    with pytest.raises(KeyError):
        await collect(WorkStream(source, work, concurrency=2, fatal=KeyError))
    assert source.read < 10


async def test_closing_cancels_and_waits() -> None:
    """No task is left, cleanup has run, and no result comes afterwards."""
    ended = []

    async def work(item: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(item)

    async with no_leaks():
        stream = WorkStream(Source(), work, concurrency=3)
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await stream.aclose()
        await stream.aclose()
    assert sorted(ended) == [0, 1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_ends_the_loop_of_whoever_waits() -> None:
    """Another task closes: the one that waits for a result was not cancelled, and gets none."""

    async def consume(items: Any) -> list[Any]:
        return [finished.index async for finished in items]

    async with no_leaks():
        stream = WorkStream(Source(), lambda _: asyncio.Event().wait(), concurrency=3)
        consumer = asyncio.create_task(consume(stream))
        await asyncio.sleep(0.001)
        await stream.aclose()
        assert await consumer == []


async def test_closing_while_more_is_begun_ends_the_loop() -> None:
    """Also for whoever is just about to be given a result that was ready."""
    closing: list[asyncio.Task[None]] = []

    def source() -> Iterator[int]:
        for item in range(10):
            end = time.thread_time() + 2 * BUDGET_S  # nothing is left of this turn of the loop
            while time.thread_time() < end:
                pass
            if item == 3:
                closing.append(asyncio.create_task(stream.aclose()))
            yield item

    async with no_leaks():
        stream = WorkStream(source(), double, concurrency=3)
        assert [finished.index async for finished in stream] == [0]
        await closing[0]


async def test_cancelling_the_consumer_anywhere_leaves_nothing() -> None:
    """At each wait of reading, working and taking."""

    async def consume() -> None:
        stream = WorkStream(Source(6).slowly(), double, concurrency=2)
        try:
            async for _ in stream:
                pass
        finally:
            await stream.aclose()

    step = 1
    async with no_leaks():
        while await cancelled_at(step, consume()):
            step += 1
    assert step > 5


async def test_a_stream_that_is_forgotten_stops_working() -> None:
    """Leaving the loop without closing cancels what is under way as soon as nobody holds the stream."""
    cancelled = asyncio.Event()

    async def work(item: int) -> int:
        if item == 0:
            return item
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return item

    stream = WorkStream(Source(), work, concurrency=3)
    await anext(stream)
    await asyncio.sleep(0)
    del stream
    gc.collect()
    async with asyncio.timeout(5):
        await cancelled.wait()


async def test_several_consumers_share_a_stream() -> None:
    """Each result goes to one of them."""
    stream = WorkStream(range(30), double, concurrency=4)
    found = await asyncio.gather(*(collect(stream) for _ in range(3)))
    merged = [index for part in found for index in part]
    assert sorted(merged) == list(range(30))


async def test_items_begin_at_the_rate_asked_for() -> None:
    """Evenly spaced by the clock, whatever the concurrency."""
    clock = ManualClock(0.0)
    begun = []

    async def work(item: int) -> int:
        begun.append(clock())
        return item

    stream = WorkStream(range(6), work, concurrency=1, rate_limit=4, clock=clock, sleep=clock.sleep)
    await collect(stream)
    assert begun == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]


@pytest.mark.parametrize(
    ("items", "options"),
    [
        ("abc", {"concurrency": 1}),
        (7, {"concurrency": 1}),
        ([], {"concurrency": 0}),
        ([], {"concurrency": True}),
        ([], {"concurrency": 1, "rate_limit": 0}),
        ([], {"concurrency": 1, "rate_limit": float("nan")}),
    ],
)
def test_wrong_parameters_are_refused(items: Any, options: dict[str, Any]) -> None:
    """When the stream is made."""
    with pytest.raises(InvalidFieldError):
        WorkStream(items, double, **options)

"""Backpressure: writers wait in a row, with one timer, and nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dan_async.transport.socket import WriteBuffer
from tests.helpers import assert_runs_under, wait_until


class Line:
    """A transport of which only the unread bytes matter."""

    def __init__(self) -> None:
        self.unread = 0

    def get_write_buffer_size(self) -> int:
        return self.unread


class Writers:
    """Calls that write ten bytes each when it is their turn."""

    def __init__(self, *, most: int = 10) -> None:
        self.line = Line()
        self.buffer = WriteBuffer(self.line, most)
        self.order: list[int] = []
        self.answers: list[asyncio.Future[Any]] = []

    def start(self, number: int) -> asyncio.Task[None]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return asyncio.create_task(self._write(number, answer))

    async def _write(self, number: int, answer: asyncio.Future[Any]) -> None:
        if self.buffer.is_crowded:
            await self.buffer.wait(answer)
        if not answer.done():
            self.line.unread += 10
            self.order.append(number)
            self.buffer.pass_on()

    def timer(self) -> Any:
        return self.buffer._timer


@pytest.fixture
async def writers() -> Writers:
    return Writers()


async def test_nobody_waits_while_the_peer_reads(writers: Writers) -> None:
    """An idle line costs no wait and no timer."""
    await writers.start(1)
    await writers.start(2)
    assert writers.order == [1, 2]
    assert writers.timer() is None


async def test_calls_write_in_the_order_of_their_coming(writers: Writers) -> None:
    """Also those that come when the peer has read on: nobody pushes in."""
    writers.line.unread = 100
    tasks = [writers.start(number) for number in range(5)]
    await asyncio.sleep(0)
    writers.line.unread = 0
    tasks.append(writers.start(5))
    async with assert_runs_under(2):
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.001)
            writers.line.unread = 0
    assert writers.order == [0, 1, 2, 3, 4, 5]


async def test_no_more_is_written_than_the_peer_has_read(writers: Writers) -> None:
    """Each one that writes lets the next go only if the peer has read on."""
    writers.line.unread = 100
    tasks = [writers.start(number) for number in range(50)]
    await asyncio.sleep(0)
    writers.line.unread = 0
    await wait_until(lambda: writers.order)
    await asyncio.sleep(0.02)
    assert writers.order == [0, 1]  # 10 unread bytes are not too many, 20 are
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert not writers.buffer._waiting
    assert writers.timer() is None


async def test_one_timer_serves_a_thousand_calls(writers: Writers) -> None:
    """While nothing can be written, the loop has next to nothing to do."""
    if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        pytest.skip("only asyncio's own loop shows its timers")
    writers.line.unread = 100
    tasks = [writers.start(number) for number in range(1000)]
    await asyncio.sleep(0)
    timers = [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]
    assert sum(handle._callback == writers.buffer._look for handle in timers) == 1
    for answer in writers.answers:
        answer.set_result("lost")
    await asyncio.gather(*tasks)
    assert writers.order == []
    assert writers.timer() is None


async def test_a_call_whose_time_is_over_does_not_keep_its_place(writers: Writers) -> None:
    """It ends at once and writes nothing; the next one has its turn."""
    writers.line.unread = 100
    first, second = writers.start(1), writers.start(2)
    await asyncio.sleep(0)
    writers.answers[0].set_result("timed out")
    await first
    writers.line.unread = 0
    async with assert_runs_under(2):
        await second
    assert writers.order == [2]


async def test_a_cancelled_call_leaves_its_turn_to_the_next(writers: Writers) -> None:
    """Even when it is cancelled in the very moment in which it was given the turn."""
    writers.line.unread = 100
    first, second = writers.start(1), writers.start(2)
    await asyncio.sleep(0)
    writers.line.unread = 0
    writers.buffer.pass_on()
    first.cancel()
    async with assert_runs_under(2):
        await second
    assert first.cancelled()
    assert writers.order == [2]
    assert writers.timer() is None

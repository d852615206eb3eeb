"""Deadlines and the owning of tasks."""

from __future__ import annotations

import asyncio

import pytest

from dan_async._tasks import Deadline, cancel_and_wait
from dan_async.errors import DeadlineExceededError


class Time:
    """A clock that moves when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_runs_down() -> None:
    """What is left shrinks and stops at nothing."""
    time = Time()
    deadline = Deadline(10, clock=time)
    assert (deadline.remaining(), deadline.is_over) == (10, False)
    assert deadline.cap(3) == 3
    assert deadline.cap(None) == 10
    time.now += 8
    assert deadline.cap(3) == 2
    time.now += 8
    assert (deadline.remaining(), deadline.is_over) == (0, True)
    error = deadline.error("waiting", phase="keygen")
    assert isinstance(error, DeadlineExceededError)
    assert "10 s ran out while waiting" in str(error)
    assert error.phase == "keygen"


def test_no_deadline() -> None:
    """None never runs out."""
    deadline = Deadline(None)
    assert deadline.remaining() is None
    assert not deadline.is_over
    assert deadline.cap(4) == 4
    with deadline.paused():
        pass
    assert deadline.cap(None) is None


def test_a_paused_deadline_stands_still() -> None:
    """Time that a person takes does not count."""
    time = Time()
    deadline = Deadline(10, clock=time)
    with deadline.paused():
        time.now += 1000
    assert deadline.remaining() == 10


async def test_cancel_and_wait_sees_every_task_end() -> None:
    """Cleanup in the tasks has run when it returns; finished and failed ones are fine."""
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(1)

    async def broken() -> None:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(c) for c in (slow(), slow(), broken(), asyncio.sleep(0))]
    await asyncio.sleep(0)
    await cancel_and_wait(tasks)
    assert ended == [1, 1]
    assert all(task.done() for task in tasks)


async def test_cancel_and_wait_goes_on_when_cancelled_itself() -> None:
    """A cancelled caller still waits for the tasks, and stays cancelled."""
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            ended.append(1)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    owner = asyncio.create_task(cancel_and_wait([task]))
    await asyncio.sleep(0)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert ended == [1]

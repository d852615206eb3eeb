"""Threads for what would hold the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dan_async.devnet.context import Urgency, Workers


async def test_work_runs_on_threads_of_its_own():
    """Arithmetic on one, the disk on another, neither on the loop's."""
    with Workers() as workers:
        arithmetic = await workers.compute(threading.get_ident)
        disk = await workers.use_disk(threading.get_ident)
        assert len({arithmetic, disk, threading.get_ident()}) == 3
        assert await workers.compute(threading.get_ident) == arithmetic


async def test_arguments_results_and_errors_come_through():
    """As from a call."""
    with Workers() as workers:
        assert await workers.compute(divmod, 7, 3) == (2, 1)
        with pytest.raises(ZeroDivisionError):
            await workers.use_disk(divmod, 7, 0)


async def test_closed_workers_leave_no_thread():
    """And take no more work."""
    with Workers() as workers:
        await workers.compute(int)
        await workers.use_disk(int)
    assert not any(thread.name.startswith("dan-devnet") for thread in threading.enumerate())
    with pytest.raises(RuntimeError):
        await workers.compute(int)


class Gate:
    """Holds the arithmetic thread until it is let go."""

    def __init__(self, workers):
        self.open = threading.Event()
        self.begun = threading.Event()
        self.task = asyncio.create_task(workers.compute(self.wait))

    def wait(self):
        self.begun.set()
        assert self.open.wait(10)


async def test_what_is_urgent_goes_first():
    """And of what is equally urgent, what came first."""
    done = []
    with Workers() as workers:
        gate = Gate(workers)
        wanted = [
            ("new", Urgency.NEW),
            ("a", Urgency.UNDER_WAY),
            ("b", Urgency.UNDER_WAY),
            ("now", Urgency.AWAITED),
        ]
        tasks = [
            asyncio.create_task(workers.compute(done.append, name, urgency=urgency))
            for name, urgency in wanted
        ]
        await asyncio.sleep(0.01)
        gate.open.set()
        await asyncio.gather(gate.task, *tasks)
    assert done == ["now", "a", "b", "new"]


async def test_what_nobody_waits_for_any_more_is_not_done():
    """A cancelled caller takes its work along, unless it has begun."""
    done = []
    with Workers() as workers:
        gate = Gate(workers)
        dropped = asyncio.create_task(workers.compute(done.append, "dropped"))
        await asyncio.sleep(0.01)
        dropped.cancel()
        await asyncio.wait([dropped])
        gate.open.set()
        await gate.task
        await workers.compute(done.append, "kept")
    assert done == ["kept"]


async def test_closing_drops_what_has_not_begun():
    """Whoever waits for it is told, and what has begun ends."""
    workers = Workers()
    gate = Gate(workers)
    waiting = asyncio.create_task(workers.compute(int))
    assert await asyncio.to_thread(gate.begun.wait, 10)
    gate.open.set()
    threading.Timer(0, workers.close).run()
    await asyncio.wait([waiting, gate.task])
    assert gate.task.done()
    assert not gate.task.cancelled()
    assert waiting.done()

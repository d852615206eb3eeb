"""Threads for what would hold the event loop."""

from __future__ import annotations

import threading

import pytest

from dan_async.devnet.workers import Workers


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

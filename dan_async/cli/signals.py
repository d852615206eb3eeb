"""Running a coroutine until it ends or a signal asks it to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

__all__ = ["run_until_signal"]


def run_until_signal(job: Coroutine[Any, Any, None]) -> signal.Signals | None:
    """
    Run a coroutine on a loop of its own, and cancel it when the process is asked to stop.

    The coroutine's own cleanup runs to its end, so that nothing is left behind. A second signal cancels again, which cuts
    short whatever the cleanup is waiting for.

    Args:
        job: What to run.

    Returns:
        The signal that stopped it, or None if it ended by itself.
    """
    return asyncio.run(_supervise(job))


async def _supervise(job: Coroutine[Any, Any, None]) -> signal.Signals | None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(job)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    for number in numbers:
        with suppress(NotImplementedError, RuntimeError):  # Windows, or a thread that is not the main one
            loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        for number in numbers:
            with suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)
    return received[0] if received and task.cancelled() else None

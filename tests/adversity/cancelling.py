"""Cancel a coroutine at its k-th await, for every k."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any


class CancelAt:
    """
    Awaits *inner* and cancels the task that awaits it when it gives way to the event loop for the k-th time.

    Unlike a timer it reaches every single await, and the same one on every run.
    """

    def __init__(self, inner: Awaitable[Any], k: int) -> None:
        self._inner = inner
        self._k = k
        self.steps = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        iterator = self._inner.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                yielded = iterator.send(value) if error is None else iterator.throw(error)
            except StopIteration as stop:
                return stop.value
            self.steps += 1
            if self.steps == self._k:
                task = asyncio.current_task()
                assert task is not None
                asyncio.get_running_loop().call_soon(task.cancel)
            error = None
            try:
                value = yield yielded
            except BaseException as caught:
                error = caught


async def cancel_everywhere(
    make: Callable[[], Awaitable[Any]], after_each: Callable[[int], Awaitable[None]], *, most: int = 10_000
) -> int:
    """Run *make()* again and again, cancelled one await later each time, until it comes to its end; count the runs."""
    for k in range(1, most):
        run = CancelAt(make(), k)

        async def driven(run: CancelAt = run) -> Any:
            return await run

        task = asyncio.create_task(driven())
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            if run.steps < k:
                return k - 1
        await after_each(k)
    raise AssertionError(f"not finished after {most} awaits")


async def cancel_after_loop_turns(make: Callable[[], Awaitable[Any]], turns: int) -> bool:
    """Run *make()* and cancel it after so many turns of the event loop; tell whether it was cut short."""

    async def driven() -> Any:
        return await make()

    task = asyncio.create_task(driven())
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False

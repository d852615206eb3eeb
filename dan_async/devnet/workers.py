"""Threads for what would hold the event loop."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from enum import IntEnum
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Urgency", "Workers"]

T = TypeVar("T")


class Urgency(IntEnum):
    """
    Which computation comes first.

    What is under way goes before what is new: so a busy node finishes one thing after the other, instead of letting
    everything wait for everything else until deadlines pass.
    """

    NEW = 0
    UNDER_WAY = 1
    AWAITED = 2


class _Arithmetic:
    """One thread that does what is most urgent, and of that what came first. It starts with its first task."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []  # a heap
        self._futures: set[Future[Any]] = set()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def submit(self, urgency: Urgency, function: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*arguments)
            except BaseException as error:  # noqa: BLE001 - it goes to whoever waits
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._changed:
            if self._is_closed:
                raise RuntimeError("the workers are closed")
            self._futures.add(future)
            heapq.heappush(self._waiting, (-urgency, next(self._numbers), work))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dan-devnet-arithmetic", daemon=True)
                self._thread.start()
            self._changed.notify()
        future.add_done_callback(self._forget)
        return future

    def shutdown(self) -> None:
        with self._changed:
            self._is_closed = True
            waiting = list(self._futures)
            self._changed.notify()
        for future in waiting:
            future.cancel()  # what runs already cannot be
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                _, _, work = heapq.heappop(self._waiting)
            work()
            del work  # neither what was computed nor what it was computed from outlives it here

    def _forget(self, future: Future[Any]) -> None:
        with self._changed:
            self._futures.discard(future)


class Workers:
    """
    Two threads: one for arithmetic, one for the disk.

    One for arithmetic is the best number, not the least: Python code in several threads fights the event loop for the
    interpreter lock, and with two the loop stalls longer while fewer keys get done. Who has cores to spare gives
    each node a process of its own.
    """

    def __init__(self) -> None:
        self._arithmetic = _Arithmetic()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="dan-devnet-disk")

    async def compute(
        self, function: Callable[..., T], *arguments: Any, urgency: Urgency = Urgency.UNDER_WAY
    ) -> T:
        """Run a computation off the event loop, when nothing more urgent is waiting."""
        return await asyncio.wrap_future(self._arithmetic.submit(urgency, function, *arguments))

    async def use_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run something that reads or writes files off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)

    def close(self) -> None:
        """Drop what has not begun, and wait for what has: a few milliseconds."""
        self._arithmetic.shutdown()
        self._disk.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Time limits: one timer for many waits, and calls that closing ends."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from functools import partial
from types import TracebackType

from dan_async.deadline import was_cut
from dan_async.errors import ClientClosedError, RequestTimeoutError


class WaitLimits:
    """
    Calls back whoever waits too long, with one timer for all waits on one event loop.

    A timer of asyncio's for each wait costs several times as much, most of it in a heap of timers that were cancelled.
    Here the timer is set to the earliest limit, and waits that have ended are simply no longer pending when it fires.
    """

    __slots__ = ("_fires_at", "_heap", "_last", "_pending", "_timer", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._pending: dict[int, Callable[[], object]] = {}
        self._heap: list[tuple[float, int]] = []
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, limit_s: float, on_late: Callable[[], object]) -> int:
        """Have *on_late* called in *limit_s* seconds unless ``end`` is, with the number that this returns."""
        self._last = number = self._last + 1
        self._pending[number] = on_late
        when = self.loop.time() + limit_s
        heap = self._heap
        heapq.heappush(heap, (when, number))
        if when < self._fires_at:
            self._set_timer(when)
        elif len(heap) > 4 * len(self._pending) + 64:
            # Mostly waits that have ended: sweeping them out is paid for by their number.
            heap[:] = [entry for entry in heap if entry[1] in self._pending]
            heapq.heapify(heap)
        return number

    def end(self, number: int) -> None:
        """Forget a wait. May be called twice."""
        self._pending.pop(number, None)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._fire)
        self._fires_at = when

    def _fire(self) -> None:
        # A timer may fire early by as much as the clock can tell; it is not set again for that.
        now = max(self.loop.time(), self._fires_at)
        self._timer = None
        self._fires_at = math.inf
        heap = self._heap
        while heap:
            when, number = heap[0]
            if number not in self._pending:
                heapq.heappop(heap)
            elif when <= now:
                heapq.heappop(heap)
                self._pending.pop(number)()
            else:
                self._set_timer(when)
                return

    def close(self) -> None:
        """Forget every wait."""
        self._pending.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._fires_at = math.inf


class InFlight:
    """The calls of one transport, which run in their callers' own tasks."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._calls: set[asyncio.Timeout] = set()
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._limits: WaitLimits | None = None
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def limits(self) -> WaitLimits:
        """The time limits of the running event loop."""
        if self._limits is None or self._limits.loop is not asyncio.get_running_loop():
            self._limits = WaitLimits()
        return self._limits

    def call(self, method: str, timeout_s: float | None) -> _Call:
        """Run one call inside ``async with``, cut off when *timeout_s* passes or the transport is closed."""
        return _Call(self, method, timeout_s)

    def begin(self, call: asyncio.Timeout) -> None:
        """Take note of a call; its time limit is how ``aclose`` ends it."""
        if self.is_closed:
            raise self.closed_error()
        self._calls.add(call)
        self._all_ended.clear()

    def end(self, call: asyncio.Timeout) -> None:
        """Take note that a call has ended."""
        self._calls.discard(call)
        if not self._calls:
            self._all_ended.set()

    def late_error(self, method: str, timeout_s: float | None) -> ClientClosedError | RequestTimeoutError:
        """Make the error of a call that was ended from our side."""
        if self.is_closed:
            return self.closed_error()
        return RequestTimeoutError(
            f"{method} at {self._where} timed out after {timeout_s or 0.0:g} s: no reply came"
        )

    def closed_error(self) -> ClientClosedError:
        """Make the error of a call on a closed transport."""
        return ClientClosedError(f"the connection to {self._where} was closed by its owner")

    async def aclose(self) -> None:
        """End every call and wait until it has ended."""
        self.is_closed = True
        for call in self._calls:
            _cut(call)
        await self._all_ended.wait()
        if self._limits is not None:
            self._limits.close()


def _cut(call: asyncio.Timeout) -> None:
    if not call.expired():
        call.reschedule(asyncio.get_running_loop().time())


class _Call:
    __slots__ = ("_calls", "_limit", "_limits", "_method", "_number", "_timeout_s")

    def __init__(self, calls: InFlight, method: str, timeout_s: float | None) -> None:
        self._calls = calls
        self._method = method
        self._timeout_s = timeout_s
        self._limit = asyncio.timeout(None)
        self._limits = calls.limits
        self._number = 0

    async def __aenter__(self) -> None:
        self._calls.begin(self._limit)
        await self._limit.__aenter__()
        if self._timeout_s is not None:
            self._number = self._limits.begin(self._timeout_s, partial(_cut, self._limit))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limits.end(self._number)
        try:
            cut = await was_cut(self._limit, kind, error, trace)
        finally:
            self._calls.end(self._limit)
        if cut:
            raise self._calls.late_error(self._method, self._timeout_s) from None

"""
The time limits of many requests, with one timer for all of them.

Calls that run in their callers' own tasks, so that closing can end them.

Time limits of many waits on one event loop, with one timer for all of them.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

from dan_async.deadline import was_cut
from dan_async.errors import ClientClosedError, DanError, RequestTimeoutError

T = TypeVar("T")


class Deadlines(Generic[T]):
    """
    Expires the requests of a connection.

    A timer of asyncio's for each request costs several microseconds, a sixth of the whole request, and nearly all of
    them are cancelled. Here one timer is set to the earliest deadline, and requests that have ended are simply no
    longer pending when it fires.

    Args:
        pending: The requests in flight, by id; only looked at.
        expire: Called for each one whose time is over.
    """

    __slots__ = ("_expire", "_fires_at", "_heap", "_loop", "_pending", "_timer")

    def __init__(
        self,
        pending: Mapping[int, T],
        expire: Callable[[T], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pending = pending
        self._expire = expire
        self._heap: list[tuple[float, int]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request_id: int, left_s: float) -> None:
        """Let the request expire in *left_s* seconds, unless it has ended by then."""
        when = self._loop.time() + left_s
        heap = self._heap
        heapq.heappush(heap, (when, request_id))
        if when < self._fires_at:
            self._set_timer(when)
        elif len(heap) > 4 * len(self._pending) + 64:
            # Mostly requests that have ended: sweeping them out is paid for by their number.
            heap[:] = [entry for entry in heap if entry[1] in self._pending]
            heapq.heapify(heap)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._fire)
        self._fires_at = when

    def _fire(self) -> None:
        # A timer may fire early by as much as the clock can tell; it is not set again for that.
        now = max(self._loop.time(), self._fires_at)
        self._timer = None
        self._fires_at = math.inf
        heap, pending = self._heap, self._pending
        while heap:
            when, request_id = heap[0]
            answer = pending.get(request_id)
            if answer is None:
                heapq.heappop(heap)
            elif when <= now:
                heapq.heappop(heap)
                self._expire(answer)
            else:
                self._set_timer(when)
                return

    def close(self) -> None:
        """Forget everything."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._fires_at = math.inf


#: Called when a wait has taken too long.
OnLate = Callable[[], object]


class WaitLimits:
    """
    Calls whoever waits too long.

    A timer of asyncio's for each wait costs several times as much, most of it in a heap of timers that were cancelled
    (see ``Deadlines``). To be used on the event loop on which it was made.
    """

    __slots__ = ("_deadlines", "_last", "_pending", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._pending: dict[int, OnLate] = {}
        self._deadlines = Deadlines(self._pending, _call)
        self._last = 0

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, limit_s: float, on_late: OnLate) -> int:
        """
        Take note of a wait.

        Args:
            limit_s: Seconds it may take.
            on_late: Called if it takes longer.

        Returns:
            Its number, for ``end``.
        """
        self._last = number = self._last + 1
        self._pending[number] = on_late
        self._deadlines.add(number, limit_s)
        return number

    def end(self, number: int) -> None:
        """Take note that a wait has ended. May be called twice."""
        self._pending.pop(number, None)

    def close(self) -> None:
        """Forget everything; nobody is called any more."""
        self._pending.clear()
        self._deadlines.close()


def _call(on_late: OnLate) -> None:
    on_late()


class InFlight:
    """
    The calls of one transport that are under way.

    Args:
        where: The peer, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._limits: set[asyncio.Timeout] = set()
        self._all_ended = asyncio.Event()
        self._all_ended.set()
        self._is_closed = False
        self._waits: WaitLimits | None = None

    @property
    def is_closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._is_closed

    def __len__(self) -> int:
        return len(self._limits)

    def call(self, method: str, timeout_s: float | None) -> _Call:
        """
        Run one call inside ``async with``.

        Raises:
            RequestTimeoutError: *timeout_s* passed.
            ClientClosedError: The transport was closed, before or meanwhile.
        """
        return _Call(self, method, timeout_s)

    @property
    def limits(self) -> WaitLimits:
        """The time limits of the running event loop."""
        if self._waits is None or self._waits.loop is not asyncio.get_running_loop():
            self._waits = WaitLimits()
        return self._waits

    def begin(self, limit: asyncio.Timeout) -> None:
        """Take note of a call; its limit is how ``aclose`` ends it."""
        self._limits.add(limit)
        self._all_ended.clear()

    def end(self, limit: asyncio.Timeout) -> None:
        """Take note that a call has ended."""
        self._limits.discard(limit)
        if not self._limits:
            self._all_ended.set()

    def late_error(self, method: str, timeout_s: float | None) -> DanError:
        """Make the error of a call that was ended from our side."""
        if self._is_closed:
            return self.closed_error()
        return RequestTimeoutError(
            f"{method} at {self._where} timed out after {timeout_s or 0.0:g} s: no reply came"
        )

    def closed_error(self) -> ClientClosedError:
        """Make the error of a call on a closed transport."""
        return ClientClosedError(f"the connection to {self._where} was closed by its owner")

    async def aclose(self) -> None:
        """End every call and wait until it has ended."""
        self._is_closed = True
        for limit in self._limits:
            _cut(limit)
        await self._all_ended.wait()
        if self._waits is not None:
            self._waits.close()


def _cut(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


class _Call:
    """One call. Written out, since ``asynccontextmanager`` costs as much again as the time limit itself."""

    __slots__ = ("_calls", "_limit", "_method", "_number", "_timeout_s", "_waits")

    def __init__(self, calls: InFlight, method: str, timeout_s: float | None) -> None:
        self._calls = calls
        self._method = method
        self._timeout_s = timeout_s
        self._limit = asyncio.timeout(None)
        self._waits = calls.limits
        self._number = 0

    async def __aenter__(self) -> None:
        if self._calls.is_closed:
            raise self._calls.closed_error()
        await self._limit.__aenter__()
        self._calls.begin(self._limit)
        if self._timeout_s is not None:
            self._number = self._waits.begin(self._timeout_s, partial(_cut, self._limit))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waits.end(self._number)
        try:
            cut = await was_cut(self._limit, kind, error, trace)
        finally:
            self._calls.end(self._limit)
        if cut:
            raise self._calls.late_error(self._method, self._timeout_s) from None

"""The time limits of many requests, with one timer for all of them."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

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

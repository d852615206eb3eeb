"""Every task has an owner, every wait a deadline."""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from dan_async.errors import DanError, DeadlineExceededError

T = TypeVar("T")


class Deadline:
    """One monotonic deadline for a whole job, handed down instead of a timeout at each step; None is no deadline."""

    __slots__ = ("_clock", "_end", "_limit", "_timer", "timeout_s")

    #: How long after its end ``enforced`` cuts, in seconds: code that looks at the deadline itself says more of what hung.
    #: It begins when the event loop comes to notice the end, so that nothing is cut off unheard on a busy machine.
    SLACK_S = 0.2

    def __init__(self, timeout_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.timeout_s = timeout_s
        self._end = None if timeout_s is None else clock() + timeout_s
        self._limit: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None

    def remaining(self) -> float | None:
        """Seconds left, never negative; None if there is no deadline."""
        if self._end is None:
            return None
        return max(0.0, self._end - self._clock())

    def cap(self, timeout_s: float | None) -> float | None:
        """Return the shorter of *timeout_s* and the time left."""
        if self._end is None:
            return timeout_s
        remaining = max(0.0, self._end - self._clock())
        return remaining if timeout_s is None else min(remaining, timeout_s)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while a person is being waited for: the time spent inside does not count."""
        start = self._clock()
        self._disarm()
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(None)
        try:
            yield
        finally:
            if self._end is not None:
                self._end += self._clock() - start
            self._arm()

    def _arm(self) -> None:
        """Have the end noticed, if the deadline is enforced."""
        remaining = self.remaining()
        if self._limit is not None and remaining is not None:
            self._timer = asyncio.get_running_loop().call_later(remaining, self._notice_end, self._limit)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _notice_end(self, limit: asyncio.Timeout) -> None:
        limit.reschedule(asyncio.get_running_loop().time() + self.SLACK_S)

    @asynccontextmanager
    async def enforced(self, doing: str, **context: Any) -> AsyncIterator[None]:
        """
        Cut off the body when the deadline is over, whatever it hangs in: a wallet, a transport, code of the caller's.

        *doing* is the end of a sentence, for the ``DeadlineExceededError``; *context* is as for ``DanError``.
        """
        limit = self._limit = asyncio.timeout(None)
        self._arm()
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if isinstance(error, DanError) or not limit.expired():
                raise  # ours say more, and another's time limit is not this one
            raise self.error(doing, **context) from None
        finally:
            self._disarm()
            self._limit = None

    def error(self, doing: str, **context: Any) -> DeadlineExceededError:
        """Return the error that names what was being done when the time ran out."""
        return DeadlineExceededError(
            f"the deadline of {self.timeout_s:g} s ran out while {doing}",
            hint="Give the call a longer timeout, or look at the network's health()",
            **context,
        )


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


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """
    Cancel tasks and wait until every one of them has ended; their results and errors are dropped.

    If the caller itself is cancelled meanwhile, the tasks are still waited for, and the cancellation goes on afterwards.
    """
    owned, pending = list(tasks), []
    for task in owned:
        if not task.done():
            task.cancel()
            pending.append(task)
    interrupted: asyncio.CancelledError | None = None
    while pending:
        try:
            _, still = await asyncio.wait(pending)
            pending = list(still)
        except asyncio.CancelledError as error:
            interrupted = error
    for task in owned:
        if not task.cancelled():
            task.exception()  # marks it as seen, or asyncio would complain that nobody looked
    if interrupted is not None:
        raise interrupted


async def wait_for_event(event: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for the event or for the time to pass, without limit if None; return whether it was the event."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()


async def carry_through(closing: Coroutine[Any, Any, T]) -> T:
    """
    Run a step to its end, even if the caller is cancelled meanwhile; the cancellation goes on afterwards.

    Only for steps that end by themselves within a bounded time.
    """
    task = asyncio.ensure_future(closing)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        if not task.cancelled():
            task.exception()  # marks it as seen: the cancellation is what the caller hears of
        raise interrupted
    return task.result()

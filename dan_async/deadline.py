"""
Owning tasks and time: every task has an owner, every wait a deadline.

Closing, and other steps, that are carried through.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from dan_async.errors import DanError, DeadlineExceededError

T = TypeVar("T")


class Deadline:
    """
    One monotonic deadline for a whole job, handed down instead of a timeout at each step.

    Args:
        timeout_s: Seconds from now; None for no deadline.
        clock: A monotonic clock.
    """

    __slots__ = ("_clock", "_end", "_limit", "_timer", "timeout_s")

    #: How long after its end ``enforced`` cuts, in seconds: whoever looks at the deadline himself says more about what hung.
    #: It begins when the event loop comes to notice the end, so that on a busy machine nobody is cut off unheard.
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
        left = self._end - self._clock()
        return max(0.0, left)

    def cap(self, timeout_s: float | None) -> float | None:
        """Give the shorter of *timeout_s* and what is left."""
        remaining = self.remaining()
        if remaining is None or timeout_s is None:
            return remaining if timeout_s is None else timeout_s
        return min(remaining, timeout_s)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the deadline while a person is being waited for: the time spent inside does not count."""
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

    def enforced(self, doing: str, **context: Any) -> _Enforced:
        """
        Cut off the body when the deadline is over, whatever it hangs in: a wallet, a transport, code of the caller's.

        Args:
            doing: What the body does, as the end of a sentence.
            **context: As for ``DanError``.

        Raises:
            DeadlineExceededError: It was cut off.
        """
        return _Enforced(self, doing, context)

    def begin_to_enforce(self) -> asyncio.Timeout:
        """Make the time limit that keeps the deadline, and keep it in step with ``paused``."""
        self._limit = asyncio.timeout(None)
        self._arm()
        return self._limit

    def end_to_enforce(self) -> None:
        """Forget the time limit."""
        self._disarm()
        self._limit = None

    def error(self, doing: str, **context: Any) -> DeadlineExceededError:
        """Make the error that says what was being done when the time ran out."""
        return DeadlineExceededError(
            f"the deadline of {self.timeout_s:g} s ran out while {doing}",
            hint="Give the call a longer timeout, or look at the network's health()",
            **context,
        )


class _Enforced:
    """See ``Deadline.enforced``. Written out: ``asynccontextmanager`` costs as much again as the time limit itself."""

    __slots__ = ("_context", "_deadline", "_doing", "_limit")

    def __init__(self, deadline: Deadline, doing: str, context: dict[str, Any]) -> None:
        self._deadline = deadline
        self._doing = doing
        self._context = context
        self._limit: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        self._limit = self._deadline.begin_to_enforce()
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline.end_to_enforce()
        if self._limit is not None and await was_cut(self._limit, kind, error, trace):
            raise self._deadline.error(self._doing, **self._context) from None


async def was_cut(
    limit: asyncio.Timeout,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> bool:
    """
    Leave an ``asyncio.timeout`` block by hand.

    Args:
        limit: The block's time limit.
        kind: As for ``__aexit__``, like the other two.
        error: What the body raised.
        trace: Where.

    Returns:
        Whether the limit has cut off the body. Errors of ours may be TimeoutErrors as well, and are left as they are.
    """
    try:
        await limit.__aexit__(kind, error, trace)
    except TimeoutError:
        return True
    return isinstance(error, TimeoutError) and not isinstance(error, DanError) and limit.expired()


class Started(Generic[T]):
    """
    A coroutine that has run, in the caller's task, until it ended or had to wait.

    What a wait needs (a time limit, somebody to watch a connection) can then be left out where there is none. Await it
    in the same task for the rest; in all else it is as if the coroutine itself were awaited, cancellation included.

    Args:
        call: The coroutine. What it raises before its first wait is raised here.

    Attributes:
        is_done: Whether it ended without waiting.
    """

    __slots__ = ("_call", "_result", "_waits_for", "is_done")

    def __init__(self, call: Coroutine[Any, Any, T]) -> None:
        self._call = call
        self._waits_for: Any = None
        self._result: T | None = None
        self.is_done = False
        try:
            self._waits_for = call.send(None)
        except StopIteration as ended:
            self._result = ended.value
            self.is_done = True

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the rest; if there is none, give the result at once."""
        if self.is_done:
            return cast("T", self._result)
        call, waits_for = self._call, self._waits_for
        # As ``yield from`` does it (PEP 380), which cannot begin in the middle.
        try:
            while True:
                try:
                    answer = yield waits_for
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - the coroutine's to handle, cancellation above all
                    waits_for = call.throw(error)
                else:
                    waits_for = call.send(answer)
        except StopIteration as ended:
            return cast("T", ended.value)
        finally:
            call.close()

    def close(self) -> None:
        """Give up what was begun; its cleanup runs now."""
        self._call.close()


async def cancel_and_wait(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """
    Cancel tasks and wait until every one of them has ended.

    Their results and errors are dropped: the caller has already decided. If the caller itself is cancelled meanwhile,
    the tasks are still waited for, and the cancellation goes on afterwards.
    """
    owned = list(tasks)
    pending = [task for task in owned if not task.done()]
    for task in pending:
        task.cancel()
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
    """Wait for the event, or for the time to pass; say whether it was the event. None waits without a limit."""
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

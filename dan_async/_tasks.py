"""Owning tasks and time: every task has an owner, every wait a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import coroutine
from typing import Any, TypeVar, cast

from dan_async.errors import DanError, DeadlineExceededError

T = TypeVar("T")


class Deadline:
    """
    One monotonic deadline for a whole job, handed down instead of a timeout at each step.

    Args:
        timeout_s: Seconds from now; None for no deadline.
        clock: A monotonic clock.
    """

    __slots__ = ("_clock", "_end", "_limit", "timeout_s")

    #: How long after its end ``enforced`` cuts, in seconds: whoever looks at the deadline himself says more about what hung.
    SLACK_S = 0.1

    def __init__(self, timeout_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.timeout_s = timeout_s
        self._end = None if timeout_s is None else clock() + timeout_s
        self._limit: asyncio.Timeout | None = None

    def remaining(self) -> float | None:
        """Seconds left, never negative; None if there is no deadline."""
        return None if self._end is None else max(0.0, self._end - self._clock())

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
        if self._limit is not None:
            self._limit.reschedule(None)
        try:
            yield
        finally:
            if self._end is not None:
                self._end += self._clock() - start
            if self._limit is not None:
                self._limit.reschedule(self._cut_at())

    def _cut_at(self) -> float | None:
        remaining = self.remaining()
        return None if remaining is None else asyncio.get_running_loop().time() + remaining + self.SLACK_S

    @asynccontextmanager
    async def enforced(self, doing: str, **context: Any) -> AsyncIterator[None]:
        """
        Cut off the body when the deadline is over, whatever it hangs in: a wallet, a transport, code of the caller's.

        Args:
            doing: What the body does, as the end of a sentence.
            **context: As for ``DanError``.

        Raises:
            DeadlineExceededError: It was cut off.
        """
        limit = asyncio.timeout_at(self._cut_at())
        self._limit = limit
        try:
            async with limit:
                yield
        except TimeoutError as error:
            # Errors of ours may be TimeoutErrors as well, and are to be left as they are.
            if isinstance(error, DanError) or not limit.expired():
                raise
            raise self.error(doing, **context) from None
        finally:
            self._limit = None

    def error(self, doing: str, **context: Any) -> DeadlineExceededError:
        """Make the error that says what was being done when the time ran out."""
        return DeadlineExceededError(
            f"the deadline of {self.timeout_s:g} s ran out while {doing}",
            hint="Give the call a longer timeout, or look at the network's health()",
            **context,
        )


@coroutine
def run_and_tell(call: Coroutine[Any, Any, T], on_wait: Callable[[], object]) -> Generator[Any, Any, T]:
    """
    Run a coroutine in the caller's task, and tell when it begins to wait.

    What has to be set up for a wait (a time limit, somebody to watch a connection) is then not paid for by calls that do
    not wait at all. In all else it is as if the coroutine were awaited, cancellation included.

    Args:
        call: The coroutine.
        on_wait: Called at most once, before the first wait.

    Returns:
        What the coroutine returned.
    """
    try:
        waits_for = call.send(None)
    except StopIteration as ended:
        return cast("T", ended.value)
    try:
        on_wait()
        while True:
            # As ``yield from`` does it (PEP 380), which cannot begin in the middle.
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

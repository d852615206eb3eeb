"""Every task has an owner, every wait a deadline."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from dan_async.errors import ConfigurationError, DanError, DeadlineExceededError

#: Waits whose time is over are looked for at most so often, in seconds: each look goes through all of them.
_LOOK_EVERY_S = 0.005

#: Most waits that are ended in one turn of the event loop: each may wake a call.
_MOST_AT_ONCE = 32

T = TypeVar("T")
W = TypeVar("W")


class TimeLimits(Generic[W]):
    """
    Ends waits whose time is over: *on_over* is called with each.

    One timer serves all of them: nearly every wait ends long before it would go off, and thousands may be under way.
    """

    __slots__ = ("_goes_off", "_on_over", "_timer", "_waits", "loop")

    #: The event loop of the waits, once the first has begun. To ask which one runs is a call to the system.
    loop: asyncio.AbstractEventLoop

    def __init__(self, on_over: Callable[[W], object]) -> None:
        self._on_over = on_over
        #: When the time of each wait is over, by the loop's clock.
        self._waits: dict[W, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._goes_off = math.inf

    def begin(self, wait: W, timeout_s: float) -> None:
        """Have *on_over* called after *timeout_s*, unless the wait ends before, or begins again."""
        if not self._waits:
            loop = asyncio.get_running_loop()
            if self._timer is not None and loop is not self.loop:
                self.close()  # that timer will not go off any more
            self.loop = loop
        due = self.loop.time() + timeout_s
        self._waits[wait] = due
        if due < self._goes_off:
            self._set(due)

    def end(self, wait: W) -> None:
        """Take note that a wait is over, if it had begun."""
        self._waits.pop(wait, None)

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._goes_off, self._timer = due, self.loop.call_at(due, self._look)

    def _look(self) -> None:
        now = max(self.loop.time(), self._goes_off)
        self._goes_off, self._timer = math.inf, None
        left = [due for due in self._waits.values() if due > now]
        if left:
            self._set(max(min(left), now + _LOOK_EVERY_S))
        if len(left) < len(self._waits):
            after_reading(self._judge, [(wait, due) for wait, due in self._waits.items() if due <= now])

    def _judge(self, over: list[tuple[W, float]]) -> None:
        if len(over) > _MOST_AT_ONCE:
            self.loop.call_soon(self._judge, over[_MOST_AT_ONCE:])
        for wait, due in over[:_MOST_AT_ONCE]:
            if self._waits.get(wait) == due:  # else it has ended, or begun again
                del self._waits[wait]
                self._on_over(wait)

    def close(self) -> None:
        """Forget every wait."""
        self._waits.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._goes_off, self._timer = math.inf, None


class Deadline:
    """
    One monotonic deadline for a whole job, handed down instead of a timeout at each step; None is no deadline.

    It begins now, or when it *began*, by *clock*. The jobs of one owner may share the *limits* that notice their ends.
    """

    __slots__ = ("_clock", "_end", "_limit", "_limits", "_owns_limits", "timeout_s")

    #: How long after its end ``enforced`` cuts, in seconds: code that looks at the deadline itself says more of what hung.
    #: It begins when the event loop comes to notice the end, so that nothing is cut off unheard on a busy machine.
    SLACK_S = 0.2

    def __init__(
        self,
        timeout_s: float | None,
        *,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        limits: TimeLimits[Deadline] | None = None,
    ) -> None:
        self._clock = clock
        self.timeout_s = timeout_s
        self._end = None if timeout_s is None else (clock() if began is None else began) + timeout_s
        self._limit: asyncio.Timeout | None = None
        self._owns_limits = limits is None
        self._limits = limits

    @staticmethod
    def limits() -> TimeLimits[Deadline]:
        """Make what notices the ends of many deadlines with one timer."""
        return TimeLimits(Deadline._notice_end)

    def remaining(self) -> float | None:
        """Seconds left, never negative; None if there is no deadline."""
        if self._end is None:
            return None
        return max(0.0, self._end - self._clock())

    def cap(self, timeout_s: float | None) -> float | None:
        """Return the shorter of *timeout_s* and the time left."""
        if self._end is None:
            return timeout_s
        remaining = self._end - self._clock()
        return timeout_s if timeout_s is not None and timeout_s < remaining else max(0.0, remaining)

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

    def limit_by(self, limit: asyncio.Timeout | None) -> None:
        """Have *limit* cut what goes on after the end; None to have nothing cut off any more."""
        self._limit = limit
        if limit is None:
            self._disarm()
        else:
            self._arm()

    def _arm(self) -> None:
        """Have the end noticed, if the deadline is enforced."""
        if self._limit is not None and (remaining := self.remaining()) is not None:
            if self._limits is None:
                self._limits = self.limits()
            self._limits.begin(self, remaining)

    def _disarm(self) -> None:
        if self._limits is not None:
            self._limits.end(self)
            if self._owns_limits:
                self._limits.close()

    def _notice_end(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self.SLACK_S)

    def enforced(self, doing: str, **context: Any) -> _Enforced:
        """
        Cut off the body when the deadline is over, whatever it hangs in: a wallet, a transport, code of the caller's.

        *doing* is the end of a sentence, for the ``DeadlineExceededError``; *context* is as for ``DanError``.
        """
        return _Enforced(self, doing, context)

    def error(self, doing: str, **context: Any) -> DeadlineExceededError:
        """Return the error that names what was being done when the time ran out."""
        return DeadlineExceededError(
            f"the deadline of {self.timeout_s:g} s ran out while {doing}",
            hint="Give the call a longer timeout, or look at the network's health()",
            **context,
        )


class _Enforced:
    """The context of ``Deadline.enforced``. Every call in flight has one: a generator would be five more objects."""

    __slots__ = ("_context", "_deadline", "_doing", "_limit")

    def __init__(self, deadline: Deadline, doing: str, context: dict[str, Any]) -> None:
        self._deadline, self._doing, self._context = deadline, doing, context
        self._limit = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._deadline.limit_by(self._limit)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline.limit_by(None)
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as cut:
            error = cut
        # Ours say more, and another's time limit is not this one.
        if isinstance(error, TimeoutError) and not isinstance(error, DanError) and self._limit.expired():
            raise self._deadline.error(self._doing, **self._context) from None


#: Turns of the event loop in which it reads what the system holds, and what came reaches whoever waits for it.
_TURNS = 10


async def read_on(is_enough: Callable[[], bool], *, depth: int = 1) -> None:
    """
    Let the event loop read what has come, before deciding that nothing came in time.

    When a process runs on after it was suspended, all its timers are due at once, before any socket is read. *depth* is how
    many waits are nested: what came passes through each of them.
    """
    for _ in range(depth * _TURNS):
        if is_enough():
            return
        await asyncio.sleep(0)


def after_reading(judge: Callable[..., object], *args: Any, turns: int = _TURNS) -> None:
    """Call a timer's function when the event loop has read what has come; see ``read_on``."""
    loop = asyncio.get_running_loop()
    if turns:
        loop.call_soon(partial(after_reading, judge, *args, turns=turns - 1))
    else:
        judge(*args)


class PromptFuture(asyncio.Future[T]):
    """A future that tells one listener at once when it is done; each done callback costs a step of the event loop."""

    __slots__ = ("on_end",)

    #: Called by whoever ends it; None if nobody listens.
    on_end: Callable[[asyncio.Future[T]], object] | None


def settle(waiter: asyncio.Future[T], result: T) -> None:
    """Wake whoever waits, unless it was cancelled or woken before."""
    if not waiter.done():
        waiter.set_result(result)


async def settled(waiter: asyncio.Future[T], timeout_s: float | None, otherwise: T) -> T:
    """Wait for a future of the caller's own; when the time is over it is settled with *otherwise*. None is no limit."""
    timer = None
    if timeout_s is not None:
        timer = waiter.get_loop().call_later(timeout_s, after_reading, settle, waiter, otherwise)
    try:
        return await waiter
    finally:
        if timer is not None:
            timer.cancel()


class OneLoop:
    """Refuses the use of *owner* on another event loop than the one that it was first used on."""

    __slots__ = ("_owner", "loop")

    def __init__(self, owner: str) -> None:
        self._owner = owner
        #: None until it is first used.
        self.loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Raise a ConfigurationError if this is another loop; without one nothing is in use."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self.loop is None:
            self.loop = loop
        elif self.loop is not loop:
            raise ConfigurationError(
                f"the {self._owner} is in use on another event loop: that of another thread, of an asyncio.run() before, or"
                " of the process that this one was forked from",
                hint="Make one for each event loop, and close it there",
            )


async def cancel_and_wait(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """
    Cancel tasks, or other futures, and wait until every one of them has ended; their results and errors are dropped.

    If the caller itself is cancelled meanwhile, the tasks are still waited for, and the cancellation goes on afterwards.
    """
    owned = list(tasks)
    for task in owned:
        task.cancel()
    pending = [task for task in owned if not task.done()]
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
        await read_on(event.is_set)
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

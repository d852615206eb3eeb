"""
Many at a time: the results of ``DanClient.generate_session_keys`` and ``sign_many``, and the stream of work behind them.

Requests may come from anything that can be iterated, endless streams included; results come as they are finished, each with
the place of its request. The consumer drives it: items are read and begun only when a result is asked for, and at most
*concurrency* of them are begun or finished beyond those that the consumer took. So the memory is bounded whatever the
length, and a slow consumer slows everything down.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from functools import partial
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar

from attrs import define, field, frozen

from dan_async._values import check_int, check_rate
from dan_async.deadline import cancel_and_wait
from dan_async.errors import ClientClosedError, InvalidFieldError
from dan_async.session import DanSessionKeyPayload
from dan_async.turns import Turns
from dan_async.types import Hex

__all__ = [
    "BatchRun",
    "ItemFailed",
    "ItemMade",
    "ItemResult",
    "ItemStatus",
    "SignedMessage",
    "SigningResult",
    "SigningRun",
    "UnsignedMessage",
]

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")
T = TypeVar("T")

_MOST_AT_ONCE = 100_000

#: made: a new session; kept: it was in the store; settled: a crash or an error had left it pending, and the nodes had made
#: it; failed: there is none.
ItemStatus: TypeAlias = Literal["made", "kept", "settled", "failed"]
_Success: TypeAlias = Literal["made", "kept", "settled"]

#: The result of the work on one request.
Made: TypeAlias = tuple[_Success, DanSessionKeyPayload]


@frozen(kw_only=True)
class ItemMade:
    """
    The result of one request that has its session.

    Args:
        index: Its place in the requests, from 0.
        status: How it came to its session: ``"made"``, ``"kept"`` or ``"settled"``.
        request: The request itself; not shown in repr.
        session: The session. It holds a secret.
    """

    index: int
    status: _Success
    request: Any = field(repr=False)
    session: DanSessionKeyPayload
    error: ClassVar[None] = None
    is_success: ClassVar[Literal[True]] = True


@frozen(kw_only=True)
class ItemFailed:
    """
    The result of one request that has no session.

    Args:
        index: Its place in the requests, from 0.
        request: The request itself; not shown in repr.
        error: Why it failed.
    """

    index: int
    request: Any = field(repr=False)
    error: Exception
    status: ClassVar[Literal["failed"]] = "failed"
    session: ClassVar[None] = None
    is_success: ClassVar[Literal[False]] = False


#: The result of one request. Type checkers know after ``result.error is None`` that there is a session, and otherwise none.
ItemResult: TypeAlias = ItemMade | ItemFailed


@frozen(kw_only=True)
class SignedMessage:
    """
    The result of one message that was signed.

    Args:
        index: Its place in the messages, from 0.
        message: The message itself; not shown in repr.
        signature: ``0x`` and 130 hex digits.
    """

    index: int
    message: Any = field(repr=False)
    signature: Hex
    error: ClassVar[None] = None
    is_success: ClassVar[Literal[True]] = True


@frozen(kw_only=True)
class UnsignedMessage:
    """
    The result of one message that was not signed.

    Args:
        index: Its place in the messages, from 0.
        message: The message itself; not shown in repr.
        error: Why it failed.
    """

    index: int
    message: Any = field(repr=False)
    error: Exception
    signature: ClassVar[None] = None
    is_success: ClassVar[Literal[False]] = False


#: The result of one message, as ``ItemResult`` is that of one request.
SigningResult: TypeAlias = SignedMessage | UnsignedMessage


class _Run(Generic[T]):
    """Results of a stream of work, one for each item, as ``async for`` takes them."""

    #: What the items are called where they are a parameter.
    _items: ClassVar[str] = "requests"

    def __init__(
        self, items: Iterable[Any] | AsyncIterable[Any], work: Callable[[Any], Awaitable[Any]], **pace: Any
    ) -> None:
        self._stream: WorkStream[Any, Any] = WorkStream(
            items, work, field_name=self._items, fatal=ClientClosedError, **pace
        )

    def _read(self, finished: Finished[Any, Any]) -> T:
        raise NotImplementedError

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """
        Return the next result.

        Raises:
            StopAsyncIteration: There are no more.
            ClientClosedError: The client was closed; what is left was not begun.
            Exception: The iterable raised it when it was read; everything begun before is finished.
        """
        return self._read(await anext(self._stream))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the work under way and wait for its end. May be called twice; no result comes afterwards."""
        await self._stream.aclose()


class BatchRun(_Run[ItemResult]):
    """
    The results of a batch, to be iterated over with ``async for``: each as soon as it is ready, in any order.

    Nothing runs before the first result is asked for. At most *concurrency* requests have been read, and begun or finished,
    beyond the results that were taken: a slow consumer slows the batch down. Use it as an async context manager
    where the loop may be left early, or call ``aclose()``: then the work under way is cancelled and waited for.

    Args:
        requests: The requests; read one by one, and never further ahead than that.
        work: Works on one request.
        concurrency: How many are worked on at a time.
        rate_limit: How many are begun per second at most; None for no limit.
    """

    def __init__(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        work: Callable[[Any], Awaitable[Made]],
        *,
        concurrency: int,
        rate_limit: float | None = None,
    ) -> None:
        super().__init__(requests, work, concurrency=concurrency, rate_limit=rate_limit)

    def _read(self, finished: Finished[Any, Any]) -> ItemResult:
        if finished.error is not None:
            return ItemFailed(index=finished.index, request=finished.item, error=finished.error)
        assert finished.value is not None
        status, session = finished.value
        return ItemMade(index=finished.index, status=status, request=finished.item, session=session)


class SigningRun(_Run[SigningResult]):
    """The results of ``DanClient.sign_many``; iterated over, left early and closed like a ``BatchRun``."""

    _items = "messages"

    def _read(self, finished: Finished[Any, Any]) -> SigningResult:
        if finished.error is not None:
            return UnsignedMessage(index=finished.index, message=finished.item, error=finished.error)
        assert finished.value is not None
        return SignedMessage(index=finished.index, message=finished.item, signature=finished.value)


# --- the stream -------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Finished(Generic[I, R]):
    """One item that was worked on: its result, or the error."""

    index: int
    item: I
    value: R | None = None
    error: Exception | None = None


@define
class _Pace:
    """Lets items begin evenly spaced, however many wait."""

    interval_s: float
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    next_at: float = 0.0

    async def wait(self) -> None:
        now = self.clock()
        begins_at = max(now, self.next_at)
        self.next_at = begins_at + self.interval_s
        if begins_at > now:
            await self.sleep(begins_at - now)


class WorkStream(Generic[I, R]):
    """
    An async iterator of results, as they are finished. An item whose work raises has its error as the result.

    After an error of the *fatal* kinds nothing more is begun: it is raised when everything begun before is finished.
    """

    def __init__(
        self,
        items: Iterable[I] | AsyncIterable[I],
        work: Callable[[I], Awaitable[R]],
        *,
        concurrency: int,
        rate_limit: float | None = None,
        field_name: str = "requests",
        fatal: type[BaseException] | tuple[type[BaseException], ...] = (),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._concurrency = check_int("concurrency", concurrency, least=1, most=_MOST_AT_ONCE)
        self._pace = None
        if rate_limit is not None:
            self._pace = _Pace(1 / check_rate("rate_limit", rate_limit), clock, sleep)
        self._source: Iterator[I] | AsyncIterator[I] | None = _iterate(items, field_name)
        self._work = work
        self._fatal = fatal
        self._index = 0
        self._running: set[asyncio.Task[Finished[I, R]]] = set()
        self._reading: set[asyncio.Task[I]] = set()
        # Their ends are noted one by one: waiting for all of them anew for each result takes longer the more there are.
        self._ended: deque[asyncio.Task[Any]] = deque()
        self._has_ended = asyncio.Event()
        self._ready: deque[Finished[I, R]] = deque()
        self._failure: BaseException | None = None
        self._taking = asyncio.Lock()
        self._is_closed = False
        # A consumer that leaves the loop and forgets to close must not leave work running.
        weakref.finalize(self, _cancel_all, self._running, self._reading).atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Finished[I, R]:
        async with self._taking:
            while not self._ready:
                if self._is_closed:
                    raise StopAsyncIteration
                await self._fill()
                if not (self._running or self._reading):
                    self._is_closed = True
                    if self._failure is not None:
                        raise self._failure
                    raise StopAsyncIteration
                await self._has_ended.wait()
                self._has_ended.clear()
                while self._ended:
                    self._take(self._ended.popleft())
            if not self._is_closed:
                await self._fill()
            if not self._ready:  # closed meanwhile
                raise StopAsyncIteration
            return self._ready.popleft()

    async def aclose(self) -> None:
        """Cancel the work under way and wait for its end."""
        self._is_closed = True
        self._ready.clear()
        self._source = None
        await cancel_and_wait([*self._running, *self._reading])

    # --- reading and beginning ----------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        """Begin as many items as may be under way, over several turns of the event loop if they are many."""
        turns = Turns.of_running_loop()
        while self._source is not None and not self._reading:
            if len(self._running) + len(self._ready) >= self._concurrency:
                return
            if isinstance(self._source, AsyncIterator):
                self._reading.add(self._started(_read(self._source), "batch source"))
                return
            try:
                item = next(self._source)
            except StopIteration:
                self._source = None
            except Exception as error:  # noqa: BLE001 - raised again when everything begun is finished
                self._stop(error)
            else:
                self._begin(item)
                await turns.go_on()

    def _started(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(partial(_note_end, self._ended, self._has_ended))
        return task

    def _begin(self, item: I) -> None:
        # Neither coroutine nor callback may hold this object, or it could not be collected while work runs.
        coroutine = _work_on(self._index, item, self._work, self._pace)
        self._running.add(self._started(coroutine, f"batch item {self._index}"))
        self._index += 1

    def _stop(self, failure: BaseException) -> None:
        """Begin nothing more; the failure is raised when everything begun before is finished."""
        self._source = None
        if self._failure is None:
            self._failure = failure

    def _take(self, task: asyncio.Task[Any]) -> None:
        if self._is_closed:
            return  # cancelled, as a rule: whoever waits for a result was not
        if task in self._reading:
            self._reading.discard(task)
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if isinstance(error, StopAsyncIteration | _Ended):
                self._source = None
            elif error is not None:
                self._stop(error)
            elif self._source is not None:
                self._begin(task.result())
            return
        self._running.discard(task)
        finished: Finished[I, R] = task.result()
        if self._fatal and isinstance(finished.error, self._fatal):
            self._stop(finished.error)
            return
        self._ready.append(finished)


def _note_end(ended: deque[asyncio.Task[Any]], has_ended: asyncio.Event, task: asyncio.Task[Any]) -> None:
    ended.append(task)
    has_ended.set()


class _Ended(Exception):  # noqa: N818 - nothing went wrong
    """The source has no more items. A task cannot end with StopAsyncIteration."""


async def _read(source: AsyncIterator[I]) -> I:
    try:
        return await anext(source)
    except StopAsyncIteration:
        raise _Ended from None


async def _work_on(
    index: int, item: I, work: Callable[[I], Awaitable[R]], pace: _Pace | None
) -> Finished[I, R]:
    try:
        if pace is not None:
            await pace.wait()
        return Finished(index=index, item=item, value=await work(item))
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - one item's failure is its result, and the others go on
        return Finished(index=index, item=item, error=error)


def _iterate(items: Iterable[I] | AsyncIterable[I], field_name: str) -> Iterator[I] | AsyncIterator[I]:
    if isinstance(items, AsyncIterable):
        return aiter(items)
    if isinstance(items, Iterable) and not isinstance(items, str | bytes):
        return iter(items)
    raise InvalidFieldError(field_name, f"must be something to iterate over, not {type(items).__name__}")


def _cancel_all(*groups: set[asyncio.Task[Any]]) -> None:
    for task in [task for group in groups for task in group]:
        if not task.get_loop().is_closed():
            task.cancel()


# --- reading in a thread ----------------------------------------------------------------------------------------------

#: How many items the thread reads ahead of their consumer.
_AHEAD = 16


async def in_a_thread(make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """Iterate in a thread over something that blocks, so that a slow pipe does not hold the event loop."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[str, T | Exception | None]] = asyncio.Queue()
    may_read = threading.Semaphore(_AHEAD)
    is_over = threading.Event()

    def put(kind: str, value: T | Exception | None) -> bool:
        """Hand something over when the reader is not too far ahead; return whether anybody takes it."""
        may_read.acquire()
        if is_over.is_set():
            return False
        try:
            loop.call_soon_threadsafe(queue.put_nowait, (kind, value))
        except RuntimeError:  # the loop is closed
            return False
        return True

    def read() -> None:
        try:
            for item in make():
                if not put("item", item):
                    return
        except Exception as error:  # noqa: BLE001 - it is raised where the items are taken
            put("error", error)
        else:
            put("end", None)

    # A daemon: nothing can wake a thread that waits for somebody to type.
    threading.Thread(target=read, name="dan reader", daemon=True).start()
    try:
        while True:
            kind, value = await queue.get()
            may_read.release()
            if kind == "end":
                return
            if isinstance(value, Exception) and kind == "error":
                raise value
            yield value  # type: ignore[misc]  # of kind "item" it is one
    finally:
        is_over.set()
        may_read.release()  # wakes the thread, so that it sees that it is over

"""Work that is done once for each request, however often the request comes: who repeats it waits for the same result."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import frozen

from dan_async._tasks import cancel_and_wait
from dan_async.devnet.rpc_errors import RefusalError, rate_limited
from dan_async.errors import NodeCode
from dan_async.types import Clock

__all__ = ["RequestRuns", "check_same"]

T = TypeVar("T")

_MOST_ENDED = 16_384


@frozen
class _Run(Generic[T]):
    content: bytes
    task: asyncio.Task[T]


@frozen
class _Ended(Generic[T]):
    content: bytes
    result: T | RefusalError
    forget_at: float


class RequestRuns(Generic[T]):
    """
    The requests of one method.

    Args:
        name: What the work is, in the plural.
        task_name: What its tasks are called, before the request's id.
        most: How many may run at a time.
        keep_s: How long what came of a request is remembered, in seconds.
        clock: The wall clock.
    """

    def __init__(self, name: str, *, task_name: str, most: int, keep_s: float, clock: Clock) -> None:
        self._name = name
        self._task_name = task_name
        self._most = most
        self._keep_s = keep_s
        self._clock = clock
        self._running: dict[Hashable, _Run[T]] = {}
        self._ended: OrderedDict[Hashable, _Ended[T]] = OrderedDict()  # oldest first

    async def run(self, request: Hashable, content: bytes, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """
        Do the work of a request, or wait for it, or say again what came of it.

        The work belongs to the node, not to the caller: it goes on when the caller is gone, since other nodes may
        count on it.

        Args:
            request: What tells it from all others.
            content: Hash of all of it.
            begin: Checks the request without waiting for anything, and gives the work. What it refuses costs nothing:
                the same request may come again.

        Raises:
            RefusalError: ``REQUEST_CONFLICT``, ``RATE_LIMITED``, ``UNAVAILABLE``, or what the work or *begin* raises.
        """
        ended = self._remembered(request)
        if ended is not None and ended.content == content:
            if isinstance(ended.result, RefusalError):
                raise RefusalError(ended.result.code, ended.result.message, data=ended.result.data)
            return ended.result
        if ended is not None and not isinstance(ended.result, RefusalError):
            check_same(ended.content, content)
        run = self._running.get(request)
        if run is None:
            run = self._begin(request, content, begin)
        check_same(run.content, content)
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if run.task.cancelled():
                raise RefusalError(NodeCode.UNAVAILABLE, "the node is stopping") from None
            raise

    async def wait_for(self, request: Hashable) -> None:
        """Wait until the work of a request has ended, if it is under way."""
        run = self._running.get(request)
        if run is not None:
            await asyncio.wait([run.task])

    async def aclose(self) -> None:
        """Give up what is running, and wait until it has ended."""
        await cancel_and_wait([run.task for run in self._running.values()])

    def _begin(
        self, request: Hashable, content: bytes, begin: Callable[[], Coroutine[Any, Any, T]]
    ) -> _Run[T]:
        if len(self._running) >= self._most:
            raise rate_limited(f"too many {self._name} are running", 1.0)
        named = request[0] if isinstance(request, tuple) else request
        task = asyncio.create_task(begin(), name=f"{self._task_name} {named}")
        run = self._running[request] = _Run(content, task)
        task.add_done_callback(partial(self._end, request, content))
        return run

    def _end(self, request: Hashable, content: bytes, task: asyncio.Task[T]) -> None:
        del self._running[request]
        if task.cancelled():
            return
        error = task.exception()
        result: T | RefusalError
        if error is None:
            result = task.result()
        elif isinstance(error, RefusalError):
            if error.code == NodeCode.RATE_LIMITED:
                return  # whoever was told to come back later may
            result = error
        else:
            result = RefusalError(NodeCode.INTERNAL_ERROR, "the node has failed")
        self._ended.pop(request, None)
        self._ended[request] = _Ended(content, result, self._clock() + self._keep_s)
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    def _remembered(self, request: Hashable) -> _Ended[T] | None:
        now = self._clock()
        while self._ended:
            oldest, ended = next(iter(self._ended.items()))
            if now < ended.forget_at:
                break
            del self._ended[oldest]
        return self._ended.get(request)


def check_same(known: bytes, content: bytes) -> None:
    """
    Check that a request is the one known under its id.

    Raises:
        RefusalError: ``REQUEST_CONFLICT``: it is not.
    """
    if known != content:
        raise RefusalError(NodeCode.REQUEST_CONFLICT, "the request id is known with other content")

"""Calls that run in their callers' own tasks, so that closing can end them."""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType

from dan_async._tasks import was_cut
from dan_async.errors import ClientClosedError, DanError, RequestTimeoutError
from dan_async.transport._wait_limits import WaitLimits


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

"""Calls that run in their callers' own tasks, so that closing can end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dan_async.errors import ClientClosedError, RequestTimeoutError


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

    @property
    def is_closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._is_closed

    def __len__(self) -> int:
        return len(self._limits)

    @asynccontextmanager
    async def call(self, method: str, timeout_s: float | None) -> AsyncIterator[None]:
        """
        Run one call inside.

        Raises:
            RequestTimeoutError: *timeout_s* passed.
            ClientClosedError: The transport was closed, before or meanwhile.
        """
        if self._is_closed:
            raise self.closed_error()
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                self._limits.add(limit)
                self._all_ended.clear()
                yield
        except TimeoutError:
            # The call's own errors may be TimeoutErrors as well, and are to be left as they are.
            if not limit.expired():
                raise
            if self._is_closed:
                raise self.closed_error() from None
            raise RequestTimeoutError(
                f"{method} at {self._where} timed out after {timeout_s or 0.0:g} s: no reply came"
            ) from None
        finally:
            self._limits.discard(limit)
            if not self._limits:
                self._all_ended.set()

    def closed_error(self) -> ClientClosedError:
        """Make the error of a call on a closed transport."""
        return ClientClosedError(f"the connection to {self._where} was closed by its owner")

    async def aclose(self) -> None:
        """End every call and wait until it has ended."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(now)
        await self._all_ended.wait()

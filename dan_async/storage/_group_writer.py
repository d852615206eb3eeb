"""
Many small writes, few transactions.

A commit waits for the disk. Writes that arrive while one is under way are committed together by the next, so that a hundred
concurrent callers cost about as many commits as two. Each caller returns when its own write is durable, and no sooner.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from attrs import define, field
from sqlalchemy.ext.asyncio import AsyncEngine

from dan_async.errors import ClientClosedError, StoreError
from dan_async.storage._database_errors import translated

__all__ = ["GroupWriter"]

T = TypeVar("T")

_MOST_TOGETHER = 256


@define
class _Write:
    work: Callable[[sa.Connection], Any]
    done: asyncio.Future[Any]
    result: Any = field(default=None)
    error: Exception | None = field(default=None)


class GroupWriter:
    """
    Runs writes one after the other, committing those together that wait at the same time.

    Args:
        engine: Where.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: deque[_Write] = deque()
        self._group: list[_Write] = []  # what is being committed
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """
        Write something.

        Args:
            work: Does it on the connection it is given, and changes nothing there when it raises a ``StoreError``. It may be
                called a second time, in a transaction of its own, if another write that was with it failed.

        Returns:
            What *work* gave, once it is durable. If the caller is cancelled meanwhile, it may be written or not.

        Raises:
            StoreError: What *work* raised, or why the database did not do it; nothing was changed.
        """
        if self._is_closed:
            raise ClientClosedError("the store was closed", hint="Make a new one")
        write = _Write(work, asyncio.get_running_loop().create_future())
        self._waiting.append(write)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off(), name="session store writer")
            self._task.add_done_callback(self._ended)
        found: T = await write.done
        return found

    async def aclose(self) -> None:
        """Finish what was begun, and take no more."""
        self._is_closed = True
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _work_off(self) -> None:
        while self._waiting:
            self._group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]
            await self._commit_group(self._group)
        self._group = []

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for ever when somebody else ended the task."""
        if not task.cancelled() and task.exception() is None:
            return
        for write in (*self._group, *self._waiting):
            if not write.done.done():
                write.done.set_exception(ClientClosedError("the store was stopped while it was writing"))
        self._group = []
        self._waiting.clear()

    async def _commit_group(self, group: list[_Write]) -> None:
        try:
            await self._commit(group)
        except Exception as error:  # noqa: BLE001 - it is raised to the caller whose write it was
            if len(group) == 1:
                group[0].error = error
                self._answer(group)
                return
            # One of them may be to blame: each gets a transaction of its own.
            for write in group:
                await self._commit_group([write])
            return
        self._answer(group)

    async def _commit(self, group: list[_Write]) -> None:
        def run_all(connection: sa.Connection) -> None:
            for write in group:
                write.error = write.result = None
                try:
                    write.result = write.work(connection)
                except StoreError as error:
                    write.error = error

        with translated():
            async with self._engine.begin() as connection:
                await connection.run_sync(run_all)

    @staticmethod
    def _answer(group: list[_Write]) -> None:
        for write in group:
            if write.done.done():  # the caller was cancelled
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.result)

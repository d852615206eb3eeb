"""Threads for what would hold the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Workers"]

T = TypeVar("T")


class Workers:
    """
    Two threads: one for arithmetic, one for the disk.

    One for arithmetic is the best number, not the least: Python code in several threads fights the event loop for the
    interpreter lock, and with two the loop stalls longer while fewer keys get done. Who has cores to spare gives
    each node a process of its own.
    """

    def __init__(self) -> None:
        self._arithmetic = ThreadPoolExecutor(1, thread_name_prefix="dan-devnet-arithmetic")
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="dan-devnet-disk")

    async def compute(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a computation off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._arithmetic, function, *arguments)

    async def use_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run something that reads or writes files off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)

    def close(self) -> None:
        """Drop what has not begun, and wait for what has: a few milliseconds."""
        self._arithmetic.shutdown(cancel_futures=True)
        self._disk.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

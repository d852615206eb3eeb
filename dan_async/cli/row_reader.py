"""Reads rows in a thread, so that a slow pipe does not hold the event loop; never far ahead of who takes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError as FutureCancelledError
from typing import TypeVar

__all__ = ["in_a_thread"]

T = TypeVar("T")

_AHEAD = 16


async def in_a_thread(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """
    Iterate over something that blocks.

    Args:
        make: Makes the iterator; called in the thread.

    Raises:
        Exception: What the iterator raises.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[str, T | Exception | None]] = asyncio.Queue(_AHEAD)
    is_over = threading.Event()

    def put(kind: str, value: T | Exception | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put((kind, value)), loop).result()

    def read() -> None:
        try:
            try:
                for item in make():
                    if is_over.is_set():
                        return
                    put("item", item)
                put("end", None)
            except (FutureCancelledError, RuntimeError):
                raise  # the loop is gone, and nobody takes anything
            except Exception as error:  # noqa: BLE001 - it is raised where the items are taken
                put("error", error)
        except (FutureCancelledError, RuntimeError):
            return

    # A daemon: nothing can wake a thread that waits for somebody to type.
    threading.Thread(target=read, name="batch rows", daemon=True).start()
    try:
        while True:
            kind, value = await queue.get()
            if kind == "end":
                return
            if isinstance(value, Exception) and kind == "error":
                raise value
            yield value  # type: ignore[misc]  # of kind "item" it is one
    finally:
        is_over.set()
        while not queue.empty():  # lets the thread go on to see that it is over
            queue.get_nowait()

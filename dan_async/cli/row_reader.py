"""Reads rows in a thread, so that a slow pipe does not hold the event loop; never far ahead of who takes them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
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
    queue: asyncio.Queue[tuple[str, T | Exception | None]] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    is_over = threading.Event()

    def put(kind: str, value: T | Exception | None) -> bool:
        """Hand something over when there is room; say whether anybody takes it."""
        room.acquire()
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
    threading.Thread(target=read, name="batch rows", daemon=True).start()
    try:
        while True:
            kind, value = await queue.get()
            room.release()
            if kind == "end":
                return
            if isinstance(value, Exception) and kind == "error":
                raise value
            yield value  # type: ignore[misc]  # of kind "item" it is one
    finally:
        is_over.set()
        room.release()  # wakes the thread, so that it sees that it is over

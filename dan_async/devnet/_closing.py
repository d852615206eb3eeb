"""Closing, and other steps, that are carried through."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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

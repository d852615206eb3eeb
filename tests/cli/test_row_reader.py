"""Reading rows in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from dan_async.batch import in_a_thread
from dan_async.errors import ConfigurationError


async def test_everything_comes_in_order() -> None:
    """Whatever the length."""
    assert [item async for item in in_a_thread(lambda: iter(range(200)))] == list(range(200))


async def test_an_error_is_raised_where_the_items_are_taken() -> None:
    """After the items before it."""

    def broken() -> Iterator[int]:
        yield 1
        raise ConfigurationError("the input is not UTF-8 text")

    seen = []
    with pytest.raises(ConfigurationError, match="UTF-8"):
        async for item in in_a_thread(broken):
            seen.append(item)
    assert seen == [1]


async def test_it_reads_only_a_little_ahead() -> None:
    """An endless input waits for whoever takes the items."""
    read = 0

    def endless() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    items = in_a_thread(endless)
    for _ in range(10):
        await anext(items)
    await asyncio.sleep(0.05)
    assert read <= 10 + 20
    await items.aclose()


async def test_a_thread_that_waits_for_input_holds_nothing_up() -> None:
    """Leaving does not wait for somebody to type."""
    gate = threading.Event()

    def waits() -> Iterator[int]:
        yield 1
        gate.wait(30)

    items = in_a_thread(waits)
    await anext(items)
    async with asyncio.timeout(5):
        await items.aclose()
    gate.set()

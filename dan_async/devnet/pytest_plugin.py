"""
pytest fixtures for tests against a DAN network. Needs pytest-asyncio.

In the topmost ``conftest.py``::

    pytest_plugins = ["dan_async.devnet.pytest_plugin"]

Then ``async def test_something(devnet)`` has a running 2-of-3 network, and ``make_devnet(threshold=3, parties=5)`` starts
others; all are stopped when the test ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Protocol

import pytest_asyncio

from dan_async.devnet.cluster import Devnet

__all__ = ["MakeDevnet", "devnet", "make_devnet"]


class MakeDevnet(Protocol):
    """What ``make_devnet`` gives: takes the arguments of ``Devnet``, and returns it running."""

    async def __call__(self, threshold: int = ..., parties: int = ..., **options: Any) -> Devnet:
        """Start a network."""
        ...


@pytest_asyncio.fixture
async def make_devnet() -> AsyncIterator[MakeDevnet]:
    """A function that starts networks, which are stopped when the test ends."""
    async with AsyncExitStack() as stack:

        async def make(threshold: int = 3, parties: int = 5, **options: Any) -> Devnet:
            return await stack.enter_async_context(Devnet(threshold, parties, **options))

        yield make


@pytest_asyncio.fixture
async def devnet(make_devnet: MakeDevnet) -> Devnet:
    """A running 2-of-3 network."""
    return await make_devnet(2, 3)

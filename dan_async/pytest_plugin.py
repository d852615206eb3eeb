"""
pytest fixtures for tests against a DAN network (extra ``pytest``); pytest finds this plugin by itself.

``async def test_something(devnet)`` has a running 2-of-3 network, and ``make_devnet(threshold=3, parties=5)`` starts
others; all are stopped when the test ends. In pytest-asyncio's strict mode such a test needs its mark, as any other.

Every pytest run in the environment loads this module, so it imports nothing of the devnet before a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from dan_async.errors import require_extra

if TYPE_CHECKING:
    from pytest_asyncio import fixture

    from dan_async.devnet.cluster import Devnet
else:
    try:
        from pytest_asyncio import fixture
    except ImportError:

        def fixture(function: Callable[..., Any]) -> Any:
            """Stand in for a fixture that cannot work, and say so where it is used."""

            def missing() -> None:
                require_extra("pytest_asyncio", extra="pytest", purpose=f"The fixture {function.__name__}")

            return pytest.fixture(missing, name=function.__name__)


__all__ = ["MakeDevnet", "devnet", "make_devnet"]


class MakeDevnet(Protocol):
    """The type of ``make_devnet``: it takes the arguments of ``Devnet``, and returns one that runs."""

    async def __call__(self, threshold: int = ..., parties: int = ..., **options: Any) -> Devnet:
        """Start a network."""


@fixture
async def make_devnet() -> AsyncIterator[MakeDevnet]:
    """A function that starts networks, which are stopped when the test ends."""
    from dan_async.devnet.cluster import Devnet

    async with AsyncExitStack() as stack:

        async def make(threshold: int = 3, parties: int = 5, **options: Any) -> Devnet:
            return await stack.enter_async_context(Devnet(threshold, parties, **options))

        yield make


@fixture
async def devnet(make_devnet: MakeDevnet) -> Devnet:
    """A running 2-of-3 network."""
    return await make_devnet(2, 3)

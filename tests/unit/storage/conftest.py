"""Stores of every kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from dan_async.storage import FixedKeys, MemorySessionStore, SessionStore, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.helpers import ManualClock
from tests.postgresql import running_cluster

KEY = StoreKey("first", b"\x01" * 32)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    with running_cluster() as url:
        yield url


async def emptied(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("DROP TABLE IF EXISTS dan_sessions, dan_schema")
    finally:
        await connection.close()
    return url


@pytest.fixture
async def empty_postgresql(postgresql: str) -> str:
    """The URL of an empty database on a server."""
    return await emptied(postgresql)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/keys.db"
    return await emptied(request.getfixturevalue("postgresql"))


@pytest.fixture
async def open_store(database: str) -> AsyncIterator[Callable[..., SQLAlchemyStore]]:
    """Makes stores over one database, and closes them."""
    opened: list[SQLAlchemyStore] = []

    def make(*keys: StoreKey, **options: Any) -> SQLAlchemyStore:
        store = SQLAlchemyStore(
            options.pop("url", database), FixedKeys(keys or [KEY]), **{"clock": ManualClock()} | options
        )
        opened.append(store)
        return store

    yield make
    for store in opened:
        await store.aclose()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[SessionStore]:
    """A store of each kind, empty."""
    if request.param == "memory":
        yield MemorySessionStore(clock=clock)
        return
    url = f"sqlite:///{tmp_path}/keys.db"
    if request.param == "postgresql":
        url = await emptied(request.getfixturevalue("postgresql"))
    async with SQLAlchemyStore(url, FixedKeys([KEY]), clock=clock) as made:
        yield made

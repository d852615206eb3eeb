"""Writes that wait together are committed together; a failure is only its own writer's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dan_async.errors import ClientClosedError, RecordConflictError
from dan_async.storage.database import Database, parse_url
from dan_async.storage.sqlalchemy_store import GroupWriter


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(parse_url(f"sqlite:///{tmp_path}/t.db"), lock_wait_s=5, answer_wait_s=5)
    async with made.engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield made
    await made.aclose()


def insert(number: int):
    def work(connection: sa.Connection) -> int:
        connection.execute(sa.text("INSERT INTO t VALUES (:n)"), {"n": number})
        return number

    return work


async def numbers(database: Database) -> list[int]:
    async with database.engine.connect() as connection:
        return list((await connection.execute(sa.text("SELECT n FROM t ORDER BY n"))).scalars())


async def test_a_hundred_writes_take_few_commits(database: Database) -> None:
    """Each gets its own result."""
    commits = 0

    @sa.event.listens_for(database.engine.sync_engine, "commit")
    def count(_: sa.Connection) -> None:
        nonlocal commits
        commits += 1

    writer = GroupWriter(database)
    assert await asyncio.gather(*(writer.run(insert(n)) for n in range(100))) == list(range(100))
    assert commits <= 3
    assert await numbers(database) == list(range(100))
    await writer.aclose()


async def test_one_failure_is_one_failure(database: Database) -> None:
    """The database refuses one write of many: the others are written all the same, once each."""
    writer = GroupWriter(database)
    results = await asyncio.gather(*(writer.run(insert(n)) for n in (1, 2, 2, 3)), return_exceptions=True)
    assert sum(isinstance(result, RecordConflictError) for result in results) == 1
    assert await numbers(database) == [1, 2, 3]
    await writer.aclose()


async def test_what_a_write_raises_itself_undoes_nothing(database: Database) -> None:
    """A comparison that fails is told to its own caller."""

    def compare(_: sa.Connection) -> None:
        raise RecordConflictError("it is another one")

    writer = GroupWriter(database)
    results = await asyncio.gather(writer.run(insert(1)), writer.run(compare), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], RecordConflictError)
    assert await numbers(database) == [1]
    await writer.aclose()


async def test_a_bug_in_a_write_reaches_its_caller_and_ends_nothing(database: Database) -> None:
    """The writer goes on with what comes later."""

    def broken(_: sa.Connection) -> None:
        raise KeyError("bug")

    writer = GroupWriter(database)
    with pytest.raises(KeyError):
        await writer.run(broken)
    assert await writer.run(insert(5)) == 5
    await writer.aclose()


async def test_nobody_waits_for_a_writer_that_was_stopped(database: Database) -> None:
    """Whoever ends the loop's tasks ends the writer's as well: its callers are told."""
    writer = GroupWriter(database)
    waiting = asyncio.create_task(writer.run(insert(1)))
    await asyncio.sleep(0)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "session store writer"]
    task.cancel()
    with pytest.raises(ClientClosedError):
        await waiting
    await asyncio.gather(task, return_exceptions=True)


async def test_a_closed_writer_takes_no_more(database: Database) -> None:
    """What was begun is finished first."""
    writer = GroupWriter(database)
    begun = asyncio.create_task(writer.run(insert(1)))
    await asyncio.sleep(0)
    await writer.aclose()
    assert await begun == 1
    with pytest.raises(ClientClosedError):
        await writer.run(insert(2))

"""A database whose answers are lost, or never come: nothing is made twice, nothing hangs, and nobody waits for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from dan_async.errors import ClientClosedError, StoreConnectionError, StoreLockedError
from dan_async.storage import FixedKeys
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.helpers import assert_runs_under
from tests.postgresql import FaultProxy
from tests.stored import active, pending, session
from tests.unit.storage.conftest import KEY


@pytest.fixture
async def proxy(empty_postgresql: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(empty_postgresql) as made:
        yield made


def store_over(proxy: FaultProxy, **options: float) -> SQLAlchemyStore:
    return SQLAlchemyStore(
        proxy.url, FixedKeys([KEY]), **({"lock_wait_s": 0.5, "answer_wait_s": 0.5} | options)
    )


async def test_a_commit_whose_answer_is_lost_is_not_repeated(proxy: FaultProxy) -> None:
    """A group of writes was committed, and the connection broke before anybody heard: each is there once, and says so."""
    kept, done, gone = active(), pending(reference="b"), pending()
    async with store_over(proxy) as store:
        for record in (kept, done, gone):
            await store.save(record)
        finished = done.changed("active", now=1, session=session())
        new = [active() for _ in range(20)]
        proxy.lose_answer_to(b"COMMIT")
        results = await asyncio.gather(
            *(store.save(record) for record in new),
            store.replace(finished, expected="pending"),
            store.delete(gone.record_id, expected="pending"),
        )
        assert proxy.lost == 1
        assert results[-1] is True
        assert await store.get(done.record_id) == finished
        assert await store.get(gone.record_id) is None
        assert [await store.get(record.record_id) for record in new] == new


async def test_a_purge_whose_answer_is_lost_still_counts(proxy: FaultProxy) -> None:
    """The second try finds nothing more to delete."""
    async with store_over(proxy) as store:
        await asyncio.gather(*(store.save(active(at=1)) for _ in range(3)))
        proxy.lose_answer_to(b"COMMIT")
        assert await store.purge_expired() == 3
        assert proxy.lost == 1


async def test_two_lost_answers_say_that_it_may_be_written(proxy: FaultProxy) -> None:
    """What is in the store can be read back afterwards."""
    record = active()
    async with store_over(proxy) as store:
        await store.open()
        proxy.lose_answer_to(b"COMMIT", times=2)
        with pytest.raises(StoreConnectionError, match="broke"):
            await store.save(record)
        assert proxy.lost == 2
        assert await store.get(record.record_id) == record


async def test_a_silent_connection_is_left(proxy: FaultProxy) -> None:
    """Whatever it was used for, a new one serves within the limits; so do later calls, though more had gone silent."""
    record = active()
    async with store_over(proxy) as store:
        await store.save(record)
        await asyncio.gather(*(store.get(record.record_id) for _ in range(5)))  # five connections
        proxy.silence()
        start = time.monotonic()
        new = active()
        await store.save(new)
        assert await store.get(record.record_id) == record
        assert await store.get(new.record_id) == new
        assert time.monotonic() - start < 12
        start = time.monotonic()
        await asyncio.gather(*(store.get(record.record_id) for _ in range(3)), store.save(active()))
        assert time.monotonic() - start < 6


async def test_a_connection_that_falls_silent_as_it_is_given_back_is_cut(proxy: FaultProxy) -> None:
    """Reading ends with a ROLLBACK: its answer is waited for within the limits, and by nobody who closes the store."""
    patient = store_over(proxy, answer_wait_s=60)
    await patient.open()
    async with store_over(proxy) as store:
        await store.open()
        proxy.fall_silent_at(b"ROLLBACK")
        async with assert_runs_under(6):
            with pytest.raises(StoreConnectionError):
                await store.get(active().record_id)
    reading = asyncio.create_task(patient.get(active().record_id))
    await asyncio.sleep(0.1)
    async with assert_runs_under(3):
        await patient.aclose()
        with pytest.raises((StoreConnectionError, ClientClosedError)):
            await reading


async def test_a_call_that_was_cut_off_makes_older_connections_suspect(proxy: FaultProxy) -> None:
    """Callers whose time is shorter than the store's do not meet each silent connection in turn."""
    async with store_over(proxy, answer_wait_s=60) as store:
        await store.save(record := active())
        await asyncio.gather(*(store.get(record.record_id) for _ in range(5)))
        proxy.silence()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await store.get(record.record_id)
        await asyncio.sleep(0.6)
        async with assert_runs_under(2):
            assert await store.get(record.record_id) == record


async def test_closing_ends_those_who_wait_for_the_store_to_open(proxy: FaultProxy) -> None:
    """With an error of ours, not with a cancellation that nobody asked for; and nobody goes on to connect."""
    proxy.fall_silent_at(b"")
    store = store_over(proxy, answer_wait_s=60)
    waiting = [asyncio.create_task(store.get(active().record_id)) for _ in range(3)]
    await asyncio.sleep(0.1)
    async with assert_runs_under(3):
        await store.aclose()
        for result in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(result, ClientClosedError)
    assert proxy.accepted == 1


async def test_closing_does_not_wait_for_the_silent(proxy: FaultProxy) -> None:
    """Nor for a write that hangs."""
    store = store_over(proxy)
    record = active()
    await store.save(record)
    await asyncio.gather(*(store.get(record.record_id) for _ in range(5)))
    proxy.silence()
    proxy.refuse()
    writing = asyncio.create_task(store.save(active()))
    await asyncio.sleep(0.05)
    start = time.monotonic()
    await store.aclose()
    assert time.monotonic() - start < 8
    with pytest.raises(Exception, match=r"stopped|no answer|broke|reached"):
        await writing


async def test_a_cancelled_reader_does_not_wait_for_a_silent_connection(proxy: FaultProxy) -> None:
    """Its caller's deadline is shorter than the store's own limits."""
    async with store_over(proxy, answer_wait_s=5) as store:
        await store.save(record := active())
        proxy.silence()
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await store.get(record.record_id)
        assert time.monotonic() - start < 1


async def test_a_stuck_commit_holds_up_nobody_else(empty_postgresql: str) -> None:
    """One row is locked by another program: writes to others go on meanwhile."""
    locked, free = pending(), pending()
    async with SQLAlchemyStore(empty_postgresql, FixedKeys([KEY]), lock_wait_s=10) as store:
        await store.save(locked)
        await store.save(free)
        other = await asyncpg.connect(empty_postgresql)
        try:
            async with other.transaction():
                await other.execute(
                    "SELECT * FROM dan_sessions WHERE record_id = $1 FOR UPDATE", locked.record_id
                )
                stuck = asyncio.create_task(store.delete(locked.record_id))
                await asyncio.sleep(0.1)
                async with asyncio.timeout(5):
                    await store.delete(free.record_id)
                assert not stuck.done()
            assert await stuck
        finally:
            await other.close()


async def test_waiters_for_one_lock_wait_once(database: str) -> None:
    """Twenty writers behind a lock all fail after one wait, not after twenty."""
    async with (
        SQLAlchemyStore(database, FixedKeys([KEY]), lock_wait_s=0.5) as store,
        SQLAlchemyStore(database, FixedKeys([KEY])) as other,
    ):
        await store.save(record := active())
        async with other.engine.begin() as connection:
            if database.startswith("postgresql"):
                await connection.exec_driver_sql("LOCK TABLE dan_sessions IN ACCESS EXCLUSIVE MODE")
            start = time.monotonic()
            results = await asyncio.gather(*(store.save(active()) for _ in range(20)), return_exceptions=True)
            took = time.monotonic() - start
        assert all(isinstance(result, StoreLockedError) for result in results)
        assert took < 3
        assert await store.get(record.record_id) == record

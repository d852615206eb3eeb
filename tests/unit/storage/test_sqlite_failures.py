"""What happens to SQLite files: full disks, locks, damage. Whatever was reported as saved is there afterwards."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dan_async.deadline import Deadline
from dan_async.errors import (
    StoreCorruptedError,
    StoreError,
    StoreLockedError,
    StoreTamperedError,
    StoreUnavailableError,
)
from dan_async.storage import FixedKeys, StoreKey
from dan_async.storage.database import _prepare_sqlite, _use_write_ahead_log
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.stored import NOW, active
from tests.unit.storage.conftest import KEY

OpenStore = Callable[..., SQLAlchemyStore]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/keys.db"


async def all_ids(store: SQLAlchemyStore) -> set[str]:
    return {record.record_id async for record in store.find()}


async def test_a_full_database_is_a_clear_error(open_store: OpenStore) -> None:
    """Saves fail one by one when there is no room; each that was reported as saved is there, and later ones work."""
    store = open_store()
    limit = 40

    @sa.event.listens_for(store.engine.sync_engine, "connect")
    def limit_pages(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={limit}")

    records = [active() for _ in range(200)]
    results = await asyncio.gather(*map(store.save, records), return_exceptions=True)
    saved = {record.record_id for record, result in zip(records, results, strict=True) if result is None}
    failed = [result for result in results if result is not None]
    assert failed
    assert all(isinstance(result, StoreUnavailableError) for result in failed)
    assert "full" in str(failed[0])
    await store.aclose()
    again = open_store()
    assert await all_ids(again) == saved
    await again.save(active())


_WRITES_UNTIL_FULL = """
import asyncio, resource, signal, sys
from dan_async.errors import StoreUnavailableError
from dan_async.storage import FixedKeys, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.stored import NOW, active

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    async with SQLAlchemyStore(sys.argv[1], FixedKeys([StoreKey("first", bytes([1]) * 32)])) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            while True:
                record = active()
                await store.save(record)
                print(record.record_id, flush=True)
        except StoreUnavailableError as error:
            print("full:", error)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="the system has no limit on the size of files")
async def test_a_file_that_cannot_grow_is_a_clear_error(open_store: OpenStore, database: str) -> None:
    """The system refuses to write more: what the process had reported as saved is in the file."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _WRITES_UNTIL_FULL, database],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    *reported, last = done.stdout.splitlines()
    assert last.startswith("full:"), done.stderr
    assert reported
    assert await all_ids(open_store()) == set(reported)


async def test_a_read_only_file_is_a_clear_error(open_store: OpenStore, tmp_path: Path) -> None:
    """Writing to a database that is opened for reading only is refused as such."""
    record = active()
    first = open_store()
    await first.save(record)
    await first.aclose()
    store = open_store(url=f"sqlite:///file:{tmp_path}/keys.db?mode=ro&uri=true")
    with pytest.raises(StoreUnavailableError, match=r"read-only|opened"):
        await store.save(active())
    assert await all_ids(open_store()) == {record.record_id}


async def test_a_locked_file_is_a_clear_error(open_store: OpenStore, tmp_path: Path) -> None:
    """Somebody else's lock is waited for, not for ever; afterwards saving works."""
    store = open_store(lock_wait_s=0.05)
    record = active()
    await store.save(record)
    other = sqlite3.connect(tmp_path / "keys.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreLockedError, match="locked"):
        await store.save(active())
    assert await store.get(record.record_id) == record
    other.execute("ROLLBACK")
    other.close()
    await store.save(active())


async def test_a_store_opens_and_reads_while_another_program_writes(
    open_store: OpenStore, tmp_path: Path
) -> None:
    """However long that takes: it may be suspended in the middle."""
    first = open_store()
    await first.save(record := active())
    await first.aclose()
    other = sqlite3.connect(tmp_path / "keys.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await open_store(lock_wait_s=0.1).get(record.record_id) == record
    other.close()


async def test_a_lock_that_is_let_go_is_waited_for(open_store: OpenStore, tmp_path: Path) -> None:
    """A short lock costs time and nothing else."""
    store = open_store(lock_wait_s=20)
    await store.open()
    other = sqlite3.connect(tmp_path / "keys.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    saving = asyncio.create_task(store.save(record := active()))
    await asyncio.sleep(0.05)
    assert not saving.done()
    other.execute("ROLLBACK")
    other.close()
    await saving
    assert await store.get(record.record_id) == record


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_that_is_gone_keeps_nothing_and_says_so(
    open_store: OpenStore, tmp_path: Path, is_replaced: bool
) -> None:
    """SQLite itself goes on writing into a file that has no name any more."""
    store, file = open_store(), tmp_path / "keys.db"
    await store.save(record := active())
    await asyncio.gather(*(store.get(record.record_id) for _ in range(3)))
    kept = file.rename(tmp_path / "kept.db")
    if is_replaced:
        file.touch(0o600)
    for _ in range(5):
        with pytest.raises(StoreUnavailableError, match="deleted, or replaced"):
            await store.save(active())
    assert file.exists() == is_replaced
    kept.rename(file)
    await store.save(active())
    assert await store.get(record.record_id) == record


@pytest.mark.long
async def test_corrupted_pages_are_clear_errors(open_store: OpenStore, tmp_path: Path) -> None:
    """Whichever page is overwritten, reading gives whole records and errors of ours, never garbage."""
    store = open_store()
    records = {record.record_id: record for record in (active() for _ in range(60))}
    await asyncio.gather(*map(store.save, records.values()))
    await store.aclose()
    file = tmp_path / "keys.db"
    whole = file.read_bytes()
    kinds = set()
    for page in range(len(whole) // 4096):
        damaged = bytearray(whole)
        damaged[page * 4096 : page * 4096 + 2048] = os.urandom(2048)
        file.write_bytes(damaged)
        damaged_store = open_store()
        for record_id, record in records.items():
            try:
                found = await damaged_store.get(record_id)
                assert found is None or found == record
            except StoreError as error:
                kinds.add(type(error))
        await damaged_store.aclose()
        for leftover in tmp_path.glob("keys.db-*"):
            leftover.unlink()
    assert {StoreCorruptedError, StoreTamperedError} & kinds
    file.write_bytes(whole)
    assert await all_ids(open_store()) == set(records)


async def test_a_file_that_is_no_database_is_a_clear_error(open_store: OpenStore, tmp_path: Path) -> None:
    """It is not overwritten either."""
    (tmp_path / "keys.db").write_text("a shopping list, long enough to be looked at by SQLite\n" * 100)
    with pytest.raises(StoreCorruptedError, match="not an SQLite database"):
        await open_store().open()
    assert (tmp_path / "keys.db").read_text().startswith("a shopping list")


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
async def test_the_file_is_its_owners_alone(open_store: OpenStore, tmp_path: Path) -> None:
    """Whatever the umask says, nobody else may read it, nor what SQLite keeps beside it."""
    before = os.umask(0)
    try:
        store = open_store()
        await store.save(active())
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("keys.db*")}
    finally:
        os.umask(before)
    assert "keys.db-wal" in modes
    assert set(modes.values()) == {0o600}


_SAVES_FOR_EVER = """
import asyncio, sys
from dan_async.storage import FixedKeys, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.stored import NOW, active

async def main():
    store = SQLAlchemyStore(sys.argv[1], FixedKeys([StoreKey("first", bytes([1]) * 32)]))
    async def one():
        while True:
            record = active()
            await store.save(record)
            print(record.record_id, flush=True)
    await asyncio.gather(*(one() for _ in range(8)))

asyncio.run(main())
"""


async def test_a_killed_process_has_lost_nothing_it_reported(open_store: OpenStore, database: str) -> None:
    """SIGKILL in the middle of many writes: every record that was reported as saved opens."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SAVES_FOR_EVER, database], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    reported = [await asyncio.to_thread(process.stdout.readline) for _ in range(100)]
    process.kill()
    rest = await asyncio.to_thread(process.stdout.read)
    process.stdout.close()
    process.wait()
    lines = ("".join(reported) + rest).split("\n")[:-1]
    assert await all_ids(open_store()) >= set(lines)


@pytest.mark.parametrize("stores", [4, 8])
async def test_many_stores_open_one_empty_file_at_once(tmp_path: Path, stores: int) -> None:
    """Each switches the file to a write-ahead log, and SQLite refuses all but one at once, whatever the timeout."""
    for round_ in range(6):
        url = f"sqlite:///{tmp_path}/{round_}.db"
        opened = [SQLAlchemyStore(url, FixedKeys([KEY])) for _ in range(stores)]
        try:
            await asyncio.gather(*(store.open() for store in opened))
            await asyncio.gather(*(store.save(active()) for store in opened))
            assert len(await all_ids(opened[0])) == stores
        finally:
            await asyncio.gather(*(store.aclose() for store in opened))


class BusyCursor:
    """A file that refuses the write-ahead log so many times."""

    def __init__(self, times: int, code: int = sqlite3.SQLITE_BUSY) -> None:
        self.times, self.code, self.asked = times, code, 0

    def execute(self, statement: str) -> None:
        assert statement == "PRAGMA journal_mode=WAL"
        self.asked += 1
        if self.asked <= self.times:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = self.code
            raise error


async def test_a_busy_file_is_asked_again_until_the_time_is_over() -> None:
    """And another failure is not repeated."""
    patient = BusyCursor(3)
    await sa.util.greenlet_spawn(_use_write_ahead_log, patient, Deadline(5.0))
    assert patient.asked == 4
    for cursor, seconds in ((BusyCursor(10**6), 0.05), (BusyCursor(1, sqlite3.SQLITE_IOERR), 5.0)):
        with pytest.raises(sqlite3.OperationalError):
            await sa.util.greenlet_spawn(_use_write_ahead_log, cursor, Deadline(seconds))
    assert cursor.asked == 1


def test_the_busy_timeout_comes_before_the_journal_mode() -> None:
    """What comes after it would not wait for somebody else's lock."""
    asked: list[str] = []

    class Connection:
        isolation_level = ""

        def cursor(self) -> Any:
            return self

        def execute(self, statement: str) -> None:
            asked.append(statement)

        def close(self) -> None:
            pass

    _prepare_sqlite(2.5, Connection(), None)
    assert asked[:2] == ["PRAGMA busy_timeout=2500", "PRAGMA journal_mode=WAL"]


@pytest.mark.parametrize(
    "damage", ["body = 5", "owner = x'ff'", "record_id = x'00'", "updated_at = 'abc'", "version = 'abc'"]
)
async def test_a_value_of_another_type_is_a_record_that_was_changed(
    open_store: OpenStore, tmp_path: Path, damage: str
) -> None:
    """SQLite keeps whatever is put into a column; the store opens, and says so of the record alone."""
    first = open_store()
    await first.save(active(reference="damaged"))
    await first.save(other := active(at=NOW - 1))
    await first.aclose()
    file = sqlite3.connect(tmp_path / "keys.db")
    file.execute(f"UPDATE dan_sessions SET {damage} WHERE reference = 'damaged'")
    file.commit()
    file.close()
    store = open_store(StoreKey("new", b"\x02" * 32), KEY)
    assert await store.get(other.record_id) == other
    for call in (store.get_by_reference("damaged"), store.list_page(), store.rotate_keys()):
        with pytest.raises(StoreTamperedError):
            await call
    assert await store.purge_expired() == 0


class SlowThread(logging.Handler):
    """Has the driver's threads take their time for each step."""

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.02)


@pytest.fixture
def slow_threads(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    logger, handler = logging.getLogger("aiosqlite"), SlowThread()
    caplog.set_level(logging.DEBUG, logger.name)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.usefixtures("slow_threads")
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("meanwhile", ["nothing", "its caller is cancelled", "closing is cancelled"])
def test_a_closed_store_leaves_no_thread_at_work(tmp_path: Path, meanwhile: str, steps: int) -> None:
    """Whatever it was doing: a thread that answers a loop that has ended can only fail."""

    async def main() -> None:
        store = SQLAlchemyStore(f"sqlite:///{tmp_path}/keys.db", FixedKeys([KEY]))
        saving = asyncio.create_task(store.save(active()))
        await asyncio.sleep(0.03 * steps)
        if meanwhile == "its caller is cancelled":
            saving.cancel()
            await asyncio.sleep(0)
        closing = asyncio.create_task(store.aclose())
        if meanwhile == "closing is cancelled":
            await asyncio.sleep(0.01)
            closing.cancel()
        await asyncio.gather(saving, closing, return_exceptions=True)

    before = threading.enumerate()
    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread not in before]


@pytest.mark.usefixtures("slow_threads")
def test_a_file_that_cannot_be_opened_leaves_no_thread_at_work() -> None:
    """The driver's thread has a last word to say after the error."""

    async def main() -> None:
        async with SQLAlchemyStore("sqlite:////no/such/folder/keys.db", FixedKeys([KEY])):
            pass

    before = threading.enumerate()
    with pytest.raises(StoreUnavailableError):
        asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread not in before]

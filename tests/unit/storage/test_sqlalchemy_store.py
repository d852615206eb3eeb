"""What only a database can go through: other keys, other versions, other hands in the table."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from dan_async.errors import (
    ClientClosedError,
    InvalidFieldError,
    StoreKeyError,
    StoreLockedError,
    StoreSchemaError,
    StoreTamperedError,
    StoreUnavailableError,
)
from dan_async.storage import CallbackKeys, FixedKeys, PassphraseKeys, StoreKey
from dan_async.storage import database as _schema
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.helpers import no_leaks
from tests.stored import ADA, BOB, NOW, active, pending
from tests.unit.storage.conftest import KEY

OpenStore = Callable[..., SQLAlchemyStore]

OLD, NEW = KEY, StoreKey("second", b"\x02" * 32)


async def execute(store: SQLAlchemyStore, statement: str, **values: object) -> None:
    async with store.engine.begin() as connection:
        await connection.execute(sa.text(statement), values)


async def test_records_outlive_the_store(open_store: OpenStore) -> None:
    """What was saved is there when the database is opened again."""
    record = active(reference="row")
    first = open_store()
    await first.save(record)
    await first.aclose()
    assert await open_store().get_by_reference("row") == record


@pytest.mark.parametrize("keys", ["ab" * 32, b"\x01" * 32, KEY, None])
def test_a_key_alone_is_no_source_of_keys(keys: object) -> None:
    """It is refused when the store is made, and not repeated."""
    with pytest.raises(InvalidFieldError, match=r"^keys is not a source of keys.*keys_from_file\S+$"):
        SQLAlchemyStore("sqlite:///keys.db", keys)  # type: ignore[arg-type]


async def test_secrets_are_not_in_the_database(open_store: OpenStore) -> None:
    """Neither the ephemeral key nor the label's text can be found in the rows, in any form."""
    record = active()
    store = open_store()
    await store.save(record)
    async with store.engine.connect() as connection:
        (row,) = (await connection.execute(sa.text("SELECT * FROM dan_sessions"))).all()
    secret = record.session.hex_eph_sk_without_0x
    raw = bytes.fromhex(secret)
    held = b"|".join(value if isinstance(value, bytes) else str(value).encode() for value in row)
    for form in (secret.encode(), raw, base64.b64encode(raw), str(int(secret, 16)).encode()):
        assert form not in held


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("owner", BOB),
        ("chain_id", 1),
        ("state", "revoked"),
        ("expires_at", 2_000_000_000),
        ("created_at", 1),
        ("updated_at", 2**50),
        ("reference", "another row"),
        ("record_id", "0x" + "12" * 32),
    ],
)
async def test_a_changed_column_is_noticed(open_store: OpenStore, column: str, value: object) -> None:
    """A column that was changed behind the store's back is an error, never another session."""
    store = open_store()
    await store.save(active(reference="row"))
    await execute(store, f"UPDATE dan_sessions SET {column} = :value", value=value)
    with pytest.raises(StoreTamperedError):
        await store.list_page()
    with pytest.raises(StoreTamperedError):
        await open_store(NEW, OLD).rotate_keys()


@pytest.mark.parametrize("place", [0, 25, -1])
async def test_a_changed_body_is_noticed(open_store: OpenStore, place: int) -> None:
    """So is a flipped bit in the body, at its beginning, in its middle and in the tag."""
    store = open_store()
    record = active()
    await store.save(record)
    async with store.engine.connect() as connection:
        body = bytearray((await connection.execute(sa.text("SELECT body FROM dan_sessions"))).scalar_one())
    body[place] ^= 1
    await execute(store, "UPDATE dan_sessions SET body = :body", body=bytes(body))
    with pytest.raises(StoreTamperedError):
        await store.get(record.record_id)


async def test_swapped_bodies_are_noticed(open_store: OpenStore) -> None:
    """A record's body does not open in the place of another one's, also not of the same owner."""
    store = open_store()
    first, second = active(), active()
    await store.save(first)
    await store.save(second)
    async with store.engine.connect() as connection:
        statement = sa.text("SELECT body FROM dan_sessions WHERE record_id = :id")
        body = (await connection.execute(statement, {"id": first.record_id})).scalar_one()
    await execute(
        store, "UPDATE dan_sessions SET body = :body WHERE record_id = :id", body=body, id=second.record_id
    )
    assert await store.get(first.record_id) == first
    with pytest.raises(StoreTamperedError):
        await store.get(second.record_id)


@pytest.mark.parametrize(
    "wrong", [NEW, StoreKey(OLD.id, NEW.secret)], ids=["another id", "another key of the same id"]
)
async def test_a_wrong_key_is_a_clear_error(open_store: OpenStore, wrong: StoreKey) -> None:
    """It is found out when the store is opened, before anything is written under it."""
    await open_store(OLD).save(active())
    with pytest.raises(StoreKeyError, match="key"):
        await open_store(wrong).save(active())
    assert len((await open_store(OLD).list_page()).records) == 1


async def test_a_wrong_passphrase_is_a_clear_error(database: str) -> None:
    """The same for a key that is derived."""
    cost = 2**10
    async with SQLAlchemyStore(database, PassphraseKeys("correct horse", cost=cost)) as store:
        await store.save(record := active())
    async with SQLAlchemyStore(database, PassphraseKeys("correct horse", cost=cost)) as store:
        assert await store.get(record.record_id) == record
    store = SQLAlchemyStore(database, PassphraseKeys("battery staple", cost=cost))
    with pytest.raises(StoreKeyError):
        await store.open()
    await store.aclose()


async def test_a_changed_passphrase_is_enough_after_a_rotation(database: str) -> None:
    """The store reads a record under the earlier one before it asks for a key to write with."""
    cost = 2**10
    async with SQLAlchemyStore(database, PassphraseKeys("correct horse", cost=cost)) as store:
        await store.save(old := active())
    keys = PassphraseKeys("battery staple", older=["correct horse"], cost=cost)
    async with SQLAlchemyStore(database, keys) as store:
        await store.save(new := active())
        assert await store.rotate_keys() == 1
    async with SQLAlchemyStore(database, PassphraseKeys("battery staple", cost=cost)) as store:
        assert [await store.get(record.record_id) for record in (old, new)] == [old, new]


async def test_keys_rotate_while_the_store_is_in_use(open_store: OpenStore) -> None:
    """Both keys read during the rotation; afterwards the new one is enough, and the old one is of no use."""
    old = open_store(OLD)
    records = [active() for _ in range(150)]
    await asyncio.gather(*map(old.save, records))
    both = open_store(NEW, OLD)
    rotation = asyncio.create_task(both.rotate_keys())
    for record in records[:20]:
        assert await both.get(record.record_id) == record
        await both.change_state(record.record_id, "revoked", expected="active")
    await rotation
    assert await both.rotate_keys() == 0
    found = [record.record_id async for record in open_store(NEW).find()]
    assert sorted(found) == sorted(record.record_id for record in records)
    with pytest.raises(StoreKeyError):
        await open_store(OLD).list_page()


async def test_records_under_an_unknown_key_are_passed_over(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that was left out of a change of keys still finds what it can read, and says what it cannot."""
    left_out, ahead = open_store(OLD), open_store(NEW, OLD)
    ours = [active(at=NOW + i) for i in range(3)]
    await left_out.save(ours[0])
    await ahead.save(hidden := active(at=NOW + 0.5))
    await left_out.save(ours[1])
    await left_out.save(ours[2])
    page = await left_out.list_page(limit=2)
    assert (page.records, page.unreadable) == ((ours[0],), (hidden.record_id,))
    assert (await left_out.list_page(limit=2, after=page.next)).records == tuple(ours[1:])
    assert [record async for record in left_out.find()] == ours
    assert f"1 records are encrypted with a key that is not known here: {hidden.record_id}" in caplog.text
    with pytest.raises(StoreKeyError):
        await left_out.get(hidden.record_id)


async def test_a_key_service_that_fails_hides_nothing(open_store: OpenStore, database: str) -> None:
    """Records are not passed over because their key could not be fetched just now."""
    store = open_store(OLD)
    await store.save(active())
    fails = False

    async def fetch(_: str | None) -> StoreKey:
        if fails:
            raise ConnectionError
        return OLD

    async with SQLAlchemyStore(database, CallbackKeys(fetch, keep_s=0)) as other:
        fails = True
        with pytest.raises(StoreKeyError, match="key service"):
            await other.list_page()


async def test_a_newer_schema_is_refused(open_store: OpenStore) -> None:
    """A database of a later version of the package is not touched."""
    store = open_store()
    await store.save(active())
    await execute(store, "UPDATE dan_schema SET version_num = '9999'")
    with pytest.raises(StoreSchemaError, match="9999"):
        await open_store().open()


async def test_an_older_schema_can_be_left_alone(open_store: OpenStore) -> None:
    """Without leave to migrate, an empty database is an error and stays empty."""
    store = open_store(migrate=False)
    with pytest.raises(StoreSchemaError, match="none"):
        await store.open()
    async with store.engine.connect() as connection:
        assert await connection.run_sync(lambda c: sa.inspect(c).get_table_names()) == []


async def test_the_migrations_make_the_tables_that_the_store_uses(open_store: OpenStore) -> None:
    """Alembic finds no difference between what its files made and the tables in the code, and ours are all its files."""
    store = open_store()
    await store.open()

    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"version_table": _schema.VERSION_TABLE})
        return list(compare_metadata(context, _schema.metadata))

    async with store.engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    config = Config()
    config.set_main_option("script_location", str(Path(_schema.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(_schema.REVISIONS)


async def test_two_that_open_an_empty_database_at_once_agree(open_store: OpenStore) -> None:
    """One of them makes the tables, the other finds them."""
    stores = [open_store() for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    await stores[0].save(active())
    assert len((await stores[3].list_page()).records) == 1


async def test_a_locked_table_is_a_clear_error(empty_postgresql: str) -> None:
    """PostgreSQL waits for somebody else's lock no longer than it may; afterwards saving works."""
    record = active()
    async with SQLAlchemyStore(empty_postgresql, FixedKeys([KEY]), lock_wait_s=0.1) as store:
        other = await asyncpg.connect(empty_postgresql)
        try:
            async with other.transaction():
                await other.execute("LOCK TABLE dan_sessions IN ACCESS EXCLUSIVE MODE")
                for call in (store.save(record), store.get(record.record_id)):
                    with pytest.raises(StoreLockedError, match="locked"):
                        await call
            await store.save(record)
        finally:
            await other.close()
        assert await store.get(record.record_id) == record


async def test_a_connection_that_the_server_ends_is_replaced(empty_postgresql: str) -> None:
    """What was saved is there, and the next call uses a new connection."""
    record = active()
    async with SQLAlchemyStore(empty_postgresql, FixedKeys([KEY])) as store:
        await store.save(record)
        other = await asyncpg.connect(empty_postgresql)
        try:
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'dan-async' AND pid <> pg_backend_pid()"
            )
        finally:
            await other.close()
        assert await store.get(record.record_id) == record
        await store.save(active())


async def test_a_broken_connection_is_a_clear_error() -> None:
    """No server, or no such folder: what cannot be reached is named, without the password."""
    for url in ("postgresql://me:hunter22@127.0.0.1:1/keys", "sqlite:////no/such/folder/keys.db"):
        store = SQLAlchemyStore(url, FixedKeys([KEY]))
        assert "hunter22" not in repr(store)
        with pytest.raises(StoreUnavailableError) as caught:
            await store.open()
        assert "hunter22" not in str(caught.value)
        await store.aclose()


@pytest.mark.parametrize("url", ["keys.db", "mysql://host/db", "sqlite://", "http://x", ""])
def test_other_urls_are_refused(url: str) -> None:
    """Before anything is opened."""
    with pytest.raises(InvalidFieldError):
        SQLAlchemyStore(url, FixedKeys([KEY]))


async def test_a_closed_store_says_so(open_store: OpenStore) -> None:
    """Reading and writing end with the store."""
    store = open_store()
    await store.aclose()
    with pytest.raises(ClientClosedError):
        await store.get("0x" + "00" * 32)
    with pytest.raises(ClientClosedError):
        await store.save(active())


async def test_nothing_is_left_when_it_is_closed(database: str) -> None:
    """No task, no socket; what was being written is written."""
    async with no_leaks():
        store = SQLAlchemyStore(database, FixedKeys([KEY]))
        await store.open()
        saving = [asyncio.create_task(store.save(active())) for _ in range(5)]
        await asyncio.sleep(0)
        await store.aclose()
        await asyncio.gather(*saving)
    async with SQLAlchemyStore(database, FixedKeys([KEY])) as store:
        assert len((await store.list_page()).records) == 5


async def test_a_store_that_cannot_be_opened_leaves_nothing(database: str) -> None:
    """The block is never entered, so the connections go at once."""
    async with SQLAlchemyStore(database, FixedKeys([OLD])) as store:
        await store.save(active())
    async with no_leaks():
        with pytest.raises(StoreKeyError):
            async with SQLAlchemyStore(database, FixedKeys([NEW])):
                pass


async def test_a_cancelled_save_disturbs_nobody(open_store: OpenStore) -> None:
    """Others that are committed with it are saved, and the store goes on."""
    store = open_store()
    await store.open()
    records = [active() for _ in range(6)]
    saving = [asyncio.create_task(store.save(record)) for record in records]
    await asyncio.sleep(0)
    saving[2].cancel()
    results = await asyncio.gather(*saving, return_exceptions=True)
    assert [result is None for result in results] == [True, True, False, True, True, True]
    found = {record.record_id async for record in store.find()}
    assert found >= {record.record_id for place, record in enumerate(records) if place != 2}


async def test_processes_share_a_database(open_store: OpenStore, database: str) -> None:
    """Another process reads what this one saved, and the other way round."""
    store = open_store()
    await store.save(pending(reference="ours"))
    program = (
        "import asyncio\n"
        "from dan_async.storage import FixedKeys, StoreKey\n"
        "from dan_async.storage.sqlalchemy_store import SQLAlchemyStore\n"
        "from tests.stored import active\n"
        "async def main():\n"
        f"    async with SQLAlchemyStore({database!r}, FixedKeys([StoreKey('first', bytes([1]) * 32)])) as store:\n"
        "        assert (await store.get_by_reference('ours')).state == 'pending'\n"
        "        await store.save(active(reference='theirs'))\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = await store.get_by_reference("theirs")
    assert found is not None
    assert found.owner == ADA


@pytest.mark.parametrize("missing", ["sqlalchemy", "alembic"])
def test_without_the_extra_the_pip_line_is_given(missing: str) -> None:
    """A program without the extra is told how to install it, before any of its libraries is imported."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
from dan_async.errors import MissingExtraError
try:
    import dan_async.storage.sqlalchemy_store
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "dan-async[storage]" in done.stdout, done.stderr

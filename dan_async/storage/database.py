"""The database beneath ``SQLAlchemyStore``: its URL, engine, tables and their versions, and its errors made ours."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

import sqlalchemy as sa
import sqlalchemy.exc as sa_errors
from attrs import define
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from dan_async._values import check_instance
from dan_async.deadline import Deadline
from dan_async.errors import (
    ClientClosedError,
    InvalidFieldError,
    StoreConnectionError,
    StoreCorruptedError,
    StoreError,
    StoreLockedError,
    StoreSchemaError,
    StoreUnavailableError,
    require_extra,
)
from dan_async.storage.base import taken

T = TypeVar("T")

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def parse_url(text: str) -> sa.URL:
    """Read a database URL and name its driver. It may hold a password, so no error repeats it."""
    hint = "For example sqlite:///keys.db or postgresql://user@host/database"
    try:
        url = sa.make_url(check_instance("url", text, str))
    except (sa.exc.ArgumentError, ValueError, TypeError):
        raise InvalidFieldError("url", "is not the URL of a database", hint=hint) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise InvalidFieldError("url", "is of another kind than SQLite and PostgreSQL", hint=hint)
    if driver.startswith("sqlite") and not url.database:
        raise InvalidFieldError("url", "names no file", hint=hint)
    return url.set(drivername=driver)


#: Execution option of a connection that only reads.
READS_ONLY = "dan_reads_only"


def make_engine(url: sa.URL, *, lock_wait_s: float, threads: WeakSet[threading.Thread]) -> AsyncEngine:
    """
    Make an engine, which connects to nothing yet; *lock_wait_s* is how long to wait for somebody else's lock.

    The driver of SQLite has a thread for each connection: they are noted in *threads*.
    """
    if url.drivername.startswith("sqlite"):
        require_extra("aiosqlite", extra="storage", purpose="A store in SQLite")
        # Each connection has a thread and a page cache; more of them would not make one file any faster.
        pool: dict[str, Any] = {"poolclass": sa.AsyncAdaptedQueuePool, "pool_size": 4, "max_overflow": 0}
        path = _path_of(url)
        if url.database == ":memory:":
            pool = {}
        options = {"timeout": lock_wait_s, "factory": partial(_made_in, threads)}
        engine = create_async_engine(url, connect_args=options, **pool)
        if path is not None:
            _SameFile(path).watch(engine.sync_engine)
        sa.event.listen(engine.sync_engine, "connect", partial(_prepare_sqlite, lock_wait_s))
        sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    require_extra("asyncpg", extra="storage", purpose="A store in PostgreSQL")
    settings = {
        "lock_timeout": str(int(lock_wait_s * 1000)),
        "application_name": "dan-async",
        # So that the server gives up the locks of a client that vanished.
        "idle_in_transaction_session_timeout": str(int(lock_wait_s * 1000) + 30_000),
        "tcp_keepalives_idle": "30",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
    }
    return create_async_engine(
        url, pool_size=5, max_overflow=5, connect_args={"server_settings": settings, "timeout": 10.0}
    )


def _made_in(threads: WeakSet[threading.Thread], *args: Any, **options: Any) -> sqlite3.Connection:
    """Make a connection in a thread of the driver's, and note the thread."""
    threads.add(threading.current_thread())
    return sqlite3.Connection(*args, **options)


#: How long a connection may take to close, in seconds; then it is cut.
_GOODBYE_S = 0.5


@define
class _Held:
    """The connection of a use, as its driver knows it."""

    driver: Any = None
    is_left: bool = False


class Database:
    """
    An engine of which every use ends in time.

    A use whose connection breaks, or gets no answer, is tried once more over a new connection. Its caller may be cancelled
    at any time and does not wait for the connection that it leaves behind: one to a server is broken off, one to a file ends
    by itself, as nothing can break off what the driver's thread does.
    """

    def __init__(self, url: sa.URL, *, lock_wait_s: float, answer_wait_s: float) -> None:
        self._threads: WeakSet[threading.Thread] = WeakSet()
        self.engine = make_engine(url, lock_wait_s=lock_wait_s, threads=self._threads)
        self._is_file = self.engine.dialect.name == "sqlite"
        self._limit_s = lock_wait_s + answer_wait_s
        self._uses: dict[asyncio.Task[Any], _Held] = {}
        self._is_closed = False
        self._silent_at = 0.0  # connections from before have got no answer, or may not get one
        sa.event.listen(self.engine.sync_engine, "connect", self._note_age)
        sa.event.listen(self.engine.sync_engine, "checkout", self._replace_suspects)

    async def use(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Return the result of *work* on a connection. It must be harmless to repeat."""
        if self._is_closed:
            raise closed()
        held = _Held()
        task = asyncio.create_task(self._try_twice(work, held), name="session store")
        self._uses[task] = held
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            self._leave(task, held)
            raise
        if task.cancelled():
            raise closed()
        return task.result()

    async def aclose(self) -> None:
        """End every use, and close every connection."""
        self._is_closed = True
        for use in self._uses.items():
            self._leave(*use)
        if self._uses:
            await asyncio.wait(self._uses)
        while True:
            try:
                async with asyncio.timeout(_GOODBYE_S):
                    await self.engine.dispose()
            except TimeoutError:
                continue  # it cut the connection that did not answer; the others are left
            break
        for thread in list(self._threads):
            # That of a connection that could not be made is about to end, and says so to the event loop.
            if thread.is_alive():
                await asyncio.to_thread(thread.join, _GOODBYE_S)

    async def _try_twice(self, work: Callable[[AsyncConnection], Awaitable[T]], held: _Held) -> T:
        try:
            return await self._try(work, held)
        except StoreConnectionError:
            if held.is_left:
                raise
            return await self._try(work, held)

    async def _try(self, work: Callable[[AsyncConnection], Awaitable[T]], held: _Held) -> T:
        cut = asyncio.get_running_loop().call_later(self._limit_s + _GOODBYE_S, self._cut, held)
        with translated():
            try:
                async with asyncio.timeout(self._limit_s), self.engine.connect() as connection:
                    held.driver = (await connection.get_raw_connection()).driver_connection
                    return await work(connection)
            except TimeoutError as error:
                self._silent_at = time.monotonic()
                raise StoreConnectionError(
                    f"the database gave no answer within {self._limit_s:g} s",
                    hint="Check the server and the network; a change may have been made",
                ) from error
            finally:
                cut.cancel()
                held.driver = None

    def _leave(self, task: asyncio.Task[Any], held: _Held) -> None:
        """End a use that nobody waits for any more."""
        held.is_left = True
        if not self._is_file:
            task.cancel()
            asyncio.get_running_loop().call_later(_GOODBYE_S, self._cut, held)

    def _cut(self, held: _Held) -> None:
        """Break a connection that is not given back: SQLAlchemy waits for the server to roll back, even when cancelled."""
        if held.driver is not None:
            self._silent_at = time.monotonic()
            _terminate(held.driver)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        del self._uses[task]
        if not task.cancelled():
            task.exception()  # marks it as seen: the caller may have gone

    def _note_age(self, _: Any, record: Any) -> None:
        record.info["made_at"] = time.monotonic()

    def _replace_suspects(self, connection: Any, record: Any, __: Any) -> None:
        if record.info["made_at"] < self._silent_at:
            _terminate(connection.driver_connection)
            raise sa_errors.DisconnectionError("it is older than one that got no answer")


def _terminate(driver: Any) -> None:
    """Break a connection to a server at once; that of a file has nothing to wait for."""
    if hasattr(driver, "terminate"):
        driver.terminate()


def closed() -> ClientClosedError:
    return ClientClosedError("the store was closed", hint="Make a new one")


def _path_of(url: sa.URL) -> Path | None:
    name = url.database or ""
    return None if name == ":memory:" or name.startswith("file:") else Path(name).absolute()


def make_file(url: sa.URL) -> None:
    """Make an SQLite file that only its owner can use, if there is none. SQLite itself would follow the umask."""
    path = _path_of(url)
    # Any problem with the path is left to SQLite, which reports it like its other errors.
    if path is not None and path.parent.is_dir() and not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


@define
class _SameFile:
    """Notices that an SQLite file was deleted or replaced: SQLite writes on into the old one, where nobody finds it."""

    path: Path
    identity: tuple[int, int] | None = None

    def watch(self, engine: sa.Engine) -> None:
        sa.event.listen(engine, "do_connect", self.check)  # before a new connection makes an empty file
        sa.event.listen(engine, "checkout", self.check)

    def check(self, *_: Any) -> None:
        try:
            found = self.path.stat()
            identity = found.st_dev, found.st_ino
        except OSError:
            identity = None
        self.identity = self.identity or identity
        if identity != self.identity:
            raise StoreUnavailableError(
                "the store's file was deleted, or replaced by another one",
                hint="Nothing was written. Put the file back, or make a new store",
            )


def _prepare_sqlite(lock_wait_s: float, connection: Any, _: object) -> None:
    # The driver must not begin transactions by itself: it would do so too late, and not at all for reading.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(lock_wait_s * 1000)}")
    _use_write_ahead_log(cursor, Deadline(lock_wait_s))
    cursor.execute("PRAGMA synchronous=FULL")  # a record that was reported as saved survives a power cut
    cursor.execute("PRAGMA secure_delete=ON")  # a purged record leaves no bytes behind
    cursor.close()


def _use_write_ahead_log(cursor: Any, deadline: Deadline) -> None:
    """
    Let readers and the writer not wait for each other.

    Of several that switch a file at once, each holds what the others wait for: SQLite refuses, whatever its busy timeout.
    """
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or deadline.is_over:
                raise
        else:
            return
        sa.util.await_only(asyncio.sleep(random.uniform(0.005, 0.02)))  # noqa: S311 - not a secret


def _begin_sqlite(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get(READS_ONLY, False)
    # A transaction that begins with reading could not go on to write if somebody else wrote meanwhile.
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")


#: Every version of the schema, oldest first; migrations/versions has a file for each. A released one is not edited.
REVISIONS = ("0001",)
HEAD = REVISIONS[-1]
VERSION_TABLE = "dan_schema"

metadata = sa.MetaData()

#: Times are Unix seconds (expires_at) and milliseconds (created_at, updated_at).
sessions_table = sa.Table(
    "dan_sessions",
    metadata,
    sa.Column("record_id", sa.String(66), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("chain_id", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("reference", sa.String(200), nullable=True),
    sa.Column("key_id", sa.String(160), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("dan_sessions_reference", "reference", unique=True),
    sa.Index("dan_sessions_place", "created_at", "record_id"),
    sa.Index("dan_sessions_owner", "owner", "created_at", "record_id"),
    sa.Index("dan_sessions_state", "state", "created_at", "record_id"),
    sa.Index("dan_sessions_expiry", "expires_at"),
    sa.Index("dan_sessions_changed", "updated_at"),
)

#: Any number that nothing else uses: it keeps two programs that start at once from both making the tables.
_ADVISORY_LOCK = 7_310_021_455_871


def bring_up_to_date(connection: sa.Connection, *, allowed: bool) -> None:
    """Migrate an older schema if *allowed*. Runs in the caller's transaction: all of it, or nothing."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    found = found_revision(connection)
    if found == HEAD:
        return
    if found is not None and found not in REVISIONS:
        raise StoreSchemaError(
            f"the store's schema is version {found[:20]}, and this package knows up to {HEAD}",
            hint="Upgrade dan-async",
        )
    if not allowed:
        raise StoreSchemaError(
            f"the store's schema is version {found or 'none'}, and this package needs {HEAD}",
            hint="Let it migrate: open the store with migrate=True",
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def found_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    found = connection.execute(sa.select(table.c.version_num)).scalar_one_or_none()
    return None if found is None else str(found)


_KEPT = "Nothing was changed; what was saved before is kept"
_BROKE = ("the connection to the database broke", "Look at the server; then call again")

#: SQLite's primary result codes (the low byte of the extended ones).
_SQLITE: dict[int, tuple[type[StoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: (StoreLockedError, "the store's file is locked by somebody else", _KEPT),
    sqlite3.SQLITE_LOCKED: (StoreLockedError, "a table of the store is locked by somebody else", _KEPT),
    sqlite3.SQLITE_FULL: (StoreUnavailableError, "the disk that holds the store is full", _KEPT),
    sqlite3.SQLITE_IOERR: (StoreUnavailableError, "the store's file cannot be read or written", _KEPT),
    sqlite3.SQLITE_READONLY: (StoreUnavailableError, "the store's file is read-only", _KEPT),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailableError,
        "the store's file cannot be opened",
        "Look at the path, and at who may read and write the file and its folder",
    ),
    sqlite3.SQLITE_PERM: (StoreUnavailableError, "the store's file may not be used", _KEPT),
    sqlite3.SQLITE_CORRUPT: (
        StoreCorruptedError,
        "the store's file is damaged",
        "Restore it from a backup, or read what is left with sqlite3's .recover",
    ),
    sqlite3.SQLITE_NOTADB: (StoreCorruptedError, "the file is not an SQLite database", "Look at the URL"),
}

#: PostgreSQL's SQLSTATEs, or their classes.
_POSTGRESQL: dict[str, tuple[type[StoreError], str, str]] = {
    "55P03": (StoreLockedError, "the store is locked by somebody else", _KEPT),
    "57014": (StoreLockedError, "the database took too long", _KEPT),
    "40P01": (StoreLockedError, "the database broke a deadlock", _KEPT),
    "40001": (StoreLockedError, "somebody else changed the same rows", _KEPT),
    "25006": (StoreUnavailableError, "the database is read-only", _KEPT),
    "53100": (StoreUnavailableError, "the disk of the database is full", _KEPT),
    "42501": (StoreUnavailableError, "the database does not allow it", "Look at the role's privileges"),
    "42P01": (StoreSchemaError, "a table of the store is missing", "Open the store anew"),
    "53": (StoreUnavailableError, "the database has no resources left", _KEPT),
    "57": (StoreUnavailableError, "the database is shutting down or starting", _KEPT),
    "57P01": (StoreConnectionError, *_BROKE),
    "08": (StoreConnectionError, *_BROKE),
    "28": (StoreUnavailableError, "the database refused the login", "Look at user and password of the URL"),
    "3D": (StoreUnavailableError, "there is no such database", "Make it: createdb"),
    "XX": (StoreCorruptedError, "the database reports damaged data", "Look at the server's log"),
    "58": (StoreUnavailableError, "the database cannot read or write its files", "Look at the server's log"),
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database's errors that the block raises into ours."""
    try:
        yield
    except StoreError:
        raise
    except (sa_errors.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise translate(error) from error
    except Exception as error:
        if not isinstance(getattr(error, "sqlstate", None), str):
            raise
        raise translate(error) from error  # asyncpg's own, from connecting


def translate(error: BaseException) -> StoreError:
    if isinstance(error, sa_errors.IntegrityError):
        return taken()
    for cause in _causes(error):
        code = getattr(cause, "sqlite_errorcode", None)
        state = getattr(cause, "sqlstate", None)
        found = None
        if isinstance(code, int):
            found = _SQLITE.get(code & 0xFF)
        elif isinstance(state, str):
            found = _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2])
        if found is not None:
            kind, message, hint = found
            return kind(message, hint=hint)
    if isinstance(error, sa_errors.DBAPIError) and error.connection_invalidated:
        return StoreConnectionError(_BROKE[0], hint=_BROKE[1])
    for cause in _causes(error):
        if isinstance(cause, OSError):  # TimeoutError is one
            reason = cause.strerror or type(cause).__name__
            return StoreUnavailableError(
                f"the database cannot be reached: {reason}", hint="Look at the server and at the URL"
            )
    return StoreUnavailableError(
        f"the database failed with {type(error).__name__}", hint="Its own exception is the cause of this one"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, outermost first."""
    found = [error]
    for current in found:  # grows meanwhile
        yield current
        for cause in (getattr(current, "orig", None), current.__cause__, current.__context__):
            if isinstance(cause, BaseException) and not any(cause is known for known in found):
                found.append(cause)

"""SQLAlchemy engines as the store needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dan_async._extras import require_extra
from dan_async.errors import InvalidFieldError

__all__ = ["make_engine", "parse_url"]

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}

#: Execution option of a connection that only reads.
READS_ONLY = "dan_reads_only"


def parse_url(text: str) -> sa.URL:
    """
    Read a database URL, and name the driver for it.

    Args:
        text: ``sqlite:///file.db``, ``sqlite:////absolute/file.db``, or ``postgresql://user:password@host/database``.

    Raises:
        InvalidFieldError: It is none of these. It is not repeated, since it may hold a password.
    """
    hint = "For example sqlite:///keys.db or postgresql://user@host/database"
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError, TypeError):
        raise InvalidFieldError("url", "is not the URL of a database", hint=hint) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise InvalidFieldError("url", "is of another kind than SQLite and PostgreSQL", hint=hint)
    if driver.startswith("sqlite") and not url.database:
        raise InvalidFieldError("url", "names no file", hint=hint)
    return url.set(drivername=driver)


def make_engine(url: sa.URL, *, lock_wait_s: float) -> AsyncEngine:
    """
    Make an engine. Connects to nothing yet.

    Args:
        url: From ``parse_url``.
        lock_wait_s: How long to wait for somebody else's lock, in seconds.

    Raises:
        MissingExtraError: The driver is not installed.
    """
    if url.drivername.startswith("sqlite"):
        require_extra("aiosqlite", extra="storage", purpose="A store in SQLite")
        engine = create_async_engine(url, connect_args={"timeout": lock_wait_s})
        sa.event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        sa.event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return engine
    require_extra("asyncpg", extra="storage", purpose="A store in PostgreSQL")
    settings = {"lock_timeout": str(int(lock_wait_s * 1000)), "application_name": "dan-async"}
    return create_async_engine(
        url, pool_pre_ping=True, connect_args={"server_settings": settings, "timeout": 10.0}
    )


def make_file(url: sa.URL) -> None:
    """Make an SQLite file that only its owner can use, if there is none. SQLite itself would follow the umask."""
    name = url.database or ""
    if name == ":memory:" or name.startswith("file:"):
        return
    # SQLite reports what is wrong with the path, if anything is, in the form that others are reported in.
    if Path(name).parent.is_dir() and not Path(name).exists():
        os.close(os.open(name, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(connection: Any, _: object) -> None:
    # The driver must not begin transactions by itself: it would do so too late, and not at all for reading.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait for each other
    cursor.execute("PRAGMA synchronous=FULL")  # what was reported as saved survives a power cut
    cursor.execute("PRAGMA secure_delete=ON")  # a purged record leaves no bytes behind
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    reads_only = connection.get_execution_options().get(READS_ONLY, False)
    # A transaction that begins with reading could not go on to write if somebody else wrote meanwhile.
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

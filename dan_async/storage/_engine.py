"""SQLAlchemy engines as the store needs them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dan_async.errors import require_extra

__all__ = ["READS_ONLY", "make_engine", "make_file"]

#: Execution option of a connection that only reads.
READS_ONLY = "dan_reads_only"


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
        # Each connection has a thread and a page cache; more of them would not make one file any faster.
        in_memory = url.database == ":memory:"
        pool: dict[str, Any] = {"poolclass": sa.AsyncAdaptedQueuePool, "pool_size": 4, "max_overflow": 0}
        if in_memory:
            pool = {}
        engine = create_async_engine(url, connect_args={"timeout": lock_wait_s}, **pool)
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

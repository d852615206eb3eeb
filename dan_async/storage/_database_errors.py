"""What a database's own errors mean, decided by their codes: the one place where they become ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy.exc as sa_errors

from dan_async.errors import (
    RecordConflictError,
    StoreCorruptedError,
    StoreError,
    StoreLockedError,
    StoreSchemaError,
    StoreUnavailableError,
)

__all__ = ["translate", "translated"]

_KEPT = "Nothing was changed; what was saved before is kept"

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
    "08": (
        StoreUnavailableError,
        "the connection to the database broke",
        "Look at the server; then call again",
    ),
    "28": (StoreUnavailableError, "the database refused the login", "Look at user and password of the URL"),
    "3D": (StoreUnavailableError, "there is no such database", "Make it: createdb"),
    "XX": (StoreCorruptedError, "the database reports damaged data", "Look at the server's log"),
    "58": (StoreUnavailableError, "the database cannot read or write its files", "Look at the server's log"),
}


def translate(error: BaseException) -> StoreError:
    """Make our error of a database's own one."""
    if isinstance(error, sa_errors.IntegrityError):
        return RecordConflictError("the store has a record of that id or that reference")
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
    """Give an error and what it was made from, outermost first."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        original = getattr(current, "orig", None)
        pending += [
            original if isinstance(original, BaseException) else None,
            current.__cause__,
            current.__context__,
        ]


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

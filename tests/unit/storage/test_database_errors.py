"""What a database's own errors become, by their codes."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy.exc as sa_errors

from dan_async.errors import (
    RecordConflictError,
    StoreConnectionError,
    StoreCorruptedError,
    StoreError,
    StoreLockedError,
    StoreSchemaError,
    StoreUnavailableError,
)
from dan_async.storage.database import translate, translated


class ServerError(Exception):
    """As asyncpg's errors are: with an SQLSTATE."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("the server's words")
        self.sqlstate = sqlstate


def wrapped(cause: BaseException) -> sa_errors.DBAPIError:
    return sa_errors.OperationalError("SELECT 1", {}, cause)


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("55P03", StoreLockedError),
        ("40P01", StoreLockedError),
        ("25006", StoreUnavailableError),
        ("53100", StoreUnavailableError),
        ("53300", StoreUnavailableError),
        ("28P01", StoreUnavailableError),
        ("08006", StoreConnectionError),
        ("42P01", StoreSchemaError),
        ("XX001", StoreCorruptedError),
        ("ZZZZZ", StoreUnavailableError),
    ],
)
def test_a_servers_state_says_what_is_wrong(sqlstate: str, kind: type[StoreError]) -> None:
    """Exactly, or by its class; whether SQLAlchemy wrapped it or not."""
    for error in (ServerError(sqlstate), wrapped(ServerError(sqlstate))):
        assert type(translate(error)) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StoreUnavailableError),
        (sqlite3.SQLITE_IOERR_WRITE, StoreUnavailableError),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailableError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreLockedError),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreCorruptedError),
        (sqlite3.SQLITE_NOTADB, StoreCorruptedError),
    ],
)
def test_extended_codes_count_as_their_kind(code: int, kind: type[StoreError]) -> None:
    """SQLite's own codes, whatever detail they carry."""
    error = sqlite3.OperationalError("its words")
    error.sqlite_errorcode = code
    assert type(translate(wrapped(error))) is kind


def test_what_the_system_says_is_passed_on() -> None:
    """A connection that is refused, or takes too long; the cause is found wherever it hides."""
    outer = RuntimeError("wrapper")
    outer.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert "Connection refused" in str(translate(outer))
    assert isinstance(translate(TimeoutError()), StoreUnavailableError)


def test_a_second_record_is_a_conflict() -> None:
    """Whichever database says so."""
    assert isinstance(
        translate(sa_errors.IntegrityError("INSERT", {}, ServerError("23505"))), RecordConflictError
    )


def test_statements_and_values_are_not_shown() -> None:
    """They may hold what nobody should read; the database's own error is the cause."""
    error = sa_errors.DataError("INSERT secret", {"body": "hunter22"}, ValueError("hunter22"))
    with pytest.raises(StoreUnavailableError) as caught, translated():
        raise error
    assert "hunter22" not in str(caught.value)
    assert "INSERT" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_errors_of_others_are_left_alone() -> None:
    """A bug stays a bug, and our own errors stay what they are."""
    for error in (KeyError("bug"), StoreLockedError("ours")):
        with pytest.raises(type(error)) as caught, translated():
            raise error
        assert caught.value is error

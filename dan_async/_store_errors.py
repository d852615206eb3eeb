"""Errors of session stores; import them from ``dan_async.errors``, which draws the tree."""

from __future__ import annotations

from dan_async._error_base import DanError

__all__ = [
    "RecordConflictError",
    "SessionFailedError",
    "SessionPendingError",
    "StoreClockError",
    "StoreCorruptedError",
    "StoreError",
    "StoreKeyError",
    "StoreLockedError",
    "StoreSchemaError",
    "StoreTamperedError",
    "StoreUnavailableError",
]


class StoreError(DanError):
    """A session store did not do what it was asked. Nothing that it had reported as saved is lost."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, opened or written to: a full disk, a read-only file. Nothing was changed."""

    is_retryable = True


class StoreLockedError(StoreUnavailableError, TimeoutError):
    """Somebody else kept the store locked for longer than the store waits. Nothing was changed."""


class StoreCorruptedError(StoreError):
    """The store's file is damaged, or is no store."""


class StoreSchemaError(StoreError):
    """The store was made by another version of the package, and its schema is not the one that this version reads."""


class StoreKeyError(StoreError):
    """There is no encryption key, or it is not the one that a record was encrypted with."""


class StoreTamperedError(StoreError):
    """A record is not what was stored: it was changed, or put in another one's place. It is withheld."""


class StoreClockError(StoreError):
    """The clock is behind what is stored: it was set back, and nothing can be called expired by it."""


class RecordConflictError(StoreError):
    """The record, or its reference, exists already; or it is in another state than expected. Nothing was changed."""


class SessionPendingError(DanError):
    """It is not known what came of an earlier attempt, so no second one is made."""

    is_retryable = True


class SessionFailedError(DanError):
    """An earlier attempt failed, and it was not asked for a new one. There is no key."""

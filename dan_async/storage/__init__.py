"""
Stores of sessions: each request for a key, the session that came of it, and the ephemeral key that uses it.

``MemorySessionStore`` forgets with the process. ``dan_async.storage.sqlalchemy_store.SQLAlchemyStore`` (extra ``storage``)
keeps encrypted records in SQLite or PostgreSQL.
"""

from __future__ import annotations

from dan_async.storage.base import (
    KeygenIntent,
    MemorySessionStore,
    Page,
    SessionFilter,
    SessionState,
    SessionStore,
    StoredSession,
)
from dan_async.storage.keys import (
    CallbackKeys,
    FixedKeys,
    KeySource,
    PassphraseKeys,
    StoreKey,
    keys_from_environment,
    keys_from_file,
)

__all__ = [
    "CallbackKeys",
    "FixedKeys",
    "KeySource",
    "KeygenIntent",
    "MemorySessionStore",
    "Page",
    "PassphraseKeys",
    "SessionFilter",
    "SessionState",
    "SessionStore",
    "StoreKey",
    "StoredSession",
    "keys_from_environment",
    "keys_from_file",
]

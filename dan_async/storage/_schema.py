"""The tables, and the versions of their schema."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = ["HEAD", "REVISIONS", "VERSION_TABLE", "metadata", "sessions"]

#: Every version of the schema, oldest first; migrations/versions has a file for each.
REVISIONS = ("0001",)
HEAD = REVISIONS[-1]
VERSION_TABLE = "dan_schema"

metadata = sa.MetaData()

#: Times are Unix seconds (expires_at) and milliseconds (created_at, updated_at).
sessions = sa.Table(
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

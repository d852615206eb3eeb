"""Bringing a database's schema to this version of the package."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from dan_async.errors import StoreSchemaError
from dan_async.storage._schema import HEAD, REVISIONS, VERSION_TABLE

__all__ = ["bring_up_to_date", "found_revision"]

#: Any number that nothing else uses: two programs that start at once must not both make the tables.
_ADVISORY_LOCK = 7_310_021_455_871


def found_revision(connection: sa.Connection) -> str | None:
    """Give the version of the schema, or None if there is none yet."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    found = connection.execute(sa.select(table.c.version_num)).scalar_one_or_none()
    return None if found is None else str(found)


def bring_up_to_date(connection: sa.Connection, *, allowed: bool) -> None:
    """
    Look at the schema, and migrate it if it is older. Runs in the caller's transaction: all of it, or nothing.

    Args:
        connection: Where.
        allowed: Whether it may be changed.

    Raises:
        StoreSchemaError: The schema is newer than this package, or older and must not be changed.
    """
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

"""The URLs of databases, as people write them."""

from __future__ import annotations

import sqlalchemy as sa

from dan_async.errors import InvalidFieldError

__all__ = ["parse_url"]

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


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

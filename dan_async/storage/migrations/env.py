"""Run by Alembic: the migrations, on the store's own connection and in its transaction."""

from __future__ import annotations

from alembic import context

from dan_async.storage.database import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a table by making a new one
    transactional_ddl=True,
)

with context.begin_transaction():
    context.run_migrations()

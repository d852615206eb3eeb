"""The table of sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"

down_revision = None

branch_labels = None

depends_on = None


def upgrade() -> None:
    """Make the table and its indexes."""
    op.create_table(
        "dan_sessions",
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
    )
    op.create_index("dan_sessions_reference", "dan_sessions", ["reference"], unique=True)
    op.create_index("dan_sessions_place", "dan_sessions", ["created_at", "record_id"])
    op.create_index("dan_sessions_owner", "dan_sessions", ["owner", "created_at", "record_id"])
    op.create_index("dan_sessions_state", "dan_sessions", ["state", "created_at", "record_id"])
    op.create_index("dan_sessions_expiry", "dan_sessions", ["expires_at"])
    op.create_index("dan_sessions_changed", "dan_sessions", ["updated_at"])


def downgrade() -> None:
    """Drop the table, with everything in it."""
    op.drop_table("dan_sessions")

"""How stored sessions are shown: secrets masked unless they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from dan_async.storage.record import StoredSession

__all__ = ["as_lines", "as_members", "masked_session"]

_MASK = "***"
_SECRET = "hexEphSKWithout0x"  # noqa: S105 - the field's name, not its value


def masked_session(fields: dict[str, Any]) -> dict[str, Any]:
    """Give a session's fields with the ephemeral private key masked."""
    return fields | {_SECRET: _MASK}


def as_members(record: StoredSession, *, reveal: bool) -> dict[str, Any]:
    """Give a record as JSON members, camelCase as in the payload."""
    session = None if record.session is None else record.session.to_dict(extended=True)
    intent = record.intent
    return {
        "id": record.record_id,
        "reference": record.reference,
        "state": record.state,
        "owner": record.owner,
        "chainId": record.chain_id,
        "createdAt": record.created_at // 1000,
        "updatedAt": record.updated_at // 1000,
        "expiresAt": record.expires_at,
        "permissions": None if intent is None else intent.permissions,
        "keyLabel": None if intent is None else intent.key_label,
        "problem": record.problem,
        "session": session if session is None or reveal else masked_session(session),
    }


def as_lines(records: Iterable[StoredSession]) -> list[str]:
    """Give a table, as wide as the terminal, or as wide as it needs to be elsewhere."""
    table = Table(box=None, pad_edge=False)
    for title in ("State", "Session key", "Owner", "Chain", "Expires", "Reference", "Id"):
        table.add_column(title, overflow="fold" if title in ("Reference", "Id") else "ellipsis")
    for record in records:
        moment = datetime.fromtimestamp(min(record.expires_at, 253_402_300_799), tz=UTC)
        table.add_row(
            record.state,
            "" if record.session is None else record.session.session_key_eoa,
            record.owner,
            str(record.chain_id),
            moment.strftime("%Y-%m-%d %H:%M:%S"),
            record.reference or "",
            record.record_id,
        )
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, markup=False, width=300)
    with console.capture() as text:
        console.print(table)
    return [line.rstrip() for line in text.get().rstrip("\n").split("\n")]

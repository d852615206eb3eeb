"""How a session is shown to a person."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from dan_async.cli.screen import note, result
from dan_async.models.session import DanSessionKeyPayload

__all__ = ["as_table", "masked"]

_SECRET = "hexEphSKWithout0x"  # noqa: S105 - the field's name, not its value
_MASK = "***"


def masked(fields: dict[str, Any]) -> dict[str, Any]:
    """Give the seed's fields with the ephemeral private key masked, in the same order."""
    return fields | {_SECRET: _MASK}


def as_table(session: DanSessionKeyPayload, *, reveal: bool, kept: bool) -> None:
    """
    Print a table on standard output.

    Args:
        session: What to show.
        reveal: Whether to show the ephemeral private key.
        kept: Whether the session has been written to a file.
    """
    expires = session.expires_at
    rows = {
        "Session key address": session.session_key_eoa,
        "MPC key id": session.mpc_key_id,
        "Ephemeral private key": session.hex_eph_sk_without_0x if reveal else _MASK,
        "Threshold": f"{session.threshold}-of-{session.parties_number}",
        "Owner": session.eoa_address,
        "Chain id": str(session.chain_id),
    }
    if expires is not None:
        rows["Expires"] = datetime.fromtimestamp(expires, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    width = max(map(len, rows)) + 2
    console = Console(file=sys.stdout, highlight=False)
    with console.capture() as table:
        for label, value in rows.items():
            console.print(
                Text(label.ljust(width), style="bold") + Text(value, style="not bold"), soft_wrap=True
            )
    result(table.get().rstrip("\n"))
    if not reveal and not kept:
        note(
            "The ephemeral private key is masked and kept nowhere: --output FILE or --json keeps the session."
        )

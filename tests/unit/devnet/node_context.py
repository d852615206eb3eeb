"""A node's context, for tests of its parts."""

from __future__ import annotations

from typing import Any

from dan_async.devnet.context import NodeContext, NodeIdentity, NodeLimits, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.share_store import BanList, MemoryShareStore
from tests.helpers import ManualClock


def node_context(**given: Any) -> NodeContext:
    """Return a context whose threads start when they are first used; what is given replaces a part of it."""
    parts = {
        "identity": NodeIdentity.from_hex("01" * 32),
        "limits": NodeLimits(),
        "workers": Workers(),
        "faults": NodeFaults(),
        "store": MemoryShareStore(),
        "bans": BanList(),
        "clock": ManualClock(),
        "on_crash": lambda _: None,
    }
    return NodeContext(**{**parts, **given})

"""Letting a node that has rested prove itself, beside work that does not need it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from dan_async._tasks import Deadline, cancel_and_wait
from dan_async.errors import DanError
from dan_async.networks.node import Node
from dan_async.networks.pool import rank

__all__ = ["probing"]

_log = logging.getLogger(__name__)


@asynccontextmanager
async def probing(spares: Iterable[Node], *, deadline: Deadline) -> AsyncIterator[None]:
    """
    Probe one of the nodes whose rest is over while the block runs, if there is one.

    A node that failed is ranked behind those that did not. In a pool with enough of them it would never be asked again, so
    it is asked how it is on the side: no seat and no time is spent on it, and with the block the probe ends as well.

    Args:
        spares: The nodes that the block does not ask.
        deadline: The job's deadline.
    """
    due = next((node for node in rank(spares) if node.health.is_due), None)
    tasks = [] if due is None else [asyncio.create_task(_probe(due, deadline), name="dan-probe")]
    try:
        yield
    finally:
        await cancel_and_wait(tasks)


async def _probe(node: Node, deadline: Deadline) -> None:
    if not node.health.is_due:  # somebody else was faster: one probe at a time
        return
    try:
        await node.look(deadline=deadline)
    except DanError as error:
        _log.info("node %s still rests: %s", node.operator, error.message)

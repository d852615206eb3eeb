"""Which nodes take part: the healthiest first, and a spare for each that does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TypeVar

from dan_async._tasks import cancel_and_wait
from dan_async.errors import DanError
from dan_async.models.outcome import NodeOutcome
from dan_async.networks.node import Node
from dan_async.types import OperatorAddress

__all__ = ["fill_seats", "rank"]

T = TypeVar("T")


def rank(nodes: Iterable[Node], *, without: Collection[OperatorAddress] = ()) -> list[Node]:
    """Give the nodes, healthiest first; ties keep the order in which they were given."""
    return sorted((node for node in nodes if node.operator not in without), key=lambda node: node.health.rank)


async def fill_seats(
    candidates: Sequence[Node], seats: int, ask: Callable[[Node], Awaitable[T]]
) -> tuple[dict[OperatorAddress, T], list[NodeOutcome]]:
    """
    Ask as many nodes as there are seats, all at once; where one fails, ask the next candidate in its place.

    Args:
        candidates: The nodes, best first.
        seats: How many answers are wanted.
        ask: Asks one node; raises a DanError if it fails.

    Returns:
        The answers by operator (fewer than *seats* if the candidates ran out), and the outcomes of those that failed.
    """
    waiting = iter(candidates)
    answers: dict[OperatorAddress, T] = {}
    failures: list[NodeOutcome] = []

    async def seat() -> None:
        for node in waiting:
            try:
                answers[node.operator] = await ask(node)
            except DanError as error:
                failures.append(
                    NodeOutcome(operator=node.operator, error=error, attempts=error.attempts or 1)
                )
            else:
                return

    tasks = [asyncio.create_task(seat()) for _ in range(min(seats, len(candidates)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(tasks)
    return answers, failures

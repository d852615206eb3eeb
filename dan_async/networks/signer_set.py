"""One set of t nodes that are asked together, and how long that usually takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from attrs import define, field

from dan_async._tasks import cancel_and_wait
from dan_async.errors import ClientClosedError, DanError
from dan_async.networks.node import Node
from dan_async.types import OperatorAddress

__all__ = ["Lateness", "Run", "SetFailedError", "ask_set"]

T = TypeVar("T")

#: How long the others are listened to after one node of a set has failed, in seconds: their reasons may be the same.
_GRACE_S = 0.05

#: A node that was late is asked last for this long, in seconds.
_LATE_S = 60.0

#: Weight of the newest time in the moving average of a step; how many times that is late; bounds of it, in seconds.
_NEWEST = 0.2
_TIMES = 4.0
_LEAST_S, _MOST_S = 0.1, 10.0

#: What counts as late before anything is known, in seconds. A pair of nodes that meet for the first time has work to do.
_UNKNOWN_S = {"presign": 0.75, "sign": 0.5}


class SetFailedError(DanError):
    """
    A set of signers made no signature.

    Args:
        failures: What each node that failed did.
        suspects: Nodes to leave out if others can be had.
    """

    def __init__(
        self, failures: dict[OperatorAddress, DanError], suspects: Iterable[OperatorAddress] = ()
    ) -> None:
        super().__init__("the signers made no signature", phase="signing")
        self.failures = failures
        self.suspects = tuple(suspects)


@define
class Lateness:
    """
    How long each step usually takes, and which nodes were late.

    Args:
        clock: Monotonic seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _usual_s: dict[str, float] = field(factory=dict, init=False)
    _late: dict[OperatorAddress, float] = field(factory=dict, init=False)

    def took(self, step: str, seconds: float) -> None:
        """Note that all t nodes took so long."""
        old = self._usual_s.get(step)
        self._usual_s[step] = seconds if old is None else old + _NEWEST * (seconds - old)

    def limit_s(self, step: str) -> float:
        """Give the seconds after which a step is late."""
        usual = self._usual_s.get(step)
        if usual is None:
            return _UNKNOWN_S.get(step, _LEAST_S)
        return min(_MOST_S, max(_LEAST_S, _TIMES * usual))

    def was_late(self, operator: OperatorAddress) -> None:
        """Note that a node did not answer in time."""
        self._late[operator] = self.clock() + _LATE_S

    def is_late(self, operator: OperatorAddress) -> bool:
        """Whether a node was late not long ago."""
        return self._late.get(operator, 0.0) > self.clock()


@define(eq=False)
class Run:
    """
    One set at work.

    Args:
        signers: The nodes, ascending.
        waiting: Who has not answered the step that is under way.
        step: That step.
        since: When it began, in the race's monotonic seconds.
    """

    signers: tuple[Node, ...]
    clock: Callable[[], float]
    waiting: set[OperatorAddress] = field(factory=set)
    step: str = "presign"
    since: float = 0.0
    is_hedged: bool = False

    def begin(self, step: str) -> None:
        """Note that a step begins, in which all signers are asked."""
        self.step, self.since = step, self.clock()
        self.waiting = {node.operator for node in self.signers}
        self.is_hedged = False


async def ask_set(
    run: Run, step: str, ask: Callable[[Node], Awaitable[T]], *, lateness: Lateness
) -> dict[OperatorAddress, T]:
    """
    Ask all signers of a set at once.

    Args:
        run: The set.
        step: What this is, for the lateness.
        ask: Asks one node; raises a DanError if it fails.
        lateness: Told how long it took.

    Returns:
        Every signer's answer.

    Raises:
        SetFailedError: One failed; it has what each of those who failed said.
    """
    run.begin(step)

    async def one(node: Node) -> T:
        answer = await ask(node)
        run.waiting.discard(node.operator)
        return answer

    tasks = {
        asyncio.create_task(one(node), name=f"dan-{step}-{node.operator}"): node.operator
        for node in run.signers
    }
    try:
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if pending:
            await asyncio.wait(pending, timeout=_GRACE_S)
    finally:
        await cancel_and_wait(tasks)
    failures: dict[OperatorAddress, DanError] = {}
    for task, operator in tasks.items():
        error = None if task.cancelled() else task.exception()
        if isinstance(error, DanError) and not isinstance(error, ClientClosedError):
            failures[operator] = error
        elif error is not None:
            raise error
    if failures or any(task.cancelled() for task in tasks):
        raise SetFailedError(failures)
    lateness.took(step, run.clock() - run.since)
    return {operator: task.result() for task, operator in tasks.items()}

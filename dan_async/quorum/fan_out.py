"""Ask many nodes at once, and stop as soon as the verdict is clear."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from attrs import define, frozen

from dan_async._tasks import Deadline, cancel_and_wait
from dan_async.errors import DanError
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.models.outcome import NodeOutcome
from dan_async.quorum.tally import KeygenTally
from dan_async.types import OperatorAddress

__all__ = ["Answer", "fan_out"]

_log = logging.getLogger(__name__)


@frozen
class Answer:
    """A node's acknowledgement and how many attempts it took to get it."""

    acknowledgement: Acknowledgement
    attempts: int = 1


@define
class _Progress:
    """What the asking tasks tell the one that waits for them."""

    unfinished: int
    clear: asyncio.Event
    finished: asyncio.Event
    crash: Exception | None = None


async def fan_out(
    operators: Sequence[OperatorAddress],
    ask: Callable[[OperatorAddress], Awaitable[Answer]],
    *,
    tally: KeygenTally,
    deadline: Deadline,
    grace_s: float,
) -> tuple[NodeOutcome, ...]:
    """
    Ask every node concurrently and feed the tally until t agree, or until t cannot agree any more.

    When t agree, the others are listened to for *grace_s* longer, so that the caller learns how many hold a share; then
    they are cancelled. Cancelled requests are safe: a node that did its work repeats its answer when asked again.

    Args:
        operators: The nodes.
        ask: Asks one node; raises a DanError if it fails for good.
        tally: Counts; on return it has the verdict.
        deadline: Nothing is waited for beyond it.
        grace_s: Seconds to listen on after the verdict is won.

    Returns:
        One outcome for each node, in the order of *operators*; what was cut off has neither acknowledgement nor error.
    """
    started = time.monotonic()
    outcomes: dict[OperatorAddress, NodeOutcome] = {}
    progress = _Progress(len(operators), asyncio.Event(), asyncio.Event())

    async def one(operator: OperatorAddress) -> None:
        answer: Answer | None = None
        try:
            answer = await ask(operator)
            tally.record(operator, answer.acknowledgement)
            outcome = NodeOutcome(
                operator=operator,
                acknowledgement=answer.acknowledgement,
                attempts=answer.attempts,
                elapsed_s=time.monotonic() - started,
            )
        except DanError as error:
            tally.record_failure(operator)
            attempts = answer.attempts if answer else error.attempts or 1
            outcome = NodeOutcome(
                operator=operator, error=error, attempts=attempts, elapsed_s=time.monotonic() - started
            )
            _log.warning("request %s: %s", error.request_id, outcome.describe())
        except Exception as error:  # noqa: BLE001 - a bug of ours ends the wait, and is raised there
            progress.crash = error
            progress.clear.set()
            return
        outcomes[operator] = outcome
        progress.unfinished -= 1
        if not progress.unfinished:
            progress.finished.set()
        if tally.is_won or tally.is_lost:
            progress.clear.set()

    tasks = [asyncio.create_task(one(operator), name=f"dan-ask-{operator}") for operator in operators]
    try:
        await _wait(progress.clear, deadline.remaining())
        if progress.crash is None and tally.is_won:
            await _wait(progress.finished, deadline.cap(grace_s))
    finally:
        await cancel_and_wait(tasks)
    if progress.crash is not None:
        raise progress.crash
    elapsed = time.monotonic() - started
    return tuple(outcomes.get(o) or NodeOutcome(operator=o, elapsed_s=elapsed) for o in operators)


async def _wait(event: asyncio.Event, timeout_s: float | None) -> None:
    """Wait for the event, or for the time to pass; the caller looks at which it was."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass

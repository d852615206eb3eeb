"""Ask many nodes at once, and stop as soon as the verdict is clear."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from attrs import define

from dan_async._request_log import RequestLog
from dan_async._tasks import Deadline, cancel_and_wait, wait_for_event
from dan_async.errors import DanError, NodeOutcome, NodeRefusedError
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.quorum.tally import KeygenTally
from dan_async.retry import Tries
from dan_async.types import OperatorAddress

__all__ = ["fan_out", "grace"]

_log = logging.getLogger(__name__)


#: Without a grace of the caller's own: this part of the time that it took until t nodes agreed, within these bounds, in
#: seconds. A tenth keeps a call with a stalled node about as fast as one without.
_GRACE_PART = 0.1
_LEAST_GRACE_S = 0.002
_MOST_GRACE_S = 0.05

#: When t cannot agree any more and a node blames another: how long to listen to what the rest say of it, in seconds.
_BLAME_S = 0.25


def grace(agreed_after_s: float, grace_s: float | None = None) -> float:
    """
    Give how long to listen for the other nodes once t agree, in seconds.

    Args:
        agreed_after_s: How long it took until t agreed.
        grace_s: What the caller wants; None for a tenth of that time, at least 2 ms and at most 50 ms.
    """
    if grace_s is not None:
        return grace_s
    return min(_MOST_GRACE_S, max(_LEAST_GRACE_S, _GRACE_PART * agreed_after_s))


def _accused(outcomes: Mapping[OperatorAddress, NodeOutcome[Acknowledgement]]) -> set[str]:
    """Give whom any node blames."""
    refusals = (o.error for o in outcomes.values() if isinstance(o.error, NodeRefusedError))
    return {culprit for refusal in refusals for culprit in refusal.culprits}


@define
class _Progress:
    """What the asking tasks tell the one that waits for them."""

    clear: asyncio.Event
    finished: asyncio.Event
    crash: Exception | None = None


async def fan_out(
    operators: Sequence[OperatorAddress],
    ask: Callable[[OperatorAddress, Tries], Awaitable[Acknowledgement]],
    *,
    tally: KeygenTally,
    deadline: Deadline,
    grace_s: float | None = None,
    step: str = "keygen",
    laggards: Collection[OperatorAddress] = (),
) -> tuple[NodeOutcome[Acknowledgement], ...]:
    """
    Ask every node concurrently and feed the tally until t agree, or until t cannot agree any more.

    When t agree, the others are listened to for a moment longer (see ``grace``), so that the caller learns how many hold a
    share; then they are cancelled. That is safe: a node that did its work repeats its answer when asked again. When t cannot
    agree any more, the moment is 50 ms: whom the other nodes blame is worth knowing. Where a node does blame another, those
    that nobody blames have 250 ms to say whom they do.

    Args:
        operators: The nodes.
        ask: Asks one node, counting its attempts; raises a DanError if it fails for good.
        tally: Counts; on return it has the verdict.
        deadline: Nothing is waited for beyond it.
        grace_s: Seconds to listen on after the verdict is won; None for a short time that depends on how long it took.
        step: The step of the job, for the outcomes.
        laggards: Nodes that are not listened to after the verdict is won: they were late the last times as well.

    Returns:
        One outcome for each node, in the order of *operators*; what was cut off has neither acknowledgement nor error.
    """
    started = time.monotonic()
    outcomes: dict[OperatorAddress, NodeOutcome[Acknowledgement]] = {}
    tries = {operator: Tries() for operator in operators}
    progress = _Progress(asyncio.Event(), asyncio.Event())

    def outcome_of(operator: OperatorAddress, **what: Any) -> NodeOutcome[Acknowledgement]:
        return NodeOutcome(
            operator=operator,
            attempts=max(1, tries[operator].made),
            elapsed_s=time.monotonic() - started,
            step=step,
            **what,
        )

    def awaited() -> set[OperatorAddress]:
        return {operator for operator in operators if operator not in outcomes}

    async def one(operator: OperatorAddress) -> None:
        try:
            acknowledgement = await ask(operator, tries[operator])
            tally.record(operator, acknowledgement)
            outcome = outcome_of(operator, answer=acknowledgement, said=acknowledgement.summary)
        except DanError as error:
            tally.record_failure(operator)
            outcome = outcome_of(operator, error=error)
            RequestLog(_log, error.request_id).warning("%s", outcome.describe())
        except Exception as error:  # noqa: BLE001 - a bug of ours ends the wait, and is raised there
            progress.crash = error
            progress.clear.set()
            return
        outcomes[operator] = outcome
        if tally.is_won or tally.is_lost:
            progress.clear.set()
            spared = laggards if tally.is_won else _accused(outcomes)
            if awaited().issubset(spared):
                progress.finished.set()

    tasks = [asyncio.create_task(one(operator), name=f"dan-ask-{operator}") for operator in operators]
    try:
        await wait_for_event(progress.clear, deadline.remaining())
        if progress.crash is None:
            # If t cannot agree: who is to blame shows in what the others say, and they say it at about the same time.
            lost_s = _BLAME_S if _accused(outcomes) else _MOST_GRACE_S
            wait_s = grace(time.monotonic() - started, grace_s) if tally.is_won else lost_s
            await wait_for_event(progress.finished, deadline.cap(wait_s))
    finally:
        await cancel_and_wait(tasks)
    if progress.crash is not None:
        raise progress.crash
    return tuple(outcomes.get(operator) or outcome_of(operator) for operator in operators)

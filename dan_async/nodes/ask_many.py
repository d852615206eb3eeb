"""
Which nodes take part: the healthiest first, and a spare for each that fails or is late.

Ask many nodes at once, and stop as soon as the verdict is clear.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import define, field

from dan_async.deadline import Deadline, cancel_and_wait, wait_for_event
from dan_async.errors import DanError, NodeOutcome, NodeRefusedError
from dan_async.events import RequestLog
from dan_async.nodes.health import N
from dan_async.nodes.tally import KeygenTally
from dan_async.protocols.node_claims import Acknowledgement
from dan_async.retry import Tries
from dan_async.types import OperatorAddress

T = TypeVar("T")


@define
class Seats(Generic[T]):
    """
    What came of asking for n answers.

    Args:
        answers: The answers by operator, in the order in which they came; never more than seats.
        outcomes: What every node that was asked did.
    """

    answers: dict[OperatorAddress, T] = field(factory=dict)
    outcomes: list[NodeOutcome[Any]] = field(factory=list)


async def fill_seats(
    candidates: Sequence[N],
    seats: int,
    ask: Callable[[N, Tries], Awaitable[T]],
    *,
    step: str = "",
    hedge_s: float | None = None,
    least: int | None = None,
    patience_s: float | None = None,
) -> Seats[T]:
    """
    Ask as many nodes as there are seats, all at once; where one fails or is late, ask the next candidate as well.

    A node that fails is replaced at once. One that has not answered after *hedge_s* is raced against a spare: whichever
    answers first has the seat. Who is late when every seat is taken is not waited for.

    Args:
        candidates: The nodes, best first.
        seats: How many answers are wanted.
        ask: Asks one node, counting its attempts; raises a DanError if it fails.
        step: The step of the job, for the outcomes.
        hedge_s: Seconds after which a node counts as late; None for never.
        least: How many answers will do if the candidates run out; *seats* if None.
        patience_s: Seconds after which *least* answers are taken and the rest are given up; None for never.

    Returns:
        The answers (fewer than *seats* if the candidates ran out) and every asked node's outcome.
    """
    race = _Race(
        waiting=iter(candidates),
        seats=seats,
        least=seats if least is None else least,
        ask=ask,
        step=step,
        hedge_s=hedge_s,
        patience_s=patience_s,
    )
    try:
        await race.run()
    finally:
        await cancel_and_wait(race.tasks)
    return race.result()


@define(eq=False)
class _Question(Generic[N]):
    node: N
    started: float
    tries: Tries = field(factory=Tries)
    is_late: bool = False
    outcome: NodeOutcome[Any] | None = None


@define(eq=False, kw_only=True)
class _Race(Generic[N, T]):
    """One call of ``fill_seats``: the tasks that ask settle their questions; the caller only waits and looks at the time."""

    waiting: Iterator[N]
    seats: int
    least: int
    ask: Callable[[N, Tries], Awaitable[T]]
    step: str
    hedge_s: float | None
    patience_s: float | None
    tasks: list[asyncio.Task[None]] = field(factory=list, init=False)
    _questions: list[_Question[N]] = field(factory=list, init=False)
    _open: int = field(default=0, init=False)
    _late: int = field(default=0, init=False)
    _answers: dict[OperatorAddress, T] = field(factory=dict, init=False)
    _over: asyncio.Event = field(factory=asyncio.Event, init=False)
    _is_patient: bool = field(default=True, init=False)
    _crash: Exception | None = field(default=None, init=False)

    async def run(self) -> None:
        self._ask_for_free_seats()
        ends = None if self.patience_s is None else time.monotonic() + self.patience_s
        while not self._over.is_set():
            limits = [] if ends is None or not self._is_patient else [ends]
            if self.hedge_s is not None:
                limits += [q.started + self.hedge_s for q in self._questions if not (q.outcome or q.is_late)]
            await wait_for_event(self._over, max(0.0, min(limits) - time.monotonic()) if limits else None)
            self._look_at_the_time(ends)
        if self._crash is not None:
            raise self._crash

    def _look_at_the_time(self, ends: float | None) -> None:
        now = time.monotonic()
        self._is_patient = ends is None or now < ends
        for question in self._questions:
            if self.hedge_s is not None and not (question.outcome or question.is_late):
                question.is_late = now >= question.started + self.hedge_s
                self._late += question.is_late
        self._ask_for_free_seats()

    def _ask_for_free_seats(self) -> None:
        """Let there be a question that is not late for each seat that is free, and see whether it is over."""
        answered = len(self._answers)
        for _ in range(self.seats - answered - (self._open - self._late)):
            node = next(self.waiting, None)
            if node is None:
                break
            question = _Question(node, time.monotonic())
            self._questions.append(question)
            self._open += 1
            self.tasks.append(asyncio.create_task(self._settle(question), name=f"dan-ask-{node.operator}"))
        if answered >= self.seats or not self._open or (answered >= self.least and not self._is_patient):
            self._over.set()

    async def _settle(self, question: _Question[N]) -> None:
        try:
            answer = await self.ask(question.node, question.tries)
        except DanError as error:
            question.outcome = self._outcome(question, error=error)
        except Exception as error:  # noqa: BLE001 - a bug of ours ends the wait, and is raised there
            self._crash = error
            self._over.set()
            return
        else:
            question.outcome = self._outcome(question, answer=answer)
            if len(self._answers) < self.seats:
                self._answers[question.node.operator] = answer
        self._open -= 1
        self._late -= question.is_late
        if not self._over.is_set():
            self._ask_for_free_seats()

    def _outcome(self, question: _Question[N], **what: Any) -> NodeOutcome[Any]:
        return NodeOutcome(
            operator=question.node.operator,
            attempts=max(1, question.tries.made),
            elapsed_s=time.monotonic() - question.started,
            step=self.step,
            **what,
        )

    def result(self) -> Seats[T]:
        outcomes = [question.outcome or self._outcome(question) for question in self._questions]
        return Seats(self._answers, outcomes)


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

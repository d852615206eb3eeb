"""Which nodes take part: the healthiest first, and a spare for each that fails or is late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field

from dan_async._tasks import cancel_and_wait, wait_for_event
from dan_async.errors import DanError, NodeOutcome
from dan_async.networks.node_health import HealthRecord
from dan_async.retry import Tries
from dan_async.types import OperatorAddress

__all__ = ["Pooled", "Seats", "fastest", "fill_seats", "rank"]


class Pooled(Protocol):
    """What selection needs to know of a node."""

    @property
    def operator(self) -> OperatorAddress:
        """Its operator address."""
        ...

    @property
    def health(self) -> HealthRecord:
        """How it has been doing."""
        ...


N = TypeVar("N", bound=Pooled)
T = TypeVar("T")


def rank(nodes: Iterable[N], *, without: Collection[OperatorAddress] = ()) -> list[N]:
    """
    Give the nodes, healthiest first; ties keep the order in which they were given.

    Live nodes come first, the fastest of them in front; then those whose rest is over; then those that rest. None is left
    out for its health, so that a pool in which every node failed still yields nodes.

    Args:
        nodes: The pool.
        without: Operators to leave out.
    """
    return sorted((node for node in nodes if node.operator not in without), key=lambda node: node.health.rank)


def fastest(nodes: Iterable[N], count: int, *, without: Collection[OperatorAddress] = ()) -> list[N]:
    """Give the *count* nodes that are likely to answer first, best first; fewer if there are no more. See ``rank``."""
    return rank(nodes, without=without)[:count]


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

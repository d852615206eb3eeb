"""
Asking many nodes at once: the one engine under every job.

As many questions are open as there are seats to fill. A node that fails is replaced at once; one that is late is raced by
the next candidate, and may still win. It ends as soon as more answers would change nothing, and whoever is still being
asked then is listened to for a moment, if the plan says so, and cut off.

The engine knows no node, counts no votes and keeps no record of anybody's health. How one node is asked is a function of
the caller's; how many answers are wanted, and when they are enough, is the ``Plan``'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field, frozen

from dan_async.deadline import Deadline, cancel_and_wait, wait_for_event
from dan_async.errors import DanError, NodeOutcome
from dan_async.retry import Tries
from dan_async.types import OperatorAddress


class Askable(Protocol):
    """A node, as far as the engine knows it."""

    @property
    def operator(self) -> OperatorAddress:
        """The name under which its answer is reported."""
        ...


N = TypeVar("N", bound=Askable)

A = TypeVar("A")


@define(eq=False)
class Answers(Generic[A]):
    """
    What has come of asking: while it goes on, and in the end.

    Args:
        values: The answers, in the order in which they came; never more than there are seats.
        errors: Why those that failed did, in the order in which they did.
        outcomes: What became of every node that was asked, in the order of asking; complete in the end.
        elapsed_s: Seconds since the first question: until enough was known, and in the end until it was over.
    """

    values: dict[OperatorAddress, A] = field(factory=dict)
    errors: dict[OperatorAddress, DanError] = field(factory=dict)
    outcomes: list[NodeOutcome[A]] = field(factory=list)
    elapsed_s: float = 0.0

    @property
    def failures(self) -> list[NodeOutcome[A]]:
        """What became of the nodes that gave no answer, those that were cut off included."""
        return [outcome for outcome in self.outcomes if not outcome.is_success]


@frozen(kw_only=True)
class Plan(Generic[A]):
    """
    How many nodes to ask, and when it is over: here, as soon as every seat is filled.

    Args:
        seats: How many answers are wanted. So many questions are open at a time, besides those that are late.
        hedge_s: Seconds after which a node is late, and the next candidate is asked as well; None for never.
        least: How many answers will do when the patience is over; as many as there are seats if None.
        patience_s: Seconds until then; None for never.
    """

    seats: int
    hedge_s: float | None = None
    least: int | None = None
    patience_s: float | None = None

    # What plans with another end override. All of it is quick, and waits for nothing.

    def check(self, operator: OperatorAddress, answer: A) -> str:  # noqa: ARG002 - for those that override it
        """Return the answer in words; raise the DanError that says why, if it does not count."""
        return "ready"

    def is_settled(self, answers: Answers[A]) -> bool:
        """Whether more answers would change nothing; asked after each of them and after each failure."""
        return len(answers.values) >= self.seats

    def linger_s(self, answers: Answers[A]) -> float:  # noqa: ARG002 - for those that override it
        """How long to listen to the others when it is settled, in seconds."""
        return 0.0

    def spared(self, answers: Answers[A]) -> Collection[OperatorAddress]:  # noqa: ARG002 - as above
        """Nodes that are not waited for meanwhile, though they are heard if they speak."""
        return ()


async def ask_many(
    candidates: Sequence[N],
    ask: Callable[[N, Tries], Awaitable[A]],
    plan: Plan[A],
    *,
    step: str,
    deadline: Deadline,
) -> Answers[A]:
    """
    Ask nodes until it is clear what comes of it.

    Every question is a task of its own; all of them have ended on return, whichever way it is.

    Args:
        candidates: The nodes, best first.
        ask: Asks one node, counting its attempts; raises a DanError if it fails. Any other exception ends the asking.
        plan: How many, and when it is over.
        step: The step of the job, for the outcomes.
        deadline: Nothing is waited for beyond it.

    Returns:
        The answers, and an outcome for every node asked. One that was cut off has neither answer nor error.
    """
    asking = _Asking(iter(candidates), ask, plan, step, deadline, started=time.monotonic())
    try:
        await asking.run()
    finally:
        await cancel_and_wait(asking.tasks)
    return asking.result()


@define(eq=False)
class _Question(Generic[N, A]):
    node: N
    asked_at: float
    tries: Tries = field(factory=Tries)
    is_late: bool = False
    outcome: NodeOutcome[A] | None = None


@define(eq=False)
class _Asking(Generic[N, A]):
    """One call of ``ask_many``: the tasks settle their questions, and the caller only watches the time."""

    candidates: Iterator[N]
    ask: Callable[[N, Tries], Awaitable[A]]
    plan: Plan[A]
    step: str
    deadline: Deadline
    started: float
    tasks: list[asyncio.Task[None]] = field(factory=list, init=False)
    _answers: Answers[A] = field(factory=Answers, init=False)
    _questions: dict[OperatorAddress, _Question[N, A]] = field(factory=dict, init=False)
    _awaited: dict[OperatorAddress, _Question[N, A]] = field(factory=dict, init=False)
    _late: int = field(default=0, init=False)  # of those that are awaited
    _is_patient: bool = field(default=True, init=False)
    _settled: asyncio.Event = field(factory=asyncio.Event, init=False)  # enough is known
    _heard: asyncio.Event = field(factory=asyncio.Event, init=False)  # ... and nobody is left to listen to
    _crash: Exception | None = field(default=None, init=False)

    # --- the caller: time -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask until enough is known, and listen on for as long as the plan says."""
        self._fill_seats()
        while not await wait_for_event(self._settled, self._next_look_s()):
            self._look_at_the_time()
        self._answers.elapsed_s = time.monotonic() - self.started
        linger_s = self.plan.linger_s(self._answers) if self._awaited else 0.0
        if linger_s and not self._heard.is_set():
            await wait_for_event(self._heard, self.deadline.cap(linger_s))

    def result(self) -> Answers[A]:
        """Return what came of it; raise what no question should have raised."""
        if self._crash is not None:
            raise self._crash
        self._answers.elapsed_s = time.monotonic() - self.started
        self._answers.outcomes = [q.outcome or self._outcome(q) for q in self._questions.values()]
        return self._answers

    def _next_look_s(self) -> float | None:
        """Return the seconds until something is due: a hedge, the end of the patience, the deadline."""
        now, plan = time.monotonic(), self.plan
        waits = []
        if plan.hedge_s is not None:
            waits += [q.asked_at + plan.hedge_s - now for q in self._awaited.values() if not q.is_late]
        if plan.patience_s is not None and self._is_patient:
            waits.append(self.started + plan.patience_s - now)
        return self.deadline.cap(max(0.0, min(waits)) if waits else None)

    def _look_at_the_time(self) -> None:
        if self.deadline.is_over:
            self._settled.set()
            return
        now, plan = time.monotonic(), self.plan
        for question in self._awaited.values():
            if plan.hedge_s is not None and not question.is_late and now >= question.asked_at + plan.hedge_s:
                question.is_late = True
                self._late += 1
        self._is_patient = plan.patience_s is None or now < self.started + plan.patience_s
        self._fill_seats()

    # --- the questions --------------------------------------------------------------------------------------------------

    def _fill_seats(self) -> None:
        """See whether it is settled; if not, let there be a question that is not late for each seat that is free."""
        plan, answered = self.plan, len(self._answers.values)
        if plan.is_settled(self._answers):
            self._settled.set()
            return
        for node in islice(self.candidates, plan.seats - answered - (len(self._awaited) - self._late)):
            question: _Question[N, A] = _Question(node, time.monotonic())
            self._questions[node.operator] = self._awaited[node.operator] = question
            self.tasks.append(asyncio.create_task(self._settle(question), name=f"dan-ask-{node.operator}"))
        least = plan.seats if plan.least is None else plan.least
        if not self._awaited or (answered >= least and not self._is_patient):
            self._settled.set()

    async def _settle(self, question: _Question[N, A]) -> None:
        """Ask one node, and act on what it says."""
        operator = question.node.operator
        try:
            answer = await self.ask(question.node, question.tries)
            said = self.plan.check(operator, answer)
        except DanError as error:
            self._answers.errors[operator] = error
            question.outcome = self._outcome(question, error=error)
        except Exception as error:  # noqa: BLE001 - a bug of ours ends the asking, and is raised there
            self._crash = error
            self._settled.set()
            self._heard.set()
            return
        else:
            question.outcome = self._outcome(question, answer=answer, said=said)
            if len(self._answers.values) < self.plan.seats:
                self._answers.values[operator] = answer
        del self._awaited[operator]
        self._late -= question.is_late
        if not self._settled.is_set():
            self._fill_seats()
        if self._settled.is_set() and self._awaited.keys() <= set(self.plan.spared(self._answers)):
            self._heard.set()

    def _outcome(self, question: _Question[N, A], **what: Any) -> NodeOutcome[A]:
        return NodeOutcome(
            operator=question.node.operator,
            attempts=max(1, question.tries.made),
            elapsed_s=time.monotonic() - question.asked_at,
            step=self.step,
            **what,
        )

"""
Sets of t nodes in a race for one signature: the fastest first, another when one fails or is late, the first result wins.

A signature needs all t of a set, so a single late node makes its whole set late; the set that follows goes without it. Each
step of one set is an ``ask_many``; the race between sets is of another shape, and stays here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from itertools import combinations, islice
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from dan_async.deadline import Deadline, cancel_and_wait, read_on
from dan_async.errors import (
    ClientClosedError,
    DanError,
    EphemeralKeyRefusedError,
    FailureKind,
    NodeCode,
    NodeOutcome,
    NodeRefusedError,
    NotPermittedError,
    QuorumError,
    failure_kind,
)
from dan_async.nodes.ask_many import Answers, Plan, ask_many
from dan_async.nodes.health import Lateness, rank
from dan_async.nodes.node import Node
from dan_async.retry import Tries
from dan_async.types import OperatorAddress

T = TypeVar("T")

#: How long the others are listened to after one node of a set has failed, in seconds: their reasons may be the same.
_LISTEN_S = 0.05

#: Sets that run at the same time, times that one set is tried, sets that are tried, and sets that are looked at to find one.
_MOST_AT_ONCE = 3
_MOST_TRIES_OF_ONE = 2
_MOST_TRIES = 16
_MOST_LOOKED_AT = 2000


# --- one set ----------------------------------------------------------------------------------------------------------


class SetFailedError(DanError):
    """A set of signers made no signature: the failure of each node that failed, and nodes to avoid if others are there."""

    def __init__(
        self, failures: dict[OperatorAddress, DanError], suspects: Iterable[OperatorAddress] = ()
    ) -> None:
        super().__init__("the signers made no signature", phase="signing")
        self.failures = failures
        self.suspects = tuple(suspects)


@define(eq=False)
class Run:
    """One set of signers at work."""

    signers: tuple[Node, ...]  # ascending
    lateness: Lateness
    operators: tuple[OperatorAddress, ...] = field(init=False)
    waiting: set[OperatorAddress] = field(factory=set)  # for these, in the step that is under way
    step: str = "presign"
    since: float = 0.0
    is_hedged: bool = False  # late, and another set runs besides

    def __attrs_post_init__(self) -> None:
        self.operators = tuple([node.operator for node in self.signers])

    def begin(self, step: str) -> None:
        """Note that a step begins, in which all signers are asked."""
        self.step, self.since = step, self.lateness.clock()
        self.waiting = set(self.operators)
        self.is_hedged = False

    @property
    def due(self) -> float:
        """When the step is late, by the clock of *lateness*."""
        return self.since + self.lateness.limit_s(self.step)


@frozen(kw_only=True)
class _AllOrNone(Plan[T]):
    """Over when all have answered, or the first has failed: then the others are listened to for a moment."""

    run: Run

    def check(self, operator: OperatorAddress, answer: T) -> str:  # noqa: ARG002 - checked when it was read
        self.run.waiting.discard(operator)
        return "ready"

    def is_settled(self, answers: Answers[T]) -> bool:
        return bool(answers.errors) or len(answers.values) == self.wanted

    def linger_s(self, answers: Answers[T]) -> float:  # noqa: ARG002 - only failures leave anybody to listen to
        return _LISTEN_S


async def ask_set(
    run: Run, step: str, ask: Callable[[Node, Tries], Awaitable[T]], *, deadline: Deadline
) -> dict[OperatorAddress, T]:
    """Take one step with all signers of a set and return every answer; raise a SetFailedError if any of them failed."""
    run.begin(step)
    plan: _AllOrNone[T] = _AllOrNone(wanted=len(run.signers), run=run)
    answers = await ask_many(run.signers, ask, plan, step=step, deadline=deadline)
    for error in answers.errors.values():
        if isinstance(error, ClientClosedError):
            raise error
    if len(answers.values) < len(run.signers):
        raise SetFailedError(answers.errors)
    run.lateness.took(step, run.lateness.clock() - run.since)
    return answers.values


# --- the race ---------------------------------------------------------------------------------------------------------


@define(eq=False)
class SignerRace(Generic[T]):
    """The race for one signature of t of the nodes, beginning with those that are preferred."""

    _nodes: Sequence[Node]
    _t: int
    #: Has one set sign. Raises a ``SetFailedError`` if the set cannot, and any other DanError to end the race.
    _attempt: Callable[[Run], Coroutine[Any, Any, T]]
    _lateness: Lateness = field(kw_only=True)
    _deadline: Deadline = field(kw_only=True)
    _preferred: Collection[OperatorAddress] = field(default=(), kw_only=True)
    _blame: Counter[OperatorAddress] = field(factory=Counter, init=False)
    _refused: dict[OperatorAddress, DanError] = field(factory=dict, init=False)
    _errors: dict[OperatorAddress, DanError] = field(factory=dict, init=False)
    _tries: Counter[frozenset[OperatorAddress]] = field(factory=Counter, init=False)
    _silent: set[OperatorAddress] = field(factory=set, init=False)
    _spoilt: bool = field(default=False, init=False)

    async def run(self) -> T:
        """Run it; see ``Network.signgen`` for what it raises."""
        running: dict[asyncio.Task[T], Run] = {}
        try:
            self._start(running)
            while running:
                done, _ = await asyncio.wait(
                    running, timeout=self._patience(running), return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    await read_on(lambda: any(task.done() for task in running), depth=3)
                    done = {task for task in running if task.done()}
                for task in done:
                    run = running.pop(task)
                    try:
                        result = task.result()
                    except SetFailedError as failure:
                        self._learn(run, failure)
                    else:
                        self._note_losers(run, running)
                        return result
                if self._deadline.is_over:
                    raise self._deadline.error("waiting for the nodes to sign", phase="signing")
                if done:
                    self._start(running)
                else:
                    self._hedge(running)
        finally:
            await cancel_and_wait(running)
        raise self._lost()

    @property
    def without_share(self) -> set[OperatorAddress]:
        """The nodes that said that they do not hold the key."""
        return {
            operator
            for operator, error in self._refused.items()
            if isinstance(error, NodeRefusedError) and error.code == NodeCode.UNKNOWN_KEY
        }

    # --- which set ----------------------------------------------------------------------------------------------------

    def _start(self, running: dict[asyncio.Task[T], Run]) -> None:
        signers = self._next_set(running)
        if signers is None:
            return
        run = Run(signers, self._lateness)
        self._tries[frozenset(run.operators)] += 1
        run.begin(run.step)
        running[asyncio.create_task(self._attempt(run), name="dan-sign")] = run

    def _next_set(self, running: dict[asyncio.Task[T], Run]) -> tuple[Node, ...] | None:
        if len(running) >= _MOST_AT_ONCE or self._tries.total() >= _MOST_TRIES:
            return None
        under_way = {frozenset(run.operators) for run in running.values()}
        ranked = [node for node in rank(self._nodes) if node.operator not in self._refused]
        ranked.sort(
            key=lambda node: (
                self._blame[node.operator],
                self._lateness.is_late(node.operator),
                node.operator not in self._preferred,
            )
        )
        again: tuple[Node, ...] | None = None
        for candidates in islice(combinations(ranked, self._t), _MOST_LOOKED_AT):
            names = frozenset([node.operator for node in candidates])
            if names in under_way:
                continue
            chosen = tuple(sorted(candidates, key=lambda node: node.operator.lower()))
            if not self._tries[names]:
                return chosen
            if again is None and self._tries[names] < _MOST_TRIES_OF_ONE and not names & self._silent:
                again = chosen
        return None if running else again

    # --- time ---------------------------------------------------------------------------------------------------------

    def _patience(self, running: dict[asyncio.Task[T], Run]) -> float | None:
        """Return the seconds until the next set is late, or the deadline is over."""
        due = [run.due for run in running.values() if not run.is_hedged]
        return self._deadline.cap(max(0.0, min(due) - self._lateness.clock()) if due else None)

    def _hedge(self, running: dict[asyncio.Task[T], Run]) -> None:
        """Where a step is late, note the nodes that keep it waiting, and let another set run besides."""
        now = self._lateness.clock()
        for run in [run for run in running.values() if not run.is_hedged and now >= run.due]:
            run.is_hedged = True
            self._blame.update(run.waiting)
            # Presignatures are made by all together, so everybody waits for the one that is late.
            if run.step == "sign" or len(run.waiting) < self._t:
                for operator in run.waiting:
                    self._lateness.was_late(operator)
            self._start(running)

    def _note_losers(self, winner: Run, running: dict[asyncio.Task[T], Run]) -> None:
        """Where one set won and an earlier one is late, note the nodes that only the late one waits for."""
        helpful = set(winner.operators)
        for run in running.values():
            if run.is_hedged:
                for operator in run.waiting - helpful:
                    self._lateness.was_late(operator)

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _learn(self, run: Run, failure: SetFailedError) -> None:
        self._spoilt = self._spoilt or not failure.failures
        for operator in failure.suspects:
            self._blame[operator] += 1
        known = set(run.operators)
        for operator, error in failure.failures.items():
            self._errors[operator] = error
            kind = failure_kind(error)
            if FailureKind.FINAL in kind:
                self._refused[operator] = error
            elif isinstance(error, NodeRefusedError) and error.code == NodeCode.SIGNING_FAILED:
                for culprit in known.intersection(error.culprits):
                    self._blame[OperatorAddress(culprit)] += 1
            elif FailureKind.BLAMELESS not in kind:
                self._blame[operator] += 1
                self._silent.add(operator)  # it was asked several times already

    def _lost(self) -> QuorumError:
        outcomes: list[NodeOutcome[object]] = [
            NodeOutcome(operator=o, error=e, attempts=e.attempts or 1) for o, e in self._errors.items()
        ]
        codes = Counter(e.code for e in self._refused.values() if isinstance(e, NodeRefusedError))
        commonest = codes.most_common(1)[0][0] if codes else None
        kind, hint = QuorumError, "The list says what each node answered; look at the network's health()"
        if commonest == NodeCode.EPHEMERAL_KEY_REFUSED:
            kind = EphemeralKeyRefusedError
            hint = "Make a new session, or add an ephemeral key to this one's key"
            problem = "the nodes refuse the session's ephemeral key: it is not registered, was revoked or has expired"
        elif commonest == NodeCode.NOT_PERMITTED:
            kind, hint = NotPermittedError, "The nodes say which rule it breaks; nothing was signed"
            problem = "the session's permissions do not allow this message"
        elif self._spoilt and not outcomes:
            problem = "the nodes' shares make no signature of the key"
        else:
            problem = f"no {self._t} nodes signed together"
        return kind(
            problem,
            hint=hint,
            threshold=self._t,
            outcomes=outcomes,
            phase="signing",
            retryable=commonest is None,
        )

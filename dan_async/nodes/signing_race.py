"""
Sets of t nodes race for one signature: the fastest set first, another when it fails or is late; the first result wins.

A signature needs all t nodes of a set, so a single late node makes its whole set late, and the next set leaves it out. Each
step of one set is an ``ask_many``, which needs every answer; the race between sets is run here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from dan_async.config import MAX_PARTIES
from dan_async.deadline import Deadline, cancel_and_wait, read_on, settle, settled
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
from dan_async.nodes.blame import (
    Conflict,
    aborter_in,
    choose_signers,
    find_conflicts,
    find_reasonless,
    most_tries,
)
from dan_async.nodes.health import Lateness, rank
from dan_async.nodes.node import Node
from dan_async.retry import Tries
from dan_async.types import OperatorAddress

T = TypeVar("T")

_OPERATOR = attrgetter("operator")

#: How long to wait for the other nodes of a set after one has failed, in seconds: their reasons may show which is at fault.
#: A node of which another says only that it gave up first has the longer time, to say why.
_LISTEN_S, _LISTEN_TO_ABORTER_S = 0.05, 1.0

#: After this part of the time in which a presignature is late, the nodes that have not answered are asked for their health.
_LOOK = 0.75

#: How many times to start, with the conflicts forgotten, when they leave no set to try; and how many sets to try after that
#: in spite of the conflicts.
_MOST_STARTS = 3
_MOST_BESIDES = 16


# --- one set ----------------------------------------------------------------------------------------------------------


class SetFailedError(DanError):
    """
    A set of signers made no signature: the failure of each node that failed, and the conflicts that this leaves.

    A conflict (see ``blame``) is a group of nodes of which at least one is at fault. *reasonless* are the nodes that failed
    without saying why.
    """

    def __init__(
        self,
        failures: dict[OperatorAddress, DanError],
        conflicts: Iterable[Conflict] = (),
        *,
        reasonless: Collection[OperatorAddress] = (),
    ) -> None:
        super().__init__("the signers made no signature", phase="signing")
        self.failures = failures
        self.conflicts = set(conflicts)
        self.reasonless = reasonless


@define(eq=False, repr=False)
class Run:
    """One set of signers at work."""

    signers: tuple[Node, ...]  # ascending
    lateness: Lateness
    operators: tuple[OperatorAddress, ...] = field(init=False)
    waiting: set[OperatorAddress] = field(init=False)  # for these, which have not answered the current step
    since: float = field(init=False)
    #: Those that were asked for their health and have not answered that either; None until there was a reason to ask.
    silent: set[OperatorAddress] | None = field(default=None, init=False)
    step: str = "presign"
    is_hedged: bool = False  # the step is late, so another set may run at the same time
    is_stocked: bool = False  # it uses presignatures that the nodes may have forgotten

    def __attrs_post_init__(self) -> None:
        self.operators = tuple(map(_OPERATOR, self.signers))
        self.waiting, self.since = set(self.operators), self.lateness.clock()

    def begin(self, step: str) -> None:
        """Note that a step begins, in which all signers are asked."""
        self.step, self.since = step, self.lateness.clock()
        self.waiting, self.silent = set(self.operators), None
        self.is_hedged = False

    @property
    def is_unclear(self) -> bool:
        """Whether it is not known which node delays it: in a presignature, one that hangs keeps all from answering."""
        return self.step != "sign" and self.silent is None

    @property
    def due(self) -> float:
        """When to act, by the clock of *lateness*: the step is late then, or its nodes are asked for their health before."""
        return self.since + self.lateness.limit_s(self.step) * (_LOOK if self.is_unclear else 1.0)

    @property
    def is_kept_by_some(self) -> bool:
        """Whether it is late because of some of its nodes, and not because all of them are busy."""
        return self.is_hedged and (self.step == "sign" or 2 * len(self.waiting) <= len(self.signers))

    def doubt(self, operator: OperatorAddress) -> float:
        """Return how much speaks against a signer while its presignature is late, which may be the fault of any signer."""
        if operator not in self.operators:
            return 0.0
        if self.silent and operator in self.silent:
            return 1.0
        # The one at fault may have answered, but usually it has not.
        return (1.01 if operator in self.waiting else 1.0) / len(self.operators)

    def suspect(self, conflicts: Collection[Conflict], reasonless: Collection[OperatorAddress] = ()) -> None:
        """Suspect the signers in conflicts, the less the more there are in one, and those that failed without a reason."""
        for node in self.signers:
            weight = sum(1 / len(conflict) for conflict in conflicts if node.operator in conflict)
            node.health.suspect(weight + (0.5 if node.operator in reasonless else 0.0))


@frozen(kw_only=True, eq=False, repr=False)
class _AllOrNone(Plan[T]):
    """Over when all have answered, or one has failed and the others have had a moment to answer."""

    run: Run

    def check(self, operator: OperatorAddress, answer: T) -> str:  # noqa: ARG002 - checked when it was read
        self.run.waiting.discard(operator)
        return "ready"

    def is_settled(self, answers: Answers[T]) -> bool:
        return bool(answers.errors) or len(answers.values) == self.wanted

    def linger_s(self, answers: Answers[T]) -> float:
        return _LISTEN_TO_ABORTER_S if self._aborters(answers) else _LISTEN_S

    def spared(self, answers: Answers[T]) -> Collection[OperatorAddress]:
        first = next(iter(answers.errors.values()), None)
        if first is None or aborter_in(first, self.run.operators) is None:
            return ()
        return set(self.run.operators) - self._aborters(answers)

    def _aborters(self, answers: Answers[T]) -> set[OperatorAddress]:
        """Return the nodes that are said to have given up first, and have not said why."""
        named = {aborter_in(error, self.run.operators) for error in answers.errors.values()}
        return {name for name in named if name and name not in answers.errors and name not in answers.values}


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
        failures, signers = answers.errors, run.operators
        raise SetFailedError(
            failures, find_conflicts(failures, signers), reasonless=find_reasonless(failures, signers)
        )
    run.lateness.took(step, run.lateness.clock() - run.since)
    return answers.values


# --- the race ---------------------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class SignerRace(Generic[T]):
    """The race for one signature of t of the nodes, beginning with those that are preferred."""

    _nodes: Sequence[Node]
    _t: int
    #: Has one set sign. Raises a ``SetFailedError`` if the set cannot, and any other DanError to end the race.
    _attempt: Callable[[Run], Coroutine[Any, Any, T]]
    _lateness: Lateness = field(kw_only=True)
    _deadline: Deadline = field(kw_only=True)
    #: The first set, ascending, against which nothing speaks; empty if there is none that is better than others.
    _preferred: tuple[Node, ...] = field(default=(), kw_only=True)
    _conflicts: set[Conflict] = field(factory=set, init=False)
    _refused: dict[OperatorAddress, DanError] = field(factory=dict, init=False)
    _errors: dict[OperatorAddress, DanError] = field(factory=dict, init=False)
    _tried: dict[Conflict, int] = field(factory=dict, init=False)  # each set, and at which start
    _starts: int = field(default=1, init=False)
    _besides: int = field(default=0, init=False)  # sets that were tried in spite of the conflicts
    _looks: list[asyncio.Task[None]] = field(factory=list, init=False)  # questions for a node's health
    _silent: set[OperatorAddress] = field(factory=set, init=False)  # nodes that failed by themselves
    #: The nodes that said that they do not hold the key.
    without_share: set[OperatorAddress] = field(factory=set, init=False)
    #: Whether the shares of a set made no signature.
    _spoilt: bool = field(default=False, init=False)
    #: Done when a set has ended, or the time for one is over.
    _news: asyncio.Future[None] = field(init=False)
    #: Whether a set was late, and most of its nodes with it.
    is_crowded: bool = field(default=False, init=False)

    async def run(self) -> T:
        """Run it; see ``Network.signgen`` for what it raises."""
        running: dict[asyncio.Task[T], Run] = {}
        try:
            self._start(running)
            while running:
                # This is less work than ``asyncio.wait``, and takes one turn of the loop less.
                self._news = asyncio.get_running_loop().create_future()
                await settled(self._news, self._patience(running), None)
                done = [task for task in running if task.done()]
                if not done:
                    await read_on(lambda: any(task.done() for task in running), depth=3)
                    done = [task for task in running if task.done()]
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
            if running or self._looks:
                await cancel_and_wait([*running, *self._looks])
        raise self._lost()

    # --- which set ----------------------------------------------------------------------------------------------------

    def _start(self, running: dict[asyncio.Task[T], Run]) -> None:
        signers = self._next_set(running)
        if signers is None:
            return
        run = Run(signers, self._lateness)
        self._tried[frozenset(run.operators)] = self._starts
        running[asyncio.create_task(self._sign(run), name="dan-sign")] = run

    async def _sign(self, run: Run) -> T:
        try:
            return await self._attempt(run)
        finally:
            settle(self._news, None)

    def _next_set(self, running: dict[asyncio.Task[T], Run]) -> tuple[Node, ...] | None:
        if running and sum(not run.is_kept_by_some for run in running.values()) >= self._most_at_once:
            return None
        if not self._tried and self._preferred:
            return self._preferred
        late = [run for run in running.values() if run.is_hedged and run.step != "sign"]
        ranked = sorted(rank(self._nodes, without=self._refused), key=partial(self._doubt, late=late))
        if not self._tried and len(ranked) >= self._t:  # nothing speaks against a set of the best
            return tuple(sorted(ranked[: self._t], key=_by_address))
        names = [node.operator for node in ranked]
        tried = {signers for signers, start in self._tried.items() if start == self._starts}
        if len(tried) >= most_tries(self._t, min(len(names), MAX_PARTIES)) + _MOST_BESIDES:
            return None
        found = choose_signers(names, self._t, self._conflicts | tried)
        if found is None and not running:
            found = self._begin_anew(names)
        if found is None:
            return None
        return tuple(sorted([node for node in ranked if node.operator in found], key=_by_address))

    @property
    def _most_at_once(self) -> int:
        """How many sets may be at work at a time, besides late ones whose slow nodes are known."""
        return max(3, (min(len(self._nodes), MAX_PARTIES) - self._t + 1) // 2)

    def _begin_anew(self, names: Sequence[OperatorAddress]) -> tuple[OperatorAddress, ...] | None:
        """
        Return a set to try although the conflicts leave none: fewer than t nodes are honest, or some cannot reach others.

        At first all conflicts are forgotten, except that nodes which failed by themselves stay out; later, any set that was
        never tried will do. Nodes that cannot be reached stay out: trying them would only delay the error.
        """
        unreachable = {frozenset((node.operator,)) for node in self._nodes if node.is_unreachable}
        if self._starts < _MOST_STARTS:
            self._starts += 1
            self._conflicts = unreachable.union(frozenset((operator,)) for operator in self._silent)
            found = choose_signers(names, self._t, self._conflicts)
            if found is not None:
                return found
        self._besides += 1
        if self._besides > _MOST_BESIDES:
            return None
        return choose_signers(names, self._t, self._tried.keys() | unreachable)

    def _doubt(self, node: Node, late: Collection[Run]) -> tuple[float, bool]:
        """Return how much speaks against a node, and whether it is not preferred; less is better."""
        doubt = node.health.suspicion + (node.health.failures > 0)
        for run in late:
            doubt += run.doubt(node.operator)
        return doubt, node not in self._preferred

    # --- time ---------------------------------------------------------------------------------------------------------

    def _patience(self, running: dict[asyncio.Task[T], Run]) -> float | None:
        """Return the seconds until there is something to do: a set may be late, or the deadline is over."""
        now = self._lateness.clock()
        # A set that was late with one step may begin its next step at any time, without notice: look again in good time.
        due = [now + self._lateness.limit_s("sign") if run.is_hedged else run.due for run in running.values()]
        return self._deadline.cap(max(0.0, min(due) - now))

    def _hedge(self, running: dict[asyncio.Task[T], Run]) -> None:
        """Where a step is late, note the nodes that it waits for, and let another set run at the same time."""
        now = self._lateness.clock()
        for run in [run for run in running.values() if not run.is_hedged and now >= run.due]:
            if run.is_unclear:
                self._look_at(run)
                continue
            run.is_hedged = True
            self.is_crowded |= not run.is_kept_by_some
            if run.step == "sign":
                late = {frozenset((operator,)) for operator in run.waiting}
                self._conflicts |= late
                run.suspect(late)
            self._start(running)

    def _look_at(self, run: Run) -> None:
        """Ask the nodes that a run waits for their health: each can answer that alone, so only one that hangs does not."""
        silent = run.silent = set(run.waiting)

        async def look(node: Node) -> None:
            with suppress(DanError):
                await node.look(deadline=self._deadline)
                silent.discard(node.operator)

        self._looks += [asyncio.create_task(look(node)) for node in run.signers if node.operator in silent]

    def _note_losers(self, winner: Run, running: dict[asyncio.Task[T], Run]) -> None:
        """Trust the nodes of the set that won; suspect the other nodes of late sets, and nodes that refused to sign."""
        for node in winner.signers:
            node.health.trust()
        for run in running.values():
            others = set(run.operators) - set(winner.operators)
            if run.is_hedged and run.step != "sign" and others:
                run.suspect([frozenset((run.silent or run.waiting) & others or others)])
        wrong = self._refused.keys() - self.without_share  # t others have signed it
        for node in self._nodes if wrong else ():
            if node.operator in wrong:
                node.health.suspect(1.0)

    # --- what went wrong ----------------------------------------------------------------------------------------------

    def _learn(self, run: Run, failure: SetFailedError) -> None:
        self._spoilt = self._spoilt or not failure.failures
        conflicts = set(failure.conflicts)
        for operator, error in failure.failures.items():
            self._errors[operator] = error
            kind = failure_kind(error)
            if FailureKind.FINAL in kind:
                self._refused[operator] = error
                if isinstance(error, NodeRefusedError) and error.code == NodeCode.UNKNOWN_KEY:
                    self.without_share.add(operator)
            elif FailureKind.BLAMELESS not in kind or (_is_forgotten(error) and not run.is_stocked):
                conflicts.add(frozenset((operator,)))
                self._silent.add(operator)  # it was asked several times already
        if not self._deadline.is_over:
            run.suspect(conflicts, failure.reasonless)
        self._conflicts |= conflicts

    def _lost(self) -> QuorumError:
        outcomes: list[NodeOutcome[object]] = [
            NodeOutcome(operator=o, error=e, attempts=e.attempts or 1, elapsed_s=e.elapsed_s or 0.0)
            for o, e in self._errors.items()
        ]
        is_unknown = len(self._nodes) - len(self.without_share) < self._t  # and not only to spares
        codes = Counter(
            e.code
            for o, e in self._refused.items()
            if isinstance(e, NodeRefusedError) and (is_unknown or o not in self.without_share)
        )
        commonest = codes.most_common(1)[0][0] if codes else None
        kind, hint = QuorumError, "The list says what each node answered; look at the network's health()"
        if commonest == NodeCode.EPHEMERAL_KEY_REFUSED:
            kind = EphemeralKeyRefusedError
            hint = "Make a new session, or add an ephemeral key to this one's key"
            problem = "the nodes refuse the session's ephemeral key: it is not registered, was revoked or has expired"
        elif commonest == NodeCode.NOT_PERMITTED:
            kind, hint = NotPermittedError, "The nodes say which rule it breaks; nothing was signed"
            problem = "the session's permissions do not allow this message"
        elif commonest == NodeCode.UNKNOWN_KEY:
            hint = "Check that this is the network which made the session"
            problem = f"no {self._t} nodes hold the session's key"
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


def _by_address(node: Node) -> str:
    return node.operator.lower()


def _is_forgotten(error: DanError) -> bool:
    """Whether a node says that it has no such presignature, any more."""
    return getattr(error, "code", None) in (NodeCode.PRESIGNATURE_UNKNOWN, NodeCode.PRESIGNATURE_SPENT)

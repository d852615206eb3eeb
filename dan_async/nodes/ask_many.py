"""
Asking many nodes at once: the one engine under every job.

As many questions are under way as answers are wanted. A node that fails is replaced at once; one that is late is raced by
the next candidate, and may still answer first. The asking ends as soon as more answers would change nothing; nodes that are
still being asked then are listened to for a moment, if the plan says so, and cut off.

The engine knows nothing of nodes, counts no votes and keeps no record of health. How one node is asked is the caller's
function; how many answers are wanted, which of them count and when they are enough is the ``Plan``'s business.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field, frozen

from dan_async.deadline import Deadline, PromptFuture, after_reading, cancel_and_wait, settle
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


@define(eq=False, repr=False)
class Answers(Generic[A]):
    """The result of asking, and on the way there the answers so far."""

    #: The answers in the order of their arrival; never more than are wanted.
    values: dict[OperatorAddress, A] = field(factory=dict)
    #: The failures in the order of their arrival.
    errors: dict[OperatorAddress, DanError] = field(factory=dict)
    #: Seconds since the first question: until enough was known, and in the end until it was over.
    elapsed_s: float = 0.0
    step: str = field(kw_only=True)
    questions: list[_Question[Any, A]] = field(factory=list, init=False, repr=False)

    @property
    def outcomes(self) -> list[NodeOutcome[A]]:
        """One for every node that was asked, in the order of asking; one that was cut off has neither answer nor error."""
        return [
            NodeOutcome(
                operator=question.node.operator,
                answer=question.answer,
                summary=question.summary,
                error=question.error,
                attempts=max(1, question.made),
                elapsed_s=question.ended_at - question.asked_at,
                step=self.step,
            )
            for question in self.questions
        ]

    @property
    def failures(self) -> list[NodeOutcome[A]]:
        """The outcomes of nodes that gave no answer, those that were cut off included."""
        return [outcome for outcome in self.outcomes if not outcome.is_success]


@frozen(kw_only=True, eq=False, repr=False)
class Plan(Generic[A]):
    """How many answers are wanted, and when the asking is over: in this plan, as soon as all of them are there."""

    #: The number of answers. As many questions are under way at a time, besides those that are late.
    wanted: int
    #: Seconds after which a node is late, and the next candidate is asked as well; None for never.
    hedge_s: float | None = None
    #: See ``enough``; *wanted* if None.
    least: int | None = None
    #: Seconds until then; None for never.
    patience_s: float | None = None
    #: Seconds past the deadline in which the questions, which have the same limit, may fail with errors of their own: those
    #: say more, and count against their nodes. Less than ``Deadline.SLACK_S``.
    last_word_s: float = 0.05

    @property
    def enough(self) -> int:
        """The number of answers that will do when the patience is over."""
        return self.wanted if self.least is None else self.least

    # The rules, which other plans override. They are asked on the event loop: quick, and without waiting.

    def check(self, operator: OperatorAddress, answer: A) -> str:  # noqa: ARG002 - for those that override it
        """Return the answer in words; raise the DanError that says why, if it does not count."""
        return "ready"

    def is_settled(self, answers: Answers[A]) -> bool:
        """Whether more answers would change nothing; asked after answers and failures, once for all that come together."""
        return len(answers.values) >= self.wanted

    def linger_s(self, answers: Answers[A]) -> float:  # noqa: ARG002 - for those that override it
        """How long to listen to the remaining nodes once it is settled, in seconds."""
        return 0.0

    def spared(self, answers: Answers[A]) -> Collection[OperatorAddress]:  # noqa: ARG002 - as above
        """Nodes that are not worth that wait, though their answers count if they come."""
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
    Ask the candidates, best first, until enough is known; nothing new is begun once the deadline is over.

    *ask* counts its attempts at a node, and fails with a DanError; any other exception ends the asking, and is raised. Each
    question is a future, or is run as a task, and all of them have ended when this returns or raises.
    """
    answers: Answers[A] = Answers(step=step)
    end = asyncio.get_running_loop().create_future()
    asking = _Asking(iter(candidates), ask, plan, deadline, answers, end, time.monotonic())
    try:
        asking.ask_more()
        asking.look_again()
        await end
        if asking.awaited:
            asking.ended = list(filter(asyncio.Future.done, asking.awaited))  # they came in the last moment
            asking.take()
    finally:
        if asking.timer is not None:
            asking.timer.cancel()
        if asking.awaited:
            cut_off, asking.awaited = asking.awaited, {}
            await cancel_and_wait(cut_off)
            ended_at = time.monotonic()
            for question in cut_off.values():
                question.ended_at = ended_at
    if asking.crash is not None:
        raise asking.crash
    answers.elapsed_s = time.monotonic() - asking.started
    return answers


@define(eq=False, repr=False)
class _Question(Tries, Generic[N, A]):
    """One node's question, and how it ended; neither answer nor error if it was cut off."""

    node: N = field(kw_only=True)
    asked_at: float = field(kw_only=True)
    is_late: bool = field(default=False, init=False)
    ended_at: float = field(default=0.0, init=False)
    answer: A | None = field(default=None, init=False)
    summary: str = field(default="ready", init=False)
    error: DanError | None = field(default=None, init=False)


@define(eq=False, repr=False)
class _Asking(Generic[N, A]):
    """One call of ``ask_many``: it acts on answers as they come, and on the time, while the caller waits for the end."""

    _candidates: Iterator[N]
    _ask: Callable[[N, Tries], Awaitable[A]]
    _plan: Plan[A]
    _deadline: Deadline
    answers: Answers[A]
    #: Done when enough is known and the others were listened to.
    _end: asyncio.Future[None]
    started: float
    awaited: dict[asyncio.Future[A], _Question[N, A]] = field(factory=dict, init=False)
    #: Those of the awaited that have ended in this turn of the event loop, and are to be taken together.
    ended: list[asyncio.Future[A]] = field(factory=list, init=False)
    _is_settled: bool = field(default=False, init=False)  # enough is known
    _late: int = field(default=0, init=False)  # among the awaited
    _is_patient: bool = field(default=True, init=False)
    _has_last_word: bool = field(default=False, init=False)
    _looks: int = field(default=0, init=False)
    timer: asyncio.TimerHandle | None = field(default=None, init=False)
    #: A bug of ours, which ended the asking.
    crash: Exception | None = field(default=None, init=False)

    # --- the time -------------------------------------------------------------------------------------------------------

    def _look_in(self, seconds: float | None) -> None:
        """Look at the time when so much of it has passed, and not before."""
        self._looks += 1
        if self.timer is not None:
            self.timer.cancel()
        if seconds is not None:
            self.timer = self._end.get_loop().call_later(seconds, after_reading, self._look, self._looks)

    def look_again(self) -> None:
        """Look at the time when something is due, unless it is settled: a hedge, the end of the patience, the deadline."""
        if self._is_settled:
            return
        now, plan = time.monotonic(), self._plan
        waits = []
        if plan.hedge_s is not None:
            waits += [q.asked_at + plan.hedge_s - now for q in self.awaited.values() if not q.is_late]
        if plan.patience_s is not None and self._is_patient:
            waits.append(self.started + plan.patience_s - now)
        self._look_in(self._deadline.cap(max(0.0, min(waits)) if waits else None))

    def _look(self, look: int) -> None:
        """See what is due now."""
        if look != self._looks or self._end.done():
            return
        try:
            if self._is_settled:
                settle(self._end, None)
            elif self._has_last_word:
                self._settle()
            elif self._deadline.is_over:
                self._has_last_word = True
                self._look_in(self._plan.last_word_s)
            else:
                self._note_the_late()
                self.ask_more()
                self.look_again()
        except Exception as error:  # noqa: BLE001 - see ``_stop``
            self._stop(error)

    def _note_the_late(self) -> None:
        now, plan = time.monotonic(), self._plan
        for question in self.awaited.values():
            if plan.hedge_s is not None and not question.is_late and now >= question.asked_at + plan.hedge_s:
                question.is_late = True
                self._late += 1
        self._is_patient = plan.patience_s is None or now < self.started + plan.patience_s

    # --- the questions --------------------------------------------------------------------------------------------------

    def ask_more(self) -> None:
        """See whether it is settled; if not, ask one more node for each answer that no punctual one is about to give."""
        plan, answered, asked = self._plan, len(self.answers.values), self.answers.questions
        if asked and plan.is_settled(self.answers):
            self._settle()
            return
        missing = plan.wanted - answered - (len(self.awaited) - self._late)
        if missing > 0 and not (asked and self._deadline.is_over):  # a spare could not answer any more
            now = time.monotonic()
            for node in islice(self._candidates, missing):
                question: _Question[N, A] = _Question(node=node, asked_at=now)
                asked.append(question)
                answer = self._ask(node, question)
                if isinstance(answer, PromptFuture):
                    answer.on_end = self._note
                else:
                    answer = asyncio.ensure_future(answer)
                    answer.add_done_callback(self._note)
                self.awaited[answer] = question
        if not self.awaited or (not self._is_patient and answered >= plan.enough):
            self._settle()

    def _note(self, answer: asyncio.Future[A]) -> None:
        """Have an answer taken together with all others that come in this turn of the event loop."""
        if not self.ended:
            self._end.get_loop().call_soon(self.take)
        self.ended.append(answer)

    def take(self) -> None:
        """Act on answers of nodes, and on failures."""
        ended, self.ended = self.ended, []
        answers, plan = self.answers, self._plan
        now, is_any = time.monotonic(), False
        try:
            for future in ended:
                question = None if future.cancelled() else self.awaited.pop(future, None)
                if question is None:
                    continue  # cut off, or taken already
                is_any, question.ended_at, operator = True, now, question.node.operator
                self._late -= question.is_late
                try:
                    answer = future.result()
                    assert answer is not None  # that is how an outcome says that there is none
                    question.summary = plan.check(operator, answer)
                except DanError as error:
                    question.error = answers.errors[operator] = error
                else:
                    question.answer = answer
                    if len(answers.values) < plan.wanted:
                        answers.values[operator] = answer
            if is_any and not self._is_settled:
                self.ask_more()
            elif is_any and self._are_all_in:
                settle(self._end, None)
        except Exception as error:  # noqa: BLE001 - see ``_stop``
            self._stop(error)

    # --- the end --------------------------------------------------------------------------------------------------------

    @property
    def _are_all_in(self) -> bool:
        """Whether no other answer is awaited, or only those of nodes that the plan spares."""
        if not self.awaited:
            return True
        spared = self._plan.spared(self.answers)
        return bool(spared) and all(question.node.operator in spared for question in self.awaited.values())

    def _settle(self) -> None:
        """Note that enough is known, and listen on if the plan does."""
        self._is_settled = True
        self.answers.elapsed_s = time.monotonic() - self.started
        if not self._are_all_in and (linger_s := self._plan.linger_s(self.answers)):
            self._look_in(self._deadline.cap(linger_s))
        else:
            settle(self._end, None)

    def _stop(self, bug: Exception) -> None:
        """End the asking for a bug of ours, which is raised where it is awaited."""
        self.crash = bug
        settle(self._end, None)

"""Selection, replacement and the race against spares, without nodes: only what selection needs to know of them."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.deadline import Deadline, PromptFuture
from dan_async.errors import NodeTimeoutError, NodeUnreachableError
from dan_async.nodes import RestPolicy
from dan_async.nodes.ask_many import Answers, Plan, ask_many
from dan_async.nodes.health import HealthRecord, rank
from dan_async.retry import Tries
from dan_async.types import OperatorAddress
from tests.helpers import ManualClock, assert_runs_under, run_in_virtual_time


@define(eq=False)
class FakeNode:
    """As much of a node as selection looks at."""

    name: str
    clock: ManualClock = field(factory=ManualClock)
    health: HealthRecord = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.health = HealthRecord(RestPolicy(clock=self.clock, random=lambda: 1.0))

    @property
    def operator(self) -> OperatorAddress:
        return OperatorAddress(self.name)

    def with_latency(self, seconds: float) -> FakeNode:
        asked = self.health.begin()
        self.clock.advance(seconds)
        self.health.succeeded(asked)
        return self

    def with_failures(self, count: int) -> FakeNode:
        for _ in range(count):
            self.health.failed(self.health.begin())
        return self


def names(nodes: list[FakeNode]) -> str:
    return "".join(node.name for node in nodes)


def some(letters: str, clock: ManualClock | None = None) -> list[FakeNode]:
    shared = clock or ManualClock()
    return [FakeNode(letter, shared) for letter in letters]


# --- ranking ----------------------------------------------------------------------------------------------------------


def test_the_faster_live_node_comes_first() -> None:
    """And one that nobody knows yet is tried."""
    a, b, c = some("abc")
    assert names(rank([a.with_latency(2), b.with_latency(1), c])) == "cba"


def test_rested_nodes_come_after_live_ones_and_resting_ones_last() -> None:
    """However fast they were; those that rest are ordered by when that is over."""
    clock = ManualClock()
    a, b, c, d = some("abcd", clock)
    c.with_failures(1)
    clock.advance(1)
    a.with_failures(3)
    b.with_failures(2)
    d.with_latency(5)
    assert names(rank([a, b, c, d])) == "dcba"


def test_a_node_that_is_being_probed_is_left_alone() -> None:
    """Only one request at a time proves it."""
    clock = ManualClock()
    a, b = some("ab", clock)
    a.with_failures(1)
    b.with_failures(2)
    clock.advance(1)
    a.health.begin()
    clock.advance(1)
    assert names(rank([a, b])) == "ba"


def test_a_dead_pool_still_yields_nodes() -> None:
    """Everything failed: all are there, the one whose rest is over first in front."""
    nodes = some("abc")
    for count, node in enumerate(reversed(nodes), 1):
        node.with_failures(count)
    assert names(rank(nodes)) == "cba"


def test_those_named_are_left_out() -> None:
    """The rest is ranked as ever."""
    nodes = [node.with_latency(k) for k, node in enumerate(some("abcd"), 1)]
    assert names(rank(nodes)[:2]) == "ab"
    assert names(rank(nodes, without={OperatorAddress("a")})[:2]) == "bc"


@given(
    histories=st.lists(st.tuples(st.integers(0, 5), st.floats(0, 10), st.floats(0, 40)), max_size=8),
)
def test_ranking_loses_nobody_and_prefers_the_live(
    histories: list[tuple[int, float, float]],
) -> None:
    """A permutation of the pool; no resting node before a live one; ties keep their order."""
    clock = ManualClock()
    nodes = some("abcdefgh", clock)[: len(histories)]
    for node, (failures, latency, pause) in zip(nodes, histories, strict=True):
        node.with_latency(latency).with_failures(failures)
        clock.advance(pause)
    ranked = rank(nodes)
    assert sorted(names(ranked)) == sorted(names(nodes))
    live = [node.health.state == "live" for node in ranked]
    assert live == sorted(live, reverse=True)
    assert rank(ranked) == ranked


# --- as many answers as are wanted ------------------------------------------------------------------------------------

Script = dict[str, Callable[[], Awaitable[str]]]


async def hang() -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def fail() -> str:
    await asyncio.sleep(0)
    raise NodeUnreachableError("gone")


class Asking:
    """Asks nodes by a script; whoever is not in it answers at once."""

    def __init__(self, **script: Callable[[], Awaitable[str]]) -> None:
        self.script = script
        self.asked: list[str] = []
        self.cut: list[str] = []

    async def __call__(self, node: FakeNode, tries: Tries) -> str:
        self.asked.append(node.name)
        tries.made += 1
        try:
            return await self.script.get(node.name, self.answer)()
        except asyncio.CancelledError:
            self.cut.append(node.name)
            raise

    async def answer(self) -> str:
        await asyncio.sleep(0)
        return "nonce"


async def ask_some(nodes: list[FakeNode], wanted: int, asking: Asking, **options: Any) -> Answers[str]:
    plan: Plan[str] = Plan(wanted=wanted, **options)
    return await ask_many(nodes, asking, plan, step="challenge", deadline=Deadline(None))


async def ask_letters(asking: Asking, letters: str, wanted: int, **options: Any) -> Answers[str]:
    async with assert_runs_under(5):
        answers = await ask_some(some(letters), wanted, asking, **options)
    assert len(asyncio.all_tasks()) == 1
    return answers


async def test_spares_are_left_alone_when_all_is_well() -> None:
    """Only as many are asked as answers are wanted."""
    asking = Asking()
    answers = await ask_letters(asking, "abcd", 3)
    assert asking.asked == ["a", "b", "c"]
    assert list(answers.values) == ["a", "b", "c"]
    assert all(outcome.is_success and outcome.step == "challenge" for outcome in answers.outcomes)


async def test_a_node_that_fails_is_replaced_at_once() -> None:
    """The next candidate is asked in its place, and the failure is an outcome."""
    asking = Asking(a=fail, d=fail)
    answers = await ask_letters(asking, "abcde", 3, hedge_s=60)
    assert sorted(answers.values) == ["b", "c", "e"]
    failed = [outcome for outcome in answers.outcomes if not outcome.is_success]
    assert [outcome.operator for outcome in failed] == ["a", "d"]
    assert all(isinstance(outcome.error, NodeUnreachableError) for outcome in failed)


async def test_a_late_node_is_raced_against_a_spare() -> None:
    """One that hangs costs the hedge, not a timeout; it is not waited for and says so."""
    asking = Asking(b=hang)
    answers = await ask_letters(asking, "abcd", 3, hedge_s=0.01)
    assert sorted(answers.values) == ["a", "c", "d"]
    assert asking.cut == ["b"]
    (late,) = [outcome for outcome in answers.outcomes if not outcome.is_success]
    assert (late.operator, late.error, late.attempts) == ("b", None, 1)
    assert late.elapsed_s >= 0.01


async def test_the_first_to_answer_counts() -> None:
    """A late node that answers before its spare counts, and the spare is let go."""
    spare_asked = asyncio.Event()

    async def slow() -> str:
        await spare_asked.wait()
        return "late, but first"

    async def spare() -> str:
        spare_asked.set()
        return await hang()

    asking = Asking(b=slow, d=spare)
    answers = await ask_letters(asking, "abcd", 3, hedge_s=0.01)
    assert answers.values["b"] == "late, but first"
    assert asking.cut == ["d"]


async def test_a_late_node_that_answers_leaves_its_spare_at_work() -> None:
    """Then more are being asked than answers are missing; nobody else is, and the first to answer counts."""
    spare_asked = asyncio.Event()

    async def slow() -> str:
        await spare_asked.wait()
        return "late, but first"

    async def spare() -> str:
        spare_asked.set()
        await asyncio.sleep(0.02)
        return "nonce"

    asking = Asking(a=slow, b=hang, c=spare)
    answers = await ask_letters(asking, "abcd", 2, hedge_s=0.01)
    assert next(iter(answers.values)) == "a"
    assert "b" not in answers.values


async def test_a_late_spare_is_raced_as_well() -> None:
    """Two that hang in a row cost two hedges."""
    asking = Asking(a=hang, c=hang)
    answers = await ask_letters(asking, "abcd", 2, hedge_s=0.01)
    assert sorted(answers.values) == ["b", "d"]


async def test_a_late_node_that_fails_is_not_replaced_twice() -> None:
    """Its spare is under way already: no third one is asked."""
    failed = asyncio.Event()

    async def fail_late() -> str:
        await asyncio.sleep(0.03)
        failed.set()
        raise NodeTimeoutError("late")

    async def answer_after() -> str:
        await failed.wait()
        await asyncio.sleep(0)
        return "nonce"

    asking = Asking(a=fail_late, b=answer_after)
    await ask_letters(asking, "abc", 1, hedge_s=0.02)
    assert asking.asked == ["a", "b"]


async def test_without_a_hedge_nobody_is_late() -> None:
    """Then only failures are replaced."""
    asked_again = asyncio.Event()

    async def slow() -> str:
        await asyncio.sleep(0.02)
        assert not asked_again.is_set()
        return "nonce"

    async def spare() -> str:
        asked_again.set()
        return "nonce"

    answers = await ask_letters(Asking(a=slow, b=spare), "ab", 1)
    assert list(answers.values) == ["a"]


async def test_the_candidates_run_out() -> None:
    """Fewer answers than are wanted, and every node's outcome."""
    answers = await ask_letters(Asking(a=fail, c=fail), "abc", 3, hedge_s=0.01)
    assert list(answers.values) == ["b"]
    assert {outcome.operator: outcome.is_success for outcome in answers.outcomes} == {
        "a": False,
        "b": True,
        "c": False,
    }


async def test_fewer_will_do_when_the_rest_hang() -> None:
    """With enough answers the others are waited for until the patience ends, and no longer."""
    asking = Asking(c=hang)
    answers = await ask_letters(asking, "abc", 3, hedge_s=0.01, least=2, patience_s=0.05)
    assert sorted(answers.values) == ["a", "b"]
    assert asking.cut == ["c"]


async def test_patience_does_not_make_do_with_too_few() -> None:
    """Below the least number the patience is of no account."""

    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "nonce"

    answers = await ask_letters(Asking(b=slow, c=hang), "abc", 3, least=2, patience_s=0.01)
    assert sorted(answers.values) == ["a", "b"]


async def test_everybody_in_time_takes_no_patience() -> None:
    """When all answer, nothing is waited for, and n is n."""
    answers = await ask_letters(Asking(), "abc", 3, least=2, patience_s=60)
    assert len(answers.values) == 3


async def test_a_bug_is_raised_not_hidden() -> None:
    """An error that is not ours ends the asking loudly."""

    async def bug() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask_letters(Asking(a=bug, b=hang), "ab", 2)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("rule", ["is_settled", "spared"])
async def test_a_bug_of_a_plan_is_raised_as_well(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is: at the first answer here, with another question open."""
    seen: list[int] = []

    def broken(_plan: object, answers: Answers[str]) -> bool:
        seen.append(len(answers.values))
        if answers.values:
            raise ZeroDivisionError
        return False

    class Plain(Plan[str]):
        pass

    monkeypatch.setattr(Plain, rule, broken)
    if rule == "spared":
        monkeypatch.setattr(Plain, "is_settled", lambda _plan, answers: bool(answers.values))
        monkeypatch.setattr(Plain, "linger_s", lambda _plan, _answers: 60.0)
    async with assert_runs_under(5):
        with pytest.raises(ZeroDivisionError):
            await ask_many(some("ab"), Asking(b=hang), Plain(wanted=2), step="", deadline=Deadline(None))
    assert seen[-1] == 1
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling_ends_every_question() -> None:
    """And goes on upwards."""
    asking = Asking(a=hang, b=hang)
    task = asyncio.create_task(ask_some(some("ab"), 2, asking, hedge_s=0.01))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asking.cut == ["a", "b"]
    assert len(asyncio.all_tasks()) == 1


async def test_an_answer_that_the_plan_refuses_is_a_failure() -> None:
    """Its node is replaced like any other that fails, and the outcome has the plan's words for those that count."""

    class Picky(Plan[str]):
        def check(self, operator: OperatorAddress, answer: str) -> str:
            if operator == "b":
                raise NodeUnreachableError("not you")
            return f"{operator} said {answer}"

    answers = await ask_many(some("abc"), Asking(), Picky(wanted=2), step="", deadline=Deadline(None))
    assert list(answers.values) == ["a", "c"]
    assert [o.summary for o in answers.outcomes if o.is_success] == ["a said nonce", "c said nonce"]
    assert [o.operator for o in answers.failures] == ["b"]


async def test_answers_of_one_turn_are_taken_together() -> None:
    """In the order in which they came; those that failed among them are replaced, and the plan is asked once."""
    asked: dict[str, PromptFuture[str]] = {}
    looks: list[int] = []

    class Watched(Plan[str]):
        def is_settled(self, answers: Answers[str]) -> bool:
            looks.append(len(answers.values))
            return super().is_settled(answers)

    def ask(node: FakeNode, _: Tries) -> PromptFuture[str]:
        asked[node.name] = PromptFuture()
        return asked[node.name]

    async def end(*letters: str) -> None:
        for letter in letters:
            future = asked[letter]
            if letter == "a":
                future.set_exception(NodeUnreachableError("gone"))
            else:
                future.set_result("nonce")
            assert future.on_end is not None
            future.on_end(future)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    plan = Watched(wanted=3)
    asking = asyncio.create_task(ask_many(some("abcdef"), ask, plan, step="", deadline=Deadline(None)))
    await asyncio.sleep(0)
    await end("c", "a", "b")
    assert (list(asked), looks) == (["a", "b", "c", "d"], [2])
    await end("d")
    answers = await asking
    assert (list(answers.values), looks) == (["c", "b", "d"], [2, 3])
    assert list(answers.errors) == ["a"]


async def test_a_future_that_nobody_needs_any_more_is_cancelled() -> None:
    """As a task is."""
    future: PromptFuture[str] = PromptFuture()

    def ask(node: FakeNode, tries: Tries) -> Awaitable[str]:
        return future if node.name == "a" else Asking()(node, tries)

    plan: Plan[str] = Plan(wanted=1, hedge_s=0.01)
    answers = await ask_many(some("ab"), ask, plan, step="", deadline=Deadline(None))
    assert list(answers.values) == ["b"]
    assert future.cancelled()


async def test_a_bug_ends_the_listening_as_well() -> None:
    """It is raised at once, though the plan would listen to the others."""

    async def bug() -> str:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    class Listening(Plan[str]):
        def linger_s(self, answers: Answers[str]) -> float:
            return 60.0

        def is_settled(self, answers: Answers[str]) -> bool:
            return bool(answers.values)

    async with assert_runs_under(5):
        with pytest.raises(ZeroDivisionError):
            await ask_many(
                some("abc"), Asking(b=bug, c=hang), Listening(wanted=3), step="", deadline=Deadline(None)
            )
    assert len(asyncio.all_tasks()) == 1


def test_nobody_else_is_asked_when_the_deadline_is_over() -> None:
    """Nodes that hang, whatever their limit, are cut off a moment later, and no spare is troubled for nothing."""
    asking = Asking(a=hang, b=hang)

    async def work(clock: ManualClock) -> tuple[Answers[str], float]:
        plan: Plan[str] = Plan(wanted=2, hedge_s=2.0, least=1, patience_s=3.0)
        answers = await ask_many(some("abc"), asking, plan, step="", deadline=Deadline(2.0, clock=clock))
        return answers, clock.now

    answers, ended = run_in_virtual_time(work)
    assert ended == pytest.approx(1002.05)
    assert asking.asked == asking.cut == ["a", "b"]
    assert [(o.error, o.is_success) for o in answers.outcomes] == [(None, False), (None, False)]
    assert len(answers.failures) == 2


def test_questions_that_end_with_the_deadline_fail_with_their_own_errors() -> None:
    """They have that limit themselves: none is cut off before it can say so, and none is replaced."""

    async def time_out() -> str:
        await asyncio.sleep(2.001)
        raise NodeTimeoutError("no reply")

    asking = Asking(a=time_out, b=time_out)

    async def work(clock: ManualClock) -> tuple[Answers[str], float]:
        plan: Plan[str] = Plan(wanted=2)
        answers = await ask_many(some("abc"), asking, plan, step="", deadline=Deadline(2.0, clock=clock))
        return answers, clock.now

    answers, ended = run_in_virtual_time(work)
    assert ended == pytest.approx(1002.001)
    assert (asking.asked, asking.cut) == (["a", "b"], [])
    assert [str(outcome.error) for outcome in answers.outcomes] == ["no reply", "no reply"]


@settings(max_examples=60)
@given(
    script=st.lists(st.sampled_from(["answer", "fail", "hang", "slow"]), max_size=8), wanted=st.integers(0, 6)
)
def test_as_many_answer_as_can(script: list[str], wanted: int) -> None:
    """Whatever the nodes do: never more answers than are wanted, and never fewer while a willing candidate is there."""

    async def slow() -> str:
        await asyncio.sleep(0.003)
        return "nonce"

    async def hang_a_while() -> str:
        await asyncio.sleep(0.02)
        raise NodeTimeoutError("hung")

    kinds = {"fail": fail, "hang": hang_a_while, "slow": slow}
    letters = "abcdefgh"[: len(script)]
    asking = Asking(
        **{name: kinds[kind] for name, kind in zip(letters, script, strict=True) if kind in kinds}
    )
    answers = asyncio.run(ask_some(some(letters), wanted, asking, hedge_s=0.001))
    willing = sum(kind in {"answer", "slow"} for kind in script)
    assert len(answers.values) == min(wanted, willing)
    assert sorted(outcome.operator for outcome in answers.outcomes) == sorted(asking.asked)
    assert len(set(asking.asked)) == len(asking.asked)


def test_the_engine_knows_nothing_of_nodes() -> None:
    """It imports none of their files: neither the node, nor its health, nor a tally."""
    tree = ast.parse(inspect.getsource(sys.modules[ask_many.__module__]))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "dan_async.deadline" in imported
    assert not [
        name for name in imported if name and name.startswith(("dan_async.nodes", "dan_async.protocols"))
    ]

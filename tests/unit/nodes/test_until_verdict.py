"""Asking until the verdict: stops when it is clear, owns its tasks, never outlives its deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from dan_async.deadline import Deadline
from dan_async.errors import NodeOutcome, NodeRefusedError, NodeTimeoutError, NodeUnreachableError
from dan_async.nodes.acknowledgements import KeygenTally
from dan_async.nodes.ask_many import ask_many
from dan_async.nodes.keygen import UntilVerdict, grace
from dan_async.protocols.node import Acknowledgement
from dan_async.retry import Tries
from dan_async.types import OperatorAddress
from tests.fake_nodes import DealtKey, identities
from tests.helpers import assert_runs_under


@pytest.fixture
def key() -> DealtKey:
    return DealtKey(3, identities(5))


def tally_for(key: DealtKey) -> KeygenTally:
    return KeygenTally(
        request_id=key.request_id,
        threshold=key.threshold,
        participants=key.participants,
        owner_id=key.owner_id,
    )


@frozen
class Party:
    """A node, as far as the engine knows it."""

    operator: OperatorAddress


Ask = Callable[[str, Tries], Awaitable[Acknowledgement]]


async def until_verdict(
    operators: Sequence[OperatorAddress],
    ask: Ask,
    *,
    tally: KeygenTally,
    deadline: Deadline,
    grace_s: float | None = None,
    slow: Collection[OperatorAddress] = (),
) -> list[NodeOutcome]:
    """Ask all operators, as key generation does; the outcomes."""
    answers = await ask_many(
        [Party(operator) for operator in operators],
        lambda party, tries: ask(party.operator, tries),
        UntilVerdict(wanted=len(operators), tally=tally, grace_s=grace_s, slow=slow),
        step="keygen",
        deadline=deadline,
    )
    return answers.outcomes


def index_of(key: DealtKey, operator: str) -> int:
    return key.participants.index(operator) + 1


async def test_all_answer(key: DealtKey) -> None:
    """With every node well, every outcome is a success."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        tries.made = 2
        return key.acknowledgement(index_of(key, operator))

    outcomes = await until_verdict(
        key.participants, ask, tally=tally_for(key), deadline=Deadline(5), grace_s=1
    )
    assert [o.operator for o in outcomes] == list(key.participants)
    assert all(o.is_success and o.attempts == 2 for o in outcomes)


async def test_stragglers_are_cancelled_after_the_grace(key: DealtKey) -> None:
    """t answers settle it; the others are listened to for the grace, then cancelled and waited for."""
    cancelled = []

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if index_of(key, operator) > 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(operator)
                raise
        return key.acknowledgement(index_of(key, operator))

    tally = tally_for(key)
    outcomes = await until_verdict(key.participants, ask, tally=tally, deadline=Deadline(5), grace_s=0.01)
    assert tally.verdict().public_key == key.public_key
    assert cancelled == list(key.participants[3:])
    assert [o.is_success for o in outcomes] == [True, True, True, False, False]
    assert "had not answered yet" in outcomes[4].describe()
    assert len(asyncio.all_tasks()) == 1


async def test_a_late_answer_within_the_grace_is_reported(key: DealtKey) -> None:
    """What arrives within the grace is in the outcomes."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if index_of(key, operator) == 5:
            await asyncio.sleep(0.01)
        return key.acknowledgement(index_of(key, operator))

    outcomes = await until_verdict(
        key.participants, ask, tally=tally_for(key), deadline=Deadline(5), grace_s=5
    )
    assert all(o.is_success for o in outcomes)


async def test_stops_when_t_is_out_of_reach(key: DealtKey) -> None:
    """n - t + 1 failures end the wait at once, though other nodes have not answered."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if index_of(key, operator) <= 3:
            tries.made = 3
            raise NodeUnreachableError("gone", node=operator)
        await asyncio.Event().wait()
        raise AssertionError

    tally = tally_for(key)
    async with assert_runs_under(5):
        outcomes = await until_verdict(key.participants, ask, tally=tally, deadline=Deadline(60), grace_s=60)
    assert tally.is_lost
    assert [o.attempts for o in outcomes[:3]] == [3, 3, 3]
    assert isinstance(outcomes[0].error, NodeUnreachableError)


async def test_when_t_is_out_of_reach_the_others_may_still_say_whom_they_blame(key: DealtKey) -> None:
    """A culprit is who most blame: what the last nodes say a moment later counts, whatever the grace is."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if index_of(key, operator) > 3:
            await asyncio.sleep(0.005)
        raise NodeRefusedError("wrong share", code=-32030, node=operator)

    outcomes = await until_verdict(
        key.participants, ask, tally=tally_for(key), deadline=Deadline(60), grace_s=0.0001
    )
    assert [isinstance(outcome.error, NodeRefusedError) for outcome in outcomes] == [True] * 5


async def test_when_a_node_blames_another_the_rest_are_heard(key: DealtKey) -> None:
    """Until all have spoken but the accused: one node's word is not enough to leave another out."""
    accused = key.participants[0]
    heard = asyncio.Event()

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if operator == accused:
            await asyncio.Event().wait()
        if operator == key.participants[4]:
            await heard.wait()
            await asyncio.sleep(0.01)
        if operator == key.participants[3]:
            heard.set()
        raise NodeRefusedError("no", code=-32030, culprits=(accused,))

    with assert_runs_under(0.24):  # the accused, who never answers, is not waited for
        outcomes = await until_verdict(key.participants, ask, tally=tally_for(key), deadline=Deadline(60))
    assert [bool(outcome.error) for outcome in outcomes] == [False, True, True, True, True]
    assert len(asyncio.all_tasks()) == 1


async def test_who_does_not_speak_is_not_waited_for_long(key: DealtKey) -> None:
    """A quarter of a second at most, and never beyond the deadline."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if index_of(key, operator) > 3:
            await asyncio.Event().wait()
        raise NodeRefusedError("no", code=-32030, culprits=(key.participants[0],))

    for deadline_s, longest_s in ((60, 2), (0.05, 0.24)):
        with assert_runs_under(longest_s):
            outcomes = await until_verdict(
                key.participants, ask, tally=tally_for(key), deadline=Deadline(deadline_s)
            )
        assert [bool(outcome.error) for outcome in outcomes] == [True, True, True, False, False]


async def test_never_beyond_the_deadline(key: DealtKey) -> None:
    """Nodes that never answer cost the deadline, no more, and leave no task."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        await asyncio.Event().wait()
        raise AssertionError

    started = time.monotonic()
    outcomes = await until_verdict(
        key.participants, ask, tally=tally_for(key), deadline=Deadline(0.05), grace_s=9
    )
    assert time.monotonic() - started < 2
    assert not any(o.is_success for o in outcomes)
    assert len(asyncio.all_tasks()) == 1


async def test_a_bug_is_raised_not_hidden(key: DealtKey) -> None:
    """An error that is not ours ends the job loudly instead of looking like a node's failure."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await until_verdict(key.participants, ask, tally=tally_for(key), deadline=Deadline(5), grace_s=1)
    assert len(asyncio.all_tasks()) == 1


async def test_cancelling_cancels_every_question(key: DealtKey) -> None:
    """Cancellation reaches the asking tasks, waits for them, and goes on."""
    asked, ended = asyncio.Event(), []

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(operator)
        raise AssertionError

    task = asyncio.create_task(
        until_verdict(key.participants, ask, tally=tally_for(key), deadline=Deadline(5), grace_s=1)
    )
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(ended) == 5


async def test_a_wrong_acknowledgement_is_an_outcome(key: DealtKey) -> None:
    """A refused acknowledgement shows as that node's error."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        index = index_of(key, operator)
        if index == 2:
            raise NodeTimeoutError("late", node=operator)
        return key.acknowledgement(index, key_id="00" * 32) if index == 1 else key.acknowledgement(index)

    outcomes = await until_verdict(
        key.participants, ask, tally=tally_for(key), deadline=Deadline(5), grace_s=1
    )
    assert "key id is not the hash" in outcomes[0].describe()
    assert "late" in outcomes[1].describe()
    assert [o.is_success for o in outcomes] == [False, False, True, True, True]


async def test_a_stalled_node_does_not_hold_the_verdict(key: DealtKey) -> None:
    """Without a grace of the caller's own, what is waited for the last node is a fraction of what the others took."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if index_of(key, operator) == 2:
            await asyncio.Event().wait()
        return key.acknowledgement(index_of(key, operator))

    async with assert_runs_under(0.5):
        outcomes = await until_verdict(key.participants, ask, tally=tally_for(key), deadline=Deadline(60))
    assert [outcome.is_success for outcome in outcomes] == [True, False, True, True, True]


async def test_a_cut_off_node_shows_its_attempts(key: DealtKey) -> None:
    """Also who had not answered yet was asked so and so often."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        tries.made = index_of(key, operator)
        if index_of(key, operator) > 3:
            await asyncio.Event().wait()
        return key.acknowledgement(index_of(key, operator))

    outcomes = await until_verdict(
        key.participants, ask, tally=tally_for(key), deadline=Deadline(5), grace_s=0.01
    )
    assert [outcome.attempts for outcome in outcomes] == [1, 2, 3, 4, 5]


@given(agreed_after_s=st.floats(0, 1e6))
def test_the_grace_is_a_tenth_within_bounds(agreed_after_s: float) -> None:
    """At least 2 ms, at most 50 ms, and a tenth of the time in between."""
    waits = grace(agreed_after_s)
    assert waits in {0.002, 0.05} or waits == pytest.approx(agreed_after_s / 10)
    assert 0.002 <= waits <= 0.05


def test_a_grace_of_the_callers_own() -> None:
    """Is taken as it is."""
    assert grace(0.1, 5.0) == 5.0
    assert grace(100.0, 0.001) == 0.001


async def test_nodes_that_are_usually_late_are_not_listened_to(key: DealtKey) -> None:
    """When t agree and only such nodes are left, there is no grace at all; what they said before still counts."""

    async def ask(operator: str, tries: Tries) -> Acknowledgement:
        if index_of(key, operator) == 2:
            await asyncio.Event().wait()
        return key.acknowledgement(index_of(key, operator))

    slow = {key.participants[1], key.participants[4]}
    async with assert_runs_under(5):
        outcomes = await until_verdict(
            key.participants, ask, tally=tally_for(key), deadline=Deadline(60), grace_s=60, slow=slow
        )
    assert [outcome.is_success for outcome in outcomes] == [True, False, True, True, True]

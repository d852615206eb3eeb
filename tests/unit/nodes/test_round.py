"""One round: the nodes that take part, the owner's authentication, and the failure that the deadline caused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dan_async.config import MAX_PARTIES
from dan_async.deadline import Deadline
from dan_async.errors import DeadlineExceededError, QuorumDeadlineError, QuorumError, WalletRefusedError
from dan_async.events import WalletAnswered, WalletAsked
from dan_async.listeners import EventHub
from dan_async.nodes.round import NodeRound, SetupText, authenticate, out_of_time
from dan_async.protocols.node import ChallengeResult
from dan_async.types import OperatorAddress
from tests.fake_nodes import REQUEST_ID
from tests.helpers import ManualClock

SETUP = SetupText(request_id=REQUEST_ID, operation="keygen", revision="1", text="{}")


class Owner:
    """Authorises after so many seconds of a manual clock; refuses if told to."""

    method = "eoa"
    id = "0xowner"

    def __init__(self, clock: ManualClock, *, interactive: bool, refuses: bool = False) -> None:
        self.clock = clock
        self.interactive = interactive
        self.refuses = refuses
        self.asked: list[tuple[str, Any]] = []

    async def authorise(self, *, challenge: str, typed_data: Any) -> str:
        self.asked.append((challenge, typed_data))
        self.clock.advance(30)
        await asyncio.sleep(0)
        if self.refuses:
            raise WalletRefusedError("no")
        return "0xsigned"


async def ask(owner: Owner, deadline: Deadline, events: EventHub) -> Any:
    return await authenticate(
        owner,  # type: ignore[arg-type]
        "ab" * 32,
        typed_data={"a": 1},
        credentials="claim",
        request_id=REQUEST_ID,
        deadline=deadline,
        events=events,
    )


def ready(count: int) -> dict[OperatorAddress, ChallengeResult]:
    """Nodes that are ready, in descending order of their addresses."""
    nodes = [OperatorAddress(f"0x{index:040x}") for index in reversed(range(count))]
    return {node: ChallengeResult(nonce=node.encode()[-32:], expires_at=1) for node in nodes}


async def test_the_owners_authentication_is_put_together() -> None:
    """Method and id of the owner, credentials as given, and the signature over this challenge."""
    owner = Owner(ManualClock(), interactive=False)
    made = await ask(owner, Deadline(None), EventHub())
    assert (made.method, made.id, made.credentials, made.signature) == (
        "eoa",
        "0xowner",
        "claim",
        "0xsigned",
    )
    assert owner.asked == [("ab" * 32, {"a": 1})]


@pytest.mark.parametrize(("interactive", "left_s"), [(True, 60.0), (False, 30.0)])
async def test_the_deadline_stands_still_for_a_person_only(interactive: bool, left_s: float) -> None:
    """A person may read; a key in the program has no excuse."""
    clock = ManualClock()
    deadline = Deadline(60, clock=clock)
    await ask(Owner(clock, interactive=interactive), deadline, EventHub())
    assert deadline.remaining() == left_s


@pytest.mark.parametrize("refuses", [False, True])
async def test_the_wallets_turn_is_reported(refuses: bool) -> None:
    """That it was asked, and that it answered, with the name of its refusal."""
    seen: list[Any] = []
    owner = Owner(ManualClock(), interactive=True, refuses=refuses)
    try:
        await ask(owner, Deadline(None), EventHub(seen.append))
    except WalletRefusedError:
        assert refuses
    asked, answered = seen
    assert isinstance(asked, WalletAsked)
    assert asked.is_interactive
    assert isinstance(answered, WalletAnswered)
    assert answered.is_interactive
    assert answered.error == ("WalletRefusedError" if refuses else None)


def test_participants_are_ascending_each_with_its_nonce() -> None:
    """In whichever order they answered."""
    answers = ready(3)
    opened = NodeRound.of(SETUP, answers)
    assert opened.participants == tuple(sorted(answers))
    assert opened.nonces == tuple(answers[node].nonce for node in opened.participants)


def test_no_more_take_part_than_may() -> None:
    """The first to answer do."""
    answers = ready(MAX_PARTIES + 2)
    opened = NodeRound.of(SETUP, answers)
    assert set(opened.participants) == set(list(answers)[:MAX_PARTIES])


def test_an_owner_who_signed_already_needs_no_nonces() -> None:
    """The same nodes take part, and the challenge is the setup's own."""
    opened = NodeRound.of(SETUP, ready(3))
    without = opened.without_nonces()
    assert (without.participants, without.nonces) == (opened.participants, ())
    assert without.challenge == NodeRound.of(SETUP, ready(2)).without_nonces().challenge != opened.challenge


@pytest.mark.parametrize(("passed_s", "retryable"), [(0, True), (9, False)])
def test_a_failure_in_time_or_for_good_is_not_the_deadlines(passed_s: float, retryable: bool) -> None:
    """It stays the error that it is."""
    clock = ManualClock()
    deadline = Deadline(5, clock=clock)
    clock.advance(passed_s)
    failure = QuorumError("no", threshold=2, outcomes=(), retryable=retryable)
    assert out_of_time(failure, deadline, "waiting", phase="keygen") is failure


def test_a_failure_after_the_deadline_says_so() -> None:
    """It is both: a quorum that did not come about, and a deadline."""
    clock = ManualClock()
    deadline = Deadline(5, clock=clock)
    clock.advance(5)
    failure = QuorumError("1 of 3 agree", threshold=2, outcomes=(), request_id=REQUEST_ID)
    error = out_of_time(failure, deadline, "waiting for nodes", phase="keygen")
    assert isinstance(error, QuorumDeadlineError)
    assert isinstance(error, DeadlineExceededError)
    assert error.message == "the deadline of 5 s ran out while waiting for nodes: 1 of 3 agree"
    assert (error.threshold, error.phase, error.request_id) == (2, "keygen", REQUEST_ID)

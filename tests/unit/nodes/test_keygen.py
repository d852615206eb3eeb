"""Starting again after the owner has signed, late nodes, probes: over scripted nodes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from attrs import evolve

from dan_async.config import Threshold
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.devnet.gateway import relay_keygen
from dan_async.errors import (
    ConnectError,
    DeadlineExceededError,
    NodeCode,
    QuorumDeadlineError,
    QuorumError,
    RequestTimeoutError,
    RpcError,
)
from dan_async.network import KeygenReport, KeygenRequest
from dan_async.nodes import RestPolicy
from dan_async.nodes.round import SetupText
from dan_async.protocols.fields import to_json
from dan_async.protocols.node import restarted_request_id
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication
from dan_async.retry import RetryPolicy
from dan_async.types import OperatorAddress
from dan_async.wallets import CallbackWallet, LocalWallet
from dan_async.wallets.base import EoaAuth
from tests.fake_nodes import OWNER, QUICK, REQUEST_ID, FakeNetwork
from tests.helpers import ManualClock, assert_runs_under

WALLET = LocalWallet("0x" + "00" * 31 + "01")
ONCE = RetryPolicy(attempts=1)

Misbehaviour = Callable[[str, Any], Awaitable[Any]]


class Owner:
    """The owner's wallet, which counts how often it is asked."""

    def __init__(self, *, interactive: bool = False) -> None:
        self.prompts = 0
        self.auth = EoaAuth(CallbackWallet(WALLET.address, self._sign, interactive=interactive))

    async def _sign(self, typed_data: Any) -> str:
        self.prompts += 1
        return await WALLET.sign_typed_data(typed_data)


def request(t: int, n: int, **changes: Any) -> KeygenRequest:
    key = EphemeralKey.generate()
    claim = EphemeralClaim(eph_id=key.default_id, eph_pk=key.public_key, expiry=2**33, sign_alg="secp256k1")
    made = KeygenRequest(request_id=REQUEST_ID, owner_id=OWNER, threshold=Threshold(t, n), claim=claim)
    return evolve(made, **changes)


async def keygen(
    fake: FakeNetwork, asked: KeygenRequest, owner: Owner | None = None, *, total_s: float = 5, **options: Any
) -> KeygenReport:
    network = fake.network(**({"retry": ONCE} | options))
    try:
        async with assert_runs_under(10):
            report = await network.keygen(asked, (owner or Owner()).auth, deadline=Deadline(total_s))
    finally:
        await network.aclose()
    assert len(asyncio.all_tasks()) == 1
    return report


def refusing(error: Exception, *, method: str = "dan_keygen") -> Misbehaviour:
    async def misbehave(called: str, params: Any) -> Any:
        if called == method:
            raise error
        return None

    return misbehave


def hanging(method: str) -> Misbehaviour:
    async def misbehave(called: str, params: Any) -> Any:
        if called == method:
            await asyncio.Event().wait()
        return None

    return misbehave


def failed(*culprits: str) -> RpcError:
    return RpcError(NodeCode.KEYGEN_FAILED, "wrong share", {"culprits": list(culprits)})


def blaming(fake: FakeNetwork, *indices: int) -> list[OperatorAddress]:
    """Let every key generation fail in which one of these nodes takes part, as the others blame it."""
    culprits = [fake.operator(index) for index in indices]

    async def misbehave(method: str, params: Any) -> Any:
        if method == "dan_keygen" and (present := set(culprits) & set(params["participants"])):
            raise failed(min(present))
        return None

    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = misbehave
    return culprits


# --- starting again ---------------------------------------------------------------------------------------------------


async def test_one_culprit_after_the_other_is_left_out() -> None:
    """Each round that can leave out somebody new is tried, with a silent signature for each."""
    fake, owner = FakeNetwork(2, 6), Owner()
    # Nobody knows 4, 5 and 6 yet when the second round begins, so they are tried; whether 5 is in the third is a race.
    culprits = blaming(fake, 1, 4, 5)
    report = await keygen(fake, request(2, 3), owner)
    assert not set(report.holders) & set(culprits)
    assert report.restarts in {2, 3}
    assert owner.prompts == report.restarts + 1
    assert report.request_id == restarted_request_id(REQUEST_ID, report.restarts)
    assert {culprits[0], culprits[1]} <= {outcome.operator for outcome in report.replaced}


async def test_names_that_nodes_make_up_are_repeated_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """Errors and the log have the operators that nodes name, and no other text that stands in their place."""
    fake = FakeNetwork(2, 3)
    culprit = fake.operator(1)
    names = [culprit, "\x1b[2J" + "A" * 100_000, "\ud800", 7]
    made_up = RpcError(NodeCode.KEYGEN_FAILED, "no", {"culprits": names, "abortedBy": "B" * 100_000})
    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = refusing(made_up)
    with pytest.raises(QuorumError) as caught:
        await keygen(fake, request(2, 3))
    for text in (str(caught.value), caplog.text):
        assert culprit in text
        assert text.isascii()
        assert "\x1b" not in text
        assert len(text) < 10_000


async def test_more_culprits_than_vain_restarts_are_left_out() -> None:
    """Four rounds fail, each for another reason, and the fifth makes the key: the limit is for rounds that change nothing."""
    fake, owner = FakeNetwork(2, 6), Owner()
    rounds: list[str] = []

    async def blame_in_turn(method: str, params: Any) -> Any:
        if method != "dan_keygen":
            return None
        if params["requestId"] not in rounds:
            rounds.append(params["requestId"])
        if rounds.index(params["requestId"]) < 4:
            raise failed(min(params["participants"]))
        return None

    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = blame_in_turn
    report = await keygen(fake, request(2, 2), owner)
    assert (report.restarts, owner.prompts, len(report.holders)) == (4, 5, 2)


@pytest.mark.parametrize("left_s", [-(2**31), 0, 130])
async def test_a_nonce_that_ends_early_leaves_the_owner_time(left_s: int) -> None:
    """Where there is a spare, or fewer parties will do, a node that gives one takes no part."""
    fake, ends = FakeNetwork(2, 4), int(time.time()) + 300

    def giving(end: int) -> Misbehaviour:
        async def give(method: str, params: Any) -> Any:
            return {"nonce": "0x" + "11" * 32, "expiresAt": end} if method == "dan_challenge" else None

        return give

    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = giving(ends)
    fake.misbehaviour[fake.operator(1)] = giving(max(0, ends - 300 + left_s))
    network = fake.network()
    for n, least in ((3, 3), (4, 3)):
        opened = await network.open_keygen(request(2, n, min_parties=least), deadline=Deadline(5))
        assert opened.expires_at == ends
    opened = await network.open_keygen(request(2, 4), deadline=Deadline(5))
    assert opened.expires_at == max(0, ends - 300 + left_s)  # nobody else is there
    fake.misbehaviour[fake.operator(4)] = refusing(ConnectError("down"), method="dan_challenge")
    opened = await network.open_keygen(request(2, 3), deadline=Deadline(5))
    assert opened.expires_at == max(0, ends - 300 + left_s)  # nor now
    await network.aclose()


async def test_min_parties_makes_up_for_a_missing_spare() -> None:
    """Without a spare the key is made by one party less, if that is allowed."""
    fake = FakeNetwork(2, 3)
    (culprit,) = blaming(fake, 2)
    report = await keygen(fake, request(2, 3, min_parties=2))
    assert report.threshold == Threshold(2, 2)
    assert culprit not in report.holders
    assert report.culprits == (culprit,)
    assert f"blamed by most of the others: node {culprit}" in report.describe()


async def test_without_a_spare_it_is_tried_twice_more_and_the_error_says_what_is_missing() -> None:
    """Whoever failed may have recovered; after two more rounds it is over, and the culprit is named."""
    fake, owner = FakeNetwork(2, 3), Owner()
    (culprit,) = blaming(fake, 2)
    with pytest.raises(QuorumError, match="2 are left, and 3 are needed: add spare nodes") as caught:
        await keygen(fake, request(2, 3), owner)
    assert owner.prompts == 3
    assert caught.value.culprits == (culprit,)
    assert f"blamed by most of the others: node {culprit}" in str(caught.value)


async def test_the_culprits_of_every_round_are_named() -> None:
    """Several rounds, another culprit in each, and none succeeds: the error has them all, and nobody else."""
    fake = FakeNetwork(2, 4)
    culprits = blaming(fake, 1, 2, 3, 4)
    with pytest.raises(QuorumError, match="are left, and 3 are needed") as caught:
        await keygen(fake, request(2, 3))
    blamed = {c for o in caught.value.nodes for c in getattr(o.error, "culprits", ())}
    assert len(blamed) >= 2
    assert set(caught.value.culprits) == blamed <= set(culprits)


async def test_a_silent_node_that_comes_back_is_taken_again() -> None:
    """No spare: the second round asks the very same nodes, and succeeds."""
    fake = FakeNetwork(3, 3)
    lost: list[Any] = []

    async def lose_first(method: str, params: Any) -> Any:
        if method == "dan_keygen" and not lost:
            lost.append(params)
            raise ConnectError("restarting")
        return None

    fake.misbehaviour[fake.operator(1)] = lose_first
    report = await keygen(fake, request(3, 3))
    assert (len(report.holders), report.restarts) == (3, 1)


async def test_a_silent_node_is_left_out_if_there_is_a_spare() -> None:
    """Who did not answer dan_keygen does not get a second chance where another is free."""
    fake = FakeNetwork(3, 4)
    fake.misbehaviour[fake.operator(1)] = refusing(ConnectError("gone"))
    report = await keygen(fake, request(3, 3))
    assert fake.operator(1) not in report.holders
    assert fake.called("dan_keygen").count(fake.operator(1)) == 1


async def test_what_most_nodes_refuse_for_good_is_not_asked_again() -> None:
    """A request that is wrong in itself does not get better by another signature."""
    fake, owner = FakeNetwork(2, 4), Owner()
    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = refusing(RpcError(NodeCode.CLAIM_EXPIRED, "too long"))
    with pytest.raises(QuorumError, match="repeating it does not help") as caught:
        await keygen(fake, request(2, 3), owner)
    assert not caught.value.retryable
    assert owner.prompts == 1


async def test_one_node_that_refuses_for_good_is_left_out() -> None:
    """Its refusal is its own affair, if the others only say that they missed it."""
    fake = FakeNetwork(3, 4)
    odd = fake.operator(1)
    for identity in fake.identities:
        code = NodeCode.CLAIM_EXPIRED if identity.operator == odd else NodeCode.KEYGEN_FAILED

        async def misbehave(method: str, params: Any, code: int = code) -> Any:
            if method == "dan_keygen" and odd in params["participants"]:
                raise RpcError(code, "no")
            return None

        fake.misbehaviour[identity.operator] = misbehave
    report = await keygen(fake, request(3, 3))
    assert odd not in report.holders


async def test_an_expired_nonce_is_cured_by_another_round() -> None:
    """New round, new nonces: nobody is left out for it."""
    fake = FakeNetwork(2, 3)
    rounds = set()

    async def expire(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            rounds.add(params["requestId"])
            if params["requestId"] == REQUEST_ID:
                raise RpcError(NodeCode.CHALLENGE_EXPIRED, "too late")
        return None

    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = expire
    report = await keygen(fake, request(2, 3))
    assert (len(report.holders), len(rounds)) == (3, 2)


async def test_a_person_is_not_asked_twice_and_the_error_says_how() -> None:
    """The culprit is named, the signature was the only one, and the way on is in the hint."""
    fake, owner = FakeNetwork(2, 4), Owner(interactive=True)
    culprits = blaming(fake, 1)
    with pytest.raises(
        QuorumError, match=r"another attempt needs another signature.*allow_resign=True"
    ) as caught:
        await keygen(fake, request(2, 3), owner)
    assert owner.prompts == 1
    assert list(caught.value.culprits) == culprits


async def test_a_person_is_asked_twice_if_allowed() -> None:
    """With allow_resign the call goes on without the culprit, after a second prompt."""
    fake, owner = FakeNetwork(2, 4), Owner(interactive=True)
    blaming(fake, 1)
    report = await keygen(fake, request(2, 3, allow_resign=True), owner)
    assert (owner.prompts, report.restarts) == (2, 1)


async def test_a_liars_word_alone_leaves_nobody_out() -> None:
    """One dishonest node of three blames an honest one: the honest one is asked again."""
    fake = FakeNetwork(3, 4)
    victim, liar = fake.operator(2), fake.operator(1)

    async def lie(method: str, params: Any) -> Any:
        if method == "dan_keygen" and liar in params["participants"]:
            raise failed(victim)
        return None

    async def complain(method: str, params: Any) -> Any:
        if method == "dan_keygen" and liar in params["participants"]:
            raise failed(liar)
        return None

    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = lie if identity.operator == liar else complain
    report = await keygen(fake, request(3, 3))
    assert victim in report.holders
    assert liar not in report.holders


def disputing(fake: FakeNetwork, *liars: int) -> set[OperatorAddress]:
    """Let these nodes spoil every key generation for one other node alone, the last; gives their operators."""
    dishonest = {fake.operator(index) for index in liars}

    def at(operator: OperatorAddress) -> Misbehaviour:
        async def misbehave(method: str, params: Any) -> Any:
            if method != "dan_keygen":
                return None
            sitting = [o for o in params["participants"] if o in dishonest]
            if not sitting:
                return None
            victim = [o for o in params["participants"] if o not in dishonest][-1]
            data = {"culprits": sitting[:1]} if operator == victim else {"culprits": [], "abortedBy": victim}
            raise RpcError(NodeCode.KEYGEN_FAILED, "opening does not match its commitment", data)

        return misbehave

    for identity in fake.identities:
        fake.misbehaviour[identity.operator] = at(identity.operator)
    return dishonest


@pytest.mark.parametrize(("spares", "liars"), [(1, (1,)), (1, (5,)), (2, (2, 5)), (2, (1,)), (3, (1, 2, 3))])
async def test_who_is_in_dispute_does_not_take_part_together_again(
    spares: int, liars: tuple[int, ...]
) -> None:
    """Most of the others saw nothing, so nobody is a culprit; and as many spares as dishonest nodes are enough."""
    fake = FakeNetwork(3, 5 + spares)
    dishonest = disputing(fake, *liars)
    report = await keygen(fake, request(3, 5), total_s=10)
    assert len(report.holders) == 5
    assert not dishonest & set(report.holders)
    assert report.culprits == ()
    assert report.disputes
    assert all(dishonest & set(pair) for pair in report.disputes)
    assert report.restarts <= 3 * len(liars)
    assert "in dispute: nodes" in report.describe()


async def test_the_next_call_prefers_nodes_that_were_not_in_dispute() -> None:
    """A person who is not asked to sign twice calls again, and is not met by the same pair for ever."""
    fake = FakeNetwork(3, 7)
    (liar,) = disputing(fake, 1)
    network = fake.network(retry=ONCE)
    owner = Owner(interactive=True)
    with pytest.raises(QuorumError):
        await network.keygen(request(3, 5), owner.auth, deadline=Deadline(5))
    again = request(3, 5, request_id="0x" + "cd" * 32)
    report = await network.keygen(again, owner.auth, deadline=Deadline(5))
    assert (report.restarts, owner.prompts, liar in report.holders) == (0, 2, False)
    await network.aclose()


async def test_without_a_spare_a_dispute_is_named() -> None:
    """Which of the two it is, nobody can tell, and all n are needed; with min_parties one of them is done without."""
    fake = FakeNetwork(3, 5)
    (liar,) = disputing(fake, 2)
    with pytest.raises(QuorumError) as caught:
        await keygen(fake, request(3, 5))
    assert liar in str(caught.value.hint)
    assert "is faulty" in str(caught.value.hint)
    report = await keygen(fake, request(3, 5, min_parties=4))
    assert (report.threshold.n, liar in report.holders) == (4, False)


# --- certificates -----------------------------------------------------------------------------------------------------


def unfinished(fake: FakeNetwork, *indices: int, takes: bytes = b"a certificate") -> None:
    """Let these nodes fail for want of echoes, and acknowledge when they are brought the certificate."""

    def at(operator: OperatorAddress) -> Misbehaviour:
        asked: dict[str, Any] = {}

        async def misbehave(method: str, params: Any) -> Any:
            if method == "dan_keygen":
                asked.update(params)
                raise RpcError(NodeCode.KEYGEN_FAILED, "no message in round 3", {"culprits": []})
            if method != "dan_certify_keygen":
                return None
            if params["certificate"] != "0x" + takes.hex() or params["requestId"] != asked["requestId"]:
                raise RpcError(NodeCode.KEYGEN_FAILED, "no certificate", {"culprits": []})
            return fake.acknowledge(operator, asked)

        return misbehave

    for index in indices:
        fake.misbehaviour[fake.operator(index)] = at(fake.operator(index))


async def test_the_client_carries_the_certificate_to_nodes_that_lack_it() -> None:
    """A dishonest node's own is worthless: then it is another's."""
    fake = FakeNetwork(3, 5)
    unfinished(fake, 4, 5)

    async def worthless(method: str, params: Any) -> Any:
        if method != "dan_keygen":
            return None
        return {**fake.acknowledge(fake.operator(1), params), "certificate": "0x00"}

    fake.misbehaviour[fake.operator(1)] = worthless
    report = await keygen(fake, request(3, 5))
    assert len(report.holders) == 5
    assert {outcome.step for outcome in report.outcomes} == {"keygen", "certificate"}


async def test_nodes_that_take_no_certificate_cost_a_moment_only() -> None:
    """t agree, and that is enough."""
    fake = FakeNetwork(3, 5)
    unfinished(fake, 4, takes=b"another")
    unfinished(fake, 5)
    hangs = fake.misbehaviour[fake.operator(5)]

    async def hang(method: str, params: Any) -> Any:
        return await (asyncio.Event().wait() if method == "dan_certify_keygen" else hangs(method, params))

    fake.misbehaviour[fake.operator(5)] = hang
    async with assert_runs_under(2):
        report = await keygen(fake, request(3, 5))
    assert len(report.holders) == 3
    assert [outcome.step for outcome in report.outcomes] == ["keygen"] * 5


async def test_as_many_holders_as_wanted_are_waited_for() -> None:
    """Past t; a key that too few hold is given up for one that others make."""
    fake = FakeNetwork(2, 5)

    async def late(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            await asyncio.sleep(0.3)

    fake.misbehaviour[fake.operator(3)] = late
    report = await keygen(fake, request(2, 3, min_holders=3))
    assert len(report.holders) == 3
    fake.misbehaviour[fake.operator(3)] = refusing(RequestTimeoutError("silent"))
    report = await keygen(fake, request(2, 3, min_holders=3))
    assert len(report.holders) == 3
    for index in (2, 4, 5):
        fake.misbehaviour[fake.operator(index)] = refusing(RequestTimeoutError("silent"))
    with pytest.raises(QuorumError, match=r"3 are (wanted|needed)"):
        await keygen(fake, request(2, 3, min_holders=3))


async def test_whoever_is_blamed_or_lies_rests() -> None:
    """The next key generation prefers others."""
    fake = FakeNetwork(2, 5)
    (culprit,) = blaming(fake, 1)
    liar = fake.operator(4)  # not known yet when the second round begins, so it is tried
    honest = fake.misbehaviour[liar]

    async def lie(method: str, params: Any) -> Any:
        refused = await honest(method, params)
        forged = method == "dan_keygen" and culprit not in params["participants"]
        return fake.acknowledge(liar, params, key_id="00" * 32) if forged else refused

    fake.misbehaviour[liar] = lie
    network = fake.network(retry=ONCE, timeouts=evolve(QUICK, grace_s=1))
    await network.keygen(request(2, 3), Owner().auth, deadline=Deadline(5))
    states = {node.name: node.state for node in (await network.health()).nodes}
    assert {name for name, state in states.items() if state == "resting"} == {culprit, liar}
    await network.aclose()


async def test_where_two_groups_contradict_each_other_nobody_is_wrong() -> None:
    """Nobody knows which group is right: every answer stands as it is, and the two keys are named."""
    fake = FakeNetwork(2, 4)
    others = fake.identities[2:]

    for identity in others:

        async def lie(method: str, params: Any, operator: OperatorAddress = identity.operator) -> Any:
            if method != "dan_keygen":
                return None
            dealt = fake.key_for({**params, "requestId": params["requestId"] + " again"}, OWNER)
            dealt.request_id = params["requestId"]
            return to_json(dealt.acknowledgement(dealt.participants.index(operator) + 1))

        fake.misbehaviour[identity.operator] = lie
    with pytest.raises(QuorumError, match="2 groups of 2 nodes") as caught:
        await keygen(fake, request(2, 4), timeouts=evolve(QUICK, grace_s=5))
    assert len({outcome.answer.key_id for outcome in caught.value.outcomes}) == 2
    assert [outcome.is_success for outcome in caught.value.outcomes] == [True] * 4


# --- late nodes -------------------------------------------------------------------------------------------------------


async def test_a_stalled_node_costs_the_hedge_not_a_timeout() -> None:
    """Late at the challenge: a spare takes its place before the owner is asked."""
    fake, owner = FakeNetwork(2, 4), Owner(interactive=True)
    fake.misbehaviour[fake.operator(1)] = hanging("dan_challenge")
    report = await keygen(
        fake, request(2, 3), owner, total_s=60, timeouts=evolve(QUICK, attempt_s=50, hedge_s=0.01)
    )
    assert owner.prompts == 1
    (late,) = report.replaced
    assert (late.operator, late.error, late.step) == (fake.operator(1), None, "challenge")


async def test_a_node_that_was_late_is_not_the_first_choice_any_more() -> None:
    """Not waiting for it shows how long it takes at least."""
    fake = FakeNetwork(2, 4)
    fake.misbehaviour[fake.operator(1)] = hanging("dan_challenge")
    network = fake.network(timeouts=evolve(QUICK, hedge_s=0.02), retry=ONCE)
    for _ in range(3):
        await network.keygen(request(2, 3), Owner().auth, deadline=Deadline(5))
    assert fake.called("dan_challenge").count(fake.operator(1)) == 1
    await network.aclose()


@pytest.mark.parametrize(("patience_s", "total_s"), [(0.05, 60), (60, 1)])
async def test_a_stalled_node_without_a_spare_is_done_without_if_allowed(
    patience_s: float, total_s: float
) -> None:
    """min_parties: after the patience, or half of the time that is left, the others go on."""
    fake = FakeNetwork(2, 3)
    fake.misbehaviour[fake.operator(1)] = hanging("dan_challenge")
    timeouts = evolve(QUICK, attempt_s=60, hedge_s=0.01, patience_s=patience_s)
    async with assert_runs_under(5):
        report = await keygen(fake, request(2, 3, min_parties=2), total_s=total_s, timeouts=timeouts)
    assert report.threshold == Threshold(2, 2)
    assert [outcome.operator for outcome in report.replaced] == [fake.operator(1)]


async def test_the_verdict_does_not_wait_for_a_stalled_node() -> None:
    """One of five never acknowledges: the key comes at once, and the report says who had not answered."""
    fake = FakeNetwork(3, 5)
    fake.misbehaviour[fake.operator(4)] = hanging("dan_keygen")
    async with assert_runs_under(2):
        report = await keygen(
            fake, request(3, 5), timeouts=evolve(QUICK, attempt_s=60, grace_s=None), total_s=60
        )
    assert len(report.holders) == 4
    (late,) = [outcome for outcome in report.outcomes if not outcome.is_success]
    assert (late.operator, late.error) == (fake.operator(4), None)


@pytest.mark.parametrize(("grace_s", "is_waited_for"), [(None, False), (0.3, True)])
async def test_a_node_that_stalls_every_time_costs_a_grace_only_now_and_then(
    grace_s: float | None, is_waited_for: bool
) -> None:
    """From the third time on it is not listened to, unless the caller said for how long to listen."""
    fake = FakeNetwork(2, 3)
    fake.misbehaviour[fake.operator(3)] = hanging("dan_keygen")
    network = fake.network(timeouts=evolve(QUICK, attempt_s=60, grace_s=grace_s))
    for _ in range(3):
        report = await network.keygen(request(2, 3), Owner().auth, deadline=Deadline(60))
        assert len(report.holders) == 2
    assert (report.timings.keygen_s > 0.3) == is_waited_for
    (late,) = [node for node in network.pool.nodes if node.operator == fake.operator(3)]
    assert late.health.late_keygens == 3
    del fake.misbehaviour[fake.operator(3)]
    for _ in range(16):
        await network.keygen(request(2, 3), Owner().auth, deadline=Deadline(60))
    assert late.health.late_keygens == 0
    await network.aclose()


# --- the deadline -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dan_challenge", "dan_keygen"])
async def test_past_the_deadline_every_node_is_named(method: str) -> None:
    """Too many nodes hang: one error, that is about the quorum and about the deadline, with every node in it."""
    fake = FakeNetwork(2, 3)
    for index in (1, 2):
        fake.misbehaviour[fake.operator(index)] = hanging(method)
    with pytest.raises(QuorumDeadlineError, match=r"deadline of 0\.1 s ran out") as caught:
        await keygen(fake, request(2, 3), total_s=0.1, timeouts=evolve(QUICK, attempt_s=60))
    assert isinstance(caught.value, DeadlineExceededError)
    assert {outcome.operator for outcome in caught.value.nodes} == {i.operator for i in fake.identities}
    assert caught.value.phase == method.removeprefix("dan_")


async def test_the_error_of_a_later_round_names_the_earlier_ones() -> None:
    """A spare that fails at the challenge of the second round: the first round's failures are still there."""
    fake = FakeNetwork(2, 4)
    (culprit,) = blaming(fake, 1)
    blame = fake.misbehaviour[culprit]

    async def die_later(method: str, params: Any) -> Any:
        if method == "dan_challenge" and params["requestId"] != REQUEST_ID:
            raise RequestTimeoutError("gone")
        return await blame(method, params)

    for index in (2, 3):
        fake.misbehaviour[fake.operator(index)] = die_later
    with pytest.raises(QuorumError, match="A first attempt had failed") as caught:
        await keygen(fake, request(2, 3))
    assert caught.value.culprits == (culprit,)
    steps = {(outcome.operator, outcome.step) for outcome in caught.value.nodes}
    assert {(fake.operator(2), "keygen"), (fake.operator(2), "challenge")} <= steps


# --- probes -----------------------------------------------------------------------------------------------------------


async def test_a_rested_node_is_probed_beside_a_key_generation() -> None:
    """There are enough others: it is asked how it is, takes no part, and is live again."""
    clock = ManualClock()
    fake = FakeNetwork(2, 4)
    fake.misbehaviour[fake.operator(1)] = refusing(ConnectError("gone"), method="dan_challenge")
    network = fake.network(retry=ONCE, rest=RestPolicy(clock=clock, random=lambda: 1.0))
    auth = Owner().auth
    await network.keygen(request(2, 3), auth, deadline=Deadline(5))
    assert not fake.called("dan_health")
    del fake.misbehaviour[fake.operator(1)]
    clock.advance(0.9)
    await network.keygen(request(2, 3), auth, deadline=Deadline(5))
    assert not fake.called("dan_health")
    clock.advance(0.2)
    report = await network.keygen(request(2, 3), auth, deadline=Deadline(5))
    assert fake.called("dan_health") == [fake.operator(1)]
    assert fake.operator(1) not in report.holders
    assert {node.state for node in (await network.health()).nodes} == {"live"}
    await network.aclose()


async def test_relaying_for_somebody_else_probes_as_well() -> None:
    """A gateway in front of a pool does not lose its rested nodes for good."""
    clock = ManualClock()
    fake = FakeNetwork(2, 4)
    fake.misbehaviour[fake.operator(1)] = refusing(ConnectError("gone"), method="dan_challenge")
    network = fake.network(retry=ONCE, rest=RestPolicy(clock=clock, random=lambda: 1.0))
    await network.keygen(request(2, 3), Owner().auth, deadline=Deadline(5))
    del fake.misbehaviour[fake.operator(1)]
    clock.advance(1)
    setup = SetupText(request_id=REQUEST_ID, operation="keygen", revision="1", text="{}")

    async def authenticate(challenge: str) -> UserAuthentication:
        return UserAuthentication(method="eoa", id=OWNER, credentials="{}", signature="0x00")

    report = await relay_keygen(network.pool, setup, Threshold(2, 3), authenticate, deadline=Deadline(5))
    assert fake.called("dan_health") == [fake.operator(1)]
    assert fake.operator(1) not in report.holders
    await network.aclose()


async def test_only_one_probe_at_a_time() -> None:
    """A hundred key generations at once ask a rested node once; and a probe that hangs holds none of them."""
    clock = ManualClock()
    fake = FakeNetwork(2, 4)
    rested = fake.operator(1)
    fake.misbehaviour[rested] = refusing(ConnectError("gone"), method="dan_challenge")
    network = fake.network(retry=ONCE, rest=RestPolicy(clock=clock, random=lambda: 1.0))
    auth = Owner().auth
    await network.keygen(request(2, 3), auth, deadline=Deadline(5))
    fake.misbehaviour[rested] = hanging("dan_health")
    clock.advance(1)
    asked = [request(2, 3, request_id=restarted_request_id(REQUEST_ID, k)) for k in range(1, 21)]
    async with assert_runs_under(5):
        await asyncio.gather(*(network.keygen(one, auth, deadline=Deadline(60)) for one in asked))
    assert fake.called("dan_health") == [rested]
    assert fake.called("dan_challenge").count(rested) == 1
    await network.aclose()
    assert len(asyncio.all_tasks()) == 1


# --- what health() shows ----------------------------------------------------------------------------------------------


async def test_health_shows_states_and_figures(caplog: pytest.LogCaptureFixture) -> None:
    """Live, resting and down; failures in a row, rest, averages, how often asked."""
    clock = ManualClock()
    fake = FakeNetwork(2, 5)
    resting, down = fake.operator(1), fake.operator(2)
    fake.misbehaviour[resting] = refusing(ConnectError("gone"), method="dan_challenge")
    fake.misbehaviour[down] = refusing(ConnectError("gone"), method="dan_health")
    network = fake.network(retry=ONCE, rest=RestPolicy(clock=clock, random=lambda: 1.0))
    with caplog.at_level(logging.WARNING):
        await network.keygen(request(2, 3), Owner().auth, deadline=Deadline(5))
        health = await network.health()
    nodes = {node.name: node for node in health.nodes}
    assert [nodes[o].state for o in map(fake.operator, range(1, 6))] == [
        "resting",
        "down",
        "live",
        "live",
        "live",
    ]
    assert (nodes[resting].failures, nodes[resting].rests_for_s) == (1, pytest.approx(1))
    assert nodes[resting].is_live
    assert (nodes[down].failures, nodes[down].is_live) == (1, False)
    assert nodes[fake.operator(3)].average_latency_s is not None
    assert [nodes[o].keygens for o in map(fake.operator, range(1, 6))] == [0, 1, 1, 1, 0]
    assert [nodes[o].requests for o in map(fake.operator, range(1, 6))] == [2, 3, 3, 3, 1]
    assert health.live == 4
    await network.aclose()


async def test_health_shows_a_probe_that_is_under_way() -> None:
    """While the one request is out that lets a node prove itself, its state is probing."""
    clock = ManualClock()
    fake = FakeNetwork(2, 2)
    probed, released = asyncio.Event(), asyncio.Event()

    async def fail_then_stall(method: str, params: Any) -> Any:
        if method == "dan_challenge" and not clock.now > 1_700_000_000:
            raise ConnectError("gone")
        if method == "dan_challenge":
            probed.set()
            await released.wait()
        return None

    fake.misbehaviour[fake.operator(1)] = fail_then_stall
    network = fake.network(retry=ONCE, rest=RestPolicy(clock=clock, random=lambda: 1.0))
    with pytest.raises(QuorumError):
        await network.keygen(request(2, 2), Owner().auth, deadline=Deadline(5))
    clock.advance(1)
    running = asyncio.create_task(network.keygen(request(2, 2), Owner().auth, deadline=Deadline(5)))
    await probed.wait()
    (state,) = [node.state for node in (await network.health()).nodes if node.name == fake.operator(1)]
    assert state == "probing"
    released.set()
    await running
    assert [node.state for node in (await network.health()).nodes] == ["live", "live"]
    await network.aclose()

"""Signing over scripted nodes: one wrong move at a time."""

from __future__ import annotations

import asyncio
import time

import pytest
from attrs import evolve
from eth_account import Account
from eth_account.messages import encode_defunct

from dan_async import DanClient
from dan_async.crypto.curve import ORDER
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import (
    AcknowledgementError,
    ClientClosedError,
    DeadlineExceededError,
    EphemeralKeyRefusedError,
    NodeCode,
    NodeRefusedError,
    NotPermittedError,
    OverloadedError,
    PermissionDeniedError,
    QuorumError,
    RpcError,
)
from dan_async.nodes import SigningOptions
from dan_async.nodes.health import Lateness
from dan_async.nodes.signature_shares import _shifted_nonce
from dan_async.protocols import fields
from dan_async.retry import RetryPolicy
from tests.fake_signing import SigningNetwork
from tests.helpers import assert_runs_under, wait_until


async def sign(net, *, text="hello", timeout=4.0, **options):
    """Sign once with a new client."""
    async with client(net, **options) as dan:
        return await dan.sign_message(text, net.session(), timeout=timeout)


def client(net, **options):
    return DanClient(net.network(**options), clock=lambda: net.now)


def holds(net, signature, text="hello"):
    return Account.recover_message(encode_defunct(text=text), signature=signature) == net.address


def silent(*methods):
    """Never answers these."""

    async def misbehave(method, params):
        if method in methods:
            await asyncio.Event().wait()

    return misbehave


def refuses(code, *, data=None, methods=("dan_presign", "dan_sign")):
    async def misbehave(method, params):
        if method in methods:
            raise RpcError(code, "no", data or {})

    return misbehave


def answers(net, index, change):
    """Answers dan_sign with honest shares, changed."""
    identity = net.identities[index - 1]

    async def misbehave(method, params):
        if method == "dan_sign":
            return change(identity, params)
        return None

    return misbehave


# --- how many messages ------------------------------------------------------------------------------------------------


async def test_two_round_trips_with_t_nodes_each():
    """Without anything made ahead: t presignatures, t shares, nobody else is asked."""
    net = SigningNetwork(3, 5)
    assert holds(net, await sign(net, signing=SigningOptions(stock=0)))
    assert (len(net.called("dan_presign")), len(net.called("dan_sign"))) == (3, 3)
    assert len(net.calls) == 6


async def test_one_round_trip_when_presignatures_were_made_ahead(monkeypatch):
    """Between the caller's question and the answer there are t requests and t replies, and no other message."""
    net = SigningNetwork(3, 5)
    async with client(net) as dan:
        session = net.session()
        for _ in range(3):
            await dan.sign_message("warm-up", session)
            await made_ahead(dan)
        before = len(net.calls)
        # Nothing is ordered: only what this signature itself sends is counted.
        monkeypatch.setattr("dan_async.nodes.signing.PresignStock.order", lambda _stock, _session: False)
        assert holds(net, await dan.sign_message("hello", session))
        assert [method for _, method, _ in net.calls[before:]] == ["dan_sign"] * 3


async def test_what_follows_a_signature_is_prepared_while_the_nodes_sign(monkeypatch):
    """Its nonce, and the request for the next presignature: when the answers come, that is not in their way."""
    net = SigningNetwork(2, 3)
    signed, sign = [], EphemeralKey.sign_message
    monkeypatch.setattr(
        EphemeralKey, "sign_message", lambda key, data: signed.append(data) or sign(key, data)
    )
    async with client(net) as dan:
        for _ in range(2):
            await dan.sign_message("warm-up", net.session())
            await made_ahead(dan)
        signed.clear()
        before = []

        async def look(method, params):
            if method == "dan_sign":
                await asyncio.sleep(0.05)
                before.append((len(signed), _shifted_nonce.cache_info().currsize))

        _shifted_nonce.cache_clear()
        for identity in net.identities:
            net.misbehaviour[identity.operator] = look
        await dan.sign_message("hello", net.session())
        assert len(signed) == 2
        await made_ahead(dan)
        assert dan.network.signing_stock.made == 3
    assert before == [(2, 1)] * 2


async def made_ahead(dan):
    """Wait for what is being made in the background."""
    await asyncio.gather(*dan.network.pool.signer._refills)


async def test_no_presignature_is_used_twice():
    """Whatever number of signatures, at the same time too: the nodes would refuse, and count."""
    net = SigningNetwork(2, 3)
    async with client(net) as dan:
        for _ in range(3):
            await asyncio.gather(*(dan.sign_message(f"m{i}", net.session()) for i in range(4)))
    used = [p for _, method, params in net.calls if method == "dan_sign" for p in params["presignatureIds"]]
    assert len(used) == 2 * len(set(used))


async def test_what_was_made_ahead_is_not_used_after_its_time():
    """The nodes say when it ends; the client keeps a margin."""
    net = SigningNetwork(2, 3)
    net.presign_ends = int(net.now) + 1
    async with client(net) as dan:
        for _ in range(4):
            await dan.sign_message("hello", net.session())
            await made_ahead(dan)
            net.calls.clear()
        await dan.sign_message("hello", net.session())
        assert len(net.called("dan_presign")) >= 2


async def test_a_signer_that_is_slow_by_itself_does_not_stay_in():
    """Although it always signs: with what is made ahead by the same signers, each signature would wait for it."""
    net = SigningNetwork(2, 4)
    async with client(net) as dan:
        session = net.session()
        await dan.sign_message("hello", session)
        await made_ahead(dan)
        slow = net.called("dan_sign")[0]
        health = next(node.health for node in dan.network.pool.nodes if node.operator == slow)
        for _ in range(3):
            health.latency_s = 1.0
            await dan.sign_message("hello", session)
            await made_ahead(dan)
            net.calls.clear()
        await dan.sign_message("hello", session)
        assert len(net.called("dan_sign")) == 2
        assert slow not in net.called("dan_sign")
        assert not dan.network.signing_stock.wasted


async def test_a_signer_whose_presignatures_end_at_once_does_not_stay_in():
    """What was made ahead with it is never there when it is needed; the others keep theirs."""
    net = SigningNetwork(2, 3)

    async def hasty(method, params):
        if method == "dan_presign":
            return net.presign(net.identities[0], params) | {"expiresAt": int(net.now) + 1}
        return None

    net.misbehaviour[net.identities[0].operator] = hasty
    async with client(net) as dan:
        for _ in range(4):
            net.calls.clear()
            await dan.sign_message("hello", net.session())
            await made_ahead(dan)
        assert dan.network.signing_stock.used >= 2
    assert net.identities[0].operator not in net.called("dan_sign")


async def test_presignatures_that_the_nodes_forgot_are_replaced():
    """After a restart they know none of them."""
    net = SigningNetwork(2, 2)
    async with client(net) as dan:
        for _ in range(3):
            await dan.sign_message("hello", net.session())
            await made_ahead(dan)
        net.by_id.clear()
        assert holds(net, await dan.sign_message("hello", net.session()))


async def test_closing_ends_what_is_being_made():
    """No task outlives the network, and nothing is signed afterwards."""
    net = SigningNetwork(2, 3)
    async with client(net) as dan:
        for identity in net.identities:
            net.misbehaviour[identity.operator] = late_second_presign(net)
        await dan.sign_message("hello", net.session())
        assert dan.network.pool.signer._refills
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(ClientClosedError):
        await dan.network.signgen(None, None, deadline=None)


async def test_closing_ends_a_signature_under_way():
    """By the error that says so, not by one about the nodes."""
    net = SigningNetwork(2, 3)
    for identity in net.identities:
        net.misbehaviour[identity.operator] = silent("dan_sign")
    dan = client(net)
    signing = asyncio.create_task(dan.sign_message("hello", net.session()))
    while not net.called("dan_sign"):
        await asyncio.sleep(0)
    await dan.aclose()
    with pytest.raises(ClientClosedError):
        await signing


def late_second_presign(net):
    seen = []

    async def misbehave(method, params):
        if method == "dan_presign":
            seen.append(params)
            if len(seen) > 1:
                await asyncio.Event().wait()

    return misbehave


# --- one node that is no good -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dan_presign", "dan_sign"])
@pytest.mark.parametrize("index", [1, 2, 3])
async def test_a_silent_node_is_done_without(method, index, monkeypatch):
    """Another set is asked when it is late; the signature comes long before the deadline."""
    monkeypatch.setattr("dan_async.nodes.health._UNKNOWN_S", {"presign": 0.1, "sign": 0.1})
    net = SigningNetwork(2, 3)
    net.misbehaviour[net.operator(index)] = silent(method)
    async with client(net) as dan:
        assert holds(net, await dan.sign_message("hello", net.session(), timeout=4))
        before = len(net.calls)
        assert holds(net, await dan.sign_message("hello", net.session(), timeout=4))
        asked = {operator for operator, _, _ in net.calls[before:]}
        assert net.operator(index) not in asked or index == 3


@pytest.mark.parametrize(
    "code",
    [
        NodeCode.INTERNAL_ERROR,
        NodeCode.UNSUPPORTED,
        NodeCode.EPHEMERAL_KEY_REFUSED,
        NodeCode.NOT_PERMITTED,
        NodeCode.PRESIGNATURE_SPENT,
        NodeCode.REQUEST_CONFLICT,
    ],
)
async def test_one_node_that_refuses_decides_nothing(code):
    """The others sign."""
    net = SigningNetwork(3, 5)
    net.misbehaviour[net.operator(1)] = refuses(code)
    assert holds(net, await sign(net))


@pytest.mark.parametrize("member", ["u", "w", "digest", "nonce_point", "presignature_id"])
async def test_a_liar_is_done_without(member):
    """Its share is properly signed, and wrong; another set signs, and nothing wrong comes out."""
    net = SigningNetwork(2, 3)

    def lie(identity, params):
        honest = net.sign(identity, params)
        value = getattr(honest.claims.shares[0], member)
        wrong = value ^ 1 if isinstance(value, int) else bytes(len(value))
        return fields.to_json(
            net.resigned(identity, honest, shares=(evolve(honest.claims.shares[0], **{member: wrong}),))
        )

    net.misbehaviour[net.operator(1)] = answers(net, 1, lie)
    assert holds(net, await sign(net))


async def test_too_many_liars_make_nothing():
    """With two of three no set is without one, and the error names both."""
    net = SigningNetwork(2, 3)
    for index in (1, 2):

        def lie(identity, params, index=index):
            honest = net.sign(identity, params)
            share = evolve(honest.claims.shares[0], u=(honest.claims.shares[0].u + index) % ORDER)
            return fields.to_json(net.resigned(identity, honest, shares=(share,)))

        net.misbehaviour[net.operator(index)] = answers(net, index, lie)
    with pytest.raises(QuorumError) as caught:
        await sign(net)
    assert {outcome.operator: type(outcome.error) for outcome in caught.value.outcomes} == {
        net.operator(index): AcknowledgementError for index in (1, 2)
    }


@pytest.mark.parametrize("member", ["presignatureId", "noncePoint", "publicKey"])
async def test_signers_must_agree_on_a_presignature(member):
    """One that says something else is done without."""
    net = SigningNetwork(2, 3)
    identity = net.identities[0]

    async def lie(method, params):
        if method != "dan_presign":
            return None
        answer = net.presign(identity, params)
        return {**answer, member: "0x" + "02" * (len(answer[member]) // 2 - 1)}

    net.misbehaviour[identity.operator] = lie
    assert holds(net, await sign(net))


@pytest.mark.parametrize("answer", [{}, [], "text", 5, {"shares": []}])
@pytest.mark.parametrize("method", ["dan_presign", "dan_sign"])
async def test_nonsense_is_done_without(answer, method):
    """Whatever it is."""
    net = SigningNetwork(2, 3)

    async def misbehave(name, params):
        return answer if name == method else None

    net.misbehaviour[net.operator(1)] = misbehave
    if answer:
        assert holds(net, await sign(net))


async def test_whom_the_others_blame_is_done_without():
    """SIGNING_FAILED names it; the one who says so is not at fault."""
    net = SigningNetwork(2, 4)
    culprit = net.operator(2)
    net.misbehaviour[net.operator(1)] = blames(culprit)
    net.misbehaviour[culprit] = refuses(NodeCode.SIGNING_FAILED)
    async with client(net) as dan:
        assert holds(net, await dan.sign_message("hello", net.session()))
    last = net.calls[-1][2]["signers"]
    assert culprit not in last


def blames(culprit):
    async def misbehave(method, params):
        if culprit in params.get("signers", ()):
            raise RpcError(NodeCode.SIGNING_FAILED, "failed", {"culprits": [culprit]})

    return misbehave


async def test_nodes_that_do_not_hold_the_key_are_asked_once():
    """In a pool that is larger than n."""
    net = SigningNetwork(2, 2, others=3)
    net.holders = net.identities[3:]
    async with client(net) as dan:
        assert holds(net, await dan.sign_message("hello", net.session()))
        before = len(net.calls)
        assert holds(net, await dan.sign_message("hello", net.session()))
        asked = {operator for operator, _, _ in net.calls[before:]}
    assert asked == {holder.operator for holder in net.holders}


# --- all nodes refuse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [(NodeCode.EPHEMERAL_KEY_REFUSED, EphemeralKeyRefusedError), (NodeCode.NOT_PERMITTED, NotPermittedError)],
)
async def test_what_the_nodes_refuse_is_told_apart(code, error):
    """At once, with every node's words, and not to be repeated."""
    net = SigningNetwork(3, 5)
    for identity in net.identities:
        net.misbehaviour[identity.operator] = refuses(code, data={"reason": "revoked"})
    with pytest.raises(error) as caught:
        await sign(net)
    assert not caught.value.retryable
    assert len(caught.value.nodes) >= 3
    assert all(isinstance(outcome.error, NodeRefusedError) for outcome in caught.value.nodes)
    assert all(outcome.elapsed_s > 0 for outcome in caught.value.nodes)
    assert isinstance(caught.value, QuorumError)


def test_what_is_not_permitted_is_a_permission_error_too():
    """One except clause for what the client and what the nodes say."""
    error = NotPermittedError("no", threshold=2, outcomes=())
    assert isinstance(error, PermissionDeniedError)
    assert (error.threshold, error.nodes, str(error)) == (2, (), "no")


async def test_a_key_that_nobody_holds():
    """An error that lists what each said."""
    net = SigningNetwork(2, 3)
    net.holders = []
    with pytest.raises(QuorumError, match="no such key") as caught:
        await sign(net)
    assert caught.value.message == "no 2 nodes hold the session's key"
    assert "network" in caught.value.hint
    assert not caught.value.retryable


async def test_spares_that_never_held_the_key_do_not_speak_for_the_holders():
    """If these fail by accident, the call may be made again."""
    net = SigningNetwork(2, 3, others=2)

    async def fail(method, params):
        raise RpcError(NodeCode.UNAVAILABLE, "busy")

    for holder in net.holders:
        net.misbehaviour[holder.operator] = fail
    with pytest.raises(QuorumError, match="no 2 nodes signed together") as caught:
        await sign(net)
    assert caught.value.retryable


async def test_a_node_that_holds_the_key_after_all_is_asked_again():
    """One that had no share of it is left out, but not where too few others can sign."""
    net = SigningNetwork(2, 3)
    first, second, _ = net.identities
    async with client(net) as dan:
        net.misbehaviour = {first.operator: refuses(NodeCode.UNKNOWN_KEY)}
        for _ in range(2):
            assert holds(net, await dan.sign_message("hello", net.session()))
        assert net.called("dan_presign").count(first.operator) == 1
        net.misbehaviour = {second.operator: refuses(NodeCode.UNAVAILABLE)}
        assert holds(net, await dan.sign_message("hello", net.session()))


async def test_a_pool_that_is_too_small():
    """Fewer than t nodes: an error, and nobody is asked."""
    net = SigningNetwork(2, 3)
    async with client(net) as dan:
        with pytest.raises(QuorumError):
            await dan.sign_message("hello", net.session(threshold=4, parties_number=5))
    assert not net.calls


async def test_the_deadline_holds_when_all_are_silent():
    """And says what was waited for."""
    net = SigningNetwork(2, 3)
    for identity in net.identities:
        net.misbehaviour[identity.operator] = silent("dan_presign")
    with pytest.raises(DeadlineExceededError):
        await sign(net, timeout=0.3)


async def test_a_network_with_no_stock_makes_nothing_ahead():
    """If the options say so."""
    net = SigningNetwork(2, 3)
    async with client(net, signing=SigningOptions(stock=0)) as dan:
        for _ in range(3):
            await dan.sign_message("hello", net.session())
    assert len(net.called("dan_presign")) == len(net.called("dan_sign")) == 6


# --- lateness ---------------------------------------------------------------------------------------------------------


def test_a_step_is_late_after_twice_the_usual_time():
    """Later if it differs much; at least a tenth of a second, at most ten."""
    lateness = Lateness()
    assert (lateness.limit_s("presign"), lateness.limit_s("sign")) == (0.75, 0.5)
    for _ in range(10):
        lateness.took("presign", 0.2)
    assert lateness.limit_s("presign") == pytest.approx(0.4)
    for _ in range(10):
        lateness.took("presign", 0.1)
        lateness.took("presign", 0.3)
    assert 0.5 < lateness.limit_s("presign") < 0.7
    lateness.took("sign", 0.001)
    assert lateness.limit_s("sign") == 0.1
    lateness.took("presign", 100)
    assert lateness.limit_s("presign") == 10.0


# --- nodes that ask to slow down --------------------------------------------------------------------------------------


async def test_nodes_that_ask_to_slow_down_lose_no_signature():
    """However often they do: that is no failure of theirs, and the signature comes in the end."""
    net, refusals = SigningNetwork(2, 3), 40

    async def busy(method, params):
        nonlocal refusals
        if method == "dan_presign" and refusals:
            refusals -= 1
            raise RpcError(NodeCode.RATE_LIMITED, "too many", {"retryAfter": 0})

    net.misbehaviour = {identity.operator: busy for identity in net.identities}
    assert holds(net, await sign(net, timeout=60.0))
    assert not refusals


async def test_a_session_for_which_all_nodes_are_late_gets_fewer_places(monkeypatch):
    """They have too much to do: to ask other sets for the same besides, and for more, would only keep them longer."""
    monkeypatch.setattr("dan_async.nodes.health._UNKNOWN_S", {"presign": 0.02, "sign": 60.0})
    net = SigningNetwork(2, 2)
    at_once, most, go_on = 0, 0, asyncio.Event()

    async def busy(method, params):
        nonlocal at_once, most
        if method == "dan_presign":
            at_once += 1
            most = max(most, at_once)
            await go_on.wait()
            await asyncio.sleep(0)
            at_once -= 1

    async with client(net, signing=SigningOptions(stock=0)) as dan:
        for operator in (net.operator(1), net.operator(2)):
            net.misbehaviour[operator] = busy
        calls = [asyncio.create_task(dan.sign_message("hello", net.session())) for _ in range(8)]
        await asyncio.sleep(0.2)
        go_on.set()
        await asyncio.gather(*calls)
        assert most == 16
        most = 0
        await asyncio.gather(*(dan.sign_message("hello", net.session()) for _ in range(8)))
    assert most < 8


async def test_a_busy_node_is_not_asked_sooner_than_it_wants():
    """For as long as it asks for, nobody asks it for this session, though its limit of attempts is reached."""
    net, times = SigningNetwork(2, 2), []

    async def busy(method, params):
        times.append(time.monotonic())
        if len(times) <= 4:
            raise RpcError(NodeCode.RATE_LIMITED, "too many", {"retryAfter": 1})

    net.misbehaviour = {identity.operator: busy for identity in net.identities}
    assert holds(net, await sign(net, timeout=60.0, retry=RetryPolicy(attempts=1)))
    assert times[4] - times[3] >= 0.99


async def test_nodes_that_are_busy_past_the_deadline():
    """The error says that it was for lack of room, has each node's words in its cause, and comes at once."""
    net = SigningNetwork(2, 3)
    busy = refuses(NodeCode.RATE_LIMITED, data={"retryAfter": 600})
    net.misbehaviour = {identity.operator: busy for identity in net.identities}
    async with assert_runs_under(10):
        with pytest.raises(OverloadedError, match="slow down") as caught:
            await sign(net, timeout=60.0)
    assert isinstance(caught.value.__cause__, QuorumError)


async def test_a_node_that_is_never_ready_does_not_have_the_others_flooded():
    """It is busy for no time at all, again and again, while another one is down: the third is asked now and then."""
    net = SigningNetwork(2, 3)
    net.misbehaviour = {
        net.identities[0].operator: refuses(NodeCode.RATE_LIMITED, data={"retryAfter": 0}),
        net.identities[1].operator: refuses(NodeCode.UNAVAILABLE),
    }
    with pytest.raises((DeadlineExceededError, OverloadedError)):
        await sign(net, timeout=0.5, retry=RetryPolicy(attempts=1))
    # Two of the three sets have it, each once in 50 ms.
    assert net.called("dan_presign").count(net.identities[2].operator) <= 22


async def test_closing_ends_the_wait_for_busy_nodes():
    """Nobody waits on for nodes that asked for an hour when the client is closed."""
    net = SigningNetwork(2, 2)
    busy = refuses(NodeCode.RATE_LIMITED, data={"retryAfter": 3600})
    net.misbehaviour = {identity.operator: busy for identity in net.identities}
    dan = client(net, retry=RetryPolicy(attempts=1))
    call = asyncio.create_task(dan.sign_message("hello", net.session(), timeout=7200))
    await wait_until(lambda: len(net.called("dan_presign")) == 2)
    await wait_until(lambda: not dan.network.pool.signer.queue._held)  # it has left its place, to wait
    await dan.aclose()
    async with assert_runs_under(5):
        with pytest.raises(ClientClosedError):
            await call


async def test_one_busy_node_holds_up_nothing_that_failed_for_good():
    """If too few could sign even when it has room again, nobody waits for it."""
    net = SigningNetwork(2, 3)
    net.misbehaviour = {
        net.identities[0].operator: refuses(NodeCode.RATE_LIMITED),
        net.identities[1].operator: refuses(NodeCode.UNKNOWN_KEY),
        net.identities[2].operator: refuses(NodeCode.UNKNOWN_KEY),
    }
    async with assert_runs_under(10):
        with pytest.raises(QuorumError, match="no 2 nodes"):
            await sign(net, timeout=60.0)

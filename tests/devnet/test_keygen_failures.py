"""Key generation among nodes that fail or lie: it ends, without a key, and the guilty are named."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from dan_async.devnet import (
    DealWrongShare,
    Delay,
    Equivocate,
    FallSilent,
    NodeLimits,
    SquatSession,
    WithholdEcho,
)
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from dan_async.protocols.node import Acknowledgement
from tests.devnet.raw_client import Keygen, RpcFaultError, connect_all
from tests.helpers import ManualClock, assert_runs_under

#: Long enough for a round on a busy machine, short enough to wait for.
QUICK = NodeLimits(round_s=1.5, stop_grace_s=0.1)


async def failures(keygen, nodes=None):
    """Send the request to these nodes; gives each one's refusal."""
    text = fields.encode(keygen.params)

    async def ask(node):
        with pytest.raises(RpcFaultError) as caught:
            await node.call("dan_keygen", text)
        return caught.value

    return await asyncio.gather(*(ask(node) for node in nodes or keygen.nodes))


def holders(devnet):
    """How many nodes hold any key."""
    return sum(len(node._runner._last.ring) for node in devnet.nodes)


async def make(make_devnet, t=2, n=4):
    return await make_devnet(t, n, limits=QUICK)


async def test_who_withholds_the_last_message_is_named_too(make_devnet):
    """It has everybody's echo and so a share, alone; the others have none, and t acknowledgements there are not."""
    devnet = await make(make_devnet)
    devnet.faults[1] = FallSilent(round=3)
    silent = devnet.nodes[1].operator
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        others = [node for node in nodes if node.operator != silent]
        (own,) = [node for node in nodes if node.operator == silent]
        finished = asyncio.create_task(own.call("dan_keygen", fields.encode(keygen.params)))
        refusals = await failures(keygen, others)
        assert (await finished)["operator"] == silent
    assert [refusal.data["culprits"] for refusal in refusals] == [[silent]] * 3
    assert holders(devnet) == 1


@asynccontextmanager
async def unfinished(make_devnet):
    """A key generation whose last echo one node kept: gives the devnet, request, other nodes and that node's answer."""
    devnet = await make(make_devnet)
    devnet.faults[1] = FallSilent(round=3)
    silent = devnet.nodes[1].operator
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        others = [node for node in nodes if node.operator != silent]
        (own,) = [node for node in nodes if node.operator == silent]
        finished = asyncio.create_task(own.call("dan_keygen", fields.encode(keygen.params)))
        await failures(keygen, others)
        yield devnet, keygen, others, await finished


async def certify(node, keygen, certificate):
    params = node_1.CertifyParams(request_id=keygen.request_id, certificate=bytes.fromhex(certificate[2:]))
    return await node.call("dan_certify_keygen", fields.encode(params))


async def test_a_certificate_finishes_what_had_failed(make_devnet):
    """Whoever brings it; then the request itself gets its acknowledgement as well."""
    async with unfinished(make_devnet) as (devnet, keygen, others, answer):
        certificate = answer["certificate"]
        for false in ("0x", certificate[:-2] + "00", certificate + "00"):
            with pytest.raises(RpcFaultError) as caught:
                await certify(others[0], keygen, false)
            assert caught.value.code == NodeCode.KEYGEN_FAILED
        assert holders(devnet) == 1
        for node in others:
            made = await certify(node, keygen, certificate)
            assert (made["operator"], made["claims"]) == (node.operator, answer["claims"])
            assert await node.call("dan_keygen", fields.encode(keygen.params)) == made
        with pytest.raises(RpcFaultError):  # a stranger learns nothing for any other
            await certify(others[0], keygen, certificate[:-2] + "00")
    assert holders(devnet) == 4


async def test_a_certificate_that_comes_late_from_a_peer_is_taken(make_devnet):
    """The key generation has failed by then; a node that asks for it is answered, as one that has asked too early."""
    async with unfinished(make_devnet) as (devnet, keygen, _, _):
        devnet.faults[1] = None
        for node in devnet.nodes:
            for left in list(node._runner._last._keygen._unfinished.values()):
                left.session.ask()
        while holders(devnet) < 4:
            await asyncio.sleep(0.01)
        assert len({ack.claims for ack in await keygen.send()}) == 1


async def test_a_new_attempt_ends_the_old_one(make_devnet):
    """There is one key for a request id: what failed before is not certified any more once the id is used again."""
    async with unfinished(make_devnet) as (devnet, keygen, others, answer):
        await keygen.prepare()
        await failures(keygen, others)  # the node that holds the key takes no part
        with pytest.raises(RpcFaultError):
            await certify(others[0], keygen, answer["certificate"])
    assert holders(devnet) == 1


async def test_a_new_attempt_waits_for_a_certificate_that_is_being_taken(make_devnet):
    """The key of the old one is being stored: then the id is taken, and no second key can come of it."""
    async with unfinished(make_devnet) as (devnet, keygen, others, answer):
        (node,) = [node for node in devnet.nodes if node.operator == others[0].operator]
        store, storing, go_on = node._runner._memory, threading.Event(), threading.Event()
        put = store.put

        def slowly(name, data):
            storing.set()
            go_on.wait(5)
            put(name, data)

        store.put = slowly
        certified = asyncio.create_task(certify(others[0], keygen, answer["certificate"]))
        while not storing.is_set():
            await asyncio.sleep(0.01)
        again = fields.encode(await keygen.prepare())
        asked = asyncio.create_task(others[0].code_of("dan_keygen", again))
        await asyncio.sleep(0.1)
        go_on.set()
        assert await asked == NodeCode.REQUEST_CONFLICT
        assert (await certified)["claims"] == answer["claims"]


async def test_what_is_settled_takes_no_certificate(make_devnet):
    """The answer that no key was made here stays true; one that asks the others once more, and gets it, says so."""
    async with unfinished(make_devnet) as (devnet, keygen, others, answer):
        assert await keygen.settle(others[0]) == []
        with pytest.raises(RpcFaultError):
            await certify(others[0], keygen, answer["certificate"])
        devnet.faults[1] = None
        (settled,) = await keygen.settle(others[1])
        assert settled["claims"] == answer["claims"]
        while holders(devnet) < 3:  # the third had asked the second, which passes it on
            await asyncio.sleep(0.01)
        assert await keygen.settle(others[0]) == []


@pytest.mark.parametrize("reach", [1, 2])
async def test_an_echo_that_is_withheld_from_some_keeps_the_key_from_nobody(make_devnet, reach):
    """Whoever has all echoes passes them on: every honest node gets its share, and any t of them sign without the culprit."""
    devnet = await make(make_devnet, 3, 5)
    devnet.faults[1] = WithholdEcho(reach=reach)
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        acks = await Keygen(nodes=nodes, t=3).run()
    assert len({ack.claims for ack in acks}) == 1
    assert holders(devnet) == 5


@pytest.mark.parametrize("round_", [1, 2])
async def test_a_silent_node_is_named_by_all_others(make_devnet, round_):
    """Whichever round it falls silent in; the deadline of that round ends the wait."""
    devnet = await make(make_devnet)
    devnet.faults[1] = FallSilent(round=round_)
    silent = devnet.nodes[1].operator
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        refusals = await failures(keygen)
    for node, refusal in zip(nodes, refusals, strict=True):
        assert refusal.code == NodeCode.KEYGEN_FAILED
        if node.operator != silent:
            assert refusal.data["culprits"] == [silent]
    assert holders(devnet) == 0


async def test_a_node_that_is_down_is_named(make_devnet):
    """It was asked for a nonce, and was gone before the request came."""
    devnet = await make(make_devnet)
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        down = next(node for node in devnet.nodes if node.operator == nodes[2].operator)
        await down.stop()
        refusals = await failures(keygen, [nodes[0], nodes[1], nodes[3]])
    assert [refusal.data["culprits"] for refusal in refusals] == [[down.operator]] * 3


async def test_a_request_that_not_all_nodes_get_fails_and_names_the_others(make_devnet):
    """A client that asks only some of the participants has their time, for one round."""
    devnet = await make(make_devnet, 2, 3)
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        (refusal,) = await failures(keygen, nodes[:1])
    assert refusal.data["culprits"] == [nodes[1].operator, nodes[2].operator]


async def test_a_wrong_share_is_proven_to_everybody(make_devnet):
    """Only its victim sees it; the complaint convinces the others, and all name the dealer."""
    devnet = await make(make_devnet)
    devnet.faults[2] = DealWrongShare()
    dealer = devnet.nodes[2].operator
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        refusals = await failures(keygen)
    assert [refusal.data["culprits"] for refusal in refusals] == [[dealer]] * 4
    assert all("wrong share" in refusal.message for refusal in refusals)
    assert holders(devnet) == 0


async def test_equivocation_is_seen_by_all(make_devnet):
    """A node with two faces: the signed echoes differ, nobody stores a share, and its two signatures prove who lied."""
    devnet = await make(make_devnet)
    devnet.faults[0] = Equivocate()
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        refusals = await failures(keygen)
    assert {refusal.code for refusal in refusals} == {NodeCode.KEYGEN_FAILED}
    assert any("equivocation" in refusal.message for refusal in refusals)
    two_faced = devnet.nodes[0].operator
    for node, refusal in zip(nodes, refusals, strict=True):
        assert node.operator == two_faced or refusal.data["culprits"] == [two_faced]
    assert holders(devnet) == 0


async def test_a_stopping_node_tells_the_others(make_devnet):
    """They need not wait for the deadline of the round."""
    devnet = await make_devnet(2, 3, limits=NodeLimits(round_s=20, stop_grace_s=0.1))
    devnet.faults[0] = FallSilent()
    async with connect_all(devnet) as nodes, assert_runs_under(15):
        keygen = Keygen(nodes=nodes, t=2)
        text = fields.encode(await keygen.prepare())
        stopping = devnet.nodes[1]
        asked = [asyncio.create_task(node.call("dan_keygen", text)) for node in nodes]
        while sum(len(node._runner._last._sessions._running) for node in devnet.nodes) < 3:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # the links are up
        await stopping.stop()
        refusals = await asyncio.gather(*asked, return_exceptions=True)
    codes = {node.operator: refusal.code for node, refusal in zip(nodes, refusals, strict=True)}
    assert codes.pop(stopping.operator) == NodeCode.UNAVAILABLE
    assert set(codes.values()) == {NodeCode.KEYGEN_FAILED}
    for node, refusal in zip(nodes, refusals, strict=True):
        if node.operator != stopping.operator:
            assert refusal.data["culprits"] == [stopping.operator]


async def test_after_a_failure_the_nodes_work_on(make_devnet):
    """The next request makes a key."""
    devnet = await make(make_devnet)
    devnet.faults[3] = DealWrongShare(times=1)
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        await failures(keygen)
        assert len({ack.claims for ack in await Keygen(nodes=nodes, t=2).run()}) == 1


async def test_nothing_secret_is_logged(make_devnet, caplog):
    """Not even of a key generation that fails with a complaint, which holds a share."""
    caplog.set_level("DEBUG", "dan_async")
    devnet = await make(make_devnet, 2, 2)
    async with connect_all(devnet) as nodes:
        (ack, *_) = await Keygen(nodes=nodes, t=2).run()
        devnet.faults[0] = DealWrongShare()
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        await failures(keygen)
    assert keygen.request_id in caplog.text
    for node in devnet.nodes:
        share = node.reveal_share(ack.key_id).secret_share
        identity = node._runner._config.identity.to_hex()
        for secret in (f"{share:x}", str(share), identity):
            assert secret not in caplog.text


async def test_a_share_that_cannot_be_stored_is_not_acknowledged(make_devnet, caplog):
    """INTERNAL_ERROR, again for the same request; the log says where, and nothing of what the disk said."""
    devnet = await make(make_devnet, 2, 2)

    def full(*_):
        raise OSError("a secret path")

    devnet.nodes[0]._runner._memory.put = full
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        (failing,) = [node for node in nodes if node.operator == devnet.nodes[0].operator]
        (other,) = [node for node in nodes if node is not failing]
        text = fields.encode(keygen.params)
        answer = asyncio.create_task(other.call("dan_keygen", text))
        for _ in range(2):
            with pytest.raises(RpcFaultError) as caught:
                await failing.call("dan_keygen", text)
            assert (caught.value.code, caught.value.message) == (
                NodeCode.INTERNAL_ERROR,
                "the node has failed",
            )
        assert (await answer)["operator"] == other.operator
    assert devnet.nodes[0].reveal_share(Acknowledgement.read(await answer).key_id) is None
    assert "OSError at " in caplog.text
    assert "secret path" not in caplog.text


async def test_a_one_shot_request_is_not_run_twice_under_one_session(make_devnet):
    """CHALLENGE_REUSED once its failure is forgotten: parties never work twice under one session id."""
    clock = ManualClock()
    devnet = await make_devnet(2, 3, clock=clock, limits=QUICK)
    devnet.faults[0] = FallSilent()
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 86_400)
        keygen.request_id = node_1.oneshot_request_id(keygen.digest)
        keygen.sign_one_shot()
        assert await keygen.codes() == [NodeCode.KEYGEN_FAILED] * 3
        clock.advance(3600)
        assert await keygen.codes() == [NodeCode.CHALLENGE_REUSED] * 3


async def test_the_id_of_a_coming_key_generation_cannot_be_squatted(make_devnet):
    """A set-up for signing that a node starts under it, before the others begin, is another session."""
    devnet = await make(make_devnet, 2, 3)
    first, *others = sorted(devnet.nodes, key=lambda node: node.operator.lower())  # it may begin set-ups
    devnet.faults[first.index] = SquatSession()
    for node in others:
        devnet.faults[node.index] = Delay(seconds=0.2, methods=("dan_keygen",))
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        acks = await keygen.run()
    assert len({ack.claims for ack in acks}) == 1
    assert holders(devnet) == 3


async def test_a_one_shot_request_makes_one_key(devnet):
    """However often it is sent."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        keygen.request_id = node_1.oneshot_request_id(keygen.digest)
        keygen.sign_one_shot()
        acks = await keygen.send()
        assert await keygen.send() == acks


async def test_a_one_shot_request_has_the_id_of_its_setup(devnet):
    """CHALLENGE_MISMATCH under any other: that id is all that guards it against replay."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        keygen.sign_one_shot()
        assert await keygen.codes() == [NodeCode.CHALLENGE_MISMATCH] * 3

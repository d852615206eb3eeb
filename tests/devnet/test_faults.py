"""Faults on purpose: each does what its name says, at the node it was set for, until it is taken away."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from dan_async.crypto.curve import decode, points_fit_degree
from dan_async.devnet import (
    AcknowledgeOtherKey,
    Crash,
    Delay,
    Devnet,
    DropReply,
    DropRequest,
    ExpireNonces,
    ForgeShares,
    ForgeSignature,
)
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from tests.devnet.raw_client import Keygen, connect, connect_all
from tests.helpers import assert_runs_under, no_leaks


def faulty(devnet, nodes, index=0):
    """The connection to ``devnet.nodes[index]``, and the others."""
    operator = devnet.nodes[index].operator
    (one,) = [node for node in nodes if node.operator == operator]
    return one, [node for node in nodes if node is not one]


async def test_delay(devnet):
    """The node answers late, the others do not."""
    devnet.faults[0] = Delay(seconds=0.3)
    async with connect_all(devnet) as nodes:
        slow, others = faulty(devnet, nodes)
        asked = asyncio.create_task(slow.call("dan_health", {}))
        with assert_runs_under(0.25):
            await asyncio.gather(*(node.call("dan_health", {}) for node in others))
        assert not asked.done()
        await asked
        devnet.faults[0] = None
        with assert_runs_under(0.25):
            await slow.call("dan_health", {})


async def test_drop_request(devnet):
    """No answer, and nothing is done; other methods work."""
    devnet.faults[0] = DropRequest(methods=["dan_challenge"])
    async with connect(devnet.nodes[0]) as node:
        await node.call("dan_health", {})
        with pytest.raises(TimeoutError):
            await node.call(
                "dan_challenge",
                {"requestId": "0x" + "00" * 32, "operation": "keygen", "setupHash": "0x" + "00" * 32},
                timeout_s=0.1,
            )
    assert len(devnet.nodes[0]._runner._server._methods._nonces) == 0


async def test_drop_request_by_post(devnet):
    """There the connection is cut."""
    devnet.faults[0] = DropRequest()
    body = '{"jsonrpc":"2.0","id":1,"method":"dan_health","params":{}}'
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(
                devnet.nodes[0].url.replace("ws:", "http:"),
                data=body,
                headers={"Content-Type": "application/json"},
            )


async def test_a_lost_reply_never_makes_a_second_key(devnet):
    """The node did the work; asked again, it gives the acknowledgement that was lost."""
    devnet.faults[0] = DropReply(methods=["dan_keygen"], times=1)
    async with connect_all(devnet) as nodes:
        one, others = faulty(devnet, nodes)
        keygen = Keygen(nodes=nodes, t=2)
        text = fields.encode(await keygen.prepare())
        lost = asyncio.create_task(one.call("dan_keygen", text, timeout_s=1))
        answers = await asyncio.gather(*(node.call("dan_keygen", text) for node in others))
        with pytest.raises(TimeoutError):
            await lost
        again = await one.call("dan_keygen", text)
    assert {answer["claims"] for answer in (again, *answers)} == {answers[0]["claims"]}


@pytest.mark.parametrize("index", [0, 1, 2])
async def test_a_crash_after_the_work_loses_no_key(devnet, index):
    """The node dies before it answers; restarted, it gives the same key."""
    devnet.faults[index] = Crash(methods=["dan_keygen"], times=1)
    async with connect_all(devnet) as nodes:
        one, others = faulty(devnet, nodes, index)
        keygen = Keygen(nodes=nodes, t=2)
        text = fields.encode(await keygen.prepare())
        lost = asyncio.create_task(one.call("dan_keygen", text))
        answers = await asyncio.gather(*(node.call("dan_keygen", text) for node in others))
        with pytest.raises(ConnectionError):
            await lost
    assert not devnet.nodes[index].is_running
    await devnet.nodes[index].start()
    async with connect(devnet.nodes[index]) as one:
        assert (await one.call("dan_keygen", text))["claims"] == answers[0]["claims"]


async def test_a_crashed_node_leaves_nothing():
    """It is gone as a killed process would be, and still nothing leaks."""
    async with no_leaks(), Devnet(2, 2) as devnet:
        devnet.faults[0] = Crash(methods=["dan_health"])
        async with connect_all(devnet) as nodes:
            await Keygen(nodes=nodes, t=2).run()
            one, _ = faulty(devnet, nodes)
            with pytest.raises(ConnectionError):
                await one.call("dan_health", {})


async def test_forge_signature(devnet):
    """The acknowledgement is right but for its signature, which is somebody else's."""
    devnet.faults[0] = ForgeSignature()
    async with connect_all(devnet) as nodes:
        acks = await Keygen(nodes=nodes, t=2).run()
    assert len({ack.claims for ack in acks}) == 1
    for ack in acks:
        signer = ack.signer(ack.request_id)
        assert (signer == ack.operator) is (ack.operator != devnet.nodes[0].operator)


async def test_forge_shares(devnet):
    """Properly signed, but the public shares do not make the public key."""
    devnet.faults[0] = ForgeShares()
    async with connect_all(devnet) as nodes:
        acks = await Keygen(nodes=nodes, t=2).run()
    for ack in acks:
        assert ack.signer(ack.request_id) == ack.operator
        fits = points_fit_degree(dict(enumerate(map(decode, (ack.public_key, *ack.public_shares)))), 1)
        assert fits is (ack.operator != devnet.nodes[0].operator)


async def test_acknowledge_other_key(devnet):
    """Right in itself, shares, id and signature; but it is not the key that the others made."""
    devnet.faults[0] = AcknowledgeOtherKey()
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        acks = await keygen.run()
    for ack in acks:
        assert ack.signer(ack.request_id) == ack.operator
        assert points_fit_degree(dict(enumerate(map(decode, (ack.public_key, *ack.public_shares)))), 1)
        assert ack.key_id == node_1.compute_key_id(
            public_key=ack.public_key,
            t=2,
            participants=keygen.participants,
            owner_id=keygen.params.user_authentication.id,
            request_id=keygen.request_id,
        )
    others = {ack.key_id for ack in acks if ack.operator != devnet.nodes[0].operator}
    assert len(others) == 1
    assert len({ack.key_id for ack in acks}) == 2


async def test_expire_nonces(devnet):
    """Refused at their use, and not used up: when the fault is taken away, the same request is good."""
    devnet.faults[0] = ExpireNonces()
    async with connect_all(devnet) as nodes:
        one, _ = faulty(devnet, nodes)
        keygen = Keygen(nodes=nodes, t=2)
        text = fields.encode(await keygen.prepare())
        assert await one.code_of("dan_keygen", text) == NodeCode.CHALLENGE_EXPIRED
        devnet.faults[0] = None
        assert len({ack.claims for ack in await keygen.send()}) == 1


async def test_expired_nonces_of_other_methods(devnet):
    """A fault of one method spares the others that take a nonce."""
    devnet.faults[0] = ExpireNonces(methods=["dan_add_ephemeral_key"])
    async with connect_all(devnet) as nodes:
        assert len(await Keygen(nodes=nodes, t=2).run()) == 3


async def test_a_finished_request_needs_no_nonce(devnet):
    """The node repeats its answer whatever has become of the nonce."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        acks = await keygen.run()
        devnet.faults[0] = ExpireNonces()
        assert await keygen.send() == acks


async def test_a_forgery_is_not_kept(devnet):
    """When the fault is taken away, the node says the truth about the same request."""
    devnet.faults[0] = [ForgeSignature(), ForgeShares()]
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.run()
        devnet.faults[0] = None
        assert len({ack.claims for ack in await keygen.send()}) == 1


async def test_faults_survive_a_restart(devnet):
    """They belong to the node, not to its run."""
    devnet.faults[0] = DropRequest()
    await devnet.nodes[0].stop()
    await devnet.nodes[0].start()
    async with connect(devnet.nodes[0]) as node:
        with pytest.raises(TimeoutError):
            await node.call("dan_health", {}, timeout_s=0.1)


async def test_faults_can_be_set_before_the_start():
    """And are in force from the first request on."""
    devnet = Devnet(2, 2)
    devnet.faults[1] = DropRequest()
    async with devnet, connect(devnet.nodes[1]) as node:
        with pytest.raises(TimeoutError):
            await node.call("dan_health", {}, timeout_s=0.1)

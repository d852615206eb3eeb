"""Nodes that die in key generation or after it, and come back by themselves or when they are started."""

from __future__ import annotations

import asyncio

import pytest

from dan_async.devnet import Crash, Devnet, NodeLimits
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols.node import Acknowledgement
from tests.devnet.raw_client import Keygen, RpcFaultError, connect, connect_all
from tests.helpers import assert_runs_under, no_leaks, wait_until

QUICK = NodeLimits(round_s=1.5, stop_grace_s=0.1)


async def crashed_keygen(devnet, index):
    """Run a key generation in which one node dies; gives the others' refusals."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        text = fields.encode(await keygen.prepare())
        answers = await asyncio.gather(
            *(node.call("dan_keygen", text) for node in nodes), return_exceptions=True
        )
        refusals = [answer for answer in answers if isinstance(answer, RpcFaultError)]
        (lost,) = [
            a for n, a in zip(nodes, answers, strict=True) if n.operator == devnet.nodes[index].operator
        ]
        assert isinstance(lost, ConnectionError)
    return refusals


@pytest.mark.parametrize("round_", [1, 2, 3])
async def test_a_node_dies_at_a_round_and_is_named(make_devnet, round_):
    """Before it sends anything of that round: nobody makes a key, all others name it."""
    devnet = await make_devnet(2, 3, limits=QUICK)
    devnet.faults[1] = Crash(at_round=round_)
    refusals = await crashed_keygen(devnet, 1)
    assert [refusal.code for refusal in refusals] == [NodeCode.KEYGEN_FAILED] * 2
    assert [refusal.data["culprits"] for refusal in refusals] == [[devnet.nodes[1].operator]] * 2
    assert all(f"round {round_}" in refusal.message for refusal in refusals)
    assert not devnet.nodes[1].is_running
    assert sum(len(node._runner._last.ring) for node in devnet.nodes) == 0


async def test_a_node_comes_back_by_itself(make_devnet):
    """At the same port, and as often as it is to: the fault happens once, also across its own restart."""
    devnet = await make_devnet(2, 3, limits=QUICK)
    devnet.faults[0] = Crash(at_round=1, restart_after=0.05, times=1)
    await crashed_keygen(devnet, 0)
    await wait_until(lambda: devnet.nodes[0].is_running)
    async with connect_all(devnet) as nodes:
        assert len({ack.claims for ack in await Keygen(nodes=nodes, t=2).run()}) == 1


@pytest.mark.parametrize("index", [0, 1, 2])
async def test_back_from_a_crash_after_the_work_it_has_the_key(make_devnet, index):
    """Asked again, it gives the acknowledgement that it died over: never a second key."""
    devnet = await make_devnet(2, 3)
    devnet.faults[index] = Crash(methods=["dan_keygen"], restart_after=0.05, times=1)
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        text = fields.encode(await keygen.prepare())
        answers = await asyncio.gather(
            *(node.call("dan_keygen", text) for node in nodes), return_exceptions=True
        )
    key_ids = {
        Acknowledgement.read(answer).key_id for answer in answers if not isinstance(answer, ConnectionError)
    }
    await wait_until(lambda: devnet.nodes[index].is_running)
    async with connect(devnet.nodes[index]) as node:
        key_ids.add(Acknowledgement.read(await node.call("dan_keygen", text)).key_id)
    assert len(key_ids) == 1


async def test_starting_it_does_not_wait_for_its_return():
    """And it does not come back a second time."""
    async with no_leaks(), Devnet(2, 2) as devnet:
        devnet.faults[0] = Crash(methods=["dan_health"], restart_after=600, times=1)
        async with connect(devnet.nodes[0]) as node:
            with pytest.raises(ConnectionError):
                await node.call("dan_health", {})
        with assert_runs_under(5):
            await devnet.nodes[0].start()
        async with connect(devnet.nodes[0]) as node:
            await node.call("dan_health", {})


async def test_a_stopped_node_does_not_come_back():
    """Nor one whose devnet was closed; nothing is left of what would have brought it back."""
    async with no_leaks(), Devnet(2, 2) as devnet:
        devnet.faults[0] = devnet.faults[1] = Crash(methods=["dan_health"], restart_after=0.05)
        for node in devnet.nodes:
            async with connect(node) as raw:
                with pytest.raises(ConnectionError):
                    await raw.call("dan_health", {})
        await devnet.nodes[0].stop()
        await wait_until(lambda: devnet.nodes[1].is_running)
        assert not devnet.nodes[0].is_running


async def test_two_requests_that_crash_a_node_crash_it_once(devnet):
    """The second comes from a node that is dead already, and does not kill the one that came back."""
    devnet.faults[0] = Crash(methods=["dan_health"], restart_after=0.01, times=2)
    async with connect(devnet.nodes[0]) as node:
        lost = await asyncio.gather(*(node.call("dan_health", {}) for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in lost] == [ConnectionError] * 2
    await wait_until(lambda: devnet.nodes[0].is_running)
    async with connect(devnet.nodes[0]) as node:
        await node.call("dan_health", {})

"""A lost reply never makes a second key: whichever node dies or loses its answer when the work is done."""

from __future__ import annotations

from typing import Any

import pytest

from dan_async import DanClient, RetryPolicy
from dan_async.config import Timeouts
from dan_async.devnet import Crash, Devnet, Disconnect, DropReply, Fault, NodeLimits
from dan_async.network import KeygenReport
from tests.adversity.fault_matrix import KEYGEN, WALLET, nothing_left, true_key

#: A node that dies and comes back, one whose connection breaks in the middle of the reply, one whose reply vanishes.
LOSSES: dict[str, Fault] = {
    "crash": Crash(methods=KEYGEN, restart_after=0.05, times=1),
    "disconnect": Disconnect(methods=KEYGEN, times=1),
    "drop": DropReply(methods=KEYGEN, times=1),
}
N = 3


async def make_key(devnet: Devnet) -> tuple[Any, KeygenReport]:
    """Make a key that needs the acknowledgement of every node: the one that was lost, too."""
    reports: list[KeygenReport] = []
    network = devnet.network(
        timeouts=Timeouts(attempt_s=1.0),
        retry=RetryPolicy(attempts=20, first_wait_s=0.02, longest_wait_s=0.2),
    )
    async with DanClient(network) as dan:
        payload = await dan.generate_session_key(
            wallet=WALLET, chain_id=1, threshold=N, parties_number=N, timeout=30, on_report=reports.append
        )
    return payload, reports[0]


@pytest.mark.parametrize("faulty", [*((index,) for index in range(N)), tuple(range(N))], ids=str)
@pytest.mark.parametrize("loss", LOSSES)
async def test_the_retry_gets_the_same_key(loss: str, faulty: tuple[int, ...]) -> None:
    """At each node in turn, and at all: one request, one key, one share of it at each node, and no other anywhere."""
    async with nothing_left():
        async with Devnet(N, N, gateway=False, faults=dict.fromkeys(faulty, LOSSES[loss])) as devnet:
            payload, report = await make_key(devnet)
            assert report.restarts == 0
            assert set(report.holders) == {node.operator for node in devnet.nodes}
            lost = {devnet.nodes[index].operator for index in faulty}
            assert {o.operator for o in report.outcomes if o.attempts > 1} >= lost
            assert payload.public_key == "0x" + true_key(devnet, payload.mpc_key_id, N).hex()
            assert [len(node._runner._last.ring) for node in devnet.nodes] == [1] * N


async def test_a_crashed_process_gives_the_same_key_again() -> None:
    """The same when the node is a process that really dies, and another one takes its place."""
    index = 1
    faults = {index: LOSSES["crash"]}
    limits = NodeLimits(stop_grace_s=0.1)
    async with Devnet(N, N, gateway=False, processes=True, faults=faults, limits=limits) as devnet:
        payload, report = await make_key(devnet)
        crashed = devnet.nodes[index].operator
        (outcome,) = (o for o in report.outcomes if o.operator == crashed)
        assert outcome.attempts > 1
        assert outcome.answer.key_id == payload.mpc_key_id
        assert report.restarts == 0

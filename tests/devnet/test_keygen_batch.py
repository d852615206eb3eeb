"""Several keys made in one session of the nodes, and what happens when one of them, or one of the nodes, spoils it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import base_multiply, encode
from dan_async.devnet import DealWrongShare, Delay, Devnet, DropReply, Equivocate, Fault, WithholdEcho
from dan_async.devnet.faults.kinds import RequestDropped
from dan_async.devnet.node.keygen import KeygenService
from dan_async.devnet.node.server import NodeMethods
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols.node import (
    CERTIFY_KEYGEN,
    KEYGEN_BATCH,
    Acknowledgement,
    CertifyParams,
    KeygenBatchParams,
    KeygenBatchResult,
    KeygenParams,
)
from tests.devnet.raw_client import Keygen, RawNode, RpcFaultError, changed, connect_all
from tests.devnet.test_keygen import shares_of
from tests.helpers import assert_runs_under
from tests.interpolation import interpolate_scalar

WALLET = LocalWallet("0x" + "00" * 31 + "07")


async def send(nodes: Sequence[RawNode], batch: Sequence[KeygenParams]) -> list[tuple[Acknowledgement, ...]]:
    """Send a batch to every node; gives each node's acknowledgements."""
    text = fields.encode(KeygenBatchParams(keygens=tuple(batch)))
    answers = await asyncio.gather(*(node.call(KEYGEN_BATCH, text) for node in nodes))
    return [KeygenBatchResult.read(answer).acknowledgements for answer in answers]


async def codes(nodes: Sequence[RawNode], batch: Sequence[KeygenParams]) -> set[int]:
    text = fields.encode(KeygenBatchParams(keygens=tuple(batch)))
    return set(await asyncio.gather(*(node.code_of(KEYGEN_BATCH, text) for node in nodes)))


async def made_by(dan: DanClient, count: int, **parameters: Any) -> set[str]:
    """Make keys as a batch; gives their ids."""
    keys = set()
    requests = [{"wallet": WALLET, "chain_id": 1}] * count
    async for result in dan.generate_session_keys(requests, concurrency=count, timeout=30, **parameters):
        assert result.session is not None, result.error
        keys.add(result.session.mpc_key_id)
    return keys


async def test_each_key_of_a_batch_is_a_key_of_its_own(make_devnet: Any) -> None:
    """Any t shares of each make its private key; acknowledgements agree; a repetition alone gets the same one."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        keygens = [Keygen(nodes=nodes, t=2) for _ in range(4)]
        batch = [await keygen.prepare() for keygen in keygens]
        answers = await send(nodes, batch)
        alone = await keygens[2].send()
    assert [ack.text for ack in alone] == [acks[2].text for acks in answers]
    for place, keygen in enumerate(keygens):
        acks = [acks[place] for acks in answers]
        assert {ack.claims for ack in acks} == {acks[0].claims}
        assert acks[0].request_id == keygen.request_id
        shares = shares_of(devnet, acks[0].key_id)
        for pair in ((1, 2), (1, 3), (2, 3)):
            private_key = interpolate_scalar({index: shares[index] for index in pair})
            found = public_key_to_address(encode(base_multiply(private_key)))
            assert found == public_key_to_address(acks[0].public_key)
    assert len({acks.key_id for acks in answers[0]}) == 4


async def test_one_bad_request_keeps_all_from_beginning_and_costs_no_nonce(make_devnet: Any) -> None:
    """Each node refuses the batch for it; the good ones are then made alone, with the same signatures."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        keygens = [Keygen(nodes=nodes, t=2) for _ in range(2)]
        good = [await keygen.prepare() for keygen in keygens]
        stranger = Keygen(nodes=nodes, t=2)
        bad = changed(await stranger.prepare(), signature=good[0].user_authentication.signature)
        other = await Keygen(nodes=nodes, t=3).prepare()
        assert await codes(nodes, [*good, bad]) == {NodeCode.WRONG_OWNER}
        assert await codes(nodes, [*good, other]) == {NodeCode.UNSUPPORTED}
        assert await codes(nodes, [good[0], good[0]]) == {NodeCode.REQUEST_CONFLICT}
        assert await codes(nodes, good[:1] * 17) == {NodeCode.INVALID_PARAMS}
        await keygens[0].send()
        assert await codes(nodes, good) == {NodeCode.REQUEST_CONFLICT}
        await keygens[1].send()


async def test_a_batch_that_comes_twice_is_no_second_key(make_devnet: Any) -> None:
    """Also while the first is under way."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        batch = [await Keygen(nodes=nodes, t=2).prepare() for _ in range(3)]
        first = asyncio.create_task(send(nodes, batch))
        await asyncio.sleep(0)
        results = await asyncio.gather(*(codes([node], batch) for node in nodes))
        assert results == [{NodeCode.REQUEST_CONFLICT}] * 3
        await first
        assert await codes(nodes, batch) == {NodeCode.REQUEST_CONFLICT}
    assert all(len(node._runner._last.ring) == 3 for node in devnet.nodes)


async def test_a_member_that_was_settled_stays_without_a_key(make_devnet: Any) -> None:
    """A certificate that comes later makes the others' keys only."""
    devnet = await make_devnet(2, 3)
    async with connect_all(devnet) as nodes:
        devnet.faults[devnet.nodes.index(node_of(devnet, nodes[2]))] = WithholdEcho(reach=1)
        keygens = [Keygen(nodes=nodes, t=2) for _ in range(2)]
        batch = [await keygen.prepare() for keygen in keygens]
        text = fields.encode(KeygenBatchParams(keygens=tuple(batch)))
        results = await asyncio.gather(
            *(node.call(KEYGEN_BATCH, text) for node in nodes), return_exceptions=True
        )
        lacking = [n for n, r in zip(nodes, results, strict=True) if isinstance(r, RpcFaultError)]
        finished = [KeygenBatchResult.read(r) for r in results if not isinstance(r, BaseException)]
        for node in lacking:
            assert await keygens[0].settle(node) == []
            acknowledgement = finished[0].acknowledgements[1]
            params = CertifyParams(
                request_id=acknowledgement.request_id, certificate=acknowledgement.certificate
            )
            late = Acknowledgement.read_whole(await node.call(CERTIFY_KEYGEN, fields.encode(params)))
            assert late.claims == acknowledgement.claims
            assert await keygens[0].settle(node) == []


def node_of(devnet: Devnet, raw: RawNode) -> Any:
    return next(node for node in devnet.nodes if node.operator == raw.operator)


async def test_a_client_puts_a_batch_together(make_devnet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen keys, two sessions of each node at most; a single call goes alone."""
    sizes: list[int] = []
    generate = KeygenService._generate

    async def counted(self: Any, works: Any, agreed: Any) -> Any:
        sizes.append(len(works))
        return await generate(self, works, agreed)

    monkeypatch.setattr(KeygenService, "_generate", counted)
    devnet = await make_devnet(2, 3)
    async with DanClient(devnet.network()) as dan:
        await dan.generate_session_key(wallet=WALLET, chain_id=1)
        assert sizes == [1, 1, 1]
        sizes.clear()
        assert len(await made_by(dan, 32)) == 32
    assert sum(sizes) == 3 * 32
    assert len(sizes) <= 3 * 8


@pytest.mark.parametrize(
    "fault",
    [
        DealWrongShare(),
        Equivocate(),
        DropReply(methods=[KEYGEN_BATCH]),
        pytest.param(Delay(seconds=30, methods=[KEYGEN_BATCH]), marks=pytest.mark.long, id="Delay"),
        WithholdEcho(reach=1),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_dishonest_or_failing_node_costs_no_row(make_devnet: Any, fault: Fault) -> None:
    """With two spare nodes each row has its key in the end, and one only."""
    devnet = await make_devnet(2, 5)
    devnet.faults[0] = fault
    async with DanClient(devnet.network()) as dan:
        assert len(await made_by(dan, 6, threshold=2, parties_number=3)) == 6


async def test_a_lost_connection_keeps_no_node_out_of_the_session(
    make_devnet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is sent again: alone, the node would begin other sessions, and the rest would take it for silent."""
    devnet = await make_devnet(2, 3)
    call, lost = NodeMethods.call, list[str]()

    async def lose_first(self: Any, method: str, params: Any, address: str) -> Any:
        operator = self._context.identity.operator
        if method == KEYGEN_BATCH and not lost:
            lost.append(operator)
            (server,) = [n._runner._server for n in devnet.nodes if n.operator == operator]
            for connection in server._connections:
                connection.cut()
            raise RequestDropped
        return await call(self, method, params, address)

    monkeypatch.setattr(NodeMethods, "call", lose_first)
    network = devnet.network()
    async with DanClient(network) as dan, assert_runs_under(5):
        assert len(await made_by(dan, 6)) == 6
        assert len(lost) == 1
        assert {node.keygens for node in (await network.health()).nodes} == {6}  # none was begun anew


async def test_nodes_that_do_not_offer_it_are_asked_one_by_one(
    make_devnet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And after the first time at once so."""
    asked: list[str] = []
    call = NodeMethods.call

    async def plain(self: Any, method: str, params: Any, address: str) -> Any:
        asked.append(method)
        self._handlers.pop(KEYGEN_BATCH, None)
        return await call(self, method, params, address)

    monkeypatch.setattr(NodeMethods, "call", plain)
    devnet = await make_devnet(2, 3)
    async with DanClient(devnet.network()) as dan:
        assert len(await made_by(dan, 8)) == 8
        assert asked.count(KEYGEN_BATCH) in range(3, 10)
        asked.clear()
        assert len(await made_by(dan, 4)) == 4
    assert KEYGEN_BATCH not in asked
    assert asked.count("dan_keygen") == 12

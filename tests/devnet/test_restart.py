"""A node that was stopped and started again is the same node, with the same shares and the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from dan_async.devnet import Devnet, FallSilent, NodeLimits
from dan_async.devnet.share_store import ShareStoreError
from dan_async.errors import InvalidFieldError, NodeCode
from dan_async.protocols import node as node_1
from tests.devnet.raw_client import Keygen, connect_all, keygen_on
from tests.helpers import no_leaks


async def restart(devnet):
    for node in devnet.nodes:
        await node.stop()
    for node in devnet.nodes:
        await node.start()


@pytest.fixture(params=["memory", "disk"])
async def any_devnet(request, make_devnet, tmp_path):
    return await make_devnet(2, 3, storage=None if request.param == "memory" else tmp_path)


async def test_a_restarted_node_is_the_same_node(any_devnet):
    """Same URL, same operator, same share."""
    (ack, *_) = await keygen_on(any_devnet, 2)
    before = [(node.url, node.operator, node.reveal_share(ack.key_id)) for node in any_devnet.nodes]
    await restart(any_devnet)
    assert [(node.url, node.operator, node.reveal_share(ack.key_id)) for node in any_devnet.nodes] == before
    assert all(share is not None for *_, share in before)


async def test_a_restarted_node_knows_its_finished_requests(any_devnet):
    """The same request gives the same acknowledgement, another one under the id is refused."""
    async with connect_all(any_devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        acks = await keygen.run()
    await restart(any_devnet)
    async with connect_all(any_devnet) as nodes:
        keygen.nodes = nodes
        assert await keygen.send() == acks
        other = Keygen(nodes=nodes, t=2, request_id=keygen.request_id)
        await other.prepare()
        assert await other.codes() == [NodeCode.REQUEST_CONFLICT] * 3


async def test_restarted_nodes_make_new_keys_together(any_devnet):
    """Their links come up again by themselves."""
    await keygen_on(any_devnet, 2)
    await any_devnet.nodes[1].stop()
    await any_devnet.nodes[1].start()
    assert len({ack.claims for ack in await keygen_on(any_devnet, 2)}) == 1


async def test_a_restart_forgets_nonces(devnet):
    """CHALLENGE_MISMATCH: what was forgotten is refused, never taken twice."""
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
    await restart(devnet)
    async with connect_all(devnet) as nodes:
        keygen.nodes = nodes
        assert await keygen.codes() == [NodeCode.CHALLENGE_MISMATCH] * 3


async def test_a_one_shot_request_is_not_begun_again_after_a_restart(make_devnet, tmp_path):
    """Its session has the same id every time: a node's second commitment under it would look like a lie."""
    devnet = await make_devnet(2, 3, storage=tmp_path, limits=NodeLimits(round_s=1))
    devnet.faults[0] = FallSilent()
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        keygen.request_id = node_1.oneshot_request_id(keygen.digest)
        keygen.sign_one_shot()
        assert await keygen.codes() == [NodeCode.KEYGEN_FAILED] * 3
    devnet.faults[0] = None
    await restart(devnet)
    async with connect_all(devnet) as nodes:
        keygen.nodes = nodes
        assert await keygen.codes() == [NodeCode.CHALLENGE_REUSED] * 3


async def test_a_later_devnet_over_the_same_folder_has_the_same_keys(tmp_path):
    """Identities, shares and finished requests are all there, at new ports."""
    async with Devnet(2, 3, storage=tmp_path) as devnet:
        (ack, *_) = await keygen_on(devnet, 2)
        operators = [node.operator for node in devnet.nodes]
        shares = [node.reveal_share(ack.key_id) for node in devnet.nodes]
    async with Devnet(2, 3, storage=tmp_path) as devnet:
        assert [node.operator for node in devnet.nodes] == operators
        assert [node.reveal_share(ack.key_id) for node in devnet.nodes] == shares


async def test_two_devnets_cannot_share_a_folder(tmp_path):
    """The second says so, and leaves nothing behind; the first goes on."""
    async with Devnet(2, 2, storage=tmp_path) as devnet:
        async with no_leaks():
            with pytest.raises(ShareStoreError, match="in use"):
                await Devnet(2, 2, storage=tmp_path).start()
        await keygen_on(devnet, 2)


async def test_a_damaged_record_keeps_a_node_from_starting(tmp_path):
    """It says which one, rather than forget a share."""
    async with Devnet(2, 2, storage=tmp_path) as devnet:
        await keygen_on(devnet, 2)
    with contextlib.closing(sqlite3.connect(tmp_path / "node-1" / "records" / "records.db")) as records:
        ((name, sealed),) = records.execute("SELECT name, sealed FROM records").fetchall()
        records.execute("UPDATE records SET sealed = ?", (sealed[:-1] + b"\0",))
        records.commit()
    async with no_leaks():
        with pytest.raises(ShareStoreError, match=name):
            await Devnet(2, 2, storage=tmp_path).start()


async def test_a_damaged_identity_keeps_the_devnet_from_starting(tmp_path):
    """It is not replaced by a new one: its shares would be lost."""
    async with Devnet(2, 2, storage=tmp_path):
        pass
    (tmp_path / "node-0" / "identity").write_text("garbage")
    async with no_leaks():
        with pytest.raises(InvalidFieldError, match="identity"):
            await Devnet(2, 2, storage=tmp_path).start()


async def test_stopping_in_the_middle_leaves_all_or_nothing(tmp_path):
    """A key is there after the restart exactly where it was acknowledged, or was just about to be."""
    async with Devnet(2, 3, storage=tmp_path) as devnet:
        async with connect_all(devnet) as nodes:
            keygens = [Keygen(nodes=nodes, t=2) for _ in range(10)]
            await asyncio.gather(*(keygen.prepare() for keygen in keygens))
            asked = [asyncio.create_task(keygen.send()) for keygen in keygens]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*(node.stop() for node in devnet.nodes))
            done = await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.gather(*(node.start() for node in devnet.nodes))
        acknowledged = [acks[0].key_id for acks in done if isinstance(acks, list)]
        assert acknowledged
        for key_id in acknowledged:
            assert all(node.reveal_share(key_id) is not None for node in devnet.nodes)


async def test_starting_and_stopping_twice_is_allowed(devnet):
    """The second time nothing happens."""
    node = devnet.nodes[0]
    await node.start()
    assert node.is_running
    await node.stop()
    await node.stop()
    assert not node.is_running
    with contextlib.suppress(ConnectionError):
        await node.start()
    assert node.is_running

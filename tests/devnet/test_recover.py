"""What a crash left pending, settled by asking real nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from dan_async import DanClient, EphemeralKey, GatewayNetwork, LocalWallet, NodeNetwork, Threshold
from dan_async.config import Timeouts
from dan_async.devnet import Devnet, NodeLimits
from dan_async.errors import (
    DeadlineExceededError,
    EphemeralKeyRefusedError,
    NodeCode,
    RecordConflictError,
    StoreUnavailableError,
)
from dan_async.protocols import node as node_1
from dan_async.storage import FixedKeys, KeygenIntent, MemorySessionStore, StoredSession, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.devnet.raw_client import Keygen, RpcFaultError, connect_all, signed_settle
from tests.helpers import ManualClock, assert_runs_under
from tests.stored import pending

QUICK = Timeouts(total_s=3, attempt_s=1, connect_s=1)
KEY = "11" * 32


def client(net: Devnet, store: Any, **options: Any) -> DanClient:
    return DanClient(NodeNetwork(net.endpoints, threshold=Threshold(2, 3)), store=store, **options)


async def as_after_a_crash(store: MemorySessionStore) -> StoredSession:
    """Put the one record of a store back to what it was when the request was sent."""
    (record,) = [record async for record in store.find()]
    await store.delete(record.record_id)
    crashed = evolve(record, state="pending", session=None)
    await store.save(crashed)
    return crashed


async def test_a_finished_key_is_found_again(devnet: Devnet) -> None:
    """The reply was lost and the client died: recover() gives the very session, and stores it."""
    store = MemorySessionStore()
    async with client(devnet, store) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, reference="row 1")
    await as_after_a_crash(store)
    async with client(devnet, store) as dan:
        report = await dan.recover()
        assert report.sessions == (session,)
        assert [(r.settlement, r.reference) for r in report.records] == [("finished", "row 1")]
        assert (await dan.recover()).records == ()
    record = await store.get_by_reference("row 1")
    assert record is not None
    assert (record.state, record.session) == ("active", session)


async def test_a_request_that_nobody_knows_is_dropped_for_good(devnet: Devnet) -> None:
    """Once the nodes have said that they know of nothing, a request that comes late is refused by each of them."""
    store = MemorySessionStore()
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        params = await keygen.prepare()
        record = pending_for(keygen)
        await store.save(record)
        async with client(devnet, store) as dan:
            report = await dan.recover()
        assert [r.settlement for r in report.records] == ["dropped"]
        assert await store.get(record.record_id) is None
        assert await keygen.codes(params) == [NodeCode.REQUEST_CONFLICT] * 3


async def test_a_key_generation_under_way_is_waited_for(devnet: Devnet) -> None:
    """The nodes are still at work when they are asked: each answers when it is done, with its acknowledgement."""
    store = MemorySessionStore()
    async with connect_all(devnet) as nodes, client(devnet, store) as dan:
        await dan.network.health()  # the connections are there
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        await store.save(pending_for(keygen))
        sending = asyncio.create_task(keygen.send())
        while count_working(devnet) < 3 and not sending.done():
            await asyncio.sleep(0)
        assert not sending.done()
        (settled,) = (await dan.recover()).records
        (ack, *_) = await sending
    assert settled.session is not None
    assert settled.session.mpc_key_id == ack.key_id


async def test_with_one_node_down_t_are_enough(devnet: Devnet) -> None:
    """A finished key is found while one of three nodes is down; so is it certain that there is none."""
    store = MemorySessionStore()
    async with client(devnet, store) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    await as_after_a_crash(store)
    async with connect_all(devnet) as nodes:
        unknown = Keygen(nodes=nodes, t=2)
        await unknown.prepare()
        await store.save(pending_for(unknown))
    await devnet.nodes[2].stop()
    async with client(devnet, store, timeouts=QUICK) as dan:
        report = await dan.recover()
    assert report.sessions == (session,)
    assert sorted(r.settlement for r in report.records) == ["dropped", "finished"]


async def test_with_too_few_nodes_it_stays_pending(devnet: Devnet) -> None:
    """Two of three nodes are down: nobody can tell, and the record waits until they are back."""
    store = MemorySessionStore()
    async with client(devnet, store) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    await as_after_a_crash(store)
    for node in devnet.nodes[1:]:
        await node.stop()
    async with client(devnet, store, timeouts=QUICK) as dan:
        (settled,) = (await dan.recover()).records
    assert settled.settlement == "undecided"
    assert devnet.nodes[1].operator in settled.problem
    for node in devnet.nodes[1:]:
        await node.start()
    async with client(devnet, store) as dan:
        assert (await dan.recover()).sessions == (session,)


async def test_nobody_else_learns_or_ends_anything(devnet: Devnet) -> None:
    """Whoever knows the request id and has another ephemeral key gets nothing, and cannot have the request refused."""
    async with connect_all(devnet) as nodes:
        keygen, done = Keygen(nodes=nodes, t=2), Keygen(nodes=nodes, t=2)
        params = await keygen.prepare()
        await done.run()
        stranger = EphemeralKey.generate()
        for node in nodes:
            for request_id in (keygen.request_id, done.request_id):
                text = signed_settle(stranger, request_id, node.operator)
                assert await node.call(node_1.SETTLE_KEYGEN, text) == {"acknowledgements": []}
                forged = signed_settle(stranger, request_id, node.operator, eph_pk=keygen.claim.eph_pk)
                assert await node.code_of(node_1.SETTLE_KEYGEN, forged) == NodeCode.EPHEMERAL_KEY_REFUSED
        first, second = nodes[:2]
        for_other_node = signed_settle(keygen.key, keygen.request_id, second.operator)
        assert await first.code_of(node_1.SETTLE_KEYGEN, for_other_node) == NodeCode.EPHEMERAL_KEY_REFUSED
        assert len(await keygen.send(params)) == 3


async def test_a_flood_of_strangers_questions_makes_no_answer_untrue(make_devnet: Any) -> None:
    """Nothing that was settled is forgotten before its time: who asks too much is refused instead, and for an hour at most."""
    clock = ManualClock()
    limits = NodeLimits(max_settled=40)
    devnet = await make_devnet(2, 3, limits=limits, clock=clock)
    async with connect_all(devnet) as nodes:
        keygen = Keygen(nodes=nodes, t=2, expiry=int(clock.now) + 86_400)
        await keygen.prepare()
        for node in nodes:
            assert await keygen.settle(node) == []
            codes = []
            for _ in range(50):
                text = signed_settle(EphemeralKey.generate(), "0x" + os.urandom(32).hex(), node.operator)
                try:
                    await node.call(node_1.SETTLE_KEYGEN, text)
                except RpcFaultError as fault:
                    codes.append(fault.code)
            assert codes == [NodeCode.RATE_LIMITED] * 41  # the address has a quarter of the places
            assert await keygen.settle(node) == []  # the same question takes no second one
        assert await keygen.codes() == [NodeCode.REQUEST_CONFLICT] * 3
        clock.advance(3601)
        text = signed_settle(EphemeralKey.generate(), keygen.request_id, nodes[0].operator)
        assert await nodes[0].call(node_1.SETTLE_KEYGEN, text) == {"acknowledgements": []}


async def test_over_a_gateway_it_stays_pending_until_it_expires(devnet: Devnet) -> None:
    """A gateway cannot be asked; that is said, and when its time is over the record expires."""
    clock = ManualClock()
    store = MemorySessionStore(clock=clock)
    await store.save(pending())
    async with DanClient(GatewayNetwork(devnet.gateway_url, revision="1"), store=store, clock=clock) as dan:
        (settled,) = (await dan.recover()).records
        assert settled.settlement == "undecided"
        assert "a gateway cannot be asked" in settled.problem
        clock.advance(3600)
        (settled,) = (await dan.recover()).records
        assert settled.settlement == "expired"
    assert [record.state async for record in store.find()] == ["expired"]


async def test_young_records_can_be_left_to_others(devnet: Devnet) -> None:
    """With min_age_s, what another process may still be working on is not touched."""
    clock = ManualClock()
    store = MemorySessionStore(clock=clock)
    await store.save(pending())
    async with client(devnet, store, clock=clock) as dan:
        assert (await dan.recover(min_age_s=60)).records == ()
        clock.advance(60)
        assert len((await dan.recover(min_age_s=60)).records) == 1


async def test_two_that_recover_at_once_agree(devnet: Devnet) -> None:
    """Both give the same session, and it is stored once."""
    store = MemorySessionStore()
    async with client(devnet, store) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    await as_after_a_crash(store)
    async with client(devnet, store) as one, client(devnet, store) as other:
        reports = await asyncio.gather(one.recover(), other.recover())
    assert [report.sessions for report in reports] == [(session,), (session,)]
    assert [record.state async for record in store.find()] == ["active"]


async def test_a_stored_session_is_revoked_on_the_nodes_and_in_the_store(devnet: Devnet) -> None:
    """The nodes take the ephemeral key back first; a record that has no session is refused."""
    store = MemorySessionStore()
    async with client(devnet, store) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
        (record,) = [record async for record in store.find()]
        revoked = await dan.revoke_stored_session(record.record_id, wallet=LocalWallet(KEY))
        assert (revoked.state, revoked.problem) == ("revoked", "")
        with pytest.raises(RecordConflictError, match="not in the store"):
            await dan.revoke_stored_session("0x" + "00" * 32, wallet=LocalWallet(KEY))
    assert session.eph_id not in devnet.nodes[0].ephemeral_key_ids(session.mpc_key_id)


async def test_a_revocation_is_repeated_until_every_node_has_confirmed(devnet: Devnet) -> None:
    """The record says which node has not, in the store as well, and nothing more when it has."""
    store = MemorySessionStore()
    async with client(devnet, store, timeouts=QUICK) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
        (record,) = [record async for record in store.find()]
        away = devnet.nodes[2]
        await away.stop()
        partly = await dan.revoke_stored_session(record.record_id, wallet=LocalWallet(KEY))
        assert partly.state == "revoked"
        assert partly.problem.startswith("not confirmed by every node: ")
        assert away.operator in partly.problem
        assert await store.get(record.record_id) == partly
        await away.start()
        assert session.eph_id in away.ephemeral_key_ids(session.mpc_key_id)
        whole = await dan.revoke_stored_session(record.record_id, wallet=LocalWallet(KEY))
        assert (whole.state, whole.problem) == ("revoked", "")
        assert session.eph_id not in away.ephemeral_key_ids(session.mpc_key_id)


async def test_nodes_of_the_pool_without_a_share_need_not_confirm_a_revocation() -> None:
    """All n have confirmed, whatever the spare node says."""
    async with Devnet(2, 4) as net:
        store = MemorySessionStore()
        async with client(net, store, timeouts=QUICK) as dan:
            session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
            (record,) = [record async for record in store.find()]
            (spare,) = [node for node in net.nodes if not node.ephemeral_key_ids(session.mpc_key_id)]
            await spare.stop()
            revoked = await dan.revoke_stored_session(record.record_id, wallet=LocalWallet(KEY))
    assert (revoked.state, revoked.problem) == ("revoked", "")


async def test_rotating_keeps_record_and_address_and_leaves_the_old_key_to_be_revoked(devnet: Devnet) -> None:
    """The new ephemeral key signs; the old one does until its record is revoked."""
    store, owner = MemorySessionStore(), LocalWallet(KEY)
    async with client(devnet, store) as dan:
        before = await dan.generate_session_key(wallet=owner, chain_id=1, duration=60, reference="agent")
        (record,) = [record async for record in store.find()]
        rotated = await dan.rotate_stored_session(record.record_id, wallet=owner, duration=600)
        assert (rotated.record_id, rotated.reference, rotated.state) == (record.record_id, "agent", "active")
        assert await store.get(record.record_id) == rotated
        session = rotated.session
        assert session is not None
        assert rotated.expires_at == session.expires_at > before.expires_at + 500
        assert session.session_key_eoa == before.session_key_eoa
        assert session.hex_eph_sk_without_0x != before.hex_eph_sk_without_0x
        (old,) = [one async for one in store.find() if one.record_id != record.record_id]
        assert (old.session, old.expires_at, old.reference) == (before, before.expires_at, None)
        await dan.sign_message("by the old one", before)
        await dan.revoke_stored_session(old.record_id, wallet=owner)
        await dan.sign_message("by the new one", session)
        with pytest.raises(EphemeralKeyRefusedError):
            await dan.sign_message("by the old one", before)
        await dan.revoke_stored_session(record.record_id, wallet=owner)
        with pytest.raises(RecordConflictError, match="is revoked, not active or expired"):
            await dan.rotate_stored_session(record.record_id, wallet=owner)


async def test_of_two_rotations_at_once_one_is_kept(devnet: Devnet) -> None:
    """No key is left that is in use and in no record, where it could not be revoked."""
    store, owner = MemorySessionStore(), LocalWallet(KEY)
    async with client(devnet, store) as dan:
        before = await dan.generate_session_key(wallet=owner, chain_id=1)
        (record,) = [record async for record in store.find()]
        rotations = [dan.rotate_stored_session(record.record_id, wallet=owner) for _ in range(2)]
        ended = await asyncio.gather(*rotations, return_exceptions=True)
        (kept,) = [one for one in ended if isinstance(one, StoredSession)]
        (refused,) = [one for one in ended if one is not kept]
        assert isinstance(refused, RecordConflictError)
        stored = [one.session async for one in store.find()]
        assert len(stored) == 2
        assert before in stored
        assert kept.session in stored


@pytest.mark.parametrize(
    ("job", "note"), [("revoke", "revoked the ephemeral"), ("rotate", "The old one works")]
)
async def test_a_store_that_fails_after_the_nodes_says_what_they_did(
    devnet: Devnet, job: str, note: str
) -> None:
    """Its own error says that nothing was changed, which is true of the store alone."""

    class Full(MemorySessionStore):
        async def replace(self, record: StoredSession, *, expected: Any) -> None:
            if record.state == "revoked" or len(self._records) > 1:
                raise StoreUnavailableError("the disk is full")
            await super().replace(record, expected=expected)

    store, owner = Full(), LocalWallet(KEY)
    async with client(devnet, store) as dan:
        await dan.generate_session_key(wallet=owner, chain_id=1)
        (record,) = [record async for record in store.find()]
        call = dan.revoke_stored_session if job == "revoke" else dan.rotate_stored_session
        with pytest.raises(StoreUnavailableError) as caught:
            await call(record.record_id, wallet=owner)
    assert note in "".join(getattr(caught.value, "__notes__", []))


class StallingStore(MemorySessionStore):
    """One whose method gives no answer from its n-th call on."""

    stalls: tuple[str, int] = ("", 0)

    async def get(self, record_id: Any) -> StoredSession | None:
        await self._wait("get")
        return await super().get(record_id)

    async def replace(self, record: StoredSession, *, expected: Any) -> None:
        await self._wait("replace")
        await super().replace(record, expected=expected)

    async def delete(self, record_id: Any, *, expected: Any = None) -> bool:
        await self._wait("delete")
        return await super().delete(record_id, expected=expected)

    async def _wait(self, method: str) -> None:
        name, times = self.stalls
        if method == name:
            self.stalls = name, times - 1
            if times <= 1:
                await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("job", "stalls", "note"),
    [
        ("revoke", ("get", 1), ""),
        ("revoke", ("get", 2), "revoked the ephemeral key"),
        ("revoke", ("replace", 1), "revoked the ephemeral key"),
        ("rotate", ("get", 1), ""),
        ("rotate", ("replace", 1), "The old one works"),
        ("cancel", ("delete", 1), ""),
    ],
)
async def test_a_store_that_does_not_answer_counts_against_the_timeout(
    devnet: Devnet, job: str, stalls: tuple[str, int], note: str
) -> None:
    """Whatever the call is about; what the nodes have done already is said."""
    store, owner = StallingStore(), LocalWallet(KEY)
    async with client(devnet, store, timeouts=Timeouts(total_s=2)) as dan:
        await dan.generate_session_key(wallet=owner, chain_id=1)
        (record,) = [record async for record in store.find()]
        begun = await dan.begin_session_key(owner=owner.address, chain_id=1)
        calls = {
            "revoke": lambda: dan.revoke_stored_session(record.record_id, wallet=owner),
            "rotate": lambda: dan.rotate_stored_session(record.record_id, wallet=owner),
            "cancel": lambda: dan.cancel_session_key(begun.id),
        }
        store.stalls = stalls
        async with assert_runs_under(3):
            with pytest.raises(DeadlineExceededError) as caught:
                await calls[job]()
    assert note in "".join(getattr(caught.value, "__notes__", []))


async def test_one_record_is_recovered_alone(devnet: Devnet) -> None:
    """The others stay as they are."""
    store = MemorySessionStore()
    async with client(devnet, store) as dan:
        await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
        crashed = await as_after_a_crash(store)
        other = pending()
        await store.save(other)
        report = await dan.recover(record_id=crashed.record_id)
    assert [one.record_id for one in report.of("finished")] == [crashed.record_id]
    assert (await store.get(other.record_id)).state == "pending"


_MAKES_KEYS = """
import asyncio, sys
from dan_async import DanClient, LocalWallet, NodeNetwork, Threshold
from dan_async.storage import FixedKeys, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

async def main(url, *nodes):
    async with SQLAlchemyStore(url, FixedKeys([StoreKey("k", bytes([1]) * 32)])) as store:
        async with DanClient(NodeNetwork(nodes, threshold=Threshold(2, 3)), store=store) as dan:
            async def one():
                while True:
                    session = await dan.generate_session_key(wallet=LocalWallet("11" * 32), chain_id=1)
                    print(session.mpc_key_id, flush=True)
            await asyncio.gather(*(one() for _ in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_process_loses_no_key(devnet: Devnet, tmp_path: Path) -> None:
    """SIGKILL in the middle of four calls: afterwards each record is a session that all nodes hold, or gone; none is lost."""
    url = f"sqlite:///{tmp_path}/keys.db"
    nodes = [f"{endpoint.url}={endpoint.operator}" for endpoint in devnet.endpoints]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _MAKES_KEYS, url, *nodes, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    returned = [(await process.stdout.readline()).decode().strip() for _ in range(3)]
    os.kill(process.pid, signal.SIGKILL)
    returned += (await process.stdout.read()).decode().split()
    await process.wait()
    async with SQLAlchemyStore(url, FixedKeys([StoreKey("k", b"\x01" * 32)])) as store:
        async with client(devnet, store) as dan:
            report = await dan.recover()
        kept = [record async for record in store.find()]
    assert {r.settlement for r in report.records} <= {"finished", "dropped"}
    assert all(record.state == "active" for record in kept)
    keys = {record.session.mpc_key_id for record in kept if record.session}
    assert keys >= set(returned)
    for key_id in keys:
        assert sum(node.reveal_share(key_id) is not None for node in devnet.nodes) == 3


def pending_for(keygen: Keygen) -> StoredSession:
    """The record of a key generation whose client died."""
    claim = keygen.claim
    assert keygen.key is not None
    return pending(
        record_id=keygen.request_id,
        owner=keygen.signer.operator,
        expires_at=keygen.expiry,
        intent=KeygenIntent(
            hex_eph_sk=keygen.key.to_hex(),
            eph_id=claim.eph_id,
            eph_alg=claim.sign_alg,
            owner_id=keygen.signer.operator,
            threshold=2,
            parties_number=3,
        ),
    )


def count_working(devnet: Devnet) -> int:
    """How many nodes are generating a key."""
    return sum(task.get_name().startswith("key generations 0x") for task in asyncio.all_tasks())

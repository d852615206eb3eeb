"""Session keys that are begun for a page and completed with its wallet's signature: over nodes, and over gateways."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from coincurve import PrivateKey
from coincurve._libsecp256k1 import ffi

from dan_async import (
    DanClient,
    GatewayNetwork,
    LocalWallet,
    NodeEndpoint,
    NodeNetwork,
    RetryPolicy,
    Threshold,
    Timeouts,
)
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.devnet import Devnet, Disconnect, NodeLimits
from dan_async.errors import (
    ClientClosedError,
    ConfigurationError,
    GatewayError,
    InvalidFieldError,
    NotPermittedError,
    OverloadedError,
    PendingNotFoundError,
    QuorumError,
    RecordConflictError,
    WalletSignatureError,
    WrongSignerError,
)
from dan_async.jobs import PendingSessionKey
from dan_async.network import OpenedKeygen
from dan_async.storage import FixedKeys, MemorySessionStore, SessionFilter, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.adversity.cancelling import cancel_everywhere
from tests.helpers import ManualClock, error_of, no_leaks

OWNER = LocalWallet("11" * 32)
STRANGER = LocalWallet("22" * 32)
KEYS = FixedKeys([StoreKey("one", bytes(32))])
QUICK = Timeouts(total_s=1, patience_s=0.2)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Devnet]:
    """A network after which nothing is left."""
    async with no_leaks(), Devnet(2, 3, **options) as net:
        yield net


def nodes(net: Devnet, store: Any = None, **options: Any) -> DanClient:
    return DanClient(NodeNetwork(net.endpoints, threshold=Threshold(2, 3)), store=store, **options)


def gateway(net: Devnet, store: Any = None, way: str = "1", **options: Any) -> DanClient:
    """Through the gateway, in a revision, or in one shot."""
    url = net.gateway_url.replace("/v1", "/v2") if way == "v2" else net.gateway_url
    kind = {"api_version": "v2"} if way == "v2" else {"revision": way}
    network = GatewayNetwork(url, threshold=Threshold(2, 3), **kind, clock=options.get("clock", time.time))
    return DanClient(network, store=store, **options)


async def begin(dan: DanClient, **parameters: Any) -> PendingSessionKey:
    return await dan.begin_session_key(owner=OWNER.address, chain_id=80002, **parameters)


async def signed(pending: PendingSessionKey, wallet: LocalWallet = OWNER) -> str:
    """What a page posts back: it has the JSON text only."""
    return await wallet.sign_typed_data(json.loads(pending.to_json())["typedData"])


def signed_anew(pending: PendingSessionKey) -> bytes:
    """Another signature of the owner's over the same data."""
    noise = ffi.new("unsigned char[32]", b"\7" * 32)
    digest = typed_data_digest(pending.typed_data)
    key = PrivateKey(b"\x11" * 32)
    signature = key.sign_recoverable(digest, hasher=None, custom_nonce=(ffi.NULL, noise))
    return signature[:64] + bytes((27 + signature[64],))


async def states(store: Any) -> list[str]:
    return [record.state async for record in store.find()]


def key_ids(net: Devnet) -> set[str]:
    """The keys that any node has."""
    return {key_id for node in net.nodes for key_id in node._runner._last.ring._by_key}


# --- over nodes -------------------------------------------------------------------------------------------------------


async def test_a_page_signs_and_the_key_is_made() -> None:
    """Whatever was asked for is in it; the ephemeral key is in the store, and nowhere in what the page sees."""
    store, reports = MemorySessionStore(), []
    async with (
        running(faults={2: Disconnect(methods=["dan_keygen"], times=1)}) as net,
        nodes(net, store) as dan,
    ):
        pending = await begin(dan, duration=600, reference="ada", min_holders=3, permissions=[])
        (record,) = [record async for record in store.find()]
        assert (record.state, record.record_id, record.reference) == ("waiting", pending.id, "ada")
        assert record.intent is not None
        assert record.intent.hex_eph_sk not in pending.to_json() + repr(pending)
        assert set(json.loads(pending.to_json())) == {"id", "owner", "typedData", "expiresAt"}
        session = await dan.complete_session_key(
            pending.id, bytes.fromhex((await signed(pending))[2:]), on_report=reports.append
        )
        assert (session.eoa_address, session.chain_id) == (OWNER.address, 80002)
        assert len(reports[0].holders) == 3
        assert await states(store) == ["active"]
        with pytest.raises(NotPermittedError):
            await dan.sign_message("hello", session)


@pytest.mark.parametrize("kept", ["memory", "a database", ""])
async def test_a_signature_that_comes_twice_makes_one_key(kept: str, tmp_path: Path) -> None:
    """At once or later, here or at another process; whoever has no signature of the owner's learns nothing."""
    store: Any = MemorySessionStore() if kept == "memory" else None
    if kept == "a database":
        store = SQLAlchemyStore(f"sqlite:///{tmp_path / 'keys.db'}", KEYS)
    async with running() as net, nodes(net, store) as dan, nodes(net, store) as other:
        pending = await begin(dan)
        signature = await signed(pending)
        clients = [dan, other, dan, other] if kept else [dan, dan]
        made = await asyncio.gather(*(one.complete_session_key(pending.id, signature) for one in clients))
        made += [await one.complete_session_key(pending.id, signature) for one in clients]
        assert made == [made[0]] * len(made)
        assert key_ids(net) == {made[0].mpc_key_id}
        with pytest.raises(WrongSignerError):
            await dan.complete_session_key(pending.id, await signed(pending, STRANGER))
        assert not await dan.cancel_session_key(pending.id)
        if kept:
            await store.aclose()


async def test_a_wrong_signature_leaves_it_waiting() -> None:
    """Another signer, other data, and what is no signature; then the owner signs."""
    async with running() as net, nodes(net) as dan:
        pending, another = await begin(dan), await begin(dan)
        for wrong in (await signed(pending, STRANGER), await signed(another)):
            with pytest.raises(WrongSignerError):
                await dan.complete_session_key(pending.id, wrong)
        for wrong in ("", "0x", "0x" + "11" * 65, b"", b"\1" * 64, 7, None):
            with pytest.raises(WalletSignatureError):
                await dan.complete_session_key(pending.id, wrong)  # type: ignore[arg-type]
        assert key_ids(net) == set()
        await dan.complete_session_key(pending.id, await signed(pending))


#: A process of a web server's: argv has the store's URL and the nodes; it begins, or completes what it is given.
PROCESS = """
import asyncio, sys
from dan_async import DanClient, NodeNetwork
from dan_async.storage import FixedKeys, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

async def main(url, nodes, owner, *given):
    async with SQLAlchemyStore(url, FixedKeys([StoreKey("one", bytes(32))])) as store:
        async with DanClient(NodeNetwork(nodes.split()), store=store) as dan:
            if given:
                print((await dan.complete_session_key(*given)).to_json(), flush=True)
            else:
                print((await dan.begin_session_key(owner=owner, chain_id=80002)).to_json(), flush=True)
                await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_killed_process_is_gone_on_for_by_others(devnet: Devnet, tmp_path: Path) -> None:
    """It had begun, and its page still has the typed data; three processes complete it at once, and make one key."""
    url = f"sqlite:///{tmp_path / 'keys.db'}"
    endpoints = " ".join(f"{endpoint.url}={endpoint.operator}" for endpoint in devnet.endpoints)

    async def start(*given: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROCESS,
            url,
            endpoints,
            OWNER.address,
            *given,
            stdout=asyncio.subprocess.PIPE,
        )

    process = await start()
    assert process.stdout is not None
    shown = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    async with (
        SQLAlchemyStore(url, KEYS) as store,
        nodes(devnet, store) as dan,
    ):
        assert (await dan.recover()).records == ()
        signature = await OWNER.sign_typed_data(shown["typedData"])
        others = [await start(shown["id"], signature) for _ in range(3)]
        printed = [(await asyncio.wait_for(other.communicate(), 60))[0].decode().strip() for other in others]
        session = await dan.complete_session_key(shown["id"], signature)
        assert printed == [session.to_json()] * 3
        assert await states(store) == ["active"]
        assert await dan.sign_message("hello", session)
    assert key_ids(devnet) == {session.mpc_key_id}


async def test_a_failure_after_the_signature_is_tried_again() -> None:
    """The nodes could not be reached: the record is pending; once they can, the same call makes the key."""
    store = MemorySessionStore()
    async with running() as net, nodes(net, store) as dan:
        pending = await begin(dan)
        signature = await signed(pending)
        nowhere = [NodeEndpoint("ws://127.0.0.1:1/v1/rpc", each.operator) for each in net.endpoints]
        lost = DanClient(NodeNetwork(nowhere, retry=RetryPolicy(attempts=1)), store=store)
        with pytest.raises(QuorumError, match="Repeat the call, which is safe") as caught:
            await lost.complete_session_key(pending.id, signature)
        await lost.aclose()
        assert caught.value.retryable
        assert await states(store) == ["pending"]
        session = await dan.complete_session_key(pending.id, signature)
        assert key_ids(net) == {session.mpc_key_id}


async def test_a_failure_before_anything_is_sent_is_tried_again() -> None:
    """The signature was there all the same, so the record stays."""

    class Failing(NodeNetwork):
        def reopen_keygen(self, request: Any, text: str) -> OpenedKeygen:
            async def finish(auth: Any, *, deadline: Any) -> Any:
                raise QuorumError("not today", threshold=2, outcomes=[])

            return evolve(super().reopen_keygen(request, text), finish=finish)

    store = MemorySessionStore()
    async with running() as net, nodes(net, store) as dan:
        pending = await begin(dan)
        async with DanClient(Failing(net.endpoints), store=store) as failing:
            with pytest.raises(QuorumError, match="not today"):
                await failing.complete_session_key(pending.id, await signed(pending))
        assert await states(store) == ["pending"]
        assert await dan.complete_session_key(pending.id, await signed(pending))


async def test_cancelled_anywhere_it_can_be_completed(tmp_path: Path) -> None:
    """A visitor who hangs up while the key is made: the next try gets the one key."""
    store = SQLAlchemyStore(f"sqlite:///{tmp_path / 'keys.db'}", KEYS)
    async with running() as net, store, nodes(net, store) as dan:
        pending = await begin(dan)
        signature = await signed(pending)

        async def after_each(_: int) -> None:
            assert (await states(store))[0] in ("waiting", "pending", "active")

        steps = await cancel_everywhere(lambda: dan.complete_session_key(pending.id, signature), after_each)
        assert steps > 5
        session = await dan.complete_session_key(pending.id, signature)
        assert key_ids(net) == {session.mpc_key_id}


async def test_what_was_cut_off_is_recovered() -> None:
    """The owner had signed, and nobody comes again: recover() finds the session."""
    store = MemorySessionStore()
    async with running() as net, nodes(net, store) as dan:
        pending = await begin(dan)
        completing = asyncio.create_task(dan.complete_session_key(pending.id, await signed(pending)))
        while not key_ids(net):
            await asyncio.sleep(0)
        completing.cancel()
        await asyncio.wait([completing])
        (settled,) = (await dan.recover()).records
        assert settled.settlement == "finished"
        assert await dan.complete_session_key(pending.id, await signed(pending)) == settled.session


async def test_two_signatures_of_the_owners_make_one_key() -> None:
    """They differ, as wallets may draw nonces; at once, and when the first call was broken off with the key made."""
    store = MemorySessionStore()
    async with running() as net, nodes(net, store) as dan:
        pending, broken = await begin(dan), await begin(dan)
        made = await asyncio.gather(
            dan.complete_session_key(pending.id, await signed(pending)),
            dan.complete_session_key(pending.id, signed_anew(pending)),
        )
        assert made[0] == made[1]
        completing = asyncio.create_task(dan.complete_session_key(broken.id, await signed(broken)))
        while len(key_ids(net)) < 2:
            await asyncio.sleep(0)
        completing.cancel()
        await asyncio.wait([completing])
        session = await dan.complete_session_key(broken.id, signed_anew(broken))
        assert key_ids(net) == {made[0].mpc_key_id, session.mpc_key_id}
        assert await states(store) == ["active", "active"]


async def test_it_waits_as_long_as_the_nonces_live(make_devnet: Any) -> None:
    """Then it is too late, there is no key, and recover() clears away what others left."""
    clock = ManualClock()
    net = await make_devnet(2, 3, limits=NodeLimits(nonce_lifetime_s=60), clock=clock)
    store = MemorySessionStore(clock=clock)
    async with nodes(net, store, clock=clock) as dan:
        pending, left = await begin(dan, duration=3600), await begin(dan, duration=3600)
        assert pending.expires_at == int(clock()) + 60
        signature = await signed(pending)
        clock.advance(59)
        assert (await dan.recover()).records == ()
        clock.advance(1)
        with pytest.raises(PendingNotFoundError, match="too late"):
            await dan.complete_session_key(pending.id, signature)
        assert {r.settlement for r in (await dan.recover()).records} == {"dropped"}
        with pytest.raises(PendingNotFoundError, match="no session key with this id"):
            await dan.complete_session_key(left.id, await signed(left))
        assert (await states(store), key_ids(net)) == ([], set())


@pytest.mark.parametrize("ahead_s", [-500, 500])
async def test_a_wrong_clock_does_not_shorten_the_wait(make_devnet: Any, ahead_s: int) -> None:
    """Until when the nodes wait is said, and judged, by the clock of whoever waits."""
    theirs, ours = ManualClock(), ManualClock()
    ours.advance(ahead_s)
    net = await make_devnet(2, 3, clock=theirs)
    network = NodeNetwork(net.endpoints, clock=ours)
    async with DanClient(network, clock=ours) as dan:
        pending = await begin(dan, duration=3600)
        assert abs(pending.expires_at - ours() - 300) <= 2
        assert await dan.complete_session_key(pending.id, await signed(pending))


@pytest.mark.parametrize("kept", [True, False], ids=["store", "no store"])
async def test_no_more_than_so_many_wait(make_devnet: Any, kept: bool) -> None:
    """One too many is refused before a byte is sent; what was completed, called off or too late makes room."""
    clock = ManualClock()
    net = await make_devnet(2, 3, clock=clock)
    store = MemorySessionStore(clock=clock) if kept else None
    async with nodes(net, store, clock=clock, max_pending=2) as dan:
        first, second = await asyncio.gather(begin(dan, duration=9000), begin(dan, duration=9000))
        with pytest.raises(OverloadedError, match="2 session keys already wait") as caught:
            await begin(dan)
        assert (caught.value.waiting, caught.value.retryable) == (2, True)
        await dan.complete_session_key(first.id, await signed(first))
        third = await begin(dan)
        assert await dan.cancel_session_key(second.id)
        await begin(dan)
        with pytest.raises(OverloadedError):
            await begin(dan)
        clock.advance(400)
        for _ in range(2):
            await begin(dan)
        with pytest.raises(PendingNotFoundError):
            await dan.complete_session_key(third.id, await signed(third))
        if store is not None:
            assert sorted(await states(store)) == ["active", "waiting", "waiting"]
    with pytest.raises(InvalidFieldError, match="max_pending"):
        nodes(net, max_pending=0)


async def test_what_was_called_off_is_gone() -> None:
    """A signature that comes after that makes nothing, here or elsewhere; an unknown id is not known."""
    store = MemorySessionStore()
    async with running() as net, nodes(net, store) as dan, nodes(net, store) as other:
        pending = await begin(dan)
        assert await other.cancel_session_key(pending.id)
        assert not await dan.cancel_session_key(pending.id)
        for unknown in (pending.id, "0x" + "00" * 32, "x"):
            with pytest.raises(PendingNotFoundError, match="begin again"):
                await dan.complete_session_key(unknown, await signed(pending))
        with pytest.raises(InvalidFieldError, match="pending_id"):
            await dan.complete_session_key(7, "0x")  # type: ignore[arg-type]
        assert key_ids(net) == set()


async def test_wrong_parameters_are_named_and_nothing_is_sent() -> None:
    """Wallets are none of its parameters; a reference needs a store, and is taken once."""
    store = MemorySessionStore()
    async with running() as net, nodes(net) as dan, nodes(net, store) as kept:
        for name, value in {"wallet": OWNER, "allow_resign": True, "on_report": print, "colour": 1}.items():
            with pytest.raises(InvalidFieldError, match=f"{name} is not a parameter of begin_session_key"):
                await begin(dan, **{name: value})
        with pytest.raises(InvalidFieldError, match="owner"):
            await dan.begin_session_key(owner="me", chain_id=1)
        with pytest.raises(InvalidFieldError, match="chain_id"):
            await dan.begin_session_key(owner=OWNER.address)
        with pytest.raises(InvalidFieldError, match="needs a store"):
            await begin(dan, reference="ada")
        await begin(kept, reference="ada")
        with pytest.raises(RecordConflictError):
            await begin(kept, reference="ada")
        rows = [{"wallet": OWNER, "chain_id": 1, "reference": "ada"}]
        (row,) = [row async for row in kept.generate_session_keys(rows, resume=True)]
        assert "waits for its owner's signature" in str(row.error)


async def test_it_is_completed_over_the_same_nodes_only() -> None:
    """A network that lacks one of them says so."""
    store = MemorySessionStore()
    async with running() as net, nodes(net, store) as dan:
        pending = await begin(dan)
        lacking = DanClient(NodeNetwork(net.endpoints[:2]), store=store)
        with pytest.raises(ConfigurationError, match=net.endpoints[2].operator):
            await lacking.complete_session_key(pending.id, await signed(pending))
        await lacking.aclose()


async def test_too_few_nodes_are_noticed_before_the_owner_is_asked() -> None:
    """Nothing is stored then."""
    store = MemorySessionStore()
    async with running() as net, nodes(net, store, timeouts=QUICK) as dan:
        await net.nodes[0].stop()
        with pytest.raises(QuorumError, match="are ready"):
            await begin(dan)
        assert await states(store) == []
        pending = await begin(dan, min_parties=2)
        session = await dan.complete_session_key(pending.id, await signed(pending))
    assert (session.threshold, session.parties_number) == (2, 2)


# --- over gateways ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["0.1", "0.3", "1", "v2"])
async def test_over_a_gateway_the_connection_waits(way: str) -> None:
    """A wrong signature leaves it waiting, two of the owner's make one key, and it can be called off."""
    async with running() as net, gateway(net, way=way) as dan:
        pending, off, left = await begin(dan), await begin(dan), await begin(dan)
        with pytest.raises(WrongSignerError):
            await dan.complete_session_key(pending.id, await signed(pending, STRANGER))
        signature = await signed(pending)
        made = await asyncio.gather(*(dan.complete_session_key(pending.id, signature) for _ in range(3)))
        assert made == [made[0]] * 3
        assert key_ids(net) == {made[0].mpc_key_id}
        assert [await dan.cancel_session_key(each.id) for each in (pending, off, off)] == [False, True, False]
        with pytest.raises(PendingNotFoundError):
            await dan.complete_session_key(off.id, await signed(off))
        del left  # the client ends it


async def test_over_a_gateway_it_lives_in_its_process() -> None:
    """Elsewhere it is one clear error, and it goes on waiting; called off, it leaves no record."""
    store = MemorySessionStore()
    async with running() as net, gateway(net, store) as dan, gateway(net, store) as other:
        pending, off = await begin(dan, reference="ada"), await begin(dan)
        with pytest.raises(PendingNotFoundError, match="in the process that began it"):
            await other.complete_session_key(pending.id, await signed(pending))
        assert (await other.recover()).records == ()
        assert await dan.cancel_session_key(off.id)
        session = await dan.complete_session_key(pending.id, await signed(pending))
        (record,) = [record async for record in store.find(SessionFilter())]
        assert (record.state, record.session, record.record_id) == ("active", session, pending.id)


async def test_over_a_gateway_it_waits_as_long_as_for_a_wallet() -> None:
    """Then it is too late; also when it is the gateway that hangs up, which the error says."""
    hurried = Timeouts(wallet_s=0.1)
    async with running() as net, gateway(net, timeouts=hurried) as dan, gateway(net) as patient:
        pending = await begin(dan)
        await asyncio.sleep(0.2)
        with pytest.raises(PendingNotFoundError, match="too late"):
            await dan.complete_session_key(pending.id, await signed(pending))
        pending = await begin(patient)
        await net.aclose()
        error = await error_of(patient.complete_session_key(pending.id, await signed(pending)))
    assert isinstance(error, GatewayError)
    assert "while the owner's wallet was asked" in str(error)


async def test_a_gateway_that_gives_no_challenge_is_an_error_at_once() -> None:
    """Nothing waits, and nothing is left."""
    async with running() as net, gateway(net, timeouts=QUICK, max_pending=1) as dan:
        await net.aclose()
        for _ in range(2):
            with pytest.raises(GatewayError):
                await begin(dan)


async def test_whoever_has_signed_is_not_cleared_away() -> None:
    """Its time ends while the key is made, and somebody else needs the place."""
    clock = ManualClock()
    async with running(clock=clock) as net, gateway(net, clock=clock, max_pending=1) as dan:
        pending = await begin(dan, duration=9000)
        completing = asyncio.create_task(dan.complete_session_key(pending.id, await signed(pending)))
        await asyncio.sleep(0)
        clock.advance(130)
        with pytest.raises(OverloadedError):
            await begin(dan)
        session = await completing
        assert session.eoa_address == OWNER.address
        await begin(dan)


async def test_a_client_that_is_closed_meanwhile_leaves_nothing() -> None:
    """Neither of what is begun just then, nor of what is completed."""
    async with running() as net:
        for turns in range(6):
            dan = gateway(net, way="v2")
            beginning = asyncio.create_task(begin(dan))
            for _ in range(turns):
                await asyncio.sleep(0)
            await dan.aclose()
            assert isinstance(await error_of(beginning), ClientClosedError | None)
        for turns in range(6):
            dan = gateway(net)
            pending = await begin(dan)
            completing = asyncio.create_task(dan.complete_session_key(pending.id, await signed(pending)))
            for _ in range(turns):
                await asyncio.sleep(0)
            await dan.aclose()
            assert isinstance(await error_of(completing), ClientClosedError)

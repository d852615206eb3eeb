"""generate_session_key end to end: the official client, real nodes, real WebSockets, a real distributed key."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from coincurve import PrivateKey

from dan_async import CallbackWallet, DanClient, LocalWallet, NodeNetwork, generate_session_key
from dan_async.config import NodeEndpoint, Threshold, Timeouts
from dan_async.crypto.address import public_key_to_address
from dan_async.devnet import Devnet
from dan_async.errors import NodeProtocolError, QuorumError, WalletRefusedError
from tests.adversity.cancelling import cancel_everywhere
from tests.fake_nodes import Identity
from tests.helpers import no_leaks
from tests.interpolation import interpolate_scalar

WALLET = LocalWallet("0x" + "00" * 31 + "01")
PATIENT = Timeouts(total_s=60, attempt_s=60)


def address_of(shares: dict[int, int]) -> str:
    """The address of the private key to which these shares interpolate."""
    secret = interpolate_scalar(shares)
    return public_key_to_address(PrivateKey(secret.to_bytes(32, "big")).public_key.format())


def shares_of(net: Devnet, key_id: str) -> dict[int, int]:
    held = [node.reveal_share(key_id) for node in net.nodes]
    return {share.index: share.secret_share for share in held if share is not None}


@contextlib.asynccontextmanager
async def warmed_up(net: Devnet) -> AsyncIterator[None]:
    """Have the nodes make one key, after which their links to each other stay open."""
    async with DanClient(net) as dan:
        await dan.generate_session_key(wallet=WALLET, chain_id=1)
    yield


async def test_the_key_is_real() -> None:
    """Any t shares make the private key of session_key_eoa, no t - 1 do, and no node holds it."""
    async with Devnet(threshold=3, parties=5) as net, DanClient(net) as dan:
        payload = await dan.generate_session_key(wallet=WALLET, chain_id=80002)
        shares = shares_of(net, payload.mpc_key_id)
    assert len(shares) == 5
    for subset in itertools.combinations(shares, 3):
        assert address_of({i: shares[i] for i in subset}) == payload.session_key_eoa
    for subset in itertools.combinations(shares, 2):
        assert address_of({i: shares[i] for i in subset}) != payload.session_key_eoa
    for share in shares.values():
        assert (
            public_key_to_address(PrivateKey(share.to_bytes(32, "big")).public_key.format())
            != payload.session_key_eoa
        )


@pytest.mark.parametrize(
    ("t", "n"),
    [(2, 2), (2, 3), (3, 3), (4, 5), (5, 5), (6, 7), (7, 7), (8, 9), (9, 10), (10, 12), (11, 11), (11, 20)],
)
async def test_thresholds(t: int, n: int) -> None:
    """From 2-of-2 to 11-of-20, n = t included."""
    async with Devnet(threshold=t, parties=n) as net, DanClient(net, timeouts=PATIENT) as dan:
        payload = await dan.generate_session_key(wallet=WALLET, chain_id=1)
        shares = shares_of(net, payload.mpc_key_id)
    assert (payload.threshold, payload.parties_number) == (t, n)
    assert address_of(dict(itertools.islice(shares.items(), t))) == payload.session_key_eoa
    assert address_of(dict(itertools.islice(shares.items(), t - 1))) != payload.session_key_eoa


async def test_a_client_starts_and_stops_an_idle_devnet() -> None:
    """DanClient(Devnet(...)) runs the network for as long as it is open, and nothing is left."""
    async with no_leaks():
        async with DanClient(Devnet(threshold=2, parties=2)) as dan:
            payload = await dan.generate_session_key(wallet=WALLET, chain_id=1)
    assert payload.parties_number == 2


async def test_a_client_leaves_a_running_devnet_running() -> None:
    """Whoever opens closes: a devnet that was started by somebody else goes on."""
    async with Devnet(threshold=2, parties=2) as net:
        for _ in range(2):
            async with DanClient(net) as dan:
                await dan.generate_session_key(wallet=WALLET, chain_id=1)


async def test_a_client_that_opened_nothing_closes_nothing() -> None:
    """A devnet that another client has started goes on when one is closed that never used it."""
    net = Devnet(threshold=2, parties=2)
    async with DanClient(net) as dan:
        await DanClient(net).aclose()
        await dan.generate_session_key(wallet=WALLET, chain_id=1)


async def test_closing_that_was_cancelled_is_taken_up_again() -> None:
    """A client that is closed while its devnet starts stops it, though at first somebody had no patience."""
    async with no_leaks():
        dan = DanClient(Devnet(threshold=2, parties=2))
        opening = asyncio.create_task(dan.__aenter__())
        await asyncio.sleep(0)
        closing = asyncio.create_task(dan.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([opening, closing])
        await dan.aclose()


@pytest.mark.parametrize(
    "close", [DanClient.aclose, lambda dan: dan.network.aclose()], ids=["client", "network"]
)
async def test_closing_is_carried_through(close: Any) -> None:
    """Cancelled in whatever turn of the loop, it closes every connection."""
    async with no_leaks(), Devnet(threshold=2, parties=2) as net:
        for turns in range(1, 6):
            dan = DanClient(net.network())
            await dan.generate_session_key(wallet=WALLET, chain_id=1)
            closing = asyncio.create_task(close(dan))
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            assert closing.cancelled()
            assert [node._transport.connection for node in dan.network.pool.nodes] == [None, None]
            await dan.aclose()


async def test_fifty_at_once() -> None:
    """Fifty concurrent calls on one client simply work."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net, timeouts=PATIENT) as dan:
        payloads = await asyncio.gather(
            *(dan.generate_session_key(wallet=WALLET, chain_id=1) for _ in range(50))
        )
    assert len({payload.session_key_eoa for payload in payloads}) == 50


async def test_the_seeds_function() -> None:
    """The module-level function of the reference page, with permissions, against real nodes."""

    class Account:
        signer = WALLET
        bundler_url = "https://bundler.example/api/v2/80002/key"
        chain_id = None

        async def get_address(self) -> str:
            return WALLET.address

    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        payload = await generate_session_key(
            smart_account_client=Account(), client=dan, permissions={"permissions": []}, duration=60
        )
    assert payload.chain_id == 80002


@pytest.mark.parametrize("eph_alg", ["secp256k1", "ed25519"])
async def test_both_kinds_of_ephemeral_key(eph_alg: Any) -> None:
    """The nodes accept either algorithm."""
    async with Devnet(threshold=2, parties=2) as net, DanClient(net) as dan:
        payload = await dan.generate_session_key(wallet=WALLET, chain_id=1, eph_alg=eph_alg)
    assert payload.eph_alg == eph_alg


async def test_over_posts() -> None:
    """The same job over HTTP POST instead of WebSockets."""
    async with Devnet(threshold=2, parties=3) as net:
        endpoints = [NodeEndpoint(e.url.replace("ws://", "http://"), e.operator) for e in net.endpoints]
        async with DanClient(NodeNetwork(endpoints, threshold=Threshold(2, 3))) as dan:
            payload = await dan.generate_session_key(wallet=WALLET, chain_id=1)
    assert payload.parties_number == 3


async def test_a_dead_node_is_replaced_by_a_spare() -> None:
    """A pool of four with one stopped makes a 2-of-3 key."""
    async with Devnet(threshold=2, parties=4) as net:
        await net.nodes[0].stop()
        async with DanClient(net) as dan:
            payload = await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=2, parties_number=3)
        assert net.nodes[0].reveal_share(payload.mpc_key_id) is None


async def test_without_a_spare_the_error_names_the_node() -> None:
    """All n are needed for key generation: the dead one is named, with what to do."""
    async with Devnet(threshold=2, parties=3) as net:
        await net.nodes[1].stop()
        async with DanClient(net) as dan:
            with pytest.raises(QuorumError, match="2 nodes are ready") as caught:
                await dan.generate_session_key(wallet=WALLET, chain_id=1)
            failed = [outcome.operator for outcome in caught.value.nodes if not outcome.is_success]
            assert failed == [net.nodes[1].operator]
            payload = await dan.generate_session_key(wallet=WALLET, chain_id=1, min_parties=2)
            assert payload.parties_number == 2
            await net.nodes[1].start()
            payload = await dan.generate_session_key(wallet=WALLET, chain_id=1, timeout=30)
            assert payload.parties_number == 3


async def test_a_node_that_is_not_who_it_should_be() -> None:
    """A URL with another operator than the node's: it is not talked to, and the error says who it is."""
    async with Devnet(threshold=2, parties=2) as net:
        stranger = Identity().operator
        endpoints = [net.endpoints[0], NodeEndpoint(net.endpoints[1].url, stranger)]
        async with DanClient(NodeNetwork(endpoints, threshold=Threshold(2, 2))) as dan:
            with pytest.raises(QuorumError) as caught:
                await dan.generate_session_key(wallet=WALLET, chain_id=1)
    error = caught.value.nodes[0].error
    assert isinstance(error, NodeProtocolError)
    assert f"the node is operator {net.endpoints[1].operator}, not {stranger}" in str(error)


async def test_a_wallet_that_refuses_leaves_nothing_half_open() -> None:
    """After a refusal nothing was created, and the client works on."""

    async def refuse(typed_data: Any) -> str:
        raise WalletRefusedError("the owner said no")

    async with Devnet(threshold=2, parties=2) as net, warmed_up(net), no_leaks(), DanClient(net) as dan:
        with pytest.raises(WalletRefusedError):
            await dan.generate_session_key(wallet=CallbackWallet(WALLET.address, refuse), chain_id=1)
        await dan.generate_session_key(wallet=WALLET, chain_id=1)


async def test_cancelled_at_every_await() -> None:
    """Against real nodes: whatever the await at which it is cut, the client and its connections go on working."""
    async with Devnet(threshold=2, parties=2) as net, warmed_up(net):
        async with no_leaks(), DanClient(net) as dan:

            async def sign(typed_data: Any) -> str:
                await asyncio.sleep(0)
                return await WALLET.sign_typed_data(typed_data)

            wallet = CallbackWallet(WALLET.address, sign)

            async def after(k: int) -> None:
                connections = [node._transport.connection for node in dan.network.pool.nodes]
                assert all(connection is None or connection.pending == 0 for connection in connections)
                await dan.generate_session_key(wallet=WALLET, chain_id=1)

            await cancel_everywhere(lambda: dan.generate_session_key(wallet=wallet, chain_id=1), after)


async def test_health() -> None:
    """Every node answers with its clock; a stopped one is reported."""
    async with Devnet(threshold=2, parties=3) as net:
        await net.nodes[2].stop()
        async with DanClient(net) as dan:
            health = await dan.network.health(timeout_s=5)
    assert health.live == 2
    assert all(abs(node.clock_skew_s) < 5 for node in health.nodes if node.is_live)
    assert "no connection to ws://127.0.0.1" in health.nodes[2].problem

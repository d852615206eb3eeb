"""A client whose clock is off by minutes: it signs all the same, and says so where it cannot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from attrs import evolve
from eth_account import Account
from eth_account.messages import encode_defunct

from dan_async import DanClient, LocalWallet, NodeNetwork
from dan_async.config import NodeEndpoint
from dan_async.devnet import Devnet
from dan_async.errors import QuorumError, SessionExpiredError
from dan_async.session import DanSessionKeyPayload
from dan_async.storage import MemorySessionStore

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWNER = LocalWallet("0x" + "00" * 31 + "07")
MINUTE = 60.0


class Client:
    """A client of the devnet, and its clock, which runs as the nodes' does but shows another time."""

    def __init__(self, net: Devnet, off_s: float, scheme: str = "ws") -> None:
        self.off_s = off_s
        endpoints = [NodeEndpoint(e.url.replace("ws://", f"{scheme}://"), e.operator) for e in net.endpoints]
        self.network = NodeNetwork(endpoints, threshold=net.threshold, clock=self.now)
        self.dan = DanClient(self.network, clock=self.now)

    def now(self) -> float:
        return time.time() + self.off_s

    async def sign(self, session: DanSessionKeyPayload, text: str = "hello") -> None:
        signature = await self.dan.sign_message(text, session)
        signer = Account.recover_message(encode_defunct(text=text), signature=signature)
        assert signer == session.session_key_eoa


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net() -> AsyncIterator[Devnet]:
    async with Devnet(threshold=2, parties=3) as devnet:
        yield devnet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(net: Devnet) -> DanSessionKeyPayload:
    """Made by somebody whose clock is right."""
    async with DanClient(net.network()) as dan:
        return await dan.generate_session_key(wallet=OWNER, chain_id=80002, duration=3600)


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("minutes", [-14, -4, 4, 14])
async def test_it_signs(net: Devnet, session: DanSessionKeyPayload, minutes: float, scheme: str) -> None:
    """
    With new presignatures and with those made ahead, which it does not take for expired.

    On a WebSocket the nodes say their time at once, with POST in the refusals of the first request.
    """
    client = Client(net, minutes * MINUTE, scheme)
    async with client.dan:
        for _ in range(4):
            await client.sign(session)
        skew = client.network.clock_skew(2)
        assert skew is not None
        assert abs(skew.seconds + client.off_s) < 5
        assert len(client.network.pool.signer.stock._shelves)


async def test_it_goes_on_when_its_clock_jumps(net: Devnet, session: DanSessionKeyPayload) -> None:
    """There and back: the refusals say what time it is."""
    client = Client(net, 0.0)
    async with client.dan:
        for minutes in (0, 10, -10, 0, 5):
            client.off_s = minutes * MINUTE
            await client.sign(session)
            await client.sign(session)


async def test_it_goes_by_the_nodes_time_whether_a_session_has_expired(
    net: Devnet, session: DanSessionKeyPayload
) -> None:
    """Neither sooner nor later, and the error says that the clock is wrong."""
    client = Client(net, 0.0)
    async with client.dan:
        client.off_s = 10 * MINUTE
        await client.sign(session)
        await client.sign(session)  # by now t nodes have said their time
        lives, ended = (evolve(session, expires_at=int(time.time()) + left) for left in (120, -120))
        await client.sign(lives)
        client.off_s = -10 * MINUTE
        await client.sign(session)
        await asyncio.gather(*client.network.pool.signer._refills)  # what is made ahead asks the nodes too
        before = [node.health.requests for node in client.network.pool.nodes]
        with pytest.raises(SessionExpiredError, match=r"clock is 10 minutes behind . of 3 nodes; set it"):
            await client.sign(ended)
        assert [node.health.requests for node in client.network.pool.nodes] == before


@pytest.mark.parametrize("scheme", ["ws", "http"])
@pytest.mark.parametrize("minutes", [-10, 10])
async def test_new_ephemeral_keys_live_as_long_as_was_asked(
    net: Devnet, session: DanSessionKeyPayload, minutes: float, scheme: str
) -> None:
    """Counted from the nodes' time as soon as that is known, and renewed in time."""
    client = Client(net, minutes * MINUTE, scheme)
    async with client.dan:
        await client.sign(session)
        made = await client.dan.generate_session_key(wallet=OWNER, chain_id=80002, duration=300)
        added = await client.dan.add_ephemeral_key(session, wallet=OWNER, duration=300)
        for new in (made, added):
            assert new.expires_at is not None
            assert abs(new.expires_at - time.time() - 300) < 15
            await client.sign(new)
        live = client.dan.keep_alive(made, wallet=OWNER, duration=300)
        assert abs(live._left_s() - 300) < 15
        await client.dan.revoke_ephemeral_key(added, wallet=OWNER)


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_so_does_the_very_first_one(net: Devnet, session: DanSessionKeyPayload, minutes: float) -> None:
    """The nodes say their time before the owner is asked, who is asked once."""

    class Counted(LocalWallet):
        asked = 0

        async def sign_typed_data(self, typed_data: Any) -> str:
            self.asked += 1
            return await super().sign_typed_data(typed_data)

    async def make(dan: DanClient, wallet: Counted) -> DanSessionKeyPayload:
        return await dan.generate_session_key(wallet=wallet, chain_id=80002, duration=300, reference="first")

    async def add(dan: DanClient, wallet: Counted) -> DanSessionKeyPayload:
        return await dan.add_ephemeral_key(session, wallet=wallet, duration=300)

    async def begin(dan: DanClient, wallet: Counted) -> DanSessionKeyPayload:
        begun = await dan.begin_session_key(owner=wallet.address, chain_id=80002, duration=300)
        return await dan.complete_session_key(begun.id, await wallet.sign_typed_data(begun.typed_data))

    for job in (make, add, begin):
        client, wallet, store = Client(net, minutes * MINUTE), Counted("11" * 32), MemorySessionStore()
        if job is add:
            wallet = Counted("0x" + "00" * 31 + "07")
        async with DanClient(client.network, clock=client.now, store=store) as dan:
            made = await job(dan, wallet)
            assert wallet.asked == 1
            assert made.expires_at is not None
            assert abs(made.expires_at - time.time() - 300) < 15
            await dan.sign_message("hello", made)
        records = [record async for record in store.find()]
        assert [record.expires_at for record in records] == [made.expires_at] * (job is not add)


@pytest.mark.parametrize(("hours", "words"), [(-3, "3 hours behind"), (5, "5 hours ahead of")])
async def test_too_far_off_it_says_so(
    net: Devnet, session: DanSessionKeyPayload, hours: float, words: str
) -> None:
    """Beyond a quarter of an hour nothing is corrected."""
    client = Client(net, hours * 60 * MINUTE)
    async with client.dan:
        with pytest.raises(QuorumError, match=f"This machine's clock is {words} 3 of 3 nodes; set it"):
            await client.sign(evolve(session, expires_at=2**33))


async def test_a_key_generation_says_it_as_well(net: Devnet) -> None:
    """A claim that has expired by the nodes' clocks before it is made."""
    client = Client(net, -60 * MINUTE)
    async with client.dan:
        with pytest.raises(QuorumError, match="clock is 60 minutes behind 3 of 3 nodes; set it"):
            await client.dan.generate_session_key(wallet=OWNER, chain_id=80002, duration=600)


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_one_node_that_lies_about_the_time_moves_nothing(minutes: float) -> None:
    """The client's clock is right and stays so; it signs with the others."""
    async with Devnet(threshold=2, parties=3) as net:
        client = Client(net, 0.0)
        async with client.dan:
            made = await client.dan.generate_session_key(wallet=OWNER, chain_id=80002)
            await net.nodes[0].stop()
            net._runners[0]._clock = lambda: time.time() + minutes * MINUTE
            await net.nodes[0].start()
            for i in range(4):
                await client.sign(made, f"message {i}")
            assert client.network.clock_skew(2) is None

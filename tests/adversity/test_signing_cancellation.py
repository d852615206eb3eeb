"""Cancelling a signature: no task, no pending entry, and the client signs afterwards."""

from __future__ import annotations

import asyncio

import pytest

from dan_async import DanClient, GatewayNetwork
from dan_async.nodes import SigningOptions
from tests.adversity.cancelling import cancel_after_loop_turns, cancel_everywhere
from tests.fake_signing import SigningNetwork
from tests.gateway_server import ONCE, scripted
from tests.helpers import no_leaks, wait_until
from tests.unit.gateway.test_signing import NOW, session, signing


def in_flight(client: DanClient) -> int:
    """Requests that the client's transports still hold."""
    return sum(len(node._transport._in_flight) for node in client.network.pool.nodes)


@pytest.fixture
def net() -> SigningNetwork:
    return SigningNetwork(2, 3)


async def test_at_every_await_of_the_job(net: SigningNetwork) -> None:
    """Cancelled at its k-th await, for every k there is: nothing is left behind."""
    client = DanClient(net.network(signing=SigningOptions(stock=0)), clock=lambda: net.now)

    async def after(k: int) -> None:
        assert len(asyncio.all_tasks()) == 1, f"a task outlived the cancellation at await {k}"
        assert in_flight(client) == 0

    runs = await cancel_everywhere(lambda: client.sign_message("hello", net.session()), after)
    assert runs >= 1
    await client.sign_message("hello", net.session())
    await client.aclose()


@pytest.mark.parametrize("stock", [0, 2])
async def test_after_every_turn_of_the_loop(net: SigningNetwork, stock: int) -> None:
    """Cancelled after k turns of the event loop, which also lands between the awaits of its tasks."""
    client = DanClient(net.network(signing=SigningOptions(stock=stock)), clock=lambda: net.now)
    turns, cut = 0, True
    while cut:
        turns += 1
        cut = await cancel_after_loop_turns(lambda: client.sign_message("hello", net.session()), turns)
        refills = client.network.pool.signer._refills
        assert len(asyncio.all_tasks()) - len(refills) == 1
        await asyncio.gather(*refills)
        assert in_flight(client) == 0
    assert turns > 5
    await client.sign_message("hello", net.session())
    await client.aclose()
    assert len(asyncio.all_tasks()) == 1


async def test_at_a_gateway() -> None:
    """No socket is left either."""
    async with no_leaks(), scripted(signing()) as gateway:
        network = GatewayNetwork(gateway.url(), revision="0.3", retry=ONCE, clock=lambda: NOW)
        client = DanClient(network, clock=lambda: NOW)

        async def after(_: int) -> None:
            await wait_until(lambda: all(visit.is_over for visit in gateway.visits))

        runs = await cancel_everywhere(lambda: client.sign_message("hello", session()), after)
        assert runs >= 3
        await client.sign_message("hello", session())
        await client.aclose()

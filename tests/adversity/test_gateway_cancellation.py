"""Cancelling an operation at a gateway, at every await there is: no task and no socket is left, and the network goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dan_async.config import Timeouts
from dan_async.gateway import GatewayNetwork
from tests.adversity.cancelling import cancel_after_loop_turns, cancel_everywhere
from tests.certificates import CertificateAuthority
from tests.gateway_server import (
    KEY_ID,
    QUICK,
    CountingWallet,
    ScriptedGateway,
    honest,
    key_change,
    keygen_request,
    operate,
    scripted,
    speaking,
)
from tests.helpers import no_leaks, open_sockets, wait_until


def unused(network: GatewayNetwork) -> bool:
    """Whether the network holds neither a socket nor an attempt to open one."""
    connector = network._gateway.connector
    return not connector.sockets and not len(connector._in_flight)


async def settled(network: GatewayNetwork, gateway: ScriptedGateway, tasks: int) -> None:
    """Wait until both sides have noticed; nothing of the client may need any time for it."""
    assert unused(network)
    await wait_until(lambda: all(visit.is_over for visit in gateway.visits))
    await wait_until(lambda: len(asyncio.all_tasks()) <= tasks)


async def cancel_at_every_await(gateway: ScriptedGateway, make_network: Any, operation: str) -> int:
    """Cancel the operation at each of its awaits; give how many there are. Each run has a network of its own."""
    tasks = len(asyncio.all_tasks())
    networks: list[GatewayNetwork] = []

    def make() -> Any:
        networks.append(make_network())
        wallet = CountingWallet(interactive=True, before=lambda: asyncio.sleep(0))
        request = keygen_request() if operation == "keygen" else key_change("revoke")
        return operate(networks[-1], operation, wallet, request=request)

    async def after(k: int) -> None:
        await settled(networks[-1], gateway, tasks)
        assert (await operate(networks[-1])).key_id == KEY_ID  # it works afterwards
        await networks[-1].aclose()

    runs = await cancel_everywhere(make, after)
    await networks[-1].aclose()
    return runs


@pytest.mark.parametrize(
    ("options", "operation", "least"),
    [
        ({"revision": "0.3"}, "keygen", 6),
        ({"revision": "1"}, "revokeEphemeralKey", 6),
        ({}, "keygen", 10),
        ({"api_version": "v2"}, "keygen", 5),
    ],
    ids=["keygen", "revocation", "finding out the revision", "one-shot"],
)
async def test_at_every_await(options: dict[str, Any], operation: str, least: int) -> None:
    """Cancelled at its k-th await, for every k there is."""
    speaks = speaking("0.3") if not options else honest
    async with no_leaks(), scripted(speaks) as gateway:
        url = gateway.url(options.get("api_version", "v1"))
        runs = await cancel_at_every_await(
            gateway, lambda: GatewayNetwork(url, retry=QUICK, **options), operation
        )
    assert runs >= least  # connect, challenge, wallet, result, closing at least


async def test_at_every_await_over_tls(tmp_path: Any) -> None:
    """A TLS connection has more states to be left in."""
    from dan_async.config import TransportOptions

    authority = CertificateAuthority()
    options = TransportOptions(ssl_context=authority.client_context())
    async with (
        no_leaks(),
        scripted(honest, tls=authority.issue().server_context(tmp_path)) as gateway,
    ):
        runs = await cancel_at_every_await(
            gateway, lambda: GatewayNetwork(gateway.url(), revision="0.3", options=options), "keygen"
        )
    assert runs >= 6


async def test_after_every_turn_of_the_loop() -> None:
    """Cancelled after k turns of the event loop, which also lands between the awaits of its tasks."""
    async with no_leaks(), scripted(speaking("0.3")) as gateway:
        tasks = len(asyncio.all_tasks())
        turns, cut = 0, True
        while cut:
            turns += 1
            network = GatewayNetwork(gateway.url(), timeouts=Timeouts(connect_s=10))
            cut = await cancel_after_loop_turns(lambda network=network: operate(network), turns)
            await settled(network, gateway, tasks)
            await network.aclose()
    assert turns > 10


async def test_closing_the_network_is_cancelled() -> None:
    """Even a cancelled aclose() leaves no socket."""
    async with no_leaks(), scripted(honest) as gateway:
        network = GatewayNetwork(gateway.url(), revision="0.3")
        before = set(open_sockets())
        wallet = CountingWallet(interactive=True, before=asyncio.Event().wait)
        call = asyncio.create_task(operate(network, wallet=wallet))
        await wallet.is_asked.wait()
        assert set(open_sockets()) > before
        await cancel_after_loop_turns(network.aclose, 1)
        await asyncio.gather(call, return_exceptions=True)
        assert unused(network)
        await network.aclose()

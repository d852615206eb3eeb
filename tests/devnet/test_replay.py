"""The owner's authorisation, recorded on its way through a gateway and used again: there, and at another gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from dan_async import DanClient, GatewayNetwork, LocalWallet
from dan_async.devnet import Devnet
from dan_async.errors import InvalidFieldError

pytestmark = pytest.mark.asyncio(loop_scope="module")

WALLET = LocalWallet("0x" + "00" * 31 + "01")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nets() -> AsyncIterator[tuple[Devnet, Devnet]]:
    """Two networks, each with a gateway of its own."""
    async with Devnet(threshold=2, parties=3) as one, Devnet(threshold=2, parties=3) as other:
        yield one, other


class Eavesdropper:
    """A gateway in the middle: passes everything on to the real one, and keeps what the client says."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.heard: list[str] = []

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        near = web.WebSocketResponse()
        await near.prepare(request)
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(self.target + request.path) as far:

                async def back() -> None:
                    async for message in far:
                        await near.send_str(message.data)
                    await near.close()

                task = asyncio.create_task(back())
                async for message in near:
                    self.heard.append(message.data)
                    await far.send_str(message.data)
                await far.close()
                await task
        return near


def base(net: Devnet) -> str:
    return net.gateway_url.removesuffix("/v1")


@asynccontextmanager
async def listening(net: Devnet) -> AsyncIterator[tuple[Eavesdropper, str]]:
    eavesdropper = Eavesdropper(base(net))
    app = web.Application()
    app.router.add_get("/{path:.*}", eavesdropper.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield eavesdropper, f"ws://{host}:{port}"
    finally:
        await runner.cleanup()


async def record(net: Devnet, revision: str, version: str) -> list[str]:
    """Have a key made through the eavesdropper, and return what it heard."""
    async with listening(net) as (eavesdropper, url):
        network = GatewayNetwork(f"{url}/{version}", revision=revision, api_version=version)
        async with DanClient(network) as dan:
            await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=2, parties_number=3)
    return eavesdropper.heard


async def play(net: Devnet, version: str, frames: list[str]) -> list[str]:
    """Say the same again on a new connection, as slowly as the gateway answers, and return its answers."""
    answers = []
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{base(net)}/{version}/keygen") as socket:
            for frame in frames:
                await socket.send_str(frame)
                message = await socket.receive(timeout=30)
                if message.type is aiohttp.WSMsgType.TEXT:
                    answers.append(message.data)
    return answers


def keys(net: Devnet) -> int:
    """How many keys the first node holds."""
    runner: Any = net._runners[0]
    return len(runner._server.ring)


@pytest.mark.parametrize("revision", ["0.1", "0.3", "1"])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_was_signed_for_one_challenge_does_for_no_other(
    nets: tuple[Devnet, Devnet], revision: str, elsewhere: bool
) -> None:
    """Neither at the same gateway nor at another one: there is a new challenge, and no key."""
    frames = await record(nets[0], revision, "v1")
    assert len(frames) == 2
    net = nets[elsewhere]
    before = keys(net)
    answers = await play(net, "v1", frames)
    assert len(answers) == 1  # the challenge
    assert keys(net) == before


async def test_a_one_shot_request_makes_one_key_at_a_network_and_another_one_elsewhere(
    nets: tuple[Devnet, Devnet],
) -> None:
    """It has no challenge: its network repeats the answer, and any other one takes it. So it has to be asked for."""
    frames = await record(nets[0], "1", "v2")
    before, others = keys(nets[0]), keys(nets[1])
    first, second = [await play(nets[0], "v2", frames) for _ in range(2)]
    assert first == second != []
    assert keys(nets[0]) == before
    assert await play(nets[1], "v2", frames)
    assert keys(nets[1]) == others + 1
    with pytest.raises(InvalidFieldError, match="api_version is v1"):
        GatewayNetwork(f"{base(nets[0])}/v2", revision="1")

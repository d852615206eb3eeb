"""Faults of connections, byte for byte: half frames, garbage, trickles, refusals, HTTP errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct

import aiohttp
import pytest

from dan_async.devnet import (
    DealWrongShare,
    Devnet,
    Disconnect,
    HttpError,
    RefuseConnections,
    SendGarbage,
    Trickle,
)
from dan_async.errors import InvalidFieldError
from tests.devnet.raw_client import connect, keygen_on
from tests.helpers import assert_runs_under, no_leaks, wait_until

HEALTH = '{"jsonrpc":"2.0","id":1,"method":"dan_health","params":{}}'


class Wire:
    """One client's WebSocket at the level of bytes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, node):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(node))
        try:
            writer.write(
                b"GET /v1/rpc HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101")
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def ask(self, text=HEALTH):
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text.encode()))
        self.writer.write(bytes((0x81, 0x80 | len(masked))) + mask + masked)

    async def read_until_end(self):
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


def port_of(node):
    return int(node.url.split(":")[2].split("/")[0])


def post(session, node):
    return session.post(
        node.url.replace("ws:", "http:"), data=HEALTH, headers={"Content-Type": "application/json"}
    )


# --- disconnect -------------------------------------------------------------------------------------------------------


async def test_a_frame_is_cut_in_half(devnet):
    """It announces more bytes than come, and then the connection ends."""
    devnet.faults[0] = Disconnect()
    async with Wire.open(devnet.nodes[0]) as wire:
        wire.ask()
        data = await wire.read_until_end()
    assert data[0] == 0x81
    assert data[1] == 126
    (announced,) = struct.unpack(">H", data[2:4])
    assert 0 < len(data) - 4 < announced
    assert data[4:].startswith(b'{"jsonrpc":"2.0","id":1,"result"')


async def test_a_body_is_cut_in_half(devnet):
    """Of the answer to a POST."""
    devnet.faults[0] = Disconnect()
    async with aiohttp.ClientSession() as session, post(session, devnet.nodes[0]) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_disconnect_of_some_methods_spares_the_others(devnet):
    """And ends after so many times."""
    devnet.faults[0] = Disconnect(methods=["dan_challenge"], times=1)
    async with connect(devnet.nodes[0]) as node:
        await node.call("dan_health", {})
        with pytest.raises(ConnectionError):
            await node.call("dan_challenge", {})
    async with connect(devnet.nodes[0]) as node:
        assert await node.code_of("dan_challenge", {}) == -32602


# --- garbage ----------------------------------------------------------------------------------------------------------


async def test_garbage_over_a_websocket(devnet):
    """Text that is no JSON, then a binary message, then what is no frame."""
    devnet.faults[0] = SendGarbage()
    async with aiohttp.ClientSession() as session, session.ws_connect(devnet.nodes[0].url) as websocket:
        await websocket.send_str(HEALTH)
        message = await websocket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT
        with pytest.raises(json.JSONDecodeError):
            json.loads(message.data)
        await websocket.send_str(HEALTH)
        assert (await websocket.receive()).type is aiohttp.WSMsgType.BINARY
        await websocket.send_str(HEALTH)
        assert (await websocket.receive()).type is aiohttp.WSMsgType.ERROR


@pytest.mark.parametrize("form", ["json", "binary"])
async def test_garbage_over_post(devnet, form):
    """A whole body that is no JSON, under a status that promises some."""
    devnet.faults[0] = SendGarbage(form=form)
    async with aiohttp.ClientSession() as session, post(session, devnet.nodes[0]) as response:
        assert response.status == 200
        with pytest.raises(ValueError):
            json.loads(await response.read())


async def test_raw_garbage_over_post(devnet):
    """Not even HTTP."""
    devnet.faults[0] = SendGarbage(form="raw")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientResponseError):
            await post(session, devnet.nodes[0])


# --- trickle ----------------------------------------------------------------------------------------------------------


async def test_a_message_never_ends(devnet):
    """Byte after byte; what else the node has to say on this connection is not mixed in."""
    devnet.faults[0] = Trickle(seconds=0.0001, times=1)
    async with Wire.open(devnet.nodes[0]) as wire:
        wire.ask()
        assert await wire.reader.readexactly(4) == b"\x01\x7e\xff\xff"
        wire.ask()
        wire.ask("no json")
        assert await wire.reader.readexactly(500) == b" " * 500


async def test_taking_a_trickle_away_ends_it(devnet):
    """The connection is cut, since nothing else can be said on it; the next one works."""
    devnet.faults[0] = Trickle(seconds=0.001)
    async with Wire.open(devnet.nodes[0]) as wire:
        wire.ask()
        await wire.reader.readexactly(10)
        devnet.faults[0] = None
        assert set(await wire.read_until_end()) <= {0x20}
    async with connect(devnet.nodes[0]) as node:
        await node.call("dan_health", {})


async def test_a_trickling_node_stops_at_once():
    """Neither its grace nor anything else waits for the end of the message."""
    async with no_leaks(), Devnet(2, 2) as devnet:
        devnet.faults[0] = Trickle(seconds=0.01)
        async with Wire.open(devnet.nodes[0]) as wire, aiohttp.ClientSession() as session:
            wire.ask()
            await wire.reader.readexactly(5)
            async with post(session, devnet.nodes[0]):
                with assert_runs_under(0.4):
                    await devnet.nodes[0].stop()


async def test_a_body_never_ends(devnet):
    """Of the answer to a POST; a client that hangs up ends it."""
    devnet.faults[0] = Trickle(seconds=0.001)
    posts = devnet.nodes[0]._runner._server._posts
    async with aiohttp.ClientSession() as session:
        async with post(session, devnet.nodes[0]) as response:
            assert await response.content.readexactly(50) == b" " * 50
            assert len(posts) == 1
            response.close()
        await wait_until(lambda: not posts)


# --- refused connections ----------------------------------------------------------------------------------------------


async def test_connections_are_refused_and_cut(devnet):
    """New ones by the operating system, as at a port where nobody listens; taken again when the fault is."""
    node = devnet.nodes[0]
    async with connect(node) as raw, aiohttp.ClientSession() as session:
        await raw.call("dan_health", {})
        async with post(session, node) as response:
            await response.read()
        waiting = asyncio.create_task(raw.call("dan_identify", {"nonce": "0x" + "00" * 32}))
        devnet.faults[0] = RefuseConnections()
        with contextlib.suppress(ConnectionError):
            await waiting
        with pytest.raises(ConnectionError):
            await raw.call("dan_health", {}, timeout_s=2)
        await wait_until(lambda: not node._runner._server._runner.server.connections)
        with pytest.raises(aiohttp.ClientConnectionError):
            await post(session, node)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port_of(node))
    assert node.is_running
    devnet.faults[0] = None
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port_of(node))
            except ConnectionRefusedError:
                await asyncio.sleep(0.001)
            else:
                writer.close()
                break
    assert len({ack.claims for ack in await keygen_on(devnet, 2)}) == 1


async def test_connections_are_refused_from_the_start():
    """Also after a restart, and nothing leaks however often the fault changes."""
    async with no_leaks(), Devnet(2, 2, faults={1: RefuseConnections()}) as devnet:
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port_of(devnet.nodes[1]))
            await devnet.nodes[1].stop()
            await devnet.nodes[1].start()
        for faults in [None, RefuseConnections()] * 5:
            devnet.faults[1] = faults
            await asyncio.sleep(0)


# --- HTTP errors ------------------------------------------------------------------------------------------------------


async def test_upgrades_and_posts_are_turned_away(devnet):
    """With the status and Retry-After; the connections of clients are cut."""
    async with connect(devnet.nodes[0]) as raw:
        await raw.call("dan_health", {})
        devnet.faults[0] = HttpError(status=429, retry_after=7)
        with pytest.raises(ConnectionError):
            await raw.call("dan_health", {}, timeout_s=2)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(devnet.nodes[0].url)
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "7")
        async with post(session, devnet.nodes[0]) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "7")


async def test_without_a_header_and_for_so_many_times(devnet):
    """Each attempt counts."""
    devnet.faults[0] = HttpError(status=503, retry_after=None, times=1)
    async with aiohttp.ClientSession() as session:
        async with post(session, devnet.nodes[0]) as response:
            assert response.status == 503
            assert "Retry-After" not in response.headers
        async with post(session, devnet.nodes[0]) as response:
            assert response.status == 200


async def test_nodes_among_themselves_do_not_see_http_errors(devnet):
    """They are the clients' affair."""
    async with connect(devnet.nodes[1]), connect(devnet.nodes[2]):
        devnet.faults[0] = HttpError(times=1)
        async with aiohttp.ClientSession() as session, post(session, devnet.nodes[0]):
            pass
    assert len(await keygen_on(devnet, 2)) == 3


# --- what is given from the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [{3: Trickle()}, {-1: Trickle()}, {0: "trickle"}, {"0": Trickle()}])
def test_faults_from_the_start_are_checked(faults):
    """Before any node is started."""
    with pytest.raises((InvalidFieldError, TypeError)):
        Devnet(2, 3, faults=faults)


async def test_faults_from_the_start_are_on_the_board():
    """And can be taken away like others."""
    devnet = Devnet(2, 3, faults={0: [Trickle(), DealWrongShare()], 2: HttpError()})
    assert [len(faults) for faults in devnet.faults.values()] == [2, 0, 1]

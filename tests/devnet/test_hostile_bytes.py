"""Bytes that no client sends, at every door: each is refused in bounded time, and writes no traceback into a log."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
import threading
from functools import partial

import aiohttp
import pytest

from dan_async import DanClient, GatewayNetwork, LocalWallet
from dan_async.deadline import cancel_and_wait
from dan_async.devnet import Delay, NodeLimits, gateway
from dan_async.devnet.gateway import GatewayLimits
from dan_async.errors import NodeCode
from dan_async.wallets import CallbackWallet
from tests.devnet.raw_client import connect
from tests.helpers import assert_runs_under, wait_until

BODY = b'{"jsonrpc":"2.0","id":1,"method":"dan_health","params":{}}'


def port_of(url):
    return int(url.split(":")[2].split("/")[0])


def headed(first, *headers, body=b""):
    return b"\r\n".join([first, b"Host: localhost", *headers, b"", body])


def posted(body, *headers, kind=b"application/json"):
    length = b"Content-Length: %d" % len(body)
    return headed(b"POST /v1/rpc HTTP/1.1", b"Content-Type: " + kind, length, *headers, body=body)


def upgraded(*headers, path=b"/v1/rpc", key=b"AAAAAAAAAAAAAAAAAAAAAA==", version=b"13", body=b""):
    return headed(
        b"GET " + path + b" HTTP/1.1",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Version: " + version,
        b"Sec-WebSocket-Key: " + key,
        *headers,
        body=body,
    )


def frame(kind, payload, *, length=None):
    """A client's frame, masked with zeros; its first byte is given."""
    announced = len(payload) if length is None else length
    size = bytes([0x80 | announced]) if announced < 126 else b"\xff" + announced.to_bytes(8, "big")
    return bytes([kind]) + size + bytes(4) + payload


@contextlib.asynccontextmanager
async def raw(url):
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer(url, data):
    """The first reply to these bytes."""
    async with raw(url) as (reader, writer), asyncio.timeout(5):
        writer.write(data)
        return await reader.readuntil(b"\r\n\r\n")


def frames(data):
    """The codes of close frames, and the texts, of what a server sent; its frames are short."""
    found = []
    while data:
        kind, length = data[0], data[1]
        payload, data = data[2 : 2 + length], data[2 + length :]
        found.append(int.from_bytes(payload[:2], "big") if kind == 0x88 else payload)
    return found


@pytest.fixture
def quiet(caplog):
    """Nothing may be logged as an error, and nothing with a traceback."""
    with caplog.at_level(logging.DEBUG):
        yield
    loud = [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert loud == []


# --- what is no HTTP ---------------------------------------------------------------------------------------------------

REQUESTS = {
    "broken gzip": (posted(b"no gzip", b"Content-Encoding: gzip"), 415),
    "gzip": (posted(gzip.compress(BODY), b"Content-Encoding: gzip"), 415),
    "a bomb": (posted(gzip.compress(b"[" * 20_000_000), b"Content-Encoding: gzip"), 415),
    "broken deflate": (posted(b"\xff\xff", b"Content-Encoding: deflate"), 415),
    "brotli": (posted(b"\xff\xff", b"Content-Encoding: br"), 415),
    "an encoding that is not UTF-8": (posted(BODY, b"Content-Encoding: \xff"), 400),
    "a header that is not UTF-8": (posted(BODY, b"X-Name: \xff\xfe"), 400),
    "a type that is not UTF-8": (posted(BODY, kind=b"\xff/\xff"), 400),
    "credentials that are not UTF-8": (upgraded(b"Authorization: Bearer \xff"), 400),
    "a key that is not UTF-8": (upgraded(key=b"\xff"), 400),
    "a version that is not UTF-8": (upgraded(version=b"\xff"), 400),
    "a key in other letters": (upgraded(key="é".encode()), 400),
    "a path that is not UTF-8": (headed(b"GET /\xff HTTP/1.1"), 400),
    "a broken URL": (headed(b"GET http://[::bad/v1/rpc HTTP/1.1"), 400),
    "another HTTP": (headed(b"GET /v1/rpc HTTP/9.9"), 400),
    "a long header": (headed(b"GET /v1/rpc HTTP/1.1", b"X: " + b"a" * 100_000), 400),
    "many headers": (headed(b"GET /v1/rpc HTTP/1.1", *[b"X: a"] * 1000), 400),
    "a negative length": (headed(b"POST /v1/rpc HTTP/1.1", b"Content-Length: -1"), 400),
    "two lengths": (
        headed(b"POST /v1/rpc HTTP/1.1", b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        400,
    ),
    "TLS": (bytes.fromhex("16030100fa010000f60303") + bytes(range(100)), 400),
    "noise": (bytes(range(256)), 400),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("door", ["node", "gateway"])
@pytest.mark.parametrize("name", REQUESTS)
async def test_what_is_no_request_is_refused(devnet, name, door):
    """With a status of its own; the node goes on."""
    data, status = REQUESTS[name]
    url = devnet.nodes[0].url if door == "node" else devnet.gateway_url
    reply = await answer(url, data)
    assert reply.split()[1] == b"%d" % status
    assert await answer(devnet.nodes[0].url, posted(BODY)) > b"HTTP/1.1 200"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([b"Content-Length: 1000"], b"{"),
        ([b"Transfer-Encoding: chunked"], b"ZZ\r\n"),
        ([b"Transfer-Encoding: chunked"], b"5\r\n{"),
    ],
)
async def test_a_body_that_breaks_off_is_not_acted_on(devnet, headers, body):
    """However the client leaves: nothing is logged, and the node goes on."""
    data = headed(b"POST /v1/rpc HTTP/1.1", b"Content-Type: application/json", *headers, body=body)
    async with raw(devnet.nodes[0].url) as (_, writer):
        writer.write(data)
        await asyncio.sleep(0.05)
    assert b" 200 " in await answer(devnet.nodes[0].url, posted(BODY))


# --- what is no WebSocket ----------------------------------------------------------------------------------------------

FRAMES = {
    "compressed": (frame(0xC1, b"\xff\xff\xff"), 1002),
    "reserved": (frame(0x85, b"x"), 1002),
    "not UTF-8": (frame(0x81, b"\xff\xfe"), 1007),
    "a rest of nothing": (frame(0x80, b"x"), 1002),
    "a long ping": (frame(0x89, b"", length=200), 1002),
    "endless": (frame(0x81, b"", length=2**62), 1009),
    "more than endless": (frame(0x81, b"", length=2**63), 1009),
    "a reason that is not UTF-8": (frame(0x88, b"\x03\xe8\xff\xfe"), 1007),
    "half a close code": (frame(0x88, b"\x03"), 1002),
    "a close code that is none": (frame(0x88, b"\x00\x01"), 1002),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("path", ["/v1/rpc", "/v1/peer", "/v1/keygen"])
@pytest.mark.parametrize("name", FRAMES)
async def test_what_is_no_frame_closes_the_connection(devnet, name, path):
    """At a node's two doors and a gateway's, with the code that says why."""
    data, code = FRAMES[name]
    url = devnet.gateway_url if path == "/v1/keygen" else devnet.nodes[0].url
    async with raw(url) as (reader, writer), asyncio.timeout(5):
        writer.write(upgraded(path=path.encode(), body=data))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert frames(await reader.read())[0] == code


# --- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/rpc", 0x89), ("/v1/rpc", 0x8A), ("/v1/rpc", 0x81), ("/v1/peer", 0x89), ("/v1/keygen", 0x89)],
    ids=["pings", "pongs", "texts", "pings of a peer", "pings to the gateway"],
)
async def test_a_flood_of_empty_frames_leaves_the_loop_to_others(devnet, path, kind):
    """However many come at once: the event loop goes on to others after each of them."""
    url = devnet.gateway_url if path == "/v1/keygen" else devnet.nodes[0].url
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with raw(url) as (reader, writer), asyncio.timeout(20):
        writer.write(upgraded(path=path.encode()))
        await reader.readuntil(b"\r\n\r\n")
        counting = asyncio.create_task(count_turns())
        writer.write(frame(kind, b"") * 20_000 + frame(0x81, BODY if path == "/v1/rpc" else b"no frame"))
        last = b'"result"' if path == "/v1/rpc" else b"\x88"  # the reply, or a close frame
        heard = b""
        while last not in heard:
            heard = heard[-8:] + await reader.read(1024 * 1024)
            assert not reader.at_eof() or last in heard
        await cancel_and_wait([counting])
    assert turns > 20_000


@pytest.mark.parametrize("door", ["node", "gateway"])
async def test_handshakes_end_in_time_and_are_bounded(make_devnet, monkeypatch, door):
    """Six hundred that never end keep nobody out, and soon none is left."""
    monkeypatch.setattr("dan_async.devnet.node.server._REQUEST_S", 1.0)
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_connections=50), gateway=False)
    url = devnet.nodes[0].url
    if door == "gateway":
        url = await devnet.add_gateway(limits=GatewayLimits(max_connections=50, first_frame_s=1.0))
    async with contextlib.AsyncExitStack() as stack:
        ends = []
        for number in range(600):
            reader, writer = await stack.enter_async_context(raw(url))
            writer.write(b"" if number % 2 else b"GET /v1/rpc HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            ends.append(asyncio.create_task(reader.read()))
        await wait_until(lambda: sum(end.done() for end in ends) >= 550, timeout_s=5)
        path = b"/v1/keygen" if door == "gateway" else b"/v1/rpc"
        assert (await answer(url, upgraded(path=path))).startswith(b"HTTP/1.1 101")
        async with asyncio.timeout(5):
            replies = await asyncio.gather(*ends)
    assert set(replies) == {b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"}


async def test_clients_that_say_nothing_to_a_gateway_keep_nobody_out(make_devnet):
    """Of too many connections the oldest goes whose first frame has not come; who is being served stays."""
    devnet = await make_devnet(2, 2, gateway=False)
    url = await devnet.add_gateway(limits=GatewayLimits(max_connections=3, first_frame_s=30))
    opening = json.dumps({"metadata": [], "signAlg": "secp256k1"})
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        silent = [await stack.enter_async_context(session.ws_connect(f"{url}/keygen")) for _ in range(6)]
        for websocket in silent[:3]:
            assert (await websocket.receive(timeout=5)).type is not aiohttp.WSMsgType.TEXT
        async with session.ws_connect(f"{url}/keygen") as asking:
            await asking.send_str(opening)
            assert (await asking.receive(timeout=5)).data == 4400


async def test_clients_that_do_not_answer_a_challenge_keep_nobody_out(make_devnet):
    """A revocation gets through where others have begun as many operations as there is room for, and leave them lying."""
    devnet = await make_devnet(2, 2, gateway=False)
    url = await devnet.add_gateway(limits=GatewayLimits(max_connections=3))
    wallet = LocalWallet("0x" + "00" * 31 + "07")
    async with DanClient(GatewayNetwork(url, revision="1")) as dan:
        options = {"chain_id": 1, "threshold": 2, "parties_number": 2}
        session = await dan.generate_session_key(wallet=wallet, **options)
        begun, forever = asyncio.Queue(), asyncio.Event()

        async def reading(_):
            begun.put_nowait(None)
            await forever.wait()

        idle = CallbackWallet(wallet.address, reading)
        lying = [asyncio.create_task(dan.generate_session_key(wallet=idle, **options)) for _ in range(3)]
        for _ in lying:
            await begun.get()
        await dan.revoke_ephemeral_key(session, wallet=wallet, timeout=5)
        assert sum(task.done() for task in lying) == 1
        await cancel_and_wait(lying)


async def test_idle_clients_keep_nobody_out_of_a_node(make_devnet):
    """Of too many connections the one goes that has been idle longest, whatever it asked before; who waits stays."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_connections=3), gateway=False)
    devnet.faults[0] = Delay(seconds=0.5, methods=["dan_challenge"])
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(devnet.nodes[0])) for _ in range(3)]
        for client in clients:
            await client.call("dan_health", {})
        question = {"requestId": "0x" + "ab" * 32, "operation": "keygen", "setupHash": "0x" + "cd" * 32}
        waiting = asyncio.create_task(clients[0].call("dan_challenge", question))
        await wait_until(lambda: any(it.requests for it in devnet.nodes[0]._runner._server._connections))
        newcomer = await stack.enter_async_context(connect(devnet.nodes[0]))
        assert "operator" in await newcomer.call("dan_health", {})
        assert "nonce" in await waiting
        assert "operator" in await clients[2].call("dan_health", {})
        with pytest.raises(ConnectionError):
            await clients[1].call("dan_health", {})


async def test_a_slow_drip_of_headers_ends_in_time(make_devnet, monkeypatch):
    """A byte now and then does not buy more time."""
    monkeypatch.setattr("dan_async.devnet.node.server._REQUEST_S", 0.5)
    devnet = await make_devnet(2, 2)
    async with raw(devnet.nodes[0].url) as (reader, writer), assert_runs_under(5):
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"G")
                await writer.drain()
                await asyncio.sleep(0.02)


async def test_a_connection_waits_for_its_next_request_no_longer(make_devnet, monkeypatch):
    """Neither for one that never comes."""
    monkeypatch.setattr("dan_async.devnet.node.server._REQUEST_S", 0.5)
    devnet = await make_devnet(2, 2)
    async with raw(devnet.nodes[0].url) as (reader, writer), assert_runs_under(5):
        for _ in range(3):
            await asyncio.sleep(0.3)
            writer.write(posted(BODY))
            assert b" 200 " in await reader.readuntil(b"}}")
        assert b" 408 " in await reader.read()


async def test_bytes_in_flight_are_bounded_on_each_connection(make_devnet):
    """Nothing further is read meanwhile; in the end each request has its answer."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_in_flight_bytes=300_000))
    devnet.faults[0] = Delay(seconds=0.2, methods=["dan_health"])
    (connections,) = [devnet.nodes[0]._runner._server._connections]
    longest = 0
    async with connect(devnet.nodes[0]) as node:
        padding = {"padding": "x" * 100_000}
        asked = [asyncio.create_task(node.call("dan_health", padding)) for _ in range(20)]
        await wait_until(lambda: connections and next(iter(connections)).requests)
        while not all(task.done() for task in asked):
            longest = max(longest, len(next(iter(connections)).requests))
            await asyncio.sleep(0.01)
        codes = {(await asyncio.gather(task, return_exceptions=True))[0].code for task in asked}
    assert codes == {NodeCode.INVALID_PARAMS}
    assert longest == 3


async def test_bytes_in_flight_are_bounded_over_post(make_devnet):
    """A body too many is not read: the request whose body has been awaited longest makes way, and keeps nobody out."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_in_flight_bytes=10_000))
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(raw(devnet.nodes[0].url)) for _ in range(8)]
        for _, writer in slow:
            writer.write(posted(bytes(10_000))[:-1])
        await asyncio.sleep(0.1)
        assert b" 200 " in await answer(devnet.nodes[0].url, posted(BODY))
        async with asyncio.timeout(5):
            assert not await slow[0][0].read()
        assert not any(reader.at_eof() for reader, _ in slow[1:])


async def test_requests_in_flight_are_bounded_over_post(make_devnet):
    """Where those before it are being answered, one too many is told when to come back."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_in_flight_bytes=10))
    devnet.faults[0] = Delay(seconds=1, methods=["dan_health"])
    async with raw(devnet.nodes[0].url) as (_, writer):
        writer.write(posted(BODY))
        await asyncio.sleep(0.1)
        reply = await answer(devnet.nodes[0].url, posted(BODY))
        assert b" 429 " in reply
        assert b"Retry-After: 1" in reply
    async with asyncio.timeout(5):
        while b" 200 " not in await answer(devnet.nodes[0].url, posted(BODY)):
            await asyncio.sleep(0.01)


async def test_a_long_request_holds_the_loop_for_a_moment_only(devnet):
    """It is read in a thread, over both ways in."""
    text = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "dan_health",
            "params": {f"name {i}": i for i in range(30_000)},
        }
    )
    threads = []
    workers = devnet.nodes[0]._runner._server._context.workers
    compute = workers.compute

    async def seen(function, *arguments, **options):
        threads.append(function.__name__)
        return await compute(function, *arguments, **options)

    workers.compute = seen
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(devnet.nodes[0].url) as websocket:
            await websocket.send_str(text)
            assert (await websocket.receive_json(timeout=5))["error"]["code"] == NodeCode.INVALID_PARAMS
        url = devnet.nodes[0].url.replace("ws:", "http:")
        async with session.post(url, data=text, headers={"Content-Type": "application/json"}) as reply:
            assert (await reply.json())["error"]["code"] == NodeCode.INVALID_PARAMS
    assert threads == ["parse_request", "parse_request"]


async def test_a_gateway_reads_and_hashes_long_messages_in_a_thread(devnet, monkeypatch):
    """It cannot check whose they are, so it costs its loop nothing."""
    digest = gateway.sign_request_digest
    accept = gateway.accept
    threads = []

    def seen(function, *arguments, **options):
        threads.append(threading.current_thread() is threading.main_thread())
        return function(*arguments, **options)

    monkeypatch.setattr(gateway, "sign_request_digest", partial(seen, digest))
    monkeypatch.setattr(gateway, "accept", partial(seen, accept))
    data = {
        "types": {"Main": [{"name": "numbers", "type": "uint256[]"}]},
        "primaryType": "Main",
        "domain": {"name": "long"},
        "message": {"numbers": list(range(5000))},
    }
    async with DanClient(GatewayNetwork(devnet.gateway_url, revision="1")) as dan:
        session = await dan.generate_session_key(
            wallet=LocalWallet("0x" + "00" * 31 + "01"), chain_id=1, threshold=2, parties_number=3
        )
        threads.clear()
        await dan.sign_message("short", session)
        assert threads == [True, True]
        threads.clear()
        await dan.sign_message(data, session)
        assert threads == [False, False]

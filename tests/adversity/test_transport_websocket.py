"""A WebSocket peer that does everything wrong: each time a typed error, within the time given, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import struct
import tracemalloc
import weakref
from types import SimpleNamespace

import pytest

from dan_async.config import TransportOptions
from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DanError,
    ProtocolError,
    RequestTimeoutError,
    RpcError,
)
from dan_async.transport import WebSocketTransport
from dan_async.transport.websocket import MAX_STRAY_REPLIES
from tests.helpers import (
    CuttableProxy,
    assert_runs_under,
    cancelled_at,
    error_of,
    no_leaks,
    open_sockets,
    stall_detector,
    wait_until,
)
from tests.servers import raw_server, read_head, reply_to, rpc_server, serve, socket_script


def connect(port, **options):
    """Make a transport to a server on loopback."""
    return WebSocketTransport(f"ws://127.0.0.1:{port}/v1/rpc", **options)


async def first_error(script, *, timeout_s=5.0, **options):
    """Give the error of one call to a peer that follows *script* on each connection; check that nothing leaks."""
    async with no_leaks(), socket_script(script) as port, assert_runs_under(10):
        transport = connect(port, **options)
        error = await error_of(transport.call("m", "{}", timeout_s=timeout_s))
        if transport.connection is not None:
            assert transport.connection.pending == 0
        await transport.aclose()
    return error


def answers_with(text):
    """Give a script that answers the first request with *text*, as it is."""

    async def script(socket):
        await socket.receive()
        await socket.send_str(text)
        await socket.receive()

    return script


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        '{"jsonrpc":"2.0","id":1,"resu',
        "[]",
        '{"jsonrpc":"2.0","id":1}',
        '{"jsonrpc":"2.0","id":"1","result":1}',
        '{"jsonrpc":"2.0","id":1,"result":' + "[" * 10_000 + "]" * 10_000 + "}",
        '{"jsonrpc":"2.0","id":1,"result":' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}",
    ],
    ids=["empty", "words", "half", "batch", "neither", "text id", "deep lists", "deep objects"],
)
async def test_text_that_is_no_reply_is_a_protocol_error(text):
    """Garbage ends the connection, and the call with what was wrong."""
    error = await first_error(answers_with(text))
    assert type(error) is ProtocolError
    assert "broke the protocol" in str(error)


async def test_violation_fails_every_pending_call_and_the_next_call_reconnects():
    """All calls on the connection hear of it; the transport goes on with a new connection."""
    connections = 0

    async def script(socket):
        nonlocal connections
        connections += 1
        if connections == 1:
            for _ in range(3):
                await socket.receive()
            await socket.send_str("garbage")
            await socket.receive()
            assert socket.close_code == 1002
        else:
            await socket.send_str(reply_to(await socket.receive_json(), "fine"))
            await socket.receive()

    async with no_leaks(), socket_script(script) as port:
        transport = connect(port)
        errors = await asyncio.gather(*[error_of(transport.call("m", "{}", timeout_s=5)) for _ in range(3)])
        assert {type(error) for error in errors} == {ProtocolError}
        assert await transport.call("m", "{}", timeout_s=5) == "fine"
        await transport.aclose()


async def test_binary_message_is_a_protocol_error():
    """JSON-RPC is text."""

    async def script(socket):
        await socket.receive()
        await socket.send_bytes(b'{"jsonrpc":"2.0","id":1,"result":1}')
        await socket.receive()
        assert socket.close_code == 1003

    assert "binary" in str(await first_error(script))


async def test_replies_to_unknown_ids_are_ignored_a_few_times():
    """A confused peer is borne with for a while; the true reply still counts."""

    async def script(socket):
        call = await socket.receive_json()
        for number in range(MAX_STRAY_REPLIES):
            await socket.send_str(reply_to({"id": 1000 + number}, "stray"))
        await socket.send_str(reply_to(call, "true"))
        await socket.receive()

    async with socket_script(script) as port:
        transport = connect(port)
        assert await transport.call("m", "{}", timeout_s=5) == "true"
        await transport.aclose()


async def test_endless_replies_to_unknown_ids_end_the_connection():
    """A peer that floods with replies nobody asked for is dropped."""

    async def script(socket):
        await socket.receive()
        while not socket.closed:
            await socket.send_str(reply_to({"id": 1000}, "stray"))
            await asyncio.sleep(0)

    error = await first_error(script)
    assert type(error) is ProtocolError
    assert "never made" in str(error)


async def test_late_reply_is_expected_once_for_each_call_that_gave_up():
    """One late reply is borne with; repeating it is no different from replies that nobody asked for."""

    async def script(socket):
        late = await socket.receive_json()
        await socket.receive()
        for _ in range(1 + MAX_STRAY_REPLIES):
            await socket.send_str(reply_to(late, "late"))
        await socket.receive()
        await socket.send_str(reply_to(late, "late"))
        await socket.receive()

    async with no_leaks(), socket_script(script) as port:
        transport = connect(port)
        gives_up = asyncio.create_task(transport.call("abandoned", "{}", timeout_s=None))
        await wait_until(lambda: transport.connection is not None and transport.connection.pending)
        gives_up.cancel()
        waits = asyncio.create_task(transport.call("waits", "{}", timeout_s=5))
        connection = transport.connection
        await wait_until(lambda: connection._strays == MAX_STRAY_REPLIES)
        assert not waits.done()
        errors = await asyncio.gather(error_of(transport.call("last", "{}", timeout_s=5)), error_of(waits))
        assert [type(error) for error in errors] == [ProtocolError] * 2
        await transport.aclose()


async def test_second_reply_to_one_request_does_not_reach_another():
    """An answer given twice counts once, and later calls get their own."""

    async def script(socket):
        for _ in range(2):
            call = await socket.receive_json()
            await socket.send_str(reply_to(call, call["params"]))
            await socket.send_str(reply_to(call, "again"))
        await socket.receive()

    async with socket_script(script) as port:
        transport = connect(port)
        assert [await transport.call("m", str(i), timeout_s=5) for i in (1, 2)] == [1, 2]
        await transport.aclose()


async def test_error_without_an_id_fails_the_only_pending_call():
    """A peer that could not read the request says so without an id."""
    error = await first_error(
        answers_with('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}')
    )
    assert isinstance(error, RpcError)
    assert error.code == -32700


async def test_error_without_an_id_among_several_calls_ends_the_connection():
    """Nobody can tell whose it is, so no call may take it for its own."""

    async def script(socket):
        await socket.receive()
        await socket.receive()
        await socket.send_str('{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}')
        await socket.receive()

    async with no_leaks(), socket_script(script) as port:
        transport = connect(port)
        errors = await asyncio.gather(*[error_of(transport.call("m", "{}", timeout_s=5)) for _ in range(2)])
        assert {type(error) for error in errors} == {ProtocolError}
        await transport.aclose()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "going away"), (1008, "policy"), (1011, "internal"), (4001, "custom")],
)
async def test_early_close_carries_code_and_reason(code, reason):
    """What the peer said when it hung up reaches the caller."""

    async def script(socket):
        await socket.receive()
        await socket.close(code=code, message=reason.encode())

    error = await first_error(script)
    assert type(error) is ConnectionLostError
    assert (error.close_code, error.close_reason) == (code, reason)
    assert error.retryable
    assert str(code) in str(error)


async def test_close_reason_is_shown_without_secrets():
    """A peer cannot put a key or a line break into our logs by way of the reason."""
    key = "ab" * 32

    async def script(socket):
        await socket.receive()
        await socket.close(code=4000, message=f"bad\nkey {key}".encode())

    error = await first_error(script)
    assert key not in str(error)
    assert "\n" not in str(error)


async def test_cut_connection_is_lost_without_a_code():
    """A line that breaks has no close code."""
    async with (
        no_leaks(),
        rpc_server(lambda *_: asyncio.sleep(60)) as server,
        CuttableProxy(server.port) as proxy,
    ):
        transport = connect(proxy.port)
        call = asyncio.create_task(transport.call("m", "{}", timeout_s=5))
        await wait_until(lambda: server.requests)
        proxy.cut()
        error = await error_of(call)
        assert type(error) is ConnectionLostError
        assert error.close_code is None
        await transport.aclose()


@pytest.mark.parametrize("count", [1, 2, 10, 70])
async def test_cut_in_the_middle_of_a_reply_is_a_loss(count):
    """Half a frame is no reply."""

    async def handler(method, params):
        return "x" * 100

    async with no_leaks(), rpc_server(handler) as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port)
        await transport.call("m", "{}", timeout_s=5)
        proxy.cut_after(count)
        assert type(await error_of(transport.call("m", "{}", timeout_s=5))) is ConnectionLostError
        await transport.aclose()


async def test_silent_peer_trips_the_timeout():
    """No answer at all: the call ends in its own time."""

    async def script(socket):
        await socket.receive()
        await socket.receive()

    with assert_runs_under(2):
        assert type(await first_error(script, timeout_s=0.05)) is RequestTimeoutError


async def test_silent_dead_peer_is_noticed_by_a_ping():
    """A line that lets nothing through is given up, even by a call without a time limit."""
    async with no_leaks(), rpc_server() as server, CuttableProxy(server.port) as proxy, assert_runs_under(5):
        transport = connect(proxy.port, options=TransportOptions(heartbeat_s=None, pong_s=0.1))
        await transport.call("m", "{}", timeout_s=5)
        proxy.stall()
        error = await error_of(transport.call("m", "{}", timeout_s=None))
        assert type(error) is ConnectionLostError
        assert "pings" in str(error)
        await transport.aclose()


@pytest.mark.parametrize(
    ("pong_s", "timeout_s", "kind"), [(3.0, 0.3, RequestTimeoutError), (0.1, None, ConnectionLostError)]
)
async def test_endless_trickle_is_cut_off(pong_s, timeout_s, kind):
    """A reply that comes byte by byte holds neither the call nor the closing, and is no sign of life."""
    async with no_leaks(), rpc_server() as server, CuttableProxy(server.port) as proxy, assert_runs_under(5):
        transport = connect(proxy.port, options=TransportOptions(pong_s=pong_s))
        await transport.call("m", "{}", timeout_s=5)
        proxy.trickle(0.03)
        error = await error_of(transport.call("m", '"' + "x" * 1000 + '"', timeout_s=timeout_s))
        assert type(error) is kind
        with assert_runs_under(2):
            await transport.aclose()


async def test_heartbeat_keeps_an_idle_connection_that_answers():
    """Silence alone is no reason to give a peer up: its pongs count."""
    async with rpc_server() as server:
        transport = connect(server.port, options=TransportOptions(heartbeat_s=0.04, pong_s=0.2))
        await transport.call("m", "{}", timeout_s=5)
        await asyncio.sleep(0.4)
        await transport.call("m", "{}", timeout_s=5)
        assert len(server.headers) == 1
        await transport.aclose()


async def test_peer_that_pings_and_never_reads_does_not_fill_the_memory():
    """Pongs that nobody takes are not piled up behind what else waits to be read."""
    may_ping = asyncio.Event()

    async def script(reader, writer):
        await _accept(reader, writer)
        writer.transport.pause_reading()
        await may_ping.wait()
        for _ in range(20):
            writer.write(_server_frame(9, b"x" * 125) * 1000)
            await writer.drain()
        writer.write(_server_frame(1, reply_to({"id": 1000}, "the last word").encode()))
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(script) as port, assert_runs_under(15):
        transport = connect(port)
        big = json.dumps("x" * 20_000_000)
        call = asyncio.create_task(transport.call("m", big, timeout_s=None))
        await wait_until(lambda: transport.connection is not None)
        connection = transport.connection
        waiting = connection._socket._transport.get_write_buffer_size
        await wait_until(lambda: connection.pending and waiting() > 1_000_000)
        await asyncio.sleep(0.05)
        before = waiting()
        may_ping.set()
        await wait_until(lambda: connection._strays == 1)
        assert waiting() <= before
        await transport.aclose()
        assert isinstance(await error_of(call), ClientClosedError)


async def test_trickled_upgrade_trips_the_connect_timeout():
    """A server that never finishes its handshake is given up."""

    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            writer.write(b"X-More: and more\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with no_leaks(), raw_server(script) as port, assert_runs_under(5):
        transport = connect(port, connect_timeout_s=0.2)
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        assert type(error) is ConnectError
        await transport.aclose()


async def test_peer_that_does_not_read_trips_the_timeout():
    """When nothing more fits into the line, a call that cannot even be sent still ends in its own time."""
    stop = asyncio.Event()

    async def script(socket):
        socket._req.transport.pause_reading()
        await stop.wait()

    async with no_leaks(), socket_script(script) as port, assert_runs_under(10):
        before = open_sockets()
        transport = connect(port)
        big = json.dumps("x" * 900_000)
        errors = await asyncio.gather(*[error_of(transport.call("m", big, timeout_s=0.3)) for _ in range(20)])
        assert {type(error) for error in errors} == {RequestTimeoutError}
        assert any("does not read" in str(error) for error in errors)
        assert transport.connection.pending == 0
        with assert_runs_under(2):
            await transport.aclose()
        # What is left is the server's own end: ours does not wait for a peer that never reads.
        await wait_until(lambda: len(open_sockets() - before) == 1)
        stop.set()


@pytest.mark.parametrize("limit", [1024, 100_000])
async def test_message_beyond_the_limit_is_refused(limit):
    """One byte more than allowed ends the connection; the limit itself passes."""

    async def script(socket):
        while True:
            call = await socket.receive_json()
            frame = reply_to(call, "")
            length = limit + (1 if call["params"] else 0)
            await socket.send_str(frame.replace('""', '"' + "x" * (length - len(frame)) + '"'))

    async with no_leaks(), socket_script(script) as port:
        transport = connect(port, options=TransportOptions(max_message_bytes=limit))
        assert len(await transport.call("m", "false", timeout_s=5)) > limit - 100
        error = await error_of(transport.call("m", "true", timeout_s=5))
        assert type(error) is ProtocolError
        assert "max_message_bytes" in str(error)
        await transport.aclose()


def _server_frame(opcode, payload, *, fin=True, length=None):
    length = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | opcode])
    if length < 126:
        return head + bytes([length]) + payload
    if length < 65536:
        return head + bytes([126]) + struct.pack("!H", length) + payload
    return head + bytes([127]) + struct.pack("!Q", length) + payload


async def _accept(reader, writer, *, extensions=""):
    import base64
    import hashlib

    head = await read_head(reader)
    key = next(
        line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key")
    )
    accept = base64.b64encode(
        hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    ).decode()
    writer.write(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{extensions}\r\n".encode()
    )
    await reader.read(1000)


async def test_64_mib_message_costs_no_memory():
    """A peer that announces or sends far more than allowed is cut off early."""

    async def script(reader, writer):
        await _accept(reader, writer)
        writer.write(_server_frame(1, b"", length=64 * 1024 * 1024))
        for _ in range(64):
            writer.write(b"x" * 1024 * 1024)
            await writer.drain()

    async with no_leaks(), raw_server(script) as port, assert_runs_under(10):
        transport = connect(port, options=TransportOptions(max_message_bytes=65536))
        gc.collect()
        tracemalloc.start()
        try:
            error = await error_of(transport.call("m", "{}", timeout_s=5))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert type(error) is ProtocolError
        assert peak < 16 * 1024 * 1024
        await transport.aclose()


async def test_endless_fragments_are_bounded():
    """A message in ever more pieces is refused when the pieces are too long together."""

    async def script(reader, writer):
        await _accept(reader, writer)
        writer.write(_server_frame(1, b'{"jsonrpc":"2.0","id":1,"result":"', fin=False))
        while True:
            writer.write(_server_frame(0, b"x" * 1000, fin=False))
            await writer.drain()
            await asyncio.sleep(0)

    async with no_leaks(), raw_server(script) as port, assert_runs_under(10):
        transport = connect(port, options=TransportOptions(max_message_bytes=65536))
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        assert type(error) is ProtocolError
        await transport.aclose()


@pytest.mark.parametrize(
    "frame",
    [
        _server_frame(1, b"\xff\xfe"),
        _server_frame(3, b"reserved opcode"),
        b"\xc1\x05hello",
        b"\x81\x85mask\x00\x00\x00\x00\x00",
        _server_frame(0, b"continues nothing"),
        _server_frame(9, b"x" * 126),
        _server_frame(8, b"\x00"),
        _server_frame(8, b"\x00\x01"),
        _server_frame(8, b"\x03\xe8\xff\xfe"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    ids=[
        "not utf-8",
        "opcode",
        "compressed",
        "masked",
        "continuation",
        "long ping",
        "short close",
        "bad code",
        "odd reason",
        "http",
    ],
)
async def test_broken_frames_give_a_typed_error(frame):
    """Whatever is wrong with a frame, the call ends with an error of ours."""

    async def script(reader, writer):
        await _accept(reader, writer)
        writer.write(frame)
        await reader.read()

    async with no_leaks(), raw_server(script) as port, assert_runs_under(5):
        transport = connect(port)
        error = await error_of(transport.call("m", "{}", timeout_s=1))
        assert isinstance(error, ProtocolError | ConnectionLostError)
        await transport.aclose()


async def test_deflate_that_was_not_offered_is_refused():
    """A server that compresses anyway is not unpacked: no bomb can go off."""

    async def script(reader, writer):
        await _accept(reader, writer, extensions="Sec-WebSocket-Extensions: permessage-deflate\r\n")
        writer.write(b"\xc1\x05\xaa\x56\x2a\x4a\x05")
        await reader.read()

    async with no_leaks(), raw_server(script) as port, assert_runs_under(5):
        transport = connect(port)
        error = await error_of(transport.call("m", "{}", timeout_s=1))
        assert isinstance(error, ProtocolError)
        await transport.aclose()


async def test_ping_flood_does_not_stop_calls():
    """Pings without end are answered and otherwise ignored; the loop stays free."""

    async def script(socket):
        async def flood():
            while not socket.closed:
                await socket.ping(b"x" * 100)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            flooding = group.create_task(flood())
            call = await socket.receive_json()
            await asyncio.sleep(0.1)
            await socket.send_str(reply_to(call, "fine"))
            await socket.receive()
            flooding.cancel()

    async with no_leaks(), socket_script(script) as port:
        transport = connect(port)
        async with stall_detector(0.5):
            assert await transport.call("m", "{}", timeout_s=5) == "fine"
        await transport.aclose()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="needs Python 3.12")
async def test_eager_task_that_reads_the_end_at_once_leaves_no_timer():
    """The close frame comes together with the handshake; nothing holds the connection afterwards."""

    async def script(reader, writer):
        await _accept(reader, SimpleNamespace(write=lambda text: writer.write(text + b"\x88\x02\x03\xe8")))

    loop = asyncio.get_running_loop()
    async with raw_server(script) as port:
        loop.set_task_factory(asyncio.eager_task_factory)
        transport = connect(port)
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        assert type(error) is ConnectionLostError
        connection = weakref.ref(transport.connection)
        await transport.aclose()
        loop.set_task_factory(None)
    del transport, error
    gc.collect()
    assert connection() is None


@pytest.mark.parametrize("frame", [b"\x89\x00", b"\x8a\x00"], ids=["pings", "pongs"])
async def test_flood_of_empty_frames_leaves_the_loop_to_others(frame):
    """However many pings or pongs come at once, a turn of the event loop sees to few of them."""

    async def script(reader, writer):
        await _accept(reader, writer)
        writer.write(frame * 100_000)
        await reader.read()

    async with no_leaks(), raw_server(script) as port:
        transport = connect(port)
        call = asyncio.create_task(error_of(transport.call("m", "{}", timeout_s=30)))
        await wait_until(lambda: transport.connection is not None)
        heard = [0]
        while heard[-1] < 100_000:
            heard.append(transport.connection._socket.heard)
            await asyncio.sleep(0)
        assert max(after - before for before, after in itertools.pairwise(heard)) < 10_000
        await transport.aclose()
        assert isinstance(await call, ClientClosedError)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\x01\x02\x03\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 503 \xff\r\nRetry-After: \xff\r\nX: \xfe\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[::\xff\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=[
        "nothing",
        "binary",
        "ssh",
        "200",
        "bare 101",
        "wrong key",
        "long header",
        "odd headers",
        "odd redirect",
        "broken gzip",
    ],
)
async def test_peer_that_is_no_websocket_server_is_a_connect_error(answer):
    """Something else listens there: the error says so instead of hanging."""

    async def script(reader, writer):
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with no_leaks(), raw_server(script) as port, assert_runs_under(5):
        transport = connect(port)
        error = await error_of(transport.call("m", "{}", timeout_s=2))
        assert type(error) is ConnectError
        assert error.__context__ is None
        await transport.aclose()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status):
    """Another host never hears of the request or its headers."""
    async with rpc_server() as elsewhere:

        async def redirect(request):
            from aiohttp import web

            location = f"ws://127.0.0.1:{elsewhere.port}/v1/rpc"
            return web.Response(status=status, headers={"Location": location})

        async with no_leaks(), serve(get=redirect) as port:
            transport = connect(port, options=TransportOptions(headers={"X-Api-Key": "abc"}))
            error = await error_of(transport.call("m", "{}", timeout_s=5))
            assert type(error) is ConnectError
            assert error.status == status
            assert "Redirects are not followed" in error.hint
            await transport.aclose()
        assert elsewhere.headers == []


async def test_errors_hold_neither_headers_nor_credentials():
    """No error, cause or context of a refused connection has the API key or the URL's password in it."""

    async def refuse(request):
        from aiohttp import web

        return web.Response(status=401)

    async with serve(get=refuse) as port:
        transport = WebSocketTransport(
            f"ws://user:s3cret@127.0.0.1:{port}/v1/rpc?key=s3cret",
            options=TransportOptions(headers={"X-Api-Key": "s3cret"}),
        )
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        assert isinstance(error, ConnectError)
        while error is not None:
            assert "s3cret" not in f"{error} {error!r} {error.__dict__} {error.args}"
            error = error.__cause__ or error.__context__
        await transport.aclose()


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_cancelling_a_first_call_at_every_await_leaves_nothing():
    """Connecting, identifying, sending, waiting: wherever the call is cancelled, the transport works afterwards."""

    async def identify(call):
        await call("dan_identify", "{}", 5)

    async with rpc_server() as server:
        step = 1
        while True:
            async with no_leaks():
                transport = connect(server.port, on_connect=identify)
                was_cancelled = await cancelled_at(step, transport.call("m", "{}", timeout_s=5))
                assert transport._attempt is None
                assert (await transport.call("m", "1", timeout_s=5))["params"] == 1
                assert transport.connection.pending == 0
                await transport.aclose()
                await wait_until(lambda: not server.sockets)
            if not was_cancelled:
                break
            step += 1
        assert step > 2


async def test_cancelling_does_not_wait_for_a_stalled_peer():
    """A call that is given up while the peer is being identified ends at once: a fan-out cancels its stragglers so."""

    async def identify(call):
        await call("dan_identify", "{}", 5)

    async with (
        no_leaks(),
        rpc_server(lambda *_: asyncio.sleep(60)) as server,
        CuttableProxy(server.port) as proxy,
    ):
        transport = connect(proxy.port, on_connect=identify)
        call = asyncio.create_task(transport.call("m", "{}", timeout_s=5))
        await wait_until(lambda: server.requests)
        proxy.stall()
        with assert_runs_under(0.25):
            call.cancel()
            await asyncio.wait([call])
        assert call.cancelled()
        await transport.aclose()


async def test_cancelling_while_a_host_name_is_looked_up_leaves_nothing():
    """Looking up takes a thread, which ends by itself; no task outlives the transport."""
    async with rpc_server() as server:
        for step in range(1, 8):
            async with no_leaks(grace_s=5):
                transport = WebSocketTransport(f"ws://localhost:{server.port}/v1/rpc")
                await cancelled_at(step, transport._open())
                await transport.aclose()


async def test_cancelling_a_later_call_at_every_await_leaves_nothing():
    """On an open connection as well; and no other call notices."""
    async with rpc_server() as server, no_leaks():
        transport = connect(server.port)
        await transport.call("m", "{}", timeout_s=5)
        step = 1
        while await cancelled_at(step, transport.call("m", json.dumps("x" * 100_000), timeout_s=5)):
            step += 1
            assert transport.connection.pending == 0
            assert (await transport.call("m", "1", timeout_s=5))["params"] == 1
        assert step > 1
        assert len(server.headers) == 1
        await transport.aclose()
        await wait_until(lambda: not server.sockets)


async def test_cancelling_the_attempt_itself_at_every_await_leaves_nothing():
    """The task that connects can be stopped anywhere: while it waits, connects, upgrades, identifies."""

    async def identify(call):
        await call("dan_identify", "{}", 5)

    async with rpc_server() as server:
        step = 1
        while True:
            async with no_leaks():
                transport = connect(server.port, on_connect=identify)
                was_cancelled = await cancelled_at(step, transport._open())
                await wait_until(lambda done=not was_cancelled: done or not server.sockets)
                assert (await transport.call("m", "1", timeout_s=5))["params"] == 1
                await transport.aclose()
                await wait_until(lambda: not server.sockets)
            if not was_cancelled:
                break
            step += 1
        assert step > 3


async def test_cancelling_aclose_at_every_await_still_closes_everything():
    """A close that is interrupted leaves no task and no socket either."""
    async with rpc_server(lambda *_: asyncio.sleep(60)) as server:
        step = 1
        while True:
            async with no_leaks():
                transport = connect(server.port)
                call = asyncio.create_task(transport.call("m", "{}", timeout_s=None))
                await wait_until(lambda: server.sockets)
                was_cancelled = await cancelled_at(step, transport.aclose())
                assert isinstance(await error_of(call), DanError)
                await wait_until(lambda: not server.sockets)
            if not was_cancelled:
                break
            step += 1
        assert step > 1


async def test_many_calls_cancelled_at_random_moments_leave_nothing():
    """Five hundred calls, half of them cancelled while in flight: the others are all answered."""
    import random

    dice = random.Random(7)

    async def handler(method, params):
        await asyncio.sleep(dice.random() * 0.02)
        return params

    async with no_leaks(), rpc_server(handler) as server:
        transport = connect(server.port, max_pending=100)
        calls = [asyncio.create_task(transport.call("m", str(i), timeout_s=10)) for i in range(500)]
        for index in range(0, 500, 2):
            if index % 20 == 0:
                await asyncio.sleep(0.002)
            calls[index].cancel()
        await asyncio.wait(calls)
        assert [call.result() for call in calls[1::2]] == list(range(1, 500, 2))
        assert transport.connection.pending == 0
        assert transport.connection._places == 100
        await transport.aclose()

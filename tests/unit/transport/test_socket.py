"""One WebSocket for text frames: control frames, listening ahead, ending."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import os
import struct
import weakref

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from dan_async.config import TransportOptions
from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
)
from dan_async.transport.socket import CLOSE_GRACE_S, FREE_CONTROL_FRAMES, SocketOpener
from tests.helpers import assert_runs_under, error_of, no_leaks, wait_until
from tests.servers import raw_server, serve, socket_script


def connector(port: int, **options) -> SocketOpener:
    """Make a connector to a server on loopback."""
    session = options.pop("session", None)
    return SocketOpener(
        f"ws://127.0.0.1:{port}/v1",
        options=TransportOptions(**options),
        connect_timeout_s=5.0,
        session=session,
    )


async def echo(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        await socket.send_str(message.data)


async def read_control_frames(reader, count):
    """Read a client's control frames, as (opcode, key, payload); FIN and the mask bit must be set."""
    frames = []
    for _ in range(count):
        first, second = await reader.readexactly(2)
        assert (first & 0xF0, second & 0x80) == (0x80, 0x80)
        key = await reader.readexactly(4)
        masked = await reader.readexactly(second & 0x7F)
        frames.append((first & 0x0F, key, bytes(byte ^ key[i % 4] for i, byte in enumerate(masked))))
    return frames


async def test_control_frames_are_masked_frames():
    """FIN, opcode, mask bit, length, key, and the payload under the key (RFC 6455 section 5.3); a new key for each."""
    seen = []
    payloads = [b"", b"x", bytes(range(125)), b"again", b"again"]

    async def script(reader, writer):
        await upgrade(reader, writer)
        for payload in payloads:
            writer.write(bytes((0x89, len(payload))) + payload)
        seen.extend(await read_control_frames(reader, len(payloads) + 2))
        await reader.read()

    async with no_leaks(), raw_server(script) as port, assert_runs_under(10):
        way = connector(port)
        socket = await way.open("rpc")
        with socket.watch(print, ping_every_s=0.05):
            await wait_until(lambda: socket._control_frames == len(payloads))
            await asyncio.sleep(0.06)
        await socket._write_close(1003)
        await wait_until(lambda: len(seen) == len(payloads) + 2)
        await socket.aclose()
        await way.aclose()
    assert [frame[2] for frame in seen[:-2] if frame[0] == 10] == payloads
    assert (seen[-2][0], seen[-2][2]) == (9, b"")
    assert (seen[-1][0], seen[-1][2]) == (8, struct.pack("!H", 1003))
    assert len({key for _, key, _ in seen}) > 1


async def test_a_connection_that_ended_is_freed_at_once():
    """It holds no reference to itself, so that its memory does not wait for the garbage collector."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        gc.collect()
        gc.disable()
        try:
            socket = await way.open("rpc")
            await socket.send("text", 5)
            assert await socket.receive(5) == "text"
            await socket.finish()
            await socket.aclose()
            left = weakref.ref(socket._ws)
            del socket
            await asyncio.sleep(0.01)
            assert left() is None
        finally:
            gc.enable()
        await way.aclose()


async def upgrade(reader, writer):
    """Make a WebSocket of a plain connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    key = head.lower().partition("sec-websocket-key: ")[0]
    key = head[len(key) + 19 :].partition("\r\n")[0]
    accept = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(
        b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "
        + accept
        + b"\r\n\r\n"
    )


async def test_frames_go_back_and_forth():
    """Text in, text out, in order; the server sees a clean close."""
    codes = []

    async def script(socket):
        await echo(socket)
        codes.append(socket.close_code)

    async with no_leaks(), socket_script(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        for text in ("one", "", "zwei é 𝄞", "x" * 100_000):
            await socket.send(text, 5)
            assert await socket.receive(5) == text
        await socket.finish()
        await socket.aclose()
        await way.aclose()
        await wait_until(lambda: codes == [1000])


async def test_a_text_that_utf8_cannot_carry_is_not_sent():
    """A lone surrogate is the caller's mistake."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        socket = await way.open("rpc")
        with pytest.raises(InvalidFieldError, match="surrogate"):
            await socket.send("\ud800", 5)
        await socket.aclose()
        await way.aclose()


async def test_pings_are_answered():
    """With the same payload."""
    pongs = []

    async def script(socket):
        await socket.ping(b"are you there")
        message = await socket.receive()
        pongs.append((message.type, message.data))
        await socket.send_str("go on")
        await socket.receive()

    async def handle(request):
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        await script(socket)
        return socket

    async with no_leaks(), serve(get=handle) as port:
        way = connector(port)
        socket = await way.open("rpc")
        assert await socket.receive(5) == "go on"
        await socket.aclose()
        await way.aclose()
    assert pongs == [(WSMsgType.PONG, b"are you there")]


async def test_a_few_pings_at_once_are_no_flood():
    """The limit is what it says."""

    async def script(socket):
        for _ in range(FREE_CONTROL_FRAMES):
            await socket.pong()
        await socket.send_str("fine")
        await socket.receive()

    async with no_leaks(), socket_script(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        assert await socket.receive(5) == "fine"
        await socket.aclose()
        await way.aclose()


async def test_watching_keeps_the_frame_for_the_next_receive():
    """What came meanwhile is not lost, and the callback is called once."""
    calls = []
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        socket = await way.open("rpc")
        with socket.watch(calls.append, ping_every_s=20):
            assert await socket.early_error() is None
            await socket.send("now", 5)
            assert await socket.receive(5) == "now"
            await asyncio.sleep(0)
            assert len(calls) == 1
        await socket.send("again", 5)
        assert await socket.receive(5) == "again"
        assert len(calls) == 1
        await socket.aclose()
        await way.aclose()


async def test_pings_end_with_the_watching():
    """While watching the peer is pinged; afterwards no more."""
    pings = []

    async def handle(request):
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.PING:
                pings.append(message.data)
                await socket.pong()
                if len(pings) == 2:
                    await socket.send_str("enough")
        return socket

    async with no_leaks(), serve(get=handle) as port:
        way = connector(port)
        socket = await way.open("rpc")
        with socket.watch(print, ping_every_s=0.03):
            assert await socket.receive(10) == "enough"
        await asyncio.sleep(0.15)
        await socket.send("still there, though nobody reads pongs now", 5)
        await socket.aclose()
        await way.aclose()
    assert len(pings) <= 3  # one may have been under way


async def test_a_later_limit_replaces_an_earlier_one():
    """Each wait has its own limit: neither an earlier nor a later one of the same socket ends it."""

    async def script(socket):
        for pause in (0.0, 0.15, 0.0):
            await socket.receive()
            await asyncio.sleep(pause)
            await socket.send_str("here")
        await socket.receive()
        await socket.receive()

    async with no_leaks(), socket_script(script) as port, assert_runs_under(5):
        way = connector(port)
        socket = await way.open("rpc")
        for limit_s in (0.1, 10.0, 0.1):
            await socket.send("please", 5)
            assert await socket.receive(limit_s) == "here"
        await asyncio.sleep(0.15)  # between waits there is no limit
        await socket.send("and", 5)
        with pytest.raises(RequestTimeoutError, match=r"within 0\.05 s"):
            await socket.receive(0.05)
        await socket.aclose()
        await way.aclose()


async def test_a_limit_that_was_passed_breaks_the_connection():
    """A frame that is late must not be taken for the answer to something else."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        socket = await way.open("rpc")
        with pytest.raises(RequestTimeoutError):
            await socket.receive(0.02)
        with pytest.raises(RequestTimeoutError):
            await socket.send("one more", 5)
        await socket.aclose()
        await way.aclose()


async def test_a_frame_that_came_with_the_last_one_is_seen():
    """Without any wait; where none came, the next one is not lost."""

    async def script(reader, writer):
        await upgrade(reader, writer)
        writer.write(b"\x81\x03one\x81\x03two")
        await reader.read()

    async with no_leaks(), raw_server(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        assert await socket.receive(5) == "one"
        error = await socket.early_error()
        await socket.aclose()
        await way.aclose()
    assert type(error) is ProtocolError
    assert "before its turn: 'two'" in error.message


async def test_looking_for_early_frames_does_not_hide_the_end_of_a_connection():
    """It is closed while a frame waits for the peer to read."""

    async def script(reader, writer):
        await upgrade(reader, writer)
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        assert not socket.has_more()
        sending = asyncio.create_task(socket.send("x" * 10_000_000, 5))
        await wait_until(lambda: socket._ended)
        await way.aclose()
        assert type(await error_of(sending)) is ClientClosedError


async def test_looking_for_early_frames_takes_none():
    """A frame that comes later, when it may, is the next one that is received."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        socket = await way.open("rpc")
        for text in ("one", "two"):
            assert await socket.early_error() is None
            assert await socket.early_error() is None
            await socket.send(text, 5)
            assert await socket.receive(5) == text
        await socket.aclose()
        await way.aclose()


async def test_a_frame_that_the_system_holds_is_seen_without_any_wait():
    """While the caller held the event loop, a frame came: a few turns of the loop find it, and none that is not there."""

    def send_now(reader_writer):
        os.write(reader_writer.get_extra_info("socket").fileno(), b"\x81\x02hi")

    writers = []

    async def script(reader, writer):
        await upgrade(reader, writer)
        writers.append(writer)
        await reader.read()

    async with no_leaks(), raw_server(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        await wait_until(lambda: writers)
        assert await socket.early_error() is None
        send_now(writers[0])
        error = await socket.early_error()
        await socket.aclose()
        await way.aclose()
    assert type(error) is ProtocolError
    assert "before its turn: 'hi'" in error.message


async def test_frames_that_nobody_takes_stay_with_the_peer():
    """A peer that sends without end fills no memory, and what it sent is neither lost nor mixed up."""
    numbers = iter(range(10**9))

    async def script(socket):
        while True:
            await socket.send_str(f"{next(numbers)}:" + "x" * 50_000)

    async with no_leaks(), socket_script(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        await asyncio.sleep(0.2)
        stopped_at = next(numbers)
        await asyncio.sleep(0.1)
        assert next(numbers) == stopped_at + 1
        got = [(await socket.receive(5)).partition(":")[0] for _ in range(stopped_at + 50)]
        expected = [
            str(number) for number in range(stopped_at + 52) if number not in (stopped_at, stopped_at + 1)
        ]
        assert got == expected
        await socket.aclose()
        await way.aclose()


async def test_a_timeout_while_watching():
    """Watching does not lift the limit, and the time given is in the error."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        socket = await way.open("rpc")
        with (
            socket.watch(print, ping_every_s=20),
            pytest.raises(RequestTimeoutError, match=r"within 0\.05 s"),
        ):
            await socket.receive(0.05)
        await socket.aclose()
        await way.aclose()


async def test_an_early_frame_is_told():
    """A frame that came while none should, shortened and without long tokens."""

    async def script(socket):
        await socket.send_str("early " + "ab" * 40)
        await socket.receive()

    async with no_leaks(), socket_script(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        ahead = socket._listen()
        await wait_until(ahead.done)
        error = await socket.early_error()
        await socket.aclose()
        await way.aclose()
    assert type(error) is ProtocolError
    assert "early [masked]" in error.message


async def test_an_early_end_is_told():
    """With code and reason."""

    async def script(socket):
        await socket.close(code=1001, message=b"going")

    async with no_leaks(), socket_script(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        ahead = socket._listen()
        await wait_until(ahead.done)
        error = await socket.early_error()
        await socket.aclose()
        await way.aclose()
    assert type(error) is ConnectionLostError
    assert (error.close_code, error.close_reason) == (1001, "going")


async def test_sending_after_the_end_tells_why_it_ended():
    """The close code that had come but was not read yet is in the error of the send."""

    async def script(socket):
        await socket.close(code=1013, message=b"busy")

    async with no_leaks(), socket_script(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        await asyncio.sleep(0.1)
        socket._transport.abort()
        await asyncio.sleep(0.05)
        error = await error_of(socket.send("too late", 5))
        await socket.aclose()
        await way.aclose()
    assert type(error) is ConnectionLostError
    assert error.close_code == 1013


async def test_sending_into_a_broken_connection():
    """Where the peer said nothing, the error says that it broke."""

    async def script(socket):
        await socket.receive()

    async with no_leaks(), socket_script(script) as port:
        way = connector(port)
        socket = await way.open("rpc")
        socket._transport.abort()
        await asyncio.sleep(0.05)
        error = await error_of(socket.send("too late", 5))
        await socket.aclose()
        await way.aclose()
    assert type(error) is ConnectionLostError
    assert "broke" in error.message


async def test_a_peer_that_does_not_read():
    """Sending has a limit, and so has closing."""

    async def deaf(reader, writer):
        await upgrade(reader, writer)
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(deaf) as port, assert_runs_under(10):
        way = connector(port)
        socket = await way.open("rpc")
        with pytest.raises(RequestTimeoutError, match="did not read"):
            await socket.send("x" * 30_000_000, 0.1)
        await socket.finish()  # does not wait behind what is unread
        await socket.aclose()
        await way.aclose()


async def test_finish_does_not_wait_for_long():
    """A peer that never answers the close frame costs the grace time."""

    async def script(socket):
        await asyncio.sleep(30)

    async with no_leaks(), socket_script(script) as port, assert_runs_under(CLOSE_GRACE_S + 5):
        way = connector(port)
        socket = await way.open("rpc")
        await socket.finish()
        await socket.aclose()
        await way.aclose()


async def test_dropping_is_immediate_and_may_be_repeated():
    """No await is needed to let go of a socket."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        socket = await way.open("rpc")
        socket.drop()
        socket.drop()
        await socket.aclose()
        await socket.aclose()
        assert type(await error_of(socket.receive(1))) is ConnectionLostError
        await way.aclose()


async def test_closing_the_connector_ends_its_sockets():
    """Whoever waits hears that the owner did it."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        socket = await way.open("rpc")
        waiting = asyncio.create_task(error_of(socket.receive(5)))
        await asyncio.sleep(0.01)
        await way.aclose()
        assert type(await waiting) is ClientClosedError
        assert type(await error_of(socket.send("x", 5))) is ClientClosedError
        assert type(await error_of(way.open("rpc"))) is ClientClosedError
        await socket.aclose()


async def test_closing_the_connector_ends_opening():
    """A connection that is being made is given up at once."""

    async def deaf(reader, writer):
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(deaf) as port, assert_runs_under(4):
        way = connector(port)
        opening = asyncio.create_task(error_of(way.open("rpc")))
        await asyncio.sleep(0.05)
        await way.aclose()
        assert type(await opening) is ClientClosedError


async def test_opening_has_a_limit():
    """The shorter of the connector's and the call's own."""

    async def deaf(reader, writer):
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(deaf) as port, assert_runs_under(4):
        way = connector(port)
        with pytest.raises(ConnectError, match=r"not ready within 0\.1 s"):
            await way.open("rpc", timeout_s=0.1)
        await way.aclose()


async def test_a_connection_that_breaks_while_the_owners_traces_run():
    """It was made, and is gone before it could be used."""

    async def script(reader, writer):
        await upgrade(reader, writer)
        writer.close()

    async def take_a_while(*_):
        await asyncio.sleep(0.05)

    traces = aiohttp.TraceConfig()
    traces.on_request_end.append(take_a_while)
    async with (
        no_leaks(),
        raw_server(script) as port,
        aiohttp.ClientSession(trace_configs=[traces]) as session,
    ):
        way = connector(port, session=session)
        error = await error_of(way.open("rpc"))
        await way.aclose()
    assert type(error) is ConnectError
    assert error.retryable
    assert "closed the connection before it was ready" in error.message


async def test_a_closed_session_of_the_owner():
    """Closing the given session under our hands is told as what it is."""
    async with no_leaks(), socket_script(echo) as port:
        session = aiohttp.ClientSession()
        way = connector(port, session=session)
        socket = await way.open("rpc")
        await session.close()
        assert type(await error_of(way.open("rpc"))) is ClientClosedError
        await socket.aclose()
        await way.aclose()


def test_what_is_masked():
    """Header values, tokens in them, the URL's password, query and long parts; short words are left alone."""
    way = SocketOpener(
        "wss://user:s3cr%40et@host.example/0123456789abcdef/v1?key=quarter",
        options=TransportOptions(headers={"Authorization-2": "Bearer to-ken-1", "X-Short": "abc"}),
        connect_timeout_s=1,
    )
    assert way.mask("Basic dXNlcjpzM2NyQGV0 s3cr%40et") == "Basic [masked] [masked]"
    text = way.mask("s3cr@et quarter Bearer to-ken-1 to-ken-1 0123456789abcdef abc v1 host.example")
    assert text == "[masked] [masked] [masked] [masked] [masked] abc v1 host.example"
    assert repr(way) == "SocketOpener('wss://host.example/***/v1')"


async def test_sockets_that_are_opened_together_are_kept_apart():
    """Each has the connection of its own upgrade: ending one breaks no other, and nothing is remembered of opening."""
    async with no_leaks(), socket_script(echo) as port:
        way = connector(port)
        sockets = await asyncio.gather(*[way.open("rpc") for _ in range(20)])
        assert not way._upgrades
        for number, socket in enumerate(sockets):
            if number % 2:
                socket.drop()
        for number, socket in enumerate(sockets):
            if number % 2 == 0:
                await socket.send(str(number), 5)
                assert await socket.receive(5) == str(number)
            await socket.aclose()
        assert not way.sockets
        await way.aclose()

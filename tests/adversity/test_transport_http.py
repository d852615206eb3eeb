"""An HTTP peer that does everything wrong: each time a typed error, within the time given, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import tracemalloc

import pytest

from dan_async.config import TransportOptions
from dan_async.errors import ConnectError, ConnectionLostError, ProtocolError, RequestTimeoutError
from dan_async.transport import HttpTransport
from tests.helpers import (
    CuttableProxy,
    assert_runs_under,
    cancelled_at,
    error_of,
    no_leaks,
    open_sockets,
    wait_until,
)
from tests.servers import raw_server, read_head, rpc_server

_LIMIT = 65536


def connect(port, **options):
    """Make a transport to a server on loopback."""
    options.setdefault("options", TransportOptions(max_message_bytes=_LIMIT))
    return HttpTransport(f"http://127.0.0.1:{port}/v1/rpc", **options)


async def first_error(script, *, timeout_s=5.0, **options):
    """Give the error of one call to a TCP peer that follows *script*; check that nothing leaks."""
    async with no_leaks(), raw_server(script) as port, assert_runs_under(10):
        transport = connect(port, **options)
        error = await error_of(transport.call("m", "{}", timeout_s=timeout_s))
        await transport.aclose()
    return error


def answers_with(data):
    """Give a script that answers the first request with these bytes and hangs up."""

    async def script(reader, writer):
        await read_head(reader)
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.05)

    return script


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ConnectionLostError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ProtocolError),
        (b"\x00\xff\x00\xff\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe\xfd", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", ConnectionLostError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 50_000 + b"\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: \xff\r\nContent-Length: 2\r\n\r\n{}", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xff\r\n\r\n{}", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{}", ProtocolError),
        (b"HTTP/1.1 500 \xff\xfe\r\nX: \xff\r\nContent-Length: 0\r\n\r\n", ConnectionLostError),
        (b"HTTP/1.1 503 Busy\r\nRetry-After: \xff\r\nContent-Length: 0\r\n\r\n", ConnectError),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::\xff\r\nContent-Length: 0\r\n\r\n", ConnectError),
    ],
    ids=[
        "nothing",
        "ssh",
        "binary",
        "half",
        "half chunk",
        "bad chunk",
        "not utf-8",
        "long header",
        "999",
        "many headers",
        "odd encoding",
        "broken gzip",
        "odd length",
        "endless length",
        "odd reason",
        "odd wait",
        "odd redirect",
    ],
)
async def test_broken_answers_give_a_typed_error(data, kind):
    """Whatever comes instead of a reply, the call ends with an error of ours."""
    error = await first_error(answers_with(data))
    assert type(error) is kind


@pytest.mark.parametrize(
    "head", ["Content-Length: 67108864", "Transfer-Encoding: chunked", "Connection: close"]
)
async def test_64_mib_reply_costs_no_memory(head):
    """However its length is given, a reply that is too long is cut off early."""

    async def script(reader, writer):
        await read_head(reader)
        writer.write(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        piece = b"x" * 65536
        if "chunked" in head:
            piece = b"10000\r\n" + piece + b"\r\n"
        for _ in range(1024):
            writer.write(piece)
            await writer.drain()

    gc.collect()
    tracemalloc.start()
    try:
        error = await first_error(script)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert type(error) is ProtocolError
    assert "max_message_bytes" in str(error)
    assert peak < 8 * 1024 * 1024


async def test_compressed_reply_is_refused_unread():
    """A bomb is not unpacked."""
    bomb = gzip.compress(b" " * 8_000_000, 1)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    gc.collect()
    tracemalloc.start()
    try:
        error = await first_error(answers_with(head.encode() + bomb))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert type(error) is ProtocolError
    assert "compressed" in str(error)
    assert peak < 4 * 1024 * 1024


async def test_endless_interim_answers_trip_the_timeout():
    """A server that goes on saying "100 Continue", as fast as it can."""

    async def script(reader, writer):
        await read_head(reader)
        while True:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 10)
            await writer.drain()
            await asyncio.sleep(0)

    assert type(await first_error(script, timeout_s=0.3)) is RequestTimeoutError


async def test_endless_trickle_trips_the_timeout():
    """A body that comes byte by byte does not hold the call."""

    async def script(reader, writer):
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    with assert_runs_under(2):
        assert type(await first_error(script, timeout_s=0.1)) is RequestTimeoutError


async def test_server_that_accepts_nothing_trips_the_timeout():
    """A peer that does not read the request holds neither the call nor the socket."""

    async def script(reader, writer):
        writer.transport.pause_reading()
        await asyncio.sleep(60)

    async with no_leaks(), raw_server(script) as port, assert_runs_under(5):
        before = open_sockets()
        transport = connect(port)
        big = json.dumps("x" * 10_000_000)
        error = await error_of(transport.call("m", big, timeout_s=0.3))
        assert type(error) is RequestTimeoutError
        # What is left is the server's own end: ours does not wait for a peer that never reads.
        await wait_until(lambda: len(open_sockets() - before) == 1)
        await transport.aclose()


async def test_refused_connection_is_a_connect_error():
    """Nobody listens: the reason is named, and nothing of aiohttp's error is kept."""
    async with CuttableProxy(9) as proxy:
        port = proxy.port
    async with no_leaks():
        transport = connect(port)
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        assert type(error) is ConnectError
        assert error.retryable
        assert error.__context__ is None
        assert isinstance(error.__cause__, OSError)
        await transport.aclose()


async def test_connection_cut_while_waiting_is_lost():
    """The request was sent, the reply never came."""
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
        assert error.__context__ is None
        await transport.aclose()


async def test_errors_hold_neither_headers_nor_credentials():
    """No error, cause or context has the API key or the URL's password in it."""
    for script in (answers_with(b""), answers_with(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")):
        async with raw_server(script) as port:
            transport = HttpTransport(
                f"http://user:s3cret@127.0.0.1:{port}/v1/rpc?key=s3cret",
                options=TransportOptions(headers={"X-Api-Key": "s3cret"}),
            )
            error = await error_of(transport.call("m", "{}", timeout_s=5))
            assert isinstance(error, ConnectError | ConnectionLostError)
            while error is not None:
                assert "s3cret" not in f"{error} {error!r} {error.__dict__} {error.args}"
                error = error.__cause__ or error.__context__
            await transport.aclose()


async def test_cancelling_a_call_at_every_await_leaves_nothing():
    """Connecting, sending, waiting, reading: wherever the call is cancelled, the transport works afterwards."""
    async with rpc_server() as server:
        step = 1
        while True:
            async with no_leaks():
                transport = connect(server.port)
                was_cancelled = await cancelled_at(step, transport.call("m", "{}", timeout_s=5))
                assert len(transport._in_flight) == 0
                assert (await transport.call("m", "1", timeout_s=5))["params"] == 1
                await transport.aclose()
            if not was_cancelled:
                break
            step += 1
        assert step > 3

"""JSON-RPC over HTTP against a real server on loopback."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web

from dan_async.config import TransportOptions
from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    InsecureTransportError,
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
    RpcError,
)
from dan_async.transport import HttpTransport, Transport
from tests.helpers import CuttableProxy, assert_runs_under, error_of, no_leaks, wait_until
from tests.servers import rpc_server, serve


def connect(port, **options):
    """Make a transport to a server on loopback."""
    return HttpTransport(f"http://127.0.0.1:{port}/v1/rpc", **options)


def answering(status=200, text="", **response):
    """Return a handler that answers every request with this; ``ID`` in the text stands for the request's id."""

    async def handler(request):
        call = await request.json()
        return web.Response(
            status=status,
            text=text.replace("ID", str(call["id"])),
            content_type="application/json",
            **response,
        )

    return handler


async def first_error(handler, **options):
    """Return the error of one call to a server with *handler*; check that nothing leaks."""
    async with no_leaks(), serve(post=handler) as port, assert_runs_under(10):
        transport = connect(port, **options)
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        await transport.aclose()
    return error


async def test_call_gives_the_result():
    """Method, parameters and headers arrive, the result comes back, closing leaves nothing."""
    async with rpc_server() as server, no_leaks():
        transport: Transport = connect(server.port, options=TransportOptions(headers={"X-Api-Key": "abc"}))
        result = await transport.call("eth_accounts", '[1,"é"]', timeout_s=5)
        assert result == {"method": "eth_accounts", "params": [1, "é"]}
        assert server.headers[0]["X-Api-Key"] == "abc"
        assert server.headers[0]["Content-Type"] == "application/json"
        assert server.headers[0]["Accept-Encoding"] == "identity"
        await transport.aclose()


async def test_given_headers_replace_the_usual_ones():
    """Whatever their case, none is sent twice."""
    async with rpc_server() as server:
        transport = connect(server.port, options=TransportOptions(headers={"accept": "text/plain"}))
        await transport.call("m", "{}", timeout_s=5)
        assert [value for name, value in server.headers[0].items() if name.lower() == "accept"] == [
            "text/plain"
        ]
        await transport.aclose()


async def test_connection_is_kept_for_the_next_call():
    """Calls one after the other use one connection."""
    async with rpc_server() as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port)
        for _ in range(5):
            await transport.call("m", "{}", timeout_s=5)
        assert proxy.accepted == 1
        await transport.aclose()


async def test_concurrent_calls_each_get_their_own_reply():
    """Calls side by side do not mix."""

    async def handler(method, params):
        await asyncio.sleep(0.001 * (params % 7))
        return params

    async with rpc_server(handler) as server:
        transport = connect(server.port)
        results = await asyncio.gather(*[transport.call("m", str(i), timeout_s=10) for i in range(200)])
        assert results == list(range(200))
        await transport.aclose()


async def test_error_of_the_peer_is_an_rpc_error():
    """Code and text of the peer's error."""
    error = await first_error(
        answering(text='{"jsonrpc":"2.0","id":ID,"error":{"code":4001,"message":"no"}}')
    )
    assert isinstance(error, RpcError)
    assert error.code == 4001


@pytest.mark.parametrize("status", [400, 405, 413, 500])
async def test_json_rpc_error_with_a_status_of_its_own_is_an_rpc_error(status):
    """Some servers send both; the JSON-RPC error says more. It may lack the id."""
    text = '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"too large"}}'
    error = await first_error(answering(status, text))
    assert isinstance(error, RpcError)
    assert error.code == -32600


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>",
        '{"jsonrpc":"2.0","id":99,"result":1}',
        '{"jsonrpc":"2.0","id":99,"error":{"code":1,"message":"m"}}',
        '{"jsonrpc":"2.0","id":null,"result":1}',
        '[{"jsonrpc":"2.0","id":ID,"result":1}]',
        '{"jsonrpc":"2.0","id":ID,"result":' + "[" * 10_000 + "]" * 10_000 + "}",
    ],
    ids=["empty", "html", "wrong id", "wrong id of an error", "no id", "batch", "deep"],
)
async def test_text_that_is_no_reply_to_the_request_is_a_protocol_error(text):
    """Only the reply to this very request counts."""
    assert type(await first_error(answering(text=text))) is ProtocolError


@pytest.mark.parametrize(
    ("status", "retryable"), [(401, False), (403, False), (404, False), (429, True), (503, True)]
)
async def test_refusal_carries_status_and_retry_after(status, retryable):
    """An HTTP error is a ConnectError with what the server said, whatever its body looks like."""
    text = '{"jsonrpc":"2.0","id":ID,"result":"not to be believed"}'
    error = await first_error(answering(status, text, headers={"Retry-After": "7"}))
    assert type(error) is ConnectError
    assert error.status == status
    assert error.retry_after == (7.0 if retryable else None)
    assert error.retryable is retryable


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_failure_of_the_server_may_have_been_acted_upon(status):
    """Another 5xx is a lost connection: nobody knows how far the request came."""
    error = await first_error(answering(status, "<html>"))
    assert type(error) is ConnectionLostError
    assert str(status) in str(error)


async def test_other_statuses_are_connect_errors():
    """A 4xx without a JSON-RPC body names the status."""
    error = await first_error(answering(418, "teapot"))
    assert type(error) is ConnectError
    assert error.status == 418


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status):
    """Another host never sees the signed body or the headers."""
    async with rpc_server() as elsewhere:
        location = {"Location": f"http://127.0.0.1:{elsewhere.port}/v1/rpc"}
        error = await first_error(answering(status, headers=location))
        assert type(error) is ConnectError
        assert error.status == status
        assert elsewhere.headers == []


async def test_timeout_ends_the_call():
    """A peer that does not answer does not hold the call."""
    async with no_leaks(), rpc_server(lambda *_: asyncio.sleep(60)) as server, assert_runs_under(5):
        transport = connect(server.port)
        with pytest.raises(RequestTimeoutError, match="m at http://127"):
            await transport.call("m", "{}", timeout_s=0.05)
        await transport.aclose()


async def test_closing_ends_calls_in_flight():
    """Each gets ClientClosedError; closing twice and calling afterwards are handled."""
    async with no_leaks(), rpc_server(lambda *_: asyncio.sleep(60)) as server, assert_runs_under(5):
        transport = connect(server.port)
        calls = [asyncio.create_task(transport.call("m", "{}", timeout_s=None)) for _ in range(5)]
        await wait_until(lambda: len(server.requests) == 5)
        await asyncio.gather(transport.aclose(), transport.aclose())
        for call in calls:
            assert isinstance(await error_of(call), ClientClosedError)
        with pytest.raises(ClientClosedError):
            await transport.call("m", "{}", timeout_s=5)


async def test_given_session_is_used_and_left_open():
    """Its connector and headers serve; calls in flight end when the transport is closed, the session does not."""
    async with (
        rpc_server(lambda *_: asyncio.sleep(60)) as server,
        aiohttp.ClientSession(headers={"X-From": "owner"}) as session,
    ):
        transport = connect(server.port, session=session)
        call = asyncio.create_task(transport.call("m", "{}", timeout_s=None))
        await wait_until(lambda: server.requests)
        await transport.aclose()
        assert isinstance(await error_of(call), ClientClosedError)
        assert server.headers[0]["X-From"] == "owner"
        assert not session.closed


async def test_session_closed_by_its_owner_is_a_clear_error():
    """Before the first call or after it: the error says whose fault it is."""
    async with rpc_server() as server:
        session = aiohttp.ClientSession()
        transport = connect(server.port, session=session)
        await transport.call("m", "{}", timeout_s=5)
        await session.close()
        for each in (transport, connect(server.port, session=session)):
            with pytest.raises(ClientClosedError, match="session"):
                await each.call("m", "{}", timeout_s=5)
            await each.aclose()


async def test_stale_kept_connection_is_a_lost_connection_and_not_repeated():
    """A server that hung up meanwhile: the request is not sent twice from here."""
    async with no_leaks(), rpc_server() as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port)
        await transport.call("m", "{}", timeout_s=5)
        sent = len(server.requests)
        proxy.stall()
        call = asyncio.create_task(transport.call("m", "{}", timeout_s=5))
        await asyncio.sleep(0.05)
        proxy.cut()
        assert type(await error_of(call)) is ConnectionLostError
        assert len(server.requests) == sent
        await transport.aclose()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://node.example", InsecureTransportError),
        ("ws://127.0.0.1/", InvalidFieldError),
        ("ftp://127.0.0.1/", InvalidFieldError),
        (None, InvalidFieldError),
    ],
)
def test_wrong_urls_are_refused_at_once(url, error):
    """Without TLS only loopback will do."""
    with pytest.raises(error, match="url"):
        HttpTransport(url)


async def test_lone_surrogate_in_the_parameters_is_refused():
    """Text that UTF-8 cannot carry is the caller's mistake; nothing is sent."""
    transport = HttpTransport("https://node.example")
    with pytest.raises(InvalidFieldError, match="params"):
        await transport.call("m", '"\ud800"', timeout_s=5)
    await transport.aclose()


def test_repr_hides_credentials_and_query():
    """User, password and query of the URL are never shown."""
    transport = HttpTransport("https://user:s3cret@node.example/rpc?key=s3cret")
    assert repr(transport) == "HttpTransport('https://node.example/rpc')"


async def test_result_up_to_the_limit_passes_and_one_byte_more_does_not():
    """The cap counts the bytes of the whole body."""
    overhead = len('{"jsonrpc":"2.0","id":1,"result":""}')
    for length, passes in ((5000, True), (5001, False)):
        body = '{"jsonrpc":"2.0","id":1,"result":"' + "x" * (length - overhead) + '"}'
        async with serve(post=answering(text=body)) as port:
            transport = connect(port, options=TransportOptions(max_message_bytes=5000))
            if passes:
                assert len(await transport.call("m", "{}", timeout_s=5)) == length - overhead
            else:
                with pytest.raises(ProtocolError, match="longer than"):
                    await transport.call("m", "{}", timeout_s=5)
            await transport.aclose()


async def test_large_parameters_pass():
    """A long body is sent whole."""
    async with rpc_server() as server:
        transport = connect(server.port)
        big = "x" * 900_000
        assert (await transport.call("m", json.dumps(big), timeout_s=10))["params"] == big
        await transport.aclose()

"""One multiplexed WebSocket against a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import random

import aiohttp
import pytest

from dan_async.config import TransportOptions
from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    InsecureTransportError,
    InvalidFieldError,
    NodeProtocolError,
    RequestTimeoutError,
    RpcError,
)
from dan_async.transport import Transport, WebSocketTransport
from dan_async.transport.websocket import Backoff
from dan_async.turns import BUDGET_S, FOLLOWING_S, Turns
from tests.helpers import CuttableProxy, ManualClock, assert_runs_under, error_of, no_leaks, wait_until
from tests.servers import raw_server, rpc_server, serve, socket_script


def connect(port, **options):
    """Make a transport to a server on loopback."""
    return WebSocketTransport(f"ws://127.0.0.1:{port}/v1/rpc", **options)


async def test_call_gives_the_result():
    """Method and parameters arrive, the result comes back, closing leaves nothing."""
    async with rpc_server() as server, no_leaks():
        transport: Transport = connect(server.port)
        result = await transport.call("dan_health", '{"a":[1,"é"]}', timeout_s=5)
        assert result == {"method": "dan_health", "params": {"a": [1, "é"]}}
        await transport.aclose()


async def test_nothing_is_opened_before_the_first_call():
    """Making and closing a transport costs no connection, and needs no event loop."""
    async with rpc_server() as server:
        transport = connect(server.port)
        await asyncio.sleep(0.01)
        assert server.headers == []
        await transport.aclose()


async def test_concurrent_first_calls_share_one_connection():
    """However many calls come first, one connection is opened."""
    async with rpc_server() as server:
        transport = connect(server.port)
        results = await asyncio.gather(*[transport.call("m", str(i), timeout_s=5) for i in range(50)])
        assert [result["params"] for result in results] == list(range(50))
        assert len(server.headers) == 1
        await transport.aclose()


async def test_replies_out_of_order_reach_their_own_calls():
    """Many requests in flight, answered in random order: each call gets its own reply."""
    order = random.Random(5)

    async def handler(method, params):
        await asyncio.sleep(order.random() * 0.05)
        return params

    async with rpc_server(handler) as server:
        transport = connect(server.port)
        results = await asyncio.gather(*[transport.call("m", str(i), timeout_s=10) for i in range(1000)])
        assert results == list(range(1000))
        await transport.aclose()


async def test_error_of_the_peer_is_an_rpc_error():
    """Code, text and data of the peer's error; the connection goes on."""

    async def script(socket):
        call = await socket.receive_json()
        error = {"code": -32025, "message": "known with other content", "data": {"retryAfter": 2}}
        await socket.send_json({"jsonrpc": "2.0", "id": call["id"], "error": error})
        call = await socket.receive_json()
        await socket.send_json({"jsonrpc": "2.0", "id": call["id"], "result": "fine"})

    async with socket_script(script) as port:
        transport = connect(port)
        with pytest.raises(RpcError, match="known with other content") as caught:
            await transport.call("m", "{}", timeout_s=5)
        assert (caught.value.code, caught.value.data) == (-32025, {"retryAfter": 2})
        assert await transport.call("m", "{}", timeout_s=5) == "fine"
        await transport.aclose()


async def test_cancelled_reader_breaks_the_connection():
    """A program that ends cancels all of its tasks: nothing is left open that would have to be closed after the loop."""
    async with no_leaks(), rpc_server() as server:
        transport = connect(server.port)
        await transport.call("m", "{}", timeout_s=5)
        (reader,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("dan_async reader")]
        reader.cancel()
        await asyncio.wait([reader])
        assert transport.connection._socket._transport.is_closing()
        await transport.aclose()


async def test_timeout_leaves_no_pending_entry_and_the_late_reply_is_dropped():
    """A reply that comes after its call gave up disturbs nobody."""
    may_answer = asyncio.Event()

    async def handler(method, params):
        if method == "slow":
            await may_answer.wait()
        return method

    async with rpc_server(handler) as server:
        transport = connect(server.port)
        await transport.call("quick", "{}", timeout_s=5)
        with pytest.raises(RequestTimeoutError, match=r"slow at ws://127.* timed out after 0.02 s"):
            await transport.call("slow", "{}", timeout_s=0.02)
        assert transport.connection.pending == 0
        may_answer.set()
        await wait_until(lambda: transport.connection._socket.heard > 1)
        assert await transport.call("quick", "{}", timeout_s=5) == "quick"
        assert len(server.headers) == 1
        await transport.aclose()


async def test_each_request_has_its_own_time_limit():
    """One with less time ends earlier, whichever was made first; what was answered keeps nothing."""

    async def handler(method, params):
        if method == "slow":
            await asyncio.sleep(30)
        return method

    async with rpc_server(handler) as server:
        transport = connect(server.port)
        for _ in range(200):
            await transport.call("quick", "{}", timeout_s=60)
        assert transport.connection.pending == 0
        ended = []

        async def call(timeout_s):
            assert isinstance(
                await error_of(transport.call("slow", "{}", timeout_s=timeout_s)), RequestTimeoutError
            )
            ended.append(timeout_s)

        async with assert_runs_under(5):
            await asyncio.gather(*map(call, (0.3, 0.1, 0.2)))
        assert ended == [0.1, 0.2, 0.3]
        assert await transport.call("quick", "{}", timeout_s=5) == "quick"
        await transport.aclose()


async def test_cancelled_call_leaves_no_pending_entry():
    """Cancelling one call does not touch the others."""
    may_answer = asyncio.Event()

    async def handler(method, params):
        await may_answer.wait()
        return method

    async with rpc_server(handler) as server:
        transport = connect(server.port)
        kept = asyncio.create_task(transport.call("kept", "{}", timeout_s=5))
        dropped = asyncio.create_task(transport.call("dropped", "{}", timeout_s=5))
        await wait_until(lambda: len(server.requests) == 2)
        dropped.cancel()
        await asyncio.wait([dropped])
        assert dropped.cancelled()
        assert transport.connection.pending == 1
        may_answer.set()
        assert await kept == "kept"
        await transport.aclose()


async def test_a_thousand_pending_calls_are_each_failed_once_when_the_connection_drops():
    """Half are answered, then the line is cut: every call ends, with its reply or with ConnectionLostError."""
    never = asyncio.Event()

    async def handler(method, params):
        if params % 2:
            await never.wait()
        return params

    async with no_leaks(), rpc_server(handler) as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port)
        endings = []

        async def call(number):
            try:
                endings.append((number, await transport.call("m", str(number), timeout_s=30)))
            except ConnectionLostError as error:
                endings.append((number, error))

        async with assert_runs_under(20), asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(call(number))
            await wait_until(lambda: len(endings) == 500)
            connection = transport.connection
            assert connection.pending == 500
            proxy.cut()
        assert connection.pending == 0
        assert sorted(number for number, _ in endings) == list(range(1000))
        failed = [ending for number, ending in endings if number % 2]
        assert all(isinstance(error, ConnectionLostError) for error in failed)
        # Errors are changed on their way up, so that no two calls may share one.
        assert len({id(error) for error in failed}) == 500
        await transport.aclose()


async def test_the_calls_of_a_lost_connection_end_over_many_turns(monkeypatch):
    """A connection that is lost with many calls in flight does not hold the loop until all have ended."""
    turns = Turns(clock=ManualClock())  # each end takes FOLLOWING_S of a turn
    monkeypatch.setattr(Turns, "of_running_loop", lambda: turns)
    ended = [0]

    def turn():
        nonlocal handle
        ended.append(0)
        handle = asyncio.get_running_loop().call_soon(turn)

    async def call():
        assert isinstance(await error_of(transport.call("m", "{}", timeout_s=30)), ConnectionLostError)
        ended[-1] += 1

    async def never(method, params):
        await asyncio.Event().wait()

    async with no_leaks(), rpc_server(never) as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port)
        async with assert_runs_under(20), asyncio.TaskGroup() as group:
            for _ in range(400):
                group.create_task(call())
            await wait_until(lambda: transport.connection is not None and transport.connection.pending == 400)
            handle = asyncio.get_running_loop().call_soon(turn)
            proxy.cut()
        handle.cancel()
        assert sum(ended) == 400
        assert max(ended) <= BUDGET_S / FOLLOWING_S + 1  # one is always ended
        await transport.aclose()


async def test_closing_ends_the_calls_of_a_lost_connection(monkeypatch):
    """Whoever closes need not wait for the turns in which they would have ended."""
    turns = Turns(clock=ManualClock())
    monkeypatch.setattr(Turns, "of_running_loop", lambda: turns)

    async def never(method, params):
        await asyncio.Event().wait()

    async with no_leaks(), rpc_server(never) as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port)
        calls = [asyncio.create_task(transport.call("m", "{}", timeout_s=30)) for _ in range(400)]
        await wait_until(lambda: transport.connection is not None and transport.connection.pending == 400)
        connection = transport.connection
        proxy.cut()
        await wait_until(lambda: connection.is_lost)
        await transport.aclose()
        assert connection.pending == 0
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {ConnectionLostError}


async def test_next_call_after_a_loss_opens_a_new_connection():
    """A restarted or cut peer is found again."""
    async with no_leaks(), rpc_server() as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port)
        for _ in range(3):
            await transport.call("m", "{}", timeout_s=5)
            connection = transport.connection
            proxy.cut()
            await wait_until(lambda connection=connection: connection.is_lost)
        await transport.call("m", "{}", timeout_s=5)
        assert proxy.accepted == 4
        await transport.aclose()


# --- on_connect -------------------------------------------------------------------------------------------------------


async def test_a_call_after_a_silent_one_goes_over_a_new_connection():
    """Nothing came in a call's time: the next one does not wait for the ping that decides about the old connection."""
    async with rpc_server() as server, CuttableProxy(server.port) as proxy, no_leaks():
        transport = connect(proxy.port)
        await transport.call("m", "{}", timeout_s=5)
        proxy.silence()
        with pytest.raises(RequestTimeoutError):
            await transport.call("m", "{}", timeout_s=0.1)
        async with assert_runs_under(1):
            await transport.call("m", "{}", timeout_s=5)
        assert len(server.headers) == 2
        await transport.aclose()


async def test_requests_on_a_silent_connection_fail_when_its_ping_is_not_answered():
    """A peer that owes a reply is pinged long before the call's own limit."""
    options = TransportOptions(heartbeat_s=None, pong_s=0.1)
    async with rpc_server() as server, CuttableProxy(server.port) as proxy, no_leaks():
        transport = connect(proxy.port, options=options)
        await transport.call("m", "{}", timeout_s=5)
        proxy.silence()
        async with assert_runs_under(2):
            calls = [error_of(transport.call("m", "{}", timeout_s=30)) for _ in range(3)]
            assert {type(error) for error in await asyncio.gather(*calls)} == {ConnectionLostError}
            await transport.call("m", "{}", timeout_s=5)
        await transport.aclose()


async def test_a_connection_that_was_replaced_serves_what_it_has():
    """A peer held up for longer than one call's time: the requests before it are answered, and then the connection ends."""
    may_answer = asyncio.Event()

    async def handler(method, params):
        await may_answer.wait()
        return method

    async with rpc_server(handler) as server, CuttableProxy(server.port) as proxy, no_leaks():
        transport = connect(proxy.port, options=TransportOptions(pong_s=0.6))
        early = asyncio.create_task(transport.call("early", "{}", timeout_s=20))
        await wait_until(lambda: server.requests)
        old = transport.connection
        proxy.stall()
        with pytest.raises(RequestTimeoutError):
            await transport.call("late", "{}", timeout_s=0.05)
        fresh = asyncio.create_task(transport.call("fresh", "{}", timeout_s=20))
        await wait_until(lambda: transport.connection is None)
        proxy.resume()
        may_answer.set()
        assert await early == "early"
        assert await fresh == "fresh"
        assert transport.connection is not old
        await wait_until(lambda: old.is_lost)
        await transport.aclose()


async def test_a_connection_that_cannot_be_written_to_is_not_used_again():
    """Its reader has not yet found out that it breaks: the next call does not meet the same end."""
    async with rpc_server() as server, no_leaks():
        transport = connect(server.port)
        await transport.call("m", "{}", timeout_s=5)
        breaking = transport.connection
        breaking._socket._ws._writer._closing = True  # as after the loop lost it, before the reader's turn
        with pytest.raises(ConnectionLostError):
            await transport.call("m", "{}", timeout_s=5)
        assert not breaking.is_lost
        await transport.call("m", "{}", timeout_s=5)
        assert len(server.headers) == 2
        await transport.aclose()


async def test_a_call_whose_new_connection_broke_at_once_is_told_of_a_loss():
    """Others find out first and open the next one, before it could begin: that is not its owner's closing."""
    others: list[asyncio.Task[object]] = []

    async def call_twice() -> object:
        with pytest.raises(ConnectionLostError):
            await transport.call("finds_out", "{}", timeout_s=5)
        return await transport.call("again", "{}", timeout_s=5)

    async def on_connect(call):
        if not others:
            # As after the loop lost it, before the reader's turn.
            call.__self__._socket._ws._writer._closing = True
            others.append(asyncio.create_task(call_twice()))

    async with rpc_server() as server, no_leaks():
        transport = connect(server.port, on_connect=on_connect)
        with pytest.raises(ConnectionLostError):
            await transport.call("waits", "{}", timeout_s=5)
        assert (await others[0])["method"] == "again"
        await transport.aclose()


async def test_an_idle_connection_that_went_dead_is_found_by_the_heartbeat():
    """Before it is needed: the next call pays nothing for it."""
    async with rpc_server() as server, CuttableProxy(server.port) as proxy, no_leaks():
        transport = connect(proxy.port, options=TransportOptions(heartbeat_s=0.05, pong_s=0.1))
        await transport.call("m", "{}", timeout_s=5)
        connection = transport.connection
        proxy.silence()
        await wait_until(lambda: connection.is_lost)
        await transport.call("m", "{}", timeout_s=5)
        await transport.aclose()


async def test_on_connect_runs_before_any_waiting_request_on_each_connection():
    """The first thing a peer hears is what on_connect asks."""

    async def identify(call):
        assert (await call("dan_identify", '{"nonce":1}', 5))["method"] == "dan_identify"

    async with rpc_server() as server, CuttableProxy(server.port) as proxy:
        transport = connect(proxy.port, on_connect=identify)
        await asyncio.gather(*[transport.call("m", "{}", timeout_s=5) for _ in range(3)])
        connection = transport.connection
        proxy.cut()
        await wait_until(lambda: connection.is_lost)
        await transport.call("m", "{}", timeout_s=5)
        methods = [request["method"] for request in server.requests]
        assert methods == ["dan_identify", "m", "m", "m", "dan_identify", "m"]
        await transport.aclose()


@pytest.mark.parametrize(
    "error", [NodeProtocolError("another operator", method="dan_identify"), KeyError("a bug")]
)
async def test_error_of_on_connect_closes_the_connection_and_reaches_every_waiter(error):
    """No request goes to a peer that did not pass; every waiting call is told why, with an error of its own."""

    async def identify(call):
        await call("dan_identify", "{}", 5)
        raise error

    async with no_leaks(), rpc_server() as server:
        transport = connect(server.port, on_connect=identify)
        calls = [error_of(transport.call("m", "{}", timeout_s=5)) for _ in range(3)]
        found = await asyncio.gather(*calls)
        assert {type(each) for each in found} == {type(error)}
        assert {str(each) for each in found} == {str(error)}
        assert [request["method"] for request in server.requests] == ["dan_identify"]
        await wait_until(lambda: not server.sockets)
        if isinstance(error, NodeProtocolError):
            assert len({id(each) for each in found}) == 3
            assert {each.method for each in found} == {"dan_identify"}
        await transport.aclose()


async def test_on_connect_that_hangs_is_cut_off_by_the_connect_timeout():
    """Opening a connection includes what on_connect does."""

    async def identify(call):
        await asyncio.Event().wait()

    async with no_leaks(), rpc_server() as server, assert_runs_under(5):
        transport = connect(server.port, on_connect=identify, connect_timeout_s=0.05)
        with pytest.raises(ConnectError, match=r"was not ready within 0.05 s"):
            await transport.call("m", "{}", timeout_s=5)
        await wait_until(lambda: not server.sockets)
        await transport.aclose()


async def test_timeout_of_on_connect_itself_is_left_as_it_is():
    """A peer that does not answer the identity check in time is not mistaken for a slow connection."""

    async def handler(method, params):
        await asyncio.Event().wait()

    async def identify(call):
        await call("dan_identify", "{}", 0.02)

    async with rpc_server(handler) as server:
        transport = connect(server.port, on_connect=identify)
        with pytest.raises(RequestTimeoutError, match="dan_identify"):
            await transport.call("m", "{}", timeout_s=5)
        await transport.aclose()


# --- connecting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("ws://node.example/v1/rpc", InsecureTransportError),
        ("ws://10.0.0.1/v1/rpc", InsecureTransportError),
        ("http://127.0.0.1/v1/rpc", InvalidFieldError),
        ("127.0.0.1:80", InvalidFieldError),
        ("ws://127.0.0.1:99999/", InvalidFieldError),
        (5, InvalidFieldError),
    ],
)
def test_wrong_urls_are_refused_at_once(url, error):
    """Without TLS only loopback will do; nothing is sent."""
    with pytest.raises(error, match="url"):
        WebSocketTransport(url)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "9"])
def test_wrong_max_pending_is_refused(value):
    """It must be a whole number greater than 0."""
    with pytest.raises(InvalidFieldError, match="max_pending"):
        WebSocketTransport("wss://node.example", max_pending=value)


@pytest.mark.parametrize(
    ("status", "retryable"), [(401, False), (403, False), (404, False), (429, True), (503, True)]
)
async def test_refused_upgrade_carries_status_and_retry_after(status, retryable):
    """An HTTP error on the upgrade is a ConnectError with what the server said."""

    async def refuse(request):
        return aiohttp.web.Response(status=status, headers={"Retry-After": "7"})

    async with no_leaks(), serve(get=refuse) as port:
        transport = connect(port)
        with pytest.raises(ConnectError, match=f"HTTP status {status}") as caught:
            await transport.call("m", "{}", timeout_s=5)
        assert caught.value.status == status
        assert caught.value.retry_after == (7.0 if retryable else None)
        assert caught.value.retryable is retryable
        await transport.aclose()


async def test_retry_after_is_respected_by_later_calls():
    """While the peer wants to be left alone, calls that cannot wait that long are refused without touching it."""
    asked = 0

    async def refuse(request):
        nonlocal asked
        asked += 1
        return aiohttp.web.Response(status=503, headers={"Retry-After": "7"})

    async with serve(get=refuse) as port:
        transport = connect(port)
        for _ in range(3):
            error = await error_of(transport.call("m", "{}", timeout_s=5))
            assert isinstance(error, ConnectError)
            assert error.status == 503
            assert 6 < error.retry_after <= 7
        assert asked == 1
        await transport.aclose()


async def test_call_without_a_limit_does_not_wait_for_hours():
    """A peer that asks to be left alone for a day does not hold a call that has no time limit of its own."""

    async def refuse(request):
        return aiohttp.web.Response(status=429, headers={"Retry-After": "86400"})

    async with serve(get=refuse) as port, assert_runs_under(5):
        transport = connect(port)
        for _ in range(2):
            error = await error_of(transport.call("m", "{}", timeout_s=None))
            assert isinstance(error, ConnectError)
            assert error.retry_after > 86_000
        await transport.aclose()


async def test_failed_attempt_is_followed_by_a_growing_wait():
    """A peer that is down is asked less and less often; the wait passes by the injected clock."""
    clock = ManualClock(0)
    backoff = Backoff(clock=clock, random=lambda: 1.0)
    async with CuttableProxy(9) as proxy:
        proxy.refuse()
        transport = connect(proxy.port, backoff=backoff)
        waits = []
        for _ in range(4):
            with pytest.raises(ConnectError):
                await transport.call("m", "{}", timeout_s=5)
            waits.append(backoff.remaining())
            clock.advance(waits[-1])
        assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8])
        await transport.aclose()


async def test_concurrent_calls_to_a_dead_peer_share_one_failure():
    """Fifty calls make one attempt, not fifty."""
    async with no_leaks(), CuttableProxy(9) as proxy:
        proxy.refuse()
        transport = connect(proxy.port)
        errors = await asyncio.gather(*[error_of(transport.call("m", "{}", timeout_s=5)) for _ in range(50)])
        assert {type(error) for error in errors} == {ConnectError}
        assert len({id(error) for error in errors}) == 50
        # aiohttp by itself asks a second time when a server hangs up on a GET.
        assert proxy.accepted <= 2
        await transport.aclose()


async def test_refused_connection_is_a_connect_error():
    """Nobody listens: the reason is named."""
    async with CuttableProxy(9) as proxy:
        port = proxy.port
    transport = connect(port)
    with pytest.raises(ConnectError, match=r"no connection to ws://127\.0\.0\.1") as caught:
        await transport.call("m", "{}", timeout_s=5)
    assert caught.value.retryable
    await transport.aclose()


async def test_timeout_of_the_call_covers_connecting():
    """A peer that accepts and never answers the upgrade does not hold a call beyond its own time."""

    async def say_nothing(reader, writer):
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(say_nothing) as port, assert_runs_under(5):
        transport = connect(port)
        with pytest.raises(RequestTimeoutError, match="before the connection was ready") as caught:
            await transport.call("m", "{}", timeout_s=0.05)
        assert caught.value.phase == "connect"
        assert transport._attempt is None
        await transport.aclose()


async def test_attempt_goes_on_while_one_call_still_waits():
    """A call that gives up does not take the attempt away from the others; the last one does."""
    may_answer = asyncio.Event()

    async def identify(call):
        await may_answer.wait()

    async with rpc_server() as server:
        transport = connect(server.port, on_connect=identify)
        impatient = asyncio.create_task(transport.call("a", "{}", timeout_s=5))
        patient = asyncio.create_task(transport.call("b", "{}", timeout_s=5))
        await wait_until(lambda: server.sockets)
        impatient.cancel()
        await asyncio.wait([impatient])
        may_answer.set()
        assert (await patient)["method"] == "b"
        assert len(server.headers) == 1
        await transport.aclose()


async def test_last_waiter_that_is_cancelled_ends_the_attempt():
    """Nobody waits any more: no task and no socket goes on."""

    async def identify(call):
        await asyncio.Event().wait()

    async with rpc_server() as server:
        transport = connect(server.port, on_connect=identify)
        async with no_leaks():
            call = asyncio.create_task(transport.call("a", "{}", timeout_s=5))
            await wait_until(lambda: server.sockets)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()
            await wait_until(lambda: not server.sockets)
        await transport.aclose()


async def test_headers_are_sent_and_deflate_is_not_offered():
    """An API key arrives; compression is off."""
    async with rpc_server() as server:
        transport = connect(server.port, options=TransportOptions(headers={"X-Api-Key": "abc"}))
        await transport.call("m", "{}", timeout_s=5)
        assert server.headers[0]["X-Api-Key"] == "abc"
        assert "Sec-WebSocket-Extensions" not in server.headers[0]
        await transport.aclose()


async def test_given_session_is_used_and_left_open():
    """Its connector and headers serve; it stays its owner's."""
    async with rpc_server() as server, aiohttp.ClientSession(headers={"X-From": "owner"}) as session:
        transport = connect(server.port, session=session)
        await transport.call("m", "{}", timeout_s=5)
        assert server.headers[0]["X-From"] == "owner"
        await transport.aclose()
        assert not session.closed
        async with session.get(f"http://127.0.0.1:{server.port}/nothing") as response:
            assert response.status == 404


async def test_given_session_that_was_closed_is_a_clear_error():
    """A closed session cannot be used; the error says whose fault it is."""
    session = aiohttp.ClientSession()
    await session.close()
    transport = WebSocketTransport("wss://node.example", session=session)
    with pytest.raises(ClientClosedError, match="session"):
        await transport.call("m", "{}", timeout_s=5)
    await transport.aclose()


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_calls_beyond_max_pending_wait_for_their_turn():
    """No more than max_pending requests are in flight; all are answered in the end."""
    running = most = 0

    async def handler(method, params):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        return params

    async with rpc_server(handler) as server:
        transport = connect(server.port, max_pending=4)
        results = await asyncio.gather(*[transport.call("m", str(i), timeout_s=10) for i in range(40)])
        assert results == list(range(40))
        assert most == 4
        await transport.aclose()


async def test_waiting_for_a_turn_counts_against_the_timeout():
    """A call that never gets its turn times out, and a cancelled one gives its turn to the next."""

    async def handler(method, params):
        if method == "hang":
            await asyncio.Event().wait()
        return method

    async with rpc_server(handler) as server, assert_runs_under(5):
        transport = connect(server.port, max_pending=1)
        hanging = asyncio.create_task(transport.call("hang", "{}", timeout_s=None))
        await wait_until(lambda: server.requests)
        with pytest.raises(RequestTimeoutError, match="no earlier request was answered"):
            await transport.call("quick", "{}", timeout_s=0.02)
        waiting = asyncio.create_task(transport.call("quick", "{}", timeout_s=5))
        await asyncio.sleep(0)
        hanging.cancel()
        assert await waiting == "quick"
        assert len(server.requests) == 2
        await transport.aclose()


async def test_lone_surrogate_in_the_parameters_is_refused_and_does_no_harm():
    """Text that UTF-8 cannot carry is the caller's mistake; the connection goes on."""
    async with rpc_server() as server:
        transport = connect(server.port)
        with pytest.raises(InvalidFieldError, match="params"):
            await transport.call("m", '"\ud800"', timeout_s=5)
        assert transport.connection.pending == 0
        assert (await transport.call("m", '"ok"', timeout_s=5))["params"] == "ok"
        await transport.aclose()


async def test_large_parameters_and_results_pass():
    """Messages up to the limit go through."""
    big = json.dumps("x" * 900_000)
    async with rpc_server() as server:
        transport = connect(server.port)
        assert len((await transport.call("m", big, timeout_s=10))["params"]) == 900_000
        await transport.aclose()


# --- closing ----------------------------------------------------------------------------------------------------------


async def test_closing_fails_pending_calls_and_says_goodbye():
    """Every call in flight gets ClientClosedError; the peer gets a close frame with code 1000."""

    async def handler(method, params):
        await asyncio.Event().wait()

    async with rpc_server(handler) as server, assert_runs_under(5):
        async with no_leaks():
            transport = connect(server.port)
            calls = [asyncio.create_task(transport.call("m", "{}", timeout_s=None)) for _ in range(5)]
            await wait_until(lambda: len(server.requests) == 5)
            await asyncio.gather(transport.aclose(), transport.aclose())
            for call in calls:
                assert isinstance(await error_of(call), ClientClosedError)
            await wait_until(lambda: not server.sockets)
        assert server.close_codes == [1000]


async def test_closing_fails_calls_that_wait_for_their_turn():
    """A place that comes free by the closing is no reason to send anything more."""

    async def handler(method, params):
        await asyncio.Event().wait()

    async with no_leaks(), rpc_server(handler) as server, assert_runs_under(5):
        transport = connect(server.port, max_pending=1)
        calls = [asyncio.create_task(transport.call("m", "{}", timeout_s=None)) for _ in range(3)]
        await wait_until(lambda: server.requests)
        await transport.aclose()
        assert [type(await error_of(call)) for call in calls] == [ClientClosedError] * 3
        assert len(server.requests) == 1


async def test_closing_while_connecting_fails_the_waiting_calls():
    """The attempt ends with the transport."""

    async def identify(call):
        await asyncio.Event().wait()

    async with rpc_server() as server, assert_runs_under(5):
        async with no_leaks():
            transport = connect(server.port, on_connect=identify)
            call = asyncio.create_task(transport.call("m", "{}", timeout_s=None))
            await wait_until(lambda: server.sockets)
            await transport.aclose()
            assert isinstance(await error_of(call), ClientClosedError)
            await wait_until(lambda: not server.sockets)


async def test_call_after_closing_is_refused():
    """A closed transport stays closed, and closing again is fine."""
    async with rpc_server() as server:
        transport = connect(server.port)
        await transport.call("m", "{}", timeout_s=5)
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(ClientClosedError):
            await transport.call("m", "{}", timeout_s=5)
        assert len(server.headers) == 1


def test_repr_and_errors_hide_credentials_and_query():
    """User, password and query of the URL are never shown."""
    transport = WebSocketTransport("wss://user:s3cret@node.example/v1/rpc?key=s3cret")
    assert repr(transport) == "WebSocketTransport('wss://node.example/v1/rpc')"

"""A node's RPC surface: framing, limits, identity, POST, and stopping gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time

import aiohttp
import pytest

from dan_async.crypto.signature import recover_address
from dan_async.devnet import Delay, NodeLimits
from dan_async.errors import NodeCode
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from tests.devnet.raw_client import Keygen, RpcFaultError, connect, connect_all, keygen_on
from tests.helpers import assert_runs_under, wait_until


@pytest.fixture
async def node(devnet):
    async with connect(devnet.nodes[0]) as opened:
        yield opened


@contextlib.asynccontextmanager
async def websocket_to(node, **options):
    """A connection whose messages the test writes itself."""
    async with aiohttp.ClientSession() as session, session.ws_connect(node.url, **options) as websocket:
        yield websocket


async def post(node, body, *, content_type="application/json"):
    """Send a POST; gives status, headers and reply."""
    headers = {"Content-Type": content_type}
    data = body if isinstance(body, str | bytes) else json.dumps(body)
    async with aiohttp.ClientSession() as session:
        async with session.post(node.url.replace("ws:", "http:"), data=data, headers=headers) as reply:
            return reply.status, reply.headers, json.loads(await reply.text())


def request(method, params=None, rpc_id=1):
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": {} if params is None else params}


# --- methods ----------------------------------------------------------------------------------------------------------


async def test_a_node_proves_who_it_is(node):
    """It signs the caller's nonce with its operator's key."""
    nonce = secrets.token_bytes(32)
    answer = await node.call("dan_identify", fields.encode(node_1.IdentifyParams(nonce=nonce)))
    found = node_1.Identity.read(answer)
    assert found.operator == node.operator
    digest = node_1.identity_digest(operator=found.operator, nonce=nonce, time_ms=found.time_ms)
    assert recover_address(digest, found.signature) == found.operator


async def test_a_node_tells_the_time(node):
    """Its clock, in Unix milliseconds."""
    answer = await node.call("dan_health", {})
    assert answer["operator"] == node.operator
    assert answer["protocol"] == "dan-node/1"
    assert abs(answer["time"] / 1000 - time.time()) < 5


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("dan_identify", {}),
        ("dan_identify", {"nonce": "0x00"}),
        ("dan_identify", {"nonce": "00" * 32}),
        ("dan_identify", {"nonce": "0x" + "00" * 32, "more": 1}),
        ("dan_health", {"more": 1}),
        ("dan_challenge", {}),
        ("dan_challenge", {"requestId": "0x", "operation": "keygen", "setupHash": "0x" + "00" * 32}),
        ("dan_challenge", {"requestId": "0x" + "00" * 32, "operation": 1, "setupHash": "0x" + "00" * 32}),
        ("dan_challenge", {"requestId": "0x" + "00" * 32, "operation": "keygen", "setupHash": "0x"}),
        ("dan_keygen", {}),
        ("dan_keygen", {"requestId": []}),
    ],
)
async def test_malformed_parameters_are_refused(node, method, params):
    """INVALID_PARAMS, with the field in data."""
    with pytest.raises(RpcFaultError) as caught:
        await node.call(method, params)
    assert caught.value.code == NodeCode.INVALID_PARAMS
    assert caught.value.data["field"]


async def test_an_unknown_method_is_refused(node):
    """METHOD_NOT_FOUND."""
    assert await node.code_of("dan_dance", {}) == NodeCode.METHOD_NOT_FOUND


# --- framing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "rpc_id"),
    [
        ("nonsense", NodeCode.PARSE_ERROR, None),
        ("[" * 50_000, NodeCode.PARSE_ERROR, None),
        ("[]", NodeCode.INVALID_REQUEST, None),
        ('{"jsonrpc":"2.0","method":"dan_health","params":{}}', NodeCode.INVALID_REQUEST, None),
        ('{"jsonrpc":"2.0","id":5,"method":"dan_health","params":[]}', NodeCode.INVALID_REQUEST, 5),
    ],
    ids=["nonsense", "deep", "batch", "notification", "by position"],
)
async def test_what_is_no_request_is_answered_with_an_error(devnet, text, code, rpc_id):
    """And the connection goes on."""
    async with websocket_to(devnet.nodes[0]) as websocket:
        await websocket.send_str(text)
        reply = await websocket.receive_json(timeout=5)
        assert (reply["error"]["code"], reply["id"]) == (code, rpc_id)
        await websocket.send_json(request("dan_health", rpc_id="after"))
        assert (await websocket.receive_json(timeout=5))["id"] == "after"


async def test_a_binary_message_closes_the_connection(devnet):
    """With the code for data that is not understood."""
    async with websocket_to(devnet.nodes[0]) as websocket:
        await websocket.send_bytes(b"\0")
        message = await websocket.receive(timeout=5)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == aiohttp.WSCloseCode.UNSUPPORTED_DATA


async def test_a_message_beyond_all_bounds_closes_the_connection(make_devnet):
    """It is not read into memory first."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_request_bytes=1000))
    async with websocket_to(devnet.nodes[0]) as websocket:
        with contextlib.suppress(ConnectionError):
            await websocket.send_str("x" * 1_000_000)
        message = await websocket.receive(timeout=5)
        assert message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


async def test_compression_is_not_negotiated(devnet):
    """So there is no bomb to unpack."""
    async with websocket_to(devnet.nodes[0], compress=15) as websocket:
        assert not websocket.compress


async def test_replies_come_when_they_are_ready(devnet):
    """A slow request does not hold up a quick one on the same connection."""
    devnet.faults[0] = Delay(seconds=0.5, methods=["dan_identify"])
    async with connect(devnet.nodes[0]) as node, assert_runs_under(3):
        slow = asyncio.create_task(
            node.call("dan_identify", fields.encode(node_1.IdentifyParams(nonce=bytes(32))))
        )
        await node.call("dan_health", {})
        assert not slow.done()
        await slow


async def test_a_thousand_requests_in_flight_are_each_answered_once(devnet):
    """On one connection; every reply to its own request."""
    async with connect(devnet.nodes[0]) as node:
        nonces = [secrets.token_bytes(32) for _ in range(1000)]
        answers = await asyncio.gather(
            *(
                node.call("dan_identify", fields.encode(node_1.IdentifyParams(nonce=nonce)))
                for nonce in nonces
            )
        )
        assert node.unmatched.empty()
    for nonce, answer in zip(nonces[::100], answers[::100], strict=True):
        found = node_1.Identity.read(answer)
        digest = node_1.identity_digest(operator=found.operator, nonce=nonce, time_ms=found.time_ms)
        assert recover_address(digest, found.signature) == found.operator


# --- limits -----------------------------------------------------------------------------------------------------------


async def test_requests_in_flight_are_bounded(make_devnet):
    """RATE_LIMITED for the one too many; the others are answered."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_in_flight=3))
    devnet.faults[0] = Delay(seconds=0.3)
    async with connect(devnet.nodes[0]) as node:
        asked = [asyncio.create_task(node.call("dan_health", {})) for _ in range(4)]
        results = await asyncio.gather(*asked, return_exceptions=True)
    refused = [result for result in results if isinstance(result, RpcFaultError)]
    assert [(fault.code, fault.data["retryAfter"]) for fault in refused] == [(NodeCode.RATE_LIMITED, 1)]


async def test_requests_per_second_are_bounded(make_devnet):
    """RATE_LIMITED with the seconds to wait; the rest of the burst was answered."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(requests_per_s=0.5, request_burst=3))
    async with connect(devnet.nodes[0]) as node:
        for _ in range(3):
            await node.call("dan_health", {})
        with pytest.raises(RpcFaultError) as caught:
            await node.call("dan_health", {})
    assert caught.value.code == NodeCode.RATE_LIMITED
    assert 1 <= caught.value.data["retryAfter"] <= 2


async def test_connections_are_bounded(make_devnet):
    """503 with Retry-After for the one too many while all others wait for answers; when one leaves there is room."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_connections=1))
    async with connect(devnet.nodes[0]) as first:
        devnet.faults[0] = Delay(seconds=600, methods=["dan_health"])
        await first.websocket.send_json(request("dan_health"))
        await wait_until(lambda: any(it.requests for it in devnet.nodes[0]._runner._server._connections))
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            async with websocket_to(devnet.nodes[0]):
                pytest.fail("let in")
        assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "1")
        del devnet.faults[0]
    async with asyncio.timeout(5):
        while True:
            try:
                async with connect(devnet.nodes[0]) as node:
                    await node.call("dan_health", {})
                break
            except aiohttp.WSServerHandshakeError:
                await asyncio.sleep(0.01)


async def test_clients_that_ask_for_nothing_keep_nobody_out(make_devnet):
    """Of too many connections those go that never sent a request."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_connections=3))
    async with contextlib.AsyncExitStack() as stack:
        asking = await stack.enter_async_context(connect(devnet.nodes[0]))
        await asking.call("dan_health", {})
        silent = [await stack.enter_async_context(websocket_to(devnet.nodes[0])) for _ in range(5)]
        for _ in range(2):
            another = await stack.enter_async_context(connect(devnet.nodes[0]))
            await another.call("dan_health", {})
        for websocket in silent:
            assert (await websocket.receive(timeout=5)).type is not aiohttp.WSMsgType.TEXT
        await asking.call("dan_health", {})


# --- POST -------------------------------------------------------------------------------------------------------------


async def test_post_takes_the_same_requests(devnet):
    """Each is a connection's worth of its own."""
    status, _, reply = await post(devnet.nodes[0], request("dan_health", rpc_id="p"))
    assert status == 200
    assert (reply["id"], reply["result"]["operator"]) == ("p", devnet.nodes[0].operator)


async def test_a_key_can_be_made_with_post_alone(devnet):
    """Challenges and the request itself."""

    class Posting:
        def __init__(self, node):
            self.node, self.operator = node, node.operator

        async def call(self, method, params):
            params = json.loads(params) if isinstance(params, str) else params
            status, _, reply = await post(self.node, request(method, params))
            assert status == 200
            return reply["result"]

    nodes = sorted(map(Posting, devnet.nodes), key=lambda node: node.operator.lower())
    assert len(await Keygen(nodes=nodes, t=2).run()) == 3


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("nonsense", 200, NodeCode.PARSE_ERROR),
        (b"\xff", 200, NodeCode.PARSE_ERROR),
        ("[]", 200, NodeCode.INVALID_REQUEST),
        (request("dan_nothing"), 200, NodeCode.METHOD_NOT_FOUND),
        (request("dan_identify"), 200, NodeCode.INVALID_PARAMS),
        (request("dan_health", {"x": "y" * 30_000}), 413, NodeCode.TOO_LARGE),
    ],
    ids=["nonsense", "not utf-8", "batch", "method", "params", "too large"],
)
async def test_a_refused_post_has_a_json_rpc_error(make_devnet, body, status, code):
    """And an HTTP status where HTTP has a word for it."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_request_bytes=20_000))
    found, _, reply = await post(devnet.nodes[0], body)
    assert (found, reply["error"]["code"]) == (status, code)


async def test_a_post_that_a_web_page_could_send_unasked_is_refused(devnet):
    """Only application/json, which makes browsers ask first."""
    body = json.dumps(request("dan_health"))
    _, _, reply = await post(devnet.nodes[0], body, content_type="text/plain")
    assert reply["error"]["code"] == NodeCode.INVALID_REQUEST


async def test_a_post_too_many_is_429(make_devnet):
    """With Retry-After, for clients that know HTTP only."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(requests_per_s=0.5, request_burst=1))
    await post(devnet.nodes[0], request("dan_health"))
    status, headers, reply = await post(devnet.nodes[0], request("dan_health"))
    assert (status, reply["error"]["code"]) == (429, NodeCode.RATE_LIMITED)
    assert int(headers["Retry-After"]) >= 1


async def test_a_node_that_is_full_is_429_too(make_devnet):
    """Also where the method itself says so; the reply has the request's id."""
    devnet = await make_devnet(2, 2, limits=NodeLimits(max_nonces=1))
    await keygen_on(devnet, 2)  # uses one up
    params = {"requestId": "0x" + "00" * 32, "operation": "keygen", "setupHash": "0x" + "00" * 32}
    status, headers, reply = await post(devnet.nodes[0], request("dan_challenge", params, rpc_id=0))
    assert (status, reply["id"], reply["error"]["code"]) == (429, 0, NodeCode.RATE_LIMITED)
    assert int(headers["Retry-After"]) >= 1


# --- stopping ---------------------------------------------------------------------------------------------------------


async def test_a_stopping_node_finishes_what_it_is_working_on(devnet):
    """Within its grace."""
    devnet.faults[0] = Delay(seconds=0.2)
    async with connect(devnet.nodes[0]) as node:
        asked = asyncio.create_task(node.call("dan_health", {}))
        await asyncio.sleep(0.05)
        await devnet.nodes[0].stop()
        assert (await asked)["operator"] == node.operator


async def test_a_stopping_node_takes_nothing_new(devnet):
    """UNAVAILABLE, which tells the client that nothing was done."""
    devnet.faults[0] = Delay(seconds=0.3, times=1)
    async with connect(devnet.nodes[0]) as node:
        asked = asyncio.create_task(node.call("dan_health", {}))
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(devnet.nodes[0].stop())
        await asyncio.sleep(0.05)
        assert await node.code_of("dan_health", {}) == NodeCode.UNAVAILABLE
        await asked
        await stopping


async def test_a_stopped_node_says_goodbye_and_refuses_connections(devnet):
    """Close code 1001, then nobody listens."""
    async with websocket_to(devnet.nodes[0]) as websocket:
        await devnet.nodes[0].stop()
        message = await websocket.receive(timeout=5)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
    with pytest.raises(aiohttp.ClientConnectorError):
        async with websocket_to(devnet.nodes[0]):
            pytest.fail("connected")


async def test_stopping_is_quick_when_nothing_is_going_on(devnet):
    """Open connections do not hold it up."""
    async with connect_all(devnet):
        with assert_runs_under(2):
            await asyncio.gather(*(node.stop() for node in devnet.nodes))

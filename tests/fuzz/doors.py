"""Targets that are open: a node's doors, a gateway's, links between nodes; and the client, whose peers lie to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any
from unittest import mock

import aiohttp
from hypothesis import strategies as st

from dan_async import DanClient, LocalWallet
from dan_async.config import TransportOptions
from dan_async.crypto.hashes import tagged_hash
from dan_async.devnet import Devnet, NodeLimits
from dan_async.devnet.gateway import GatewayLimits
from dan_async.devnet.node.server import NodeMethods
from dan_async.devnet.peers.links import Dialler, LinkKeys, PeerLinks
from dan_async.errors import DanError, NodeCode
from dan_async.protocols import fields
from dan_async.protocols.gateway import Operation
from dan_async.protocols.node import Acknowledgement, final_challenge
from dan_async.transport import HttpTransport, WebSocketTransport
from dan_async.types import OperatorAddress
from tests.devnet.raw_client import Keygen, RpcFaultError, connect_all
from tests.devnet.raw_signing import Signer, text_request
from tests.devnet.test_hostile_bytes import FRAMES, REQUESTS, frame, posted, upgraded
from tests.fuzz.engine import Check, Target, blobs, changed, outcome, places_in, register, rows
from tests.fuzz.targets import VECTORS
from tests.servers import raw_server, read_head
from tests.strategies import json_values

_REPLY_S = 10.0
_ATTEMPTS = 5
_LIMITS = NodeLimits(
    requests_per_s=1e6,
    request_burst=2**20,
    max_nonces=2**20,
    round_s=0.5,
    sign_round_s=1.0,
    sign_quiet_s=1.0,
    handshake_s=1.0,
)

AsyncCheck = Callable[[Any], Awaitable[str]]


def opened(name: str, inputs: Any, seeds: Any = list, **options: Any) -> Any:
    """Register a target whose check is open for as long as the function's context is, on an event loop of its own."""

    def decorate(function: Callable[[], contextlib.AbstractAsyncContextManager[AsyncCheck]]) -> Any:
        @contextlib.contextmanager
        def sync() -> Iterator[Check]:
            with asyncio.Runner() as runner:
                manager = function()
                check = runner.run(manager.__aenter__())
                try:
                    yield lambda value: runner.run(_timed(check, value))
                finally:
                    runner.run(manager.__aexit__(None, None, None))

        register(Target(name, inputs, sync, seeds, **options))
        return function

    return decorate


async def _timed(check: AsyncCheck, value: Any) -> str:
    async with asyncio.timeout(30):
        return await check(value)


class Net:
    """A devnet, a key on it, and requests of every kind that its nodes take, or took."""

    def __init__(self, devnet: Devnet) -> None:
        self.devnet = devnet
        self.url = devnet.nodes[0].url
        self.port = int(self.url.split(":")[2].split("/")[0])
        self.requests: list[str] = []
        self.session = aiohttp.ClientSession()

    async def prepare(self) -> None:
        """Have the client do all it can, and write down what the first node was asked."""
        carry_out = NodeMethods.call
        asked: dict[str, str] = {}

        async def call(methods: NodeMethods, method: str, params: dict[str, Any], address: str) -> Any:
            if methods._context.identity.operator == self.devnet.nodes[0].operator:
                asked[f"{method} {params.get('operation', '')} {'nonces' in params}"] = self._add(
                    method, params
                )
            return await carry_out(methods, method, params, address)

        wallet = LocalWallet("0x" + "00" * 31 + "01")
        with mock.patch.object(NodeMethods, "call", call):
            async with DanClient(self.devnet) as dan:
                session = await dan.generate_session_key(
                    wallet=wallet, chain_id=1, threshold=3, parties_number=3
                )
                for text in ("hello", "again"):
                    await dan.sign_message(text, session)
                await dan.add_ephemeral_key(session, wallet=wallet)
                await dan.revoke_ephemeral_key(session, wallet=wallet)
            async with connect_all(self.devnet) as nodes:
                keygen = Keygen(nodes=nodes, t=2)
                signer = await Signer.after(keygen)
                await signer.send(signer.sign_params(signer.setup([text_request()])))
        self.requests += asked.values()
        params = json.loads(fields.encode(keygen.params))
        params["userAuthentication"] |= {"method": "passkey", "credentials": "", "signature": "{}"}
        self.requests.append(self._add("dan_register_passkey", params | {"setup": "{}"}))
        keys = {
            "requestId": keygen.request_id,
            "ephPK": "0x04" + "00" * 64,
            "signAlg": "secp256k1",
            "signature": "0x",
        }
        self.requests.append(self._add("dan_settle_keygen", keys))
        self.requests.append(self._add("dan_health", {}))

    def _add(self, method: str, params: dict[str, Any]) -> str:
        return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})

    async def check_health(self) -> None:
        url = self.url.replace("ws:", "http:")
        async with self.session.post(
            url, data=posted_health(), headers={"Content-Type": "application/json"}
        ) as got:
            assert (await got.json())["result"]["operator"] == self.devnet.nodes[0].operator


def posted_health() -> bytes:
    return b'{"jsonrpc":"2.0","id":1,"method":"dan_health","params":{}}'


@contextlib.asynccontextmanager
async def network() -> AsyncIterator[Net]:
    async with Devnet(2, 3, limits=_LIMITS, gateway=False) as devnet:
        net = Net(devnet)
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    await net.prepare()
                    break
                except* (DanError, RpcFaultError):  # the nodes are hasty, and the machine may be busy
                    if attempt == _ATTEMPTS - 1:
                        raise
            yield net
        finally:
            await net.session.close()


def check_reply(text: str) -> str:
    """A reply is JSON-RPC, its code is one of the protocol's, and the node has not failed."""
    reply = json.loads(text)
    assert reply["jsonrpc"] == "2.0"
    assert ("error" in reply) != ("result" in reply)
    if "result" in reply:
        return "result"
    code = NodeCode(reply["error"]["code"])
    assert code is not NodeCode.INTERNAL_ERROR, text
    return f"{code.name} {str(reply['error'].get('data', ''))[:30]}"


# --- a node's doors ---------------------------------------------------------------------------------------------------


_VALUES = json_values().map(json.dumps) | st.sampled_from(["drop", "twice", '"0x"', '"' + "00" * 32 + '"'])


def _requests(kept: Sequence[Any]) -> st.SearchStrategy[list[str]]:
    """The number of one of the living network's own requests; then places in it, and what to put there."""
    changes = st.lists(st.tuples(st.integers(0, 200).map(str), _VALUES), max_size=3)
    drawn = st.builds(lambda number, pairs: [str(number), *sum(pairs, ())], st.integers(0, 15), changes)
    return drawn | rows(kept) if kept else drawn


def _without(value: dict[str, Any], *, name: str) -> dict[str, Any]:
    return {key: inner for key, inner in value.items() if key != name}


def _instead(old: Any, *, new: Any) -> Any:
    return [old, old] if new == ["twice", "twice"] else new


def _request(net: Net, row: list[str]) -> str:
    """Make the request that a row stands for; anything else in the row's place is sent as it is."""
    number, *changes = row or [""]
    if not number.isdecimal() or len(number) > 3:
        return number
    text = net.requests[int(number) % len(net.requests)]
    for place, new in zip(changes[::2], changes[1::2], strict=False):
        try:
            value = json.loads(text)
            places = list(places_in(value))
            path = places[-1 - int(place) % len(places)]  # the deepest are drawn most
            if new == "drop" and path and isinstance(path[-1], str):
                text = json.dumps(changed(value, path[:-1], partial(_without, name=path[-1])))
            else:
                inserted = ["twice", "twice"] if new in {"drop", "twice"} else json.loads(new)
                text = json.dumps(changed(value, path, partial(_instead, new=inserted)))
        except (ValueError, RecursionError):
            return text
    return text


@opened("node-websocket", _requests)
@contextlib.asynccontextmanager
async def _node_websocket() -> AsyncIterator[AsyncCheck]:
    """Each request has one reply, or the connection closes with a code."""
    async with network() as net:
        sockets: list[aiohttp.ClientWebSocketResponse] = []

        async def check(row: list[str]) -> str:
            if not sockets or sockets[-1].closed:
                sockets.append(await net.session.ws_connect(net.url))
            socket = sockets[-1]
            text = _request(net, row)
            await socket.send_frame(text.encode("utf-8", "surrogatepass"), aiohttp.WSMsgType.TEXT)
            message = await socket.receive(timeout=_REPLY_S)
            if message.type is aiohttp.WSMsgType.TEXT:
                return check_reply(message.data)
            assert message.type is aiohttp.WSMsgType.CLOSE, message
            assert message.data in {1007, 1009}, message
            await net.check_health()
            return f"closed {message.data}"

        yield check


@opened("node-post", _requests)
@contextlib.asynccontextmanager
async def _node_post() -> AsyncIterator[AsyncCheck]:
    async with network() as net:
        url = net.url.replace("ws:", "http:")

        async def check(row: list[str]) -> str:
            body = _request(net, row).encode("utf-8", "surrogatepass")
            async with net.session.post(url, data=body, headers={"Content-Type": "application/json"}) as got:
                assert got.status in {200, 413, 429}
                return f"{got.status} {check_reply(await got.text())}"

        yield check


async def _sent(port: int, data: bytes) -> str:
    """Send bytes and end; return how the server ended: it must, and soon."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        got = b""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.02):
                    got = await reader.read(65536)
            with contextlib.suppress(OSError):
                writer.write_eof()
            async with asyncio.timeout(_REPLY_S):
                got += await reader.read()
        except ConnectionResetError:
            return "reset"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if not got:
        return "nothing"
    assert got.startswith(b"HTTP/"), got[:100]  # also 0.9, to a request that names no version
    status = int(got.split()[1])
    assert status != 500, got
    return f"{status} {got.count(b'HTTP/')} {got[-4:-2].hex() if status == 101 else ''}"


def _byte_seeds() -> list[bytes]:
    requests = [data for data, _ in REQUESTS.values() if len(data) < 1000]
    sockets = [upgraded(body=data) for data, _ in FRAMES.values()]
    good = [posted(posted_health()), upgraded(body=frame(0x81, posted_health())), upgraded(path=b"/v1/peer")]
    gateway = [upgraded(path=b"/v1/keygen", body=frame(0x81, b"{}"))]
    return requests + sockets + good + gateway


@opened("node-bytes", blobs, _byte_seeds)
@contextlib.asynccontextmanager
async def _node_bytes() -> AsyncIterator[AsyncCheck]:
    """Bytes at a node's port: an answer of HTTP, or none, and the node goes on."""
    async with network() as net:
        count = 0

        async def check(data: bytes) -> str:
            nonlocal count
            count += 1
            if count % 50 == 0:
                await net.check_health()
            return await _sent(net.port, data)

        yield check


# --- a gateway --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _gateway() -> AsyncIterator[tuple[Net, str]]:
    async with network() as net:
        url = await net.devnet.add_gateway(
            limits=GatewayLimits(first_frame_s=0.5, wallet_s=0.5, operation_s=1.0)
        )
        yield net, url.removesuffix("/v1")


@opened("gateway-bytes", blobs, _byte_seeds)
@contextlib.asynccontextmanager
async def _gateway_bytes() -> AsyncIterator[AsyncCheck]:
    async with _gateway() as (_, url):
        port = int(url.split(":")[2].split("/")[0])
        yield lambda data: _sent(port, data.replace(b"/v1/rpc", b"/v1/signgen"))


def _gateway_seeds() -> list[Any]:
    return [
        [case["inputs"].get("api_version", "v1") + "/" + case["operation"], *case["frames"]]
        for case in VECTORS
        if sum(map(len, case["frames"])) < 4000
    ]


@opened("gateway-operations", rows, _gateway_seeds, is_kept=False)
@contextlib.asynccontextmanager
async def _gateway_operations() -> AsyncIterator[AsyncCheck]:
    """Frames of a client: an answer, and a close code that says why there is no other."""
    async with _gateway() as (net, url):
        known = {f"{version}/{operation}" for version in ("v1", "v2") for operation in Operation}

        async def check(row: list[str]) -> str:
            path, *frames = row or [""]
            if path not in known:
                return "no operation"
            said = ""
            async with net.session.ws_connect(f"{url}/{path}") as socket:
                for text in [*frames, None]:
                    if text is not None:
                        await socket.send_frame(text.encode("utf-8", "surrogatepass"), aiohttp.WSMsgType.TEXT)
                    message = await socket.receive(timeout=_REPLY_S)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    said += "text "
            assert message.type is aiohttp.WSMsgType.CLOSE or said, message
            code = socket.close_code
            assert code in {1000, 1007, 1009, 4400, 4403, 4408, 4502, None}, code
            return (
                f"{said}{code} {str(message.extra)[:40] if message.type is aiohttp.WSMsgType.CLOSE else ''}"
            )

        yield check


# --- between nodes ----------------------------------------------------------------------------------------------------


class Impostor:
    """The third node's identity in a stranger's hands: a link to the first node, and what comes over it."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.peer = net.devnet.nodes[0]
        self.identity = net.devnet.nodes[2]._runner._config.identity  # type: ignore[attr-defined]
        self.socket: aiohttp.ClientWebSocketResponse | None = None
        self.keys: LinkKeys | None = None

    async def link(self) -> None:
        if self.socket is not None and not self.socket.closed:
            return
        dialler = Dialler(self.identity, self.peer.operator)
        self.socket = await self.net.session.ws_connect(self.peer.url.replace("/v1/rpc", "/v1/peer"))
        await self.socket.send_bytes(dialler.hello())
        finish, self.keys = dialler.finish((await self.socket.receive(timeout=_REPLY_S)).data)
        await self.socket.send_bytes(finish)

    async def send(self, data: bytes) -> bool:
        assert self.socket is not None
        assert self.keys is not None
        try:
            await self.socket.send_bytes(self.keys.sending.seal(data))
        except ConnectionError:
            return False
        return True

    async def receive(self, timeout_s: float) -> bytes | None:
        assert self.socket is not None
        assert self.keys is not None
        try:
            message = await self.socket.receive(timeout=timeout_s)
        except TimeoutError:
            return None
        return self.keys.receiving.open(message.data) if message.type is aiohttp.WSMsgType.BINARY else b""


def _peer_seeds() -> list[Any]:
    kinds = [bytes([kind]) + bytes(32) + bytes([number]) for kind in range(1, 7) for number in (0, 1, 2)]
    bodies = [b"", bytes(33), b"\x01" + bytes(32) + bytes(100), b'{"reason":"x","culprits":[1]}', bytes(300)]
    return [
        [kind + body, kinds[index - 1] + bodies[0]] for index, kind in enumerate(kinds) for body in bodies
    ]


@opened("peer-links", rows, _peer_seeds)
@contextlib.asynccontextmanager
async def _peer_links() -> AsyncIterator[AsyncCheck]:
    """Frames from a peer, outside of every session and in one of its own: the node closes the link, or goes on."""
    async with network() as net:
        await net.devnet.nodes[2].stop()
        impostor = Impostor(net)

        async def check(row: list[bytes]) -> str:
            await impostor.link()
            for data in row:
                if not await impostor.send(data[:1000]):
                    break
            heard = await impostor.receive(0.001)
            await net.check_health()
            return f"heard {None if heard is None else heard[:1].hex()}"

        yield check


def _session_seeds() -> list[Any]:
    return [
        [bytes([1, 1]) + bytes(200), bytes([1, 2]) + bytes(200)],
        [bytes([2, 0]) + b'{"reason":"x","culprits":[1],"complaint":null}'],
        [bytes([6, 0])],
        [bytes([1, 1]) + bytes(32)] * 3,
    ]


@opened("peer-sessions", rows, _session_seeds, is_kept=False)
@contextlib.asynccontextmanager
async def _peer_sessions() -> AsyncIterator[AsyncCheck]:
    """A key generation with a peer that sends anything under its id: it fails as the protocol says, and in time."""
    async with network() as net, connect_all(net.devnet) as nodes:
        await net.devnet.nodes[2].stop()
        impostor = Impostor(net)
        node = next(raw for raw in nodes if raw.operator == net.devnet.nodes[0].operator)

        async def check(row: list[bytes]) -> str:
            await impostor.link()
            keygen = Keygen(nodes=nodes, t=2)
            own = (await node.call("dan_challenge", keygen.challenge_params()))["nonce"]
            other = next(raw for raw in nodes if raw.operator == net.devnet.nodes[1].operator)
            others = (await other.call("dan_challenge", keygen.challenge_params()))["nonce"]
            known = {node.operator: own, other.operator: others}
            nonces = [bytes.fromhex(known.get(raw.operator, "0x" + "00" * 32)[2:]) for raw in nodes]
            params = fields.encode(keygen.sign(nonces))
            also = asyncio.create_task(other.call("dan_keygen", params))
            asked = asyncio.create_task(node.call("dan_keygen", params))
            challenge = final_challenge(
                operation="keygen",
                request_id=keygen.request_id,
                setup_digest=keygen.digest,
                participants=keygen.participants,
                nonces=nonces,
            )
            members = [bytes.fromhex(operator[2:]) for operator in keygen.participants]
            session_id = tagged_hash("dan-node/1 session", challenge, *members)
            for data in row:
                head, body = data[:2].ljust(2, b"\0"), data[2:]
                await impostor.send(head[:1] + session_id + head[1:] + body)
            error, _ = await asyncio.gather(asked, also, return_exceptions=True)
            code = NodeCode(error.code)
            assert code is not NodeCode.INTERNAL_ERROR
            return f"{code.name} {str(error)[:60]}"

        yield check


def _lied(frame: bytes, changes: Sequence[bytes], number: int) -> bytes:
    """The frame of that number with the changes that are meant for it: which, where, how, and the bytes."""
    for change in changes:
        which, where, how, new = change[0], change[1], change[2], change[3:]
        if which % 12 != number % 12:
            continue
        at = where % 34 if how >= 224 else 34 + where * (len(frame) - 34) // 256  # mostly in the body
        end = at + (len(new), 0, 1, len(frame))[how % 4]
        frame = frame[:at] + new + frame[end:]
    return frame


def _lies(kept: Sequence[Any]) -> st.SearchStrategy[list[bytes]]:
    change = st.tuples(st.binary(min_size=3, max_size=3), st.binary(max_size=40)).map(b"".join)
    return st.lists(change, min_size=1, max_size=2)


@opened("peer-rounds", _lies, is_kept=False)
@contextlib.asynccontextmanager
async def _peer_rounds() -> AsyncIterator[AsyncCheck]:
    """
    A key generation, a presignature and a signature of real nodes, one of which sends other bytes than it should.

    Each node's answer is a result or an error of the protocol.
    """
    changes: list[bytes] = []
    sent = used = 0
    is_banned = False
    liar = ""
    send = PeerLinks.send

    def lie(links: PeerLinks, peer: OperatorAddress, frame: bytes) -> bool:
        nonlocal sent
        if links._identity.operator == liar:
            sent += 1
            frame = _lied(frame, changes, sent)
        return send(links, peer, frame)

    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(mock.patch.object(PeerLinks, "send", lie))
        current = contextlib.AsyncExitStack()
        nodes: list[Any] = []

        async def check(row: list[bytes]) -> str:
            nonlocal changes, sent, used, liar, nodes, current, is_banned
            if used % 20 == 0 or is_banned:  # for good
                await current.aclose()
                changes, current = [], contextlib.AsyncExitStack()
                devnet = await current.enter_async_context(Devnet(2, 3, limits=_LIMITS, gateway=False))
                nodes = await current.enter_async_context(connect_all(devnet))
                liar = nodes[used % 3].operator
            used += 1
            changes, sent = row, 0
            keygen = Keygen(nodes=nodes, t=2)
            params = fields.encode(await keygen.prepare())
            made = await asyncio.gather(
                *(n.call("dan_keygen", params) for n in nodes), return_exceptions=True
            )
            said = [_answer(each) for each in made]
            acknowledged = [each for each in made if isinstance(each, dict)]
            if acknowledged:
                ack = Acknowledgement.read_whole(acknowledged[0])
                signer = Signer(
                    nodes=nodes,
                    ack=ack,
                    key=keygen.key,
                    eph_id=keygen.claim.eph_id,
                    owner=keygen.signer.operator,
                )
                chosen = [0, 1] if liar in signer.signers([0, 1]) else [1, 2]
                request = signer.sign_params(signer.setup([text_request()]), chosen)
                text = fields.encode(request)
                signed = await asyncio.gather(
                    *(n.call("dan_sign", text) for n in signer.chosen(request.signers)),
                    return_exceptions=True,
                )
                said += [_answer(each) for each in signed]
                is_banned = any("FAILED" in each for each in said)
            return " ".join(said)[:160]

        try:
            yield check
        finally:
            await current.aclose()


def _answer(made: Any) -> str:
    if isinstance(made, dict):
        return "made"
    assert isinstance(made, RpcFaultError), repr(made)
    code = NodeCode(made.code)
    assert code is not NodeCode.INTERNAL_ERROR, made
    return f"{code.name}: {re.sub('[0-9]+', '', str(made.args[0]))[-60:]}"


# --- the client -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _client(make: Callable[[int], Any], head: bytes) -> AsyncIterator[AsyncCheck]:
    """A transport whose server sends these bytes: an error of ours within the time given, or a reply."""
    sent = [b""]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_head(reader)
        if head:
            key = next(line for line in request.split("\r\n") if line.lower().startswith("sec-websocket-key"))
            writer.write(head % accept_of(key.split(": ")[1]))
            await asyncio.sleep(0)
        writer.write(sent[0])
        await writer.drain()
        writer.write_eof()

    async with raw_server(script) as port:

        async def check(data: bytes) -> str:
            sent[0] = data
            transport = make(port)
            try:
                await transport.call("m", "{}", timeout_s=2.0)
            except DanError as error:
                return outcome(error)
            finally:
                await transport.aclose()
            return "reply"

        yield check


def accept_of(key: str) -> bytes:
    """What a server answers to a key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())


_OPTIONS = TransportOptions(max_message_bytes=65536)
_UPGRADE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
_REPLY = b'{"jsonrpc":"2.0","id":1,"result":1}'


def _from_server(kind: int, payload: bytes) -> bytes:
    size = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + struct.pack(">H", len(payload))
    return bytes([kind]) + size + payload


def _answer_seeds() -> list[bytes]:
    heads = [
        b"200 OK",
        b"503 Busy\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT",
        b"302 Found\r\nLocation: http://a/",
    ]
    more = [b"", b"\r\nContent-Encoding: gzip", b"\r\nTransfer-Encoding: chunked", b"\r\nSet-Cookie: a=b"]
    length = b"\r\nContent-Length: %d\r\n\r\n" % len(_REPLY)
    return [b"HTTP/1.1 " + head + each + length + _REPLY for head in heads for each in more]


@opened("client-http", blobs, _answer_seeds)
def _client_http() -> Any:
    return _client(lambda port: HttpTransport(f"http://127.0.0.1:{port}/v1/rpc", options=_OPTIONS), b"")


@opened("client-upgrade", blobs, _answer_seeds)
def _client_upgrade() -> Any:
    return _client(lambda port: WebSocketTransport(f"ws://127.0.0.1:{port}/v1/rpc", options=_OPTIONS), b"")


def _frame_seeds() -> list[bytes]:
    kinds = [0x81, 0x01, 0x80, 0x82, 0x88, 0x89, 0x8A, 0xC1]
    return [
        _from_server(kind, payload) for kind in kinds for payload in (_REPLY, b"\x03\xe8bye", b"", b"x" * 300)
    ]


@opened("client-frames", blobs, _frame_seeds)
def _client_frames() -> Any:
    return _client(
        lambda port: WebSocketTransport(f"ws://127.0.0.1:{port}/v1/rpc", options=_OPTIONS), _UPGRADE
    )

"""A node: dan-node/1 over WebSocket and POST at /v1/rpc, links to its peers at /v1/peer."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any

from aiohttp import WSCloseCode, web

from dan_async.deadline import cancel_and_wait
from dan_async.devnet.context import NodeContext, RateLimit
from dan_async.devnet.faults.kinds import NodeCrashed, RequestDropped
from dan_async.devnet.faults.lies import SpoiltResponse
from dan_async.devnet.listening import CLOSE_S, Arrivals, Door, place_of
from dan_async.devnet.node.changes import OwnerChanges
from dan_async.devnet.node.checks import read_request
from dan_async.devnet.node.keygen import KeygenService
from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.node.passkeys import PasskeyRegistry
from dan_async.devnet.node.requests import NonceStore
from dan_async.devnet.node.rpc import (
    RefusalError,
    RpcConnection,
    encode_error,
    encode_result,
    invalid_params,
    rate_limited,
    read_request_text,
)
from dan_async.devnet.node.signing import NodeSigning
from dan_async.devnet.peers.links import PeerLinks
from dan_async.devnet.peers.sessions import Kind, PeerMessage, PeerSessions
from dan_async.errors import TIME_CODES, InvalidFieldError, NodeCode
from dan_async.protocols.fields import decode, to_json
from dan_async.protocols.node import (
    CERTIFY_KEYGEN,
    CHANGES,
    KEYGEN_BATCH,
    METHODS,
    PRESIGN,
    PROTOCOL,
    REGISTER_PASSKEY,
    SETTLE_KEYGEN,
    SIGN,
    ChallengeParams,
    IdentifyParams,
    Identity,
    KeygenBatchParams,
    KeygenBatchResult,
    KeygenParams,
    identity_digest,
)
from dan_async.types import Json, OperatorAddress

_log = logging.getLogger(__name__)

RPC_PATH = "/v1/rpc"
PEER_PATH = "/v1/peer"

#: How long a client may take to send the headers of a request, and how long to send its body, in seconds.
_REQUEST_S = 10.0

#: All requests in flight by POST may be as long as those of so many connections.
_MOST_POSTED = 8

#: HTTP status of a refused POST where HTTP has a word for it; every other reply is 200, and the body is JSON-RPC always.
_STATUSES = {NodeCode.TOO_LARGE: 413, NodeCode.RATE_LIMITED: 429, NodeCode.UNAVAILABLE: 503}

Handler = Callable[[dict[str, Json]], Awaitable[Json]]


class NodeMethods:
    """The RPC methods of a node, and the services behind them: parameters in, result out, whatever carries them."""

    def __init__(self, context: NodeContext, links: PeerLinks, sessions: PeerSessions) -> None:
        self._context = context
        self.ring = ring = KeyRing(context.store)
        self.passkeys = passkeys = PasskeyRegistry(context.store)
        self._nonces = nonces = NonceStore(context, ring)
        self.signing = NodeSigning(context, ring=ring, links=links, sessions=sessions, nonces=nonces)
        self.keygen = KeygenService(
            context=context,
            links=links,
            sessions=sessions,
            ring=ring,
            nonces=nonces,
            passkeys=passkeys,
            on_made=self.signing.setups.prepare,
        )
        self._changes = OwnerChanges(
            context=context,
            ring=ring,
            nonces=nonces,
            passkeys=passkeys,
            on_revoked=self.signing.stock.discard,
        )
        self._handlers: dict[str, Handler] = {
            "dan_identify": self._identify,
            "dan_challenge": self._challenge,
            "dan_keygen": self._generate,
            KEYGEN_BATCH: self._generate_batch,
            "dan_health": self._health,
            METHODS[REGISTER_PASSKEY]: self._register,
            PRESIGN: self.signing.presign,
            SIGN: self.signing.sign,
            CERTIFY_KEYGEN: self.keygen.certify,
            **{method: partial(self._change, operation) for operation, method in CHANGES.items()},
        }

    async def call(self, method: str, params: dict[str, Json], address: str) -> Json:
        """Carry out one request of a client at some address; under a fault, there may be no answer, or no node."""
        handler = self._handlers.get(method)
        if method == SETTLE_KEYGEN:
            handler = partial(self.keygen.settle, address=address)
        if handler is None:
            raise RefusalError(NodeCode.METHOD_NOT_FOUND, "there is no such method")
        try:
            await self._context.faults.before_work(method)
            result = await handler(params)
            self._context.faults.before_reply(method)
        except InvalidFieldError as error:
            raise invalid_params(error) from error
        except RefusalError as refusal:
            if refusal.code in TIME_CODES and refusal.data.get("reason", "expired") == "expired":
                refusal.data["time"] = self._time_ms()
            raise
        except (RequestDropped, NodeCrashed):
            raise
        except Exception as error:
            _log.error("%s: %s", method, place_of(error))
            raise RefusalError(NodeCode.INTERNAL_ERROR, "the node has failed") from error
        return result

    async def _identify(self, params: dict[str, Json]) -> Json:
        operator, time_ms = self._context.identity.operator, self._time_ms()
        nonce = decode(IdentifyParams, params).nonce
        digest = identity_digest(operator=operator, nonce=nonce, time_ms=time_ms)
        signature = self._context.identity.sign(digest)
        return to_json(Identity(operator=operator, time_ms=time_ms, signature=signature))

    def _time_ms(self) -> int:
        return int(self._context.clock() * 1000)

    async def _challenge(self, params: dict[str, Json]) -> Json:
        return to_json(self._nonces.issue(decode(ChallengeParams, params)))

    async def _generate(self, params: dict[str, Json]) -> Json:
        request = await self._read(params)
        acknowledgement = await self.keygen.keygen(request)
        owner_id = request.user_authentication.id
        sent = self._context.faults.forge(acknowledgement, self._context.identity.sign, owner_id=owner_id)
        return to_json(sent)

    async def _generate_batch(self, params: dict[str, Json]) -> Json:
        batch = decode(KeygenBatchParams, params).keygens
        for request in batch:
            await self._changes.prepare(request)
        made = await self.keygen.keygen_batch(batch)
        faults, sign = self._context.faults, self._context.identity.sign
        sent = [
            faults.forge(acknowledgement, sign, owner_id=request.user_authentication.id)
            for acknowledgement, request in zip(made, batch, strict=True)
        ]
        return to_json(KeygenBatchResult(acknowledgements=tuple(sent)))

    async def _change(self, operation: str, params: dict[str, Json]) -> Json:
        receipt = await self._changes.change(operation, await self._read(params))
        sign = self._context.identity.sign
        return to_json(self._context.faults.forge_receipt(CHANGES[operation], receipt, sign))

    async def _register(self, params: dict[str, Json]) -> Json:
        return to_json(await self._changes.register(await self._read(params)))

    async def _read(self, params: dict[str, Json]) -> KeygenParams:
        request = read_request(params)
        await self._changes.prepare(request)
        return request

    async def _health(self, params: dict[str, Json]) -> Json:
        if params:
            raise InvalidFieldError("params", "must be an empty object")
        return {"protocol": PROTOCOL, "operator": self._context.identity.operator, "time": self._time_ms()}


class NodeServer:
    """One running node. ``start`` once, ``stop`` once; a restart is a new object over the same store."""

    def __init__(
        self,
        context: NodeContext,
        roster: Mapping[OperatorAddress, str],
        *,
        allow_origins: Collection[str] = (),
    ) -> None:
        self._context = context
        self._allow_origins = allow_origins
        self._faults = context.faults
        limits = self._limits = context.limits
        self._links = PeerLinks(
            context.identity, roster, on_frame=self._on_frame, on_linked=self._on_linked, limits=limits
        )
        self._sessions = PeerSessions(
            self._links,
            early_s=limits.early_message_s,
            early_bytes=limits.max_peer_queue_bytes,
            beat_s=limits.sign_quiet_s / 5,
        )
        self._methods = methods = NodeMethods(context, self._links, self._sessions)
        self.ring, self.signing, self._keygen = methods.ring, methods.signing, methods.keygen
        self._rate = RateLimit(limits.requests_per_s, limits.request_burst, clock=time.monotonic)
        self._connections: dict[RpcConnection, asyncio.Task[None]] = {}
        self._posts: dict[asyncio.Task[Any], int] = {}  # and how long each may be
        #: The requests by POST whose body has not come, the oldest first.
        self._arriving: dict[asyncio.Task[Any], asyncio.Transport] = {}
        self._is_stopping = False
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None

    async def start(self, listener: socket.socket) -> None:
        """Load what is stored and begin to listen at a bound socket, which ``stop`` closes."""
        for load in (
            self.ring.load,
            self._methods.passkeys.load,
            self.signing.pairs.load,
            self._keygen.load,
        ):
            await self._context.workers.use_disk(load)
        app = web.Application(client_max_size=self._limits.max_request_bytes)
        app.router.add_get(RPC_PATH, self._serve_websocket)
        app.router.add_post(RPC_PATH, self._serve_post)
        app.router.add_get(PEER_PATH, self._serve_peer)
        arrivals = Arrivals(self._limits.max_connections, _REQUEST_S, self._allow_origins)
        self._runner = await arrivals.serve(app)
        self._links.start()
        self._door = Door(self._runner, listener, arrivals, on_shut=self._shut_out)
        await self._door.start(is_open=not self._faults.is_refusing)
        self._faults.watch(self._faults_changed)
        _log.info("node %s listens; keys held: %d", self._context.identity.operator, len(self.ring))

    async def stop(self, *, abrupt: bool = False) -> None:
        """Stop listening, finish requests as far as time allows, and close everything; *abrupt* gives up at once."""
        self._is_stopping = True
        if self._door is not None:
            self._faults.watch(None)
            await self._door.aclose()
        if abrupt:
            self._links.abort()
            await cancel_and_wait([*self._connections.values(), *self._posts])
        else:
            await self._drain()
        await self._keygen.aclose()
        await self.signing.aclose()
        await self._sessions.aclose()
        await self._close_connections()
        await self._links.aclose()
        if self._runner is not None:
            await self._runner.cleanup()
        self._context.store.close()

    async def _drain(self) -> None:
        for connection in self._connections:
            connection.refuse_new()
        in_flight = {task for connection in self._connections for task in connection.requests}
        in_flight |= self._posts.keys()
        if in_flight:
            _, late = await asyncio.wait(in_flight, timeout=self._limits.stop_grace_s)
            if late:
                await self._keygen.aclose()  # callers that wait for a key get an error
                await self.signing.give_up()
                await asyncio.wait(late, timeout=CLOSE_S)

    async def _close_connections(self) -> None:
        tasks = list(self._connections.values())
        await asyncio.gather(
            *(connection.aclose(WSCloseCode.GOING_AWAY) for connection in list(self._connections))
        )
        await cancel_and_wait([*tasks, *self._posts])

    # --- faults -------------------------------------------------------------------------------------------------------

    def _faults_changed(self) -> None:
        if self._door is not None:
            self._door.set_open(not self._faults.is_refusing)
        if self._faults.cuts_clients:
            for connection in self._connections:
                connection.cut()

    def _shut_out(self) -> None:
        """Cut what had come in, if that is the fault in force."""
        if self._faults.is_refusing and self._runner is not None and self._runner.server is not None:
            for handler in self._runner.server.connections:  # other nodes' too, and idle ones
                if handler.transport is not None:
                    handler.transport.abort()

    def _turned_away(self) -> web.Response | None:
        refusal = self._faults.turn_away()
        if refusal is None:
            return None
        headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
        return web.Response(status=refusal.status, headers=headers)

    # --- peers --------------------------------------------------------------------------------------------------------

    def _on_frame(self, peer: OperatorAddress, frame: bytes) -> None:
        message = PeerMessage.decode(frame)
        if message.kind is Kind.CERTIFICATE:
            self._keygen.on_certificate(peer, message)
            return
        if message.kind is not Kind.PAIR_STATUS:
            self._sessions.on_message(peer, message)
        self.signing.setups.on_message(peer, message)

    def _on_linked(self, peer: OperatorAddress) -> None:
        self._sessions.resend(peer)
        self.signing.setups.on_linked(peer)

    async def _serve_peer(self, request: web.Request) -> web.StreamResponse:
        if self._is_stopping or "Origin" in request.headers:  # no page is a peer, of whichever origin
            return web.Response(status=403)
        websocket = self._websocket(self._limits.max_peer_frame_bytes + 64)
        await websocket.prepare(request)
        await self._links.accept(websocket)
        return websocket

    # --- clients ------------------------------------------------------------------------------------------------------

    async def _serve_websocket(self, request: web.Request) -> web.StreamResponse:
        if self._is_stopping or not self._has_place():
            return web.Response(status=503, headers={"Retry-After": "1"})
        if (turned_away := self._turned_away()) is not None:
            return turned_away
        websocket = self._websocket(2 * self._limits.max_request_bytes)
        await websocket.prepare(request)
        connection = RpcConnection(
            websocket=websocket,
            transport=request.transport,
            address=request.remote or "",
            answer=self._methods.call,
            rate=self._rate,
            context=self._context,
        )
        self._connections[connection] = _current_task()
        try:
            await connection.run()
        finally:
            self._connections.pop(connection, None)
        return websocket

    def _has_place(self) -> bool:
        """Whether one more client may connect; if need be the one goes that has been idle longest."""
        if len(self._connections) < self._limits.max_connections:
            return True
        idle = [connection for connection in self._connections if not connection.requests]
        if idle:
            silent = min(idle, key=lambda connection: connection.asked_at)
            silent.cut()
            del self._connections[silent]
        return bool(idle)

    async def _serve_post(self, request: web.Request) -> web.StreamResponse:
        task = _current_task()
        most, length = self._limits.max_request_bytes, request.content_length
        self._posts[task] = most if length is None else min(most, length)
        try:
            return self._turned_away() or await self._answer_post(request)
        finally:
            self._posts.pop(task, None)

    async def _answer_post(self, request: web.Request) -> web.StreamResponse:
        rpc_id = None
        method = ""
        try:
            self._admit_post(request)
            parsed = await read_request_text(self._context, await self._read_body(request))
            rpc_id, method = parsed.id, parsed.method
            result = await self._methods.call(method, parsed.params, request.remote or "")
            return await self._reply(request, method, _json(200, encode_result(parsed.id, result)))
        except web.HTTPRequestEntityTooLarge:
            limit = self._limits.max_request_bytes
            refusal = RefusalError(NodeCode.TOO_LARGE, f"a request may be {limit} bytes long")
        except (TimeoutError, ConnectionError, web.RequestPayloadError):
            refusal = RefusalError(NodeCode.INVALID_REQUEST, "the request did not arrive whole, and in time")
        except RefusalError as error:
            refusal = error
        except (RequestDropped, NodeCrashed) as fault:
            if isinstance(fault, NodeCrashed):
                self._context.on_crash(fault.restart_after)
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        status = _STATUSES.get(refusal.code, 200)
        retry_after = refusal.data.get("retryAfter")
        headers = {"Retry-After": str(retry_after)} if retry_after else {}
        shown_id = rpc_id if refusal.rpc_id is None else refusal.rpc_id
        return await self._reply(request, method, _json(status, encode_error(shown_id, refusal), headers))

    async def _reply(self, request: web.Request, method: str, response: web.Response) -> web.Response:
        fault = self._faults.spoil_reply(method) if method else None
        if fault is not None and request.transport is not None:
            await fault.spoil(
                SpoiltResponse(
                    request.transport,
                    response.text or "",
                    is_over=lambda: self._is_stopping or not self._faults.is_in_force(fault),
                )
            )
        return response

    def _admit_post(self, request: web.Request) -> None:
        # A web page may send other types to any host without asking it first.
        if request.content_type != "application/json":
            raise RefusalError(NodeCode.INVALID_REQUEST, "Content-Type must be application/json")
        if self._is_stopping:
            raise RefusalError(NodeCode.UNAVAILABLE, "the node is stopping", data={"retryAfter": 1})
        wait_s = self._rate.take(request.remote or "")
        if wait_s:
            raise rate_limited("too many requests from this address", wait_s)
        while self._has_too_many_posts():
            if not self._arriving:
                raise rate_limited("too many requests in flight", 1.0)
            oldest = next(iter(self._arriving))  # those who hold their requests back keep nobody out
            del self._posts[oldest]
            self._arriving.pop(oldest).abort()

    def _has_too_many_posts(self) -> bool:
        too_many_bytes = sum(self._posts.values()) > _MOST_POSTED * self._limits.max_in_flight_bytes
        return too_many_bytes or len(self._posts) > self._limits.max_in_flight

    async def _read_body(self, request: web.Request) -> bytes:
        task, transport = _current_task(), request.transport
        if transport is None:
            raise ConnectionResetError("the client left")
        self._arriving[task] = transport
        try:
            async with asyncio.timeout(_REQUEST_S):
                return await request.read()
        finally:
            self._arriving.pop(task, None)

    @staticmethod
    def _websocket(longest: int) -> web.WebSocketResponse:
        return web.WebSocketResponse(autoping=False, compress=False, max_msg_size=longest, timeout=CLOSE_S)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _json(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text, content_type="application/json", headers=headers)

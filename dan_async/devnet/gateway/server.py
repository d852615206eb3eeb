"""
The devnet's gateway: the public clients' protocol in every revision, in front of the nodes.

It is a relay and is trusted for nothing. The nodes are sent the owner's setup as it came, and check the owner's signature
over a challenge that holds their own nonces; the gateway could refuse, but not forge. Any number of gateways can stand in
front of the same nodes.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
from collections.abc import Callable, Collection
from typing import Any

from aiohttp import WSMsgType, web
from attrs import field, frozen

from dan_async._values import check_int, check_seconds, in_seconds, required
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.devnet.gateway.exchange import serve_exchange
from dan_async.devnet.listening import CLOSE_S, Arrivals, Door
from dan_async.errors import (
    ConfigurationError,
    DanError,
    DeadlineExceededError,
    NodeRefusedError,
    ProtocolError,
    QuorumError,
)
from dan_async.nodes.network import NodeNetwork
from dan_async.protocols.gateway import ApiVersion, Operation

_log = logging.getLogger(__name__)

#: Longest close reason that fits in a WebSocket close frame, in bytes.
_LONGEST_REASON = 120


class CloseCode:
    """Why the gateway closed a connection before its result; 1000 comes after a result."""

    #: The protocol does not allow the frame here.
    BAD_REQUEST = 4400
    #: The nodes refused the owner's authorisation.
    REFUSED = 4403
    #: The client was silent for too long.
    TIMEOUT = 4408
    #: The nodes could not do it.
    NETWORK_FAILED = 4502


@frozen(kw_only=True)
class GatewayLimits:
    """Limits of the gateway."""

    max_frame_bytes: int = field(
        default=1024 * 1024, validator=required(check_int, least=1024, most=64 * 1024 * 1024)
    )
    max_connections: int = field(default=1024, validator=required(check_int, least=1, most=2**20))
    #: Seconds to wait for the first frame; for the owner's authorisation, as a person may be reading; for the nodes' work.
    first_frame_s: float = field(default=10.0, converter=in_seconds, validator=required(check_seconds))
    wallet_s: float = field(default=240.0, converter=in_seconds, validator=required(check_seconds))
    operation_s: float = field(default=60.0, converter=in_seconds, validator=required(check_seconds))


class GatewayServer:
    """One gateway, which closes its network. ``start`` once, ``stop`` once. Clients must show the token, if there is one."""

    def __init__(
        self,
        network: NodeNetwork,
        *,
        token: str | None = None,
        limits: GatewayLimits | None = None,
        allow_origins: Collection[str] = (),
    ) -> None:
        self._network = network
        self._allow_origins = allow_origins
        self._token = token
        self._limits = limits or GatewayLimits()
        self._serving: set[asyncio.Task[Any]] = set()
        #: The connections whose first frame has not come, the oldest first.
        self._silent: dict[asyncio.Transport, None] = {}
        self._runner: web.AppRunner | None = None
        self._door: Door | None = None

    async def start(self, listener: socket.socket) -> None:
        """Begin to listen on a bound socket, which ``stop`` closes."""
        app = web.Application()
        app.router.add_get("/{version:v[12]}/{operation}", self._serve)
        arrivals = Arrivals(self._limits.max_connections, self._limits.first_frame_s, self._allow_origins)
        self._runner = arrivals.runner(app)
        await self._runner.setup()
        self._door = Door(self._runner, listener, arrivals)
        await self._door.start(is_open=True)

    async def stop(self) -> None:
        """Stop listening, give up the operations under way, and close the connections to the nodes."""
        if self._door is not None:
            await self._door.aclose()
        await cancel_and_wait(list(self._serving))
        if self._runner is not None:
            await self._runner.cleanup()
        await self._network.aclose()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        websocket = web.WebSocketResponse(
            compress=False, max_msg_size=self._limits.max_frame_bytes, timeout=CLOSE_S
        )
        await websocket.prepare(request)
        task, transport = asyncio.current_task(), request.transport
        assert task is not None
        if transport is None:
            return websocket
        self._serving.add(task)
        self._silent[transport] = None
        try:
            await self._operate(request, websocket, lambda: self._silent.pop(transport, None))
        finally:
            self._serving.discard(task)
            self._silent.pop(transport, None)
        return websocket

    def _refuse(self, request: web.Request) -> web.Response | None:
        if request.match_info["operation"] not in set(Operation):
            return web.Response(status=404, text="no such operation")
        if self._token is not None and not _has_token(request, self._token):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        if len(self._serving) >= self._limits.max_connections:
            if not self._silent:
                return web.Response(status=503, headers={"Retry-After": "1"})
            silent = next(iter(self._silent))  # those who say nothing keep nobody out
            del self._silent[silent]
            silent.abort()
        return None

    async def _operate(
        self, request: web.Request, websocket: web.WebSocketResponse, on_frame: Callable[[], object]
    ) -> None:
        api_version: ApiVersion = "v2" if request.match_info["version"] == "v2" else "v1"
        peer = _Peer(websocket)
        try:
            first_frame = await peer.receive(self._limits.first_frame_s)
            on_frame()
            result = await serve_exchange(
                self._network,
                Operation(request.match_info["operation"]),
                api_version,
                first_frame=first_frame,
                send=peer.send,
                receive=lambda: peer.receive(self._limits.wallet_s),
                deadline=Deadline(self._limits.operation_s),
            )
            await peer.send(result)
            await websocket.close(code=1000)
        except _GoneError:
            pass  # the client left: nobody is left to answer
        except _SilentError:
            await peer.refuse(CloseCode.TIMEOUT, "no frame came in time")
        except DanError as error:
            _log.info("request %s: %s", error.request_id, error)
            await peer.refuse(_close_code(error), _reason(error))


class _GoneError(Exception):
    """The client closed the connection."""


class _SilentError(Exception):
    """The client sent nothing in time."""


class _Peer:
    """The client at the other end of one WebSocket."""

    def __init__(self, websocket: web.WebSocketResponse) -> None:
        self._websocket = websocket

    async def receive(self, timeout_s: float) -> str:
        try:
            message = await self._websocket.receive(timeout=timeout_s)
        except TimeoutError:
            raise _SilentError from None
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        if message.type is WSMsgType.BINARY:
            raise ProtocolError("frames are text")
        raise _GoneError

    async def send(self, text: str) -> None:
        try:
            await self._websocket.send_str(text)
        except ConnectionError:
            raise _GoneError from None

    async def refuse(self, code: int, reason: str) -> None:
        cut = reason.encode()[:_LONGEST_REASON].decode(errors="ignore")
        await self._websocket.close(code=code, message=cut.encode())


def _has_token(request: web.Request, token: str) -> bool:
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = bearer if scheme.lower() == "bearer" else request.headers.get("X-Api-Key", "")
    return hmac.compare_digest(given.encode(), token.encode())


def _close_code(error: DanError) -> int:
    if isinstance(error, DeadlineExceededError):
        return CloseCode.TIMEOUT
    if isinstance(error, ConfigurationError | ProtocolError):
        return CloseCode.BAD_REQUEST
    refusals = [outcome.error for outcome in error.nodes if isinstance(outcome.error, NodeRefusedError)]
    if isinstance(error, QuorumError) and refusals and not any(refusal.retryable for refusal in refusals):
        return CloseCode.REFUSED
    return CloseCode.NETWORK_FAILED


def _reason(error: DanError) -> str:
    """Return the one line that helps a client most: a node's refusal, where there is one."""
    refusal = next((o.error for o in error.nodes if isinstance(o.error, NodeRefusedError)), None)
    return refusal.message if refusal is not None else error.message

"""One client's WebSocket: many requests in flight, each answered exactly once, none without bound."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from dan_async._tasks import cancel_and_wait
from dan_async.devnet.faults import NodeCrashed, NodeFaults, RequestDropped, Trickle
from dan_async.devnet.limits import NodeLimits
from dan_async.devnet.rate_limit import RateLimit
from dan_async.devnet.rpc_errors import RefusalError, rate_limited
from dan_async.devnet.rpc_framing import RpcRequest, encode_error, encode_result, guess_id, parse_request
from dan_async.devnet.spoiled_replies import spoil_websocket
from dan_async.errors import NodeCode
from dan_async.types import Json

__all__ = ["RpcConnection"]

_log = logging.getLogger(__name__)

#: Carries out a request, see ``NodeMethods.call``.
Answerer = Callable[[str, dict[str, Json]], Awaitable[Json]]


def _is_too_long(text: str, limit: int) -> bool:
    """Tell whether a text is longer than so many bytes."""
    return len(text) > limit or (not text.isascii() and len(text.encode()) > limit)


class RpcConnection:
    """
    A connection.

    Args:
        websocket: The prepared connection.
        transport: What lies beneath it, for faults.
        address: Where it comes from, for the rate limit.
        answer: Carries out a request.
        rate: The node's rate limit.
        limits: Length and number of requests.
        faults: What goes wrong on purpose.
        on_crash: Called when a fault kills the node, with the seconds until it comes back, if it does.
    """

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        *,
        address: str,
        answer: Answerer,
        rate: RateLimit,
        limits: NodeLimits,
        faults: NodeFaults,
        on_crash: Callable[[float | None], None],
    ) -> None:
        self._websocket = websocket
        self._transport = transport
        self._address = address
        self._answer = answer
        self._rate = rate
        self._limits = limits
        self._faults = faults
        self._on_crash = on_crash
        self._requests: set[asyncio.Task[None]] = set()
        self._is_stopping = False
        self._is_stuck = False  # in the middle of a message that never ends

    @property
    def requests(self) -> frozenset[asyncio.Task[None]]:
        """The requests in flight."""
        return frozenset(self._requests)

    def refuse_new(self) -> None:
        """Answer what comes from now on with ``UNAVAILABLE``."""
        self._is_stopping = True
        if self._is_stuck:
            self.cut()

    def cut(self) -> None:
        """Break the connection without a goodbye; ``run`` then returns."""
        if self._transport is not None:
            self._transport.abort()

    async def aclose(self, code: int) -> None:
        """Close the connection; ``run`` then returns."""
        await self._websocket.close(code=code)

    async def run(self) -> None:
        """Answer requests until the connection ends; then give up what is in flight."""
        try:
            while True:
                message = await self._websocket.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    await self._receive(message.data)
                elif message.type is aiohttp.WSMsgType.BINARY:
                    await self._websocket.close(code=aiohttp.WSCloseCode.UNSUPPORTED_DATA)
                else:
                    return
        except ConnectionError:
            _log.debug("a client's connection broke")
        finally:
            await cancel_and_wait(self._requests)

    async def _receive(self, text: str) -> None:
        try:
            request = self._admit(text)
        except RefusalError as refusal:
            # Sent from here and not from a task: whoever does not read refusals is not read from either.
            await self._send(encode_error(refusal.rpc_id, refusal))
            return
        task = asyncio.create_task(self._serve(request), name=f"rpc {request.method}")
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    def _admit(self, text: str) -> RpcRequest:
        if _is_too_long(text, self._limits.max_request_bytes):
            raise RefusalError(
                NodeCode.TOO_LARGE,
                f"a request may be {self._limits.max_request_bytes} bytes long",
                rpc_id=guess_id(text),
            )
        request = parse_request(text)
        wait_s = self._rate.take(self._address)
        refusal = None
        if self._is_stopping:
            refusal = RefusalError(NodeCode.UNAVAILABLE, "the node is stopping")
        elif wait_s:
            refusal = rate_limited("too many requests from this address", wait_s)
        elif len(self._requests) >= self._limits.max_in_flight:
            refusal = rate_limited("too many requests in flight on this connection", 1.0)
        if refusal is not None:
            refusal.rpc_id = request.id
            raise refusal
        return request

    async def _serve(self, request: RpcRequest) -> None:
        try:
            try:
                reply = encode_result(request.id, await self._answer(request.method, request.params))
            except RefusalError as refusal:
                reply = encode_error(request.id, refusal)
            await self._reply(request.method, reply)
        except RequestDropped:
            return
        except NodeCrashed as crash:
            self._on_crash(crash.restart_after)
        except ConnectionError:
            _log.debug("a client left before its reply to %s", request.method)

    async def _reply(self, method: str, reply: str) -> None:
        fault = self._faults.spoil_reply(method)
        if fault is None or self._transport is None or self._is_stuck:
            await self._send(reply)
            return
        self._is_stuck = isinstance(fault, Trickle)
        await spoil_websocket(
            self._transport,
            fault,
            reply,
            is_over=lambda: self._is_stopping or not self._faults.is_in_force(fault),
        )

    async def _send(self, text: str) -> None:
        if not self._is_stuck:  # else it would end up inside of that message
            await self._websocket.send_str(text)

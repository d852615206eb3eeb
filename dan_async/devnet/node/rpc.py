"""JSON-RPC 2.0 as a node speaks it: refusals with the codes of dan-node/1, strict framing, one client's WebSocket."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiohttp
from aiohttp import web
from attrs import define, field, frozen

from dan_async._json import dump, load
from dan_async.deadline import cancel_and_wait
from dan_async.devnet.context import NodeContext, RateLimit, Urgency
from dan_async.devnet.faults.kinds import NodeCrashed, RequestDropped
from dan_async.devnet.faults.lies import SpoiltMessage
from dan_async.devnet.listening import receive
from dan_async.devnet.peers.sessions import SessionFailedError, TooManySessionsError
from dan_async.errors import DanError, InvalidFieldError, NodeCode, ProtocolError
from dan_async.types import Json

_log = logging.getLogger(__name__)


class RefusalError(DanError):
    """A request that the node refuses. ``rpc_id`` is given if the request could not be taken apart yet."""

    def __init__(
        self,
        code: NodeCode,
        message: str,
        *,
        data: Mapping[str, Any] | None = None,
        rpc_id: int | str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.code = code
        self.data = dict(data or {})
        self.rpc_id = rpc_id

    def bare(self) -> RefusalError:
        """Return the same refusal without its traceback and cause, which hold the whole request."""
        return RefusalError(self.code, self.message, data=self.data)


def invalid_params(error: DanError) -> RefusalError:
    """Refuse parameters that could not be read; ``data.field`` names the member, where one is to blame."""
    data = {"field": error.field} if isinstance(error, InvalidFieldError) else None
    return RefusalError(NodeCode.INVALID_PARAMS, error.message, data=data)


@frozen
class reading:  # noqa: N801 - a context manager, as ``refusing`` is
    """Refuse the request if a member of it cannot be read; ``data.field`` names it."""

    member: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, InvalidFieldError | ProtocolError):
            problem = f"{self.member}: {error.message}"
            raise RefusalError(NodeCode.INVALID_PARAMS, problem, data={"field": self.member}) from error


def rate_limited(message: str, retry_after_s: float) -> RefusalError:
    """Ask to come back later; ``data.retryAfter`` is in whole seconds, rounded up."""
    return RefusalError(NodeCode.RATE_LIMITED, message, data={"retryAfter": max(1, math.ceil(retry_after_s))})


@contextmanager
def refusing(code: NodeCode, doing: str) -> Iterator[None]:
    """Refuse the request if its session with the other nodes fails: ``data`` says whom this node can blame, and why."""
    try:
        yield
    except TooManySessionsError as error:
        raise rate_limited(error.message, 1.0) from error
    except SessionFailedError as failure:
        data: dict[str, Any] = {"culprits": list(failure.culprits)}
        if failure.culprits and (failure.is_silence or failure.complaint is not None):
            data["evidence"] = "silence" if failure.is_silence else "proof"
        if failure.aborted_by is not None:
            data["abortedBy"] = failure.aborted_by
        raise RefusalError(code, f"{doing} failed: {failure.reason}", data=data) from failure


# --- framing ----------------------------------------------------------------------------------------------------------
_MEMBERS = frozenset({"jsonrpc", "id", "method", "params"})

#: Characters of a request that are read in 5 ms at most, whatever they are.
_LONG = 64 * 1024

_LONGEST_ID = 64
_LONGEST_METHOD = 64
_ID_NEAR_THE_START = re.compile(
    r'\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(0|[1-9][0-9]{0,14})\s*[,}]'
)


@frozen
class RpcRequest:
    """One request: its id as the client chose it, the method, the parameters as decoded."""

    id: int | str
    method: str
    params: dict[str, Json]


def _read_id(value: Json) -> int | str:
    if isinstance(value, str) and 1 <= len(value) <= _LONGEST_ID and value.isascii():
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise RefusalError(
        NodeCode.INVALID_REQUEST, f"id must be a whole number from 0, or 1 to {_LONGEST_ID} ASCII characters"
    )


def parse_request(text: str | bytes) -> RpcRequest:
    """Read one request; a batch, a notification, an unknown member and parameters by position are refused."""
    try:
        value = load(text)
    except ProtocolError as error:
        raise RefusalError(NodeCode.PARSE_ERROR, error.message) from error
    if not isinstance(value, dict):
        raise RefusalError(NodeCode.INVALID_REQUEST, "a request is one JSON object; batches are not taken")
    rpc_id = _read_id(value.get("id"))
    problem = _problem(value)
    if problem:
        raise RefusalError(NodeCode.INVALID_REQUEST, problem, rpc_id=rpc_id)
    return RpcRequest(rpc_id, value["method"], value["params"])


async def read_request_text(context: NodeContext, text: str | bytes) -> RpcRequest:
    """Read one request: a long one in a thread, after the work that is under way."""
    if len(text) <= _LONG:
        return parse_request(text)
    return await context.workers.compute(parse_request, text, urgency=Urgency.NEW)


def _problem(value: dict[str, Json]) -> str:
    if value.get("jsonrpc") != "2.0":
        return 'jsonrpc must be "2.0"'
    method = value.get("method")
    if not isinstance(method, str) or not 1 <= len(method) <= _LONGEST_METHOD:
        return f"method must be text of 1 to {_LONGEST_METHOD} characters"
    if not isinstance(value.get("params"), dict):
        return "params must be an object"
    if not value.keys() <= _MEMBERS:
        return "the request has members that JSON-RPC does not know"
    return ""


def guess_id(text: str) -> int | None:
    """Find the numeric id of a request that is too long to be parsed, if it stands at the start."""
    match = _ID_NEAR_THE_START.match(text[:200])
    return int(match[1]) if match else None


def encode_result(rpc_id: int | str, result: Json) -> str:
    return dump({"jsonrpc": "2.0", "id": rpc_id, "result": result})


def encode_error(rpc_id: int | str | None, refusal: RefusalError) -> str:
    """Write the reply to a request that was refused; the id is null if it could not be read."""
    error: dict[str, Json] = {"code": refusal.code, "message": refusal.message}
    if refusal.data:
        error["data"] = refusal.data
    return dump({"jsonrpc": "2.0", "id": rpc_id, "error": error})


# --- a connection -----------------------------------------------------------------------------------------------------

#: Carries out a request, see ``NodeMethods.call``.
Answerer = Callable[[str, dict[str, Json], str], Awaitable[Json]]


@define(kw_only=True, eq=False, repr=False)
class RpcConnection:
    """One client's WebSocket: many requests in flight, each answered exactly once, none without bound."""

    _websocket: web.WebSocketResponse
    _transport: asyncio.Transport | None
    _address: str
    _answer: Answerer
    _rate: RateLimit
    _context: NodeContext
    _requests: set[asyncio.Task[None]] = field(factory=set, init=False)
    _in_flight_bytes: int = field(default=0, init=False)
    _ended: asyncio.Event = field(factory=asyncio.Event, init=False)
    #: When the last request came, in monotonic seconds; 0 if none has.
    asked_at: float = field(default=0.0, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _is_stuck: bool = field(default=False, init=False)  # in the middle of a message that never ends

    @property
    def requests(self) -> frozenset[asyncio.Task[None]]:
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
        await self._websocket.close(code=code)

    async def run(self) -> None:
        """Answer requests until the connection ends; then give up requests in flight."""
        try:
            while True:
                message = await receive(self._websocket)
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
        self.asked_at = time.monotonic()
        try:
            request = await self._admit(text)
        except RefusalError as refusal:
            # Sent from here and not from a task: from a client that does not read refusals, nothing is read.
            await self._send(encode_error(refusal.rpc_id, refusal))
            await asyncio.sleep(0)  # the next one may be here already
            return
        task = asyncio.create_task(self._serve(request), name=f"rpc {request.method}")
        self._requests.add(task)
        self._in_flight_bytes += len(text)
        task.add_done_callback(partial(self._end, len(text)))
        del text, request  # or they would be kept while nothing further is read
        while self._in_flight_bytes > self._context.limits.max_in_flight_bytes:
            self._ended.clear()
            await self._ended.wait()

    def _end(self, length: int, task: asyncio.Task[None]) -> None:
        self._requests.discard(task)
        self._in_flight_bytes -= length
        self._ended.set()

    async def _admit(self, text: str) -> RpcRequest:
        limit = self._context.limits.max_request_bytes
        if len(text) > limit or (not text.isascii() and len(text.encode()) > limit):
            problem = f"a request may be {limit} bytes long"
            raise RefusalError(NodeCode.TOO_LARGE, problem, rpc_id=guess_id(text))
        request = await read_request_text(self._context, text)
        wait_s = self._rate.take(self._address)
        refusal = None
        if self._is_stopping:
            refusal = RefusalError(NodeCode.UNAVAILABLE, "the node is stopping")
        elif wait_s:
            refusal = rate_limited("too many requests from this address", wait_s)
        elif len(self._requests) >= self._context.limits.max_in_flight:
            refusal = rate_limited("too many requests in flight on this connection", 1.0)
        if refusal is not None:
            refusal.rpc_id = request.id
            raise refusal
        return request

    async def _serve(self, request: RpcRequest) -> None:
        try:
            try:
                result = await self._answer(request.method, request.params, self._address)
                reply = encode_result(request.id, result)
            except RefusalError as refusal:
                reply = encode_error(request.id, refusal)
            await self._reply(request.method, reply)
        except RequestDropped:
            return
        except NodeCrashed as crash:
            self._context.on_crash(crash.restart_after)
        except ConnectionError:
            _log.debug("a client left before its reply to %s", request.method)

    async def _reply(self, method: str, reply: str) -> None:
        fault = self._context.faults.spoil_reply(method)
        if fault is None or self._transport is None or self._is_stuck:
            await self._send(reply)
            return
        self._is_stuck = fault.is_endless
        await fault.spoil(
            SpoiltMessage(
                self._transport,
                reply,
                is_over=lambda: self._is_stopping or not self._context.faults.is_in_force(fault),
            )
        )

    async def _send(self, text: str) -> None:
        if not self._is_stuck:  # else it would end up inside of that message
            await self._websocket.send_str(text)

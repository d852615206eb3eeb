"""One open WebSocket: many requests in flight, one task that reads."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from dan_async._tasks import cancel_and_wait
from dan_async.errors import (
    ConnectionLostError,
    DanError,
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
)
from dan_async.transport._deadlines import Deadlines
from dan_async.transport._room import WriteRoom
from dan_async.transport.json_rpc import Reply, decode_reply, encode_request, shorten
from dan_async.types import Json

#: Replies to ids that were never asked for, before the peer is taken for broken.
MAX_STRAY_REPLIES = 16

#: How long a closing handshake may take, in seconds, before the socket is closed without.
CLOSE_GRACE_S = 0.5

#: While more than this waits to be read by the peer, in bytes, no further request is written and no ping answered.
_MOST_UNREAD = 256 * 1024

_TIMED_OUT = object()
_NOT_SENT = object()

#: Makes the error of a lost connection, a new one for each request: errors are changed on their way up.
Loss = Callable[[], DanError]


def _expire(answer: asyncio.Future[Any]) -> None:
    if not answer.done():
        answer.set_result(_TIMED_OUT)


class Connection:
    """
    An open WebSocket.

    Every request ends exactly once: with its reply, its time running out, its caller being cancelled, or the connection's
    loss. Must be closed with ``aclose``, even when it was lost.

    Args:
        ws: The WebSocket, just opened, with autoping off.
        response: The response that opened it.
        transport: The transport under it.
        where: Its URL, redacted, for errors.
        max_pending: Requests in flight at a time; more wait for their turn.
        heartbeat_s: A peer that is silent for this long is pinged, and given up after half as long; None for never.
        clock: Monotonic seconds.
    """

    __slots__ = (
        "_clock",
        "_deadlines",
        "_in_flight",
        "_is_heard",
        "_last_id",
        "_loop",
        "_loss",
        "_max_pending",
        "_owed",
        "_pending",
        "_response",
        "_room",
        "_strays",
        "_tasks",
        "_transport",
        "_turns",
        "_where",
        "_ws",
        "lost_at",
        "opened_at",
    )

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        response: aiohttp.ClientResponse,
        transport: asyncio.Transport,
        *,
        where: str,
        max_pending: int,
        heartbeat_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ws = ws
        self._response = response
        self._transport = transport
        # aiohttp would make every writer wait on one shared future, so that cancelling one call cancels all of them. With
        # this it never waits, and the limit is kept here instead.
        transport.set_write_buffer_limits(high=2**30)
        self._room = WriteRoom(transport, _MOST_UNREAD)
        self._where = where
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._deadlines = Deadlines(self._pending, _expire)
        self._max_pending = max_pending
        self._in_flight = 0
        self._turns: OrderedDict[asyncio.Future[Any], None] = OrderedDict()
        self._last_id = 0
        self._owed = 0
        self._strays = 0
        self._loss: Loss | None = None
        self.opened_at = clock()
        self.lost_at: float | None = None
        self._is_heard = False
        self._tasks = [asyncio.create_task(self._read(), name=f"dan_async reader of {where}")]
        if heartbeat_s is not None:
            self._tasks.append(
                asyncio.create_task(self._beat(heartbeat_s / 2), name=f"dan_async heartbeat of {where}")
            )

    @property
    def is_lost(self) -> bool:
        """Whether it can carry no more requests."""
        return self._loss is not None

    @property
    def pending(self) -> int:
        """How many requests are in flight."""
        return len(self._pending)

    async def request(
        self, method: str, params: str, timeout_s: float | None, *, spent_s: float = 0.0
    ) -> Json:
        """
        Send a request and wait for its reply; see ``Transport.call``.

        Args:
            method: The JSON-RPC method.
            params: Its parameters as JSON text.
            timeout_s: Seconds for the whole call; None for no limit.
            spent_s: How many of them have passed already.
        """
        left_s = timeout_s if timeout_s is None or not spent_s else max(0.0, timeout_s - spent_s)
        if self._in_flight < self._max_pending:
            self._in_flight += 1
        else:
            start = self._loop.time()
            if not await self._take_turn(left_s):
                raise self._timeout_error(method, timeout_s, "no earlier request was answered")
            if left_s is not None:
                left_s = max(0.0, left_s - (self._loop.time() - start))
        try:
            outcome = await self._exchange(method, params, left_s)
        finally:
            self._pass_turn_on()
        if type(outcome) is Reply:
            if outcome.error is not None:
                raise outcome.error
            return outcome.result
        if outcome is _TIMED_OUT:
            raise self._timeout_error(method, timeout_s, "no reply came")
        if outcome is _NOT_SENT:
            raise self._timeout_error(method, timeout_s, "the peer does not read")
        raise outcome()

    async def _take_turn(self, left_s: float | None) -> bool:
        """Wait until an earlier request has ended and left its place; False if that takes too long."""
        turn: asyncio.Future[Any] = self._loop.create_future()
        timer = None if left_s is None else self._loop.call_later(left_s, _expire, turn)
        self._turns[turn] = None
        try:
            return await turn is not _TIMED_OUT
        except asyncio.CancelledError:
            # The place may have been given to this call in the very moment of its cancellation.
            if turn.done() and not turn.cancelled() and turn.result() is not _TIMED_OUT:
                self._pass_turn_on()
            raise
        finally:
            self._turns.pop(turn, None)
            if timer is not None:
                timer.cancel()

    def _pass_turn_on(self) -> None:
        turns = self._turns
        while turns:
            turn, _ = turns.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return
        self._in_flight -= 1

    async def _exchange(self, method: str, params: str, left_s: float | None) -> Any:
        """Give the reply, or what took its place: a marker, or what makes the error of a loss."""
        if self._loss is not None:
            return self._loss
        self._last_id = request_id = self._last_id + 1
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._pending[request_id] = answer
        if left_s is not None:
            self._deadlines.add(request_id, left_s)
        is_sent = False
        try:
            if self._room.is_crowded:
                await self._room.wait(answer)
            if not answer.done():
                # Written only now, and not kept: what waits costs no more than the text that its caller has anyway.
                text = encode_request(request_id, method, params)
                is_sent = True
                await self._ws.send_str(text)
                del text
                self._room.pass_on()
            outcome = await answer
        except UnicodeEncodeError:
            raise InvalidFieldError("params", "has a lone surrogate, which UTF-8 cannot carry") from None
        except aiohttp.ClientConnectionError:
            return self._loss or self._broken
        finally:
            if self._pending.pop(request_id, None) is not None and is_sent:
                self._owed += 1
        return _NOT_SENT if outcome is _TIMED_OUT and not is_sent else outcome

    def _timeout_error(self, method: str, timeout_s: float | None, why: str) -> RequestTimeoutError:
        return RequestTimeoutError(f"{method} at {self._where} timed out after {timeout_s or 0.0:g} s: {why}")

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        code: int = WSCloseCode.OK
        loss: Loss = self._broken
        try:
            code, loss = await self._read_to_end()
        except ProtocolError as error:
            code, loss = WSCloseCode.PROTOCOL_ERROR, self._violation(error.message)
        except aiohttp.ClientError:
            loss = self._broken  # a ping could not be answered
        finally:
            # aclose() may have come first; then it closes the socket itself.
            is_first = self._loss is None
            self._lose(loss)
        if is_first:
            await self._shut(code)

    async def _read_to_end(self) -> tuple[int, Loss]:
        """Deliver replies until there are no more; give the code to close with, and why."""
        receive = self._ws.receive
        while True:
            message = await receive()
            self._is_heard = True
            if message.type is WSMsgType.TEXT:
                if self._loss is not None:
                    return WSCloseCode.OK, self._loss
                self._deliver(decode_reply(message.data))
            elif message.type is WSMsgType.PING:
                # A peer that pings and never reads must not fill the memory with answers.
                if self._room.is_free:
                    await self._ws.pong(message.data)
            elif message.type is not WSMsgType.PONG:
                return self._end(message)

    async def _beat(self, interval_s: float) -> None:
        # Whole messages count as signs of life, pongs among them. aiohttp's own heartbeat takes any byte for one, so that a
        # trickle keeps it quiet; and it costs every message several microseconds.
        silent = 0
        while silent < 3:
            await asyncio.sleep(interval_s)
            silent = 0 if self._is_heard else silent + 1
            self._is_heard = False
            if silent == 2:
                with contextlib.suppress(aiohttp.ClientError):  # then the reader finds out as well
                    await self._ws.ping()
        self._lose(lambda: ConnectionLostError(f"{self._where} stopped answering pings"))
        self._drop()

    def _deliver(self, reply: Reply) -> None:
        """
        Hand a reply to its request.

        Raises:
            ProtocolError: It belongs to none, and the peer has done that too often.
        """
        if reply.id is not None:
            answer = self._pending.pop(reply.id, None)
            if answer is None:
                self._bear_with(reply.id)
                return
        elif len(self._pending) == 1:
            # The peer could not read a request, and cannot say which. That is clear only if there is just one.
            _, answer = self._pending.popitem()
        else:
            raise ProtocolError("an error without an id, while the requests in flight are not just one")
        if not answer.done():
            answer.set_result(reply)

    def _bear_with(self, reply_id: int) -> None:
        # Late replies to requests that were given up are expected, once for each; anything else is a stray.
        if 0 < reply_id <= self._last_id and self._owed > 0:
            self._owed -= 1
            return
        self._strays += 1
        if self._strays > MAX_STRAY_REPLIES:
            raise ProtocolError("replies to requests that were never made")

    def _end(self, message: aiohttp.WSMessage) -> tuple[int, Loss]:
        """Say why there is no next message, and with what code to close."""
        if message.type is WSMsgType.BINARY:
            return WSCloseCode.UNSUPPORTED_DATA, self._violation("a binary message where text is due")
        if message.type is WSMsgType.CLOSE:
            return WSCloseCode.OK, self._closed_by_peer(message.data or None, shorten(message.extra or ""))
        if message.type is WSMsgType.ERROR:
            error = message.data
            if isinstance(error, aiohttp.WebSocketError):
                what = _FRAME_PROBLEMS.get(error.code, "a frame that WebSocket does not allow")
                return error.code, self._violation(what)
        return WSCloseCode.OK, self._broken

    def _violation(self, what: str) -> Loss:
        return lambda: ProtocolError(f"{self._where} broke the protocol: {what}")

    def _closed_by_peer(self, code: int | None, reason: str) -> Loss:
        said = f" with code {code}" if code else " without a code"
        quoted = f": {reason}" if reason else ""
        return lambda: ConnectionLostError(
            f"{self._where} closed the connection{said}{quoted}", close_code=code, close_reason=reason
        )

    def _broken(self) -> DanError:
        return ConnectionLostError(f"the connection to {self._where} broke")

    # --- ending -------------------------------------------------------------------------------------------------------

    def _lose(self, loss: Loss) -> None:
        if self._loss is not None:
            return
        self._loss = loss
        self.lost_at = self._clock()
        for answer in self._pending.values():
            if not answer.done():
                # As a result: an exception that a cancelled caller never looks at would be logged as unseen.
                answer.set_result(loss)
        self._pending.clear()
        self._deadlines.close()
        for task in self._tasks[1:]:
            if task is not asyncio.current_task():
                task.cancel()

    async def _shut(self, code: int) -> None:
        try:
            async with asyncio.timeout(CLOSE_GRACE_S):
                await self._ws.close(code=code)
        except TimeoutError:
            pass
        finally:
            self._drop()

    def _drop(self) -> None:
        # abort() because close() would wait for ever to write to a peer that does not read; the response's own close()
        # takes the connection off aiohttp's books.
        self._transport.abort()
        self._response.close()

    async def aclose(self, loss: Loss, *, is_polite: bool = True) -> None:
        """
        Fail what is pending and close the socket; cancelled or not, no task and no socket is left.

        Args:
            loss: Makes the error of what is pending.
            is_polite: Whether to say goodbye and wait for the answer, for up to ``CLOSE_GRACE_S``.
        """
        self._lose(loss)
        try:
            if is_polite and not self._tasks[0].done():
                await self._shut(WSCloseCode.OK)
        finally:
            self._drop()
            await cancel_and_wait(self._tasks)


_FRAME_PROBLEMS = {
    int(WSCloseCode.MESSAGE_TOO_BIG): "a message longer than TransportOptions.max_message_bytes",
    int(WSCloseCode.INVALID_TEXT): "text that is not UTF-8",
}

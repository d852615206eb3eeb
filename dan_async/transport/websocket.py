"""
JSON-RPC over one multiplexed WebSocket, opened when it is needed and opened again after it was lost.

How long to stay away from a peer after a connection failed or broke.

One open WebSocket: many requests in flight, one task that reads.

Room to write: calls wait in a row until a peer that reads slowly has taken what was written before.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import aiohttp
from aiohttp import WSCloseCode, WSMsgType
from attrs import define

from dan_async.config import TransportOptions, check_url, redact_url
from dan_async.deadline import cancel_and_wait
from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DanError,
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
)
from dan_async.transport._limits import Deadlines
from dan_async.transport.connecting import client_ssl, connect_error, make_session, status_error
from dan_async.transport.rpc import Reply, decode_reply, encode_request, shorten
from dan_async.types import Json

#: A connection that lived this long was a good one: what breaks it does not count as a further failure.
STABLE_S = 5.0


class Backoff:
    """
    Spaces out connection attempts, so that a peer that comes back is not run over.

    After the k-th failure in a row the next attempt is due ``min(longest_wait_s, first_wait_s * 2**(k - 1))`` seconds
    later, times a random factor from 0.5 to 1. Time that has passed since the failure counts, so that after a longer
    pause there is no wait at all.

    Args:
        first_wait_s: Longest wait after the first failure, in seconds.
        longest_wait_s: Waits stop growing here.
        clock: Monotonic seconds.
        random: Numbers from 0 to 1; not a source of secrets.
        longest_retry_after_s: The longest wait that the peer can ask for; None for no limit.
    """

    __slots__ = (
        "_clock",
        "_due",
        "_failures",
        "_first_wait_s",
        "_longest_retry_after_s",
        "_longest_wait_s",
        "_random",
    )

    def __init__(
        self,
        *,
        first_wait_s: float = 0.1,
        longest_wait_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        longest_retry_after_s: float | None = None,
    ) -> None:
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._random = random
        self._longest_retry_after_s = math.inf if longest_retry_after_s is None else longest_retry_after_s
        self._failures = 0
        self._due = 0.0

    def now(self) -> float:
        """Give the clock's time."""
        return self._clock()

    def remaining(self) -> float:
        """Seconds until the next attempt is due."""
        return max(0.0, self._due - self._clock())

    def attempt_failed(self, *, retry_after: float | None = None) -> None:
        """Note that an attempt failed; the peer may have asked for a longer wait."""
        self._note(self._clock(), min(retry_after or 0.0, self._longest_retry_after_s))

    def connection_lost(self, *, opened_at: float, lost_at: float) -> None:
        """Note that a connection broke, by the times of this object's clock."""
        if lost_at - opened_at >= STABLE_S:
            self._failures = 0
        self._note(lost_at, 0.0)

    def _note(self, at: float, least: float) -> None:
        # The exponent is bounded: 2.0**1024 would overflow.
        longest = min(self._longest_wait_s, self._first_wait_s * 2.0 ** min(self._failures, 64))
        self._failures += 1
        self._due = at + max(least, longest * (0.5 + 0.5 * self._random()))


#: How often it is looked whether the peer has read on, in seconds: one timer, however many calls wait.
_POLL_S = 0.005


class WriteRoom:
    """
    Who may write next to a transport.

    Args:
        transport: What is written to. It never pauses its writers by itself.
        most: While more bytes than this are unread, nobody may.
    """

    __slots__ = ("_loop", "_most", "_timer", "_transport", "_waiting")

    def __init__(self, transport: asyncio.WriteTransport, most: int) -> None:
        self._transport = transport
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_free(self) -> bool:
        """Whether the peer has read enough of what was written."""
        return self._transport.get_write_buffer_size() <= self._most

    @property
    def is_crowded(self) -> bool:
        """Whether a call that comes now has to wait."""
        return bool(self._waiting) or not self.is_free

    async def wait(self, answer: asyncio.Future[Any]) -> None:
        """
        Wait for this call's turn, in the order of arrival.

        Args:
            answer: The call's answer: once there is one (its time is over, the connection is lost), no turn is needed.
        """
        if not self.is_crowded:
            return
        turn: asyncio.Future[None] = self._loop.create_future()

        def release(_: object) -> None:
            if not turn.done():
                turn.set_result(None)

        self._waiting[turn] = None
        answer.add_done_callback(release)
        if self._timer is None:
            self._timer = self._loop.call_later(_POLL_S, self._look)
        try:
            await turn
        finally:
            self._waiting.pop(turn, None)
            answer.remove_done_callback(release)
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def pass_on(self) -> None:
        """Give the next call its turn, if there is room: to be called after each write."""
        while self._waiting and self.is_free:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return

    def _look(self) -> None:
        self._timer = None
        self.pass_on()
        if self._waiting:
            self._timer = self._loop.call_later(_POLL_S, self._look)


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


class RawCall(Protocol):
    """A call on one certain connection, as given to *on_connect*."""

    async def __call__(self, method: str, params: str, timeout_s: float | None) -> Json:
        """Send one request and wait for its reply; see ``Transport.call``."""
        ...


class _RedirectedError(aiohttp.ClientError):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@define(eq=False)
class _Attempt:
    """An attempt to connect, and how many calls wait for it."""

    task: asyncio.Task[Connection]
    waiters: int = 0


class WebSocketTransport:
    """
    One connection to one peer, with many requests in flight.

    Nothing is opened before the first call; calls that come while the connection is being opened wait for the same
    attempt. After a loss, the requests in flight fail with ``ConnectionLostError`` (never sent again from here: that is
    for the caller to decide), and the next call opens a new connection, with growing, jittered waits if that fails.

    Args:
        url: ``wss://…``, or ``ws://…`` to loopback.
        options: How connections are made. Compression is never offered and redirects are never followed.
        connect_timeout_s: Seconds that opening a connection may take, *on_connect* included.
        on_connect: Runs on each new connection before any waiting request is sent, for example to verify who the peer
            is. If it raises, the connection is closed and every waiting call gets that error.
        session: An aiohttp session whose connector, cookies and headers are used; it is not closed. Its ``trust_env`` is
            not used, that of *options* is.
        max_pending: Requests in flight at a time. More wait for their turn, within their own time limits: the
            memory they cost is their callers' own.
        heartbeat_s: A peer that is silent for this long is pinged, and given up after half as long without a whole
            message or an answer; None for never.
        longest_retry_after_s: The longest wait before the next attempt to connect that the peer can ask for (Retry-After);
            None for no limit.
        backoff: Waits between attempts to connect; injected by tests.

    Raises:
        InvalidFieldError: The URL or a number is wrong.
        InsecureTransportError: The URL has no TLS and its host is not loopback.
    """

    def __init__(
        self,
        url: str,
        *,
        options: TransportOptions | None = None,
        connect_timeout_s: float = 5.0,
        on_connect: Callable[[RawCall], Awaitable[None]] | None = None,
        session: aiohttp.ClientSession | None = None,
        max_pending: int = 10_000,
        heartbeat_s: float | None = 20.0,
        longest_retry_after_s: float | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._url = check_url("url", url, schemes=("wss", "ws"))
        self._where = redact_url(self._url)
        if isinstance(max_pending, bool) or not isinstance(max_pending, int) or max_pending < 1:
            raise InvalidFieldError("max_pending", "must be a whole number greater than 0")
        self._options = options or TransportOptions()
        self._connect_timeout_s = connect_timeout_s
        self._on_connect = on_connect
        self._shared_session = session
        self._max_pending = max_pending
        self._heartbeat_s = heartbeat_s
        self._backoff = backoff or Backoff(longest_retry_after_s=longest_retry_after_s)
        self._ssl = client_ssl(self._options.ssl_context, self._options.pins)
        self._session: aiohttp.ClientSession | None = None
        self._upgrade: aiohttp.ClientResponse | None = None
        self._connection: Connection | None = None
        self._lost: list[Connection] = []
        self._attempt: _Attempt | None = None
        self._last_failure: Exception | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"WebSocketTransport({self._where!r})"

    async def call(self, method: str, params: str, *, timeout_s: float | None) -> Json:
        """Send one request and wait for its reply; see ``Transport.call``."""
        connection = self._connection
        if connection is not None and not connection.is_lost:
            return await connection.request(method, params, timeout_s)
        return await self._call_on_new(method, params, timeout_s)

    async def _call_on_new(self, method: str, params: str, timeout_s: float | None) -> Json:
        loop = asyncio.get_running_loop()
        start = loop.time()
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                connection = await self._connected(timeout_s)
        except TimeoutError:
            # Errors of ours may be TimeoutErrors as well, and are to be left as they are.
            if not limit.expired():
                raise
            raise RequestTimeoutError(
                f"{method} at {self._where} timed out after {timeout_s or 0.0:g} s, before the connection was ready",
                hint="Nothing was sent",
                phase="connect",
            ) from None
        return await connection.request(method, params, timeout_s, spent_s=loop.time() - start)

    # --- connecting ---------------------------------------------------------------------------------------------------

    async def _connected(self, timeout_s: float | None) -> Connection:
        if self._is_closed:
            raise self._closed_error()
        self._set_lost_aside()
        if self._connection is not None:
            return self._connection
        attempt = self._attempt
        if attempt is None or attempt.task.done():
            self._refuse_if_not_due(timeout_s)
            task = asyncio.create_task(self._open(), name=f"dan_async connect to {self._where}")
            self._attempt = attempt = _Attempt(task)
        attempt.waiters += 1
        try:
            await asyncio.wait((attempt.task,))
        finally:
            attempt.waiters -= 1
            if not attempt.waiters:
                if self._attempt is attempt:
                    self._attempt = None
                # An attempt that nobody waits for any more is not left running.
                await cancel_and_wait((attempt.task,))
        if attempt.task.cancelled():
            raise self._closed_error()
        error = attempt.task.exception()
        if error is not None:
            raise _own_copy(error)
        return attempt.task.result()

    def _set_lost_aside(self) -> None:
        connection = self._connection
        if connection is not None and connection.lost_at is not None:
            self._backoff.connection_lost(opened_at=connection.opened_at, lost_at=connection.lost_at)
            self._connection = None
            self._lost.append(connection)

    def _refuse_if_not_due(self, timeout_s: float | None) -> None:
        wait_s = self._backoff.remaining()
        # Without a limit of its own a call waits for a usual pause, and not for hours because the peer said so.
        if wait_s >= (self._connect_timeout_s if timeout_s is None else timeout_s):
            raise ConnectError(
                f"{self._where} could not be reached and is left alone for another {wait_s:.3g} s",
                hint="Wait, or give the call a longer timeout",
                status=getattr(self._last_failure, "status", None),
                retry_after=wait_s,
            )

    async def _open(self) -> Connection:
        while self._lost:
            await self._lost[-1].aclose(self._closed_error)
            self._lost.pop()
        await asyncio.sleep(self._backoff.remaining())
        limit = asyncio.timeout(self._connect_timeout_s)
        try:
            async with limit:
                connection = await self._upgraded()
                await self._greet(connection)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                error = ConnectError(f"{self._where} was not ready within {self._connect_timeout_s:g} s")
            self._last_failure = error
            self._backoff.attempt_failed(retry_after=getattr(error, "retry_after", None))
            raise error from error.__cause__
        self._connection = connection
        return connection

    async def _greet(self, connection: Connection) -> None:
        if self._on_connect is None:
            return
        try:
            await self._on_connect(connection.request)
        except BaseException as error:
            # Whoever cancels does not wait for a peer that may have stalled.
            await connection.aclose(self._closed_error, is_polite=isinstance(error, Exception))
            raise

    async def _upgraded(self) -> Connection:
        if self._session is None:
            self._session = make_session(self._options, share=self._shared_session, trace=self._make_trace())
        if self._session.closed:
            raise ClientClosedError(f"the aiohttp session for {self._where} was closed by its owner")
        failure: DanError
        self._upgrade = None
        try:
            ws = await self._session.ws_connect(
                self._url,
                headers=self._options.headers,
                proxy=self._options.proxy,
                ssl=self._ssl,
                max_msg_size=self._options.max_message_bytes + 1,  # aiohttp refuses from this on
                autoping=False,
                compress=0,
            )
        except _RedirectedError as error:
            failure = status_error(self._where, error.status, None)
        except (aiohttp.ClientError, OSError) as error:
            failure = connect_error(self._where, error)
        else:
            response, self._upgrade = self._upgrade, None
            connection = response.connection if response is not None else None
            if response is not None and connection is not None and connection.transport is not None:
                return Connection(
                    ws,
                    response,
                    connection.transport,
                    where=self._where,
                    max_pending=self._max_pending,
                    heartbeat_s=self._heartbeat_s,
                    clock=self._backoff.now,
                )
            await ws.close()
            failure = ConnectError(f"{self._where} closed the connection before it was ready")
        # Outside of the except blocks: aiohttp's errors hold the request's headers and would be kept as context.
        self._upgrade = None
        raise failure

    def _make_trace(self) -> aiohttp.TraceConfig:
        # ws_connect() follows redirects and hides the response; a trace is the documented way to both.
        async def on_end(_: object, __: object, params: aiohttp.TraceRequestEndParams) -> None:
            self._upgrade = params.response

        async def on_redirect(_: object, __: object, params: aiohttp.TraceRequestRedirectParams) -> None:
            params.response.close()
            raise _RedirectedError(params.response.status)

        trace = aiohttp.TraceConfig()
        trace.on_request_end.append(on_end)
        trace.on_request_redirect.append(on_redirect)
        return trace

    # --- closing ------------------------------------------------------------------------------------------------------

    def _closed_error(self) -> ClientClosedError:
        return ClientClosedError(f"the connection to {self._where} was closed by its owner")

    async def aclose(self) -> None:
        """Close the connection and fail what is pending with ``ClientClosedError``. May be called twice."""
        self._is_closed = True
        try:
            if self._attempt is not None:
                await cancel_and_wait((self._attempt.task,))
        finally:
            if self._connection is not None:
                self._lost.append(self._connection)
                self._connection = None
            try:
                # Gathered, so that each is told of a cancellation and ends.
                await asyncio.gather(*[connection.aclose(self._closed_error) for connection in self._lost])
            finally:
                if self._session is not None:
                    await self._session.close()


def _own_copy(error: BaseException) -> BaseException:
    # Each waiting call gets an error of its own: errors are changed (attempts, traceback) on their way up.
    if not isinstance(error, DanError):
        return error
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied

"""JSON-RPC over one multiplexed WebSocket, opened when it is needed and opened again after it was lost."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

import aiohttp
from attrs import define

from dan_async._values import setting
from dan_async.config import TransportOptions
from dan_async.deadline import PromptFuture, TimeLimits, cancel_and_wait, settle, settled
from dan_async.errors import (
    ConnectError,
    ConnectionLostError,
    DanError,
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
)
from dan_async.transport.connecting import shown_limit
from dan_async.transport.rpc import decode_reply, encode_request
from dan_async.transport.socket import Loss, Socket, SocketOpener, own_copy
from dan_async.types import Json

T = TypeVar("T")

#: A connection that lived this long was a good one: what breaks it does not count as a further failure.
STABLE_S = 5.0

#: Replies to ids that were never asked for, before the peer is taken for broken.
MAX_STRAY_REPLIES = 16


# --- waiting between connections --------------------------------------------------------------------------------------


class Backoff:
    """
    Spaces out connection attempts, so that a peer that comes back is not run over.

    After the k-th failure in a row the next attempt is due ``min(longest_wait_s, first_wait_s * 2**(k - 1))`` seconds
    later, times a random factor from 0.5 to 1. Time that has passed since the failure counts, so that after a longer
    pause there is no wait at all. The peer can ask for a longer wait, up to *longest_retry_after_s* (None for no limit).
    """

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
        """Return the clock's time."""
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


# --- one connection ---------------------------------------------------------------------------------------------------


class Call(PromptFuture[T]):
    """A request in flight, and the future of what comes of it. The connection that it is made over sets these attributes."""

    __slots__ = ("heard", "left_s", "method", "number", "timeout_s")

    number: int
    method: str
    timeout_s: float | None
    #: What was left of that, in seconds, when the connection took it.
    left_s: float | None
    #: How many messages had come when it was written; None until then.
    heard: int | None

    def end(self, result: Json, error: DanError | None) -> None:
        """
        Take its end, once: its result; or the peer's error, that of the connection's loss, or of time running out.

        It may have been cancelled. Raise nothing.
        """
        raise NotImplementedError


class _Reply(Call[tuple[Json, DanError | None]]):
    """An error is a result as well: an exception that a cancelled caller never looks at would be logged as unseen."""

    __slots__ = ()

    def end(self, result: Json, error: DanError | None) -> None:
        settle(self, (result, error))


class Connection:
    """
    Many requests in flight on an open socket.

    Every request ends exactly once: with its reply, its time running out, its caller giving up, or the connection's loss.
    Must be closed with ``aclose``, even when it was lost.

    A peer that owes a reply and sends nothing is pinged, and given up if it does not answer. If nothing at all came during a
    request's time, or a request could not be written, the connection takes no others until the peer sends something.
    """

    def __init__(
        self,
        socket: Socket,
        *,
        max_pending: int,
        heartbeat_s: float | None,
        pong_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = socket
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, Call[Any]] = {}
        self._max_pending = max_pending
        self._places = max_pending  # free ones
        self._turns: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._last_id = 0
        self._owed = 0
        self._strays = 0
        self.opened_at = clock()
        self.lost_at: float | None = None
        #: Whether new requests should be made over it.
        self.is_fit = True
        self._is_retired = False
        self._pong_s = pong_s
        self._look_s = pong_s / 3
        self._watch: asyncio.TimerHandle | None = None
        self._limits = TimeLimits(self._end_late)
        self._heard_before = 0
        if heartbeat_s is not None:
            socket.keep_alive(heartbeat_s, pong_s)
        socket.hand_on(self._deliver, self._lose)  # last: an eager task reads at once, and may find the end

    @property
    def is_lost(self) -> bool:
        """Whether it can carry no more requests."""
        return self._socket.loss is not None

    @property
    def pending(self) -> int:
        """How many requests are in flight."""
        return len(self._pending)

    # --- requests -----------------------------------------------------------------------------------------------------

    def send(self, call: Call[Any], method: str, params: str, timeout_s: float | None) -> bool:
        """Send a request at once, and return True; False if it would have to wait. It ends later, also if this fails."""
        if not self.is_fit or self._places <= 0 or self._socket.buffer.is_crowded:
            return False
        self._places -= 1
        self._enter(call, method, timeout_s, timeout_s)
        try:
            self._write(call, params)
        except DanError as error:
            self.forget(call)
            self._loop.call_soon(call.end, None, error)
        return True

    def forget(self, call: Call[Any]) -> None:
        """Give a request up, if it has not ended: nobody waits for its reply any more."""
        if self._remove(call.number) is not None and call.heard is not None:
            self._owed += 1

    async def request(
        self, method: str, params: str, timeout_s: float | None, *, spent_s: float = 0.0
    ) -> Json:
        """Send a request and wait for its reply; *spent_s* of its time have passed already. See ``Transport.call``."""
        left_s = timeout_s if timeout_s is None or not spent_s else max(0.0, timeout_s - spent_s)
        if self._places > 0:
            self._places -= 1
        else:
            start = self._loop.time()
            if not await self._take_turn(left_s):
                raise self._timeout_error(method, timeout_s, "no earlier request was answered")
            if left_s is not None:
                left_s = max(0.0, left_s - (self._loop.time() - start))
        if self._socket.loss is not None:
            self._free_place()
            raise self._socket.loss()
        reply = _Reply()
        self._enter(reply, method, timeout_s, left_s)
        try:
            buffer = self._socket.buffer
            has_to_wait = buffer.is_crowded
            if has_to_wait:
                await buffer.wait(reply)
            if not reply.done():
                # Written only now, and not kept: what waits costs no more than the text that its caller has anyway.
                self._write(reply, params)
                if has_to_wait:
                    buffer.pass_on()
            result, error = await reply
        finally:
            self.forget(reply)
        if error is not None:
            raise error
        return result

    def _enter(self, call: Call[Any], method: str, timeout_s: float | None, left_s: float | None) -> None:
        """Enter a request that has a place."""
        call.method, call.timeout_s, call.heard = method, timeout_s, None
        call.left_s = left_s
        if left_s is not None:
            self._limits.begin(call, left_s)
        self._last_id = call.number = self._last_id + 1
        self._pending[call.number] = call

    def _write(self, call: Call[Any], params: str) -> None:
        socket = self._socket
        call.heard = heard = socket.heard
        try:
            socket.write(encode_request(call.number, call.method, params))
        except UnicodeEncodeError:
            raise InvalidFieldError("params", "has a lone surrogate, which UTF-8 cannot carry") from None
        except ConnectionLostError:
            self.retire()  # it is breaking, and the reader will find out why
            raise
        if self._watch is None:
            wait_s = self._look_s if call.left_s is None else min(self._look_s, call.left_s / 2)
            self._watch = self._loop.call_later(wait_s, self._look, heard)

    def _remove(self, number: int) -> Call[Any] | None:
        """Take a request out that has ended, if it had not before; its place goes to the next that waits for one."""
        call = self._pending.pop(number, None)
        if call is not None:
            self._limits.end(call)
            if self._turns:
                self._free_place()
            else:
                self._places += 1
        return call

    def _free_place(self) -> None:
        turns = self._turns
        while turns:
            turn, _ = turns.popitem(last=False)
            if not turn.done():
                turn.set_result(True)
                return
        self._places += 1

    async def _take_turn(self, left_s: float | None) -> bool:
        """Wait until an earlier request has ended and left its place; False if that takes too long."""
        turn: asyncio.Future[bool] = self._loop.create_future()
        self._turns[turn] = None
        try:
            return await settled(turn, left_s, False)
        except asyncio.CancelledError:
            # The place may have been given to this call in the very moment of its cancellation.
            if turn.done() and not turn.cancelled() and turn.result():
                self._free_place()
            raise
        finally:
            self._turns.pop(turn, None)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _end_late(self, call: Call[Any]) -> None:
        """End a request whose time is over."""
        if self._remove(call.number) is not None:
            self._owed += call.heard is not None
            call.end(None, self._late(call))

    def _timeout_error(self, method: str, timeout_s: float | None, why: str) -> RequestTimeoutError:
        return RequestTimeoutError(
            f"{method} at {self._socket.where} timed out after {shown_limit(timeout_s)}: {why}"
        )

    # --- replies ------------------------------------------------------------------------------------------------------

    def _deliver(self, text: str) -> None:
        """Hand a reply to its request. Refuse what is no reply, and too many that belong to no request."""
        reply = decode_reply(text)
        number = reply.id
        if number is None:
            # The peer could not read a request, and cannot say which. That is clear only if there is just one.
            if len(self._pending) != 1:
                raise ProtocolError("an error without an id, while the requests in flight are not just one")
            number = next(iter(self._pending))
        call = self._remove(number)
        if call is None:
            self._note_stray(number)
        else:
            call.end(reply.result, reply.error)

    def _note_stray(self, reply_id: int) -> None:
        # Late replies to requests that were given up are expected, once for each; anything else is a stray.
        if 0 < reply_id <= self._last_id and self._owed > 0:
            self._owed -= 1
            return
        self._strays += 1
        if self._strays > MAX_STRAY_REPLIES:
            raise ProtocolError("replies to requests that were never made")

    # --- silence ------------------------------------------------------------------------------------------------------

    def _look(self, heard: int) -> None:
        """Look at times whether a peer that owes a reply is there."""
        self._watch = None
        if self._pending:
            if self._socket.heard == heard:
                self._socket.probe(self._pong_s)
            self._watch = self._loop.call_later(self._look_s, self._look, self._socket.heard)
        elif self._is_retired:
            self._socket.drop()

    def _late(self, call: Call[Any]) -> RequestTimeoutError:
        """Make the error of a request whose time is over; if nothing at all came since it was sent, ask for a sign."""
        if self._socket.heard == call.heard:
            self.is_fit, self._heard_before = False, call.heard
            self._socket.probe(self._pong_s)
        why = "the peer does not read" if call.heard is None else "no reply came"
        return self._timeout_error(call.method, call.timeout_s, why)

    def recover(self) -> bool:
        """Take it for fit again if its peer was heard since it was not; return whether it is fit."""
        if not self.is_fit and not self._is_retired and not self.is_lost:
            self.is_fit = self._socket.heard != self._heard_before
        return self.is_fit

    def retire(self) -> None:
        """Begin no more requests over it; it ends when those that it has are over."""
        self.is_fit, self._is_retired = False, True
        if self._watch is None:
            self._watch = self._loop.call_later(self._look_s, self._look, self._socket.heard)

    # --- ending -------------------------------------------------------------------------------------------------------

    def _lose(self, loss: Loss) -> None:
        self.is_fit = False
        self.lost_at = self._clock()
        if self._watch is not None:
            self._watch.cancel()
        self._limits.close()
        self._fail_pending(loss)

    def _fail_pending(self, loss: Loss, *, at_once: bool = False) -> None:
        """End what is in flight: all *at_once*, or what this turn of the loop has time for, and the rest in later ones."""
        while self._pending:
            call = self._remove(next(iter(self._pending)))
            if call is not None:
                call.end(None, loss())
            if not at_once and not self._socket.turns.may_go_on(is_next=True):
                self._loop.call_soon(self._fail_pending, loss)
                return

    async def aclose(self, loss: Loss, *, is_polite: bool = True) -> None:
        """Fail what is pending and close the socket; see ``Socket.aclose``."""
        await self._socket.aclose(loss, is_polite=is_polite)
        self._fail_pending(self._socket.loss or loss, at_once=True)


# --- one connection after the other -----------------------------------------------------------------------------------


class RawCall(Protocol):
    """A call on one certain connection, as given to *on_connect*."""

    async def __call__(self, method: str, params: str, timeout_s: float | None) -> Json:
        """Send one request and wait for its reply; see ``Transport.call``."""
        ...


@define(eq=False, repr=False)
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
        options: How connections are made, and when a silent one is given up. Compression is never offered and redirects are
            never followed.
        connect_timeout_s: Seconds that opening a connection may take, *on_connect* included.
        on_connect: Runs on each new connection before any waiting request is sent, for example to verify who the peer
            is. If it raises, the connection is closed and every waiting call gets that error.
        session: An aiohttp session whose connector, cookies and headers are used; it is not closed. Its ``trust_env`` is
            not used, that of *options* is.
        max_pending: Requests in flight at a time. More wait for their turn, within their own time limits: the
            memory they cost is their callers' own.
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
        longest_retry_after_s: float | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._options = setting("options", options, TransportOptions)
        self._opener = SocketOpener(
            url,
            options=self._options,
            connect_timeout_s=connect_timeout_s,
            session=session,
        )
        self._where = self._opener.where
        if isinstance(max_pending, bool) or not isinstance(max_pending, int) or max_pending < 1:
            raise InvalidFieldError("max_pending", "must be a whole number greater than 0")
        self._connect_timeout_s = connect_timeout_s
        self._on_connect = on_connect
        self._max_pending = max_pending
        self._backoff = backoff or Backoff(longest_retry_after_s=longest_retry_after_s)
        #: To send a request at once, without a coroutine; None before the first call, and while another one is opened.
        self.connection: Connection | None = None
        self._set_aside: list[Connection] = []
        self._attempt: _Attempt | None = None
        self._last_failure: Exception | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"WebSocketTransport({self._where!r})"

    def call(self, method: str, params: str, *, timeout_s: float | None) -> Coroutine[Any, Any, Json]:
        """Send one request and wait for its reply; see ``Transport.call``."""
        # No coroutine of its own, through which every reply would pass once more.
        connection = self.connection
        if connection is not None and connection.is_fit:
            return connection.request(method, params, timeout_s)
        return self._call_on_new(method, params, timeout_s)

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
                f"{method} at {self._where} timed out after {shown_limit(timeout_s)}, before the connection was ready",
                hint="Nothing was sent",
                phase="connect",
            ) from None
        return await connection.request(method, params, timeout_s, spent_s=loop.time() - start)

    # --- connecting ---------------------------------------------------------------------------------------------------

    async def _connected(self, timeout_s: float | None) -> Connection:
        if self._is_closed:
            raise self._opener.closed_error()
        self._set_unfit_aside()
        if self.connection is not None:
            return self.connection
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
            raise self._opener.closed_error()
        error = attempt.task.exception()
        if error is not None:
            raise own_copy(error)
        return attempt.task.result()

    def _set_unfit_aside(self) -> None:
        connection = self.connection
        if connection is None or connection.recover():
            return
        if connection.lost_at is None:
            connection.retire()
        else:
            self._backoff.connection_lost(opened_at=connection.opened_at, lost_at=connection.lost_at)
        self.connection = None
        self._set_aside.append(connection)

    def _refuse_if_not_due(self, timeout_s: float | None) -> None:
        wait_s = self._backoff.remaining()
        # Without a limit of its own a call waits for a usual pause, and not for hours because the peer said so.
        if wait_s >= (self._connect_timeout_s if timeout_s is None else timeout_s):
            raise ConnectError(
                f"{self._where} could not be reached and is not tried again for another {wait_s:.3g} s",
                hint="Wait, or give the call a longer timeout",
                status=getattr(self._last_failure, "status", None),
                retry_after=wait_s,
            )

    async def _open(self) -> Connection:
        for old in [connection for connection in self._set_aside if not connection.pending]:
            # A lost connection may still bring the peer's close frame; a silent one will not.
            # A call that was given this connection and has not begun is told of a loss, since the client is not closed.
            await old.aclose(self._opener.broken, is_polite=old.is_lost)
            self._set_aside.remove(old)
        await asyncio.sleep(self._backoff.remaining())
        limit = asyncio.timeout(self._connect_timeout_s)
        try:
            async with limit:
                connection = await self._opened()
                await self._greet(connection)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                error = ConnectError(f"{self._where} was not ready within {self._connect_timeout_s:g} s")
            self._last_failure = error
            self._backoff.attempt_failed(retry_after=getattr(error, "retry_after", None))
            raise error from error.__cause__
        self.connection = connection
        return connection

    async def _greet(self, connection: Connection) -> None:
        if self._on_connect is None:
            return
        try:
            await self._on_connect(connection.request)
        except BaseException as error:
            # Whoever cancels does not wait for a peer that may have stalled.
            await connection.aclose(self._opener.broken, is_polite=isinstance(error, Exception))
            raise

    async def _opened(self) -> Connection:
        return Connection(
            await self._opener.open(),
            max_pending=self._max_pending,
            heartbeat_s=self._options.heartbeat_s,
            pong_s=self._options.pong_s,
            clock=self._backoff.now,
        )

    # --- closing ------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the connection and fail what is pending with ``ClientClosedError``. May be called twice."""
        self._is_closed = True
        try:
            if self._attempt is not None:
                await cancel_and_wait((self._attempt.task,))
        finally:
            if self.connection is not None:
                self._set_aside.append(self.connection)
                self.connection = None
            try:
                # Gathered, so that a cancellation reaches each of them, and each ends.
                await asyncio.gather(
                    *[connection.aclose(self._opener.closed_error) for connection in self._set_aside]
                )
            finally:
                await self._opener.aclose()

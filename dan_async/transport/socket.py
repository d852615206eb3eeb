"""
The one WebSocket: text frames in, text frames out, over aiohttp's public interface.

Whatever the peer does, a wait ends with a frame, an error of ours or its time running out, and closing never waits long for
a peer that does not answer.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import struct
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import cached_property, partial
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from dan_async.config import LONGEST_SHOWN_PART, TransportOptions, check_url, redact_url
from dan_async.deadline import TimeLimits, after_reading, cancel_and_wait, settle
from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DanError,
    InvalidFieldError,
    ProtocolError,
    RequestTimeoutError,
)
from dan_async.transport.connecting import (
    InFlight,
    client_ssl,
    connect_error,
    make_session,
    shown_limit,
    status_error,
)
from dan_async.transport.rpc import shorten
from dan_async.turns import Turns

#: How long the peer may take to answer a close frame, in seconds, before the socket is closed without.
CLOSE_GRACE_S = 0.5

#: Where frames are taken one by one, pings and pongs that a peer may send at once, and how many more for each second.
FREE_CONTROL_FRAMES = 64

CONTROL_FRAMES_PER_S = 4

#: While more than this waits to be read by the peer, in bytes, no further frame is begun and no ping answered.
MOST_UNREAD = 256 * 1024

#: Space for control frames in the transport's buffer, in bytes, beside what waits unread and the frame that is written.
_CONTROL_FRAMES = 4 * 1024

#: How often to look whether the peer has read on, in seconds: one timer, however many writers wait.
_LOOK_EVERY_S = 0.005

#: How long to look for the peer's reason after a frame could not be sent, in seconds.
_REASON_S = 0.1

#: Shorter texts are no secrets worth hiding, and hiding them would make errors unreadable.
_LEAST_SECRET = 6

_CONTROL = (WSMsgType.PING, WSMsgType.PONG)

_CLOSING = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)

_FLOOD = "a flood of pings or pongs"

_PROBLEMS = {
    int(WSCloseCode.MESSAGE_TOO_BIG): "a frame longer than TransportOptions.max_message_bytes",
    int(WSCloseCode.INVALID_TEXT): "text that is not UTF-8",
}

T = TypeVar("T")

#: Makes the error of a lost connection, a new one for each call: errors are changed on their way up.
Loss = Callable[[], DanError]


class Started(Generic[T]):
    """
    A coroutine that has run, in the caller's task, until it ended or had to wait; await it for the rest, if there is any.

    A task would cost two turns of the event loop, and a time limit or a watch is of use only where something is waited for.
    """

    __slots__ = ("_call", "_waits_for", "is_done", "result")

    #: Of one that is done.
    result: T

    def __init__(self, call: Coroutine[Any, Any, T]) -> None:
        self._call = call
        self._waits_for: asyncio.Future[Any] | None = None
        self.is_done = False
        self._step()

    def _step(self) -> None:
        try:
            self._waits_for = self._call.send(None)
        except StopIteration as ended:
            self.result, self.is_done = ended.value, True

    def run_on(self) -> bool:
        """Run on as far as that needs no waiting; return whether it is done."""
        while not self.is_done and self._waits_for is not None and self._waits_for.done():
            self._step()
        return self.is_done

    def __await__(self) -> Generator[Any, Any, T]:
        """Wait for the rest as ``yield from`` does (PEP 380), which cannot begin in the middle."""
        try:
            while not self.is_done:
                try:
                    yield self._waits_for
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - the coroutine's to handle, cancellation above all
                    self._waits_for = self._call.throw(error)
                else:
                    self._step()
        except StopIteration as ended:
            self.result, self.is_done = ended.value, True
        finally:
            self._call.close()
        return self.result

    def close(self) -> None:
        """Give up the rest; its cleanup runs now."""
        waits_for, self._waits_for = self._waits_for, None
        if waits_for is not None and not waits_for.cancel() and not waits_for.cancelled():
            waits_for.exception()  # marks it as seen, or asyncio would complain that nobody looked
        self._call.close()


class WriteBuffer:
    """
    Backpressure: writers wait in a row until a peer that reads slowly has taken what was written before.

    While more than *most* bytes are unread, nobody may write. The transport must never pause its writers by itself.
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
        """Whether a writer that comes now has to wait."""
        return bool(self._waiting) or self._transport.get_write_buffer_size() > self._most

    async def wait(self, end: asyncio.Future[Any]) -> None:
        """Wait for a turn to write, in the order of arrival, or until *end* is done."""
        if not self.is_crowded:
            return
        turn: asyncio.Future[None] = self._loop.create_future()

        def release(_: object) -> None:
            settle(turn, None)

        self._waiting[turn] = None
        end.add_done_callback(release)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_EVERY_S, self._look)
        try:
            await turn
        finally:
            self._waiting.pop(turn, None)
            end.remove_done_callback(release)
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def pass_on(self) -> None:
        """Let the next writer in, if the peer has read enough: to be called by whoever waited, after writing."""
        while self._waiting and self.is_free:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return

    def _look(self) -> None:
        self._timer = None
        self.pass_on()
        if self._waiting:
            self._timer = self._loop.call_later(_LOOK_EVERY_S, self._look)


class Socket:
    """
    An open WebSocket, from ``SocketOpener.open``; end it with ``aclose``, whatever happened.

    Its frames are either taken one by one with ``receive``, or read by a task and handed on as they come (``hand_on``).
    """

    #: Whole messages that have come: the signs of life.
    heard = 0
    #: What makes the error of the connection's end; None while it can carry frames.
    loss: Loss | None = None
    #: The limit of the wait for a frame, in seconds, while there is one.
    _limit_s: float | None = None
    _heard_before = _silent = _control_frames = 0
    _pinging: asyncio.TimerHandle | None = None
    _probe: asyncio.TimerHandle | None = None
    _begun: Started[str | DanError] | None = None
    _ahead: asyncio.Task[str | DanError] | None = None
    _on_end: Callable[[Loss], object] | None = None
    _ended: asyncio.Future[None] | None = None
    _is_closing = _is_dropped = False

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        response: aiohttp.ClientResponse,
        transport: asyncio.Transport,
        opener: SocketOpener,
    ) -> None:
        self._ws = ws
        self._response = response
        self._transport = transport
        self._opener = opener
        self.where = opener.where
        self.turns = opener.turns
        self._limits = opener.limits
        # No method of this object, which would then hold itself and its connection until the next garbage collection.
        self._broken = opener.broken
        self._loop = opener.loop
        self._make_way(MOST_UNREAD // 4)
        self._opened_at = self._loop.time()
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- sending ------------------------------------------------------------------------------------------------------

    @cached_property
    def buffer(self) -> WriteBuffer:
        """The backpressure of this connection: made when it is first asked for, since few frames ever wait."""
        return WriteBuffer(self._transport, MOST_UNREAD)

    async def send(self, text: str, timeout_s: float | None) -> None:
        """Send a text frame, and wait until the peer has read most of it. After an error it may have been sent."""
        try:
            self.write(text)
        except UnicodeEncodeError:
            raise InvalidFieldError("frame", "has a lone surrogate, which UTF-8 cannot carry") from None
        except ConnectionLostError:
            pass
        else:
            if self._transport.get_write_buffer_size() <= MOST_UNREAD or await self._is_read(timeout_s):
                return
        raise await self._why_it_ended()

    def write(self, text: str) -> None:
        """Write a text frame at once: to be called when ``buffer`` allows it. May raise UnicodeEncodeError."""
        if self.loss is not None:
            raise self.loss()
        if len(text) > self._longest:
            self._make_way(len(text))
        try:
            self._ws.send_str(text).send(None)  # it ends at once, since it never waits: see ``WriteBuffer``
        except StopIteration:
            return
        except aiohttp.ClientConnectionError:
            pass
        raise self._broken() if self.loss is None else self.loss()

    async def _is_read(self, timeout_s: float | None) -> bool:
        """Wait until the peer has read enough; False if the connection ended meanwhile."""
        self._ended = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self.buffer.wait(self._ended)
        except TimeoutError:
            raise RequestTimeoutError(f"{self.where} did not read within {shown_limit(timeout_s)}") from None
        return not self._transport.is_closing()

    async def _why_it_ended(self) -> DanError:
        """Find out what the peer said before it went: its close code may have come and not been read yet."""
        try:
            async with asyncio.timeout(_REASON_S):
                await self.receive(None)
        except TimeoutError as error:
            return error if isinstance(error, DanError) else self._broken()
        except DanError as error:
            return error
        return self._broken()

    def _make_way(self, length: int) -> None:
        # When a transport's buffer is full, aiohttp makes all writers wait on one shared future, so cancelling one of them
        # cancels all. So it must never be full: ``buffer`` bounds what is unread, and a character takes four bytes at most.
        self._longest = length
        self._transport.set_write_buffer_limits(high=MOST_UNREAD + 4 * length + _CONTROL_FRAMES)

    async def _write_control(self, kind: WSMsgType, payload: bytes = b"") -> None:
        try:
            await self._ws.send_frame(payload, kind)
        except aiohttp.ClientConnectionError:
            return  # the reader finds out as well, and why

    async def _write_close(self, code: int) -> None:
        if not self._is_closing:  # each side says it once
            self._is_closing = True
            await self._write_control(WSMsgType.CLOSE, struct.pack("!H", code))

    # --- receiving ----------------------------------------------------------------------------------------------------

    async def receive(self, timeout_s: float | None) -> str:
        """Wait for the next text frame. If no whole one comes in time, the connection is of no more use."""
        self._limit_s = timeout_s
        if timeout_s is not None:
            self._limits.begin(self, timeout_s)
        try:
            if self._ahead is not None:
                outcome = await self._ahead
                self._ahead = self._begun = None
            elif self._begun is not None:
                begun, self._begun = self._begun, None
                outcome = await begun
            else:
                message = await self._ws.receive()
                self.heard += 1
                if message.type is WSMsgType.TEXT:
                    outcome = str(message.data)
                else:
                    outcome = await self._see_to(message) or await self._next()
        finally:
            self._limit_s = None
        if not self.turns.may_go_on():
            await self.turns.later()
        if isinstance(outcome, DanError):
            raise outcome
        return outcome

    def time_is_over(self) -> None:
        """End it late: called when the limit of a wait has passed."""
        if self._is_closing:
            self.drop()
        elif self._limit_s is not None:  # else the frame came in the last moment
            self.end(partial(_late, self.where, self._limit_s))

    async def _next(self) -> str | DanError:
        """Return the next text frame, or the error of the end; see to every other message. Raise nothing."""
        while True:
            message = await self._ws.receive()
            self.heard += 1
            if message.type is WSMsgType.TEXT:
                return str(message.data)
            if (end := await self._see_to(message)) is not None:
                return end

    async def _see_to(self, message: aiohttp.WSMessage) -> DanError | None:
        """Act on a message that is no text; return an error if it ends the connection."""
        if message.type not in _CONTROL:
            return await self._end_of(message)
        if self._is_flood():
            return await self._violation(_FLOOD, WSCloseCode.POLICY_VIOLATION)
        # A peer that pings and never reads must not fill the memory with answers.
        if message.type is WSMsgType.PING and self.buffer.is_free:
            await self._write_control(WSMsgType.PONG, message.data)
        return None

    def _is_flood(self) -> bool:
        if self._on_end is not None:
            return False
        self._control_frames += 1
        allowed = FREE_CONTROL_FRAMES + CONTROL_FRAMES_PER_S * (self._loop.time() - self._opened_at)
        return self._control_frames > allowed

    async def _end_of(self, message: aiohttp.WSMessage) -> DanError:
        if self.loss is not None:
            return self.loss()
        if message.type is WSMsgType.BINARY:
            what = f"a binary frame of {len(message.data)} bytes where text is due"
            return await self._violation(what, WSCloseCode.UNSUPPORTED_DATA)
        if message.type is WSMsgType.CLOSE:
            await self._write_close(WSCloseCode.OK)
            return self._closed_by_peer(
                message.data or None, message.extra and self._opener.clean(message.extra)
            )
        self._is_closing = True  # aiohttp has written a close frame if it could
        error = message.data
        if message.type is WSMsgType.ERROR and isinstance(error, aiohttp.WebSocketError):
            return self._violated(_PROBLEMS.get(error.code, "a frame that WebSocket does not allow"))
        return self._broken()

    # --- handing on ---------------------------------------------------------------------------------------------------

    def hand_on(self, on_text: Callable[[str], object], on_end: Callable[[Loss], object]) -> None:
        """
        Read in a task: *on_text* is called with each frame, *on_end* once, when the connection can carry no more.

        A ``ProtocolError`` that *on_text* raises ends the connection. Floods of pings do not.
        """
        self._on_end = on_end
        self._tasks.add(asyncio.create_task(self._read(on_text), name=f"dan_async reader of {self.where}"))

    async def _read(self, on_text: Callable[[str], object]) -> None:
        loss: Loss = self._broken
        end: DanError | None = None
        try:
            while end is None:
                message = await self._ws.receive()
                self.heard += 1
                if message.type is not WSMsgType.TEXT:
                    end = await self._see_to(message)
                elif self.loss is None:  # else only the peer's close frame is waited for
                    try:
                        on_text(message.data)
                    except ProtocolError as error:
                        end = await self._violation(error.message, WSCloseCode.PROTOCOL_ERROR)
                if end is None and not self.turns.may_go_on():  # the next one may be here already
                    await self.turns.later()
            loss = partial(own_copy, end)
            if isinstance(end, ProtocolError) and self.loss is None:
                self._lose(loss)
                await self._wait_for_close()
        finally:
            self.end(loss)

    async def _wait_for_close(self) -> None:
        # Breaking the connection at once could take our close frame with it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_GRACE_S):
                while not self._ws.closed and (await self._ws.receive()).type is not WSMsgType.CLOSE:
                    await self.turns.go_on()

    # --- what comes too early -----------------------------------------------------------------------------------------

    def has_more(self) -> bool:
        """Begin to receive; return whether a frame, or the end, had come already: together with the last frame."""
        if self._ahead is not None:
            return self._ahead.done()
        if self._begun is None:
            self._begun = Started(self._next())
        return self._begun.is_done

    def _listen(self) -> asyncio.Task[str | DanError]:
        """Receive the next frame in a task; the next ``receive`` takes it."""
        if self._ahead is None:
            receiving = self._next() if self._begun is None else _rest_of(self._begun)
            self._ahead = asyncio.create_task(receiving, name=f"dan_async listening to {self.where}")
            self._tasks.add(self._ahead)
            self._ahead.add_done_callback(self._tasks.discard)
        return self._ahead

    async def early_error(self) -> DanError | None:
        """Return what came while nothing should have: None, the loss of the connection, or a frame before its turn."""
        if not self.has_more():
            # The loop reads what the system holds in its next turn, and hands it on before the one after that.
            turn = self._loop.create_future()
            self._loop.call_soon(settle, turn, None)
            await turn
            if self._ahead is not None and not self._ahead.done():
                await asyncio.sleep(0)  # the task takes it
        if self._ahead is None and self._begun is not None and self._begun.run_on():
            outcome = self._begun.result
        elif self._ahead is not None and self._ahead.done():
            outcome = self._ahead.result()
        else:
            return self.loss() if self.loss is not None else None  # nothing, pings, or half a frame
        if isinstance(outcome, DanError):
            return outcome
        what = f"a frame before its turn: {self._opener.clean(outcome)!r}"
        return await self._violation(what, WSCloseCode.PROTOCOL_ERROR)

    @contextlib.contextmanager
    def watch(self, on_arrival: Callable[[object], object], *, ping_every_s: float) -> Iterator[None]:
        """
        Listen while something else is waited for: *on_arrival* is called when a frame has come, or the end.

        The peer is pinged meanwhile, so that nothing on the way takes the connection for idle; one that is silent from one
        ping to the next is given up.
        """
        listening = self._listen()
        listening.add_done_callback(on_arrival)
        self._ping(ping_every_s, ping_every_s, spare=0)
        try:
            yield
        finally:
            listening.remove_done_callback(on_arrival)
            self._stop_pinging()

    # --- pings --------------------------------------------------------------------------------------------------------

    def keep_alive(self, heartbeat_s: float, pong_s: float) -> None:
        """Probe a peer that is silent for this long."""
        self._ping(heartbeat_s / 2, pong_s, spare=2)

    def _ping(self, every_s: float, pong_s: float, *, spare: int) -> None:
        """Look that often, and probe a peer that was silent for more than *spare* of these times."""
        self._silent, self._heard_before = 0, self.heard
        self._pinging = self._loop.call_later(every_s, self._look, every_s, pong_s, spare)

    def _look(self, every_s: float, pong_s: float, spare: int) -> None:
        # Whole messages count as signs of life, pongs among them. aiohttp's own heartbeat takes any byte for one, so that a
        # trickle keeps it quiet; and it costs every message several microseconds.
        self._silent = self._silent + 1 if self.heard == self._heard_before else 0
        self._heard_before = self.heard
        if self._silent >= spare:
            self.probe(pong_s)
        self._pinging = self._loop.call_later(every_s, self._look, every_s, pong_s, spare)

    def probe(self, pong_s: float) -> None:
        """Ping the peer, unless that is under way, and give it up after *pong_s* without a whole message."""
        if self._probe is None and self.loss is None:
            ping = asyncio.create_task(self._write_control(WSMsgType.PING))
            self._tasks.add(ping)
            ping.add_done_callback(self._tasks.discard)
            self._probe = self._loop.call_later(pong_s, after_reading, self._judge, self.heard)

    def _judge(self, heard: int) -> None:
        if self._probe is None:
            return  # the watching is over
        self._probe = None
        if self.heard == heard:
            self.end(partial(ConnectionLostError, f"{self.where} stopped answering pings"))

    def _stop_pinging(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        if self._probe is not None:
            self._probe.cancel()
        self._pinging = self._probe = None

    # --- why there is no next frame -----------------------------------------------------------------------------------

    async def _violation(self, what: str, code: int) -> ProtocolError:
        """Say goodbye with *code*, and make the error."""
        await self._write_close(code)
        return self._violated(what)

    def _violated(self, what: str) -> ProtocolError:
        return ProtocolError(f"{self.where} broke the protocol: {what}")

    def _closed_by_peer(self, code: int | None, reason: str | None) -> ConnectionLostError:
        said = f" with code {code}" if code else " without a code"
        quoted = f": {reason}" if reason else ""
        return ConnectionLostError(
            f"{self.where} closed the connection{said}{quoted}", close_code=code, close_reason=reason or ""
        )

    # --- ending -------------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Close with the peer's consent; refuse a frame that comes before its close frame."""
        await self._write_close(WSCloseCode.OK)
        self._limits.begin(self, CLOSE_GRACE_S)
        try:
            while (message := await self._ws.receive()).type in _CONTROL:
                if self._is_flood():
                    raise self._violated(_FLOOD)
            if message.type in _CLOSING and self.loss is None:
                return
            if message.type is WSMsgType.TEXT:
                raise self._violated(f"a frame after its last one: {self._opener.clean(message.data)!r}")
            error = await self._end_of(message)
        finally:
            self.end(self._broken)
        # It may have gone without a close frame: the last frame was the last all the same.
        if not isinstance(error, ConnectionLostError):
            raise error

    def _lose(self, loss: Loss) -> None:
        if self.loss is not None:
            return
        self.loss = loss
        self._stop_pinging()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self._on_end is not None:
            self._on_end(loss)

    def end(self, loss: Loss) -> None:
        """Break the connection at once: whoever waits gets the error that *loss* makes."""
        self._lose(loss)
        self._limits.end(self)
        if self._is_dropped:
            return
        self._is_dropped = True
        # abort() because close() would wait for ever to write to a peer that does not read; the response's own close()
        # takes the connection off aiohttp's books.
        self._transport.abort()
        self._response.close()
        if self._begun is not None and self._ahead is None:
            self._begun.close()
            self._begun = None  # whoever waits next is told of the end
        self._opener.sockets.discard(self)

    def drop(self) -> None:
        """Break the connection at once, if it has not ended."""
        self.end(self._broken)

    async def aclose(self, loss: Loss | None = None, *, is_polite: bool = False) -> None:
        """
        End it; cancelled or not, no task and no connection is left. May be called twice.

        Whoever waits gets the error that *loss* makes. The polite way waits for the peer's close frame, a short time.
        """
        if self._is_dropped and not self._tasks:
            return
        self._lose(loss or self._broken)
        try:
            if is_polite and self._tasks and not self._is_dropped:
                await self._write_close(WSCloseCode.OK)
                await asyncio.wait(self._tasks, timeout=CLOSE_GRACE_S)
        finally:
            self.drop()
            if self._tasks:
                await cancel_and_wait(self._tasks)
            if self._begun is not None:
                self._begun.close()  # its task may have been cancelled before it began


async def _rest_of(begun: Started[T]) -> T:
    return await begun


def own_copy(error: BaseException) -> Any:
    """Copy an error of ours for each call that gets it: errors are changed (attempts, traceback) on their way up."""
    if not isinstance(error, DanError):
        return error
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def _broken(where: str) -> DanError:
    return ConnectionLostError(f"the connection to {where} broke")


def _late(where: str, timeout_s: float) -> DanError:
    return RequestTimeoutError(f"{where} sent no frame within {shown_limit(timeout_s)}")


# --- opening ----------------------------------------------------------------------------------------------------------


class _RedirectedError(aiohttp.ClientError):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class SocketOpener:
    """
    Opens WebSockets to one server, over one aiohttp session, with one set of TLS settings.

    Compression is never offered and redirects are never followed. A given session's connector, cookies and headers are used;
    it is not closed. *where* is the URL without credentials, for errors.
    """

    def __init__(
        self,
        url: str,
        *,
        options: TransportOptions,
        connect_timeout_s: float,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        checked = check_url("url", url, schemes=("wss", "ws"))
        parts = urlsplit(checked)
        self._base = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
        self._query = parts.query and f"?{parts.query}"
        self.where = redact_url(checked)
        self._options = options
        self._connect_timeout_s = connect_timeout_s
        self._ssl = client_ssl(options.ssl_context, options.pins)
        self._secrets = _secrets_of(checked, options)
        self._shared_session = session
        self._session: aiohttp.ClientSession | None = None
        self._upgrades: dict[asyncio.Task[Any] | None, aiohttp.ClientResponse] = {}
        self._in_flight = InFlight(self.where)
        #: Of its sockets: those that are open, the limits of their waits, and what makes the error of a broken one.
        self.sockets: set[Socket] = set()
        self.limits = TimeLimits(Socket.time_is_over)
        self.broken: Loss = partial(_broken, self.where)

    def __repr__(self) -> str:
        return f"SocketOpener({self.where!r})"

    @property
    def is_closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._in_flight.is_closed

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that its sockets are opened on."""
        return self._in_flight.limits.loop

    def closed_error(self) -> ClientClosedError:
        """Make the error of whoever wants to use it after ``aclose``."""
        return self._in_flight.closed_error()

    def clean(self, text: str) -> str:
        """Make a peer's text fit for an error: short, on one line, without our own credentials or other long tokens."""
        return shorten(self.mask(text))

    def mask(self, text: str) -> str:
        """Take our own credentials out of a text that a peer may have had a hand in."""
        for secret in self._secrets:
            text = text.replace(secret, "[masked]")
        return text

    async def open(self, name: str = "", *, timeout_s: float | None = None) -> Socket:
        """Open a WebSocket, at the path's further segment *name* if there is one; within *timeout_s* if that is less."""
        limit_s = self._connect_timeout_s if timeout_s is None else min(timeout_s, self._connect_timeout_s)
        failure: DanError
        limit = self._in_flight.begin(limit_s)
        task = asyncio.current_task(self.loop)
        try:
            async with limit:
                ws = await self._open_session().ws_connect(
                    f"{self._base}/{name}{self._query}" if name else f"{self._base}{self._query}",
                    headers=self._options.headers,
                    proxy=self._options.proxy,
                    ssl=self._ssl,
                    max_msg_size=self._options.max_message_bytes + 1,  # aiohttp refuses from this on
                    autoping=False,
                    autoclose=False,
                    compress=0,
                )
                return self._socket(ws, self._upgrades[task])
        except _RedirectedError as error:
            failure = status_error(self.where, error.status, None)
        except AssertionError:
            # aiohttp takes for granted that the connection lasts while a given session's traces run.
            failure = self._unready()
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, DanError):
                raise
            if not (isinstance(error, TimeoutError) and limit.expired()):
                failure = connect_error(self.where, error)
            elif self.is_closed:
                failure = self.closed_error()
            else:
                failure = ConnectError(f"{self.where} was not ready within {limit_s:g} s")
        finally:
            self._upgrades.pop(task, None)
            self._in_flight.end(limit)
        # Outside of the except blocks: aiohttp's errors hold the request's headers and would be kept as context.
        raise failure

    async def _upgrade(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        # ws_connect() hides the response, and follows redirects. This middleware runs in the task that opens.
        response = await handler(request)
        if 300 <= response.status < 400:
            response.close()
            raise _RedirectedError(response.status)
        self._upgrades[asyncio.current_task(self.loop)] = response
        return response

    def _socket(self, ws: aiohttp.ClientWebSocketResponse, response: aiohttp.ClientResponse) -> Socket:
        connection = response.connection
        if connection is None or connection.transport is None:
            response.close()
            raise self._unready()
        socket = Socket(ws, response, connection.transport, self)
        self.sockets.add(socket)
        return socket

    def _unready(self) -> ConnectError:
        return ConnectError(f"{self.where} closed the connection before it was ready")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limit of connections: an exchange that waits for a person must not keep others out.
            self._session = make_session(
                self._options, share=self._shared_session, max_connections=0, middleware=self._upgrade
            )
            self.turns = Turns.of_running_loop()
        if self._session.closed:
            raise ClientClosedError(f"the aiohttp session for {self.where} was closed by its owner")
        return self._session

    async def aclose(self) -> None:
        """Break every connection, so that whoever waits gets ``ClientClosedError``. May be called twice."""
        try:
            await self._in_flight.aclose()
        finally:
            for socket in tuple(self.sockets):
                socket.end(self.closed_error)
            self.limits.close()
            if self._session is not None:
                await self._session.close()


def _secrets_of(url: str, options: TransportOptions) -> tuple[str, ...]:
    """Return our own texts that no error may quote, longest first."""
    parts = urlsplit(url)
    if parts.username is not None and any(name.lower() == "authorization" for name in options.headers):
        raise InvalidFieldError("url", "has credentials in it, and options.headers has Authorization")
    found = {pair.rpartition("=")[2] for pair in parts.query.split("&")}
    found |= {part for part in parts.path.split("/") if len(part) > LONGEST_SHOWN_PART}
    if parts.password is not None:
        user, password = unquote(parts.username or ""), unquote(parts.password)
        found |= {parts.password, password, base64.b64encode(f"{user}:{password}".encode()).decode()}
    for value in options.headers.values():
        found |= {value, value.rpartition(" ")[2]}  # "Bearer TOKEN": the token alone is as secret
    return tuple(sorted((text for text in found if len(text) >= _LEAST_SECRET), key=len, reverse=True))

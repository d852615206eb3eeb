"""
aiohttp's WebSocket, with what a ``FrameSocket`` needs to see and to write besides.

Opens WebSockets to one server, each for one exchange: over one aiohttp session, with one set of TLS settings.

One WebSocket that carries text frames, one after the other: what a gateway's exchange needs, and nothing of what is in it.

Whatever the peer does, a wait ends with a frame, an error of ours or its time running out, and ending the socket never
waits for a peer that does not answer.
"""

from __future__ import annotations

import asyncio
import base64
import math
import os
import select
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

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
from dan_async.transport._limits import InFlight, WaitLimits
from dan_async.transport.connecting import client_ssl, connect_error, make_session, status_error
from dan_async.transport.rpc import shorten

#: Not everywhere; where it is not, the question is answered with a yes.
_POLL = getattr(select, "poll", None)


def control_frame(opcode: WSMsgType, payload: bytes = b"") -> bytes:
    """
    Write a client's close, ping or pong frame (RFC 6455 section 5.5).

    Args:
        opcode: Which of them.
        payload: At most 125 bytes.
    """
    key = os.urandom(4)
    masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + key + masked


def may_be_readable(transport: asyncio.Transport) -> bool:
    """Tell whether the operating system holds something of the peer's that the event loop has not read yet."""
    socket = transport.get_extra_info("socket")
    if _POLL is None or socket is None or transport.is_closing():
        return True
    poll = _POLL()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class WebSocket(aiohttp.ClientWebSocketResponse):
    """aiohttp's WebSocket, which also shows what it is made of; for ``ClientSession(ws_response_class=…)``."""

    @property
    def response(self) -> aiohttp.ClientResponse:
        """The response that opened it."""
        return self._response

    def may_hold_frames(self) -> bool:
        """Tell whether frames, or the end of them, have been read from the connection and not been received."""
        queue = self._reader
        # aiohttp does not promise how it keeps its frames; where they cannot be seen, there may be some.
        return bool(queue.exception() or queue.is_eof() or getattr(queue, "_buffer", True))


#: How long the peer may take to answer a close frame, in seconds, before the socket is closed without.
CLOSE_GRACE_S = 0.5

#: Pings and pongs that a peer may send at once, and how many more for each second that passes.
FREE_CONTROL_FRAMES = 64

CONTROL_FRAMES_PER_S = 4

#: While more than this waits to be read by the peer, in bytes, no ping is answered.
_MOST_UNREAD = 64 * 1024

#: A frame of so many characters, or fewer, fits into the transport's buffer.
_SHORT = 8 * 1024

#: How long to look for the peer's reason after a frame could not be sent, in seconds.
_REASON_S = 0.1

_PROBLEMS = {
    int(WSCloseCode.MESSAGE_TOO_BIG): "a frame longer than TransportOptions.max_message_bytes",
    int(WSCloseCode.INVALID_TEXT): "text that is not UTF-8",
}

#: Makes the error of a socket that was ended from our side, a new one each time.
Loss = Callable[[], DanError]


class FrameSocket:
    """
    An open WebSocket. Made by ``FrameConnector.open``; end it with ``aclose``, whatever happened.

    Args:
        ws: The WebSocket, just opened, with neither autoping nor autoclose, and without a heartbeat of its own.
        transport: The transport under it.
        where: Its URL, redacted, for errors.
        limits: Whose timer limits the waits.
        clean: Makes a peer's text fit for an error.
        on_drop: Told when the socket is gone.
    """

    __slots__ = (
        "_clean",
        "_control_frames",
        "_has_heard",
        "_is_closing",
        "_is_dropped",
        "_limit_s",
        "_limits",
        "_listening",
        "_loop",
        "_loss",
        "_on_drop",
        "_opened_at",
        "_pinging",
        "_transport",
        "_ws",
        "where",
    )

    def __init__(
        self,
        ws: WebSocket,
        transport: asyncio.Transport,
        *,
        where: str,
        limits: WaitLimits,
        clean: Callable[[str], str],
        on_drop: Callable[[FrameSocket], None],
    ) -> None:
        self._ws = ws
        self._transport = transport
        self.where = where
        self._limits = limits
        self._clean = clean
        self._on_drop = on_drop
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._control_frames = 0
        self._has_heard = True
        self._is_closing = False
        self._is_dropped = False
        self._loss: Loss | None = None
        self._listening: asyncio.Task[str | DanError] | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._limit_s = math.inf

    # --- sending and receiving ----------------------------------------------------------------------------------------

    async def send(self, text: str, timeout_s: float | None) -> None:
        """
        Send a text frame.

        Args:
            text: The frame.
            timeout_s: Seconds that the peer may leave it unread.

        Raises:
            ConnectionLostError: The connection broke, or the peer had closed it. The frame may have been sent.
            RequestTimeoutError: The peer does not read. The frame may have been sent in part.
            InvalidFieldError: UTF-8 cannot carry the text; nothing was sent.
            ProtocolError: The connection could not be used any more because of what the peer had sent.
        """
        try:
            # A short one is taken by the transport without waiting, so that there is nothing to limit.
            if len(text) <= _SHORT and self._transport.get_write_buffer_size() == 0:
                await self._ws.send_str(text)
            else:
                await self._send_long(text, timeout_s)
        except UnicodeEncodeError:
            raise InvalidFieldError("frame", "has a lone surrogate, which UTF-8 cannot carry") from None
        except aiohttp.ClientConnectionError:
            pass
        else:
            return
        raise await self._why_it_ended()

    async def _send_long(self, text: str, timeout_s: float | None) -> None:
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                await self._ws.send_str(text)
        except TimeoutError:
            if not limit.expired():
                raise
            raise RequestTimeoutError(f"{self.where} did not read within {_shown(timeout_s)}") from None

    async def _why_it_ended(self) -> DanError:
        """Find out what the peer said before it went: its close code may have come and not been read yet."""
        try:
            async with asyncio.timeout(_REASON_S):
                await self.receive(None)
        except TimeoutError:
            pass
        except DanError as error:
            return error
        return self._broken()

    async def receive(self, timeout_s: float | None) -> str:
        """
        Wait for the next text frame.

        Args:
            timeout_s: Seconds to wait; None for no limit.

        Raises:
            ConnectionLostError: The connection broke or was closed, with its close code and reason.
            RequestTimeoutError: No whole frame came in time; the connection is of no more use.
            ProtocolError: The peer sent something else than a text frame of allowed length.
            ClientClosedError: The connection was closed by its owner.
        """
        wait = 0
        if timeout_s is not None:
            self._limit_s = timeout_s
            wait = self._limits.begin(timeout_s, self._end_late)
        try:
            if self._listening is not None:
                return await self._heard(self._listening)
            message = await self._next_message()
        finally:
            self._limits.end(wait)
        return self._text_of(message)

    def _end_late(self) -> None:
        self.end(self._late)

    def _late(self) -> DanError:
        return RequestTimeoutError(f"{self.where} sent no frame within {_shown(self._limit_s)}")

    async def _heard(self, listening: asyncio.Task[str | DanError]) -> str:
        outcome = await listening
        self._stop_pinging()
        self._listening = None
        if isinstance(outcome, DanError):
            raise outcome
        return outcome

    def _text_of(self, message: aiohttp.WSMessage) -> str:
        if message.type is WSMsgType.TEXT:
            return str(message.data)
        raise self._end(message)

    async def _next_message(self) -> aiohttp.WSMessage:
        while True:
            message = await self._ws.receive()
            self._has_heard = True
            kind = message.type
            if kind is not WSMsgType.PING and kind is not WSMsgType.PONG:
                return message
            self._count_control_frame()
            # A peer that pings and never reads must not fill the memory with answers.
            if kind is WSMsgType.PING and self._transport.get_write_buffer_size() <= _MOST_UNREAD:
                self._write(control_frame(WSMsgType.PONG, message.data))

    def _count_control_frame(self) -> None:
        self._control_frames += 1
        allowed = FREE_CONTROL_FRAMES + CONTROL_FRAMES_PER_S * (self._loop.time() - self._opened_at)
        if self._control_frames > allowed:
            raise self._violation("a flood of pings or pongs", WSCloseCode.POLICY_VIOLATION)

    # --- listening ahead ----------------------------------------------------------------------------------------------

    def listen(
        self, on_arrival: Callable[[object], None] | None = None, *, ping_every_s: float | None = None
    ) -> None:
        """
        Begin to receive the next frame while something else is done; the next ``receive`` takes it.

        Args:
            on_arrival: Called once, when a frame has come or the connection has ended.
            ping_every_s: Ping the peer that often, in seconds, so that nothing on the way takes the connection for
                idle; a peer that is silent from one ping to the next is given up. None for never.
        """
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen(), name=f"dan_async listening to {self.where}")
        if on_arrival is not None:
            self._listening.add_done_callback(on_arrival)
        if ping_every_s is not None:
            self._has_heard = True
            self._pinging = self._loop.call_later(ping_every_s, self._ping, ping_every_s)

    async def _listen(self) -> str | DanError:
        # As a result: an exception that nobody comes to look at would be logged as unseen.
        try:
            return self._text_of(await self._next_message())
        except DanError as error:
            return error

    def may_hold_frames(self) -> bool:
        """Tell whether something of the peer's has been read from the connection and not been received yet."""
        return self._ws.may_hold_frames()

    def may_have_input(self) -> bool:
        """Tell whether there is anything of the peer's that has not been received yet, its end included."""
        return self._ws.may_hold_frames() or may_be_readable(self._transport)

    def early_error(self) -> DanError | None:
        """Tell what came while nothing should have: None, the loss of the connection, or a frame too early."""
        if self._listening is None or not self._listening.done():
            return None
        outcome = self._listening.result()
        if isinstance(outcome, DanError):
            return outcome
        return self._violation(
            f"a frame before its turn: {self._clean(outcome)!r}", WSCloseCode.PROTOCOL_ERROR
        )

    def _ping(self, every_s: float) -> None:
        if not self._has_heard:
            self.end(lambda: ConnectionLostError(f"{self.where} stopped answering pings"))
            return
        self._has_heard = False
        self._write(control_frame(WSMsgType.PING))
        self._pinging = self._loop.call_later(every_s, self._ping, every_s)

    def _stop_pinging(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
            self._pinging = None

    # --- why there is no next frame -----------------------------------------------------------------------------------

    def _end(self, message: aiohttp.WSMessage) -> DanError:
        if self._loss is not None:
            return self._loss()
        if message.type is WSMsgType.BINARY:
            what = f"a binary frame of {len(message.data)} bytes where text is due"
            return self._violation(what, WSCloseCode.UNSUPPORTED_DATA)
        if message.type is WSMsgType.CLOSE:
            self._write_close(WSCloseCode.OK)
            return self._closed_by_peer(message.data or None, self._clean(message.extra or ""))
        error = message.data
        if message.type is WSMsgType.ERROR and isinstance(error, aiohttp.WebSocketError):
            return self._violation(_PROBLEMS.get(error.code, "a frame that WebSocket does not allow"), None)
        return self._broken()

    def _violation(self, what: str, code: int | None) -> ProtocolError:
        if code is not None:
            self._write_close(code)
        return ProtocolError(f"{self.where} broke the protocol: {what}")

    def _closed_by_peer(self, code: int | None, reason: str) -> ConnectionLostError:
        said = f" with code {code}" if code else " without a code"
        quoted = f": {reason}" if reason else ""
        return ConnectionLostError(
            f"{self.where} closed the connection{said}{quoted}", close_code=code, close_reason=reason
        )

    def _broken(self) -> DanError:
        if self._loss is not None:
            return self._loss()
        return ConnectionLostError(f"the connection to {self.where} broke")

    # --- ending -------------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """
        Close with the peer's consent, which shows that it had nothing more to say.

        Raises:
            ProtocolError: It had: another frame came before its own close frame.
        """
        self._write_close(WSCloseCode.OK)
        wait = self._limits.begin(CLOSE_GRACE_S, self.drop)
        try:
            message = await self._next_message()
        finally:
            self._limits.end(wait)
            self.drop()
        if message.type is WSMsgType.TEXT:
            raise self._violation(f"a frame after its last one: {self._clean(message.data)!r}", None)
        if message.type is not WSMsgType.CLOSE:
            error = self._end(message)
            # It may have taken its time, or gone without a close frame: the last frame was the last all the same.
            if not isinstance(error, ConnectionLostError):
                raise error

    def end(self, loss: Loss) -> None:
        """Break the connection from our side: whoever waits for a frame gets the error that *loss* makes."""
        if self._loss is None:
            self._loss = loss
        self.drop()

    def drop(self) -> None:
        """Break the connection at once, without waiting for anything."""
        if self._is_dropped:
            return
        self._is_dropped = True
        self._stop_pinging()
        # abort() because close() would wait for ever to write to a peer that does not read; the response's own close()
        # takes the connection off aiohttp's books.
        self._transport.abort()
        self._ws.response.close()
        self._on_drop(self)

    async def aclose(self) -> None:
        """Break the connection and wait until nothing of it is left. May be called twice."""
        self.drop()
        if self._listening is not None:
            await cancel_and_wait((self._listening,))

    def _write(self, frame: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(frame)

    def _write_close(self, code: int) -> None:
        if self._is_closing:
            return  # each side says it once
        self._is_closing = True
        self._write(control_frame(WSMsgType.CLOSE, struct.pack("!H", code)))


def _shown(timeout_s: float | None) -> str:
    # What is left of a limit is not a round number; the limit was.
    return f"{round(timeout_s or 0.0, 2):g} s"


#: Shorter texts are no secrets worth hiding, and hiding them would make errors unreadable.
_LEAST_SECRET = 6

_WS_TIMEOUT = aiohttp.ClientWSTimeout(ws_close=CLOSE_GRACE_S)


class _RedirectedError(aiohttp.ClientError):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Upgrade(aiohttp.ClientResponse):
    """The response that opens a WebSocket: stops at a redirect, which ws_connect() would follow."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        if 300 <= self.status < 400:
            raise _RedirectedError(self.status)
        return self


class FrameConnector:
    """
    The way to one server.

    Args:
        url: The URL under which all paths lie: ``wss://…``, or ``ws://…`` to loopback.
        options: How connections are made. Compression is never offered and redirects are never followed.
        connect_timeout_s: Seconds that opening a connection may take.
        session: An aiohttp session whose connector, cookies and headers are used; it is not closed. Its ``trust_env`` is
            not used, that of *options* is.

    Attributes:
        where: The URL without credentials, for errors.

    Raises:
        InvalidFieldError: The URL is wrong.
        InsecureTransportError: The URL has no TLS and its host is not loopback.
    """

    def __init__(
        self,
        url: str,
        *,
        options: TransportOptions,
        connect_timeout_s: float,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        base = urlsplit(check_url("url", url, schemes=("wss", "ws")))
        self._prefix = urlunsplit((base.scheme, base.netloc, f"{base.path}/", "", ""))
        self._suffix = base.query and f"?{base.query}"
        self.where = redact_url(url).rstrip("/")
        self._options = options
        self._connect_timeout_s = connect_timeout_s
        self._ssl = client_ssl(options.ssl_context, options.pins)
        self._secrets = _secrets_of(url, options)
        self._shared_session = session
        self._session: aiohttp.ClientSession | None = None
        self._in_flight = InFlight(self.where)
        self._sockets: set[FrameSocket] = set()

    def __repr__(self) -> str:
        return f"FrameConnector({self.where!r})"

    @property
    def is_closed(self) -> bool:
        """Whether ``aclose`` was called."""
        return self._in_flight.is_closed

    def clean(self, text: str) -> str:
        """Make a peer's text fit for an error: short, on one line, without our own credentials or other long tokens."""
        return shorten(self.mask(text))

    def mask(self, text: str) -> str:
        """Take our own credentials out of a text that a peer may have had a hand in."""
        for secret in self._secrets:
            text = text.replace(secret, "[masked]")
        return text

    async def open(self, name: str, *, timeout_s: float | None = None) -> FrameSocket:
        """
        Open a WebSocket.

        Args:
            name: The last segment of its path.
            timeout_s: Seconds, if fewer than the usual.

        Returns:
            The socket. Close it.

        Raises:
            ConnectError: It could not be opened, with the HTTP status and Retry-After if there were any.
            ClientClosedError: The connector was closed by its owner, before or meanwhile.
        """
        limit_s = self._connect_timeout_s if timeout_s is None else min(timeout_s, self._connect_timeout_s)
        failure: DanError
        try:
            async with self._in_flight.call("opening", limit_s):
                ws = await self._open_session().ws_connect(
                    self._prefix + name + self._suffix,
                    headers=self._options.headers,
                    proxy=self._options.proxy,
                    ssl=self._ssl,
                    max_msg_size=self._options.max_message_bytes + 1,  # aiohttp refuses from this on
                    autoping=False,
                    autoclose=False,
                    compress=0,
                    timeout=_WS_TIMEOUT,
                )
        except RequestTimeoutError:
            failure = ConnectError(f"{self.where} was not ready within {limit_s:g} s")
        except _RedirectedError as error:
            failure = status_error(self.where, error.status, None)
        except (aiohttp.ClientError, OSError) as error:
            failure = connect_error(self.where, error)
        else:
            return self._socket(ws)
        # Outside of the except blocks: aiohttp's errors hold the request's headers and would be kept as context.
        raise failure

    def _socket(self, ws: aiohttp.ClientWebSocketResponse) -> FrameSocket:
        assert isinstance(ws, WebSocket)  # as the session was told
        connection = ws.response.connection
        if connection is None or connection.transport is None:
            ws.response.close()
            raise ConnectError(f"{self.where} closed the connection before it was ready")
        socket = FrameSocket(
            ws,
            connection.transport,
            where=self.where,
            limits=self._in_flight.limits,
            clean=self.clean,
            on_drop=self._sockets.discard,
        )
        self._sockets.add(socket)
        return socket

    def _open_session(self) -> aiohttp.ClientSession:
        if self.is_closed:
            raise self._in_flight.closed_error()
        if self._session is None:
            # No limit of connections: an exchange that waits for a person must not keep others out.
            self._session = make_session(
                self._options,
                share=self._shared_session,
                max_connections=0,
                response_class=_Upgrade,
                ws_response_class=WebSocket,
            )
        if self._session.closed:
            raise ClientClosedError(f"the aiohttp session for {self.where} was closed by its owner")
        return self._session

    async def aclose(self) -> None:
        """Break every connection, so that whoever waits gets ``ClientClosedError``. May be called twice."""
        try:
            await self._in_flight.aclose()
        finally:
            for socket in tuple(self._sockets):
                socket.end(self._in_flight.closed_error)
            if self._session is not None:
                await self._session.close()


def _secrets_of(url: str, options: TransportOptions) -> tuple[str, ...]:
    """Give what of our own an answer must not be quoted with, longest first."""
    parts = urlsplit(url)
    if parts.username is not None and any(name.lower() == "authorization" for name in options.headers):
        raise InvalidFieldError("url", "has credentials in it, and options.headers has Authorization")
    found = {pair.rpartition("=")[2] for pair in parts.query.split("&")}
    if parts.password is not None:
        user, password = unquote(parts.username or ""), unquote(parts.password)
        found |= {parts.password, password, base64.b64encode(f"{user}:{password}".encode()).decode()}
    for value in options.headers.values():
        found |= {value, value.rpartition(" ")[2]}  # "Bearer TOKEN": the token alone is as secret
    return tuple(sorted((text for text in found if len(text) >= _LEAST_SECRET), key=len, reverse=True))

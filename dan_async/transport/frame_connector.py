"""Opens WebSockets to one server, each for one exchange: over one aiohttp session, with one set of TLS settings."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp

from dan_async.config import TransportOptions, check_url, redact_url
from dan_async.errors import ClientClosedError, ConnectError, DanError, InvalidFieldError, RequestTimeoutError
from dan_async.transport._failures import connect_error, status_error
from dan_async.transport._in_flight import InFlight
from dan_async.transport._web_socket import WebSocket
from dan_async.transport.frames import CLOSE_GRACE_S, FrameSocket
from dan_async.transport.json_rpc import shorten
from dan_async.transport.session import make_session
from dan_async.transport.tls import client_ssl

__all__ = ["FrameConnector"]

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

"""JSON-RPC over HTTP: one POST for each request. For wallets, bundlers, and nodes behind plain HTTP."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import aiohttp

from dan_async._values import setting, utf8
from dan_async.config import TransportOptions, check_url, redact_url
from dan_async.deadline import OneLoop
from dan_async.errors import (
    ClientClosedError,
    ConnectionLostError,
    DanError,
    ProtocolError,
    RpcError,
)
from dan_async.transport.connecting import InFlight, client_ssl, connect_error, make_session, status_error
from dan_async.transport.rpc import decode_reply, encode_request
from dan_async.types import Json

# No compressed replies: what they unpack to is not bounded by what was read.
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}

#: Bytes written at a time: the loop is not held for long bodies, and what waits to be sent stays small.
_PIECE = 64 * 1024


class _Body(aiohttp.payload.Payload):
    """
    The bytes of a request, which see the connection they are written to, so that it can be broken when they are given up.

    aiohttp closes such a connection only when all of it has been sent, which is never if the peer does not read.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content, content_type="application/json")
        self._content = content
        self._transport: asyncio.Transport | None = None

    @property
    def size(self) -> int:
        return len(self._content)

    @property
    def autoclose(self) -> bool:
        return True  # nothing to close: bytes in memory

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._content.decode(encoding, errors)

    async def write(self, writer: Any) -> None:
        self._transport = writer.transport
        for start in range(0, len(self._content), _PIECE):
            await writer.write(self._content[start : start + _PIECE])

    def drop_if_closing(self) -> None:
        """Break the connection at once if it is being closed; one that serves further requests is left alone."""
        if self._transport is not None and self._transport.is_closing():
            self._transport.abort()


class HttpTransport:
    """
    A POST for each request, over connections that are kept for the next one.

    A request is never sent a second time from here: after ``ConnectionLostError`` the peer may have acted on it or not.

    Args:
        url: ``https://…``, or ``http://…`` to loopback.
        options: How connections are made. Compression is never offered and redirects are never followed.
        connect_timeout_s: Seconds that opening a connection may take.
        session: An aiohttp session whose connector, cookies and headers are used; it is not closed. Its ``trust_env`` is
            not used, that of *options* is.

    Raises:
        InvalidFieldError: The URL is wrong.
        InsecureTransportError: The URL has no TLS and its host is not loopback.
    """

    def __init__(
        self,
        url: str,
        *,
        options: TransportOptions | None = None,
        connect_timeout_s: float = 5.0,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._url = check_url("url", url, schemes=("https", "http"))
        self._where = redact_url(self._url)
        self._options = setting("options", options, TransportOptions)
        given = {name.lower() for name in self._options.headers}
        defaults = {name: value for name, value in _HEADERS.items() if name.lower() not in given}
        self._headers = {**defaults, **self._options.headers}
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self._shared_session = session
        self._session: aiohttp.ClientSession | None = None
        self._ssl = client_ssl(self._options.ssl_context, self._options.pins)
        self._ids = itertools.count(1)
        self._in_flight = InFlight(self._where)
        self._loop = OneLoop(f"connection to {self._where}")

    def __repr__(self) -> str:
        return f"HttpTransport({self._where!r})"

    async def call(self, method: str, params: str, *, timeout_s: float | None) -> Json:
        """
        Send one request and wait for its reply; see ``Transport.call``.

        Raises:
            ConnectError: No connection; or the server refused the request unread, with a redirect, 4xx, 429 or 503.
            ConnectionLostError: The connection broke before the whole reply came, or the server failed with another 5xx:
                the request may have been acted upon.
            RequestTimeoutError: No reply in time.
            RpcError: The peer answered with an error object.
            ProtocolError: The peer sent what JSON-RPC does not allow.
            ClientClosedError: The transport was closed by its owner.
            ConfigurationError: It is in use on another event loop.
        """
        self._loop.check()
        request_id = next(self._ids)
        body = _Body(utf8("params", encode_request(request_id, method, params)))
        async with self._in_flight.call(method, timeout_s):
            text = await self._post(body)
        try:
            reply = decode_reply(text)
        except ProtocolError as error:
            raise ProtocolError(f"{self._where} broke the protocol: {error.message}") from None
        if reply.id != request_id and not (reply.id is None and reply.error is not None):
            raise ProtocolError(f"{self._where} answered another request than the one that was sent")
        if reply.error is not None:
            raise reply.error
        return reply.result

    async def _post(self, body: _Body) -> str:
        session = self._open_session()
        is_connected = False
        failure: DanError
        try:
            async with session.post(
                self._url,
                data=body,
                headers=self._headers,
                proxy=self._options.proxy,
                ssl=self._ssl,
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                is_connected = True
                return await self._read(response)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError):
            failure = ConnectionLostError(
                f"{self._where} closed the connection before its reply was complete"
            )
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, DanError):
                raise
            if isinstance(error, aiohttp.ClientResponseError) and not isinstance(
                error, aiohttp.ClientHttpProxyError
            ):
                failure = ProtocolError(f"{self._where} answered with something that is not HTTP")
            elif is_connected or _may_have_been_sent(error):
                failure = ConnectionLostError(f"the connection to {self._where} broke")
            else:
                failure = connect_error(self._where, error)
        finally:
            body.drop_if_closing()
        # Outside of the except blocks: aiohttp's errors hold the request's headers and would be kept as context.
        raise failure

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = make_session(self._options, share=self._shared_session)
        if self._session.closed:
            raise ClientClosedError(f"the aiohttp session for {self._where} was closed by its owner")
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> str:
        status = response.status
        # Refused unread: whatever the body says, it is not a reply to the request.
        if 300 <= status < 400 or status in (401, 403, 404, 407, 429, 503):
            raise status_error(self._where, status, response.headers)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise ProtocolError(f"{self._where} sent a compressed reply, which was not asked for")
        text = await self._read_text(response)
        if 200 <= status < 300:
            return text
        # Some servers send JSON-RPC errors with a status of their own; those tell more than the status does.
        if _is_error_reply(text):
            return text
        if status >= 500:
            raise ConnectionLostError(f"{self._where} failed with HTTP status {status}")
        raise status_error(self._where, status, response.headers)

    async def _read_text(self, response: aiohttp.ClientResponse) -> str:
        most = self._options.max_message_bytes
        body = bytearray()
        if (response.content_length or 0) <= most:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > most:
                    break
            else:
                try:
                    return body.decode()
                except UnicodeDecodeError:
                    raise ProtocolError(f"{self._where} sent a reply that is not UTF-8") from None
        response.close()
        raise ProtocolError(
            f"{self._where} sent a reply longer than TransportOptions.max_message_bytes ({most} bytes)"
        )

    async def aclose(self) -> None:
        """End every call with ``ClientClosedError`` and close the connections. May be called twice."""
        try:
            await self._in_flight.aclose()
        finally:
            if self._session is not None:
                await self._session.close()


def _may_have_been_sent(error: BaseException) -> bool:
    # A reset of an open connection, as against a failure to open one.
    return isinstance(error, aiohttp.ClientOSError) and not isinstance(error, aiohttp.ClientConnectorError)


def _is_error_reply(text: str) -> bool:
    try:
        return isinstance(decode_reply(text).error, RpcError)
    except ProtocolError:
        return False

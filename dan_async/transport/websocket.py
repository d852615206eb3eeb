"""JSON-RPC over one multiplexed WebSocket, opened when it is needed and opened again after it was lost."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp
from attrs import define

from dan_async._tasks import cancel_and_wait
from dan_async.config import TransportOptions, check_url, redact_url
from dan_async.errors import ClientClosedError, ConnectError, DanError, InvalidFieldError, RequestTimeoutError
from dan_async.transport._backoff import Backoff
from dan_async.transport._connection import Connection
from dan_async.transport._failures import connect_error, status_error
from dan_async.transport.session import make_session
from dan_async.transport.tls import client_ssl
from dan_async.types import Json

__all__ = ["RawCall", "WebSocketTransport"]


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

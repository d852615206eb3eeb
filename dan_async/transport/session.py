"""Making aiohttp sessions that send nothing anywhere but where they were told to."""

from __future__ import annotations

import aiohttp

from dan_async.config import TransportOptions
from dan_async.errors import ClientClosedError

__all__ = ["make_session"]

#: Idle HTTP connections are dropped before common servers drop them (from 5 s on): a POST that meets a connection that is
#: just being closed fails, and may not be repeated blindly.
_KEEPALIVE_S = 4.0

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)


def make_session(
    options: TransportOptions,
    *,
    share: aiohttp.ClientSession | None = None,
    trace: aiohttp.TraceConfig | None = None,
    max_connections: int = 100,
    response_class: type[aiohttp.ClientResponse] = aiohttp.ClientResponse,
    ws_response_class: type[aiohttp.ClientWebSocketResponse] = aiohttp.ClientWebSocketResponse,
) -> aiohttp.ClientSession:
    """
    Make a session for the transports: no environment proxy unless asked for, no cookies of its own, no decompression.

    Args:
        options: How connections are made. ``ssl_context``, ``pins``, ``proxy`` and ``headers`` belong to each request.
        share: A session of the caller's, whose connections, cookies and default headers are used. It stays theirs:
            closing the new session does not close it.
        trace: Sees the requests.
        max_connections: Connections open at a time, if none are shared.
        response_class: What makes the responses.
        ws_response_class: What makes the WebSockets.

    Returns:
        The session. Close it.

    Raises:
        ClientClosedError: The session to share was closed.
    """
    traces = [trace] if trace else []
    if share is None:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=options.trust_env,
            timeout=_NO_TIMEOUT,
            auto_decompress=False,
            trace_configs=traces,
            response_class=response_class,
            ws_response_class=ws_response_class,
        )
    if share.closed:
        raise ClientClosedError("the given aiohttp session was closed by its owner")
    return aiohttp.ClientSession(
        connector=share.connector,
        connector_owner=False,
        cookie_jar=share.cookie_jar,
        headers=share.headers,
        trust_env=options.trust_env,
        timeout=_NO_TIMEOUT,
        auto_decompress=False,
        trace_configs=[*share.trace_configs, *traces],
        response_class=response_class,
        ws_response_class=ws_response_class,
    )

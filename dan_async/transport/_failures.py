"""
aiohttp's errors, translated once, here.

Its errors hold the request: headers with API keys, URLs with credentials. So ours neither repeat their text nor keep them as
cause or context; what may be kept is the operating system's or OpenSSL's own error beneath.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp

from dan_async.errors import ConnectError
from dan_async.retry_table import HTTP_STATUSES
from dan_async.transport.tls import PinMismatchError

#: A peer cannot send us away for longer than this, in seconds.
LONGEST_RETRY_AFTER_S = 24 * 3600.0

_HINTS = {
    401: "The server wants credentials; give them as TransportOptions(headers=…)",
    403: "The server does not let this client in; check the credentials in TransportOptions(headers=…)",
    404: "There is nothing at this path; check the URL",
    407: "The proxy wants credentials; put them into the URL of TransportOptions(proxy=…)",
    429: "The server asks to slow down",
    503: "The server is overloaded or restarting; try again later",
}
_REDIRECT_HINT = (
    "Redirects are not followed, since they would take signed requests elsewhere; give the final URL"
)
_CERTIFICATE_HINT = "Check the URL's host name; for a private CA give TransportOptions(ssl_context=…)"
_PIN_HINT = "If the server's key was changed on purpose, add the new key's hash to TransportOptions(pins=…)"


def parse_retry_after(
    headers: Mapping[str, str] | None, *, clock: Callable[[], float] = time.time
) -> float | None:
    """Read Retry-After (RFC 9110 section 10.2.3): seconds, or an HTTP date. None if there is none or it is malformed."""
    text = (headers or {}).get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        # Cut before int(): thousands of digits would take long or be refused.
        return min(float(int(text[:9])) if len(text) <= 9 else LONGEST_RETRY_AFTER_S, LONGEST_RETRY_AFTER_S)
    if not text:
        return None
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - clock()), LONGEST_RETRY_AFTER_S)


def status_error(
    where: str, status: int, headers: Mapping[str, str] | None, *, who: str = ""
) -> ConnectError:
    """Make the error of an HTTP status that is not the one hoped for."""
    is_redirect = 300 <= status < 400
    return ConnectError(
        f"{who or where} answered with HTTP status {status}" + (f" for {where}" if who else ""),
        hint=_REDIRECT_HINT if is_redirect else _HINTS.get(status, ""),
        status=status,
        retry_after=parse_retry_after(headers) if status in (429, 503) else None,
        retryable=status in HTTP_STATUSES,
    )


def connect_error(where: str, error: BaseException) -> ConnectError:
    """
    Translate what aiohttp raised while a connection was being opened.

    Args:
        where: The URL, redacted.
        error: What was raised. Neither kept nor quoted.

    Returns:
        The error to raise, outside of the ``except`` block that caught *error*: Python would keep it as context.
    """
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=PinMismatchError() as cause):
            found = ConnectError(
                f"the public key of {where} is not a pinned one", hint=_PIN_HINT, retryable=False
            )
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            why = getattr(cause, "verify_message", "") or "it is not valid"
            found = ConnectError(
                f"the certificate of {where} was refused: {why.rstrip('.')}",
                hint=_CERTIFICATE_HINT,
                retryable=False,
            )
        case aiohttp.ClientConnectorSSLError(os_error=cause):
            found = ConnectError(f"no TLS with {where}: {_tls_reason(cause)}", retryable=False)
        case aiohttp.ClientProxyConnectionError(os_error=cause):
            found = ConnectError(f"the proxy for {where} could not be reached: {_os_reason(cause)}")
        case aiohttp.ClientConnectorError(os_error=cause):
            found = ConnectError(
                f"no connection to {where}: {_os_reason(cause)}",
                hint="Check the URL, and that the server is running",
            )
        case aiohttp.ClientHttpProxyError():
            return status_error(where, error.status, error.headers, who="the proxy")
        case aiohttp.WSServerHandshakeError(status=101):
            return ConnectError(f"{where} is not a WebSocket server: its handshake is wrong", retryable=False)
        case aiohttp.WSServerHandshakeError():
            return status_error(where, error.status, error.headers)
        case aiohttp.ClientResponseError():
            return ConnectError(f"{where} answered with something that is not HTTP", retryable=False)
        case aiohttp.ServerTimeoutError():
            return ConnectError(f"no connection to {where} in time")
        case aiohttp.ClientConnectionError():
            return ConnectError(f"{where} closed the connection before it was ready")
        case OSError():
            return ConnectError(f"no connection to {where}: {_os_reason(error)}")
        case _:
            return ConnectError(f"no connection to {where}: {type(error).__name__}", retryable=False)
    found.__cause__ = cause
    return found


def _os_reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _tls_reason(error: OSError) -> str:
    return (error.reason or type(error).__name__) if isinstance(error, ssl.SSLError) else _os_reason(error)

"""
The parts of a connection: aiohttp sessions, TLS settings and public-key pins; and aiohttp's errors translated to ours.

A pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (as in RFC 7469 section 2.4), so that it survives a renewal
of the certificate with the same key. The server's own certificate must match one of the pins; its chain, host name and
dates are checked as without pins. The check is part of the TLS handshake: a peer with another key sees no byte of any
request, through a proxy or not.

aiohttp's errors hold the request: headers with API keys, URLs with credentials. So ours neither repeat their text nor keep
them as cause or context; what may be kept is the operating system's or OpenSSL's own error beneath.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import aiohttp

from dan_async.config import TransportOptions
from dan_async.deadline import TimeLimits
from dan_async.errors import ClientClosedError, ConnectError, DanError, RequestTimeoutError
from dan_async.retry import HTTP_STATUSES

#: Idle HTTP connections are dropped before common servers drop them (from 5 s on): a POST that meets a connection that is
#: just being closed fails, and may not be repeated blindly.
_KEEPALIVE_S = 4.0

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None)

#: A peer cannot send us away for longer than this, in seconds.
LONGEST_RETRY_AFTER_S = 24 * 3600.0

_HINTS = {
    200: "Something else than this protocol is served there, such as a web page; check the URL",
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


# --- sessions ---------------------------------------------------------------------------------------------------------


def make_session(
    options: TransportOptions,
    *,
    share: aiohttp.ClientSession | None = None,
    max_connections: int = 100,
    middleware: aiohttp.ClientMiddlewareType | None = None,
) -> aiohttp.ClientSession:
    """
    Make a session that sends nothing anywhere but where it was told to.

    No environment proxy unless asked for, no cookies of its own, no decompression. A session to *share* lends its
    connections, cookies and default headers, and stays its owner's: closing the new one does not close it.
    """
    common: dict[str, Any] = {
        "trust_env": options.trust_env,
        "timeout": _NO_TIMEOUT,
        "auto_decompress": False,
        "middlewares": () if middleware is None else (middleware,),
    }
    if share is None:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=_KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            **common,
        )
    if share.closed:
        raise ClientClosedError("the given aiohttp session was closed by its owner")
    return aiohttp.ClientSession(
        connector=share.connector,
        connector_owner=False,
        cookie_jar=share.cookie_jar,
        headers=share.headers,
        trace_configs=share.trace_configs,
        **common,
    )


# --- TLS and pins -----------------------------------------------------------------------------------------------------


class PinMismatchError(ssl.SSLCertVerificationError):
    """The server's public key is not one of the pinned keys."""


def spki_pin(certificate: bytes) -> bytes:
    """
    Return the pin of a DER-encoded certificate.

    Raises:
        ValueError: It is not a certificate, or its key is of an unknown kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_der_x509_certificate

    try:
        key = load_der_x509_certificate(certificate).public_key()
    except UnsupportedAlgorithm as error:
        raise ValueError("the certificate's key is of an unknown kind") from error
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


class _PinnedObject:
    """An ``ssl.SSLObject`` whose handshake ends only when the peer's key is a pinned one."""

    def __init__(self, inner: ssl.SSLObject, pins: frozenset[bytes]) -> None:
        self._inner = inner
        self._pins = pins
        # Called for every piece of data: bound once instead of looked up through __getattr__.
        self.read = inner.read
        self.write = inner.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def do_handshake(self) -> None:
        self._inner.do_handshake()
        certificate = self._inner.getpeercert(binary_form=True)
        try:
            matches = certificate is not None and spki_pin(certificate) in self._pins
        except ValueError:
            matches = False
        if not matches:
            raise PinMismatchError("the server's public key is not one of the pinned keys")


class _PinnedContext(ssl.SSLContext):
    """
    Makes the connections of another context, with pins.

    The other context is the caller's and may be in use elsewhere, so it is not changed. Used without ``wrap_bio``, this one
    has no trusted certificates and refuses every server.
    """

    _inner: ssl.SSLContext
    _pins: frozenset[bytes]

    @classmethod
    def around(cls, inner: ssl.SSLContext, pins: frozenset[bytes]) -> _PinnedContext:
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context._inner = inner
        context._pins = pins
        return context

    def wrap_bio(self, *args: Any, **kwargs: Any) -> Any:
        return _PinnedObject(self._inner.wrap_bio(*args, **kwargs), self._pins)


@lru_cache(maxsize=1)
def _default_context() -> ssl.SSLContext:
    # Loading the system's certificates takes milliseconds; one context serves every transport and is never changed.
    return ssl.create_default_context()


def client_ssl(context: ssl.SSLContext | None, pins: tuple[bytes, ...]) -> ssl.SSLContext | bool:
    """Return what aiohttp takes as *ssl*: a context; or True, its own default with every check on."""
    if not pins:
        return True if context is None else context
    return _PinnedContext.around(context or _default_context(), frozenset(pins))


# --- failures ---------------------------------------------------------------------------------------------------------


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
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(max(0.0, date.timestamp() - clock()), LONGEST_RETRY_AFTER_S)


def status_error(
    where: str, status: int, headers: Mapping[str, str] | None, *, who: str = ""
) -> ConnectError:
    """Make the error of an HTTP status that is not the expected one."""
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
    Translate an error of aiohttp's that was raised while a connection was being opened.

    To be raised outside of the ``except`` block that caught *error*: Python would keep it as context.
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
            found = ConnectError(f"TLS with {where} failed: {_tls_reason(cause)}", retryable=False)
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
    if not isinstance(error, ssl.SSLError):
        return _os_reason(error)
    known = {"WRONG_VERSION_NUMBER": "the server answered without TLS"}
    return known.get(error.reason, error.reason) or type(error).__name__


def shown_limit(timeout_s: float | None) -> str:
    """Return the text of a time limit: what is left of one is not a round number; the limit was."""
    return f"{round(timeout_s or 0.0, 2):g} s"


# --- calls under way --------------------------------------------------------------------------------------------------


class InFlight:
    """The calls of one transport, which run in their callers' own tasks; their time limits are how ``aclose`` ends them."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._calls: set[asyncio.Timeout] = set()
        self.limits = TimeLimits(_cut_off)
        #: Set when the last call has ended after ``aclose``.
        self._all_ended = asyncio.Event()
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, timeout_s: float | None) -> asyncio.Timeout:
        """Return the time limit of a call that begins: to be entered at once, and handed to ``end`` in any case."""
        if self.is_closed:
            raise self.closed_error()
        limit = asyncio.Timeout(None)
        self._calls.add(limit)
        if timeout_s is not None:
            self.limits.begin(limit, timeout_s)
        return limit

    def end(self, limit: asyncio.Timeout) -> None:
        """Take note that a call has ended."""
        self._calls.discard(limit)
        self.limits.end(limit)
        if self.is_closed and not self._calls:
            self._all_ended.set()

    @asynccontextmanager
    async def call(self, method: str, timeout_s: float | None) -> AsyncIterator[None]:
        """Run one call inside ``async with``, cut off when *timeout_s* passes or the transport is closed."""
        limit = self.begin(timeout_s)
        try:
            async with limit:
                yield
        except TimeoutError as error:
            if isinstance(error, DanError) or not limit.expired():
                raise  # errors of ours may be TimeoutErrors as well
            if self.is_closed:
                raise self.closed_error() from None
            raise RequestTimeoutError(
                f"{method} at {self._where} timed out after {shown_limit(timeout_s)}: no reply came"
            ) from None
        finally:
            self.end(limit)

    def closed_error(self) -> ClientClosedError:
        """Make the error of a call on a closed transport."""
        return ClientClosedError(f"the connection to {self._where} was closed by its owner")

    async def aclose(self) -> None:
        """End every call and wait until it has ended."""
        self.is_closed = True
        for limit in self._calls:
            _cut_off(limit)
        self.limits.close()
        if self._calls:
            await self._all_ended.wait()


def _cut_off(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())

"""The translation of aiohttp's errors."""

from __future__ import annotations

import datetime as dt
import inspect
import ssl
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from dan_async.errors import ConnectError
from dan_async.transport.connecting import (
    LONGEST_RETRY_AFTER_S,
    PinMismatchError,
    connect_error,
    parse_retry_after,
    status_error,
)

_SECRET = "s3cret"
_WHERE = "wss://node.example/v1/rpc"
_KEY = ConnectionKey("node.example", 443, True, True, URL(f"http://u:{_SECRET}@proxy"), None, None)
_INFO = RequestInfo(
    URL(f"wss://u:{_SECRET}@node.example/?k={_SECRET}"),
    "GET",
    CIMultiDictProxy(CIMultiDict({"X-Api-Key": _SECRET})),
    URL(f"wss://node.example/?k={_SECRET}"),
)


def _make(kind):
    """Make an error of aiohttp's, with secrets wherever it has a place for them."""
    match kind:
        case aiohttp.ClientConnectorCertificateError:
            return kind(_KEY, ssl.SSLCertVerificationError(1, "certificate verify failed"))
        case _ if issubclass(kind, aiohttp.ClientConnectorError):
            return kind(_KEY, OSError(111, "Connection refused"))
        case _ if issubclass(kind, aiohttp.ClientResponseError):
            return kind(_INFO, (), status=502, message=_SECRET, headers=CIMultiDict({"Set-Cookie": _SECRET}))
        case aiohttp.ServerFingerprintMismatch:
            return kind(b"", b"", "node.example", 443)
        case _:
            return kind(_SECRET)


_KINDS = sorted(
    (
        kind
        for _, kind in inspect.getmembers(aiohttp, inspect.isclass)
        if issubclass(kind, aiohttp.ClientError)
    ),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", _KINDS, ids=lambda kind: kind.__name__)
def test_every_client_error_becomes_a_connect_error_without_its_secrets(kind):
    """Neither the text nor the cause of ours has anything of the request in it."""
    found = connect_error(_WHERE, _make(kind))
    assert type(found) is ConnectError
    assert _WHERE in str(found)
    assert _SECRET not in str(found)
    assert not isinstance(found.__cause__, aiohttp.ClientError)
    assert _SECRET not in repr(found.__cause__)


@pytest.mark.parametrize(
    ("status", "hint", "retryable"),
    [
        (200, "check the URL", False),
        (301, "Redirects are not followed", False),
        (307, "Redirects are not followed", False),
        (401, "credentials", False),
        (403, "does not let this client in", False),
        (404, "check the URL", False),
        (429, "slow down", True),
        (500, "", True),
        (503, "try again later", True),
    ],
)
def test_statuses_carry_a_hint_and_whether_to_retry(status, hint, retryable):
    """A person can act on what went wrong."""
    found = status_error(_WHERE, status, {"Retry-After": "3"})
    assert found.status == status
    assert hint in found.hint
    assert found.retryable is retryable
    assert found.retry_after == (3.0 if status in (429, 503) else None)


def test_wrong_pin_is_told_apart_from_a_bad_certificate():
    """The one asks for a new pin, the other for a CA."""
    wrong_pin = connect_error(_WHERE, aiohttp.ClientConnectorCertificateError(_KEY, PinMismatchError("x")))
    bad = connect_error(
        _WHERE, aiohttp.ClientConnectorCertificateError(_KEY, ssl.SSLCertVerificationError(1, "x"))
    )
    assert "pins" in wrong_pin.hint
    assert "ssl_context" in bad.hint
    assert not wrong_pin.retryable
    assert not bad.retryable


def test_operating_system_errors_are_named():
    """The reason is readable, and the original error is the cause."""
    cause = ConnectionRefusedError(111, "Connection refused")
    found = connect_error(_WHERE, aiohttp.ClientConnectorError(_KEY, cause))
    assert "Connection refused" in str(found)
    assert found.__cause__ is cause
    assert found.retryable
    assert "Name or service not known" in str(connect_error(_WHERE, OSError(-2, "Name or service not known")))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("9" * 5000, LONGEST_RETRY_AFTER_S),
        ("86401", LONGEST_RETRY_AFTER_S),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("Fri, 99 Zzz 2099 99:99:99 GMT", None),
        ("Fri, " + "9" * 30 + "31 Dec 1999 23:59:59 GMT", None),
    ],
)
def test_retry_after_in_seconds(text, seconds):
    """Whole seconds, bounded; anything malformed counts as not given."""
    assert parse_retry_after({"Retry-After": text}) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(90, 90.0), (-90, 0.0), (10**8, LONGEST_RETRY_AFTER_S)])
def test_retry_after_as_a_date(ahead, seconds):
    """An HTTP date counts from our clock and never backwards."""
    now = 1_700_000_000
    date = format_datetime(dt.datetime.fromtimestamp(now + ahead, dt.UTC), usegmt=True)
    assert parse_retry_after({"Retry-After": date}, clock=lambda: now) == seconds


def test_retry_after_as_a_date_without_a_zone_is_utc():
    """RFC 9110 dates are UTC whatever they say."""
    assert (
        parse_retry_after({"Retry-After": "Tue, 14 Nov 2023 22:13:30"}, clock=lambda: 1_700_000_000) == 10.0
    )


def test_no_headers_no_retry_after():
    """There may be no headers at all."""
    assert parse_retry_after(None) is None

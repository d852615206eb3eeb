"""Settings check themselves."""

from __future__ import annotations

import ssl
from enum import IntEnum
from typing import Any

import pytest

from dan_async.config import NodeEndpoint, Threshold, Timeouts, TransportOptions, check_url, redact_url
from dan_async.errors import ConfigurationError, InsecureTransportError, InvalidFieldError

OPERATOR = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
WS = ("wss", "ws")


@pytest.mark.parametrize(("t", "n"), [(2, 2), (2, 3), (3, 5), (11, 20), (20, 20)])
def test_good_thresholds(t: int, n: int) -> None:
    """2 <= t <= n <= 20; the text form is read back."""
    assert Threshold.parse(str(Threshold(t, n))) == Threshold(t, n)


@pytest.mark.parametrize(
    ("t", "n"),
    [(1, 1), (1, 3), (0, 0), (4, 3), (-2, 3), (2, 21), (21, 21), (True, 2), (2, True), ("2", 3), (2.0, 3)],
)
def test_bad_thresholds(t: Any, n: Any) -> None:
    """Anything else names threshold or parties_number."""
    with pytest.raises(InvalidFieldError, match=r"threshold|parties_number"):
        Threshold(t, n)


@pytest.mark.parametrize(
    "text", ["", "3", "3of5", "3-of-", "-of-5", "3-of-5-of-7", "٣-of-٥", "3-of-99999", "a-of-b"]
)
def test_bad_threshold_texts(text: str) -> None:
    """Only T-of-N is read."""
    with pytest.raises(InvalidFieldError, match=r"threshold|parties_number"):
        Threshold.parse(text)


class _Size(IntEnum):
    SEVEN = 7


def test_a_number_of_an_enumeration_is_a_number() -> None:
    """It was taken for none, and got the smallest threshold there is."""
    assert Threshold.majority(_Size.SEVEN) == Threshold(4, 7)
    assert Threshold(3, 5).changed(None, _Size.SEVEN) == Threshold(4, 7)


@pytest.mark.parametrize(
    "url",
    [
        "wss://node.example/v1/rpc",
        "wss://node.example:8443/v1",
        "ws://127.0.0.1:80/x",
        "ws://127.8.9.1/x",
        "ws://localhost:1",
        "ws://[::1]:9/x",
    ],
)
def test_good_urls(url: str) -> None:
    """TLS anywhere, plain only to loopback."""
    assert check_url("url", url, schemes=WS) == url


@pytest.mark.parametrize(
    "url",
    [
        "ws://example.com",
        "ws://10.0.0.1",
        "ws://localhost.evil.example",
        "ws://127.0.0.1.nip.example",
        "ws://0.0.0.0",
    ],
)
def test_plain_urls_to_other_hosts(url: str) -> None:
    """Anything that is not loopback by its own name needs TLS."""
    with pytest.raises(InsecureTransportError, match="not loopback"):
        check_url("url", url, schemes=WS)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node.example",
        "http://x",
        "wss://",
        "wss:///x",
        "wss://x:99999",
        "wss://[::1",
        "wss://a b/",
        "wss://x/\n",
        5,
        None,
    ],
)
def test_bad_urls(url: Any) -> None:
    """Everything else is a ConfigurationError that does not repeat the URL."""
    with pytest.raises(ConfigurationError):
        check_url("url", url, schemes=WS)


def test_urls_lose_their_secrets_when_shown() -> None:
    """User, password, query and fragment are dropped, and a part of the path that is as long as an API key."""
    assert redact_url("wss://u:p@h.example:1/v1?key=k#f") == "wss://h.example:1/v1"
    assert redact_url("ws://[::1]:5/v1") == "ws://[::1]:5/v1"
    assert redact_url(f"https://h.example/v3/{'a1' * 16}") == "https://h.example/v3/***"
    assert (
        redact_url("https://h.example/api/v2/80002/nK7B.dd7f7861-190d/x")
        == "https://h.example/api/v2/80002/***/x"
    )


def test_endpoint_forms() -> None:
    """URL=OPERATOR, a mapping and the object itself name the same node, whatever the address's case."""
    endpoint = NodeEndpoint("wss://h.example/v1/rpc", OPERATOR)
    assert NodeEndpoint.of("wss://h.example/v1/rpc=" + OPERATOR.lower()) == endpoint
    assert NodeEndpoint.of({"url": "wss://h.example/v1/rpc/", "operator": OPERATOR}) == endpoint
    assert NodeEndpoint.of(endpoint) is endpoint
    assert NodeEndpoint.of("wss://h.example/v1?a=b=" + OPERATOR).url == "wss://h.example/v1?a=b"


@pytest.mark.parametrize(
    "name", ["total_s", "attempt_s", "connect_s", "wallet_s", "grace_s", "hedge_s", "patience_s"]
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "1", None])
def test_bad_timeouts(name: str, value: Any) -> None:
    """Every limit is a positive, finite number, and named when it is not; only the grace may be left to the client."""
    if name == "grace_s" and value is None:
        assert Timeouts(grace_s=None) == Timeouts()
        return
    with pytest.raises(InvalidFieldError, match=name):
        Timeouts(**{name: value})


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"proxy": "socks5://x"}, "proxy"),
        ({"proxy": "nonsense"}, "proxy"),
        ({"proxy": "http://u:secret@127.0.0.1:x"}, "proxy"),
        ({"proxy": "http://proxy.example:99999"}, "proxy"),
        ({"proxy": "http://proxy.example :1"}, "proxy"),
        ({"proxy": 5}, "proxy"),
        ({"pins": ["00"]}, "pins"),
        ({"pins": ["zz" * 32]}, "pins"),
        ({"headers": {"A": "b\r\nC: d"}}, "headers"),
        ({"headers": {"A": 5}}, "headers"),
        ({"headers": 5}, "headers"),
        ({"pins": "00" * 32}, "pins"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"max_message_bytes": 10**400}, "max_message_bytes"),
        ({"trust_env": "no"}, "trust_env"),
    ],
)
def test_bad_options(options: dict[str, Any], field: str) -> None:
    """Each option names itself when it is wrong."""
    with pytest.raises(InvalidFieldError, match=field):
        TransportOptions(**options)


@pytest.mark.parametrize("context", [False, True, 0, "", "CERT_NONE", ssl.SSLContext])
def test_certificate_checks_are_not_switched_off_by_a_stray_value(context: Any) -> None:
    """aiohttp takes False for "check nothing": here it is no TLS settings at all."""
    with pytest.raises(InvalidFieldError, match=r"ssl_context must be an ssl\.SSLContext or None, not"):
        TransportOptions(ssl_context=context)
    own = ssl.create_default_context()
    assert TransportOptions(ssl_context=own).ssl_context is own


def test_options_hide_credentials() -> None:
    """Headers and proxy credentials are not in the repr."""
    options = TransportOptions(headers={"Authorization": "hunter2"}, proxy="http://u:hunter2@p.example:1")
    assert "hunter2" not in repr(options)
    assert options.trust_env is False

"""Settings: frozen values, each checked when it is made."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

from attrs import converters, field, frozen

from dan_async._values import (
    check_bool,
    check_instance,
    check_int,
    check_list,
    check_mapping,
    check_seconds,
    from_hex,
    in_seconds,
    optional,
    required,
)
from dan_async.crypto.address import parse_address
from dan_async.errors import InsecureTransportError, InvalidFieldError
from dan_async.types import OperatorAddress

__all__ = ["MAX_PARTIES", "NodeEndpoint", "Threshold", "Timeouts", "TransportOptions", "check_url"]

#: Most parties that one key may have. Every party exchanges messages with every other, so the cost grows with the square.
MAX_PARTIES = 20

#: Longer parts of a URL's path are taken for API keys.
LONGEST_SHOWN_PART = 15

_THRESHOLD = re.compile(r"([0-9]{1,4})-of-([0-9]{1,4})\Z")


@frozen
class Threshold:
    """
    How many parties hold a share (n) and how many of them must act together (t): 2 <= t <= n <= 20.

    t parties suffice, and t - 1 learn nothing.

    Args:
        t: Parties needed to sign.
        n: Parties that hold a share of the key.

    Raises:
        InvalidFieldError: t or n is out of range; the field is called threshold or parties_number.
    """

    t: int = field()
    n: int = field()

    def __attrs_post_init__(self) -> None:
        if type(self.t) is type(self.n) is int and 2 <= self.t <= self.n <= MAX_PARTIES:
            return
        check_int("parties_number", self.n, least=2, most=MAX_PARTIES)
        check_int("threshold", self.t, least=2, most=MAX_PARTIES)
        if self.t > self.n:
            raise InvalidFieldError(
                "threshold", f"is {self.t}, more than parties_number, {self.n}", hint="Ask for 2 <= t <= n"
            )

    def __str__(self) -> str:
        return f"{self.t}-of-{self.n}"

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """
        Return the threshold of a text such as ``3-of-5``.

        Args:
            text: The text.

        Raises:
            InvalidFieldError: It has another form, or not 2 ≤ t ≤ n ≤ 20.
        """
        found = _THRESHOLD.match(check_instance("threshold", text, str))
        if not found:
            raise InvalidFieldError("threshold", "must have the form T-of-N", hint="For example: 3-of-5")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def majority(cls, parties: int) -> Threshold:
        """
        Return the smallest majority of the parties: 2-of-3, 3-of-5, 11-of-20.

        Args:
            parties: n, 2 to 20.

        Raises:
            InvalidFieldError: It is not in that range.
        """
        return cls(parties // 2 + 1 if isinstance(parties, int) else 2, parties)

    @classmethod
    def of_pool(cls, nodes: int) -> Threshold:
        """
        Return the usual threshold of a pool: all of its nodes, 20 at most, and a majority of them.

        Args:
            nodes: How many there are.
        """
        return cls.majority(min(max(nodes, 2), MAX_PARTIES))

    def changed(self, t: int | None, n: int | None) -> Threshold:
        """
        Return the threshold with the numbers that are given; a majority of another n, if that alone is given.

        Args:
            t: Parties needed to sign; None if it is not said.
            n: Parties that hold a share; None for this one's.
        """
        n = self.n if n is None else n
        if t is not None:
            return Threshold(t, n)
        return self if isinstance(n, int) and n == self.n else Threshold.majority(n)


#: DAN's usual threshold, for a gateway, which does not say how many nodes it has.
DEFAULT_THRESHOLD = Threshold(3, 5)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(name: str, url: object, *, schemes: tuple[str, ...]) -> str:
    """
    Return a URL without trailing slash and fragment, if it has a known scheme, a host, and TLS unless that is loopback.

    Args:
        name: The field's name, for the error.
        url: The URL.
        schemes: Allowed schemes; wss and https are the ones with TLS.

    Raises:
        InvalidFieldError: It is not such a URL. It is not repeated, since it may carry credentials.
        InsecureTransportError: It has no TLS and its host is not loopback.
    """
    parts = _parts_of(name, url, schemes)
    if parts.scheme not in ("wss", "https") and not is_loopback(str(parts.hostname)):
        raise InsecureTransportError(
            f"{name} uses {parts.scheme}:// to a host that is not loopback",
            hint=f"Use {parts.scheme}s://; without TLS anyone on the way can read and change what is sent",
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), parts.query, ""))


def _parts_of(name: str, url: object, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of a URL that has a known scheme and a host."""
    url = check_instance(name, url, str, "a URL as text")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        if host and host.isascii():
            host.encode("idna")  # as the resolver does: no label is empty or longer than 63 characters
    except ValueError:
        raise InvalidFieldError(name, "is not a valid URL") from None
    if parts.scheme not in schemes or not host:
        raise InvalidFieldError(
            name, f"must be a URL that begins with {' or '.join(f'{s}://' for s in schemes)}"
        )
    if any(c.isspace() or not c.isprintable() for c in url):
        raise InvalidFieldError(name, "has white space or control characters in it")
    return parts


def check_transport(name: str, value: object) -> None:
    """Check that something that is no URL is a transport."""
    if not (callable(getattr(value, "call", None)) and callable(getattr(value, "aclose", None))):
        raise InvalidFieldError(name, f"must be a URL or a transport, not {type(value).__name__}")


def redact_url(url: str) -> str:
    """Return a URL fit for logs and errors: no user, password or query, and no long part of the path, such as an API key."""
    parts = urlsplit(url)
    path = "/".join("***" if len(part) > LONGEST_SHOWN_PART else part for part in parts.path.split("/"))
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, host + port, path, "", ""))


def _to_url(value: Any) -> str:
    return check_url("url", value, schemes=("wss", "ws", "https", "http"))


def _to_operator(value: Any) -> OperatorAddress:
    return OperatorAddress(parse_address("operator", value))


@frozen
class NodeEndpoint:
    """
    A node: where it is and who it is.

    Args:
        url: Its RPC URL, for example ``wss://node.example/v1/rpc``; ``ws`` only to loopback. With ``https`` (or
            ``http`` to loopback) each request is a POST of its own.
        operator: The address of its identity key. The client talks to no node that cannot sign with it.

    Raises:
        InvalidFieldError: The URL or the operator is wrong.
        InsecureTransportError: The URL has no TLS and its host is not loopback.
    """

    url: str = field(converter=_to_url)
    operator: OperatorAddress = field(converter=_to_operator)

    def __repr__(self) -> str:
        return f"NodeEndpoint(url={redact_url(self.url)!r}, operator={self.operator!r})"

    @classmethod
    def of(cls, value: NodeEndpoint | str | Mapping[str, Any]) -> Self | NodeEndpoint:
        """
        Return the endpoint of any of its forms; the same object if it is one already.

        Args:
            value: An endpoint, ``URL=OPERATOR``, or a mapping with *url* and *operator*.

        Raises:
            InvalidFieldError: It is none of these.
        """
        if isinstance(value, NodeEndpoint):
            return value
        if isinstance(value, str):
            url, _, operator = value.rpartition("=")
            if not url:
                raise InvalidFieldError("node", "must have the form URL=OPERATOR")
            return cls(url, operator)
        if isinstance(value, Mapping) and set(value) == {"url", "operator"}:
            return cls(value["url"], value["operator"])
        raise InvalidFieldError("node", "must be a NodeEndpoint, 'URL=OPERATOR' or {'url': …, 'operator': …}")


def check_operators(nodes: Sequence[NodeEndpoint]) -> None:
    """Check that no two nodes have the same operator."""
    if len({node.operator for node in nodes}) != len(nodes):
        raise InvalidFieldError(
            "nodes", "names an operator twice", hint="Each node has an identity key of its own"
        )


@frozen(kw_only=True)
class Timeouts:
    """
    Time limits, in seconds.

    Args:
        total_s: The one deadline over a job, retries and restarts included. While an interactive wallet is waited for,
            it stands still.
        attempt_s: One attempt at one node.
        connect_s: Opening one connection.
        wallet_s: How long a wallet may take to sign; a person may be reading.
        grace_s: After t nodes agree, how long to listen for the rest, so that the caller learns how many hold a share.
            None for a tenth of the time that it took until t agreed, at least 2 ms and at most 50 ms, and not at all for
            nodes that were late twice in a row, so that a stalled node costs next to nothing.
        hedge_s: How long a node may take to answer the challenge before a spare is asked as well.
        patience_s: How long n nodes are waited for at the challenge, spares included, before fewer will do, if
            *min_parties* allows it. And how long a change of an ephemeral key, or a new passkey, waits in each of its two
            steps for those nodes that are not needed, but should know of it.
    """

    total_s: float = field(default=30.0, converter=in_seconds, validator=required(check_seconds))
    attempt_s: float = field(default=15.0, converter=in_seconds, validator=required(check_seconds))
    connect_s: float = field(default=5.0, converter=in_seconds, validator=required(check_seconds))
    wallet_s: float = field(default=120.0, converter=in_seconds, validator=required(check_seconds))
    grace_s: float | None = field(
        default=None, converter=converters.optional(in_seconds), validator=optional(check_seconds)
    )
    hedge_s: float = field(default=0.25, converter=in_seconds, validator=required(check_seconds))
    patience_s: float = field(default=2.5, converter=in_seconds, validator=required(check_seconds))


#: More than that in one message, no peer needs to send, and no client should hold.
_LARGEST_MESSAGE = 1024**3


def _to_pins(value: Any) -> tuple[bytes, ...]:
    return tuple(
        pin if isinstance(pin, bytes) and len(pin) == 32 else from_hex(pin, field="pins", length=32)
        for pin in check_list("pins", value)
    )


@frozen(kw_only=True)
class TransportOptions:
    """
    How connections are made; the same for WebSocket and HTTP.

    Args:
        ssl_context: TLS settings: a private CA, a client certificate. Certificates and host names are always checked
            unless this context says otherwise.
        pins: SHA-256 hashes of acceptable server public keys (SubjectPublicKeyInfo), as 32 bytes or hex; any one of
            them suffices, so list a backup. Checked on top of the certificate.
        proxy: URL of an HTTP proxy (CONNECT).
        headers: Extra request headers, for example an API key. Never shown in logs or errors.
        max_message_bytes: Longest message accepted from a peer.
        trust_env: Whether proxies are taken from the environment.
        heartbeat_s: Seconds without a message, more than 0, after which a node is pinged over its WebSocket, so that a
            connection that went dead unnoticed is found before it is needed; None for never. Gateways have a connection for
            each operation, and neither this nor *pong_s* applies.
        pong_s: Seconds, more than 0, that a pinged node may take to send any whole message (a pong, as a rule), before its
            connection is given up and the requests on it fail. A node that owes a reply is pinged after a third of this.
    """

    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    pins: tuple[bytes, ...] = field(default=(), converter=_to_pins)
    proxy: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    max_message_bytes: int = field(
        default=1024 * 1024, validator=required(check_int, least=1, most=_LARGEST_MESSAGE)
    )
    trust_env: bool = field(default=False, validator=required(check_bool))
    heartbeat_s: float | None = field(
        default=10.0, converter=converters.optional(in_seconds), validator=optional(check_seconds)
    )
    pong_s: float = field(default=3.0, converter=in_seconds, validator=required(check_seconds))

    def __attrs_post_init__(self) -> None:
        if self.ssl_context is not None and not isinstance(self.ssl_context, ssl.SSLContext):
            raise InvalidFieldError(
                "ssl_context",
                f"must be an ssl.SSLContext or None, not {type(self.ssl_context).__name__}",
                hint="Certificates are always checked; ssl.create_default_context(cafile=…) trusts a private CA",
            )
        if self.proxy is not None:
            _parts_of("proxy", self.proxy, ("http", "https"))
        for name, value in check_mapping("headers", self.headers).items():
            if not (isinstance(name, str) and isinstance(value, str)) or any(
                c in "\r\n\0" for c in name + value
            ):
                raise InvalidFieldError("headers", "must be a mapping of text to text without line breaks")

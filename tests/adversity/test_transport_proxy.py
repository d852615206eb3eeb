"""Proxies: used when given, ignored when only the environment names one."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from dan_async.config import TransportOptions
from dan_async.errors import ConnectError
from dan_async.transport import HttpTransport, WebSocketTransport
from dan_async.transport.connecting import spki_pin
from tests.certificates import CertificateAuthority
from tests.helpers import CuttableProxy, assert_runs_under, error_of, no_leaks
from tests.servers import ConnectProxy, raw_server, rpc_server


@pytest.fixture(scope="module")
def authority():
    """A private CA."""
    return CertificateAuthority()


@pytest.fixture(params=["ws", "http", "wss", "https"])
def scheme(request):
    """Both transports, with and without TLS."""
    return request.param


@pytest.fixture
def tls(scheme, authority, tmp_path):
    """Give a server's settings, or None where there is no TLS."""
    return authority.issue().server_context(tmp_path) if scheme in ("wss", "https") else None


def connect(scheme, port, authority, *, session=None, **options):
    """Make a transport to a server on loopback."""
    kind = WebSocketTransport if scheme.startswith("ws") else HttpTransport
    if scheme in ("wss", "https"):
        options["ssl_context"] = authority.client_context()
    return kind(f"{scheme}://127.0.0.1:{port}/v1/rpc", options=TransportOptions(**options), session=session)


async def test_given_proxy_is_used(scheme, authority, tls):
    """With TLS the proxy sees CONNECT and nothing of the request."""
    proxy = ConnectProxy()
    async with no_leaks(), rpc_server(tls=tls) as server, raw_server(proxy) as proxy_port:
        transport = connect(
            scheme,
            server.port,
            authority,
            proxy=f"http://127.0.0.1:{proxy_port}",
            headers={"X-Api-Key": "abc"},
        )
        assert (await transport.call("m", "1", timeout_s=5))["params"] == 1
        await transport.aclose()
        assert len(proxy.heads) == 1
        if tls:
            assert proxy.heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} ")
            assert "X-Api-Key" not in proxy.heads[0]


async def test_proxy_credentials_reach_the_proxy_alone(scheme, authority, tls):
    """User and password in the proxy's URL go to the proxy and into no error."""
    proxy = ConnectProxy()
    async with rpc_server(tls=tls) as server, raw_server(proxy) as proxy_port:
        transport = connect(
            scheme, server.port, authority, proxy=f"http://user:s3cret@127.0.0.1:{proxy_port}"
        )
        await transport.call("m", "1", timeout_s=5)
        assert "Proxy-Authorization: Basic dXNlcjpzM2NyZXQ=" in proxy.heads[0]
        await transport.aclose()
        if tls:
            assert "Proxy-Authorization" not in server.headers[0]


@pytest.mark.parametrize("scheme", ["wss", "https"], indirect=True)
@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
async def test_proxy_that_refuses_is_named_with_its_status(scheme, authority, tls, status):
    """The error tells the proxy's refusal from the server's, and hides the proxy's password."""
    proxy = ConnectProxy()
    proxy.status = status
    async with no_leaks(), rpc_server(tls=tls) as server, raw_server(proxy) as proxy_port:
        transport = connect(
            scheme, server.port, authority, proxy=f"http://user:s3cret@127.0.0.1:{proxy_port}"
        )
        error = await error_of(transport.call("m", "1", timeout_s=5))
        assert type(error) is ConnectError
        assert error.status == int(status[:3])
        assert "the proxy answered" in str(error)
        assert "s3cret" not in f"{error} {error.__dict__}"
        assert error.__context__ is None
        assert server.headers == []
        await transport.aclose()


async def test_proxy_that_is_down_is_a_connect_error(scheme, authority, tls):
    """The proxy is not gone around."""
    async with CuttableProxy(9) as down:
        proxy_port = down.port
    async with no_leaks(), rpc_server(tls=tls) as server:
        transport = connect(
            scheme, server.port, authority, proxy=f"http://user:s3cret@127.0.0.1:{proxy_port}"
        )
        error = await error_of(transport.call("m", "1", timeout_s=5))
        assert type(error) is ConnectError
        assert "proxy" in str(error)
        assert "s3cret" not in f"{error} {error.__dict__} {error.__cause__!r}"
        assert server.headers == []
        await transport.aclose()


@pytest.mark.parametrize("scheme", ["wss", "https"], indirect=True)
async def test_pins_hold_through_a_proxy(scheme, authority, tmp_path):
    """They are checked against the server at the far end of the tunnel, before a byte of the request."""
    certificate = authority.issue()
    tls = certificate.server_context(tmp_path)
    proxy = ConnectProxy()
    async with no_leaks(), rpc_server(tls=tls) as server, raw_server(proxy) as proxy_port:
        url = f"http://127.0.0.1:{proxy_port}"
        wrong = connect(scheme, server.port, authority, proxy=url, pins=[bytes(32)])
        error = await error_of(wrong.call("m", "1", timeout_s=5))
        assert type(error) is ConnectError
        assert "not a pinned one" in str(error)
        assert server.headers == []
        await wrong.aclose()
        right = connect(scheme, server.port, authority, proxy=url, pins=[spki_pin(certificate.der)])
        await right.call("m", "1", timeout_s=5)
        await right.aclose()


async def test_proxy_that_stalls_is_cut_off(scheme, authority, tls):
    """A proxy that never answers does not hold the call."""

    async def silent(reader, writer):
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(silent) as proxy_port, assert_runs_under(5):
        transport = connect(scheme, 9, authority, proxy=f"http://127.0.0.1:{proxy_port}")
        assert isinstance(await error_of(transport.call("m", "1", timeout_s=0.1)), TimeoutError)
        await transport.aclose()


@pytest.fixture
async def environment_proxy(monkeypatch):
    """Name a proxy in the environment; gives what it saw."""
    proxy = ConnectProxy()
    async with raw_server(proxy) as port:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "WS_PROXY", "WSS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield proxy


@pytest.mark.parametrize(
    "session_trusts", [None, False, True], ids=["own", "strict session", "trusting session"]
)
async def test_proxy_of_the_environment_is_ignored(scheme, authority, tls, environment_proxy, session_trusts):
    """Signed requests go straight to their peer, even over a given session that would trust the environment."""
    async with rpc_server(tls=tls) as server, aiohttp.ClientSession(trust_env=bool(session_trusts)) as given:
        session = None if session_trusts is None else given
        transport = connect(scheme, server.port, authority, session=session)
        await transport.call("m", "1", timeout_s=5)
        assert environment_proxy.heads == []
        await transport.aclose()


async def test_proxy_of_the_environment_is_used_when_asked_for(scheme, authority, tls, environment_proxy):
    """trust_env does what it says."""
    async with rpc_server(tls=tls) as server:
        transport = connect(scheme, server.port, authority, trust_env=True)
        await transport.call("m", "1", timeout_s=5)
        assert len(environment_proxy.heads) == 1
        await transport.aclose()

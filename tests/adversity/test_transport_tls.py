"""TLS over loopback: private CA, pins, bad certificates and peers that stall, for WebSocket and HTTP alike."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dan_async.config import TransportOptions
from dan_async.errors import ConnectError, RequestTimeoutError
from dan_async.transport import HttpTransport, WebSocketTransport
from dan_async.transport.connecting import spki_pin
from tests.certificates import CertificateAuthority
from tests.helpers import (
    CuttableProxy,
    assert_runs_under,
    cancelled_at,
    describe_sockets,
    error_of,
    no_leaks,
    open_sockets,
    wait_until,
)
from tests.servers import RpcServer, raw_server, rpc_server, serve

_OTHER_PIN = bytes(range(32))


@pytest.fixture(scope="module")
def authority():
    """A private CA."""
    return CertificateAuthority()


@pytest.fixture(params=["wss", "https"])
def scheme(request):
    """Both transports have to pass every test."""
    return request.param


def connect(scheme, port, *, host="127.0.0.1", **options):
    """Make a transport over TLS to a server on loopback."""
    kind = WebSocketTransport if scheme == "wss" else HttpTransport
    return kind(f"{scheme}://{host}:{port}/v1/rpc", options=TransportOptions(**options))


async def refusal(scheme, authority, certificate, folder, **options):
    """Give the error of a call that has to be refused; check that the server never saw a request."""
    tls = certificate.server_context(folder)
    options.setdefault("ssl_context", authority.client_context())
    async with no_leaks(), rpc_server(tls=tls) as server, assert_runs_under(10):
        transport = connect(scheme, server.port, headers={"X-Api-Key": "abc"}, **options)
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        await transport.aclose()
        assert server.headers == []
    assert type(error) is ConnectError
    assert not error.retryable
    assert error.__context__ is None
    return error


async def test_private_ca_is_trusted_when_given(scheme, authority, tmp_path):
    """ssl_context reaches both transports."""
    tls = authority.issue().server_context(tmp_path)
    async with no_leaks(), rpc_server(tls=tls) as server:
        transport = connect(scheme, server.port, ssl_context=authority.client_context())
        assert (await transport.call("m", "1", timeout_s=5))["params"] == 1
        await transport.aclose()


async def test_private_ca_is_not_trusted_when_not_given(scheme, authority, tmp_path):
    """The system's certificates decide, and do not know it."""
    error = await refusal(scheme, authority, authority.issue(), tmp_path, ssl_context=None)
    assert "certificate" in str(error)
    assert "ssl_context" in error.hint


async def test_expired_certificate_is_refused(scheme, authority, tmp_path):
    """The date counts."""
    error = await refusal(scheme, authority, authority.issue(days=-2), tmp_path)
    assert "expired" in str(error)


async def test_certificate_of_another_host_is_refused(scheme, authority, tmp_path):
    """The name counts."""
    error = await refusal(scheme, authority, authority.issue(host="node.example"), tmp_path)
    assert "127.0.0.1" in str(error)


@pytest.mark.parametrize("pins", ["right", "backup first", "backup last"])
async def test_pinned_key_passes(scheme, authority, tmp_path, pins):
    """Any one of the pins suffices, so that a key can be rotated to its backup."""
    certificate = authority.issue()
    pin = spki_pin(certificate.der)
    given = {"right": [pin], "backup first": [_OTHER_PIN, pin], "backup last": [pin.hex(), _OTHER_PIN]}[pins]
    async with no_leaks(), rpc_server(tls=certificate.server_context(tmp_path)) as server:
        transport = connect(scheme, server.port, ssl_context=authority.client_context(), pins=given)
        assert (await transport.call("m", "1", timeout_s=5))["params"] == 1
        await transport.aclose()


async def test_rotation_to_the_backup_key_works(scheme, authority, tmp_path):
    """The server comes back with the backup key: the same transport goes on."""
    old, new = authority.issue(), authority.issue()
    server = RpcServer()
    async with serve(get=server.on_websocket, post=server.on_post, tls=old.server_context(tmp_path)) as port:
        transport = connect(
            scheme,
            port,
            ssl_context=authority.client_context(),
            pins=[spki_pin(old.der), spki_pin(new.der)],
        )
        await transport.call("m", "1", timeout_s=5)
    context = new.server_context(tmp_path)
    async with serve(get=server.on_websocket, post=server.on_post, tls=context, port=port):
        for _ in range(2):  # a kept connection may break first
            if await error_of(transport.call("m", "2", timeout_s=5)) is None:
                break
        assert [request["params"] for request in server.requests] == [1, 2]
        await transport.aclose()


async def test_wrong_pin_is_refused_before_a_byte_of_the_request(scheme, authority, tmp_path):
    """A certificate of the right CA with another key is not enough, and never sees the headers."""
    error = await refusal(scheme, authority, authority.issue(), tmp_path, pins=[_OTHER_PIN])
    assert "not a pinned one" in str(error)
    assert "pins" in error.hint


async def test_pin_does_not_replace_the_other_checks(scheme, authority, tmp_path):
    """The right key in an expired certificate, for another host, or from an unknown CA is refused all the same."""
    key = ec.generate_private_key(ec.SECP256R1())
    for certificate, context in (
        (authority.issue(key=key, days=-2), authority.client_context()),
        (authority.issue(key=key, host="node.example"), authority.client_context()),
        (CertificateAuthority().issue(key=key), authority.client_context()),
        (authority.issue(key=key), None),
    ):
        pins = [spki_pin(certificate.der)]
        error = await refusal(scheme, authority, certificate, tmp_path, ssl_context=context, pins=pins)
        assert "certificate" in str(error)


async def test_pin_counts_even_where_certificates_are_not_checked(scheme, authority, tmp_path):
    """With a context that accepts everything, the pin alone decides."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    certificate = authority.issue()
    await refusal(scheme, authority, certificate, tmp_path, ssl_context=context, pins=[_OTHER_PIN])
    async with rpc_server(tls=certificate.server_context(tmp_path)) as server:
        transport = connect(scheme, server.port, ssl_context=context, pins=[spki_pin(certificate.der)])
        await transport.call("m", "1", timeout_s=5)
        await transport.aclose()


async def test_old_tls_is_refused(scheme):
    """A server that answers with TLS 1.1 (RFC 4346) is not talked to."""
    hello = b"\x03\x02" + bytes(32) + b"\x00" + b"\x00\x2f" + b"\x00"
    record = b"\x02" + len(hello).to_bytes(3, "big") + hello

    async def script(reader, writer):
        await reader.read(1000)
        writer.write(b"\x16\x03\x02" + len(record).to_bytes(2, "big") + record)
        await reader.read(1000)

    async with no_leaks(), raw_server(script) as port, assert_runs_under(10):
        transport = connect(scheme, port)
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        assert type(error) is ConnectError
        assert "TLS with" in str(error)
        assert "UNSUPPORTED_PROTOCOL" in str(error)
        assert not error.retryable
        await transport.aclose()


async def test_server_without_tls_is_refused(scheme):
    """A plain server behind a wss:// or https:// URL never sees a request."""
    async with no_leaks(), rpc_server() as server, assert_runs_under(10):
        transport = connect(scheme, server.port, headers={"X-Api-Key": "abc"})
        error = await error_of(transport.call("m", "{}", timeout_s=5))
        assert type(error) is ConnectError
        assert "the server answered without TLS" in str(error)
        assert server.headers == []
        await transport.aclose()


async def test_client_certificate_is_sent(scheme, authority, tmp_path):
    """A context with a client certificate gets in where one is demanded, one without does not."""
    server_tls = authority.issue().server_context(tmp_path)
    server_tls.verify_mode = ssl.CERT_REQUIRED
    server_tls.load_verify_locations(cadata=authority.pem)
    with_certificate = authority.client_context()
    client = authority.issue(host="client.example", is_client=True)
    with_certificate.load_cert_chain(client.write(tmp_path))
    async with no_leaks(), rpc_server(tls=server_tls) as server:
        transport = connect(scheme, server.port, ssl_context=with_certificate)
        await transport.call("m", "1", timeout_s=5)
        await transport.aclose()
        transport = connect(scheme, server.port, ssl_context=authority.client_context())
        assert isinstance(await error_of(transport.call("m", "1", timeout_s=5)), ConnectionError)
        await transport.aclose()
        assert len(server.headers) == 1


async def test_stalled_peer_leaves_no_socket(scheme, authority, tmp_path):
    """TLS says goodbye on closing; a peer that does not answer to that is not waited for."""
    tls = authority.issue().server_context(tmp_path)
    async with (
        no_leaks(),
        rpc_server(tls=tls) as server,
        CuttableProxy(server.port) as proxy,
        assert_runs_under(10),
    ):
        before = open_sockets()
        transport = connect(scheme, proxy.port, ssl_context=authority.client_context())
        await transport.call("m", "1", timeout_s=5)
        proxy.stall()
        error = await error_of(transport.call("m", '"' + "x" * 1_000_000 + '"', timeout_s=0.1))
        assert type(error) is RequestTimeoutError
        with assert_runs_under(2):
            await transport.aclose()
        # Of the four ends (ours, two of the proxy's, the server's) ours is gone.
        left = describe_sockets(open_sockets() - before)
        assert [socket for socket in left if socket.endswith(f"to {proxy.port}")] == []


async def test_stalled_handshake_is_cut_off(scheme):
    """A peer that accepts and never speaks TLS does not hold the call."""

    async def silent(reader, writer):
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(silent) as port, assert_runs_under(5):
        kind = WebSocketTransport if scheme == "wss" else HttpTransport
        transport = kind(f"{scheme}://127.0.0.1:{port}/", connect_timeout_s=0.1)
        assert type(await error_of(transport.call("m", "{}", timeout_s=5))) is ConnectError
        await transport.aclose()


async def test_cancelling_at_every_await_leaves_nothing(scheme, authority, tmp_path):
    """In the middle of a TLS handshake as well."""
    tls = authority.issue().server_context(tmp_path)
    context = authority.client_context()
    async with rpc_server(tls=tls) as server:
        step = 1
        while True:
            async with no_leaks():
                transport = connect(scheme, server.port, ssl_context=context, pins=[bytes(32)])
                opening = transport._open() if scheme == "wss" else transport.call("m", "1", timeout_s=5)
                try:
                    was_cancelled = await cancelled_at(step, opening)
                except ConnectError:
                    was_cancelled = False
                await transport.aclose()
                await wait_until(lambda: not server.sockets)
            if not was_cancelled:
                break
            step += 1
        assert step > 1

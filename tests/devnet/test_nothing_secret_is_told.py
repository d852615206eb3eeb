"""A whole keygen, observed in every way there is: logs at DEBUG, events, spans, metrics. Nothing secret is in any of them."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dan_async import DanClient, EphemeralKey, GatewayNetwork, NodeNetwork
from dan_async.config import NodeEndpoint, Threshold, TransportOptions
from dan_async.devnet import Devnet, Fault, ForgeSignature
from dan_async.errors import QuorumError
from dan_async.events import Event
from dan_async.otel import OpenTelemetryObserver
from dan_async.transport.websocket import WebSocketTransport
from dan_async.types import Json, TypedData
from dan_async.wallets import LocalWallet

OWNER_KEY = "badc0de" + "f00d" * 14 + "1"
API_KEY = "an-api-key-that-stays-in-the-header"


class RecordingTransport(WebSocketTransport):
    """A connection that notes the nonces which come over it."""

    def __init__(self, url: str, nonces: list[str]) -> None:
        super().__init__(url, options=TransportOptions(headers={"X-Api-Key": API_KEY}))
        self._nonces = nonces

    async def call(self, method: str, params: str, *, timeout_s: float | None) -> Json:
        answer = await super().call(method, params, timeout_s=timeout_s)
        if method == "dan_challenge":
            self._nonces.append(answer["nonce"])
        return answer


class RecordingWallet:
    """The owner's wallet: notes what it signs and the signature."""

    interactive = False

    def __init__(self) -> None:
        self._wallet = LocalWallet(OWNER_KEY)
        self.address = self._wallet.address
        self.secrets: list[str] = []

    async def sign_typed_data(self, typed_data: TypedData) -> str:
        signature = await self._wallet.sign_typed_data(typed_data)
        message = typed_data["message"]
        self.secrets += [signature, signature[2:66], str(message["challenge"])]
        return signature


class Watched:
    """Everything that can be observed of a client, as one text."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(tracers, self.meters)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.observer(event)

    def text(self, caplog: pytest.LogCaptureFixture) -> str:
        records = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
        events = [f"{event!r} {event.to_dict()}" for event in self.events]
        spans = [span.to_json() for span in self.exporter.get_finished_spans()]
        metrics = self.reader.get_metrics_data()
        assert records
        assert events
        assert spans
        assert metrics is not None
        return "\n".join([*records, *events, *spans, metrics.to_json(), caplog.text])


def forms(secret: str) -> set[str]:
    """The shapes in which a secret could be told: hex, base64, number, bytes."""
    digits = secret.removeprefix("0x")
    found = {digits, digits.upper()}
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return {secret}
    return found | {
        base64.b64encode(raw).decode(),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        str(int(digits, 16)),
        repr(raw)[2:-1],
    }


def assert_untold(secrets: list[str], text: str) -> None:
    told = [secret for secret in secrets for form in forms(secret) if form in text]
    assert told == []


@pytest.fixture
def watched() -> Any:
    made = Watched()
    yield made
    made.meters.shutdown()


def recording_network(net: Devnet, nonces: list[str]) -> NodeNetwork:
    def connect(endpoint: NodeEndpoint) -> RecordingTransport:
        return RecordingTransport(endpoint.url, nonces)

    return NodeNetwork(net.endpoints, threshold=Threshold(2, 3), transport_for=connect)


@pytest.mark.parametrize("fault", [None, ForgeSignature()], ids=["all well", "liars"])
async def test_over_the_nodes(
    fault: Fault | None, watched: Watched, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither key, nor the signature, nor a nonce, nor the final challenge, nor a header; all succeed and all fail."""
    asyncio.get_running_loop().set_debug(True)
    wallet, nonces = RecordingWallet(), list[str]()
    with caplog.at_level(logging.DEBUG):
        async with Devnet(threshold=2, parties=4) as net:
            net.faults[1] = fault
            async with DanClient(recording_network(net, nonces), on_event=watched) as dan:
                session = await dan.generate_session_key(wallet=wallet, chain_id=1)
                if fault is not None:
                    for index in net.faults:
                        net.faults[index] = fault
                    with pytest.raises(QuorumError):
                        await dan.generate_session_key(wallet=wallet, chain_id=1)
                await dan.network.health()
    secrets = [session.hex_eph_sk_without_0x, OWNER_KEY, API_KEY, *wallet.secrets, *nonces]
    assert len(nonces) >= 3
    assert len(wallet.secrets) >= 3
    out, err = capfd.readouterr()
    assert_untold(secrets, watched.text(caplog) + out + err)


@pytest.mark.parametrize("revision", ["0.1", "0.3", "1"])
async def test_over_a_gateway(
    revision: str, watched: Watched, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same through a gateway, which is the devnet's; a URL's credentials are not told either."""
    wallet = RecordingWallet()
    key = EphemeralKey.generate("ed25519")
    with caplog.at_level(logging.DEBUG):
        async with Devnet(threshold=2, parties=3) as net:
            url = net.gateway_url.replace("ws://", "ws://somebody:a-password@")
            gateway = GatewayNetwork(url, revision=revision, threshold=Threshold(2, 3))
            async with DanClient(gateway, on_event=watched) as dan:
                session = await dan.generate_session_key(wallet=wallet, chain_id=1, ephemeral_key=key)
    secrets = [session.hex_eph_sk_without_0x, OWNER_KEY, "a-password", *wallet.secrets]
    out, err = capfd.readouterr()
    assert_untold(secrets, watched.text(caplog) + out + err)

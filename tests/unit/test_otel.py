"""Spans and metrics out of events, with the SDK's own exporters."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from dan_async import CallbackWallet, DanClient, LocalWallet
from dan_async.deadline import Deadline
from dan_async.errors import (
    ConnectError,
    NodeCode,
    NodeTimeoutError,
    QuorumError,
    RpcError,
    WalletRefusedError,
)
from dan_async.events import (
    AttemptStarted,
    AttemptSucceeded,
    Event,
    NodeDown,
    NodeUp,
    OperationFinished,
    OperationStarted,
    WalletAsked,
)
from dan_async.listeners import Attempts, EventHub, operation, wallet_turn
from dan_async.otel import OpenTelemetryObserver
from dan_async.retry import RetryDetails, RetryPolicy
from dan_async.types import OperatorAddress, RequestId
from tests.fake_nodes import FakeNetwork
from tests.helpers import ManualClock

WALLET = LocalWallet("0x" + "00" * 31 + "01")
NODE = OperatorAddress("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")


class Telemetry:
    """An observer, and what it made."""

    def __init__(self, *, all_attempts: bool = True) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = tracers.get_tracer("the caller")
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(tracers, self.meters, all_attempts=all_attempts)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def metric(self, name: str) -> list[Any]:
        """Give the data points of a metric."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str, label: str) -> dict[Any, Any]:
        """Give a counter's values by one of its labels."""
        return {point.attributes[label]: point.value for point in self.metric(name)}

    def is_empty(self) -> bool:
        """Whether nothing is kept of what is over."""
        observer = self.observer
        return not (observer._spans or observer._own_spans or observer._first_ids or observer._won)


@pytest.fixture
def telemetry() -> Any:
    made = Telemetry()
    yield made
    made.meters.shutdown()


async def make_key(fake: FakeNetwork, telemetry: Telemetry, **options: Any) -> Any:
    async with DanClient(fake.network(), on_event=telemetry.observer) as dan:
        return await dan.generate_session_key(wallet=WALLET, chain_id=1, **options)


# --- spans ------------------------------------------------------------------------------------------------------------


async def test_one_span_for_the_operation_and_one_for_each_attempt(telemetry: Telemetry) -> None:
    """Attempts and the wallet are children of the operation, which is a child of the caller's span."""
    fake = FakeNetwork(2, 3)
    with telemetry.tracer.start_as_current_span("a request of the caller's") as caller:
        await make_key(fake, telemetry)
    (job,) = telemetry.named("dan keygen")
    assert job.parent is not None
    assert job.parent.span_id == caller.get_span_context().span_id
    children = [
        span for span in telemetry.spans if span.parent and span.parent.span_id == job.context.span_id
    ]
    assert sorted(span.name for span in children) == [
        "dan wallet",
        *["dan_challenge"] * 3,
        *["dan_keygen"] * 3,
    ]
    assert len(telemetry.spans) == 9
    assert telemetry.is_empty()


async def test_attempts_that_succeed_at_once_have_no_spans() -> None:
    """Unless they are asked for: the operation, and the attempts that failed or followed a failed one."""
    telemetry = Telemetry(all_attempts=False)
    fake = FakeNetwork(2, 3)
    await make_key(fake, telemetry)
    assert [span.name for span in telemetry.spans] == ["dan keygen"]
    calls: list[str] = []

    async def fail_once(method: str, params: Any) -> Any:
        calls.append(method)
        if len(calls) == 1:
            raise ConnectError("no")

    fake.misbehaviour[fake.operator(1)] = fail_once
    telemetry.exporter.clear()
    await make_key(fake, telemetry)
    (job,) = telemetry.named("dan keygen")
    attempts = telemetry.named("dan_challenge")
    assert [
        (span.attributes["dan.attempt"], span.attributes["dan.outcome"])
        for span in attempts
        if span.attributes
    ] == [(1, "failed"), (2, "answered")]
    assert {span.parent.span_id for span in attempts if span.parent} == {job.context.span_id}
    assert sum(point.count for point in telemetry.metric("dan.client.attempt.duration")) == 2
    assert telemetry.is_empty()
    telemetry.meters.shutdown()


@pytest.mark.parametrize("others", [False, True])
async def test_events_that_nobody_wants_are_not_made(others: bool) -> None:
    """Most goes well at once, and an observer ignores that; whoever else listens hears of all."""
    observer, heard, seen = Telemetry(all_attempts=False).observer, [], []

    def note(event: Event) -> None:
        seen.append(event)
        observer(event)

    note.wants_all_attempts = observer.wants_all_attempts  # type: ignore[attr-defined]
    network = FakeNetwork(2, 3).network(on_event=note)
    if others:
        network.observe(heard.append)
    async with DanClient(network) as dan:
        await dan.generate_session_key(wallet=WALLET, chain_id=1)
    kinds = {type(event) for event in seen}
    routine = {AttemptStarted, AttemptSucceeded, WalletAsked}
    assert kinds & routine == (routine if others else set())
    assert not others or heard == seen


async def test_spans_have_the_times_of_their_attempts(telemetry: Telemetry) -> None:
    """They are made when the attempt is over, and lie within the operation all the same."""
    fake = FakeNetwork(2, 3)

    async def wait(method: str, params: Any) -> Any:
        await asyncio.sleep(0.05)

    fake.misbehaviour[fake.operator(1)] = wait
    await make_key(fake, telemetry)
    (job,) = telemetry.named("dan keygen")
    assert job.start_time is not None
    assert job.end_time is not None
    for span in telemetry.named("dan_challenge"):
        assert span.start_time is not None
        assert span.end_time is not None
        assert job.start_time - 1_000_000 <= span.start_time <= span.end_time <= job.end_time
        if span.attributes and span.attributes["dan.node"] == fake.operator(1):
            assert span.end_time - span.start_time >= 50_000_000


async def test_what_spans_say(telemetry: Telemetry) -> None:
    """Ids, node, method, attempt, outcome; the verdict that was won is the operation's."""
    fake = FakeNetwork(2, 3)
    session = await make_key(fake, telemetry)
    (job,) = telemetry.named("dan keygen")
    assert job.attributes is not None
    assert job.attributes["dan.network"] == "nodes"
    assert job.status.status_code is StatusCode.UNSET
    assert not job.events
    assert job.attributes["dan.verdict"] == "won"
    assert job.attributes["dan.key_id"] == session.mpc_key_id
    assert job.attributes["dan.agreed"] == 3
    asked = telemetry.named("dan_keygen")
    assert {span.attributes["dan.node"] for span in asked if span.attributes} == {
        fake.operator(i) for i in (1, 2, 3)
    }
    attributes = asked[0].attributes
    assert attributes is not None
    assert asked[0].kind is SpanKind.CLIENT
    assert (attributes["rpc.method"], attributes["dan.attempt"]) == ("dan_keygen", 1)
    assert (attributes["dan.outcome"], attributes["dan.request_id"]) == (
        "answered",
        job.attributes["dan.request_id"],
    )


async def test_failures_are_errors(telemetry: Telemetry) -> None:
    """Error type and status on each failed attempt and on the operation; retries as events."""
    fake = FakeNetwork(2, 3)

    async def refuse(method: str, params: Any) -> Any:
        raise ConnectError("words that are not repeated")

    fake.misbehaviour[fake.operator(1)] = refuse
    with pytest.raises(QuorumError):
        await make_key(fake, telemetry)
    (job,) = telemetry.named("dan keygen")
    assert (job.status.status_code, job.status.description) == (StatusCode.ERROR, "QuorumError")
    assert job.attributes is not None
    assert (job.attributes["error.type"], job.attributes["dan.phase"]) == ("QuorumError", "challenge")
    assert [event.name for event in job.events] == ["retry", "retry"]
    failed = [span for span in telemetry.spans if span.status.status_code is StatusCode.ERROR]
    assert [span.attributes["error.type"] for span in failed if span is not job and span.attributes] == [
        "NodeUnreachableError"
    ] * 3
    assert "words" not in "".join(span.to_json() for span in telemetry.spans)


async def test_attempts_after_a_restart_stay_with_the_operation(telemetry: Telemetry) -> None:
    """The new request id leads to the first one's span."""
    fake = FakeNetwork(2, 3)
    seen: list[str] = []

    async def fail_once(method: str, params: Any) -> Any:
        seen.append(params["requestId"])
        if method == "dan_keygen" and params["requestId"] == seen[0]:
            raise RpcError(NodeCode.KEYGEN_FAILED, "a party misbehaved")

    for index in (1, 2, 3):
        fake.misbehaviour[fake.operator(index)] = fail_once
    await make_key(fake, telemetry)
    (job,) = telemetry.named("dan keygen")
    assert [event.name for event in job.events] == ["verdict", "restart"]
    parents = {span.parent.span_id if span.parent else None for span in telemetry.named("dan_keygen")}
    assert parents == {job.context.span_id}
    assert len(telemetry.named("dan_keygen")) == 6
    assert [point.value for point in telemetry.metric("dan.client.restarts")] == [1]
    assert telemetry.is_empty()


async def test_cancellation_ends_every_span(telemetry: Telemetry) -> None:
    """Nothing stays open, and nothing is kept."""
    fake = FakeNetwork(2, 3)
    stalled = asyncio.Event()

    async def stall(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            stalled.set()
            await asyncio.get_running_loop().create_future()

    fake.misbehaviour = {fake.operator(i): stall for i in (1, 2, 3)}
    task = asyncio.create_task(make_key(fake, telemetry))
    await stalled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (job,) = telemetry.named("dan keygen")
    assert job.status.description == "CancelledError"
    outcomes = [span.attributes["dan.outcome"] for span in telemetry.named("dan_keygen") if span.attributes]
    assert set(outcomes) == {"abandoned"}
    assert telemetry.is_empty()


async def test_attempts_without_a_request_are_on_their_own(telemetry: Telemetry) -> None:
    """Two health checks at once: every span ends, under the caller's."""
    async with DanClient(FakeNetwork(2, 3).network(), on_event=telemetry.observer) as dan:
        with telemetry.tracer.start_as_current_span("caller") as caller:
            await asyncio.gather(dan.network.health(), dan.network.health())
    found = telemetry.named("dan_health")
    assert len(found) == 6
    assert {span.parent.span_id for span in found if span.parent} == {caller.get_span_context().span_id}
    assert telemetry.is_empty()


async def test_the_operation_is_the_current_span_meanwhile(telemetry: Telemetry) -> None:
    """What a wallet or a transport makes of its own hangs below it; afterwards the caller's span is current again."""
    inside: list[Any] = []

    async def sign(typed_data: Any) -> str:
        inside.append(get_current_span())
        return await WALLET.sign_typed_data(typed_data)

    async with DanClient(FakeNetwork(2, 3).network(), on_event=telemetry.observer) as dan:
        with telemetry.tracer.start_as_current_span("caller") as caller:
            await dan.generate_session_key(wallet=CallbackWallet(WALLET.address, sign), chain_id=1)
            assert get_current_span() is caller
    (job,) = telemetry.named("dan keygen")
    assert [span.get_span_context().span_id for span in inside] == [job.context.span_id]


async def test_requests_of_their_own_belong_to_the_operation_they_are_made_in(telemetry: Telemetry) -> None:
    """Signing asks each set of nodes under another id."""
    hub = EventHub(telemetry.observer)
    told = Attempts(hub, node=NODE, method="dan_sign", request_id="0x02")

    async def call() -> None:
        raise NodeTimeoutError("late")

    policy = RetryPolicy(attempts=2, first_wait_s=0.001)
    with operation(hub, RequestId("0x01"), "signgen", "nodes"):
        with pytest.raises(NodeTimeoutError):
            await asyncio.create_task(
                policy.run(told.watch(call), deadline=Deadline(5), before_sleep=told.before_sleep)
            )
    (job,) = telemetry.named("dan signgen")
    assert [event.name for event in job.events] == ["retry"]
    assert {span.parent.span_id for span in telemetry.named("dan_sign") if span.parent} == {
        job.context.span_id
    }
    assert telemetry.is_empty()


async def test_a_retry_outside_of_operations_is_a_metric_only(telemetry: Telemetry) -> None:
    """The caller's own span is not written to."""
    told = Attempts(EventHub(telemetry.observer), node=NODE, method="dan_health", request_id=None)
    with telemetry.tracer.start_as_current_span("caller"):
        told.before_sleep(RetryDetails(attempt=1, error=NodeTimeoutError("late"), wait_s=1))
    (caller,) = telemetry.named("caller")
    assert not caller.events
    assert telemetry.values("dan.client.retries", "rpc.method") == {"dan_health": 1}


# --- metrics ----------------------------------------------------------------------------------------------------------


async def test_counters_and_histograms(telemetry: Telemetry) -> None:
    """Operations, attempts, the wallet, the verdict."""
    fake = FakeNetwork(2, 3)
    await make_key(fake, telemetry)
    (operation,) = telemetry.metric("dan.client.operation.duration")
    assert (operation.count, operation.attributes) == (
        1,
        {"dan.operation": "keygen", "dan.network": "nodes"},
    )
    attempts = telemetry.metric("dan.client.attempt.duration")
    assert sum(point.count for point in attempts) == 6
    assert {point.attributes["dan.outcome"] for point in attempts} == {"answered"}
    assert [point.count for point in telemetry.metric("dan.client.wallet.duration")] == [1]
    assert telemetry.values("dan.client.verdicts", "dan.verdict") == {"won": 1}
    assert not telemetry.metric("dan.client.operations.active")  # it came and went


async def test_a_person_who_is_waited_for_is_an_operation_under_way(telemetry: Telemetry) -> None:
    """The number of operations is written before the wait, and after it."""
    seen: list[Any] = []

    async def sign(typed_data: Any) -> str:
        seen.append(telemetry.values("dan.client.operations.active", "dan.operation"))
        return await WALLET.sign_typed_data(typed_data)

    async with DanClient(FakeNetwork(2, 3).network(), on_event=telemetry.observer) as dan:
        await dan.generate_session_key(
            wallet=CallbackWallet(WALLET.address, sign, interactive=True), chain_id=1
        )
    assert seen == [{"keygen": 1}]
    assert telemetry.values("dan.client.operations.active", "dan.operation") == {"keygen": 0}


@pytest.mark.parametrize("trouble", ["none", "refused", "slow", "interactive"])
def test_wallets_that_were_waited_for_have_spans(monkeypatch: Any, trouble: str) -> None:
    """A key in this process has none, unless it failed or took its time."""
    telemetry, now = Telemetry(all_attempts=False), ManualClock()
    monkeypatch.setattr(time, "monotonic", now)
    hub = EventHub(telemetry.observer)
    with suppress(WalletRefusedError), operation(hub, RequestId("0x01"), "keygen", "nodes"):
        with wallet_turn(hub, RequestId("0x01"), trouble == "interactive"):
            now.advance(0.1 if trouble == "slow" else 0)
            if trouble == "refused":
                raise WalletRefusedError("no")
    spans = telemetry.named("dan wallet")
    assert len(spans) == len(telemetry.metric("dan.client.wallet.duration")) == (trouble != "none")
    for span in spans:
        assert span.attributes is not None
        assert span.attributes["dan.interactive"] is (trouble == "interactive")
        assert (span.status.status_code is StatusCode.ERROR) is (trouble == "refused")
    assert telemetry.is_empty()
    telemetry.meters.shutdown()


async def test_failures_are_counted(telemetry: Telemetry) -> None:
    """By the class of the error; request ids are in no metric."""
    fake = FakeNetwork(2, 3)

    async def refuse(method: str, params: Any) -> Any:
        raise ConnectError("no")

    fake.misbehaviour[fake.operator(1)] = refuse
    with pytest.raises(QuorumError):
        await make_key(fake, telemetry)
    assert telemetry.values("dan.client.retries", "error.type") == {"NodeUnreachableError": 2}
    assert telemetry.values("dan.client.nodes.down", "dan.node") == {fake.operator(1): 1}
    (operation,) = telemetry.metric("dan.client.operation.duration")
    assert operation.attributes["error.type"] == "QuorumError"
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    assert "request_id" not in data.to_json()


def test_a_node_that_comes_back_is_not_down(telemetry: Telemetry) -> None:
    """1 while it is down, 0 afterwards."""
    telemetry.observer(NodeDown(node=NODE, failures=1, rest_s=1))
    assert telemetry.values("dan.client.nodes.down", "dan.node") == {NODE: 1}
    telemetry.observer(NodeUp(node=NODE, failures=4))
    assert telemetry.values("dan.client.nodes.down", "dan.node") == {NODE: 0}


async def test_every_metric_is_in_the_table(telemetry: Telemetry) -> None:
    """docs/how-to/observability.md has each instrument that is made, with its unit's kind."""
    page = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "observability.md").read_text(
        encoding="utf-8"
    )
    instruments = [
        value
        for value in vars(telemetry.observer).values()
        if getattr(value, "name", "").startswith("dan.client.")
    ]
    assert len(instruments) == 8
    kinds = {"Histogram": "histogram", "Counter": "counter", "UpDownCounter": "up-down counter"}
    for instrument in instruments:
        assert f"| `{instrument.name}` | {kinds[type(instrument).__name__.strip('_')]} |" in page


# --- the edges --------------------------------------------------------------------------------------------------------


class Unknown(Event):
    """An event of a later version."""


def test_events_that_are_not_known_are_left_alone(telemetry: Telemetry) -> None:
    """A later version may tell more."""
    telemetry.observer(Unknown())
    assert telemetry.spans == []


def test_an_end_without_a_beginning(telemetry: Telemetry) -> None:
    """Whoever listens from the middle on hears ends only: an attempt stands for itself."""
    telemetry.observer(
        OperationFinished(request_id=RequestId("0x01"), operation="keygen", network="nodes", elapsed_s=1)
    )
    telemetry.observer(
        AttemptSucceeded(request_id=RequestId("0x01"), node=NODE, method="dan_keygen", attempt=1, elapsed_s=1)
    )
    assert [(span.name, span.parent) for span in telemetry.spans] == [("dan_keygen", None)]
    assert telemetry.is_empty()


def test_the_global_providers_are_the_default() -> None:
    """Without an SDK nothing comes of it, and nothing fails."""
    observer = OpenTelemetryObserver()
    observer(OperationStarted(request_id=RequestId("0x01"), operation="keygen", network="nodes"))
    observer(
        OperationFinished(request_id=RequestId("0x01"), operation="keygen", network="nodes", elapsed_s=1)
    )


def test_a_missing_extra_is_named() -> None:
    """The pip line, where opentelemetry-api is not installed."""
    code = """
import sys
sys.modules["opentelemetry"] = None
from dan_async.otel import OpenTelemetryObserver
try:
    OpenTelemetryObserver()
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
    )
    assert 'pip install "dan-async[otel]"' in done.stdout

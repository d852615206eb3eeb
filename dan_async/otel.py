"""
OpenTelemetry spans and metrics from the client's events (extra ``otel``; docs/how-to/observability.md has the tables).

Imported by its full path only. It needs opentelemetry-api, and an SDK of yours to send anything anywhere.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dan_async._values import check_bool
from dan_async._version import __version__
from dan_async.errors import require_extra
from dan_async.events import (
    AT_ONCE_S,
    AttemptAbandoned,
    AttemptFailed,
    AttemptSucceeded,
    Event,
    NodeDown,
    NodeUp,
    OperationFinished,
    OperationRestarted,
    OperationStarted,
    RetryScheduled,
    Verdict,
    WalletAnswered,
)
from dan_async.types import RequestId

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetryObserver"]

_SCOPE = "dan_async"

#: Bounds of the histograms' buckets, in seconds: from a round trip on the same machine to a person at a wallet.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

#: Measurements that may wait until metrics are read.
_MOST_LATER = 256

_OUTCOMES = {AttemptSucceeded: "answered", AttemptFailed: "failed", AttemptAbandoned: "abandoned"}


class OpenTelemetryObserver:
    """
    Turns events into spans and metrics: ``DanClient(network, on_event=OpenTelemetryObserver())``.

    One span for each operation, a child of whatever span is current where the client is called, with children for the
    wallet's turn and for attempts at the nodes: as a rule only for those that failed, were abandoned, or followed a failed
    one. Measurements are written when metrics are read. One object serves any number of clients and networks on one event
    loop.

    Args:
        tracer_provider: Where spans go; the global provider if None.
        meter_provider: Where metrics go; the global provider if None.
        all_attempts: Whether attempts that succeed at once, and wallets that sign at once, have spans and durations as well.
            That costs some 50 % of a key generation's own work.

    Raises:
        InvalidFieldError: *all_attempts* is not a bool.
        MissingExtraError: opentelemetry-api is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        all_attempts: bool = False,
    ) -> None:
        #: Read by the client, which then makes no events of the others.
        self.wants_all_attempts = check_bool("all_attempts", all_attempts)
        purpose = "OpenTelemetryObserver"
        self._trace: Any = require_extra("opentelemetry.trace", extra="otel", purpose=purpose)
        metrics: Any = require_extra("opentelemetry.metrics", extra="otel", purpose=purpose)
        self._context: Any = require_extra("opentelemetry.context", extra="otel", purpose=purpose)
        self._tracer = self._trace.get_tracer(_SCOPE, __version__, tracer_provider)
        meter = metrics.get_meter(_SCOPE, __version__, meter_provider)

        def seconds(name: str, description: str) -> Any:
            return meter.create_histogram(
                name, unit="s", description=description, explicit_bucket_boundaries_advisory=_BUCKETS
            )

        self._operation_s = seconds("dan.client.operation.duration", "Operations, from call to result")
        self._attempt_s = seconds("dan.client.attempt.duration", "Attempts at one node or gateway")
        self._wallet_s = seconds("dan.client.wallet.duration", "Time that owners' wallets took")
        self._histograms = (self._operation_s, self._attempt_s, self._wallet_s)
        self._active = meter.create_up_down_counter(
            "dan.client.operations.active", unit="{operation}", description="Operations under way"
        )
        self._retries = meter.create_counter(
            "dan.client.retries", unit="{retry}", description="Attempts that follow a failed one"
        )
        self._restarts = meter.create_counter(
            "dan.client.restarts",
            unit="{restart}",
            description="Key generations begun again after the owner signed",
        )
        self._verdicts = meter.create_counter(
            "dan.client.verdicts", unit="{verdict}", description="Counted answers of the nodes"
        )
        self._nodes_down = meter.create_up_down_counter(
            "dan.client.nodes.down", unit="{node}", description="Nodes that are down: 1 or 0 for each"
        )
        #: Of each operation under way the span, its context, and what puts the caller's context back.
        self._spans: dict[RequestId | None, tuple[Span, Any, Any]] = {}
        self._own_spans: set[Span] = set()
        self._first_ids: dict[RequestId, RequestId] = {}  # by the ids of restarts
        #: Measurements that wait until metrics are read, each with its context: together they cost a third.
        self._later: deque[tuple[Any, float, dict[str, str], Any]] = deque()
        write = weakref.WeakMethod(self._write_measurements)

        def flush(_: Any) -> tuple[()]:
            if (found := write()) is not None:
                found()
            return ()

        # An instrument that never has a value: whoever reads metrics, in whatever thread, asks it first.
        meter.create_observable_gauge(f"dan.client.unwritten.{id(self):x}", callbacks=[flush])
        #: Of each operation under way the winning verdict, for its span.
        self._won: dict[RequestId, Verdict] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            OperationStarted: self._on_operation_started,
            OperationFinished: self._on_operation_finished,
            OperationRestarted: self._on_operation_restarted,
            AttemptSucceeded: self._on_attempt_ended,
            AttemptFailed: self._on_attempt_ended,
            AttemptAbandoned: self._on_attempt_ended,
            RetryScheduled: self._on_retry,
            NodeDown: self._on_node_change,
            NodeUp: self._on_node_change,
            WalletAnswered: self._on_wallet_answered,
            Verdict: self._on_verdict,
        }

    def __call__(self, event: Event) -> None:
        """Record an event; kinds that it does not know are ignored."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    def _measure(self, instrument: Any, value: float, labels: dict[str, str], context: Any) -> None:
        self._later.append((instrument, value, labels, context))
        if len(self._later) >= _MOST_LATER:
            self._write_measurements()

    def _write_measurements(self) -> None:
        """Write what waits. Counts are summed up before: an operation that came and went is no change of those under way."""
        counts: dict[tuple[Any, tuple[str, ...]], tuple[float, dict[str, str], Any]] = {}
        with suppress(IndexError):  # of two threads, each writes what it takes
            while True:
                instrument, value, labels, context = self._later.popleft()
                if instrument in self._histograms:
                    instrument.record(value, labels, context)
                else:
                    counted = instrument, tuple(labels.values())
                    before = counts[counted][0] if counted in counts else 0
                    counts[counted] = before + value, labels, context
        for (instrument, _), (value, labels, context) in counts.items():
            if value:
                instrument.add(value, labels, context)

    # --- operations ---------------------------------------------------------------------------------------------------

    def _on_operation_started(self, event: OperationStarted) -> None:
        labels = {"dan.operation": event.operation, "dan.network": event.network}
        context = self._context.get_current()
        if event.request_id is not None:
            attributes = labels | {"dan.request_id": event.request_id}
            span = self._tracer.start_span(f"dan {event.operation}", context, attributes=attributes)
            # Both events come in the task that runs the operation. In between this span is the current one, also for spans
            # that the wallet and the transport make themselves.
            context = self._trace.set_span_in_context(span, context)
            self._spans[event.request_id] = (span, context, self._context.attach(context))
            self._own_spans.add(span)
        self._measure(self._active, 1, labels, context)

    def _on_operation_finished(self, event: OperationFinished) -> None:
        labels = {"dan.operation": event.operation, "dan.network": event.network}
        context = self._context.get_current()
        self._measure(self._active, -1, labels, context)
        self._measure(self._operation_s, event.elapsed_s, labels | _error(event.error), context)
        if event.request_id is None:
            return
        for new_id in [new for new, first in self._first_ids.items() if first == event.request_id]:
            del self._first_ids[new_id]
        span, _, token = self._spans.pop(event.request_id, (None, None, None))
        if span is not None:
            self._own_spans.discard(span)
            self._context.detach(token)
            verdict = self._won.pop(event.request_id, None)
            more = {} if verdict is None else _counted(verdict)
            if event.error is not None:
                more |= _known({"dan.code": event.code, "dan.phase": event.phase}) | _error(event.error)
                self._fail(span, event.error)
            if more:
                span.set_attributes(more)
            span.end()

    def _on_operation_restarted(self, event: OperationRestarted) -> None:
        self._restarts.add(1)
        first = self._first_id(event.request_id)
        if first is None:
            return
        if first in self._spans:
            self._first_ids[event.new_request_id] = first
        attributes = {"dan.request_id": event.new_request_id, "dan.restart": event.restart}
        self._note(event, "restart", attributes | {"dan.excluded": event.excluded})

    def _on_verdict(self, event: Verdict) -> None:
        labels = {"dan.operation": event.operation, "dan.verdict": "won" if event.is_won else "lost"}
        self._measure(self._verdicts, 1, labels, self._context.get_current())
        first = self._first_id(event.request_id)
        if not event.is_won:
            self._note(event, "verdict", _counted(event))
        elif first is not None and first in self._spans:
            self._won[first] = event

    # --- attempts -----------------------------------------------------------------------------------------------------

    def _on_attempt_ended(self, event: AttemptSucceeded | AttemptFailed | AttemptAbandoned) -> None:
        if type(event) is AttemptSucceeded and event.attempt == 1 and not self.wants_all_attempts:
            return
        labels = {
            "rpc.method": event.method,
            "dan.node": event.node,
            "dan.outcome": _OUTCOMES[type(event)],
        }
        attributes: dict[str, Any] = {"dan.attempt": event.attempt, "dan.request_id": event.request_id}
        error = None
        if isinstance(event, AttemptFailed):
            error = labels["error.type"] = event.error
            attributes |= {"dan.code": event.code, "dan.phase": event.phase}
        self._measure(self._attempt_s, event.elapsed_s, labels, self._context.get_current())
        kind = self._trace.SpanKind.CLIENT
        self._add_span(event.method, event, labels | _known(attributes), error, kind)

    def _on_retry(self, event: RetryScheduled) -> None:
        labels = {"rpc.method": event.method, "dan.node": event.node} | _error(event.error)
        self._retries.add(1, labels)
        more = {"dan.attempt": event.attempt, "dan.wait_s": event.wait_s, "dan.code": event.code}
        self._note(event, "retry", labels | _known(more))

    # --- nodes and wallet ---------------------------------------------------------------------------------------------

    def _on_node_change(self, event: NodeDown | NodeUp) -> None:
        self._nodes_down.add(1 if isinstance(event, NodeDown) else -1, {"dan.node": event.node})

    def _on_wallet_answered(self, event: WalletAnswered) -> None:
        is_routine = not event.is_interactive and event.error is None and event.elapsed_s < AT_ONCE_S
        if is_routine and not self.wants_all_attempts:
            return
        labels = _error(event.error)
        self._measure(self._wallet_s, event.elapsed_s, labels, self._context.get_current())
        attributes = labels | {"dan.interactive": event.is_interactive}
        self._add_span("dan wallet", event, attributes, event.error, self._trace.SpanKind.INTERNAL)

    # --- spans --------------------------------------------------------------------------------------------------------

    def _first_id(self, request_id: RequestId | None) -> RequestId | None:
        return None if request_id is None else self._first_ids.get(request_id, request_id)

    def _add_span(
        self,
        name: str,
        event: AttemptSucceeded | AttemptFailed | AttemptAbandoned | WalletAnswered,
        attributes: dict[str, Any],
        error: str | None,
        kind: Any,
    ) -> None:
        """Make a child of the operation's span in one go, when it is over; that costs half of two steps."""
        # Signing has requests of its own for each set of nodes: the operation, if any, is in the current context then.
        _, context, _ = self._spans.get(self._first_id(event.request_id), (None, None, None))
        end = time.time_ns()
        span = self._tracer.start_span(
            name, context, kind, attributes, start_time=end - int(event.elapsed_s * 1e9)
        )
        if error is not None:
            self._fail(span, error)
        span.end(end)

    def _note(self, event: Event, name: str, attributes: dict[str, Any]) -> None:
        span, _, _ = self._spans.get(self._first_id(event.request_id), (None, None, None))
        if span is None:
            current = self._trace.get_current_span()
            span = current if current in self._own_spans else None
        if span is not None:
            span.add_event(name, attributes)

    def _fail(self, span: Span, error: str) -> None:
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error))


def _counted(event: Verdict) -> dict[str, Any]:
    return _known(
        {
            "dan.verdict": "won" if event.is_won else "lost",
            "dan.agreed": event.agreed,
            "dan.threshold": event.threshold,
            "dan.parties": event.parties,
            "dan.failed": event.failed or None,
            "dan.key_id": event.key_id,
        }
    )


def _error(name: str | None) -> dict[str, Any]:
    return {} if name is None else {"error.type": name}


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}

"""
OpenTelemetry spans and metrics from the client's events (extra ``otel``; docs/observability.md has the tables).

Imported by its full path only. It needs opentelemetry-api, and an SDK of yours to send anything anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dan_async._version import __version__
from dan_async.errors import require_extra
from dan_async.events import (
    AttemptAbandoned,
    AttemptFailed,
    AttemptStarted,
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
    WalletAsked,
)
from dan_async.types import RequestId

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetryObserver"]

_SCOPE = "dan_async"

#: Bounds of the histograms' buckets, in seconds: from a round trip on the same machine to a person at a wallet.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

#: An attempt's request, node, method and number; of a wallet's turn the request alone.
_ChildKey = tuple[RequestId | None, str, str, int] | tuple[RequestId | None]


class OpenTelemetryObserver:
    """
    Turns events into spans and metrics: ``DanClient(network, on_event=OpenTelemetryObserver())``.

    One span for each operation, a child of whatever span is current where the client is called, with children for the
    attempts at the nodes and for the wallet's turn. One object serves any number of clients and networks on one event loop.

    Args:
        tracer_provider: Where spans go; the global provider if None.
        meter_provider: Where metrics go; the global provider if None.

    Raises:
        MissingExtraError: opentelemetry-api is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
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
        self._spans: dict[RequestId | None, tuple[Span, Any]] = {}
        self._first_ids: dict[RequestId, RequestId] = {}  # by the ids of restarts
        self._children: dict[_ChildKey, list[Span]] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            OperationStarted: self._on_operation_started,
            OperationFinished: self._on_operation_finished,
            OperationRestarted: self._on_operation_restarted,
            AttemptStarted: self._on_attempt_started,
            AttemptSucceeded: self._on_attempt_ended,
            AttemptFailed: self._on_attempt_ended,
            AttemptAbandoned: self._on_attempt_ended,
            RetryScheduled: self._on_retry,
            NodeDown: self._on_node_change,
            NodeUp: self._on_node_change,
            WalletAsked: self._on_wallet_asked,
            WalletAnswered: self._on_wallet_answered,
            Verdict: self._on_verdict,
        }

    def __call__(self, event: Event) -> None:
        """Record an event; kinds that it does not know are ignored."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)

    # --- operations ---------------------------------------------------------------------------------------------------

    def _on_operation_started(self, event: OperationStarted) -> None:
        labels = {"dan.operation": event.operation, "dan.network": event.network}
        self._active.add(1, labels)
        if event.request_id is not None:
            span = self._tracer.start_span(
                f"dan {event.operation}", attributes=labels | {"dan.request_id": event.request_id}
            )
            # Both events come in the task that runs the operation. In between this span is the current one, also for spans
            # that the wallet and the transport make themselves.
            token = self._context.attach(self._trace.set_span_in_context(span))
            self._spans[event.request_id] = (span, token)

    def _on_operation_finished(self, event: OperationFinished) -> None:
        labels = {"dan.operation": event.operation, "dan.network": event.network}
        self._active.add(-1, labels)
        self._operation_s.record(event.elapsed_s, labels | _error(event.error))
        if event.request_id is None:
            return
        for new_id in [new for new, first in self._first_ids.items() if first == event.request_id]:
            del self._first_ids[new_id]
        span, token = self._spans.pop(event.request_id, (None, None))
        if span is not None:
            self._context.detach(token)
            self._end(span, event.error, _known({"dan.code": event.code, "dan.phase": event.phase}))

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
        won = "won" if event.is_won else "lost"
        self._verdicts.add(1, {"dan.operation": event.operation, "dan.verdict": won})
        attributes = {
            "dan.verdict": won,
            "dan.agreed": event.agreed,
            "dan.threshold": event.threshold,
            "dan.parties": event.parties,
            "dan.failed": event.failed,
            "dan.key_id": event.key_id,
        }
        self._note(event, "verdict", _known(attributes))

    # --- attempts -----------------------------------------------------------------------------------------------------

    def _on_attempt_started(self, event: AttemptStarted) -> None:
        attributes = {
            "rpc.method": event.method,
            "dan.node": event.node,
            "dan.attempt": event.attempt,
            "dan.request_id": event.request_id,
        }
        self._begin_child(_key(event), event, event.method, _known(attributes), is_client=True)

    def _on_attempt_ended(self, event: AttemptSucceeded | AttemptFailed | AttemptAbandoned) -> None:
        outcome = {AttemptSucceeded: "answered", AttemptFailed: "failed"}.get(type(event), "abandoned")
        error = getattr(event, "error", None)
        labels = {"rpc.method": event.method, "dan.node": event.node, "dan.outcome": outcome} | _error(error)
        self._attempt_s.record(event.elapsed_s, labels)
        more = {"dan.code": getattr(event, "code", None), "dan.phase": getattr(event, "phase", None)}
        self._end_child(_key(event), error, _known(more) | {"dan.outcome": outcome})

    def _on_retry(self, event: RetryScheduled) -> None:
        labels = {"rpc.method": event.method, "dan.node": event.node} | _error(event.error)
        self._retries.add(1, labels)
        more = {"dan.attempt": event.attempt, "dan.wait_s": event.wait_s, "dan.code": event.code}
        self._note(event, "retry", labels | _known(more))

    # --- nodes and wallet ---------------------------------------------------------------------------------------------

    def _on_node_change(self, event: NodeDown | NodeUp) -> None:
        self._nodes_down.add(1 if isinstance(event, NodeDown) else -1, {"dan.node": event.node})

    def _on_wallet_asked(self, event: WalletAsked) -> None:
        attributes = {"dan.interactive": event.is_interactive}
        self._begin_child((event.request_id,), event, "dan wallet", attributes)

    def _on_wallet_answered(self, event: WalletAnswered) -> None:
        self._wallet_s.record(event.elapsed_s, _error(event.error))
        self._end_child((event.request_id,), event.error, {})

    # --- spans --------------------------------------------------------------------------------------------------------

    def _first_id(self, request_id: RequestId | None) -> RequestId | None:
        return None if request_id is None else self._first_ids.get(request_id, request_id)

    def _parent(self, event: Event) -> Span | None:
        first = self._first_id(event.request_id)
        if first in self._spans:
            return self._spans[first][0]
        # Signing has requests of its own for each set of nodes: the operation is the one that they are made in.
        current = self._trace.get_current_span()
        return current if any(current is span for span, _ in self._spans.values()) else None

    def _begin_child(
        self, key: _ChildKey, event: Event, name: str, attributes: dict[str, Any], *, is_client: bool = False
    ) -> None:
        parent = self._parent(event)
        kinds = self._trace.SpanKind
        span = self._tracer.start_span(
            name,
            # Without an operation around it, the span that is current where the client was called is its parent.
            context=None if parent is None else self._trace.set_span_in_context(parent),
            kind=kinds.CLIENT if is_client else kinds.INTERNAL,
            attributes=attributes,
        )
        self._children.setdefault(key, []).append(span)

    def _end_child(self, key: _ChildKey, error: str | None, attributes: dict[str, Any]) -> None:
        """End one span; attempts that belong to no request can have the same key, and are then alike."""
        waiting = self._children.get(key)
        if not waiting:
            return
        self._end(waiting.pop(), error, attributes)
        if not waiting:
            del self._children[key]

    def _note(self, event: Event, name: str, attributes: dict[str, Any]) -> None:
        span = self._parent(event)
        if span is not None:
            span.add_event(name, attributes)

    def _end(self, span: Span, error: str | None, attributes: dict[str, Any]) -> None:
        span.set_attributes(attributes | _error(error))
        if error is not None:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, error))
        span.end()


def _key(event: AttemptStarted | AttemptSucceeded | AttemptFailed | AttemptAbandoned) -> _ChildKey:
    return (event.request_id, event.node, event.method, event.attempt)


def _error(name: str | None) -> dict[str, Any]:
    return {} if name is None else {"error.type": name}


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}

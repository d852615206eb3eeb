"""
What a client does, as log lines of structlog, metrics of Prometheus, and OpenTelemetry.

    python examples/recipes/structlog_and_prometheus/structlog_and_prometheus.py [PORT]

It signs once a second, and serves /metrics until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys

import structlog
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from dan_async import DanClient, LocalWallet
from dan_async.devnet import Devnet
from dan_async.events import (
    AttemptFailed,
    Event,
    NodeDown,
    NodeUp,
    OperationFinished,
    RetryScheduled,
    Verdict,
)
from dan_async.otel import OpenTelemetryObserver


class Observer:
    """Logs what matters, counts everything, and passes each event on to OpenTelemetry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._log = structlog.get_logger("dan_async")
        self._seconds = Histogram(
            "dan_operation_seconds", "Operations", ["operation", "error"], registry=registry
        )
        self._failures = Counter(
            "dan_attempt_failures", "Attempts that failed", ["node", "error"], registry=registry
        )
        self._retries = Counter(
            "dan_retries", "Attempts that follow a failed one", ["node"], registry=registry
        )
        self._down = Gauge("dan_nodes_down", "1 while a node is down", ["node"], registry=registry)
        # The same client in OpenTelemetry's words, read out by the same /metrics.
        self._otel = OpenTelemetryObserver(meter_provider=MeterProvider([PrometheusMetricReader()]))

    def __call__(self, event: Event) -> None:
        """Take an event; it is called on the event loop, so it is quick."""
        self._otel(event)
        fields = event.to_dict()
        name = fields.pop("event")
        match event:
            case OperationFinished(operation=operation, elapsed_s=elapsed_s, error=error):
                self._seconds.labels(operation, error or "").observe(elapsed_s)
                (self._log.info if error is None else self._log.error)(name, **fields)
            case AttemptFailed(node=node, error=error):
                self._failures.labels(node, error).inc()
                self._log.warning(name, **fields)
            case RetryScheduled(node=node):
                self._retries.labels(node).inc()
            case NodeDown(node=node) | NodeUp(node=node):
                self._down.labels(node).set(isinstance(event, NodeDown))
                self._log.warning(name, **fields)
            case Verdict(is_won=False):
                self._log.error(name, **fields)


async def main(port: int) -> None:
    """Sign until SIGINT or SIGTERM."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server, thread = start_http_server(port, addr="127.0.0.1")
    try:
        async with DanClient(Devnet(threshold=2, parties=3), on_event=Observer()) as dan:
            owner = LocalWallet(secrets.token_hex(32))
            session = await dan.generate_session_key(wallet=owner, chain_id=80002)
            await dan.sign_message("hello", session)
            print(f"http://127.0.0.1:{server.server_port}/metrics", flush=True)
            while not stop.is_set():
                await dan.sign_message("hello", session)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("port", type=int, nargs="?", default=9100)
    asyncio.run(main(parser.parse_args().port))

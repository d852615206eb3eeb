"""
What watching costs: ``python -m benchmarks.observer [--quick]``; exits with 1 if it is 15 % of a key generation or more.

The client's CPU time for a 2-of-3 key generation over stub nodes: with no event listener, with one that does nothing, with
an OpenTelemetryObserver, and with one for all attempts. The spans go to the SDK's BatchSpanProcessor, whose thread counts;
they are exported to nowhere. Each listener takes many short turns, and each turn is compared with one of nobody's right
beside it, so that a busy moment meets both. The share is the median over these pairs; behind it is where the true median
lies with 95 % confidence.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack

from attrs import frozen
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.measure import platform_facts, run_load, say
from benchmarks.peers import Peer
from benchmarks.run import open_client
from benchmarks.workloads import Workload
from dan_async.events import OnEvent
from dan_async.otel import OpenTelemetryObserver

__all__ = ["MOST", "Cost", "main", "measure"]

#: What the observer may add to the CPU time of a key generation.
MOST = 0.15

_WORKLOAD = Workload(name="2-of-3", t=2, n=3)


@frozen
class Cost:
    """The CPU milliseconds of a key generation, the share that a listener adds, and the range in which that lies."""

    cpu_ms: float
    share: float
    low: float
    high: float


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:  # noqa: ARG002
        return SpanExportResult.SUCCESS


def _listeners(stack: AsyncExitStack) -> dict[str, OnEvent | None]:
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(_Nowhere()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    stack.callback(meters.shutdown)
    stack.callback(tracers.shutdown)
    return {
        "nobody": None,
        "a function that does nothing": lambda _: None,
        "OpenTelemetryObserver": OpenTelemetryObserver(tracers, meters),
        "with all_attempts": OpenTelemetryObserver(tracers, meters, all_attempts=True),
    }


async def measure(*, rounds: int, seconds: float, concurrency: int) -> dict[str, Cost]:
    """Return what each listener costs, from so many pairs of turns with it and with nobody."""
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer("benchmarks.stub_nodes", {"t": 2, "n": 3, "delay_ms": 0}))
        operations = {
            name: await open_client(_WORKLOAD, peer.nodes, stack, on_event=listener)
            for name, listener in _listeners(stack).items()
        }
        for operation in operations.values():
            await run_load(operation, concurrency=concurrency, seconds=0.0, at_least=50)
        nobody = operations.pop("nobody")
        pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in operations}
        for round_ in range(rounds):
            for name, operation in operations.items():
                turns = [nobody, operation] if round_ % 2 else [operation, nobody]
                loads = [await run_load(turn, concurrency=concurrency, seconds=seconds) for turn in turns]
                plain, watched = loads if round_ % 2 else reversed(loads)
                pairs[name].append((plain.cpu_ms, watched.cpu_ms))
    plain_ms = statistics.median(plain for of_one in pairs.values() for plain, _ in of_one)
    return {"nobody": Cost(plain_ms, 0.0, 0.0, 0.0)} | {name: _cost(of_one) for name, of_one in pairs.items()}


def _cost(pairs: Sequence[tuple[float, float]]) -> Cost:
    shares = sorted(watched / plain - 1 for plain, watched in pairs)
    # How many of the pairs lie below the true median is binomial: the ranks of its middle 95 %.
    low = max(0, math.floor(len(shares) / 2 - 0.98 * math.sqrt(len(shares))))
    return Cost(
        statistics.median(watched for _, watched in pairs),
        statistics.median(shares),
        shares[low],
        shares[-1 - low],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print, and say whether the observer costs too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observer")
    parser.add_argument("--quick", action="store_true", help="a minute")
    options = parser.parse_args(arguments)
    rounds, seconds = (40, 0.1) if options.quick else (150, 0.1)
    is_too_much = False
    print("| in flight | who listens | CPU ms | more | 95 % |\n|--:|---|--:|--:|--:|")
    for concurrency in (1, 8):
        say(f"{concurrency} in flight")
        found = asyncio.run(measure(rounds=rounds, seconds=seconds, concurrency=concurrency))
        for name, cost in found.items():
            within = f"{cost.low:.1%} to {cost.high:.1%}"
            print(f"| {concurrency} | {name} | {cost.cpu_ms:.2f} | {cost.share:.1%} | {within} |")
        is_too_much |= found["OpenTelemetryObserver"].share >= MOST
    print(", ".join(f"{name}: {value}" for name, value in platform_facts().items()))
    return int(is_too_much)


if __name__ == "__main__":
    raise SystemExit(main())

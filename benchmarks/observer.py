"""
What watching costs: ``python -m benchmarks.observer [--quick]``; exits with 1 if it is 15 % of a key generation or more.

The client's CPU time for a 2-of-3 key generation over stub nodes: with no event listener, with one that does nothing, with
an OpenTelemetryObserver, and with one for all attempts. The spans go to the SDK's BatchSpanProcessor, whose thread counts;
they are exported to nowhere. All four take short turns, so that a busy moment meets all of them, and the shares are medians
over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack

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

__all__ = ["MOST", "main", "measure"]

#: What the observer may add to the CPU time of a key generation.
MOST = 0.15

_WORKLOAD = Workload(name="2-of-3", t=2, n=3)


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


async def measure(*, rounds: int, seconds: float, concurrency: int) -> dict[str, tuple[float, float]]:
    """Return for each listener the CPU milliseconds of a key generation, and the share that it adds."""
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer("benchmarks.stub_nodes", {"t": 2, "n": 3, "delay_ms": 0}))
        operations = {
            name: await open_client(_WORKLOAD, peer.nodes, stack, on_event=listener)
            for name, listener in _listeners(stack).items()
        }
        cpu_ms: dict[str, list[float]] = {name: [] for name in operations}
        for operation in operations.values():
            await run_load(operation, concurrency=concurrency, seconds=0.0, at_least=50)
        names = list(operations)
        for round_ in range(rounds):
            for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
                load = await run_load(operations[name], concurrency=concurrency, seconds=seconds)
                cpu_ms[name].append(load.cpu_ms)
    plain = cpu_ms["nobody"]
    return {
        name: (
            statistics.median(times),
            statistics.median(one / other - 1 for one, other in zip(times, plain, strict=True)),
        )
        for name, times in cpu_ms.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print, and say whether the observer costs too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.observer")
    parser.add_argument("--quick", action="store_true", help="half a minute")
    options = parser.parse_args(arguments)
    rounds, seconds = (10, 0.3) if options.quick else (30, 0.6)
    is_too_much = False
    print("| in flight | who listens | CPU ms | more |\n|--:|---|--:|--:|")
    for concurrency in (1, 8):
        say(f"{concurrency} in flight")
        found = asyncio.run(measure(rounds=rounds, seconds=seconds, concurrency=concurrency))
        for name, (cpu_ms, share) in found.items():
            print(f"| {concurrency} | {name} | {cpu_ms:.2f} | {share:.1%} |")
        is_too_much |= found["OpenTelemetryObserver"][1] >= MOST
    print(", ".join(f"{name}: {value}" for name, value in platform_facts().items()))
    return int(is_too_much)


if __name__ == "__main__":
    raise SystemExit(main())

"""
Where the client's CPU time goes, function by function: ``python -m benchmarks.profile_client 2-of-3``.

The real client makes keys on stub nodes while a timer that runs on CPU time (ITIMER_PROF) looks at the stack every few
milliseconds, as often as the kernel can. That costs next to nothing, and does not charge a function for the time in which
another process had the core, as profilers by the wall clock do. What runs in C is charged to the Python function that
called it. ITIMER_PROF is a Unix timer.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import FrameType

from attrs import define, field

from benchmarks.measure import run_load
from benchmarks.peers import Peer
from benchmarks.run import open_client
from benchmarks.workloads import WORKLOADS, Workload

__all__ = ["Samples", "main"]

_INTERVAL_S = 0.001


@define
class Samples:
    """How often each function was on top of the stack, and how often anywhere on it."""

    total: int = 0
    alone: Counter[str] = field(factory=Counter)
    with_callees: Counter[str] = field(factory=Counter)

    def take(self, _: int, frame: FrameType | None) -> None:
        """Handle the signal: look at the stack."""
        self.total += 1
        names = []
        while frame is not None:
            names.append(_name(frame))
            frame = frame.f_back
        self.alone[names[0]] += 1
        self.with_callees.update(set(names))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take samples inside."""
        before = signal.signal(signal.SIGPROF, self.take)
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    def render(self, lines: int) -> str:
        """Give both lists, most expensive first."""
        parts = []
        for title, counts in (("by itself", self.alone), ("with what it calls", self.with_callees)):
            parts.append(f"\n{'share':>7}  {title}")
            parts += [f"{count / self.total:7.1%}  {name}" for name, count in counts.most_common(lines)]
        return "\n".join(parts)


def _name(frame: FrameType) -> str:
    code = frame.f_code
    path = Path(code.co_filename)
    return f"{path.parent.name}/{path.name}:{code.co_qualname}"


async def profile(workload: Workload, *, concurrency: int, seconds: float) -> tuple[Samples, float]:
    """Make keys for so long; give the samples, and the CPU time of one keygen in milliseconds."""
    samples = Samples()
    async with AsyncExitStack() as stack:
        shape = {"t": workload.t, "n": workload.n, "delay_ms": workload.delay_ms}
        stub = await stack.enter_async_context(Peer("benchmarks.stub_nodes", shape))
        keygen = await open_client(workload, stub.nodes, stack)
        await run_load(keygen, concurrency=concurrency, seconds=0.0, at_least=20)
        with samples.taken():
            load = await run_load(keygen, concurrency=concurrency, seconds=seconds)
    return samples, load.cpu_ms


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, run, and print."""
    known = {workload.name: workload for workload in WORKLOADS["full"]}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_client")
    parser.add_argument("workload", choices=known)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--lines", type=int, default=40, help="how many functions to list")
    options = parser.parse_args(arguments)
    samples, cpu_ms = asyncio.run(
        profile(known[options.workload], concurrency=options.concurrency, seconds=options.seconds)
    )
    print(f"{options.workload}: {cpu_ms:.2f} ms of CPU per keygen, {samples.total} samples")
    print(samples.render(options.lines))


if __name__ == "__main__":
    main()

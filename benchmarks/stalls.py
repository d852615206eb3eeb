"""
How fair the client is to its host: ``python -m benchmarks.stalls [--quick]`` (ten minutes, or one).

A web server awaits our calls on its own event loop, and everything else that it serves waits while we hold that loop. A
timer that is due every millisecond shows for how long: its lateness is what any other handler would have felt. Measured are
1, 50, 500 and 10 000 calls at once (key generation over nodes and over a gateway, signing over both), by turns with as many
coroutines that do nothing but sleep: a bare loop has to begin and end those as well. Then what 10 000 calls in flight cost
beside 100: nodes keep their acknowledgements back until all calls wait for them.

The servers are stubs in processes of their own. Time for which the machine gave the processor to others does not count.
Exits with 1 if an aim is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from attrs import define, evolve, field, frozen

from benchmarks.measure import LatencyHistogram, commit_facts, platform_facts, say
from benchmarks.peers import Peer
from dan_async import DanClient, LocalWallet, NodeNetwork
from dan_async.config import Threshold, Timeouts
from dan_async.gateway import GatewayNetwork
from dan_async.session import DanModuleInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["main", "measure_in_flight", "measure_stalls"]

_RESULTS = Path(__file__).parent / "results"
_THRESHOLD = Threshold(3, 5)
_TIMEOUTS = Timeouts(total_s=600.0, attempt_s=300.0, connect_s=60.0)

#: For benchmarks only: known to everybody.
_OWNER_KEY = "11" * 32

#: How often the host wants its loop, in seconds.
_BEAT_S = 0.001

#: How long a call of the bare loop sleeps, in seconds.
_SLEEP_S = 0.02

#: The aims: at most so many ms more than the bare loop up to so many calls at once, and how much many in flight may cost.
_MOST_MORE_MS = {500: 20.0, 10_000: 40.0}
_MOST_CPU_RATIO, _MOST_KIB = 1.15, 25.0

Operation = Callable[[], Awaitable[object]]


@frozen
class Effort:
    """
    How much is measured.

    Args:
        rounds: How many times client and bare loop take turns, by the number of calls at once.
        calls: At least so many calls in each of them; more than go at once follow each other.
        many: How many calls are in flight beside 100.
    """

    rounds: dict[int, int]
    calls: int
    many: int


QUICK = Effort(rounds={1: 3, 50: 3, 500: 3}, calls=200, many=2000)
FULL = Effort(rounds={1: 7, 50: 7, 500: 7, 10_000: 3}, calls=500, many=10_000)


# --- the host ---------------------------------------------------------------------------------------------------------


@define(eq=False)
class _Queued:
    """How long this thread has waited for a processor so far, as Linux tells."""

    _descriptor: int | None = None

    def __attrs_post_init__(self) -> None:
        with contextlib.suppress(OSError):
            self._descriptor = os.open("/proc/thread-self/schedstat", os.O_RDONLY)

    def read_s(self) -> float:
        """Give the seconds."""
        return 0.0 if self._descriptor is None else int(os.pread(self._descriptor, 64, 0).split()[1]) / 1e9

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@define(eq=False)
class Host:
    """What else the loop has to do: one timer, and a note of how late it was each time; *cpu_s* is the time for that."""

    late: LatencyHistogram = field(factory=LatencyHistogram)
    most_memory: int = 0
    _due: float = 0.0
    cpu_s: float = 0.0
    _queued: _Queued = field(factory=_Queued)
    _queued_s: float = 0.0
    _handle: asyncio.Handle | None = None
    _beats: int = 0

    async def __aenter__(self) -> Self:
        self._queued_s, self._due = self._queued.read_s(), time.perf_counter()
        self._beat()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(2 * _BEAT_S)
        if self._handle is not None:
            self._handle.cancel()
        self._queued.close()

    def _beat(self) -> None:
        began, now, queued = time.thread_time(), time.perf_counter(), self._queued.read_s()
        self.late.record(max(0.0, now - self._due - (queued - self._queued_s)))
        self._queued_s = queued
        self._beats += 1
        if self._beats % 64 == 0:
            self.most_memory = max(self.most_memory, _memory_bytes())
        self._due = time.perf_counter() + _BEAT_S
        self._handle = asyncio.get_running_loop().call_later(_BEAT_S, self._beat)
        self.cpu_s += time.thread_time() - began


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _open_sockets() -> int:
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            found += str(descriptor.readlink()).startswith("socket:")
    return found


# --- the calls --------------------------------------------------------------------------------------------------------


def _keygen(client: DanClient) -> Operation:
    wallet = LocalWallet(_OWNER_KEY)
    return lambda: client.generate_session_key(wallet=wallet, chain_id=80002)


def _signing(client: DanClient, session: dict[str, Any]) -> Operation:
    info = DanModuleInfo.from_dict(session)
    return lambda: client.sign_message("a message of some forty characters or so", info)


async def _bare() -> None:
    await asyncio.sleep(_SLEEP_S)


@asynccontextmanager
async def _clients() -> AsyncIterator[dict[str, Operation]]:
    """Give the operations by name, over stub nodes and a stub gateway."""
    async with AsyncExitStack() as stack:
        shape = {"t": _THRESHOLD.t, "n": _THRESHOLD.n, "delay_ms": 0}
        nodes = await stack.enter_async_context(Peer("benchmarks.stub_nodes", shape))
        gateway = await stack.enter_async_context(Peer("benchmarks.stub_gateway", {}))
        over_nodes = await _client_of(nodes, stack)
        network = GatewayNetwork(
            gateway.described["url"], revision="0.3", threshold=_THRESHOLD, timeouts=_TIMEOUTS
        )
        over_gateway = await stack.enter_async_context(DanClient(network, timeouts=_TIMEOUTS))
        yield {
            "keygen, nodes": _keygen(over_nodes),
            "keygen, gateway": _keygen(over_gateway),
            "signing, nodes": _signing(over_nodes, nodes.described["session"]),
            "signing, gateway": _signing(over_gateway, gateway.described["session"]),
        }


async def _client_of(nodes: Peer, stack: AsyncExitStack) -> DanClient:
    network = NodeNetwork(nodes.nodes, threshold=_THRESHOLD, timeouts=_TIMEOUTS)
    return await stack.enter_async_context(DanClient(network, timeouts=_TIMEOUTS))


@frozen
class Wave:
    """So many calls, all at once, and what the host felt meanwhile."""

    calls: int
    elapsed_s: float
    cpu_s: float
    late: LatencyHistogram
    latencies: LatencyHistogram
    most_memory: int = 0


async def run_wave(operation: Operation, at_once: int, *, waves: int = 1) -> Wave:
    """Begin *at_once* calls in one turn of the loop, wait for all of them, and again so many times."""
    latencies = LatencyHistogram()
    gc.collect()

    async def call() -> None:
        started = time.perf_counter()
        await operation()
        latencies.record(time.perf_counter() - started)

    async with Host() as host:
        before, start = time.process_time(), time.perf_counter()
        for _ in range(waves):
            await asyncio.gather(*[call() for _ in range(at_once)])
        elapsed, cpu = time.perf_counter() - start, time.process_time() - before - host.cpu_s
    return Wave(
        calls=at_once * waves,
        elapsed_s=elapsed,
        cpu_s=cpu,
        late=host.late,
        latencies=latencies,
        most_memory=host.most_memory,
    )


# --- stalls -----------------------------------------------------------------------------------------------------------


async def measure_stalls(effort: Effort, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Measure every kind of call at every number of calls at once, by turns with the bare loop."""
    entries = []
    async with _clients() as operations:
        for name, operation in operations.items():
            if names and name not in names:
                continue
            await run_wave(operation, 20, waves=5)
            for at_once, rounds in effort.rounds.items():
                waves = max(1, effort.calls // at_once)
                pairs = []
                for number in range(rounds):
                    say(f"{name}, {at_once} at once, round {number + 1} of {rounds}")
                    bare = await run_wave(_bare, at_once, waves=min(waves, 10))
                    pairs.append((await run_wave(operation, at_once, waves=waves), bare))
                entries.append(_stall_entry(name, at_once, pairs))
                print(_row(entries[-1]), flush=True)
    return entries


def _stall_entry(name: str, at_once: int, pairs: Sequence[tuple[Wave, Wave]]) -> dict[str, Any]:
    ours, bare = [wave for wave, _ in pairs], [wave for _, wave in pairs]
    return {
        "name": name,
        "at_once": at_once,
        "calls": sum(wave.calls for wave in ours),
        "longest_stall_ms": _longest(ours),
        "bare_longest_stall_ms": _longest(bare),
        "more_ms": round(
            statistics.median(1e3 * (wave.late.longest_s - base.late.longest_s) for wave, base in pairs), 2
        ),
        "late_ms": _merged([wave.late for wave in ours]),
        "bare_late_ms": _merged([wave.late for wave in bare]),
        "per_second": round(statistics.median(wave.calls / wave.elapsed_s for wave in ours), 1),
        "cpu_ms": round(statistics.median(1e3 * wave.cpu_s / wave.calls for wave in ours), 4),
        "latency_ms": _merged([wave.latencies for wave in ours]),
    }


def _longest(waves: Sequence[Wave]) -> dict[str, Any]:
    values = [round(1e3 * wave.late.longest_s, 2) for wave in waves]
    return {"median": round(statistics.median(values), 2), "turns": values}


def _merged(histograms: Sequence[LatencyHistogram]) -> dict[str, float]:
    merged = LatencyHistogram()
    for histogram in histograms:
        merged.add(histogram)
    return merged.to_dict()


# --- in flight --------------------------------------------------------------------------------------------------------


async def measure_in_flight(many: int, few: int = 100) -> dict[str, Any]:
    """Measure what a key generation over nodes costs with *few* and with *many* in flight, by turns."""
    found: dict[int, list[Wave]] = {few: [], many: []}
    memory = connections = 0  # of the many, which come last
    async with AsyncExitStack() as stack:
        shape = {"t": _THRESHOLD.t, "n": _THRESHOLD.n, "delay_ms": 0}
        operations = {}
        for count in found:
            nodes = await stack.enter_async_context(Peer("benchmarks.stub_nodes", {**shape, "hold": count}))
            operations[count] = _keygen(await _client_of(nodes, stack))
        for number in range(3):
            for count, operation in operations.items():
                say(f"{count} key generations in flight, round {number + 1} of 3")
                if not found[count]:
                    gc.collect()
                    began, opened = _memory_bytes(), _open_sockets()
                    first = await run_wave(operation, count)  # opens the connections
                    memory, connections = first.most_memory - began, _open_sockets() - opened
                found[count].append(await run_wave(operation, count, waves=max(1, many // count // 5)))
    costs = {count: [1e3 * wave.cpu_s / wave.calls for wave in waves] for count, waves in found.items()}
    ratios = [a / b for a, b in zip(costs[many], costs[few], strict=True)]
    return {
        "few": few,
        "many": many,
        "cpu_ms": {str(count): round(statistics.median(values), 4) for count, values in costs.items()},
        "cpu_ratio": round(statistics.median(ratios), 3),
        "kib_each": round(memory / many / 1024, 1),
        "connections": connections,
        "longest_stall_ms": _longest(found[many]),
    }


# --- the command ------------------------------------------------------------------------------------------------------

_HEAD = (
    "| calls | at once | longest stall, ms | bare loop | more | p99 of all | calls/s | CPU ms | p50 ms | p99 ms |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def _row(entry: dict[str, Any]) -> str:
    latency = entry["latency_ms"]
    return (
        f"| {entry['name']} | {entry['at_once']} | {entry['longest_stall_ms']['median']:.1f} "
        f"| {entry['bare_longest_stall_ms']['median']:.1f} | {entry['more_ms']:.1f} | {entry['late_ms']['p99']:.1f} "
        f"| {entry['per_second']:.0f} | {entry['cpu_ms']:.2f} | {latency['p50']:.1f} | {latency['p99']:.1f} |"
    )


def _in_flight_line(found: dict[str, Any]) -> str:
    few, many = found["few"], found["many"]
    cpu = found["cpu_ms"]
    return (
        f"{many} in flight beside {few}: CPU {cpu[str(many)]:.2f} to {cpu[str(few)]:.2f} ms, "
        f"{found['cpu_ratio']:.2f} times (aim: {_MOST_CPU_RATIO}); {found['kib_each']:.1f} KiB each (aim: {_MOST_KIB:g}); "
        f"connections {found['connections']}; "
        f"longest stall {found['longest_stall_ms']['median']:.1f} ms"
    )


def _missed(result: dict[str, Any]) -> list[str]:
    missed = [
        f"{entry['name']}, {entry['at_once']} at once: {entry['more_ms']:.1f} ms more than the bare loop"
        for entry in result["entries"]
        if entry["more_ms"] > next(most for level, most in _MOST_MORE_MS.items() if entry["at_once"] <= level)
    ]
    found = result.get("in_flight")
    if found and (found["cpu_ratio"] > _MOST_CPU_RATIO or found["kib_each"] > _MOST_KIB):
        missed.append("in flight")
    return missed


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, and say whether an aim was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stalls")
    parser.add_argument("--quick", action="store_true", help="up to 500 at once, and 2000 in flight")
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="this kind of call")
    parser.add_argument("--at-once", metavar="N", type=int, action="append", help="only so many")
    parser.add_argument("--rounds", metavar="N", type=int, help="so many rounds of each")
    parser.add_argument("--no-in-flight", action="store_true", help="leave out the second part")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where the results go")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    if options.at_once:
        effort = evolve(effort, rounds={n: FULL.rounds.get(n, 3) for n in options.at_once})
    if options.rounds:
        effort = evolve(effort, rounds=dict.fromkeys(effort.rounds, options.rounds))
    result: dict[str, Any] = {**commit_facts(), "platform": platform_facts()}
    if not options.no_in_flight:
        result["in_flight"] = asyncio.run(measure_in_flight(effort.many))
    print(_HEAD)
    result["entries"] = asyncio.run(measure_stalls(effort, options.only))
    output = options.output or _RESULTS / f"stalls{'-quick' * options.quick}.json"
    output.write_text(json.dumps(result, indent=1) + "\n")
    if "in_flight" in result:
        print("", _in_flight_line(result["in_flight"]), sep="\n")
    missed = _missed(result)
    print(*[f"NOT met: {line}" for line in missed], sep="\n")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())

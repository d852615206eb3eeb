"""
Run the benchmarks: ``python -m benchmarks.run --quick`` (under a minute) or without ``--quick``.

Every measurement has the other side in a process of its own, so that this process's CPU time is the client's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.curve import CurveOperations
from benchmarks.floor import FloorClient
from benchmarks.measure import Load, commit_facts, platform_facts, run_load, say, summarise
from benchmarks.peers import Peer
from benchmarks.recording import Recording, record
from benchmarks.report import render, write_into_readme
from benchmarks.workloads import FULL, QUICK, WORKLOADS, Effort, Workload
from dan_async import DanClient, LocalWallet, NodeNetwork
from dan_async.config import Threshold, Timeouts
from dan_async.events import OnEvent

__all__ = ["main", "open_client", "record_keygen", "run_on_devnet", "run_on_stubs"]

FORMAT = 1
_RESULTS = Path(__file__).parent / "results"

#: For benchmarks only: known to everybody.
_OWNER_KEY = "11" * 32
_CHAIN_ID = 80002

#: The client waits for all n nodes, as the floor does, and not only for t: both sides do the whole work.
_TIMEOUTS = Timeouts(total_s=300.0, attempt_s=120.0, connect_s=30.0, grace_s=60.0)

Operation = Callable[[], Awaitable[object]]


async def open_client(
    workload: Workload,
    nodes: Sequence[dict[str, str]],
    stack: AsyncExitStack,
    *,
    on_event: OnEvent | None = None,
) -> Operation:
    """Give a function that makes one key with a real client over these nodes."""
    network = NodeNetwork(nodes, threshold=Threshold(workload.t, workload.n), timeouts=_TIMEOUTS)
    client = await stack.enter_async_context(DanClient(network, timeouts=_TIMEOUTS, on_event=on_event))
    wallet = LocalWallet(_OWNER_KEY)
    permissions = workload.permissions

    async def keygen() -> object:
        return await client.generate_session_key(wallet=wallet, chain_id=_CHAIN_ID, permissions=permissions)

    return keygen


async def record_keygen(workload: Workload, nodes: Sequence[dict[str, str]]) -> Recording:
    """Record one keygen of the real client over these nodes."""

    async def keygen(relayed: list[dict[str, str]]) -> None:
        async with AsyncExitStack() as stack:
            await (await open_client(workload, relayed, stack))()

    return await record(nodes, keygen)


# --- client, floor and curve operations, by turns


@frozen(kw_only=True)
class _Bench:
    """What one workload measures, ready to run: the operations by name, and facts about them."""

    workload: Workload
    operations: dict[str, Operation]
    recording: Recording
    curve: CurveOperations


async def _open_bench(workload: Workload, stack: AsyncExitStack) -> _Bench:
    shape = {"t": workload.t, "n": workload.n, "delay_ms": workload.delay_ms}
    stub = await stack.enter_async_context(Peer("benchmarks.stub_nodes", shape))
    recording = await record_keygen(workload, stub.nodes)
    replay = {"recording": recording.to_json(), "delay_ms": workload.delay_ms}
    server = await stack.enter_async_context(Peer("benchmarks.floor", replay))
    urls = [node["url"] for node in server.nodes]
    floor = await stack.enter_async_context(FloorClient(urls, recording))
    curve = CurveOperations(recording)
    operations: dict[str, Operation] = {
        "stub": await open_client(workload, stub.nodes, stack),
        "floor": floor.exchange,
        "curve": curve.run_async,
    }
    if workload.shows_fan_out:
        operations["floor, in turn"] = floor.exchange_in_turn
    return _Bench(workload=workload, operations=operations, recording=recording, curve=curve)


async def run_on_stubs(workloads: Sequence[Workload], effort: Effort) -> dict[str, Any]:
    """
    Measure the client against stub nodes, beside the floor with the bytes of one of these very keygens.

    Everything takes turns, workload by workload and client by floor, so that a busy moment of the machine, or a slow one,
    does not meet only one of the numbers that are to be compared.
    """
    turns: dict[tuple[str, int, str], list[Load]] = {}
    async with AsyncExitStack() as stack:
        say("starting stub nodes and floor")
        benches = [await _open_bench(workload, stack) for workload in workloads]
        for round_ in range(effort.rounds + 1):
            say("warming up" if not round_ else f"client and floor, round {round_} of {effort.rounds}")
            for bench in benches:
                for concurrency in bench.workload.concurrency:
                    for name, operation in bench.operations.items():
                        if not round_:
                            await run_load(
                                operation, concurrency=concurrency, seconds=0.0, at_least=effort.warm_up
                            )
                            continue
                        load = await run_load(operation, concurrency=concurrency, seconds=effort.round_s)
                        turns.setdefault((bench.workload.name, concurrency, name), []).append(load)
    return {
        "entries": [
            entry
            for bench in benches
            for concurrency in bench.workload.concurrency
            for entry in _entries(bench, concurrency, turns)
        ],
        "curve": {bench.workload.name: bench.curve.describe() for bench in benches},
        "bytes": {
            bench.workload.name: {
                "sent": bench.recording.bytes_sent,
                "received": bench.recording.bytes_received,
            }
            for bench in benches
        },
    }


def _entry(workload: Workload, peer: str, concurrency: int, loads: Sequence[Load]) -> dict[str, Any]:
    return {
        "workload": workload.name,
        "n": workload.n,
        "peer": peer,
        "concurrency": concurrency,
        **summarise(loads),
    }


def _entries(
    bench: _Bench, concurrency: int, turns: dict[tuple[str, int, str], list[Load]]
) -> list[dict[str, Any]]:
    """Give one entry for each operation; the client's has its ratios to the others, round by round."""
    workload = bench.workload
    loads = {name: turns[workload.name, concurrency, name] for name in bench.operations}
    entries = [_entry(workload, name, concurrency, found) for name, found in loads.items()]
    costs = [
        (client.cpu_ms, floor.cpu_ms, curve.cpu_ms)
        for client, floor, curve in zip(loads["stub"], loads["floor"], loads["curve"], strict=True)
    ]
    entries[0] |= {
        "to_floor": round(statistics.median(client / floor for client, floor, _ in costs), 3),
        "to_floor_and_curve": round(
            statistics.median(client / (floor + curve) for client, floor, curve in costs), 3
        ),
    }
    return entries


# --- real nodes


async def run_on_devnet(workload: Workload, effort: Effort) -> list[dict[str, Any]]:
    """Measure the client against real nodes, each in a process of its own, and what they spend."""
    entries = []
    async with AsyncExitStack() as stack:
        say(f"{workload.name}: starting {workload.n} nodes")
        shape = {"t": workload.t, "n": workload.n}
        net = await stack.enter_async_context(Peer("benchmarks.devnet_host", shape))
        keygen = await open_client(workload, net.nodes, stack)
        # The first one opens the nodes' links to each other.
        await run_load(keygen, concurrency=1, seconds=0.0, at_least=2)
        for concurrency in workload.concurrency:
            say(f"{workload.name}: client on the devnet, {concurrency} in flight")
            before = net.cpu_s()
            load = await run_load(
                keygen, concurrency=concurrency, seconds=effort.devnet_s, at_least=effort.devnet_keygens
            )
            after = net.cpu_s()
            entry = _entry(workload, "devnet", concurrency, [load])
            if before is not None and after is not None:
                entry["node_cpu_ms"] = round((after - before) / load.operations / workload.n * 1e3, 3)
            entries.append(entry)
    return entries


async def run_all(workloads: Sequence[Workload], effort: Effort, *, with_devnet: bool) -> dict[str, Any]:
    """Run everything and give what goes into the result file."""
    result: dict[str, Any] = {
        "format": FORMAT,
        "effort": effort.name,
        **commit_facts(),
        "platform": platform_facts(),
        **await run_on_stubs(workloads, effort),
    }
    for workload in workloads:
        if with_devnet and workload.on_devnet:
            result["entries"] += await run_on_devnet(workload, effort)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run")
    parser.add_argument("--quick", action="store_true", help="short turns, the three basic workloads")
    parser.add_argument(
        "--no-devnet", action="store_true", help="leave out real nodes: client and floor only"
    )
    parser.add_argument("--only", metavar="NAME", action="append", help="this workload; may be repeated")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where the results go")
    parser.add_argument("--readme", action="store_true", help="put the tables into benchmarks/README.md")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    known = {workload.name: workload for workload in WORKLOADS[effort.name]}
    unknown = [name for name in options.only or () if name not in known]
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; there are: {', '.join(map(repr, known))}")
    chosen = [known[name] for name in options.only or known]
    result = asyncio.run(run_all(chosen, effort, with_devnet=not options.no_devnet))
    output: Path = options.output or _RESULTS / f"{effort.name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    text = render(result)
    print(text)
    if options.readme:
        write_into_readme(text)
    say(f"results written to {output.name}")


if __name__ == "__main__":
    main()

"""
Batches: a hundred thousand rows in the same memory, throughput by concurrency, and ten minutes on a real network.

    python -m benchmarks.batch rows --rows 100000            # against stub nodes: the client, not the network
    python -m benchmarks.batch rows --store sqlite:///b.db   # the same, with every session stored
    python -m benchmarks.batch throughput --plot --dask      # 1, 8, 64 and 512 at a time, and two Dask workers
    python -m benchmarks.batch devnet --minutes 10           # as many rows as that time allows on a real 2-of-3 devnet
    python -m benchmarks.batch together                      # keys a second in sessions of sixteen, and one at a time

``rows`` exits with 1 if the memory grew by more than it may, ``together`` if sixteen at a time bring less than 2.5 times as
many keys a second as one at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import commit_facts, platform_facts, run_load, say
from benchmarks.peers import Peer
from dan_async import DanClient, LocalWallet, NodeEndpoint, NodeNetwork, Threshold
from dan_async.storage import FixedKeys, SessionStore, StoreKey

__all__ = ["MOST_GROWTH_MIB", "main", "run_for", "run_rows"]

#: How much the process may grow over a batch, whatever its length.
MOST_GROWTH_MIB = 60.0
CONCURRENCY = (1, 8, 64, 512)
#: How many times as many keys a second sessions of sixteen must bring.
LEAST_TOGETHER = 2.5

_RESULTS = Path(__file__).parent / "results"
_PLOT = Path(__file__).parent / "batch-throughput.png"
_WALLET = LocalWallet("11" * 32)
_USUAL = Threshold(2, 3)
_MIB = 2**20


def rss_mib() -> float:
    """What the process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / _MIB


def peak_mib() -> float:
    """The most that it ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def requests(count: int | None) -> Iterator[dict[str, Any]]:
    """So many rows, or endlessly many."""
    for row in itertools.count() if count is None else range(count):
        yield {"reference": f"row {row}"}


async def connect(
    stack: AsyncExitStack, peer: Peer, store: SessionStore | None, threshold: Threshold = _USUAL
) -> DanClient:
    """Open a client of a peer's nodes."""
    nodes = [NodeEndpoint(node["url"], node["operator"]) for node in peer.nodes]
    client = await stack.enter_async_context(DanClient(NodeNetwork(nodes, threshold=threshold), store=store))
    session = await client.generate_session_key(wallet=_WALLET, chain_id=1)  # connections open, caches warm
    assert (session.threshold, session.parties_number) == (threshold.t, threshold.n)
    return client


def open_store(url: str | None) -> SessionStore | None:
    """The store that is named, with a key of this run."""
    if url is None:
        return None
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

    return SQLAlchemyStore(url, FixedKeys([StoreKey.generate()]))


async def run_rows(rows: int, *, concurrency: int, store_url: str | None = None) -> dict[str, Any]:
    """
    Run a batch of so many rows against stub nodes.

    Returns:
        Rows, failures, seconds, rows per second, and by how many MiB the process grew.
    """
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer("benchmarks.stub_nodes", {"t": 2, "n": 3, "delay_ms": 0}))
        store = open_store(store_url)
        if store is not None:
            stack.push_async_callback(store.aclose)
        client = await connect(stack, peer, store)
        before, started = rss_mib(), time.monotonic()
        failed = done = 0
        given = requests(rows) if store is not None else ({} for _ in range(rows))
        run = client.generate_session_keys(
            given, wallet=_WALLET, chain_id=1, concurrency=concurrency, resume=store is not None
        )
        async for result in run:
            done += 1
            failed += not result.is_success
            if done % max(1, rows // 10) == 0:
                say(f"{done} rows, {done / (time.monotonic() - started):.0f} per second, {rss_mib():.0f} MiB")
        seconds = time.monotonic() - started
        return {
            "rows": done,
            "failed": failed,
            "concurrency": concurrency,
            "store": None if store_url is None else store_url.partition(":")[0],
            "seconds": round(seconds, 2),
            "perSecond": round(done / seconds, 1),
            "growthMiB": round(max(peak_mib(), rss_mib()) - before, 1),
        }


async def run_for(seconds: float, *, concurrency: int, module: str) -> dict[str, Any]:
    """
    Make as many keys as the time allows, and at least two for each that is worked on at a time.

    Args:
        seconds: The time.
        concurrency: How many at a time.
        module: The other side: ``benchmarks.stub_nodes`` or ``benchmarks.devnet_host``.
    """
    config = {"t": 2, "n": 3, "delay_ms": 0}
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer(module, config))
        client = await connect(stack, peer, None)
        before, started = rss_mib(), time.monotonic()
        done = failed = 0
        endless = ({} for _ in itertools.count())
        async with client.generate_session_keys(
            endless, wallet=_WALLET, chain_id=1, concurrency=concurrency
        ) as run:
            async for result in run:
                done += 1
                failed += not result.is_success
                # Results of many at a time come in bursts: one burst says nothing about the rate.
                if time.monotonic() - started >= seconds and done >= 2 * concurrency:
                    break
        elapsed = time.monotonic() - started
        return {
            "rows": done,
            "failed": failed,
            "concurrency": concurrency,
            "seconds": round(elapsed, 2),
            "perSecond": round(done / elapsed, 1),
            "growthMiB": round(peak_mib() - before, 1),
        }


async def run_on_dask(seconds: float, *, workers: int = 2) -> dict[str, Any]:
    """Make keys on a local Dask cluster against stub nodes, every session stored, for some time."""
    import distributed

    from dan_async.dask_batch import WorkerSetup, generate_session_keys_on

    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer("benchmarks.stub_nodes", {"t": 2, "n": 3, "delay_ms": 0}))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key_file = folder / "key"
        key_file.touch(mode=0o600)
        key_file.write_text(StoreKey.generate().to_text())
        local = await stack.enter_async_context(
            distributed.LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                asynchronous=True,
                dashboard_address=None,
                host="127.0.0.1",
            )
        )
        cluster = await stack.enter_async_context(distributed.Client(local, asynchronous=True))
        setup = WorkerSetup(
            nodes=[f"{node['url']}={node['operator']}" for node in peer.nodes],
            threshold=Threshold(2, 3),
            store_url=f"sqlite:///{folder}/keys.db",
            key_file=str(key_file),
            concurrency=32,
        )
        endless = (
            {"reference": f"row {i}", "private_key": "11" * 32, "chain_id": 1} for i in itertools.count()
        )
        results = generate_session_keys_on(cluster, endless, setup, partition=32, in_flight=2 * workers)
        await anext(results)  # the workers have connected
        started = time.monotonic()
        done = failed = 0
        async for result in results:
            done += 1
            failed += result.status == "failed"
            if time.monotonic() - started >= seconds and done >= 128:
                break
        elapsed = time.monotonic() - started
        await results.aclose()
        return {
            "rows": done,
            "failed": failed,
            "workers": workers,
            "store": "sqlite",
            "seconds": round(elapsed, 2),
            "perSecond": round(done / elapsed, 1),
        }


async def run_together(threshold: Threshold, seconds: float, *, turns: int = 5) -> dict[str, Any]:
    """
    Make keys on a devnet: one at a time, sixteen at a time each in a session of its own, and in sessions of sixteen.

    By turns, so that a busy moment meets all; keys a second, the median of the turns.
    """
    rates: dict[str, list[float]] = {"one at a time": [], "16 at a time": [], "sessions of 16": []}
    async with AsyncExitStack() as stack:
        shape = {"t": threshold.t, "n": threshold.n}
        client = await connect(
            stack, await stack.enter_async_context(Peer("benchmarks.devnet_host", shape)), None, threshold
        )

        async def alone() -> None:
            await client.generate_session_key(wallet=_WALLET, chain_id=1)

        async def in_batch(until: float) -> int:
            made = 0
            rows = itertools.takewhile(lambda _: time.monotonic() < until, itertools.repeat({}))
            async for result in client.generate_session_keys(
                rows, wallet=_WALLET, chain_id=1, concurrency=48
            ):
                if result.error is not None:
                    raise result.error
                made += 1
            return made

        await run_load(alone, concurrency=16, seconds=0.0, at_least=48)
        for _ in range(turns):
            for name, concurrency in (("one at a time", 1), ("16 at a time", 16)):
                load = await run_load(alone, concurrency=concurrency, seconds=seconds)
                rates[name].append(load.operations / load.elapsed_s)
            started = time.monotonic()
            made = await in_batch(started + seconds)
            rates["sessions of 16"].append(made / (time.monotonic() - started))
    found = {name: round(statistics.median(per_second), 1) for name, per_second in rates.items()}
    ratio = found["sessions of 16"] / found["one at a time"]
    return {"threshold": str(threshold), "perSecond": found, "toOneAtATime": round(ratio, 2), "failed": 0}


def plot(points: Sequence[dict[str, Any]], file: Path, on_dask: dict[str, Any] | None = None) -> None:
    """Draw rows per second over the concurrency, and what two Dask workers do as a line."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.plot(
        [p["concurrency"] for p in points], [p["perSecond"] for p in points], marker="o", label="one client"
    )
    if on_dask is not None:
        label = f"{on_dask['workers']} Dask workers, every session stored"
        axes.axhline(on_dask["perSecond"], linestyle="--", color="tab:orange", label=label)
        axes.legend()
    axes.set_xscale("log", base=2)
    axes.set_xticks([p["concurrency"] for p in points], [str(p["concurrency"]) for p in points])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rows at a time")
    axes.set_ylabel("rows per second")
    axes.set_title("One client against stub nodes (2-of-3): the client, not the network")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch")
    kinds = parser.add_subparsers(dest="kind", required=True)
    rows = kinds.add_parser("rows")
    rows.add_argument("--rows", type=int, default=100_000)
    rows.add_argument("--concurrency", type=int, default=64)
    rows.add_argument("--store")
    throughput = kinds.add_parser("throughput")
    throughput.add_argument("--seconds", type=float, default=5.0)
    throughput.add_argument("--plot", action="store_true")
    throughput.add_argument("--dask", action="store_true", help="also two Dask workers on this machine")
    together = kinds.add_parser("together")
    together.add_argument("--seconds", type=float, default=3.0)
    devnet = kinds.add_parser("devnet")
    devnet.add_argument("--minutes", type=float, default=10.0)
    devnet.add_argument("--concurrency", type=int, default=16)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks, write its results, and give the exit code."""
    asked = _parse(argv)
    if asked.kind == "rows":
        found = [asyncio.run(run_rows(asked.rows, concurrency=asked.concurrency, store_url=asked.store))]
    elif asked.kind == "throughput":
        stub = "benchmarks.stub_nodes"
        found = [
            asyncio.run(run_for(asked.seconds, concurrency=concurrency, module=stub))
            for concurrency in CONCURRENCY
        ]
        on_dask = asyncio.run(run_on_dask(asked.seconds)) if asked.dask else None
        if asked.plot:
            plot(found, _PLOT, on_dask)
        found += [] if on_dask is None else [on_dask]
    elif asked.kind == "together":
        found = [asyncio.run(run_together(Threshold(t, n), asked.seconds)) for t, n in ((2, 3), (3, 5))]
    else:
        host = "benchmarks.devnet_host"
        found = [asyncio.run(run_for(asked.minutes * 60, concurrency=asked.concurrency, module=host))]
    facts = {"platform": platform_facts(), "commit": commit_facts(), "kind": asked.kind, "results": found}
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"batch-{asked.kind}.json").write_text(json.dumps(facts, indent=2) + "\n")
    for entry in found:
        say(json.dumps(entry))
    failed = sum(entry["failed"] for entry in found)
    grew = asked.kind == "rows" and found[0]["growthMiB"] >= MOST_GROWTH_MIB
    if any(entry.get("toOneAtATime", LEAST_TOGETHER) < LEAST_TOGETHER for entry in found):
        say(f"sessions of sixteen must bring {LEAST_TOGETHER} times as many keys as one at a time")
        return 1
    if failed or grew:
        say(f"{failed} rows failed; the memory may grow by {MOST_GROWTH_MIB:g} MiB at most")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

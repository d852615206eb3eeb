"""
What one stalled node costs: ``python -m benchmarks.stalled_node`` (under a minute).

A key generation needs every participant until the key is made; from then on t acknowledgements are enough. Here one node of
five is two seconds late with its acknowledgement (stub nodes, each 20 ms away), or never sends it (devnet, one process per
node: the key is really made, then the reply is lost). Healthy and stalled networks take turns, in one run, so that a busy
moment of the machine meets both. Exits with 1 if the 99th percentile with the stalled node is more than 1.2 times the one
without, or if the calls that notice the stalled node, the first ones, take more than 3 times that.

What is timed is the second round trip alone, from the authorised request to the verdict, as the ``KeygenReport`` has it.
With stub nodes that is the acknowledgement phase and nothing else; on the devnet the key generation before it is in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from attrs import field, frozen

from benchmarks.measure import LatencyHistogram, commit_facts, platform_facts, say
from benchmarks.peers import Peer
from dan_async import DanClient, LocalWallet, NodeNetwork
from dan_async.config import Threshold, Timeouts
from dan_async.network import KeygenReport

__all__ = ["Comparison", "main", "on_stubs"]

#: The client's own settings, but for deadlines that a busy machine may need.
_TIMEOUTS = Timeouts(total_s=60.0, attempt_s=30.0, connect_s=30.0)
_THRESHOLD = Threshold(3, 5)
_STALL_S = 2.0
_LIMIT, _MOST_NOTICING = 1.2, 3.0

#: For benchmarks only: known to everybody.
_OWNER_KEY = "11" * 32


@frozen
class Comparison:
    """The latencies of the second round trip, with every node well and with one stalled."""

    name: str
    healthy: LatencyHistogram = field(factory=LatencyHistogram)
    stalled: LatencyHistogram = field(factory=LatencyHistogram)
    #: The first ones with the stalled node.
    noticing: LatencyHistogram = field(factory=LatencyHistogram)

    @property
    def ratio(self) -> float:
        """The 99th percentile with the stalled node, over that without."""
        return self.stalled.percentile_s(99) / self.healthy.percentile_s(99)

    @property
    def noticing_ratio(self) -> float:
        """The slowest that noticed, over the 99th percentile without a stalled node."""
        return self.noticing.longest_s / self.healthy.percentile_s(99)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in milliseconds."""
        return {
            "name": self.name,
            "keygens": [self.healthy.total, self.stalled.total],
            "healthy_ms": self.healthy.to_dict(),
            "stalled_ms": self.stalled.to_dict(),
            "noticing_ms": self.noticing.to_dict(),
            "p99_ratio": round(self.ratio, 3),
            "noticing_ratio": round(self.noticing_ratio, 3),
        }

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.stalled.total} key generations with the stalled node"]
        for label, histogram in (("healthy", self.healthy), ("stalled", self.stalled)):
            figures = ", ".join(f"{name} {value:.1f}" for name, value in histogram.to_dict().items())
            lines.append(f"  {label}: {figures} ms")
        lines.append(f"  p99, stalled to healthy: {self.ratio:.2f} (at most {_LIMIT})")
        lines.append(
            f"  slowest that noticed, to healthy p99: {self.noticing_ratio:.2f} (at most {_MOST_NOTICING:g})"
        )
        return "\n".join(lines)


async def _one(client: DanClient, histogram: LatencyHistogram) -> None:
    def note(report: KeygenReport) -> None:
        histogram.record(report.timings.keygen_s)

    await client.generate_session_key(wallet=LocalWallet(_OWNER_KEY), chain_id=80002, on_report=note)


async def _turn(client: DanClient, histogram: LatencyHistogram, keygens: int, concurrency: int) -> None:
    left = keygens

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await _one(client, histogram)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())


async def _client(nodes: Sequence[dict[str, str]], stack: AsyncExitStack) -> DanClient:
    network = NodeNetwork(nodes, threshold=_THRESHOLD, timeouts=_TIMEOUTS)
    return await stack.enter_async_context(DanClient(network, timeouts=_TIMEOUTS))


async def on_stubs(turns: int = 10, keygens: int = 60, concurrency: int = 4) -> Comparison:
    """Measure the acknowledgement phase alone: the stub nodes make no key."""
    found = Comparison("acknowledgements, nodes 20 ms away, one 2 s late")
    shape = {"t": _THRESHOLD.t, "n": _THRESHOLD.n, "delay_ms": 20, "stall_s": _STALL_S}
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer("benchmarks.stub_nodes", shape))
        healthy = await _client(peer.nodes, stack)
        stalled = await _client(peer.described["stalled"], stack)
        await _turn(healthy, LatencyHistogram(), 2 * concurrency, concurrency)
        await _turn(stalled, found.noticing, 2 * concurrency, concurrency)
        for _ in range(turns):
            await _turn(healthy, found.healthy, keygens, concurrency)
            await _turn(stalled, found.stalled, keygens, concurrency)
    return found


async def on_devnet(turns: int = 10, keygens: int = 10) -> Comparison:
    """Measure key generation and acknowledgements of real nodes; one of them never gets its acknowledgement through."""
    from dan_async.devnet import Devnet, DropReply

    found = Comparison("key generation on the devnet, one reply lost")
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Devnet(_THRESHOLD.t, _THRESHOLD.n, processes=True))
        clients = [await _client(net.describe()["nodes"], stack) for _ in range(2)]
        for client in clients:
            await _turn(client, LatencyHistogram(), 3, 1)
        net.faults[4] = DropReply(methods=("dan_keygen",))
        await _turn(clients[1], found.noticing, 2, 1)
        sides: tuple[tuple[DanClient, LatencyHistogram, Callable[[], Any]], ...] = (
            (clients[0], found.healthy, lambda: None),
            (clients[1], found.stalled, lambda: DropReply(methods=("dan_keygen",))),
        )
        for _ in range(turns):
            for client, histogram, fault in sides:
                net.faults[4] = fault()
                await _turn(client, histogram, keygens, 1)
    return found


async def _run(*, with_devnet: bool) -> list[Comparison]:
    say("stub nodes")
    found = [await on_stubs()]
    if with_devnet:
        say("devnet")
        found.append(await on_devnet())
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, and say whether the stalled node cost too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stalled_node")
    parser.add_argument("--no-devnet", action="store_true", help="leave out real nodes")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where the figures go, as JSON")
    options = parser.parse_args(arguments)
    found = asyncio.run(_run(with_devnet=not options.no_devnet))
    if options.output:
        facts = {**commit_facts(), "platform": platform_facts()}
        result = {**facts, "comparisons": [comparison.to_dict() for comparison in found]}
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(*found, sep="\n")
    return int(any(each.ratio > _LIMIT or each.noticing_ratio > _MOST_NOTICING for each in found))


if __name__ == "__main__":
    raise SystemExit(main())

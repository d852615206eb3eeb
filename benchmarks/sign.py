"""
What a signature costs, end to end: ``python -m benchmarks.sign [--quick] [--only PART]`` (a minute with --quick).

Five nodes of a devnet, one process each; three of them sign. Measured are latency, throughput and the client's CPU time:
with two round trips, with presignatures made ahead (one round trip), and through the devnet's gateway beside the public
TypeScript client 0.3.0, in turns. Then the latency with one node of five at fault, in turns with the healthy network: it
answers nothing any more, it gives up and accuses another one, its shares are wrong. Exits with 1 if a 99th percentile is
more than 1.2 times the healthy one, with a liar 1.5 times. The node is one of those that would sign. What the client
needs to notice it, one slow signature, is shown by itself: at most 3 times the healthy percentile. At last a thousand
calls at once on one session, 2-of-3: signatures per second, in turns with those of the client at several numbers in
flight; at least 0.9 times the best of these. Then the client's CPU time with a stock, over stub nodes, in turns with the
floor: a bare exchange of the same bytes, and the curve operations; and for messages of several lengths. Then a signature
with a stock over nodes 20 ms away, in turns with one bare round trip to as many of them, and a bot's day: one session, 20
signatures a second for ten minutes.

The TypeScript client needs Node.js and ``npm ci`` in tests/interop; without them its column is empty.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from benchmarks.curve import SigningOperations
from benchmarks.floor import FloorClient
from benchmarks.measure import LatencyHistogram, commit_facts, platform_facts, run_load, say, summarise
from benchmarks.peers import Peer
from benchmarks.recording import record
from dan_async import DanClient, LocalWallet, NodeNetwork
from dan_async.config import Threshold, Timeouts
from dan_async.deadline import Deadline
from dan_async.errors import DanError
from dan_async.gateway import GatewayNetwork
from dan_async.nodes import SigningOptions
from dan_async.protocols.node import PRESIGN, SIGN
from dan_async.protocols.sign_request import SignRequest, encode_wrapped
from dan_async.session import DanModuleInfo, DanSessionKeyPayload
from dan_async.types import KeyAlgorithm

if TYPE_CHECKING:
    from dan_async.devnet import Devnet

__all__ = ["Effort", "at_once", "beside_floor", "main", "with_one_at_fault"]

_HERE = Path(__file__).parent
_PACKAGES = _HERE.parent / "tests" / "interop"
_TIMEOUTS = Timeouts(total_s=60.0, attempt_s=30.0, connect_s=30.0)
_THRESHOLD = Threshold(3, 5)
#: What one of five nodes may do, by name, and by what factor the 99th percentile may grow.
_LIMITS = {"stalled": 1.2, "accusing": 1.5, "lying": 1.5}
#: How many times as long as a healthy one, at its 99th percentile, the signature may take that notices a stalled node.
_MOST_NOTICING = 3.0
#: What signatures per second of many calls at once may fall to, as a part of those at the best number in flight.
_LEAST = 0.9
_BURST = "all at once"
#: What a signature with a stock may cost the client, in floors.
_MOST_TO_FLOOR = 1.4
#: What a signature over distant nodes may take, in round trips.
_MOST_TRIPS = 1.1
_AWAY_S = 0.02
#: A bot's day: signatures per second.
_DAY_RATE = 20
_PARTS = ("healthy", "faults", "burst", "floor", "sizes", "away", "day")
_MESSAGE = "a message of some forty characters or so"

#: Lengths of a message, in bytes.
_SIZES = (32, 1024, 16 * 1024, 64 * 1024)

#: With presignatures made ahead, signatures come this far apart, in seconds, as in a trading loop.
_PACE_S = 0.25

#: For benchmarks only: known to everybody.
_OWNER_KEY = "11" * 32

Operation = Callable[[], Awaitable[object]]


@frozen(kw_only=True)
class Effort:
    """How long each part takes: seconds for a turn, turns, signatures for a turn of the faulty node."""

    seconds: float = 3.0
    turns: int = 4
    paced: int = 40
    stalled_turns: int = 6
    stalled_signatures: int = 15
    typescript: int = 40
    burst: int = 1000
    burst_turns: int = 3
    floor_turns: int = 12
    away: int = 120
    day_s: float = 600.0


QUICK = Effort(
    seconds=0.8,
    turns=2,
    paced=8,
    stalled_turns=3,
    stalled_signatures=5,
    typescript=6,
    burst=200,
    burst_turns=1,
    floor_turns=3,
    away=20,
    day_s=10.0,
)


async def _client(network: Any, stack: AsyncExitStack) -> DanClient:
    return await stack.enter_async_context(DanClient(network, timeouts=_TIMEOUTS))


def _nodes(
    described: dict[str, Any], *, stock: int | None = None, threshold: Threshold = _THRESHOLD
) -> NodeNetwork:
    return NodeNetwork(
        described["nodes"],
        threshold=threshold,
        timeouts=_TIMEOUTS,
        signing=SigningOptions() if stock is None else SigningOptions(stock=stock),
    )


async def _session(dan: DanClient, *, eph_alg: KeyAlgorithm | None = None) -> DanSessionKeyPayload:
    wallet = LocalWallet(_OWNER_KEY)
    return await dan.generate_session_key(wallet=wallet, chain_id=80002, eph_alg=eph_alg)


def _signing(dan: DanClient, session: DanModuleInfo, *, timeout: float | None = None) -> Operation:
    async def sign() -> object:
        return await dan.sign_message(_MESSAGE, session, timeout=timeout)

    return sign


async def _paced(operation: Operation, count: int) -> LatencyHistogram:
    """Sign now and then, so that there is time to make presignatures."""
    found = LatencyHistogram()
    for _ in range(count):
        await asyncio.sleep(_PACE_S)
        started = time.perf_counter()
        await operation()
        found.record(time.perf_counter() - started)
    return found


async def _typescript(url: str, session: DanSessionKeyPayload, count: int) -> float | None:
    """Give the TypeScript client's CPU milliseconds for one signature."""
    node = shutil.which("node")
    if node is None or not (_PACKAGES / "node_modules" / "sdk-0.3.0").is_dir():
        return None
    request = SignRequest(request_type="EIP191", message=_MESSAGE.encode().hex())
    job = {
        "packages": str(_PACKAGES.resolve()),
        "url": url,
        "ownerKey": "0x" + _OWNER_KEY,
        "concurrency": 1,
        "rounds": 1,
        "keygens": count,
        "warmUp": 8,
        "sign": {
            "t": session.threshold,
            "n": session.parties_number,
            "keyId": session.mpc_key_id,
            "ephId": session.eph_id,
            "ephemeralKey": session.hex_eph_sk_without_0x,
            "message": encode_wrapped(request),
        },
    }
    process = await asyncio.create_subprocess_exec(
        node, str(_HERE / "typescript_client.mjs"), json.dumps(job), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return float(json.loads(out.splitlines()[-1])["cpuMs"])


async def _on_healthy_nodes(effort: Effort) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        shape = {"t": _THRESHOLD.t, "n": _THRESHOLD.n}
        peer = await stack.enter_async_context(Peer("benchmarks.devnet_host", shape))
        direct = await _client(_nodes(peer.described, stock=0), stack)
        ahead = await _client(_nodes(peer.described, stock=4), stack)
        url = peer.described["gateway"]
        network = GatewayNetwork(url, revision="0.3", threshold=_THRESHOLD, timeouts=_TIMEOUTS)
        gateway = await _client(network, stack)
        session = await _session(direct, eph_alg="ed25519")  # as the TypeScript client's
        operations = {
            "nodes, two round trips": (_signing(direct, session), 1),
            "nodes, 8 in flight": (_signing(direct, session), 8),
            "gateway 0.3": (_signing(gateway, session), 1),
        }
        for operation, concurrency in operations.values():  # set-ups of pairs, connections, caches
            await run_load(operation, concurrency=concurrency, seconds=0.0, at_least=6)
        loads: dict[str, list[Any]] = {name: [] for name in operations}
        theirs: list[float | None] = []
        for turn in range(effort.turns):
            say(f"signing, turn {turn + 1} of {effort.turns}")
            for name, (operation, concurrency) in operations.items():
                loads[name].append(await run_load(operation, concurrency=concurrency, seconds=effort.seconds))
            theirs.append(await _typescript(url, session, effort.typescript))
        say("presignatures made ahead")
        await _paced(_signing(ahead, session), 6)
        paced = await _paced(_signing(ahead, session), effort.paced)
    entries = {name: summarise(turns) for name, turns in loads.items()}
    known = sorted(value for value in theirs if value is not None)
    return {
        "entries": entries,
        "one_round_trip_ms": paced.to_dict(),
        "typescript_cpu_ms": round(known[len(known) // 2], 3) if known else None,
    }


@frozen
class Comparison:
    """Latencies with every node well and with one at fault, and of the one signature that noticed it."""

    healthy: LatencyHistogram = field(factory=LatencyHistogram)
    faulty: LatencyHistogram = field(factory=LatencyHistogram)
    noticing: LatencyHistogram = field(factory=LatencyHistogram)

    @property
    def ratio(self) -> float:
        """The 99th percentile with the faulty node, over that without."""
        return self.faulty.percentile_s(99) / self.healthy.percentile_s(99)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in milliseconds."""
        return {
            "signatures": [self.healthy.total, self.faulty.total],
            "healthy_ms": self.healthy.to_dict(),
            "faulty_ms": self.faulty.to_dict(),
            "noticing_ms": round(self.noticing.longest_s * 1e3, 1),
            "noticing_ratio": round(self.noticing.longest_s / self.healthy.percentile_s(99), 3),
            "p99_ratio": round(self.ratio, 3),
        }


def _next_signer(client: DanClient, net: Devnet) -> int:
    """Give the index of the node that the client will ask first: the fastest one, as it sees it."""
    from dan_async.nodes.health import rank

    assert isinstance(client.network, NodeNetwork)
    best = rank(client.network.pool.nodes)[0].operator
    return next(node.index for node in net.nodes if node.operator == best)


async def with_one_at_fault(name: str, effort: Effort) -> Comparison:
    """Sign with every node well and with one at fault, in turns, so that a busy moment meets both."""
    from dan_async.devnet import AccuseInSigning, Devnet, DropRequest, WrongSignatureShare

    faults = {"stalled": DropRequest(), "accusing": AccuseInSigning(), "lying": WrongSignatureShare()}
    found = Comparison()
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Devnet(_THRESHOLD.t, _THRESHOLD.n, processes=True))
        healthy, other = [await _client(_nodes(net.describe(), stock=0), stack) for _ in range(2)]
        session = await _session(healthy)
        for client in (healthy, other):
            await run_load(_signing(client, session), concurrency=1, seconds=0.0, at_least=12)
        victim = _next_signer(other, net)
        for turn in range(effort.stalled_turns):
            for client, histogram in ((healthy, found.healthy), (other, found.faulty)):
                is_faulty = client is other
                net.faults[victim] = faults[name] if is_faulty else None
                for place in range(effort.stalled_signatures):
                    started = time.perf_counter()
                    await _signing(client, session)()
                    noticed = is_faulty and turn == place == 0
                    (found.noticing if noticed else histogram).record(time.perf_counter() - started)
    return found


async def at_once(effort: Effort) -> dict[str, Any]:
    """Sign with so many in flight and with all at once, in turns; return the signatures per second of each."""
    levels = (2, 4, 8, 16, 32)
    rates: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        threshold = Threshold(2, 3)
        shape = {"t": threshold.t, "n": threshold.n}
        peer = await stack.enter_async_context(Peer("benchmarks.devnet_host", shape))
        client = await _client(_nodes(peer.described, threshold=threshold), stack)
        sign = _signing(client, await _session(client), timeout=600.0)
        await run_load(sign, concurrency=4, seconds=0.0, at_least=20)
        for turn in range(effort.burst_turns):
            say(f"many at once, turn {turn + 1} of {effort.burst_turns}")
            for level in levels:
                load = await run_load(sign, concurrency=level, seconds=2 * effort.seconds, at_least=2 * level)
                rates.setdefault(f"{level} in flight", []).append(load.operations / load.elapsed_s)
            load = await run_load(sign, concurrency=effort.burst, seconds=0.0, at_least=effort.burst)
            rates.setdefault(_BURST, []).append(load.operations / load.elapsed_s)
    found = {name: round(statistics.median(per_second), 1) for name, per_second in rates.items()}
    best = max(rate for name, rate in found.items() if name != _BURST)
    return {"calls": effort.burst, "per_second": found, "to_best": round(found[_BURST] / best, 3)}


async def beside_floor(threshold: Threshold, effort: Effort) -> list[dict[str, Any]]:
    """
    Sign over stub nodes with a stock, in turns with the floor; return the CPU times and their ratio, by calls in flight.

    The presignature that is made for each signature counts on both sides.
    """
    found = []
    async with AsyncExitStack() as stack:
        stub = await stack.enter_async_context(
            Peer("benchmarks.stub_nodes", {"t": threshold.t, "n": threshold.n, "delay_ms": 0})
        )
        session = DanModuleInfo.from_dict(stub.described["session"])

        async def sign_over(nodes: list[dict[str, str]]) -> None:
            async with AsyncExitStack() as relayed:
                client = await _client(_nodes({"nodes": nodes}, threshold=threshold), relayed)
                for _ in range(3):
                    await _signing(client, session)()
                    await asyncio.sleep(_PACE_S)

        recording = await record(stub.nodes, sign_over, steps=(PRESIGN, SIGN))
        server = await stack.enter_async_context(
            Peer("benchmarks.floor", {"recording": recording.to_json(), "delay_ms": 0})
        )
        floor = await stack.enter_async_context(
            FloorClient([node["url"] for node in server.nodes], recording)
        )
        client = await _client(_nodes(stub.described, threshold=threshold), stack)
        network = client.network
        assert isinstance(network, NodeNetwork)
        operations: dict[str, Operation] = {
            "client": _signing(client, session),
            "floor": floor.exchange,
            "curve": SigningOperations(recording).run_async,
        }
        for concurrency in (1, 8):
            for operation in operations.values():
                await run_load(operation, concurrency=concurrency, seconds=0.0, at_least=50)
            used, signatures = network.signing_stock.used, 0
            costs: dict[str, list[float]] = {name: [] for name in operations}
            for _ in range(effort.floor_turns):
                for name, operation in operations.items():
                    load = await run_load(operation, concurrency=concurrency, seconds=effort.seconds / 4)
                    costs[name].append(load.cpu_ms)
                    signatures += load.operations * (name == "client")
            ratios = [mine / (bare + curve) for mine, bare, curve in zip(*costs.values(), strict=True)]
            found.append(
                {
                    "threshold": str(threshold),
                    "concurrency": concurrency,
                    **{f"{name}_cpu_ms": round(statistics.median(cpu), 3) for name, cpu in costs.items()},
                    "stocked": round((network.signing_stock.used - used) / signatures, 3),
                    "to_floor": round(statistics.median(ratios), 3),
                }
            )
    return found


async def by_size(effort: Effort) -> dict[str, float]:
    """Sign messages of several lengths over stub nodes with a stock; return the client's CPU ms by the length in bytes."""
    shape = {"t": _THRESHOLD.t, "n": _THRESHOLD.n, "delay_ms": 0}
    costs: dict[int, list[float]] = {size: [] for size in _SIZES}
    async with AsyncExitStack() as stack:
        stub = await stack.enter_async_context(Peer("benchmarks.stub_nodes", shape))
        session = DanModuleInfo.from_dict(stub.described["session"])
        client = await _client(_nodes(stub.described, threshold=_THRESHOLD), stack)
        for turn in range(1 + effort.floor_turns):
            for size in _SIZES:
                sign = partial(client.sign_message, "m" * size, session)
                load = await run_load(sign, concurrency=8, seconds=effort.seconds / 4)
                if turn:  # the first one warms up
                    costs[size].append(load.cpu_ms)
    return {str(size): round(statistics.median(cpu_ms), 2) for size, cpu_ms in costs.items()}


async def away(effort: Effort) -> dict[str, Any]:
    """
    Sign over nodes that are 20 ms away, with a stock, in turns with one round trip to t of them; and the same next door.

    The nodes' own work for a signature takes its time wherever they are. What the distance adds is shown by itself.
    """
    from dan_async.devnet import Delay, Devnet

    found: dict[str, LatencyHistogram] = {}
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Devnet(2, 3, processes=True, gateway=False))
        client = await _client(_nodes(net.describe(), threshold=net.threshold), stack)
        session = await _session(client)
        await _paced(_signing(client, session), 8)
        assert isinstance(client.network, NodeNetwork)
        asked = client.network.pool.nodes[: net.threshold.t]

        async def round_trip() -> object:
            return await asyncio.gather(*(node.look(deadline=Deadline(5.0)) for node in asked))

        for prefix, delay in (("near_", None), ("", Delay(seconds=_AWAY_S))):
            for node in net.nodes:
                net.faults[node.index] = delay
            await _paced(_signing(client, session), 6)
            for _ in range(effort.away):
                for name, operation in (("trip", round_trip), ("signature", _signing(client, session))):
                    await asyncio.sleep(_PACE_S / 2)
                    started = time.perf_counter()
                    await operation()
                    histogram = found.setdefault(prefix + name, LatencyHistogram())
                    histogram.record(time.perf_counter() - started)
    p50 = {name: histogram.percentile_s(50) for name, histogram in found.items()}
    return {
        **{f"{name}_ms": histogram.to_dict() for name, histogram in found.items()},
        "trips": round(p50["signature"] / p50["trip"], 3),
        "trips_of_distance": round(
            (p50["signature"] - p50["near_signature"]) / (p50["trip"] - p50["near_trip"]), 3
        ),
    }


async def day(effort: Effort) -> dict[str, Any]:
    """Sign 20 times a second with one session; return latencies, failures, the stock's use and the CPU time."""
    latencies, failed = LatencyHistogram(), 0
    async with AsyncExitStack() as stack:
        threshold = Threshold(2, 3)
        peer = await stack.enter_async_context(
            Peer("benchmarks.devnet_host", {"t": threshold.t, "n": threshold.n})
        )
        client = await _client(_nodes(peer.described, threshold=threshold), stack)
        sign = _signing(client, await _session(client))
        await run_load(sign, concurrency=1, seconds=0.0, at_least=6)

        async def one() -> None:
            nonlocal failed
            started = time.perf_counter()
            try:
                await sign()
            except DanError:
                failed += 1
            latencies.record(time.perf_counter() - started)

        cpu, started = time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(_DAY_RATE * effort.day_s)):
                await asyncio.sleep(max(0.0, started + number / _DAY_RATE - time.monotonic()))
                group.create_task(one())
        cpu_ms = (time.process_time() - cpu) * 1e3 / latencies.total
        assert isinstance(client.network, NodeNetwork)
        stock = client.network.signing_stock
    return {
        "seconds": effort.day_s,
        "per_second": _DAY_RATE,
        "failed": failed,
        "latency_ms": latencies.to_dict(),
        "cpu_ms": round(cpu_ms, 3),
        "stock": {"made": stock.made, "used": stock.used, "wasted": stock.wasted},
    }


def _render(result: dict[str, Any]) -> str:
    rows = []
    if "entries" in result:
        rows += _rows_of_healthy(result)
    rows += [_fault_line(name, found) for name, found in result.get("faults", {}).items()]
    if "burst" in result:
        burst = result["burst"]
        rates = ", ".join(f"{rate:.0f} with {name}" for name, rate in burst["per_second"].items())
        rows.append(
            f"Signatures per second, 2-of-3: {rates} ({burst['calls']}): "
            f"{burst['to_best']:.2f} times the best (at least {_LEAST})."
        )
    for found in result.get("floor", ()):
        rows.append(
            f"Client's CPU, {found['threshold']}, with a stock ({found['stocked']:.0%} of the signatures), "
            f"{found['concurrency']} in flight: {found['client_cpu_ms']:.2f} ms; the floor: exchange "
            f"{found['floor_cpu_ms']:.2f} ms, curve {found['curve_cpu_ms']:.2f} ms: {found['to_floor']:.2f} times "
            f"(at most {_MOST_TO_FLOOR})."
        )
    if "sizes" in result:
        costs = ", ".join(f"{cpu_ms:.2f} ms for {size} bytes" for size, cpu_ms in result["sizes"].items())
        rows.append(
            f"Client's CPU, {_THRESHOLD}, with a stock, 8 in flight, by length of the message: {costs}."
        )
    if "away" in result:
        found = result["away"]
        rows.append(
            f"Nodes 20 ms away, with a stock: a signature takes {found['signature_ms']['p50']:.1f} ms, one round trip "
            f"{found['trip_ms']['p50']:.1f} ms: {found['trips']:.2f} times (at most {_MOST_TRIPS}). Next door they take "
            f"{found['near_signature_ms']['p50']:.1f} and {found['near_trip_ms']['p50']:.1f} ms, so that the distance costs "
            f"{found['trips_of_distance']:.2f} round trips."
        )
    if "day" in result:
        found = result["day"]
        latency, stock = found["latency_ms"], found["stock"]
        rows.append(
            f"One session, {found['per_second']} signatures a second for {found['seconds']:.0f} s, 2-of-3: p50 "
            f"{latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms, {found['failed']} failed; the client's CPU "
            f"{found['cpu_ms']:.2f} ms each; of {stock['made']} presignatures made ahead {stock['used']} were used and "
            f"{stock['wasted']} thrown away."
        )
    return "\n".join([*rows, "", ", ".join(f"{name}: {value}" for name, value in result["platform"].items())])


def _rows_of_healthy(result: dict[str, Any]) -> list[str]:
    rows = [
        "| 3-of-5 | p50 ms | p99 ms | signatures/s | client, CPU ms | TypeScript 0.3.0, CPU ms |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, entry in result["entries"].items():
        theirs = result["typescript_cpu_ms"] if "gateway" in name else None
        latency = entry["latency_ms"]
        rows.append(
            f"| {name} | {latency['p50']:.0f} | {latency['p99']:.0f} | {entry['per_second']:.0f} "
            f"| {entry['cpu_ms']['median']:.2f} | {'' if theirs is None else f'{theirs:.2f}'} |"
        )
    ahead = result["one_round_trip_ms"]
    return [
        *rows,
        f"| nodes, made ahead, one round trip | {ahead['p50']:.1f} | {ahead['p99']:.1f} | | | |",
        "",
    ]


def _fault_line(name: str, found: dict[str, Any]) -> str:
    with_it, without = found["faulty_ms"]["p99"], found["healthy_ms"]["p99"]
    return (
        f"One of five nodes {name}: p99 {with_it:.0f} ms, healthy {without:.0f} ms, ratio {found['p99_ratio']:.2f} "
        f"(at most {_LIMITS[name]}); the signature that noticed took {found['noticing_ms']:.0f} ms, "
        f"{found['noticing_ratio']:.2f} times (at most {_MOST_NOTICING:g})."
    )


async def run(effort: Effort, parts: Collection[str] = _PARTS) -> dict[str, Any]:
    """Run the parts, one after the other."""
    result: dict[str, Any] = {**commit_facts(), "platform": platform_facts()}
    if "healthy" in parts:
        result |= await _on_healthy_nodes(effort)
    if "faults" in parts:
        result["faults"] = {}
        for name in _LIMITS:
            say(f"one node {name}")
            result["faults"][name] = (await with_one_at_fault(name, effort)).to_dict()
    if "burst" in parts:
        result["burst"] = await at_once(effort)
    if "floor" in parts:
        say("client and floor")
        shapes = (Threshold(2, 3), _THRESHOLD)
        result["floor"] = [entry for shape in shapes for entry in await beside_floor(shape, effort)]
    if "sizes" in parts:
        say("messages of several lengths")
        result["sizes"] = await by_size(effort)
    if "away" in parts:
        say("nodes 20 ms away")
        result["away"] = await away(effort)
    if "day" in parts:
        say("a bot's day")
        result["day"] = await day(effort)
    return result


def main() -> int:
    """Read the command line, run, and say whether a faulty node or a burst cost too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sign")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where the figures go, as JSON")
    parser.add_argument("--only", choices=_PARTS, action="append", help="this part alone; may be repeated")
    options = parser.parse_args()
    result = asyncio.run(run(QUICK if options.quick else Effort(), options.only or _PARTS))
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(_render(result))
    is_slow = any(
        found["p99_ratio"] > _LIMITS[name] or found["noticing_ratio"] > _MOST_NOTICING
        for name, found in result.get("faults", {}).items()
    )
    is_slow |= any(found["to_floor"] > _MOST_TO_FLOOR for found in result.get("floor", ()))
    is_slow |= result.get("away", {}).get("trips", 1.0) > _MOST_TRIPS
    is_slow |= result.get("day", {}).get("failed", 0) > 0
    return int(is_slow or result.get("burst", {}).get("to_best", 1.0) < _LEAST)


if __name__ == "__main__":
    raise SystemExit(main())

"""What a soak looks at: shares on disk, requests that never ended, tasks, sockets, memory."""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen
from coincurve import PrivateKey

from dan_async import DanSessionKeyPayload, NodeNetwork
from dan_async.crypto.address import public_key_to_address
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.share_store import DiskShareStore
from dan_async.events import (
    AttemptAbandoned,
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    OperationFinished,
    OperationStarted,
)
from tests.helpers import open_sockets
from tests.interpolation import interpolate_scalar


@frozen
class Made:
    """A key that a client was given."""

    address: str
    key_id: str
    t: int
    n: int

    @classmethod
    def of(cls, payload: DanSessionKeyPayload) -> Made:
        return cls(payload.session_key_eoa, payload.mpc_key_id, payload.threshold, payload.parties_number)


def wrong_keys(made: list[Made], storage: Path) -> list[str]:
    """
    Compare every key with the shares that the stopped nodes have on disk.

    Any t shares must make the private key of its address, and at least t nodes must have one.
    """
    shares: dict[str, dict[int, int]] = {}
    for ring in _rings(storage):
        for key in made:
            record = ring.by_key(key.key_id)  # type: ignore[arg-type]  # an id as any other
            if record is not None:
                shares.setdefault(key.key_id, {})[record.share.index] = record.share.secret_share
    problems = []
    for key in made:
        held = shares.get(key.key_id, {})
        if not key.t <= len(held) <= key.n:
            problems.append(f"key {key.key_id}: {len(held)} shares for {key.t}-of-{key.n}")
            continue
        # The first and the last t: between them they use every share.
        for subset in (dict(list(held.items())[: key.t]), dict(list(held.items())[-key.t :])):
            secret = interpolate_scalar(subset).to_bytes(32, "big")
            if public_key_to_address(PrivateKey(secret).public_key.format()) != key.address:
                problems.append(f"key {key.key_id}: shares {sorted(subset)} do not make {key.address}")
    return problems


def shares_held(storage: Path) -> Counter[str]:
    """Count for each key the stopped nodes that have a share of it on disk."""
    return Counter(key for ring in _rings(storage) for key in ring._by_key)


def _rings(storage: Path) -> Iterator[KeyRing]:
    for folder in sorted(storage.glob("node-*")):
        identity = NodeIdentity.load_or_create(folder / "identity")
        store = DiskShareStore(folder / "records", identity.storage_key())
        try:
            ring = KeyRing(store)
            ring.load()
        finally:
            store.close()
        yield ring


@frozen
class Ledger:
    """Counts events: whatever begins must end."""

    counts: Counter[str] = field(factory=Counter)

    def __call__(self, event: Event) -> None:
        self.counts[event.name] += 1

    @property
    def open_attempts(self) -> int:
        ended = (AttemptSucceeded, AttemptFailed, AttemptAbandoned)
        return self.counts[AttemptStarted.name] - sum(self.counts[kind.name] for kind in ended)

    @property
    def open_operations(self) -> int:
        return self.counts[OperationStarted.name] - self.counts[OperationFinished.name]


def pending_requests(network: NodeNetwork) -> int:
    """Requests that wait for a reply on the connections of a network."""
    connections: list[Any] = [getattr(node._transport, "_connection", None) for node in network.pool.nodes]
    return sum(connection.pending for connection in connections if connection is not None)


async def rss_bytes() -> int:
    """Give the memory that this process holds, after a full collection."""
    await asyncio.sleep(0)
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("VmRSS is not in /proc/self/status")


def names_of(tasks: set[asyncio.Task[Any]]) -> list[str]:
    return sorted(task.get_name() for task in tasks)


def memory_growth(samples: list[int]) -> int:
    """Bytes by which memory grew after the first quarter, the warm-up: last quarter against second, by their medians."""
    if len(samples) < 4:
        return 0
    quarter = len(samples) // 4
    return int(
        statistics.median(samples[-quarter:]) - statistics.median(samples[quarter : max(2 * quarter, 2)])
    )


class Baseline:
    """The tasks and sockets that were there before."""

    def __init__(self) -> None:
        self.tasks = asyncio.all_tasks()
        self.sockets = open_sockets()

    async def left(self, *, patience_s: float = 5.0) -> list[str]:
        """Give what is there now and was not before, once it had time to go."""
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s
        for look in itertools.count():
            tasks = {task for task in asyncio.all_tasks() - self.tasks if not task.done()}
            sockets = open_sockets() - self.sockets
            if not tasks and not sockets:
                return []
            if loop.time() > end and look > 100:
                return [*names_of(tasks), *sorted(sockets)]
            await asyncio.sleep(0.01)
        raise AssertionError

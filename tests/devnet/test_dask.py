"""Batches on a real Dask cluster of two worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import distributed
import pytest
from attrs import evolve

from dan_async import DanClient, LocalWallet, NodeNetwork, Threshold
from dan_async.dask_batch import (
    RemoteResult,
    WorkerSetup,
    _leave,
    _run_partition,
    _seal,
    generate_session_keys_on,
)
from dan_async.devnet import Devnet
from dan_async.errors import BatchInterruptedError, ClientClosedError, ConfigurationError, InvalidFieldError
from dan_async.storage import StoreKey, keys_from_file
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

pytestmark = [
    pytest.mark.timeout(180),
    # Processes that are killed and sockets of theirs: the cluster's own affair.
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
async def cluster() -> AsyncIterator[Any]:
    async with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        asynchronous=True,
        dashboard_address=None,
        host="127.0.0.1",
    ) as local:
        async with distributed.Client(local, asynchronous=True) as client:
            yield client


@pytest.fixture
def setup(devnet: Devnet, tmp_path: Path) -> WorkerSetup:
    key_file = tmp_path / "key"
    key_file.write_text(StoreKey.generate().to_text())
    key_file.chmod(0o600)
    return WorkerSetup(
        nodes=[f"{endpoint.url}={endpoint.operator}" for endpoint in devnet.endpoints],
        threshold=Threshold(2, 3),
        store_url=f"sqlite:///{tmp_path}/keys.db",
        key_file=str(key_file),
        concurrency=2,
    )


def rows(count: int) -> list[dict[str, Any]]:
    return [{"reference": f"row {i}", "private_key": f"{i + 1:064x}", "chain_id": 1} for i in range(count)]


@pytest.mark.long
async def test_a_worker_dies_halfway(cluster: Any, devnet: Devnet, setup: WorkerSetup) -> None:
    """One of two workers is killed: every row has one key in the store, and no node has made another."""
    given = rows(24)
    pids = list((await cluster.run(os.getpid)).values())
    results: list[RemoteResult] = []
    async for result in generate_session_keys_on(cluster, given, setup, partition=3, in_flight=4):
        results.append(result)
        if len(results) == 6:
            os.kill(pids[0], signal.SIGKILL)
    assert sorted(r.index for r in results) == list(range(24))
    assert [r for r in results if r.status == "failed"] == []
    async with SQLAlchemyStore(setup.store_url, keys_from_file(setup.key_file or "")) as store:
        stored = {record.reference: record async for record in store.find()}
    assert {r.reference: r.mpc_key_id for r in results} == {
        reference: record.session.mpc_key_id for reference, record in stored.items() if record.session
    }
    keys = {r.mpc_key_id for r in results}
    assert len(keys) == 24
    for node in devnet.nodes:
        assert set(node._runner._server.ring._by_key) == keys


def open_files(dask_worker: Any = None) -> tuple[int, int]:
    """Descriptors and shared clients of a worker."""
    return len(list(Path("/proc/self/fd").iterdir())), len(dask_worker.__dict__.get("dan_async_batches", {}))


async def test_batches_share_a_cluster(cluster: Any, setup: WorkerSetup, tmp_path: Path) -> None:
    """Two with one set-up and one with another, at once and again: none ends another's client, and nothing is left."""
    other = evolve(setup, store_url=f"sqlite:///{tmp_path}/other.db")

    async def run(prefix: str, wanted: WorkerSetup, count: int) -> list[str]:
        given = [row | {"reference": f"{prefix} {row['reference']}"} for row in rows(count)]
        return [r.status async for r in generate_session_keys_on(cluster, given, wanted, partition=2)]

    before = None
    for turn in range(3):
        found = await asyncio.gather(
            run(f"a{turn}", setup, 2), run(f"b{turn}", setup, 8), run(f"c{turn}", other, 4)
        )
        assert found == [["made"] * 2, ["made"] * 8, ["made"] * 4]
        after = await cluster.run(open_files)
        assert [clients for _, clients in after.values()] == [0, 0]
        if before is not None:
            assert all(after[worker][0] <= before[worker][0] + 3 for worker in after)
        before = after


async def test_a_partition_that_starts_when_its_batch_has_ended_opens_nothing(
    cluster: Any, setup: WorkerSetup
) -> None:
    """A batch is broken off, and the cluster is slower than its end: nobody would close that client."""
    sealed = await _seal(setup.keys(), {"rows": list(enumerate(rows(1))), "retryFailed": False})
    await cluster.run(_leave, setup, "ended")
    with pytest.raises(ClientClosedError, match="batch has ended"):
        await cluster.submit(_run_partition, setup, "ended", sealed, pure=False)
    assert [clients for _, clients in (await cluster.run(open_files)).values()] == [0, 0]


@pytest.mark.long
async def test_a_scheduler_that_is_killed_ends_the_batch(setup: WorkerSetup, tmp_path: Path) -> None:
    """The error names the rows that are open; the same rows run again elsewhere, and none gets a second key."""
    given, file = rows(12), tmp_path / "scheduler.json"
    options = ["--scheduler-file", str(file), "--no-dashboard"]

    def start(kind: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options, *more]
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0")]
    try:
        while not (file.exists() and file.read_text()):
            await asyncio.sleep(0.1)
        processes.append(start("worker", "--nthreads", "1"))
        results = []
        async with distributed.Client(scheduler_file=str(file), asynchronous=True, timeout="5s") as client:
            with pytest.raises(BatchInterruptedError) as caught:
                async for result in generate_session_keys_on(client, given, setup, partition=2, in_flight=2):
                    results.append(result)
                    if len(results) == 3:
                        processes[0].kill()
        assert set(caught.value.pending).isdisjoint({r.reference for r in results[:2]})
        assert caught.value.pending
    finally:
        for process in processes:
            process.kill()
            process.wait()
    keys = keys_from_file(setup.key_file or "")
    async with SQLAlchemyStore(setup.store_url, keys) as store:
        network = NodeNetwork(setup.nodes, threshold=setup.threshold)
        async with DanClient(network, store=store) as dan:
            again = [row | {"wallet": LocalWallet(row["private_key"])} for row in given]
            for row in again:
                del row["private_key"]
            statuses = [r.status async for r in dan.generate_session_keys(again, resume=True)]
        found = {record.reference: record.session async for record in store.find()}
    assert "failed" not in statuses
    assert len(found) == 12
    for result in results:
        assert found[result.reference].mpc_key_id == result.mpc_key_id


async def test_failures_come_back_without_secrets(cluster: Any, setup: WorkerSetup) -> None:
    """Rows that cannot be made say why; what crossed the wire was encrypted, and what comes back holds no key."""
    given = [*rows(1), {"reference": "no wallet", "chain_id": 1}, {"private_key": "11" * 32, "chain_id": 1}]
    found = {r.index: r async for r in generate_session_keys_on(cluster, given, setup)}
    assert found[0].status == "made"
    assert found[1].error == "ConfigurationError"
    assert "reference" in found[2].problem
    assert rows(1)[0]["private_key"] not in repr(found)


async def test_what_cannot_work_is_refused_before_anything_is_sent(setup: WorkerSetup) -> None:
    """A client that is not asynchronous, a password without TLS, rows that are no JSON, and keys named twice."""

    class Fake:
        asynchronous = True

        class scheduler:  # noqa: N801
            address = "tcp://127.0.0.1:1"

        async def run(self, *_: Any) -> None: ...

    async def all_of(cluster: Any, given: Any, wanted: WorkerSetup) -> None:
        async for _ in generate_session_keys_on(cluster, given, wanted):
            pass

    with pytest.raises(InvalidFieldError, match="asynchronous"):
        await all_of(object(), [], setup)
    secret = WorkerSetup(
        nodes=setup.nodes,
        threshold=setup.threshold,
        store_url="postgresql://me:hunter22@db/keys",
        key_file=setup.key_file,
    )
    with pytest.raises(ConfigurationError, match="TLS") as caught:
        await all_of(Fake(), [], secret)
    assert "hunter22" not in str(caught.value) + repr(secret)
    with pytest.raises(InvalidFieldError, match="JSON"):
        await all_of(Fake(), [{"reference": object()}], setup)
    with pytest.raises(InvalidFieldError, match="not both"):
        WorkerSetup(
            nodes=setup.nodes,
            threshold=setup.threshold,
            store_url=setup.store_url,
            key_file="a",
            key_variable="B",
        )
    await asyncio.sleep(0)

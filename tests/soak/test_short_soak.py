"""The soak in a few seconds, and its checks: each must be able to fail. ``nox -s soak`` runs the long one."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from pathlib import Path

import pytest
from attrs import evolve

from dan_async import DanClient
from dan_async.devnet import Devnet
from dan_async.errors import InvalidFieldError, QuorumError, SignatureCheckError
from dan_async.events import AttemptFailed, AttemptStarted, OperationFinished, OperationStarted
from dan_async.storage import MemorySessionStore
from tests.fake_nodes import FakeNetwork
from tests.soak import batches as batches_soak
from tests.soak import soak as soaking
from tests.soak.batches import Batches, batches
from tests.soak.chaos import FAULTS
from tests.soak.checks import Baseline, Ledger, Made, memory_growth, rss_bytes, wrong_keys
from tests.soak.soak import Plan, Report, soak

MB = 1024 * 1024


@pytest.mark.long
async def test_a_soak_of_seconds() -> None:
    """Nodes in processes, killed, stopped and broken; jobs over all of it, cancelled or not: nothing is wrong."""
    report = await soak(Plan(seconds=3, seed=7, nodes=4, workers=3, disturbed=1))
    assert report.problems == []
    assert report.results["keygen"] > 0
    assert sum(report.chaos.values()) > 0
    assert json.loads(json.dumps(report.to_dict()))["isGood"] is True


@pytest.mark.long
async def test_two_batches_for_seconds() -> None:
    """Over a PostgreSQL that fails: every row has one key, and every key is in the store."""
    report = await batches(3, 7)
    assert report.problems == []
    assert report.rows == report.results["active in the store"] > 0


async def test_keys_that_the_store_has_not_are_problems(tmp_path: Path) -> None:
    """One that was returned and is not kept, and one that is kept under a row that returned another."""
    running = Batches(1, 1, tmp_path)
    async with DanClient(FakeNetwork(2, 3).network(), store=MemorySessionStore()) as dan:
        await dan.generate_session_key(wallet=soaking.WALLET, chain_id=1, reference="row-0")
        running._rows = 1
        await running._finish(dan)
        assert not running.report.problems
        other = Made("0x" + "00" * 20, "0x" + "11" * 32, 2, 3)
        running._made[other.key_id] = other
        running._returned["row-0"] = {other.key_id}
        await running._finish(dan)
    assert len(running.report.problems) == 2


async def test_a_call_that_is_late_is_a_problem() -> None:
    """By more than a second."""
    report = batches_soak.Report(seconds=1, seed=1)
    await batches_soak.timed(report, "read", asyncio.sleep(0.01), most_s=0.5)
    assert not report.problems
    await batches_soak.timed(report, "read", asyncio.sleep(0.01), most_s=-1.5)
    assert "read took" in report.problems[0]


async def test_keys_are_compared_with_the_shares(tmp_path: Path) -> None:
    """Another address, and shares that are too few or too many, are found; the key itself is not."""
    async with Devnet(2, 3, storage=tmp_path, gateway=False) as net, DanClient(net) as dan:
        key = Made.of(await dan.generate_session_key(wallet=soaking.WALLET, chain_id=1))
    assert wrong_keys([key], tmp_path) == []
    other = evolve(key, address="0x" + "00" * 20)
    assert len(wrong_keys([other], tmp_path)) == 2  # one for each subset
    assert "3 shares for 4-of-5" in wrong_keys([evolve(key, t=4, n=5)], tmp_path)[0]
    assert "3 shares for 2-of-2" in wrong_keys([evolve(key, n=2)], tmp_path)[0]
    assert "0 shares" in wrong_keys([evolve(key, key_id="00" * 32)], tmp_path)[0]


async def test_what_is_left_is_found() -> None:
    """A task and a socket; nothing when they are gone."""
    before = Baseline()
    task = asyncio.create_task(asyncio.sleep(60), name="dan-ask-somebody")
    with socket.socket():
        left = await before.left(patience_s=0.05)
        assert left[0] == "dan-ask-somebody"
        assert len(left) == 2
    task.cancel()
    assert await before.left() == []


def test_what_begins_must_end() -> None:
    """One of each is open."""
    ledger = Ledger()
    for _ in range(2):
        ledger(AttemptStarted(node="x", method="dan_sign", attempt=1))
        ledger(OperationStarted(operation="keygen", network="nodes"))
    ledger(AttemptFailed(node="x", method="dan_sign", attempt=1, elapsed_s=0, error="NodeError"))
    ledger(OperationFinished(operation="keygen", network="nodes", elapsed_s=0))
    assert (ledger.open_attempts, ledger.open_operations) == (1, 1)


@pytest.mark.parametrize(
    ("samples", "growth"),
    [
        ([], 0),
        ([1, 2, 3], 0),
        ([50, 90, 100, 100, 100, 100, 100, 106], 3),
        ([10] * 4 + [20, 30, 40, 50], 35),
    ],
)
def test_memory_growth(samples: list[int], growth: int) -> None:
    """What the warm-up takes does not count; what is taken afterwards does."""
    assert memory_growth(samples) == growth


async def test_growing_memory_is_a_problem() -> None:
    """The bound is on what is kept, and the report says by how much it was passed."""
    running = soaking.Soak(Plan(seconds=1, seed=1), Path())
    running.report.memory = [100 * MB, 100 * MB, 101 * MB, 101 * MB]
    running._judge_memory()
    assert running.report.is_good
    running.report.memory = [100 * MB, 100 * MB, 140 * MB, 140 * MB]
    running._judge_memory()
    assert "memory grew by 41.9 MB" in running.report.problems[0]
    assert not running.report.is_good
    assert await rss_bytes() > MB


async def test_jobs_that_fail_as_they_must_not_are_problems() -> None:
    """A bug, a wrong signature, and an input that is refused; a quorum that is not reached is none."""
    for error, is_problem in (
        (ZeroDivisionError(), True),
        (SignatureCheckError("wrong"), True),
        (InvalidFieldError("x", "is wrong"), True),
        (QuorumError("too few", threshold=2, outcomes=()), False),
    ):
        running = soaking.Soak(Plan(seconds=1, seed=1), Path())

        async def fail(client: object, dice: object, error: Exception = error) -> None:
            raise error

        running._keygen = fail  # type: ignore[method-assign]  # a job that fails
        clients = [DanClient(Devnet(2, 3)) for _ in range(4)]
        for client in clients:
            client._network = object()  # type: ignore[assignment]  # only named in the report
        dice = random.Random(2)
        await running._one_job(clients, dice)
        assert bool(running.report.problems) is is_problem


def test_the_same_seed_gives_the_same_faults() -> None:
    """What is drawn depends on the seed alone."""
    drawn = [[make(dice) for make in FAULTS] for dice in (random.Random(5), random.Random(5))]
    assert drawn[0] == drawn[1]


def test_the_report_is_json() -> None:
    """With the seed in it, so that a run can be repeated."""
    assert json.loads(json.dumps(Report(Plan(seconds=1, seed=42)).to_dict()))["seed"] == 42

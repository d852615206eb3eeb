"""The benchmarks' own arithmetic: a wrong percentile or a comparison that never fails would be worse than none."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.batch import MOST_GROWTH_MIB, plot, run_for, run_on_dask, run_rows
from benchmarks.compare import main as compare_main
from benchmarks.floor import FloorClient
from benchmarks.measure import LatencyHistogram, platform_facts, run_load, tree_cpu_s
from benchmarks.observer import measure as measure_observer
from benchmarks.peers import Peer
from benchmarks.recording import Recording, split_id
from benchmarks.report import render
from benchmarks.rotate_keys import measure as measure_rotation
from benchmarks.run import record_keygen, run_on_stubs
from benchmarks.sign import Effort as SignEffort
from benchmarks.sign import at_once, beside_floor, with_one_at_fault
from benchmarks.signing import Effort as SigningEffort
from benchmarks.signing import measure as measure_signing
from benchmarks.signing import report as report_signing
from benchmarks.stalled_node import on_stubs
from benchmarks.stub_nodes import DealtKey, StubNode
from benchmarks.workloads import WORKLOADS, Effort, Workload
from dan_async.config import Threshold
from dan_async.errors import NodeCode
from dan_async.permissions.rules import parse_permissions

TINY = Effort(name="tiny", rounds=1, round_s=0.01, warm_up=1, devnet_s=0.1, devnet_keygens=1)
SMALL = Workload(name="2-of-3", t=2, n=3, concurrency=(1,))


def _result(**changes: Any) -> dict[str, Any]:
    entry = {
        "workload": "2-of-3",
        "n": 3,
        "peer": "stub",
        "concurrency": 1,
        "cpu_ms": {"median": 2.0},
        "latency_ms": {"p50": 4.0},
        "to_floor": 4.0,
        "to_floor_and_curve": 2.0,
    }
    return {"format": 1, "platform": platform_facts() | {"load_before": 0.0}, "entries": [entry | changes]}


def _compare(folder: Path, before: Any, after: Any, *options: str) -> int:
    for name, value in (("before.json", before), ("after.json", after)):
        (folder / name).write_text(json.dumps(value))
    return compare_main([str(folder / "before.json"), str(folder / "after.json"), *options])


def test_percentiles_are_within_one_percent():
    """Of 1 … 1000 ms, the percentiles are 500, 950 and 990 ms."""
    histogram = LatencyHistogram()
    for milliseconds in range(1, 1001):
        histogram.record(milliseconds / 1e3)
    for percent, expected in ((50, 0.5), (95, 0.95), (99, 0.99), (100, 1.0)):
        assert math.isclose(histogram.percentile_s(percent), expected, rel_tol=0.0101)


def test_no_percentile_exceeds_the_longest():
    """A bucket's upper end may, so the longest latency bounds it."""
    histogram = LatencyHistogram()
    histogram.record(0.123456)
    assert histogram.percentile_s(99) == 0.123456


def test_histograms_add_up():
    """Two turns are one histogram."""
    one, two = LatencyHistogram(), LatencyHistogram()
    one.record(0.001)
    two.record(0.1)
    one.add(two)
    assert one.total == 2
    assert one.longest_s == 0.1
    assert math.isclose(one.percentile_s(50), 0.001, rel_tol=0.0101)


async def test_the_load_keeps_that_many_in_flight():
    """Eight workers are seen at a time, and every operation is waited for."""
    running = most = done = 0

    async def operation() -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        done += 1

    load = await run_load(operation, concurrency=8, seconds=0.02, at_least=16)
    assert most == 8
    assert running == 0
    assert load.operations == done >= 16


async def test_cpu_time_is_per_operation():
    """Work of 5 ms of CPU shows as about 5 ms, waiting as none."""

    async def operation() -> None:
        end = time.process_time() + 0.005
        while time.process_time() < end:
            pass
        await asyncio.sleep(0.01)

    load = await run_load(operation, concurrency=1, seconds=0.0, at_least=5)
    assert 4.0 < load.cpu_ms < 9.0


async def test_an_error_ends_the_run():
    """A failed keygen is not a fast one."""

    async def operation() -> None:
        raise ValueError("broken")

    with pytest.raises(ExceptionGroup):
        await run_load(operation, concurrency=2, seconds=1.0)


def test_the_cpu_time_of_a_process_tree_includes_its_children(tmp_path):
    """A child that burns CPU counts, while it runs and when it has ended."""
    import os
    import subprocess

    if tree_cpu_s(os.getpid()) is None:
        return
    before = tree_cpu_s(os.getpid())
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True, cwd=tmp_path)
    after = tree_cpu_s(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before >= 0.25


def test_platform_facts_name_no_host_and_no_path():
    """Results are committed."""
    import getpass
    import socket

    text = json.dumps(platform_facts())
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert f'"{getpass.getuser()}"' not in text


def test_a_text_is_split_behind_its_id():
    """What follows the id is what is recorded."""
    assert split_id('{"jsonrpc":"2.0","id":17,"result":{"id":3}}') == (17, ',"result":{"id":3}}')
    with pytest.raises(ValueError, match="does not begin"):
        split_id('{"id":17,"jsonrpc":"2.0"}')


async def test_the_floor_moves_the_recorded_bytes():
    """The floor's replies are the recorded ones, id for id, whether asked at once or in turn."""
    async with Peer("benchmarks.stub_nodes", {"t": 2, "n": 3, "delay_ms": 0}) as stub:
        recording = await record_keygen(SMALL, stub.nodes)
    assert len(recording.nodes) == 3
    for node in range(3):
        assert recording.params(node, "dan_keygen") == recording.params(0, "dan_keygen")
        assert recording.result(node, "dan_keygen")["partyIndex"] == node + 1
    assert Recording.from_json(json.loads(json.dumps(recording.to_json()))) == recording
    config = {"recording": recording.to_json(), "delay_ms": 0}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Peer("benchmarks.floor", config))
        urls = [node["url"] for node in server.nodes]
        floor = await stack.enter_async_context(FloorClient(urls, recording))
        await asyncio.gather(floor.exchange(), floor.exchange())
        await floor.exchange_in_turn()


async def test_a_run_renders():
    """What run_on_stubs measures is what the report shows."""
    result: dict[str, Any] = {
        "effort": "tiny",
        "commit": "unknown",
        "is_changed": False,
        "platform": platform_facts(),
        **await run_on_stubs([SMALL], TINY),
    }
    text = render(result)
    assert "| 2-of-3 | 1 |" in text
    assert {entry["peer"] for entry in result["entries"]} == {"stub", "floor", "curve"}


def test_workloads_have_names_of_their_own():
    """A name is a key in the result file."""
    for workloads in WORKLOADS.values():
        assert len({workload.name for workload in workloads}) == len(workloads)


@pytest.mark.parametrize("length", [400, 16 * 1024])
def test_permissions_have_the_length_asked_for(length):
    """And nodes take them."""
    text = Workload(name="x", t=2, n=3, permissions_bytes=length).permissions
    assert text is not None
    assert len(text) == length
    assert parse_permissions(text).rules


def test_equal_results_pass(tmp_path):
    """Nothing got worse."""
    assert _compare(tmp_path, _result(), _result()) == 0


@pytest.mark.parametrize("metric", ["to_floor", "to_floor_and_curve"])
def test_a_worse_ratio_fails(tmp_path, metric):
    """By more than the tolerance: 1, by less: 0."""
    assert _compare(tmp_path, _result(**{metric: 4.0}), _result(**{metric: 4.9})) == 1
    assert _compare(tmp_path, _result(**{metric: 4.0}), _result(**{metric: 4.5})) == 0
    assert _compare(tmp_path, _result(**{metric: 4.0}), _result(**{metric: 4.5}), "--tolerance", "10") == 1


def test_times_count_on_the_same_machine_only(tmp_path):
    """On another one, only if asked."""
    slower = _result(cpu_ms={"median": 3.0})
    assert _compare(tmp_path, _result(), slower) == 1
    elsewhere = copy.deepcopy(slower)
    elsewhere["platform"]["processor"] = "another"
    assert _compare(tmp_path, _result(), elsewhere) == 0
    assert _compare(tmp_path, _result(), elsewhere, "--times") == 1


def test_times_of_a_busy_machine_do_not_count(tmp_path):
    """Whichever of the two runs it was."""
    slower, busy = _result(cpu_ms={"median": 3.0}), {"load_before": 7.0}
    assert _compare(tmp_path, _result(), slower) == 1
    assert _compare(tmp_path, _result(), slower | {"platform": slower["platform"] | busy}) == 0
    assert _compare(tmp_path, _result() | {"platform": slower["platform"] | busy}, slower) == 0


def test_a_missing_measurement_fails(tmp_path):
    """Unless the new run was a partial one."""
    before = _result()
    before["entries"].append(before["entries"][0] | {"workload": "3-of-5"})
    assert _compare(tmp_path, before, _result()) == 1
    assert _compare(tmp_path, before, _result(), "--partial") == 0


def test_files_that_do_not_fit_are_told_apart_from_a_regression(tmp_path):
    """Exit code 2: no file, another format, nothing in common."""
    assert _compare(tmp_path, _result(), _result() | {"format": 2}) == 2
    assert _compare(tmp_path, _result(), _result(workload="other")) == 2
    assert compare_main([str(tmp_path / "before.json"), str(tmp_path / "none.json")]) == 2


async def test_a_stalled_node_is_measured_beside_a_healthy_network():
    """Both sides are counted, none waits for the two seconds, and the ratio is that of the two percentiles."""
    found = await on_stubs(turns=1, keygens=4, concurrency=2)
    assert (found.healthy.total, found.stalled.total) == (4, 4)
    assert 0.02 < found.stalled.longest_s < 1.9
    assert found.to_dict()["p99_ratio"] == round(
        found.stalled.percentile_s(99) / found.healthy.percentile_s(99), 3
    )
    assert 0.02 < found.noticing.longest_s < 1.9
    assert "at most 1.2" in str(found)


@pytest.mark.parametrize("name", ["stalled", "accusing", "lying"])
async def test_signatures_with_a_faulty_node_are_measured_beside_healthy_ones(name: str) -> None:
    """Both sides are counted; the one that notices the faulty node by itself."""
    found = await with_one_at_fault(name, SignEffort(stalled_turns=1, stalled_signatures=2))
    assert (found.healthy.total, found.faulty.total, found.noticing.total) == (2, 1, 1)
    assert found.to_dict()["p99_ratio"] == round(found.ratio, 3)


def test_signing_is_measured_step_by_step() -> None:
    """Every step has a time, and the table a line for each threshold."""
    result = measure_signing(Threshold(2, 2), SigningEffort(keygens=1, signatures=2))
    assert set(result["ms"]) == {"keygen", "set-ups", "presignature", "shares", "combination"}
    assert 0 < result["ms"]["presignature"] < result["signature_ms"]
    assert report_signing([result]).splitlines()[-1].startswith("| 2-of-2 |")


def test_a_stub_node_says_that_it_does_not_know_a_method() -> None:
    """As a real node does: a batch of key generations is then asked for one by one, over the same connection."""
    key = DealtKey(2, 3)
    node = StubNode(key, key.participants[0])
    said = json.loads(node.answer('{"jsonrpc": "2.0", "id": 7, "method": "dan_keygen_batch", "params": {}}'))
    assert (said["id"], said["error"]["code"]) == (7, NodeCode.METHOD_NOT_FOUND)


async def test_a_batch_of_rows_is_measured() -> None:
    """Every row is counted, and the memory stays within its bounds."""
    found = await run_rows(120, concurrency=16)
    assert (found["rows"], found["failed"]) == (120, 0)
    assert found["growthMiB"] < MOST_GROWTH_MIB


async def test_a_stored_batch_is_measured(tmp_path: Path) -> None:
    """The same with a store, which has every row afterwards."""
    found = await run_rows(40, concurrency=8, store_url=f"sqlite:///{tmp_path}/keys.db")
    assert (found["rows"], found["failed"], found["store"]) == (40, 0, "sqlite")


async def test_a_batch_for_some_time_is_measured() -> None:
    """It ends when the time is over and enough results have come."""
    found = await run_for(0.05, concurrency=4, module="benchmarks.stub_nodes")
    assert found["rows"] >= 8
    assert found["perSecond"] > 0


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    """A PNG file."""
    plot(
        [{"concurrency": 1, "perSecond": 10.0}, {"concurrency": 8, "perSecond": 20.0}], tmp_path / "plot.png"
    )
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("default")  # the cluster's own
async def test_a_batch_on_dask_is_measured() -> None:
    """Two workers make keys, and none fails."""
    found = await run_on_dask(0.05)
    assert found["failed"] == 0
    assert found["rows"] >= 128


async def test_a_burst_is_measured_beside_several_numbers_in_flight():
    """Every call of it is signed."""
    found = await at_once(SignEffort(seconds=0.05, burst=20, burst_turns=1))
    assert found["calls"] == 20
    assert min(found["per_second"].values()) > 0


async def test_a_stocked_signature_is_measured_beside_its_floor():
    """At one and several in flight; most of them have their presignature from the stock."""
    for found in await beside_floor(Threshold(2, 3), SignEffort(seconds=0.1, floor_turns=1)):
        assert found["stocked"] > 0.5
        assert found["to_floor"] > 1


async def test_the_change_of_a_stores_key_is_measured_and_checked(tmp_path):
    """Every record is under the new key, and what it was."""
    found = await measure_rotation(f"sqlite:///{tmp_path / 'sessions.db'}", 300)
    assert found["isRight"]
    assert found["reads"]


async def test_what_watching_costs_is_measured():
    """For every listener, and how sure that is."""
    found = await measure_observer(rounds=2, seconds=0.05, concurrency=1)
    assert len(found) == 4
    assert all(cost.cpu_ms > 0 and cost.low <= cost.share <= cost.high for cost in found.values())

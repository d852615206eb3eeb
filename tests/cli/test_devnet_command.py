"""``dan-async devnet`` as a process: what it prints, that it serves, how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dan_async import DanClient, LocalWallet, NodeNetwork, Threshold
from dan_async.devnet.faults.spelling import FAULT_NAMES
from tests.cli.conftest import command

KEY = "01" * 32
TWO = ("devnet", "--nodes", "2", "--threshold", "2")


@contextmanager
def running(*args: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a process group of its own, as a shell would."""
    process = subprocess.Popen(
        command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def described(process: subprocess.Popen[str]) -> list[dict[str, str]]:
    """Read the one line that --json prints."""
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert set(line) >= {"nodes"}
    return list(line["nodes"])


async def make_key(nodes: list[dict[str, str]]) -> str:
    network = NodeNetwork(nodes, threshold=Threshold(2, len(nodes)))
    async with DanClient(network) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    return session.session_key_eoa


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_a_signal_and_stops_cleanly(number: signal.Signals) -> None:
    """One line when everything listens; keys are made; then exit code 0 and nothing more on standard output."""
    with running(*TWO, "--json") as process:
        nodes = described(process)
        assert [set(node) for node in nodes] == [{"url", "operator"}] * 2
        assert asyncio.run(make_key(nodes)).startswith("0x")
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "stopped\n")


def test_nodes_in_processes_of_their_own_end_with_it() -> None:
    """--processes starts one process for each node; after Ctrl-C none is left."""
    with running(*TWO, "--json", "--processes") as process:
        nodes = described(process)
        pids = children(process.pid)
        assert len(pids) >= 2
        assert asyncio.run(make_key(nodes)).startswith("0x")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "stopped\n")
    assert not any(map(is_alive, pids))


def test_people_get_a_command_to_paste() -> None:
    """Without --json: each node, what this is not for, and a keygen command with the right options."""
    with running(*TWO) as process:
        assert process.stdout is not None
        lines = []
        while len(lines) < 2 or "keygen" not in "".join(lines) or lines[-1].endswith("\\\n"):
            lines.append(process.stdout.readline())
        command = "".join(lines).rpartition("\n\n")[2]
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        made = subprocess.run(
            command, shell=True, check=True, capture_output=True, text=True, timeout=60, env=environment
        )
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert "Session key address" in made.stdout
    assert all(len(line) <= 118 for line in command.splitlines())
    assert shlex.split(command.replace("\\\n", " ")).count("--node") == 2
    assert sum("  operator 0x" in line for line in lines) == 2
    assert any("  gateway " in line for line in lines)
    assert "development only" in lines[0]
    assert process.returncode == 0


def test_a_network_is_named_once(tmp_path: Path) -> None:
    """The devnet writes its network file and an owner's key; the printed command works as it stands, and so do others."""
    network, key = tmp_path / "net.toml", tmp_path / "owner key"
    options = ["--write", str(network), "--owner-key", str(key), "--storage", str(tmp_path / "kept")]
    with running(*TWO, *options) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while "keygen" not in "".join(lines) or lines[-1].endswith("\\\n"):
            lines.append(process.stdout.readline())
        command = "".join(lines).rpartition("\n\n")[2]
        assert (key.stat().st_mode & 0o777, key.read_text()[:2]) == (0o600, "0x")
        folder = str(Path(sys.executable).parent)
        environment = {**os.environ, "PATH": folder + os.pathsep + os.environ["PATH"]}
        session = subprocess.run(
            command, shell=True, check=True, capture_output=True, text=True, timeout=60, env=environment
        ).stdout
        (tmp_path / "session.json").write_text(session)
        shown = subprocess.run(
            [f"{folder}/dan-async", "status", "--json"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment | {"DAN_ASYNC_NETWORK": str(network)},
        ).stdout
        assert json.loads(shown)["live"] == 2
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    before = network.read_text()
    kept = key.read_text()
    with running(*TWO, "--json", *options) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert (network.read_text(), key.read_text()) == (before, kept)
    assert (found["threshold"], found["parties"]) == (2, 2)


def test_a_node_whose_process_dies_is_named() -> None:
    """Nobody wonders why a network with --processes has become smaller."""
    with running(*TWO, "--processes") as process:
        assert process.stdout is not None
        while "keygen" not in process.stdout.readline():
            pass
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        victims = [
            child
            for child in children
            if b"dan_async.devnet.node.process" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]
        os.kill(int(victims[0]), signal.SIGKILL)
        assert process.stderr is not None
        while "has stopped: its process ended" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_storage_keeps_the_nodes_identities(tmp_path: Path) -> None:
    """A later run with the same folder is the same operators."""
    operators = []
    for _ in range(2):
        with running(*TWO, "--json", "--storage", str(tmp_path / "kept")) as process:
            operators.append([node["operator"] for node in described(process)])
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        assert process.returncode == 0
    assert operators[0] == operators[1]


def test_faults_are_in_force_and_shown() -> None:
    """The number that names a node is the one printed beside it; the others are well."""
    with running(*TWO, "--fault", "1=http:429,retry-after=3s", "--fault", "1=delay:2s±500ms") as process:
        assert process.stdout is not None
        lines = []
        while not lines or "  gateway " not in lines[-1]:
            lines.append(process.stdout.readline())
        well, ill = (line for line in lines if line.startswith("  node "))
        assert well.startswith("  node 0  ws://")
        assert "fault" not in well
        assert ill.startswith("  node 1  ws://")
        assert ill.endswith("  fault http:429,retry-after=3s  fault delay:2s,jitter=0.5s\n")
        assert [status_at(line.split()[2]) for line in (well, ill)] == [(200, None), (429, "3")]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def status_at(url: str) -> tuple[int, str | None]:
    """POST something: a refusal of what it says has status 200, one by the server its own."""
    try:
        with urllib.request.urlopen(url.replace("ws:", "http:"), data=b"{}", timeout=10) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Retry-After"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["1=dely:2s"],
            "--fault: there is no fault of that name (did you mean delay?). The faults are delay, ",
        ),
        (["2=delay:2s"], "--fault: there is no such node. The nodes are 0 to 1"),
        (["delay:2s"], "--fault: must have the form NODE=FAULT"),
        (["0=refuse", "0=delay:soon"], "--fault number 2: delay: seconds must be a time span"),
    ],
)
def test_a_wrong_fault_is_one_line(given: list[str], said: str) -> None:
    """Exit code 2, and nothing is started."""
    options = [word for text in given for word in ("--fault", text)]
    done = subprocess.run(command(*TWO, *options), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


def test_the_help_names_every_fault() -> None:
    """So that nobody has to look further."""
    done = subprocess.run(command("devnet", "--help"), capture_output=True, text=True, timeout=30, check=True)
    assert [name for name in FAULT_NAMES if name not in done.stdout] == []

"""``dan-async status``: nodes that are up and down, a gateway, watching, wrong input."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from dan_async.cli.status import as_json, as_lines
from dan_async.config import NodeEndpoint, Threshold
from dan_async.network import NetworkHealth, NodeHealth
from dan_async.network_file import NetworkFile
from dan_async.types import OperatorAddress
from tests.cli.conftest import Run, command, terminal

OPERATOR = OperatorAddress("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")
DOWN = f"ws://127.0.0.1:9/v1/rpc={OPERATOR}"


def options(nodes: list[str]) -> list[str]:
    """Give the nodes as --node options."""
    return [word for node in nodes for word in ("--node", node)]


# --- one look ---------------------------------------------------------------------------------------------------------


def test_nodes_that_are_up(run: Run, nodes: list[str]) -> None:
    """Each is live, with latency and clock; nothing on standard error; exit code 0."""
    finished = run("status", *options(nodes), "--threshold", "3", "--json")
    assert (finished.code, finished.err) == (0, "")
    seen = json.loads(finished.out)
    assert (seen["live"], seen["total"], seen["threshold"]) == (3, 3, 3)
    for entry, node in zip(seen["nodes"], nodes, strict=True):
        assert f"{entry['url']}={entry['name']}" == node
        assert (entry["isLive"], entry["state"], entry["problem"]) == (True, "live", None)
        assert 0 < entry["latencyMs"] < 5000
        assert abs(entry["clockSkewMs"]) < 5000


def test_the_table(run: Run, nodes: list[str]) -> None:
    """A line for each node and one that counts them."""
    finished = run("status", *options([*nodes, DOWN]))
    assert (finished.code, finished.err) == (0, "")
    header, *rows = [line for line in finished.out.splitlines() if line]
    assert header.split() == ["Node", "URL", "State", "Latency", "Average", "Clock", "Problem"]
    for row, node in zip(rows, nodes, strict=False):
        url, _, operator = node.rpartition("=")
        assert row.startswith(operator)
        assert url in row
        assert " live " in row
        assert " ms " in row
    assert re.search(r" down(, rests \d+ s)? ", rows[3])
    assert "no connection to ws://127.0.0.1:9/v1/rpc" in rows[3]
    assert rows[4] == "3 of 4 live"


@pytest.mark.parametrize("watch", [(), ("--watch", "0.1", "--timeout", "1")])
def test_on_a_narrow_terminal_everything_can_be_copied(nodes: list[str], watch: tuple[str, ...]) -> None:
    """Operators and URLs stand whole, each on a line of its own."""
    stop_when = (lambda shown: "3 of 4 live" in shown) if watch else None
    shown = terminal("status", *options([*nodes, DOWN]), *watch, stop_when=stop_when)
    assert shown.code == 0
    lines = [line.strip() for line in shown.out.splitlines()]
    for node in [*nodes, DOWN]:
        url, _, operator = node.rpartition("=")
        assert url in lines
        assert operator in lines
    assert max(map(len, lines)) <= 80
    assert "3 of 4 live" in lines
    assert [line[0] for line in lines if line[:1].isdigit() and " live " in line][:3] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("threshold", "code"), [((), 0), (("--threshold", "3"), 0), (("--threshold", "4"), 1)]
)
def test_the_threshold_decides_the_exit_code(
    run: Run, nodes: list[str], threshold: tuple[str, ...], code: int
) -> None:
    """1 if fewer than t are live; what was seen is shown all the same."""
    finished = run("status", *options([*nodes, DOWN]), *threshold, "--json")
    assert finished.code == code
    assert json.loads(finished.out)["live"] == 3


def test_a_network_files_threshold_decides_the_exit_code(run: Run, nodes: list[str], tmp_path: Path) -> None:
    """A network of which too few nodes are live can sign nothing; --threshold wins."""
    file = tmp_path / "net.toml"
    endpoints = (NodeEndpoint.of(nodes[0]), NodeEndpoint.of(DOWN))
    file.write_text(NetworkFile(nodes=endpoints, threshold=Threshold(2, 2)).to_toml())
    finished = run("status", "--network", str(file))
    assert finished.code == 1
    assert "1 of 2 live, 2 needed" in finished.out
    assert run("status", "--network", str(file), "--threshold", "1").code == 0


def test_no_node_is_live(run: Run) -> None:
    """Without a threshold, one live node is asked for."""
    finished = run("status", "--node", DOWN)
    assert finished.code == 1
    assert "0 of 1 live" in finished.out


def test_a_node_that_is_somebody_else_is_down(run: Run, nodes: list[str]) -> None:
    """Whoever cannot prove to be the operator is not that node."""
    url = nodes[0].rpartition("=")[0]
    finished = run("status", "--node", f"{url}={OPERATOR}", "--json")
    (entry,) = json.loads(finished.out)["nodes"]
    assert (finished.code, entry["isLive"]) == (1, False)
    assert OPERATOR in entry["problem"]


def test_a_gateway(run: Run, gateway: str) -> None:
    """One line: whether it takes a connection."""
    finished = run("status", "--gateway", gateway, "--json")
    assert (finished.code, finished.err) == (0, "")
    (entry,) = json.loads(finished.out)["nodes"]
    assert (entry["name"], entry["isLive"]) == (gateway, True)


def test_a_gateway_of_the_other_version_is_taken(run: Run) -> None:
    """The URL says the version."""
    finished = run("status", "--gateway", "ws://127.0.0.1:9/v2", "--json")
    assert finished.code == 1
    assert json.loads(finished.out)["nodes"][0]["name"] == "ws://127.0.0.1:9/v2"


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no network is named. Use --network FILE, --node URL=OPERATOR"),
        (("--node", "x"), "--node: must have the form URL=OPERATOR"),
        (("--node", DOWN, "--node", "y"), "--node number 2"),
        (("--node", DOWN, "--node", DOWN), "--node names an operator twice"),
        (("--node", f"ws://node.example/v1/rpc={OPERATOR}"), "to a host that is not loopback"),
        (("--gateway", "wss://gateway.example"), "--gateway must end with the version segment"),
        (("--gateway", "wss://g.example/v1", "--node", DOWN), "--node and --gateway both name a network"),
        (("--gateway", "wss://g.example/v1", "--threshold", "2"), "--threshold is for nodes"),
        (("--node", DOWN, "--threshold", "2"), "--threshold asks for 2 nodes, but 1 are named"),
        (("--node", DOWN, "--threshold", "0"), "'--threshold'"),
        (("--node", DOWN, "--watch", "0"), "'--watch': must be a number of seconds from 0.1 to 3600"),
        (("--node", DOWN, "--watch", "nan"), "'--watch'"),
        (("--node", DOWN, "--watch=often"), "'--watch'"),
        (("--node", DOWN, "--timeout", "-1"), "'--timeout'"),
        (("--node", DOWN, "extra"), "extra"),
    ],
)
def test_wrong_input_is_one_line(run: Run, args: tuple[str, ...], said: str) -> None:
    """Exit code 2, and what to do about it."""
    finished = run("status", *args)
    assert finished.code == 2
    assert said in finished.error


def test_a_key_in_the_wrong_place_is_not_repeated(run: Run) -> None:
    """What looks like a key is masked."""
    finished = run("status", "--node", "ab" * 32)
    assert finished.code == 2
    assert "ab" * 32 not in finished.error


# --- what is shown ----------------------------------------------------------------------------------------------------

HOSTILE = NetworkHealth(
    nodes=(
        NodeHealth(
            name=OPERATOR, url="ws://127.0.0.1:9", is_live=False, problem="\x1b[2J[red]no[/red]\nsecond\r"
        ),
    )
)


def test_what_a_node_says_is_not_obeyed() -> None:
    """Neither control characters nor markup; one node is one line."""
    lines = as_lines(HOSTILE, needed=1).splitlines()
    assert "?[2J[red]no[/red] second?" in lines[1]
    assert all(line.isprintable() for line in lines)
    assert lines[-1] == "0 of 1 live, 1 needed"


def test_a_name_that_is_a_url_is_shown_once() -> None:
    """A gateway has no operator of its own."""
    url = "wss://g.example/v1"
    health = NetworkHealth(nodes=(NodeHealth(name=url, url=url, is_live=True, latency_s=0.25),))
    assert as_lines(health, needed=None).count(url) == 1
    assert "250.0 ms" in as_lines(health, needed=None)


RESTING = NodeHealth(
    name=OPERATOR,
    url="ws://127.0.0.1:9",
    is_live=True,
    latency_s=0.25,
    state="resting",
    average_latency_s=0.5,
    failures=3,
    rests_for_s=7.4,
)


def test_a_node_that_rests_says_for_how_long() -> None:
    """It answers, and is left alone all the same; its usual latency stands beside the last one."""
    health = NetworkHealth(nodes=(RESTING,))
    (_, row, *_) = as_lines(health, needed=None).splitlines()
    assert re.search(r" resting, rests 7 s +250\.0 ms +500\.0 ms", row)
    (entry,) = json.loads(as_json(health, needed=None))["nodes"]
    assert (entry["state"], entry["failures"], entry["restsForMs"]) == ("resting", 3, 7400)
    assert (entry["latencyMs"], entry["averageLatencyMs"]) == (250, 500)


def test_watching_sees_nodes_go() -> None:
    """From live to down, within one run of the command."""
    server = subprocess.Popen(
        command("devnet", "--nodes", "2", "--threshold", "2", "--json"), stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    described = json.loads(server.stdout.readline())["nodes"]
    nodes = [f"{node['url']}={node['operator']}" for node in described]
    with watching(*options(nodes), "--watch", "0.1", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["live"] == 2
        server.terminate()
        server.communicate(timeout=20)
        states = {node["state"] for node in first_with(process, live=0)["nodes"]}
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert states == {"down"}
    assert process.returncode == 0


def first_with(process: subprocess.Popen[str], *, live: int) -> dict[str, Any]:
    """Read the lines of a --watch until so many nodes are live."""
    assert process.stdout is not None
    for line in process.stdout:
        seen: dict[str, Any] = json.loads(line)
        if seen["live"] == live:
            return seen
    raise AssertionError("the command ended")


def test_json_is_one_line() -> None:
    """Whatever a node says."""
    assert len(as_json(HOSTILE, needed=None).splitlines()) == 1


# --- watching ---------------------------------------------------------------------------------------------------------


def watching(*args: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = os.environ | {"TERM": "xterm-256color"}
    return subprocess.Popen(
        command("status", *args), stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_watching_goes_on_until_it_is_stopped(nodes: list[str], stop: signal.Signals) -> None:
    """One JSON object a line; Ctrl-C and SIGTERM end it with exit code 0 and without a word."""
    with watching(*options(nodes), "--watch", "0.1", "--json") as process:
        assert process.stdout is not None
        for _ in range(3):
            assert json.loads(process.stdout.readline())["live"] == 3
        process.send_signal(stop)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_watch_needs_no_number() -> None:
    """Before another option and at the end."""
    for args in (("--watch", "--json", "--node", DOWN), ("--json", "--node", DOWN, "--watch")):
        with watching(*args) as process:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["live"] == 0
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")


def test_a_pipe_gets_one_table_after_the_other(nodes: list[str]) -> None:
    """Nothing that only a terminal understands."""
    with watching(*options(nodes), "--watch", "0.1") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(16)]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert [line for line in lines if line.startswith("Node")] == [lines[0], lines[0], lines[0]]
    assert "\x1b" not in "".join(lines)
    assert process.returncode == 0


def test_a_terminal_is_refreshed_in_place(nodes: list[str]) -> None:
    """The cursor goes up instead of a second table below; it is shown again in the end."""
    screen, terminal = pty.openpty()
    with watching(*options(nodes), "--watch", "0.1", stdout=terminal) as process:
        os.close(terminal)
        shown = read_until(screen, "Node", times=3)
        process.send_signal(signal.SIGINT)
        shown += read_until(screen, "\x1b[?25h", times=1)
        process.communicate(timeout=20)
    os.close(screen)
    assert "\x1b[1A" in shown
    assert "\x1b[?25h" in shown
    assert process.returncode == 0


def read_until(descriptor: int, text: str, *, times: int) -> str:
    """Read from a terminal until a text has come so often."""
    found, end = "", time.monotonic() + 20
    while found.count(text) < times and time.monotonic() < end:
        try:
            found += os.read(descriptor, 4096).decode(errors="replace")
        except OSError:  # the other side has been closed
            break
    return found


def test_an_interrupted_look_gives_130() -> None:
    """As with every command that was to give a result."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}/v1/rpc"
        with watching("--node", f"{url}={OPERATOR}", "--timeout", "30") as process:
            connection, _ = listening.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("interrupted")

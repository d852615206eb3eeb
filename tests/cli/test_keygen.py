"""``dan-async keygen`` end to end: on a devnet, on nodes that run elsewhere, with each kind of wallet."""

from __future__ import annotations

import asyncio
import errno
import io
import itertools
import json
import os
import pty
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import pytest

from dan_async import DanSessionKeyPayload, LocalWallet
from dan_async.cli.options import PRIVATE_KEY_VARIABLE
from dan_async.devnet import Delay, Devnet
from dan_async.errors import StoreUnavailableError
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.cli.conftest import Run, command, on_full_disk
from tests.helpers import Do

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
FIELDS = [
    "sessionKeyEOA",
    "mpcKeyId",
    "hexEphSKWithout0x",
    "partiesNumber",
    "threshold",
    "eoaAddress",
    "chainId",
]
DEVNET = ("keygen", "--devnet", "2-of-2")


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(KEY)
    return str(path)


@contextmanager
def wallet_server(answer: str = "sign") -> Iterator[tuple[str, threading.Event]]:
    """
    Run a JSON-RPC wallet.

    Args:
        answer: ``sign``, ``refuse``, ``wrong key``, or ``hang`` until the test is over.
    """
    asked, over = threading.Event(), threading.Event()
    wallet = LocalWallet(KEY if answer != "wrong key" else "01" * 32)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            reply: dict[str, object] = {"jsonrpc": "2.0", "id": request["id"]}
            if request["method"] == "eth_accounts":
                reply["result"] = [ADDRESS]
            else:
                asked.set()
                if answer == "hang":
                    over.wait(30)
                if answer == "refuse":
                    reply["error"] = {"code": 4001, "message": "User rejected the request."}
                else:
                    reply["result"] = asyncio.run(wallet.sign_typed_data(json.loads(request["params"][1])))
            body = json.dumps(reply).encode()
            try:
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except ConnectionError:
                assert answer == "hang"

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def node_options(nodes: list[str]) -> list[str]:
    return [word for node in nodes for word in ("--node", node)]


def test_json_is_exactly_the_seeds_seven_fields(run: Run) -> None:
    """One JSON object on standard output, loadable as a session; everything else on standard error."""
    finished = run(*DEVNET, "--json")
    assert finished.code == 0
    assert len(finished.out.splitlines()) == 1
    fields = json.loads(finished.out)
    assert list(fields) == FIELDS
    session = DanSessionKeyPayload.from_dict(fields)
    assert (session.threshold, session.parties_number, session.chain_id) == (2, 2, 80002)
    assert "throwaway" in finished.err
    assert session.hex_eph_sk_without_0x not in finished.err


def test_more_holders_than_t_can_be_asked_for(run: Run) -> None:
    """Up to n; beyond that the option is named."""
    assert run("keygen", "--devnet", "2-of-3", "--min-holders", "3", "--json").code == 0
    finished = run("keygen", "--devnet", "2-of-3", "--min-holders", "4")
    assert finished.code == 2
    assert "error: --min-holders must be from 2 to 3" in finished.err


def test_the_table_masks_the_secret(run: Run) -> None:
    """For people: everything but the ephemeral private key, and a note on how to keep it."""
    finished = run(*DEVNET, "--chain-id", "137")
    assert finished.code == 0
    assert "Session key address" in finished.out
    assert "2-of-2" in finished.out
    assert "137" in finished.out
    assert "***" in finished.out
    assert "--output" in finished.err


def test_reveal_shows_the_secret_in_the_table(run: Run) -> None:
    """Asked for, it is shown."""
    finished = run(*DEVNET, "--reveal")
    (line,) = (line for line in finished.out.splitlines() if line.startswith("Ephemeral private key"))
    assert len(bytes.fromhex(line.split()[-1])) == 32


def test_output_keeps_the_secret_off_the_screen(run: Run, tmp_path: Path) -> None:
    """The file has all fields, the seven first, and mode 0600; standard output has the table, masked."""
    target = tmp_path / "session.json"
    finished = run(*DEVNET, "--output", str(target))
    assert finished.code == 0
    fields = json.loads(target.read_text())
    assert list(fields) == [*FIELDS, "publicKey", "ephId", "ephAlg", "expiresAt"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert fields["sessionKeyEOA"] in finished.out
    assert fields["hexEphSKWithout0x"] not in finished.out + finished.err
    assert str(target) in finished.err


def test_json_with_output_is_masked(run: Run, tmp_path: Path) -> None:
    """The seed's seven on standard output, with the secret in the file only."""
    target = tmp_path / "session.json"
    finished = run(*DEVNET, "--json", "--output", str(target))
    kept, shown = json.loads(target.read_text()), json.loads(finished.out)
    assert shown == {name: kept[name] for name in FIELDS} | {"hexEphSKWithout0x": "***"}
    assert list(shown) == FIELDS


def test_json_with_output_and_reveal_is_whole(run: Run, tmp_path: Path) -> None:
    """Both places, where both were asked for."""
    target = tmp_path / "session.json"
    finished = run(*DEVNET, "--json", "--reveal", "--output", str(target))
    assert json.loads(finished.out).items() <= json.loads(target.read_text()).items()


def test_an_existing_output_is_kept(run: Run, tmp_path: Path) -> None:
    """Refused before anything starts; --force replaces it."""
    target = tmp_path / "session.json"
    target.write_text("old")
    assert "--force" in run(*DEVNET, "--output", str(target)).error
    assert target.read_text() == "old"
    assert run(*DEVNET, "--output", str(target), "--force").code == 0
    assert list(json.loads(target.read_text()))[:7] == FIELDS


def test_the_owner_is_the_one_of_the_key_file(run: Run, key_file: str) -> None:
    """And the key itself appears nowhere."""
    finished = run(*DEVNET, "--private-key-file", key_file, "--json")
    assert json.loads(finished.out)["eoaAddress"] == ADDRESS
    assert KEY not in finished.out + finished.err


def test_the_owner_is_the_one_of_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an option, the variable counts, and no throwaway key is made."""
    monkeypatch.setenv(PRIVATE_KEY_VARIABLE, KEY)
    finished = run(*DEVNET, "--json")
    assert json.loads(finished.out)["eoaAddress"] == ADDRESS
    assert "throwaway" not in finished.err


@pytest.mark.parametrize("address", [None, ADDRESS, ADDRESS.lower()])
def test_a_json_rpc_wallet_signs(run: Run, address: str | None) -> None:
    """Its first account, or the one that was named."""
    with wallet_server() as (url, _):
        named = () if address is None else ("--wallet-address", address)
        finished = run(*DEVNET, "--wallet-rpc", url, *named, "--json")
    assert json.loads(finished.out)["eoaAddress"] == ADDRESS


@pytest.mark.parametrize(("answer", "said"), [("refuse", "declined"), ("wrong key", ADDRESS)])
def test_a_wallet_that_does_not_sign_gives_exit_code_1(
    run: Run, tmp_path: Path, answer: str, said: str
) -> None:
    """A refusal, or a signature by another key: one line, and no file."""
    with wallet_server(answer) as (url, _):
        finished = run(*DEVNET, "--wallet-rpc", url, "--output", str(tmp_path / "session.json"))
    assert finished.code == 1
    assert finished.out == ""
    (line,) = (line for line in finished.err.splitlines() if line.startswith("error: "))
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_wallet_gives_exit_code_1(run: Run) -> None:
    """The line says that it is the wallet."""
    finished = run(*DEVNET, "--wallet-rpc", "http://127.0.0.1:9")
    assert finished.code == 1
    assert "wallet" in finished.err.splitlines()[-1]


def test_permissions_and_duration_reach_the_network(run: Run, tmp_path: Path) -> None:
    """A file of permissions and a lifetime are taken."""
    (tmp_path / "permissions.json").write_text('{"permissions": []}')
    finished = run(*DEVNET, "--permissions", f"@{tmp_path / 'permissions.json'}", "--duration", "60")
    assert finished.code == 0
    assert "Expires" in finished.out


def test_nodes_that_run_elsewhere(run: Run, nodes: list[str], key_file: str) -> None:
    """Three nodes in another process make a key."""
    finished = run(
        "keygen",
        *node_options(nodes),
        *("--threshold", "2", "--chain-id", "137", "--json", "--private-key-file", key_file),
    )
    assert finished.code == 0
    fields = json.loads(finished.out)
    assert (fields["threshold"], fields["partiesNumber"], fields["chainId"]) == (2, 3, 137)
    assert finished.err == ""


def test_nodes_need_a_wallet(run: Run, nodes: list[str]) -> None:
    """Throwaway owners are for devnets only."""
    finished = run("keygen", *node_options(nodes), "--threshold", "2", "--chain-id", "137")
    assert finished.code == 2
    assert "no wallet is named" in finished.error


def test_a_node_named_twice_is_wrong_input(run: Run, nodes: list[str], key_file: str) -> None:
    """What only the network notices is still said in terms of the options."""
    twice = node_options([nodes[0], nodes[0]])
    finished = run("keygen", *twice, "--threshold", "2", "--chain-id", "1", "--private-key-file", key_file)
    assert finished.code == 2
    assert "--node" in finished.error


def test_a_wrong_operator_gives_exit_code_1(run: Run, nodes: list[str], key_file: str) -> None:
    """A node that cannot prove to be the operator does not take part; the line for it says so."""
    url = nodes[0].partition("=")[0]
    forged = [f"{url}=0x0000000000000000000000000000000000000001", *nodes[1:]]
    finished = run(
        "keygen", *node_options(forged), "--threshold", "2", "--chain-id", "1", "--private-key-file", key_file
    )
    assert (finished.code, finished.out) == (1, "")
    assert "0x0000000000000000000000000000000000000001" in finished.err


def test_a_network_that_is_down_gives_exit_code_1(run: Run, key_file: str) -> None:
    """One error with a hint and a line for each node; nothing on standard output."""
    nodes = [f"ws://127.0.0.1:9/v1/rpc=0x{place:040x}" for place in (1, 2)]
    finished = run(
        "keygen", *node_options(nodes), "--threshold", "2", "--chain-id", "1", "--private-key-file", key_file
    )
    assert (finished.code, finished.out) == (1, "")
    first, *others = finished.err.splitlines()
    assert first.startswith("error: ")
    assert len(others) == 2
    assert all(line.startswith("  node 0x") for line in others)


def test_a_timeout_gives_exit_code_1(run: Run) -> None:
    """A deadline that cannot be met ends the command in time, with a line."""
    finished = run(*DEVNET, "--timeout", "0.000001")
    assert (finished.code, finished.out) == (1, "")
    assert any(line.startswith("error: ") for line in finished.err.splitlines())


def test_a_result_that_cannot_be_written_gives_exit_code_1() -> None:
    """A full disk behind standard output is one line, also when Python shuts down."""
    done = on_full_disk(*DEVNET, "--json")
    assert done.returncode == 1
    assert "No space left" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_result_that_nobody_reads_is_lost() -> None:
    """That is said, since nothing else has the session."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command(*DEVNET, "--json"),
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=50,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: the session was made, but standard output is closed"
    )


def test_a_reference_needs_a_store(run: Run) -> None:
    """Nothing else has a place for it."""
    assert "--reference is for --store URL" in run(*DEVNET, "--reference", "agent").error


def test_a_store_in_memory_is_no_place_for_a_key(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the command, and the session with it; no key file is left of it."""
    monkeypatch.chdir(tmp_path)
    assert "--store: a store in memory ends" in run(*DEVNET, "--store", "sqlite:///:memory:").error
    assert list(tmp_path.iterdir()) == []


def test_fewer_holders_are_accepted_on_request(run: Run, devnet_in_a_thread: tuple[Devnet, Do]) -> None:
    """The hint names the option that the command has, and the option works."""
    net, do = devnet_in_a_thread
    do(net.nodes[2].stop())
    named = [part for one in net.endpoints for part in ("--node", f"{one.url}={one.operator}")]
    options = ("keygen", *named, "--chain-id", "1", "--private-key-file", "-", "--timeout", "5")
    key = mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(KEY.encode())))
    with key:
        refused = run(*options)
    assert "Allow fewer with --min-parties" in refused.err
    with mock.patch("sys.stdin", io.TextIOWrapper(io.BytesIO(KEY.encode()))):
        assert run(*options, "--min-parties", "2").code == 0


def test_a_keygen_that_came_to_no_end_says_how_to_go_on(
    run: Run, devnet_in_a_thread: tuple[Devnet, Do], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes may have made the key after all; a failure that left no record says nothing of it."""
    net, do = devnet_in_a_thread
    monkeypatch.setenv("DAN_ASYNC_PRIVATE_KEY", KEY)
    named = [part for one in net.endpoints for part in ("--node", f"{one.url}={one.operator}")]
    options = (
        "keygen",
        *named,
        "--chain-id",
        "1",
        "--store",
        f"sqlite:///{tmp_path}/keys.db",
        "--timeout",
        "1",
    )

    async def delay() -> None:
        net.faults[0] = Delay(seconds=3, methods=["dan_keygen"])

    do(delay())
    undecided = run(*options, "--reference", "agent")
    assert undecided.code == 1
    assert (
        "dan-async sessions recover finds out whether the key was made\nerror: the deadline" in undecided.err
    )
    taken = run(*options, "--reference", "agent")
    assert "Choose another --reference" in taken.error


def test_a_store_that_fails_when_the_key_is_made_says_so(run: Run, tmp_path: Path) -> None:
    """The store's own error would have its reader make a second key."""
    full = mock.patch.object(
        SQLAlchemyStore, "replace", side_effect=StoreUnavailableError("the disk is full")
    )
    with full:
        failed = run(*DEVNET, "--store", f"sqlite:///{tmp_path}/keys.db")
    assert failed.code == 1
    assert "error: the disk is full. The session key 0x" in failed.err
    assert "dan-async sessions recover makes it so" in failed.err


def test_a_file_that_cannot_be_written_loses_no_session_of_a_store(run: Run, tmp_path: Path) -> None:
    """The command, run again, would make a second key; what is to be run is the other one."""
    store, output = f"sqlite:///{tmp_path}/keys.db", str(tmp_path / "session.json")
    broken = mock.patch.object(Path, "replace", side_effect=OSError(errno.EIO, "Input/output error"))
    with broken:
        made = run(*DEVNET, "--store", store, "--output", output, "--force")
    assert "error: the session could not be written" in made.err
    assert "It is in the store. Remove the cause and run dan-async sessions export" in made.err
    with broken:
        exported = run("sessions", "export", "--store", store, "--output", output, "--force")
    assert "It is in the store" in exported.error


def test_an_interrupted_keygen_with_a_store_says_how_to_go_on(tmp_path: Path) -> None:
    """The nodes may have made the key; the record of it is in the store."""
    with wallet_server("hang") as (url, asked):
        process = subprocess.Popen(
            command(*DEVNET, "--wallet-rpc", url, "--store", f"sqlite:///{tmp_path}/keys.db"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asked.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "dan-async sessions recover" in err.splitlines()[-1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_keygen_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C while the wallet is open: one line, no file, and the process ends though the wallet never answers."""
    with wallet_server("hang") as (url, asked):
        process = subprocess.Popen(
            command(*DEVNET, "--wallet-rpc", url, "--output", str(tmp_path / "session.json")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert asked.wait(30)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1] == "interrupted: nothing was saved"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_terminal_gets_progress_and_standard_output_stays_clean() -> None:
    """With a terminal on standard error there is a progress line there, and still one JSON object on standard output."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(ours, 4096):
                shown.extend(chunk)
        except OSError:
            pass  # how Linux says that the other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(
        command(*DEVNET, "--json"),
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color"},
        timeout=50,
        check=False,
    )
    os.close(theirs)
    reader.join()
    os.close(ours)
    assert done.returncode == 0
    assert list(json.loads(done.stdout)) == FIELDS
    assert b"2 nodes on loopback" in shown


NOWHERE = [
    "--node",
    "ws://127.0.0.1:1/v1/rpc=0x" + "12" * 20,
    "--node",
    "ws://127.0.0.1:2/v1/rpc=0x" + "13" * 20,
]
NOWHERE += ["--threshold", "2", "--parties", "2"]

#: In the order in which they are found: an option as it should be, as it should not, and what the error names.
WRONG_OPTIONS = {
    "--force": ([], ["--force"]),
    "--node": (NOWHERE, ["--node", "nonsense"]),
    "--chain-id": (["--chain-id", "1"], []),
    "--permissions": ([], ["--permissions", "{"]),
    "--timeout": ([], ["--timeout", "0"]),
    "--output": ([], ["--output", "-"]),
    "no wallet": (["--private-key-file", "key"], []),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(WRONG_OPTIONS, 2)))
def test_of_two_wrong_options_the_earlier_is_named(
    run: Run, key_file: str, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    """In a fixed order, before anything is sent or written."""
    folder = Path(key_file).parent
    monkeypatch.chdir(folder)
    if (first, second) == ("--force", "--output"):
        second = "--timeout"  # --force is wrong only without --output
    given = [wrong if name in (first, second) else right for name, (right, wrong) in WRONG_OPTIONS.items()]
    finished = run("keygen", *itertools.chain.from_iterable(given))
    assert finished.code == 2
    assert first in finished.error
    assert [path.name for path in folder.iterdir()] == [Path(key_file).name]

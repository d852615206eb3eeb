"""``dan-async batch``: what it makes, says and refuses."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Finished, Run, command, terminal

KEYS = [f"{i:02}" * 32 for i in range(1, 6)]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DAN_ASYNC_STORE", "DAN_ASYNC_STORE_KEY", "DAN_ASYNC_STORE_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def network(nodes: list[str]) -> list[str]:
    """The options that name the network."""
    named = [part for node in nodes for part in ("--node", node)]
    return [*named, "--threshold", "2", "--parties", "3", "--chain-id", "80002"]


def wallets(*keys: str) -> str:
    Path("wallets.txt").write_text("".join(f"{key}\n" for key in keys))
    return "wallets.txt"


def report(finished: Finished) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(finished.out)
    return found


def counts(finished: Finished) -> dict[str, int]:
    return {name: report(finished)[name] for name in ("made", "kept", "settled", "failed", "unsettled")}


NOTHING = {"made": 0, "kept": 0, "settled": 0, "failed": 0, "unsettled": 0}


def test_a_batch_makes_a_key_for_each_row(run: Run, network: list[str]) -> None:
    """And a second one finds them all in the store."""
    options = ("batch", wallets(*KEYS), "--out", "sqlite:///keys.db", *network, "--json")
    first = run(*options)
    assert first.code == 0, first.err
    assert counts(first) == NOTHING | {"made": 5}
    second = run(*options)
    assert counts(second) == NOTHING | {"kept": 5}
    listed = json.loads(run("sessions", "list", "--store", "sqlite:///keys.db", "--json").out)
    assert len({entry["owner"] for entry in listed["sessions"]}) == 5


def test_the_store_and_its_key_are_for_their_owner_alone(run: Run, network: list[str]) -> None:
    """Without any key option a key file is made beside the store, and that is said."""
    finished = run("batch", wallets(KEYS[0]), "--out", "sqlite:///keys.db", *network, "--json")
    assert "keys.db.key" in finished.err
    for name in ("keys.db", "keys.db.key"):
        assert Path(name).stat().st_mode & 0o777 == 0o600
    for secret in KEYS[:1]:
        assert secret not in finished.err + finished.out


def test_failures_are_reported_and_the_rest_is_made(run: Run, network: list[str]) -> None:
    """Exit code 1, with the row and the reason; --retry-failed tries what may be tried again."""
    Path("rows.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {"id": "good", "privateKey": KEYS[0]},
                {"id": "bad", "privateKey": KEYS[1], "chainId": 2**60},
                {"id": "worse", "privateKey": "zz"},
            )
        )
    )
    options = ("batch", "rows.jsonl", "--out", "sqlite:///keys.db", *network, "--json")
    finished = run(*options)
    assert finished.code == 1
    assert counts(finished) == NOTHING | {"made": 1, "failed": 2}
    failures = {failure["row"]: failure for failure in report(finished)["failures"]}
    assert failures[2]["id"] == "bad"
    assert "chainId" in failures[2]["problem"]
    assert failures[3]["error"] == "InvalidRow"
    Path("rows.jsonl").write_text(Path("rows.jsonl").read_text().replace(str(2**60), "5"))
    assert counts(run(*options, "--retry-failed")) == NOTHING | {"made": 1, "kept": 1, "failed": 1}


def test_a_dry_run_sends_and_makes_nothing(run: Run) -> None:
    """Not even a store; the nodes need not be there."""
    nowhere = [
        "--node",
        "ws://127.0.0.1:1/v1/rpc=0x" + "12" * 20,
        "--node",
        "ws://127.0.0.1:2/v1/rpc=0x" + "13" * 20,
    ]
    more = ["--threshold", "2", "--parties", "2", "--chain-id", "1"]
    name = wallets(*KEYS, "nonsense")
    finished = run("batch", name, "--out", "sqlite:///keys.db", "--dry-run", "--json", *nowhere, *more)
    assert counts(finished) == NOTHING | {"failed": 1}
    assert report(finished)["toMake"] == 5
    assert report(finished)["dryRun"] is True
    assert sorted(path.name for path in Path().iterdir()) == ["wallets.txt"]


def test_limit_and_csv_and_a_common_wallet(
    run: Run, network: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first rows; those without a key of their own use the wallet that is named for all."""
    monkeypatch.setenv("DAN_ASYNC_PRIVATE_KEY", KEYS[0])
    Path("rows.csv").write_text("id,duration\n1,60\n2,\n3,\n")
    finished = run("batch", "rows.csv", "--out", "sqlite:///keys.db", "--limit", "2", *network, "--json")
    assert counts(finished) == NOTHING | {"made": 2}
    dry = run("batch", "rows.csv", "--out", "sqlite:///keys.db", "--dry-run", "--json", *network)
    assert counts(dry) == NOTHING | {"kept": 2}
    assert report(dry)["toMake"] == 1


def test_rows_without_a_wallet_fail(run: Run, network: list[str]) -> None:
    """Nobody could authorise them."""
    Path("rows.csv").write_text("id\n1\n")
    finished = run("batch", "rows.csv", "--out", "sqlite:///keys.db", *network, "--json")
    assert "no wallet is named" in report(finished)["failures"][0]["problem"]


def test_a_devnet_of_its_own(run: Run) -> None:
    """For trying it out: nodes and wallet are thrown away."""
    Path("rows.jsonl").write_text('{"id":1}\n{"id":2}\n')
    finished = run("batch", "rows.jsonl", "--out", "sqlite:///keys.db", "--devnet", "2-of-3", "--json")
    assert finished.code == 0, finished.err
    assert "the keys in the store can sign nothing after it" in finished.err
    assert "Rows without a wallet belong to a throwaway owner" in finished.err
    assert counts(finished) == NOTHING | {"made": 2}


def test_from_standard_input(network: list[str], tmp_path: Path) -> None:
    """With its format; progress goes to standard error, and the report alone to standard output."""
    done = subprocess.run(
        command("batch", "-", "--format", "wallets", "--out", "sqlite:///keys.db", *network, "--json"),
        input="\n".join(KEYS[:2]),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["made"] == 2
    assert "2 rows, 0 failed" in done.stderr


REFUSED = {
    "missing": (None, ["nothing.txt"], "cannot be read"),
    "not text": ('{"id":"é"}\n'.encode("latin-1"), ["rows.jsonl"], "not UTF-8"),
    "a column that is none": (
        b"id,privateKye\n1,2\n",
        ["rows.csv"],
        "no row has: privateKye. Columns: id, privateKey",
    ),
    "no columns": (b"01,02\n", ["rows.csv"], "does not name the columns"),
    "a secret for a column": (b"id," + b"ab" * 32 + b"\n", ["rows.csv"], "no row has: one of them"),
    "no folder for the store": (
        b"{}\n",
        ["rows.jsonl", "--out", "sqlite:///no/k.db"],
        "--out: there is no folder no",
    ),
    "no chain": (KEYS[0].encode(), ["rows.txt"], "--chain-id is needed for a list of wallets"),
}


@pytest.mark.parametrize(("content", "args", "said"), REFUSED.values(), ids=REFUSED)
def test_a_refused_input_leaves_nothing_behind(
    run: Run, network: list[str], content: bytes | None, args: list[str], said: str
) -> None:
    """Neither a store nor a key for it; what is wrong is named."""
    if content is not None:
        Path(args[0]).write_bytes(content)
    chain = 2 if args[0].endswith(".txt") and content else 0  # without --chain-id
    options = network[: len(network) - chain]
    finished = run("batch", "--out", "sqlite:///keys.db", *args, *options)
    assert (finished.code, finished.out) == (2, "")
    assert said in finished.err
    assert "ab" * 32 not in finished.err
    assert [path.name for path in Path().iterdir()] == ([] if content is None else [args[0]])


def test_the_summary_is_for_people(run: Run, network: list[str]) -> None:
    """A line of counts, and one for each failure, in the order of the rows and in the rows' own words."""
    rows = [
        {"id": "good", "privateKey": KEYS[0]},
        {"id": "[red]:smile:", "chainId": "x"},
        {"privateKey": "zz"},
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("batch", "rows.jsonl", "--out", "sqlite:///keys.db", *network)
    planned = run(*options, "--dry-run")
    assert planned.out.splitlines()[0] == "3 rows: 1 to be made, 2 failed"
    finished = run(*options)
    assert finished.code == 1
    assert finished.out.splitlines() == [
        "3 rows: 1 made, 2 failed",
        "  row 2 (id [red]:smile:): chainId must be a whole number",
        "  row 3: privateKey must be 64 hex digits",
    ]


def test_an_empty_input_makes_no_store(run: Run, network: list[str]) -> None:
    """There is nothing to keep in it."""
    finished = run("batch", wallets(), "--out", "sqlite:///keys.db", *network)
    assert (finished.code, finished.out) == (0, "0 rows: 0 made\n")
    assert not Path("keys.db").exists()
    assert not Path("keys.db.key").exists()


def test_a_bar_on_a_terminal(network: list[str], tmp_path: Path) -> None:
    """Standard error is a terminal: how many of how many, and how fast."""
    (tmp_path / "wallets.txt").write_text(KEYS[0])
    done = terminal("batch", "wallets.txt", "--out", "sqlite:///keys.db", *network, cwd=tmp_path)
    assert done.code == 0
    assert "1/1" in done.out
    assert "0 failed" in done.out
    assert done.out.splitlines()[-1] == "1 row: 1 made"


def test_ctrl_c_stops_it_and_says_how_to_go_on(network: list[str], tmp_path: Path) -> None:
    """The report says that it was interrupted, the exit code is 130, and what was made is kept."""
    process = subprocess.Popen(
        command("batch", "-", "--format", "wallets", "--out", "sqlite:///keys.db", *network, "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONFAULTHANDLER": "1"},
    )
    assert process.stdin is not None
    process.stdin.write(KEYS[0] + "\n")
    process.stdin.flush()
    end = time.monotonic() + 40
    while not (tmp_path / "keys.db").exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # then it says where it hangs
        pytest.fail(process.communicate()[1])
    assert process.returncode == 130
    assert json.loads(out)["interrupted"] is True
    assert err.splitlines()[-1] == "interrupted: run the same command again to go on"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nothing.txt", "--out", "sqlite:///k.db"], "cannot be read"),
        (["rows.dat", "--out", "sqlite:///k.db"], "--format"),
        (["-", "--out", "sqlite:///k.db"], "--format is needed"),
        (["wallets.txt", "--format", "xml", "--out", "sqlite:///k.db"], "--format"),
        (["wallets.txt", "--out", "mysql://x/y"], "--out"),
        (["wallets.txt", "--out", "postgresql://me@127.0.0.1:1/x"], "no key for the store"),
        (["wallets.txt", "--out", "sqlite:///k.db", "--store-key-file", "none"], "none"),
        (["wallets.txt", "--out", "sqlite:///k.db", "--rate", "0"], "rate"),
        (["wallets.txt", "--out", "sqlite:///k.db", "--timeout", "0"], "--timeout"),
        (["wallets.txt", "--out", "sqlite:///k.db", "--concurrency", "0"], "--concurrency"),
    ],
)
def test_wrong_input_is_refused(run: Run, network: list[str], options: list[str], said: str) -> None:
    """Exit code 2 and what is wrong."""
    wallets(KEYS[0])
    finished = run("batch", *options, *network)
    assert finished.code == 2
    assert said in finished.err


def test_another_key_is_refused(run: Run, network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that was made under another key is not written to."""
    options = ("batch", wallets(KEYS[0]), "--out", "sqlite:///keys.db", *network, "--json")
    assert run(*options).code == 0
    monkeypatch.setenv("DAN_ASYNC_STORE_KEY", "77" * 32)
    finished = run(*options)
    assert finished.code == 1
    assert "key" in finished.err


NOWHERE = [
    "--node",
    "ws://127.0.0.1:1/v1/rpc=0x" + "12" * 20,
    "--node",
    "ws://127.0.0.1:2/v1/rpc=0x" + "13" * 20,
]
NOWHERE += ["--threshold", "2", "--parties", "2"]

#: In the order in which they are found: an option as it should be, as it should not, and what the error names.
WRONG_OPTIONS = {
    "--node": (NOWHERE, ["--node", "nonsense"]),
    "--out": (["--out", "sqlite:///keys.db"], ["--out", "keys.db"]),
    "--private-key-file": ([], ["--private-key-file", "missing"]),
    "--permissions": ([], ["--permissions", "{"]),
    "--format": ([], ["--format", "xml"]),
    "--timeout": ([], ["--timeout", "0"]),
    "the input": (["wallets.txt"], ["missing.txt"]),
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(WRONG_OPTIONS, 2)))
def test_of_two_wrong_options_the_earlier_is_named(run: Run, first: str, second: str) -> None:
    """In a fixed order, before anything is sent."""
    wallets(KEYS[0])
    given = [wrong if name in (first, second) else right for name, (right, wrong) in WRONG_OPTIONS.items()]
    finished = run("batch", *itertools.chain.from_iterable(given))
    assert finished.code == 2
    assert [line for line in finished.err.splitlines() if line.startswith("error: ") and first in line]

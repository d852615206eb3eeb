"""``dan-async sessions``: what is shown, what is hidden, what is changed."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import sys
import time
from pathlib import Path
from select import select

import pytest

from dan_async.cli.__main__ import main
from dan_async.cli.session_file import write_new
from dan_async.devnet import Devnet
from dan_async.session import DanModuleInfo
from dan_async.storage import FixedKeys, StoredSession, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.cli.conftest import Run, terminal
from tests.helpers import Do
from tests.stored import ADA, BOB, active, pending

KEY = StoreKey("k", b"\x07" * 32)
NOW = time.time()
LATER = int(NOW) + 3600
STORE = ("--store", "sqlite:///keys.db")


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[StoredSession]:
    """A store with three sessions and something pending, in the working directory; its key is in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAN_ASYNC_STORE_KEY", KEY.to_text())
    monkeypatch.delenv("DAN_ASYNC_STORE", raising=False)
    given = [
        active(at=NOW, reference="first", expires_at=LATER),
        active(at=NOW + 1, reference="Zoë", eoa_address=BOB, chain_id=137, expires_at=LATER),
        active(at=NOW + 2, expires_at=int(NOW) - 100),
        pending(at=NOW + 3, expires_at=LATER),
    ]

    async def fill() -> None:
        async with SQLAlchemyStore("sqlite:///keys.db", FixedKeys([KEY])) as store:
            for record in given:
                await store.save(record)

    asyncio.run(fill())
    return given


def test_a_list_has_a_line_for_each(run: Run, records: list[StoredSession]) -> None:
    """With a header, oldest first, and no secret."""
    finished = run("sessions", "list", *STORE)
    assert finished.code == 0
    header, *lines = finished.out.splitlines()
    assert header.split()[0] == "State"
    for line, record in zip(lines, records, strict=True):
        assert line.startswith(record.state)
        assert record.record_id in line
    for record in records[:3]:
        assert record.session.hex_eph_sk_without_0x not in finished.out + finished.err


@pytest.mark.usefixtures("records")
def test_what_a_terminal_has_no_characters_for_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PYTHONIOENCODING=ascii, or an old locale."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["sessions", "show", "Zoë", *STORE]) == 0
    stream.seek(0)
    assert "reference                  Zo\\xeb\n" in stream.read()


@pytest.mark.parametrize(
    ("options", "places"),
    [
        (["--owner", BOB], [1]),
        (["--chain-id", "80002"], [0, 2, 3]),
        (["--state", "pending"], [3]),
        (["--state", "pending", "--state", "active"], [0, 1, 2, 3]),
        (["--owner", ADA.lower(), "--state", "active"], [0, 2]),
    ],
)
def test_a_list_can_be_narrowed_down(
    run: Run, records: list[StoredSession], options: list[str], places: list[int]
) -> None:
    """By owner, chain and state."""
    listed = json.loads(run("sessions", "list", *STORE, "--json", *options).out)
    assert [entry["id"] for entry in listed["sessions"]] == [records[i].record_id for i in places]


def test_a_list_goes_on_where_it_ended(run: Run, records: list[StoredSession]) -> None:
    """A page at a time."""
    seen, after = [], []
    while True:
        listed = json.loads(run("sessions", "list", *STORE, "--json", "--limit", "3", *after).out)
        seen += [entry["id"] for entry in listed["sessions"]]
        if listed["next"] is None:
            break
        after = ["--after", listed["next"]]
    assert seen == [record.record_id for record in records]


@pytest.mark.parametrize("name", ["id", "reference"])
def test_one_is_shown_by_id_or_reference(run: Run, records: list[StoredSession], name: str) -> None:
    """Its secret only with --reveal, in a table and in JSON."""
    record = records[0]
    secret = record.session.hex_eph_sk_without_0x
    wanted = record.record_id if name == "id" else "first"
    for form in ([], ["--json"]):
        hidden = run("sessions", "show", wanted, *STORE, *form)
        assert record.session.session_key_eoa in hidden.out
        assert secret not in hidden.out
        assert secret in run("sessions", "show", wanted, *STORE, *form, "--reveal").out


def test_the_secret_of_something_pending_is_never_shown(run: Run, records: list[StoredSession]) -> None:
    """It is good for nothing yet."""
    finished = run("sessions", "show", records[3].record_id, *STORE, "--json", "--reveal")
    assert json.loads(finished.out)["state"] == "pending"
    assert records[3].intent.hex_eph_sk not in finished.out


def test_an_export_is_what_sign_message_takes(run: Run, records: list[StoredSession]) -> None:
    """One JSON object a line, masked unless --reveal; of active sessions, unless another state is named."""
    masked = run("sessions", "export", *STORE)
    assert [json.loads(line)["hexEphSKWithout0x"] for line in masked.out.splitlines()] == ["***"] * 3
    revealed = run("sessions", "export", *STORE, "--reveal", "--chain-id", "137")
    assert DanModuleInfo.from_dict(json.loads(revealed.out)).eoa_address == BOB
    assert run("sessions", "export", *STORE, "--state", "revoked").out == ""


def test_an_export_to_a_file_is_for_its_owner_alone(run: Run, records: list[StoredSession]) -> None:
    """And replaces nothing unasked."""
    finished = run("sessions", "export", *STORE, "--reveal", "--output", "out.jsonl")
    assert finished.out == ""
    assert len(Path("out.jsonl").read_text().splitlines()) == 3
    assert Path("out.jsonl").stat().st_mode & 0o777 == 0o600
    assert run("sessions", "export", *STORE, "--output", "out.jsonl").code == 2


def test_purging_forgets_what_has_ended(run: Run, records: list[StoredSession]) -> None:
    """Or only marks it."""
    assert json.loads(run("sessions", "purge", *STORE, "--mark-only", "--json").out) == {"marked": 1}
    assert json.loads(run("sessions", "purge", *STORE, "--ended-for", "5000", "--json").out) == {"purged": 0}
    assert run("sessions", "purge", *STORE).out == "1 purged\n"
    listed = json.loads(run("sessions", "list", *STORE, "--json").out)
    assert len(listed["sessions"]) == 3


def test_revoking_asks_the_owner_and_the_nodes(
    run: Run, nodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is revoked when the nodes have confirmed; it can be said again."""
    monkeypatch.chdir(tmp_path)
    named = [part for node in nodes for part in ("--node", node)]
    Path("rows.jsonl").write_text('{"id": "agent 7"}\n')
    monkeypatch.setenv("DAN_ASYNC_PRIVATE_KEY", "11" * 32)
    made = run(
        *("batch", "rows.jsonl", "--out", "sqlite:///keys.db", "--threshold", "2", "--parties", "3"),
        *("--chain-id", "1", *named),
    )
    assert made.code == 0, made.err
    finished = run("sessions", "revoke", "batch:id:agent 7", *STORE, *named, "--json")
    assert finished.code == 0, finished.err
    assert json.loads(finished.out)["state"] == "revoked"
    again = run("sessions", "revoke", "batch:id:agent 7", *STORE, *named)
    assert (again.code, again.out.split()[1:]) == (0, ["revoked"])


def test_a_revocation_that_a_node_missed_says_so_and_can_be_repeated(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devnet_in_a_thread: tuple[Devnet, Do]
) -> None:
    """In text, in JSON and by the exit code, until every node has confirmed."""
    net, do = devnet_in_a_thread
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAN_ASYNC_PRIVATE_KEY", "11" * 32)
    named = [part for one in net.endpoints for part in ("--node", f"{one.url}={one.operator}")]
    made = run("keygen", *named, "--chain-id", "1", *STORE, "--reference", "agent")
    assert made.code == 0, made.err
    revoke = ("sessions", "revoke", "agent", *STORE, *named, "--timeout", "5")
    do(net.nodes[2].stop())
    partly = run(*revoke)
    assert (partly.code, partly.out.split()[1:]) == (1, ["revoked"])
    assert "not confirmed by every node" in partly.err
    assert net.nodes[2].operator in partly.err
    again = run(*revoke, "--json")
    assert again.code == 1
    assert json.loads(again.out)["isComplete"] is False
    assert net.nodes[2].operator in json.loads(again.out)["problem"]
    do(net.nodes[2].start())
    whole = run(*revoke, "--json")
    assert (whole.code, json.loads(whole.out)["isComplete"], json.loads(whole.out)["problem"]) == (
        0,
        True,
        "",
    )


def test_a_session_from_its_making_to_its_end(
    run: Run, nodes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made into a store, signed with by its name, rotated, and moved to another store, with id, reference and state."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAN_ASYNC_PRIVATE_KEY", "11" * 32)
    named = [part for node in nodes for part in ("--node", node)]
    made = run("keygen", *named, "--chain-id", "1", *STORE, "--reference", "agent", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["hexEphSKWithout0x"] == "***"
    assert "agent" in made.err
    again = run("keygen", *named, "--chain-id", "1", *STORE, "--reference", "agent")
    assert again.code == 1
    assert "Choose another --reference" in again.error
    sign = ("sign", "--session", "agent", *named, "--message", "hello")
    assert len(run(*sign, *STORE).out.strip()) == 132
    monkeypatch.setenv("DAN_ASYNC_STORE", "sqlite:///keys.db")
    assert len(run(*sign).out.strip()) == 132

    rotated = json.loads(run("sessions", "rotate", "agent", *named, "--duration", "7200", "--json").out)
    assert (rotated["reference"], rotated["state"]) == ("agent", "active")
    assert rotated["session"]["sessionKeyEOA"] == json.loads(made.out)["sessionKeyEOA"]
    old = run("sessions", "revoke", rotated["oldId"], *named)
    assert old.code == 0, old.err
    assert len(run(*sign).out.strip()) == 132
    refused = run("sign", "--session", rotated["oldId"], *named, "--message", "hello")
    assert "is revoked, not active. dan-async keygen makes a new one" in refused.error

    Path("moved.json").write_text(run("sessions", "list", "--json", "--reveal").out)
    other = ("--store", "sqlite:///other.db")
    moved = run("sessions", "import", "moved.json", *other)
    assert moved.code == 0, moved.err
    assert set(moved.out.split()) == {rotated["id"], rotated["oldId"]}
    shown = json.loads(run("sessions", "show", "agent", *other, "--json").out)
    assert (shown["id"], shown["state"]) == (rotated["id"], "active")
    assert json.loads(run("sessions", "show", rotated["oldId"], *other, "--json").out)["state"] == "revoked"
    again = run("sessions", "import", "moved.json", *other, "--json")
    assert json.loads(again.out)["imported"] == []
    assert len(run(*sign, *other).out.strip()) == 132


@pytest.mark.parametrize(
    "form", [("export", "first"), ("show", "first", "--json"), ("export",), ("list", "--json")]
)
def test_whatever_shows_sessions_is_imported(
    run: Run, records: list[StoredSession], form: tuple[str, ...]
) -> None:
    """With --reveal; masked, it is refused, and no store is made."""
    other = ("--store", "sqlite:///other.db")
    name, *options = form
    only = () if "first" in form else ("--state", "active", "--chain-id", "137")
    Path("shown.json").write_text(run("sessions", name, *options, *STORE, *only).out)
    refused = run("sessions", "import", "shown.json", *other)
    assert "the ephemeral private key is masked. --reveal" in refused.error
    assert not Path("other.db").exists()
    Path("shown.json").write_text(run("sessions", name, *options, *STORE, *only, "--reveal").out)
    imported = run("sessions", "import", "shown.json", *other)
    assert imported.code == 0, imported.err
    wanted = run("sessions", "export", *(["first"] if "first" in form else only), *STORE, "--reveal")
    assert run("sessions", "export", *other, "--reveal").out == wanted.out


def test_records_without_a_session_are_not_imported(run: Run, records: list[StoredSession]) -> None:
    """Of a list of everything, the sessions are."""
    Path("all.json").write_text(run("sessions", "list", *STORE, "--json", "--reveal").out)
    imported = run("sessions", "import", "all.json", "--store", "sqlite:///other.db", "--json")
    assert json.loads(imported.out)["imported"] == [record.record_id for record in records[:3]]


def test_a_session_without_an_end_is_imported_with_one(run: Run, records: list[StoredSession]) -> None:
    """As TypeScript clients keep them: seven fields."""
    Path("seed.json").write_text(json.dumps(records[0].session.to_dict()))
    into = ("sessions", "import", "seed.json", *STORE, "--reference", "seed")
    assert "--expires-at TIME" in run(*into).error
    assert run(*into, "--expires-at", str(LATER)).code == 0
    assert json.loads(run("sessions", "show", "seed", *STORE, "--json").out)["expiresAt"] == LATER


def test_pending_records_are_settled(run: Run, records: list[StoredSession], nodes: list[str]) -> None:
    """The nodes know nothing of it: no key was made, and the record goes."""
    named = [part for node in nodes for part in ("--node", node)]
    finished = run("sessions", "recover", records[3].record_id, *STORE, *named)
    assert (finished.code, finished.out.split()[:2]) == (0, [records[3].record_id, "dropped"])
    again = run("sessions", "recover", *STORE, *named, "--json")
    assert json.loads(again.out) == {"settled": []}


def test_what_cannot_be_settled_is_exit_code_1(run: Run, records: list[StoredSession]) -> None:
    """No node answers: the record stays pending."""
    named = [part for place in (1, 2) for part in ("--node", f"ws://127.0.0.1:{place}/v1/rpc=0x{place:040}")]
    finished = run("sessions", "recover", *STORE, *named, "--timeout", "3", "--json")
    assert finished.code == 1
    (settled,) = json.loads(finished.out)["settled"]
    assert (settled["id"], settled["settlement"]) == (records[3].record_id, "undecided")


@pytest.mark.long
def test_ctrl_c_leaves_the_store_as_it_is(records: list[StoredSession], tmp_path: Path) -> None:
    """Here the nodes take connections, and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}/v1/rpc"
        named = [part for place in (1, 2) for part in ("--node", f"{url}=0x{place:040}")]
        key = {"DAN_ASYNC_STORE_KEY": KEY.to_text()}
        stopped = terminal(
            "sessions",
            "recover",
            *STORE,
            *named,
            cwd=tmp_path,
            stop_when=lambda _: select([silent], [], [], 0)[0],
            **key,
        )
    assert stopped.code == 130
    assert stopped.out.splitlines()[-1].startswith("interrupted: some nodes may have carried it out")
    shown = terminal("sessions", "show", records[3].record_id, *STORE, "--json", cwd=tmp_path, **key)
    assert json.loads(shown.out)["state"] == "pending"


@pytest.mark.parametrize("columns", [80, 250])
def test_on_a_terminal_nothing_is_cut(records: list[StoredSession], tmp_path: Path, columns: int) -> None:
    """Whatever its width, each value stands on one line, as it is: no emoji, no colours of its own."""
    Path("one.json").write_text(json.dumps(records[0].session.to_dict(extended=True)))
    key = {"DAN_ASYNC_STORE_KEY": KEY.to_text()}
    name = "batch:id:1 [red]x :smile:"
    made = terminal("sessions", "import", "one.json", *STORE, "--reference", name, cwd=tmp_path, **key)
    assert made.code == 0, made.out
    shown = terminal("sessions", "list", *STORE, columns=columns, cwd=tmp_path, **key)
    assert shown.code == 0, shown.out
    lines = shown.out.splitlines()
    assert any(name in line for line in lines)
    for record in records:
        assert any(record.record_id in line for line in lines)
        assert any(record.session is None or record.session.session_key_eoa in line for line in lines)
    assert max(map(len, lines)) <= columns


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no command is named"),
        (["list"], "--store"),
        (["list", "--store", "sqlite:///none.db"], "there is no store"),
        (["list", *STORE, "--owner", "me"], "--owner"),
        (["list", *STORE, "--state", "lost"], "--state"),
        (["list", *STORE, "--after", "x"], "after"),
        (["show", "nothing", *STORE], "no record of that id or reference"),
        (["revoke", "x", *STORE, "--devnet", "2-of-3"], "--devnet"),
        (
            ["revoke", "x", *STORE, "--gateway", "wss://g.example/v1", "--api-version", "v3"],
            "--api-version must",
        ),
    ],
)
def test_wrong_input_is_refused(
    run: Run, records: list[StoredSession], options: list[str], said: str
) -> None:
    """Exit code 2, and no store is made."""
    finished = run("sessions", *options)
    assert finished.code == 2
    assert said in finished.err
    assert not Path("none.db").exists()


def test_a_store_without_its_key_is_refused(
    run: Run, records: list[StoredSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key is made for a store that has one already; a wrong one is a clear error."""
    monkeypatch.delenv("DAN_ASYNC_STORE_KEY")
    finished = run("sessions", "list", *STORE)
    assert finished.code == 2
    assert "no key" in finished.err
    monkeypatch.setenv("DAN_ASYNC_STORE_PASSPHRASE", "short")
    assert (
        "DAN_ASYNC_STORE_PASSPHRASE must have at least 8 characters" in run("sessions", "list", *STORE).error
    )
    monkeypatch.setenv("DAN_ASYNC_STORE_PASSPHRASE", "correct horse")
    assert "key" in run("sessions", "list", *STORE).err


def test_a_key_that_another_program_made_meanwhile_is_the_stores(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began to use one new store at once."""
    monkeypatch.delenv("DAN_ASYNC_STORE_KEY", raising=False)
    (tmp_path / "none.json").write_text("")

    def write_first(path: Path, text: str, *, what: str) -> None:
        write_new(path, KEY.to_text(), what=what)
        write_new(path, text, what=what)

    monkeypatch.setattr("dan_async.cli.options.write_new", write_first)
    finished = run(
        "sessions", "import", str(tmp_path / "none.json"), "--store", f"sqlite:///{tmp_path}/new.db"
    )
    assert (finished.code, finished.err) == (0, "0 imported, 0 in the store already\n"), finished
    assert (tmp_path / "new.db.key").read_text() == KEY.to_text()

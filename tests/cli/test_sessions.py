"""``dan-async sessions``: what is shown, what is hidden, what is changed."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from dan_async.session import DanModuleInfo
from dan_async.storage import FixedKeys, StoredSession, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from tests.cli.conftest import Run
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
        active(at=NOW + 1, eoa_address=BOB, chain_id=137, expires_at=LATER),
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
    monkeypatch.setenv("DAN_ASYNC_STORE_PASSPHRASE", "correct horse")
    assert "key" in run("sessions", "list", *STORE).err

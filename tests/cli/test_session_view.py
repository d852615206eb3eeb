"""How a session is shown to a person."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from dan_async import DanSessionKeyPayload
from dan_async.cli.session_file import as_table, masked

SECRET = "ab" * 32


def session(**changes: Any) -> DanSessionKeyPayload:
    values: dict[str, Any] = {
        "session_key_eoa": "0x0000000000000000000000000000000000000001",
        "mpc_key_id": "c" * 64,
        "hex_eph_sk_without_0x": SECRET,
        "parties_number": 5,
        "threshold": 3,
        "eoa_address": "0x0000000000000000000000000000000000000002",
        "chain_id": 80002,
    }
    return DanSessionKeyPayload(**(values | changes))


def test_masked_keeps_the_order_and_hides_the_secret() -> None:
    """The same object, one value replaced."""
    fields = session().to_dict()
    assert list(masked(fields)) == list(fields)
    assert SECRET not in str(masked(fields))


def test_long_values_stay_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A narrow terminal does not cut a value that is to be copied."""
    monkeypatch.setenv("COLUMNS", "40")
    as_table(session(), reveal=True, kept=False)
    out = capsys.readouterr().out
    assert SECRET in out
    assert "c" * 64 in out
    assert len(out.splitlines()) == 6


def test_the_end_is_shown_if_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    """In UTC, to the second."""
    as_table(session(expires_at=1_700_000_000), reveal=False, kept=True)
    assert capsys.readouterr().out.splitlines()[-1].endswith("2023-11-14 22:13:20 UTC")


@pytest.mark.parametrize(
    ("reveal", "kept", "said"), [(False, False, True), (True, False, False), (False, True, False)]
)
def test_a_secret_that_is_lost_is_pointed_out(
    reveal: bool, kept: bool, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masked and not written anywhere, the session is useless: a note says how to keep it."""
    as_table(session(), reveal=reveal, kept=kept)
    assert ("--output" in capsys.readouterr().err) is said


def test_no_colours_when_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gets plain text."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    as_table(session(), reveal=False, kept=True)
    assert "\x1b" not in stream.getvalue()

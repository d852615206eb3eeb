"""What reaches the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from dan_async.cli.screen import clean, mask_keys, note, progress, result

KEY = "ab" * 32


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;title\x07", "a\rb", "a\x00b", "a\u202eb"])
def test_control_characters_do_not_reach_the_terminal(text: str) -> None:
    """A node's message can neither clear the screen nor hide what is before it."""
    assert clean(text).isprintable()


def test_lines_stay_lines() -> None:
    """A quorum error has a line for each node."""
    assert clean("a\nb é") == "a\nb é"


@pytest.mark.parametrize("key", [KEY, f"0x{KEY}", f"0X{KEY.upper()}", KEY + KEY])
def test_what_looks_like_a_key_is_masked(key: str) -> None:
    """Wherever it stands in the text."""
    masked = mask_keys(f"cannot read {key}: no such file")
    assert masked == "cannot read ***: no such file"


def test_addresses_are_not_masked() -> None:
    """An address is no secret and is needed in messages."""
    assert mask_keys("0x" + "ab" * 20) == "0x" + "ab" * 20


def test_note_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays free for the result."""
    note("for people\x1b")
    result("for programs")
    out, err = capsys.readouterr()
    assert (out, err) == ("for programs\n", "for people?\n")


def test_no_progress_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    """A log file gets no spinner."""
    with progress("waiting") as show:
        show("still waiting")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A person sees what is being waited for, on standard error."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with progress("waiting") as show:
        show("still waiting")
    assert "waiting" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_no_progress_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot move its cursor gets no spinner."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with progress("waiting"):
        pass
    assert terminal.getvalue() == ""

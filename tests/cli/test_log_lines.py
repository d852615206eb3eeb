"""Log records on the screen."""

from __future__ import annotations

import logging

import pytest

from dan_async.cli.screen import log_lines, silence_libraries

OURS = logging.getLogger("dan_async.nodes")


def test_warnings_become_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a record, on standard error, without its traceback; what is less than a warning stays away."""
    with log_lines(held_back=False):
        try:
            raise ValueError("inner")
        except ValueError:
            OURS.warning("node %s:\nslow\x1b", 1, exc_info=True)
        OURS.info("nothing")
    assert capsys.readouterr() == ("", "warning: node 1: slow?\n")


def test_held_back_warnings_are_shown_on_demand_only(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that follows says it better; a success lets them out."""
    with log_lines(held_back=True) as lines:
        OURS.warning("one node lied")
        assert capsys.readouterr().err == ""
        lines.show()
    assert capsys.readouterr().err == "warning: one node lied\n"


def test_nothing_is_listened_to_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    """The handlers go with the context, so that a host program's logging is its own."""
    before = (list(logging.getLogger().handlers), list(logging.getLogger("dan_async").handlers))
    with silence_libraries(), log_lines(held_back=False):
        pass
    assert (logging.getLogger().handlers, logging.getLogger("dan_async").handlers) == before
    assert capsys.readouterr().err == ""

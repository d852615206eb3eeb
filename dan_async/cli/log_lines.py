"""What the package's logger says, as single lines on standard error; never a traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from dan_async.cli.screen import note

__all__ = ["LogLines", "log_lines", "silence_libraries"]


class LogLines(logging.Handler):
    """
    Shows warnings, or holds them back until it is known whether they add anything.

    Args:
        held_back: Whether to wait for ``show()``.
    """

    def __init__(self, *, held_back: bool) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] | None = [] if held_back else None

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record; its traceback, if it carries one, is left out."""
        line = " ".join(f"{record.levelname.lower()}: {record.getMessage()}".split())
        if self._lines is None:
            note(line)
        else:
            self._lines.append(line)

    def show(self) -> None:
        """Show what was held back."""
        for line in self._lines or ():
            note(line)


@contextmanager
def log_lines(*, held_back: bool) -> Iterator[LogLines]:
    """
    Listen to the package's warnings while the body runs.

    Args:
        held_back: Whether they are shown only by ``show()``: an error that follows says the same, and better.
    """
    logger, handler = logging.getLogger("dan_async"), LogLines(held_back=held_back)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Keep asyncio's and other libraries' complaints, which come with tracebacks, off the screen while the body runs."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)

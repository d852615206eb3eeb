"""Standard output carries the result and nothing else; everything else goes to standard error, cleaned."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from dan_async.errors import DanError

__all__ = ["Progress", "clean", "mask_keys", "note", "progress", "result"]

#: 32 bytes in hex or more: what a private key looks like when it was put in the wrong place.
_LIKE_A_KEY = re.compile(r"(?:0[xX])?[0-9a-fA-F]{64,}")


def clean(text: str) -> str:
    """Replace what a terminal might obey: the text may come from a node, and nodes are not trusted."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def mask_keys(text: str) -> str:
    """Hide everything that looks like a private key, for texts that repeat what the user typed."""
    return _LIKE_A_KEY.sub("***", text)


def note(text: str) -> None:
    """Write a line for the person to standard error."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def result(text: str) -> None:
    """
    Write a line of the result to standard output.

    Raises:
        DanError: Nobody reads it any more, or the disk is full.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        _give_up_stdout()
        raise DanError(
            f"the result could not be written to standard output: {error.strerror}",
            hint="It is lost. Remove the cause and run the command again",
        ) from error


def _give_up_stdout() -> None:
    """Let what is still buffered go nowhere: Python would try once more when it shuts down, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)


class Progress:
    """
    Says what is being waited for.

    Args:
        status: The line on the terminal, or None to say nothing.
    """

    def __init__(self, status: Status | None = None) -> None:
        self._status = status

    def step(self, text: str) -> None:
        """Replace what the line says."""
        if self._status is not None:
            self._status.update(text)


@contextmanager
def progress(text: str) -> Iterator[Progress]:
    """
    Show a spinner with a text on standard error while the body runs; nothing at all when that is not a terminal.

    Args:
        text: What is being waited for at first.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Progress()
        return
    with console.status(text) as status:
        yield Progress(status)

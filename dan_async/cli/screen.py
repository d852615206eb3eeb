"""
Standard output carries the result and nothing else; everything else goes to standard error, cleaned.

What the command's exit codes mean, and which error gives which.

What the package's logger says, as single lines on standard error; never a traceback.

Running a coroutine until it ends or a signal asks it to stop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.status import Status

from dan_async.errors import ConfigurationError, DanError

DONE = 0

#: The network, a node or the wallet did not do its part, or the result could not be written.
FAILED = 1

#: The input is wrong; nothing was sent.
WRONG_INPUT = 2

#: Ctrl-C, as shells number it: 128 + SIGINT.
INTERRUPTED = 130

#: 128 + SIGTERM.
TERMINATED = 143


class ReportedCode(int):
    """An exit code whose command has said itself what happened."""


def exit_code_for(error: DanError) -> int:
    """Give the exit code for an error of ours."""
    if isinstance(error, ConfigurationError):
        return WRONG_INPUT
    return FAILED


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


def run_until_signal(job: Coroutine[Any, Any, None]) -> signal.Signals | None:
    """
    Run a coroutine on a loop of its own, and cancel it when the process is asked to stop.

    The coroutine's own cleanup runs to its end, so that nothing is left behind. A second signal cancels again, which cuts
    short whatever the cleanup is waiting for.

    Args:
        job: What to run.

    Returns:
        The signal that stopped it, or None if it ended by itself.
    """
    return asyncio.run(_supervise(job))


async def _supervise(job: Coroutine[Any, Any, None]) -> signal.Signals | None:
    loop = asyncio.get_running_loop()
    task = loop.create_task(job)
    received: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [signal.Signals[name] for name in names if name in signal.Signals.__members__]
    for number in numbers:
        with suppress(NotImplementedError, RuntimeError):  # Windows, or a thread that is not the main one
            loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        for number in numbers:
            with suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)
    return received[0] if received and task.cancelled() else None

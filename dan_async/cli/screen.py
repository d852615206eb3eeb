"""
The command's edge to its user: streams, exit codes, log lines and signals.

Standard output carries the result and nothing else; everything else goes to standard error, cleaned.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer
from rich.console import Console

from dan_async.errors import ConfigurationError, DanError, InvalidFieldError

if TYPE_CHECKING:
    from dan_async.events import Event

T = TypeVar("T")

_log = logging.getLogger("dan_async")

DONE = 0

#: The network, a node or the wallet did not do its part, or the result could not be written.
FAILED = 1

#: The input is wrong; nothing was sent.
WRONG_INPUT = 2

#: Ctrl-C, as shells number it: 128 + SIGINT.
INTERRUPTED = 130

#: 128 + SIGPIPE: whoever read standard output closed it.
PIPE_CLOSED = 141

#: 128 + SIGTERM.
TERMINATED = 143

#: 32 bytes in hex or more: a private key that was put in the wrong place looks like this.
_LIKE_A_KEY = re.compile(r"(?:0[xX])?[0-9a-fA-F]{64,}")


#: The last second of the year 9999, after which datetime knows none.
_END_OF_TIME = 253_402_300_799


class ReportedCode(int):
    """An exit code whose command has already said what happened."""


# --- text out ---------------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Replace everything that a terminal might obey: the text may come from a node, and nodes are not trusted."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def mask_keys(text: str) -> str:
    """Hide everything that looks like a private key, for texts that repeat the user's input."""
    return _LIKE_A_KEY.sub("***", text)


def moment(seconds: int) -> str:
    """Write a time, given in Unix seconds, as a person reads it."""
    return datetime.fromtimestamp(min(seconds, _END_OF_TIME), tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def note(text: str) -> None:
    """Write a line for the user to standard error."""
    sys.stderr.write(clean(text) + "\n")
    sys.stderr.flush()


def result(text: str) -> None:
    """Write a line of the result to standard output; a ``DanError`` if the disk is full."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # whoever read it has seen enough, as head has
    except OSError as error:
        forget_output()
        raise DanError(
            f"the result could not be written to standard output: {error.strerror}",
            hint="It is lost. Remove the cause and run the command again",
        ) from error


def forget_output() -> None:
    """Let what is still buffered go nowhere: Python would write it once more when it shuts down, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)


def console(*, stderr: bool = False, **more: Any) -> Console:
    """Return a console that shows texts as they are: ``:id:`` is no emoji, and ``[red]`` no colour."""
    file = None if stderr else sys.stdout
    return Console(file=file, stderr=stderr, highlight=False, markup=False, emoji=False, **more)


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], object]]:
    """Show a spinner on standard error while the body runs, if that is a terminal; yield what replaces its text."""
    screen = console(stderr=True)
    if not screen.is_terminal or screen.is_dumb_terminal or _log.isEnabledFor(logging.DEBUG):
        yield lambda _: None
        return
    with screen.status(text) as status:
        yield status.update


# --- files in ---------------------------------------------------------------------------------------------------------


def read_file(option: str, path: Path, *, most_bytes: int, may_be_stdin: bool = True) -> tuple[bytes, int]:
    """Read the file that an option names, ``-`` for standard input, up to *most_bytes*; return its mode too, 0 for ``-``."""
    shown, mode = mask_keys(str(path)), 0
    try:
        if may_be_stdin and str(path) == "-":
            # Python leaves sys.stdin at None where the process was started without a standard input.
            data = sys.stdin.buffer.read(most_bytes + 1) if sys.stdin else b""
        else:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{option}: cannot read {shown}: {reason_for(error)}") from None
    if len(data) > most_bytes:
        raise ConfigurationError(f"{option}: {shown} is too long: at most {most_bytes} bytes are read")
    return data, mode


def read_text(
    option: str, path: Path, *, most_bytes: int, may_be_stdin: bool = True, encoding: str = "utf-8-sig"
) -> str:
    """Read a file of UTF-8 text, as ``read_file`` does; editors on Windows begin one with a byte order mark."""
    data, _ = read_file(option, path, most_bytes=most_bytes, may_be_stdin=may_be_stdin)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise ConfigurationError(f"{option}: {mask_keys(str(path))} is not UTF-8 text") from None


# --- errors -----------------------------------------------------------------------------------------------------------


def reason_for(error: OSError | ValueError | RuntimeError) -> str:
    """Return the reason why a path cannot be used, without the path."""
    return getattr(error, "strerror", None) or "the path is not valid"


class NetworkFileError(ConfigurationError):
    """The mistake is in a network file, whose members are no options."""


def for_option(error: InvalidFieldError, option: str) -> InvalidFieldError:
    """Return the error with the option that was typed in place of the field."""
    return InvalidFieldError(option, error.problem, hint=error.hint)


# --- log lines --------------------------------------------------------------------------------------------------------


VerboseOption: TypeAlias = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show each step of the client on standard error.")
]


def event_listener() -> Callable[[Event], None] | None:
    """Return a listener that makes a log line of each event, if anybody is to see them."""
    return _log_event if _log.isEnabledFor(logging.DEBUG) else None


def _log_event(event: Event) -> None:
    fields = {name: value for name, value in event.to_dict().items() if value not in (None, ())}
    fields = {name: f"{value:.3f}" if isinstance(value, float) else value for name, value in fields.items()}
    _log.debug("%s", " ".join([fields.pop("event"), *(f"{name}={value}" for name, value in fields.items())]))


@contextmanager
def verbosity(*, on: bool) -> Iterator[None]:
    """Show everything that the client logs while the body runs, if that is asked for."""
    before, handler = _log.level, LogLines(held_back=False, level=logging.DEBUG)
    if on:
        _log.setLevel(logging.DEBUG)
        _log.addHandler(handler)
    try:
        yield
    finally:
        _log.setLevel(before)
        _log.removeHandler(handler)


class LogLines(logging.Handler):
    """Shows log lines without tracebacks, at once or when it is known that they add something."""

    def __init__(self, *, held_back: bool, level: int = logging.WARNING) -> None:
        super().__init__(level)
        self._lines: list[str] | None = [] if held_back else None

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record or hold it back."""
        line = " ".join(f"{record.levelname.lower()}: {record.getMessage()}".split())
        if self._lines is None:
            note(line)
        else:
            self._lines.append(line)

    def show(self) -> None:
        """Show the lines that were held back."""
        for line in self._lines or ():
            note(line)


@contextmanager
def log_lines(*, held_back: bool) -> Iterator[LogLines]:
    """Take the package's warnings while the body runs; held back ones wait for ``show()``, as an error may replace them."""
    handler = LogLines(held_back=held_back)
    if not _log.isEnabledFor(logging.DEBUG):  # with --verbose, they are shown already
        _log.addHandler(handler)
    try:
        yield handler
    finally:
        _log.removeHandler(handler)


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Keep complaints of asyncio and other libraries, which come with tracebacks, off the screen while the body runs."""
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


# --- signals ----------------------------------------------------------------------------------------------------------


class Stopped(typer.Exit):
    """A signal stopped the command's work; unless it is caught, the command ends with the signal's exit code."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(INTERRUPTED if number is signal.SIGINT else TERMINATED)


def run_until_signal(job: Coroutine[Any, Any, T]) -> T:
    """
    Run a coroutine on a loop of its own and return its result; cancel it and raise ``Stopped`` if a signal arrives.

    Its cleanup runs to its end, so that nothing is left behind. A second signal cuts short what the cleanup waits for.
    """
    import asyncio

    return asyncio.run(_supervise(job))


async def _supervise(job: Coroutine[Any, Any, T]) -> T:
    import asyncio

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
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        raise Stopped(received[0]) from None
    finally:
        for number in numbers:
            with suppress(NotImplementedError, RuntimeError):
                loop.remove_signal_handler(number)

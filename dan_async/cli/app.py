"""The command tree, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Any

import typer

import dan_async
from dan_async.cli.batch import batch
from dan_async.cli.demo import demo
from dan_async.cli.devnet import devnet
from dan_async.cli.keygen import keygen
from dan_async.cli.screen import (
    DONE,
    FAILED,
    INTERRUPTED,
    TERMINATED,
    WRONG_INPUT,
    ReportedCode,
    clean,
    mask_keys,
    note,
    silence_libraries,
)
from dan_async.cli.sessions import sessions
from dan_async.cli.sign import sign
from dan_async.cli.status import StatusCommand, status
from dan_async.errors import ConfigurationError, DanError

#: Typer brings its own copy of click, or depends on it, depending on its version; both have this ancestor.
_UsageError = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="dan-async",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("keygen")(keygen)
app.command("batch")(batch)
app.add_typer(sessions, name="sessions")
app.command("devnet")(devnet)
app.command("sign")(sign)
app.command("demo")(demo)
app.command("status", cls=StatusCommand)(status)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Session keys from DAN, the Delegated Authorisation Network: shared by n nodes, used by t, limited by one signature."""
    del version
    if context.invoked_subcommand is None:
        raise ConfigurationError(
            "no command is named",
            hint="Use demo, keygen, batch, sessions, sign, devnet or status; dan-async --help explains them",
        )


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer's callback gets the flag's value
    if wanted:
        typer.echo(f"dan-async {dan_async.__version__}")
        raise typer.Exit


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; every failure is reported in a line or two on standard error."""
    debug = os.environ.get("DAN_ASYNC_DEBUG") == "1"
    with nullcontext() if debug else silence_libraries():
        try:
            code: Any = app(
                args=None if argv is None else list(argv), prog_name="dan-async", standalone_mode=False
            )
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except Exception as error:  # the outermost edge: the user gets a sentence, never a traceback
            if debug:
                raise
            return _report(error)
    if code in (INTERRUPTED, TERMINATED) and not isinstance(code, ReportedCode):
        note("interrupted: nothing was saved")
    return code if isinstance(code, int) else DONE


def _report(error: Exception) -> int:
    if isinstance(error, DanError):
        is_input = isinstance(error, ConfigurationError)
        note(f"error: {mask_keys(str(error)) if is_input else error}")
        return WRONG_INPUT if is_input else FAILED
    if isinstance(error, _UsageError):
        note(f"error: {_usage(error)}")
        return WRONG_INPUT
    note(
        f"error: unexpected {type(error).__name__}. This is a bug: please report it together with the command that you ran"
    )
    return FAILED


def _usage(error: Any) -> str:
    """Return the parser's complaint as one line, without anything that could be a key in the wrong place."""
    message = " ".join(mask_keys(clean(error.format_message())).split())
    path = error.ctx.command_path if error.ctx is not None else "dan-async"
    return f"{message if message.endswith('?') else message.rstrip('.') + '.'} Try: {path} --help"

"""The command tree, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import dan_async
from dan_async.cli.screen import (
    DONE,
    FAILED,
    INTERRUPTED,
    PIPE_CLOSED,
    TERMINATED,
    WRONG_INPUT,
    NetworkFileError,
    ReportedCode,
    VerboseOption,
    clean,
    forget_output,
    mask_keys,
    note,
    silence_libraries,
    verbosity,
)
from dan_async.errors import ConfigurationError, DanError

#: Typer brings its own copy of click, or depends on it, depending on its version; both have this ancestor.
_UsageError = typer.BadParameter.__bases__[0]

#: The commands, each in the module of its name, which is imported when the command is run.
_COMMANDS: Mapping[str, str] = {
    "demo": "Show DAN at work on this machine, step by step.",
    "keygen": "Make a session key, authorised by one signature of the owner's wallet.",
    "sign": "Have the nodes sign a message with a session's key.",
    "sessions": "List, show, import, export, rotate, revoke, recover and purge the sessions in a store.",
    "batch": "Make many session keys from a file, into a store.",
    "status": "Show whether the nodes of a network answer, and how fast.",
    "devnet": "Run a network on this machine until Ctrl-C.",
    "dev": "Run a network, a chain and a bundler on this machine until Ctrl-C.",
    "mcp": "Serve a store's sessions to an agent as tools (Model Context Protocol).",
}

#: Words of the library's hints -> what they are called here. Commands have options in place of parameters.
_WORDS: Mapping[str, str] = {
    "min_parties": "--min-parties",
    "parties_number": "--parties",
    "chain_id": "--chain-id",
    "entry_point": "--entry-point",
    "api_version": "--api-version",
    "eph_alg": "--eph-alg",
    "the network's health()": "dan-async status",
    "recover()": "dan-async sessions recover",
    "another reference": "another --reference",
    "a longer timeout": "a longer --timeout",
    "a longer duration": "a longer --duration",
    "threshold and parties_number": "--threshold and --parties",
    "a session that has threshold and parties_number": "the session as keygen --output writes it",
    "add an ephemeral key to this one's key": "rotate this one with dan-async sessions rotate",
    "revision, name it": "revision, name it with --revision",
    "allow more time with Timeouts(wallet_s=…)": "answer it sooner",
    "give timeout_s more time": "answer it sooner",
    "TransportOptions(proxy=…)": "the network file's connection.proxy",
    "TransportOptions(headers=…)": "the network file's connection.headers",
    "TransportOptions(pins=…)": "the network file's connection.pins",
    "TransportOptions(ssl_context=…)": "the network file's connection.ca_file",
}
_WORD = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(_WORDS, reverse=True)))


def _in_words(text: str) -> str:
    """Return a text of the package's with the command line's words for its names."""
    return _WORD.sub(lambda found: _WORDS[found[0]], text)


class _Commands(TyperGroup):
    """Imports a command when it is called for; until then, its name and a line of help are all there is."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest


def _load(name: str) -> Any:
    from dan_async.cli.options import spread

    module = importlib.import_module(f"dan_async.cli.{name}")
    found = getattr(module, name)
    if not isinstance(found, typer.Typer):
        command, found = found, typer.Typer(**_STYLE)
        found.command(name, cls=getattr(module, "Command", TyperCommand))(spread(command))
    return typer.main.get_command(found)


_STYLE: Mapping[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "rich",
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

app = typer.Typer(**{**_STYLE, "add_completion": True}, name="dan-async", cls=_Commands)
for _name, _text in _COMMANDS.items():
    app.command(_name, help=_text)(lambda: None)


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
    verbose: VerboseOption = False,
) -> None:
    """Session keys of DAN, the Delegated Authorisation Network: n nodes share each key, and any t of them can sign."""
    del version
    if context.invoked_subcommand is None:
        raise ConfigurationError(
            "no command is named", hint=f"Use {', '.join(_COMMANDS)}; dan-async --help explains them"
        )
    context.with_resource(verbosity(on=verbose))


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
        except BrokenPipeError:
            forget_output()
            return PIPE_CLOSED
        except SystemExit as end:  # the parser's, which takes a closed pipe for a failure
            return PIPE_CLOSED if isinstance(end.__context__, BrokenPipeError) else int(end.code or DONE)
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
        is_in_file = isinstance(error, NetworkFileError)
        hint = error.hint if is_in_file else _in_words(error.hint)
        text = str(error).replace(error.hint, hint) if hint else str(error)
        for note_of_it in getattr(error, "__notes__", ()):  # such as that a key was made all the same
            text = f"{text.rstrip('.')}. {_in_words(note_of_it)}"
        note(f"error: {mask_keys(text) if is_input else text}")
        return WRONG_INPUT if is_input else FAILED
    if isinstance(error, _UsageError):
        note(f"error: {_usage(error)}")
        return WRONG_INPUT
    if isinstance(error, OSError) and error.strerror:
        if error.filename is not None:
            note(f"error: cannot use {mask_keys(str(error.filename))}: {error.strerror}")
            return WRONG_INPUT
        forget_output()  # the parser may have written help
        note(f"error: the system refused: {error.strerror}")
        return FAILED
    note(
        f"error: unexpected {type(error).__name__}. This is a bug: please report it together with the command that you ran"
    )
    return FAILED


def _usage(error: Any) -> str:
    """Return the parser's complaint as one line, without anything that could be a key in the wrong place."""
    message = " ".join(mask_keys(clean(error.format_message())).split())
    path = error.ctx.command_path if error.ctx is not None else "dan-async"
    return f"{message if message.endswith('?') else message.rstrip('.') + '.'} Try: {path} --help"

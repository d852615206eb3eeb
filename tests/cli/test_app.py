"""Wrong input, help, and that nothing but a sentence reaches the screen."""

from __future__ import annotations

import errno
import io
import itertools
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

import dan_async
from dan_async import __version__
from dan_async.cli.__main__ import main
from dan_async.cli.app import _COMMANDS, _WORDS, _report
from dan_async.errors import ConfigurationError, NodeOutcome, QuorumError, WalletRefusedError
from dan_async.types import OperatorAddress
from tests.cli.conftest import Run, command, on_full_disk, terminal

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
NODE = "ws://127.0.0.1:9/v1/rpc=0x0000000000000000000000000000000000000001"
DEVNET = ("keygen", "--devnet", "2-of-2")

WRONG = {
    "no command": (),
    "unknown command": ("keygne",),
    "unknown option of the program": ("--vresion",),
    "unknown option of keygen": ("keygen", "--devent", "3-of-5"),
    "abbreviated option": ("keygen", "--dev", "3-of-5"),
    "unknown option of devnet": ("devnet", "--node", "3"),
    "extra argument": (*DEVNET, "extra"),
    "missing value": ("keygen", "--devnet"),
    "no network": ("keygen",),
    "empty network": ("keygen", "--network", ""),
    "two networks": (*DEVNET, "--node", NODE),
    "malformed devnet": ("keygen", "--devnet", "3/5"),
    "t above n": ("keygen", "--devnet", "6-of-5"),
    "n above 20": ("keygen", "--devnet", "3-of-21"),
    "t below 2": ("keygen", "--devnet", "1-of-2"),
    "malformed node": ("keygen", "--node", "nonsense", "--chain-id", "1"),
    "chain id missing": ("keygen", "--node", NODE, "--node", f"{NODE[:-1]}2", "--threshold", "2"),
    "chain id 0": (*DEVNET, "--chain-id", "0"),
    "chain id negative": (*DEVNET, "--chain-id=-1"),
    "chain id as text": (*DEVNET, "--chain-id", "polygon"),
    "chain id with point": (*DEVNET, "--chain-id", "1.0"),
    "chain id too large": (*DEVNET, "--chain-id", str(2**53)),
    "duration 0": (*DEVNET, "--duration", "0"),
    "duration -1": (*DEVNET, "--duration", "-1"),
    "duration 366 days": (*DEVNET, "--duration", str(366 * 86400)),
    "duration as text": (*DEVNET, "--duration", "1h"),
    "timeout 0": (*DEVNET, "--timeout", "0"),
    "timeout nan": (*DEVNET, "--timeout", "nan"),
    "timeout inf": (*DEVNET, "--timeout", "inf"),
    "timeout as text": (*DEVNET, "--timeout", "soon"),
    "permissions": (*DEVNET, "--permissions", "{"),
    "force without output": (*DEVNET, "--force"),
    "output in a missing folder": (*DEVNET, "--output", "/nowhere/at/all/session.json"),
    "key file missing": (*DEVNET, "--private-key-file", "/nowhere/at/all"),
    "wallet url": (*DEVNET, "--wallet-rpc", "nonsense"),
    "wallet url without TLS": (*DEVNET, "--wallet-rpc", "http://wallet.example"),
    "address without wallet": (*DEVNET, "--wallet-address", "0x0000000000000000000000000000000000000001"),
    "threshold beside devnet": (*DEVNET, "--threshold", "2"),
    "devnet of 1": ("devnet", "--nodes", "1"),
    "devnet of 21": ("devnet", "--nodes", "21"),
    "devnet with t above n": ("devnet", "--nodes", "3", "--threshold", "4"),
    "devnet of text": ("devnet", "--nodes", "five"),
}


@pytest.mark.parametrize("args", WRONG.values(), ids=WRONG)
def test_wrong_input_gives_one_line_and_exit_code_2(run: Run, args: tuple[str, ...]) -> None:
    """Whatever is wrong: one line on standard error, nothing on standard output, exit code 2."""
    finished = run(*args)
    assert finished.code == 2
    assert len(finished.error) > len("error: ")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("keygen", "--devent", "3-of-5"), "--devent"),
        (("keygne",), "keygne"),
        ((*DEVNET, "--duration", "0"), "--duration"),
        ((*DEVNET, "--chain-id", "x"), "--chain-id"),
        ((*DEVNET, "--timeout", "0"), "--timeout"),
        ((*DEVNET, "--timeout", "soon"), "'--timeout': must be a number."),
        (("batch", "wallets.csv", "--devnet", "2-of-2", "--rate", "fast"), "'--rate': must be a number."),
        (WRONG["chain id missing"], "--chain-id"),
        (("keygen", "--devnet", "6-of-5"), "--devnet"),
        (("devnet", "--nodes", "1"), "--nodes"),
        (("devnet", "--nodes", "3", "--threshold", "4"), "--threshold"),
        ((*DEVNET, "--permissions", "{"), "--permissions"),
    ],
)
def test_the_line_names_what_is_wrong(run: Run, args: tuple[str, ...], named: str) -> None:
    """By the name the person typed, not by a parameter of ours."""
    error = run(*args).error
    assert named in error
    assert "parties_number" not in error
    assert "total_s" not in error


@pytest.mark.parametrize(
    "args",
    [
        (*DEVNET, f"0x{KEY}"),
        (*DEVNET, "--private-key-file", KEY),
        (*DEVNET, "--private-key-file", f"0x{KEY}"),
        (*DEVNET, f"--private-key=0x{KEY}"),
        (*DEVNET, "--wallet-rpc", KEY),
        (*DEVNET, "--output", f"/nowhere/{KEY}"),
        (*DEVNET, "--chain-id", KEY),
        ("keygen", "--devnet", KEY),
        ("keygen", "--node", KEY),
        (KEY,),
        ("devnet", "--storage", f"/etc/passwd/{KEY}"),
    ],
)
def test_a_key_in_the_wrong_place_is_not_repeated(run: Run, args: tuple[str, ...]) -> None:
    """A private key typed where something else belongs does not appear on the screen."""
    finished = run(*args)
    assert finished.code == 2
    assert KEY not in finished.out + finished.err


def test_a_file_that_is_no_folder_is_refused_as_storage(run: Run, tmp_path: Path) -> None:
    """Before anything is started."""
    (tmp_path / "file").touch()
    assert "--storage" in run("devnet", "--storage", str(tmp_path / "file")).error


def test_storage_that_cannot_be_made_is_wrong_input(run: Run, tmp_path: Path) -> None:
    """The system's reason is in the line."""
    (tmp_path / "file").touch()
    finished = run(
        "devnet", "--nodes", "2", "--threshold", "2", "--storage", str(tmp_path / "file" / "below")
    )
    assert finished.code == 2
    assert "Not a directory" in finished.error


@pytest.mark.parametrize(
    "args",
    [
        ("sign", "--network", "net.toml", "--message", "hello", "--session"),
        ("devnet", "--storage"),
        ("devnet", "--owner-key"),
    ],
)
def test_a_path_that_cannot_be_looked_at_is_wrong_input(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    """As when a whole session is pasted in place of its file's name: the line has the reason, and no key."""
    monkeypatch.chdir(tmp_path)
    nodes = (f'[[nodes]]\nurl = "ws://127.0.0.1:9/v1/rpc"\noperator = "0x{place:040x}"\n' for place in (1, 2))
    Path("net.toml").write_text('kind = "nodes"\n' + "".join(nodes))
    finished = run(*args, json.dumps({"hexEphSKWithout0x": KEY, "permissions": "x" * 300}))
    assert finished.code == 2
    assert "File name too long" in finished.error
    assert KEY not in finished.error


def test_a_devnet_that_cannot_listen_gives_exit_code_1(run: Run) -> None:
    """The system's reason is in the line."""
    refused = OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
    with mock.patch("socket.socket.bind", side_effect=refused):
        finished = run("devnet", "--nodes", "2", "--threshold", "2")
    assert finished.code == 1
    assert "Cannot assign requested address" in finished.error


def test_no_standard_input_is_no_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process started without one gets a line, not a traceback."""
    monkeypatch.setattr(sys, "stdin", None)
    finished = run("keygen", "--devnet", "2-of-2", "--private-key-file", "-")
    assert finished.code == 2
    assert "--private-key-file" in finished.err


class Interrupted(io.RawIOBase):
    """A standard input at which the person presses Ctrl-C instead of typing."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise KeyboardInterrupt


def test_ctrl_c_at_a_prompt_gives_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the event loop runs."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Interrupted())))
    finished = run("keygen", "--devnet", "2-of-2", "--private-key-file", "-")
    assert (finished.code, finished.out) == (130, "")
    assert finished.err.splitlines() == ["interrupted: nothing was saved"]


@pytest.mark.parametrize("args", [("--help",), ("-h",), ("keygen", "--help"), ("devnet", "-h")])
def test_help_goes_to_standard_output(run: Run, args: tuple[str, ...]) -> None:
    """Help that was asked for is a result."""
    finished = run(*args)
    assert (finished.code, finished.err) == (0, "")
    assert "Usage" in finished.out


def test_help_survives_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old encoding changes how it looks, nothing else."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["keygen", "--help"]) == 0


@pytest.mark.parametrize("flag", ["--version", "-v"])
@pytest.mark.parametrize("module", ["dan_async", "dan_async.cli"])
def test_version(module: str, flag: str) -> None:
    """Either flag prints the installed version, also without the packages of the extra."""
    code = f"import sys, runpy; sys.modules['typer'] = sys.modules['rich'] = None; sys.argv = ['dan-async', {flag!r}]; "
    code += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"dan-async {__version__}\n", "")


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "command", [*_COMMANDS, "sessions revoke", "sessions rotate", "sessions recover", "sessions import", ""]
)
def test_help_fits_the_terminal(command: str, columns: int) -> None:
    """Nothing is cut, and text runs on to the edge: a line ends where the next word would not fit, or a paragraph does."""
    shown = terminal(*command.split(), "--help", columns=columns)
    assert shown.code == 0
    assert "…" not in shown.out
    assert "[[" not in shown.out
    lines = [line.rstrip() for line in shown.out.splitlines()]
    assert max(map(len, lines)) <= columns
    text = lines[: next(place for place, line in enumerate(lines) if line.startswith("╭"))]
    for line, following in itertools.pairwise(text):
        if line.strip() and following.strip():
            assert len(line) + 1 + len(following.split()[0]) > columns - 2, line


def test_every_command_is_listed_and_loads(run: Run) -> None:
    """The list of commands is written by hand."""
    listed = run("--help").out
    for name, text in _COMMANDS.items():
        assert f" {name} " in listed
        assert text.split()[0] in listed
        assert run(name, "--help").code == 0


@pytest.mark.parametrize("words", [(), ("sessions",)])
def test_a_shell_completes_commands_and_options(tmp_path: Path, words: tuple[str, ...]) -> None:
    """In bash, with the script that --show-completion prints."""
    (program := tmp_path / "dan-async").write_text(f'#!/bin/sh\nexec {sys.executable} -m dan_async "$@"\n')
    program.chmod(0o755)
    wanted = {(): [("ses", "sessions"), ("--ver", "--version")], ("sessions",): [("rot", "rotate")]}[words]
    script = 'eval "$(dan-async --show-completion bash)"\n'
    for begun, _ in wanted:
        line = " ".join(("dan-async", *words, begun))
        script += f"COMP_WORDS=({line}); COMP_CWORD={len(words) + 1}\n_dan_async_completion dan-async\n"
        script += 'echo "${COMPREPLY[0]}"\n'
    path = os.pathsep.join((str(tmp_path), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env=environment, timeout=50, check=False
    )
    assert done.stdout.split() == [found for _, found in wanted], done.stderr


@pytest.mark.parametrize("args", [("--help",), ("keygen", "--help"), ("demo",)])
def test_a_reader_that_has_seen_enough_is_no_error(args: tuple[str, ...]) -> None:
    """As behind head: not a word, and the exit code of SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command(*args), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=50, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("args", [("--help",), ("--version",), (*DEVNET, "--json")])
def test_a_closed_standard_output_is_said_before_anything_is_made(args: tuple[str, ...]) -> None:
    """A result would be lost, and the first socket would take the place of standard output."""
    script = f"exec {shlex.join(command(*args))} >&-"
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, text=True, timeout=50, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: standard output is closed. Let it go to /dev/null if nothing is to read it"
    ]


def test_a_closed_standard_error_costs_no_result() -> None:
    """The notes go nowhere."""
    script = f"exec {shlex.join(command(*DEVNET, '--json'))} 2>&-"
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, timeout=50, check=False)
    assert done.returncode == 0
    assert "sessionKeyEOA" in json.loads(done.stdout)


def test_help_for_a_full_disk_is_no_bug() -> None:
    """The system's reason is in the line, and Python does not complain when it shuts down."""
    done = on_full_disk("keygen", "--help")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: the system refused: No space left on device"]


def test_every_word_that_is_replaced_is_one_of_the_library() -> None:
    """A hint that is put in other words needs another replacement."""
    package = Path(dan_async.__file__).parent
    modules = [path for path in package.rglob("*.py") if path.parent != package / "cli"]
    source = "".join(path.read_text() for path in modules)
    assert [word for word in _WORDS if word not in source] == []


@pytest.mark.parametrize("place", ["before", "after"])
def test_verbose_shows_each_step(run: Run, place: str) -> None:
    """On standard error, before or after the command's name, and no secret among them."""
    given = ("keygen", "--devnet", "2-of-2", "--json")
    finished = run(*(("-v", *given) if place == "before" else (*given, "-v")))
    assert finished.code == 0
    assert "debug: attempt_succeeded" in finished.err
    assert json.loads(finished.out)["hexEphSKWithout0x"] not in finished.err
    assert logging.getLogger("dan_async").level == logging.NOTSET
    assert "debug" not in run(*given).err


@pytest.mark.parametrize(
    ("hint", "said"),
    [
        ("Allow fewer with min_parties, or add nodes", "Allow fewer with --min-parties, or add nodes"),
        ("If that is intended, pass chain_id=5", "If that is intended, pass --chain-id=5"),
        ("Look at the network's health()", "Look at dan-async status"),
        (
            "Give a session that has threshold and parties_number",
            "Give the session as keygen --output writes it",
        ),
        (
            "Look for a prompt, or allow more time with Timeouts(wallet_s=…)",
            "Look for a prompt, or answer it sooner",
        ),
        (
            "Look for an open prompt, or give timeout_s more time",
            "Look for an open prompt, or answer it sooner",
        ),
        (
            "put them into the URL of TransportOptions(proxy=…)",
            "put them into the URL of the network file's connection.proxy",
        ),
        (
            "For a private CA give TransportOptions(ssl_context=…)",
            "For a private CA give the network file's connection.ca_file",
        ),
    ],
)
def test_hints_name_options(hint: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The library speaks of parameters, a command of its options."""
    assert _report(WalletRefusedError("no", hint=hint)) == 1
    assert capsys.readouterr().err == f"error: no. {said}\n"


def test_a_quorum_error_has_a_line_for_each_node(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1; the nodes' own words are cleaned of what a terminal obeys."""
    outcome = NodeOutcome(
        operator=OperatorAddress("0x0000000000000000000000000000000000000001"),
        error=WalletRefusedError("\x1b[2Jgone"),
    )
    code = _report(QuorumError("too few", hint="add nodes", threshold=2, outcomes=[outcome]))
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "error: too few. add nodes"
    assert "0x0000000000000000000000000000000000000001: \\x1b[2Jgone" in err.splitlines()[1]


def test_an_unexpected_error_is_called_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    """Its text, which may hold anything, is not shown."""
    assert _report(RuntimeError(KEY)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "RuntimeError" in err
    assert "bug" in err
    assert KEY not in err


def test_whoever_debugs_gets_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """DAN_ASYNC_DEBUG=1 lets errors through."""
    monkeypatch.setenv("DAN_ASYNC_DEBUG", "1")
    with pytest.raises(ConfigurationError):
        main(["keygen"])


@pytest.mark.parametrize("command", [[], ["keygen"], ["sign"], ["status"]], ids=" ".join)
def test_help_starts_without_heavy_imports(command: list[str]) -> None:
    """The client, its jobs and networks, and databases are loaded by the commands that need them, when they run."""
    code = (
        f"import sys; from dan_async.cli.__main__ import main; main({[*command, '--help']}); "
        "heavy = {'dan_async.client', 'dan_async.jobs', 'dan_async.devnet', 'dan_async.network', 'aiohttp', 'eth_utils', "
        "'sqlalchemy'}; "
        "sys.stderr.write(' '.join(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0

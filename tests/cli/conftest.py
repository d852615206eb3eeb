"""What the tests of the command line share."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from typing import Protocol

import pytest
from attrs import frozen

from dan_async.cli.__main__ import main
from dan_async.cli.options import PRIVATE_KEY_VARIABLE
from dan_async.devnet import Devnet
from tests.helpers import Do, loop_in_a_thread


@frozen
class Finished:
    """What a run of the command left on the screen."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on standard error, which must be the only one."""
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0]


class Run(Protocol):
    """Runs the command in this process."""

    def __call__(self, *args: str) -> Finished: ...


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``dan-async`` in this process, with no wallet in the environment."""
    monkeypatch.delenv(PRIVATE_KEY_VARIABLE, raising=False)
    monkeypatch.delenv("DAN_ASYNC_DEBUG", raising=False)

    def finish(*args: str) -> Finished:
        capsys.readouterr()
        code = main(args)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Finished(code, out, err)

    return finish


def terminal(
    *args: str,
    columns: int = 80,
    cwd: Path | None = None,
    stop_when: Callable[[str], object] | None = None,
    **environment: str,
) -> Finished:
    """
    Run the command on a pseudo-terminal, with both streams in ``out``, less the colours.

    *stop_when* is asked at times, with what is shown so far, whether to press Ctrl-C.
    """
    screen, theirs = pty.openpty()
    fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    path = os.pathsep.join(entry for entry in sys.path if entry)
    inherited = {
        name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    process = subprocess.Popen(
        command(*args),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env=inherited | {"TERM": "xterm-256color", "PYTHONPATH": path} | environment,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the other side was closed
        while True:
            if stop_when is None or select([screen], [], [], 0.1)[0]:
                if not (chunk := os.read(screen, 65536)):
                    break
                shown += chunk
            if stop_when is not None and stop_when(_without_colours(shown)):
                process.send_signal(signal.SIGINT)
                stop_when = None
    os.close(screen)
    code = process.wait(timeout=20)
    return Finished(code, _without_colours(shown), "")


def _without_colours(shown: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode(errors="replace")).replace("\r\n", "\n")


def on_full_disk(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command with its standard output on a disk that is full."""
    with Path("/dev/full").open("w") as full:
        return subprocess.run(
            command(*args), stdout=full, stderr=subprocess.PIPE, text=True, timeout=50, check=False
        )


def command(*args: str) -> Sequence[str]:
    """Give the command line that runs ``dan-async`` in a process of its own."""
    return [sys.executable, "-m", "dan_async.cli", *args]


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[str]]:
    """Three nodes that run elsewhere, as values of --node."""
    process = subprocess.Popen(
        command("devnet", "--nodes", "3", "--threshold", "2", "--json"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        described = json.loads(process.stdout.readline())
        yield [f"{node['url']}={node['operator']}" for node in described["nodes"]]
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.fixture
def devnet_in_a_thread() -> Iterator[tuple[Devnet, Do]]:
    """Three nodes on an event loop of their own, and a function that runs something there, as stopping one."""
    with loop_in_a_thread() as do:
        net = Devnet(2, 3)
        do(net.start())
        try:
            yield net, do
        finally:
            do(net.aclose())


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    """The URL of a gateway that runs elsewhere, in front of three nodes."""
    process = subprocess.Popen(
        command("devnet", "--nodes", "3", "--threshold", "2", "--json"), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["gateway"]
    finally:
        process.terminate()
        process.communicate(timeout=20)

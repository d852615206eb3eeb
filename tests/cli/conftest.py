"""What the tests of the command line share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

import pytest
from attrs import frozen

from dan_async.cli.__main__ import main
from dan_async.cli.choices import PRIVATE_KEY_VARIABLE


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

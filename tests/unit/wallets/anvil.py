"""A real Ethereum node for the tests: Anvil, from the npm package in tests/anvil."""

import os
import re
import selectors
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

BINARY = Path(__file__).parents[2] / "anvil/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil"
_START_S = 30.0


def require_anvil(binary=BINARY, environment=os.environ):
    """Skip the test where Anvil is not installed; in CI that is a failure."""
    if not binary.is_file():
        reason = "Anvil is not installed: run `npm ci` in tests/anvil"
        if environment.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


@contextmanager
def running_anvil(home):
    """Run Anvil on a port of the system's choice; gives its URL."""
    command = [str(require_anvil()), "--host", "127.0.0.1", "--port", "0", "--accounts", "3"]
    environment = {"HOME": str(home), "PATH": os.environ.get("PATH", "")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        try:
            yield f"http://{_listening_address(process)}"
        finally:
            process.terminate()


def _listening_address(process):
    deadline = time.monotonic() + _START_S
    output = b""
    os.set_blocking(process.stdout.fileno(), False)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and process.poll() is None:
            if selector.select(deadline - time.monotonic()):
                output += process.stdout.read() or b""
            if match := re.search(rb"Listening on (127\.0\.0\.1:[0-9]+)\s", output):
                return match[1].decode()
    raise AssertionError(f"Anvil did not start: {output[-2000:].decode(errors='replace')}")

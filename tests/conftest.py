"""
No test reaches another machine, and the whole suite runs the tests that docs/explanation/security.md names.

What is refused is what Python's sockets do in the tests' own process. Programs that a test starts, and connections that uvloop
makes, are beyond it.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

SECURITY_PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "security.md"

# How long one example takes says more about the machine than about the code; the time-out of the whole test stays.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


class NamedTestsRan:
    """Fails a session in which a test that the security page names did not run; skipped ones count only in CI."""

    def __init__(self) -> None:
        self.missing = set(re.findall(r"`([\w/]+\.py::\w+)`", SECURITY_PAGE.read_text(encoding="utf-8")))
        self.skipped: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of one step of a test; a controller of xdist hears of its workers' tests as well."""
        path, *_, function = report.nodeid.partition("[")[0].split("::")
        name = f"{path.removeprefix('tests/')}::{function}"
        if report.skipped:
            self.skipped.add(name)
        elif report.when == "call":
            self.missing.discard(name)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Have the session fail."""
        if os.environ.get("CI") != "true":
            self.missing -= self.skipped
        if exitstatus != pytest.ExitCode.OK:
            self.missing = set()  # what failed comes first
        elif self.missing:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which tests it was."""
        for name in sorted(self.missing):
            what = "was skipped" if name in self.skipped else "did not run"
            terminalreporter.write_line(f"the security page names {name}, which {what}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Choose the event loop, and look at runs of the whole suite alone: no paths, no selection."""
    if os.environ.get("DAN_LOOP") == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    chosen = ("keyword", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly", "maxfail")
    is_whole = (
        config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and config.getoption("markexpr") in ("", "not recipes", "not long and not recipes")
        and not any(config.getoption(option, None) for option in chosen)
    )
    if is_whole and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NamedTestsRan())


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """Have three workers on two cores with ``-n auto``, as tests wait for a third of their time; or as many as is said."""
    is_said = "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ
    return None if is_said else max(1, (os.cpu_count() or 1) * 3 // 2)


def pytest_collection_finish() -> None:
    """Keep the tests themselves out of the garbage collector's way: 14,000 of them would be looked at again and again."""
    gc.freeze()


# --- loopback only ----------------------------------------------------------------------------------------------------

#: Audit events of Python's sockets, and which of their arguments says where to.
_LEAVING = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
#: One list for each test that runs, in which its attempts are noted.
_watching: list[list[str]] = []


def _is_here(host: Any) -> bool:
    """Whether a host is this machine: a loopback address, its usual name, or nothing."""
    name = host.decode() if isinstance(host, bytes) else host
    if not isinstance(name, str) or name in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _refuse_to_leave(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _LEAVING:
        return
    target = arguments[_LEAVING[event]]
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = target
    elif isinstance(target, tuple):
        host = target[0]
    else:
        return  # a path, of a Unix socket
    if not _is_here(host):
        for attempts in _watching:
            attempts.append(f"{event}: {host}")
        raise OSError(f"a test reaches out: {event} {host}")


sys.addaudithook(_refuse_to_leave)


@pytest.fixture(autouse=True)
def attempts_to_leave() -> Iterator[list[str]]:
    """Fail the test that tries to reach another machine, even where the code takes the error for a network's."""
    attempts: list[str] = []
    _watching.append(attempts)
    yield attempts
    _watching.pop()
    assert not attempts

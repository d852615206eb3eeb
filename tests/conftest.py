"""The whole suite runs the tests that docs/explanation/security.md names: one that is skipped or left out shows nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

SECURITY_PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "security.md"


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
        if self.missing and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which tests it was."""
        for name in sorted(self.missing):
            what = "was skipped" if name in self.skipped else "did not run"
            terminalreporter.write_line(f"the security page names {name}, which {what}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Look at runs of the whole suite alone: no paths, no selection."""
    chosen = ("keyword", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly", "maxfail")
    is_whole = (
        config.args_source is pytest.Config.ArgsSource.TESTPATHS
        and config.getoption("markexpr") in ("", "not long")
        and not any(config.getoption(option, None) for option in chosen)
    )
    if is_whole and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NamedTestsRan())

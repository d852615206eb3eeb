"""How far a batch is: a bar on a terminal, a line every few seconds elsewhere, and a report at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dan_async.cli.screen import note

__all__ = ["BatchCount", "shown"]

_LINE_EVERY_S = 5.0
_MOST_FAILURES = 100


@define
class BatchCount:
    """What became of the rows so far."""

    total: int | None = None
    made: int = 0
    kept: int = 0
    settled: int = 0
    failed: int = 0
    unsettled: int = 0
    failures: list[dict[str, Any]] = field(factory=list)
    started: float = field(factory=time.monotonic)

    @property
    def done(self) -> int:
        """How many rows have come to an end."""
        return self.made + self.kept + self.settled + self.failed + self.unsettled

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Rows per second that were worked on."""
        return (self.done - self.kept) / max(self.elapsed_s, 1e-9)

    def add_failure(self, failure: dict[str, Any]) -> None:
        """Remember a failure for the report; only so many, since an input may be endless."""
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(failure)

    def line(self) -> str:
        """Say it in a line."""
        of = "" if self.total is None else f" of {self.total}"
        parts = [f"{self.done}{of} rows", f"{self.failed} failed", f"{self.rate:.1f} per second"]
        if self.unsettled:
            parts.insert(2, f"{self.unsettled} unsettled")
        if self.total is not None and self.rate > 0 and self.done < self.total:
            left_s = int((self.total - self.done) / self.rate)
            parts.append(f"{left_s // 60}:{left_s % 60:02} left")
        return ", ".join(parts)

    def report(self, *, is_interrupted: bool, is_dry_run: bool) -> dict[str, Any]:
        """Give what is printed at the end."""
        return {
            "rows": self.done,
            "made": self.made,
            "kept": self.kept,
            "settled": self.settled,
            "failed": self.failed,
            "unsettled": self.unsettled,
            "seconds": round(self.elapsed_s, 3),
            "perSecond": round(self.rate, 3),
            "interrupted": is_interrupted,
            "dryRun": is_dry_run,
            "failures": self.failures,
            "moreFailures": max(0, self.failed + self.unsettled - len(self.failures)),
        }


class Shown:
    """
    Shows a count.

    Args:
        count: The count.
        bar: The bar on the terminal; None for lines.
    """

    def __init__(self, count: BatchCount, bar: Progress | None) -> None:
        self._count = count
        self._bar = bar
        self._task = None if bar is None else bar.add_task("rows", total=count.total)
        self._next_line = time.monotonic() + _LINE_EVERY_S

    def update(self) -> None:
        """Show how it is now."""
        count = self._count
        if self._bar is not None and self._task is not None:
            text = f"{count.rate:.1f}/s, {count.failed} failed"
            self._bar.update(self._task, completed=count.done, description=text)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            note(count.line())


@contextmanager
def shown(count: BatchCount) -> Iterator[Shown]:
    """Show a count on standard error while the body runs."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Shown(count, None)
        note(count.line())
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        display = Shown(count, bar)
        yield display
        display.update()

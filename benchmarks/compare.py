"""
Compare two result files: ``python -m benchmarks.compare BASELINE NEW``.

Ratios to the floor are compared always, since client and floor ran by turns on one machine. Times are compared only
between results of the same machine and interpreter that was not busy with other things, unless ``--times`` insists:
otherwise they say nothing about the client.

Exit code 0: nothing got worse by more than the tolerance. 1: something did, or is missing. 2: the files cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.measure import BUSY

__all__ = ["Change", "compare", "main"]

_SAME_PLATFORM = ("python", "system", "machine", "processor", "cores")

#: What of an entry is compared: its name in the table, and where it is.
_RATIOS = {"to floor": ("to_floor",), "to floor + curve": ("to_floor_and_curve",)}
_TIMES = {
    "client CPU, ms": ("cpu_ms", "median"),
    "CPU of one node, ms": ("node_cpu_ms",),
    "p50, ms": ("latency_ms", "p50"),
}

#: The floor is compared with nothing: it is what the others are compared with.
_PEERS = ("stub", "devnet")


@frozen(kw_only=True)
class Change:
    """One number in both files; *after* is None where the new file lacks it."""

    workload: str
    peer: str
    concurrency: int
    metric: str
    before: float
    after: float | None

    @property
    def growth(self) -> float | None:
        """By which part the number grew; less is better for all of them."""
        return None if self.after is None else self.after / self.before - 1

    def is_regression(self, tolerance: float) -> bool:
        """Whether it grew by more than that part, or is missing."""
        growth = self.growth
        return growth is None or growth > tolerance


class IncomparableError(ValueError):
    """The files do not fit together; the message says why."""


def compare(before: dict[str, Any], after: dict[str, Any], *, with_times: bool | None = None) -> list[Change]:
    """
    Put the numbers of two results side by side.

    Args:
        before: The baseline.
        after: The new result.
        with_times: Whether times count too; None to let the platforms decide.

    Raises:
        IncomparableError: The formats differ, or there is nothing in common.
    """
    if before.get("format") != after.get("format") or "entries" not in before or "entries" not in after:
        raise IncomparableError("the files are not results of the same format")
    if with_times is None:
        with_times = _are_times_comparable(before["platform"], after["platform"])
    metrics = _RATIOS | (_TIMES if with_times else {})
    found = {_key(entry): entry for entry in after["entries"]}
    if not any(_key(entry) in found for entry in before["entries"]):
        raise IncomparableError("the files have no measurement in common")
    changes = []
    for entry in before["entries"]:
        if entry["peer"] not in _PEERS:
            continue
        workload, peer, concurrency = key = _key(entry)
        for metric, path in metrics.items():
            old, new = _at(entry, path), _at(found.get(key, {}), path)
            if old is not None:
                changes.append(
                    Change(
                        workload=workload,
                        peer=peer,
                        concurrency=concurrency,
                        metric=metric,
                        before=old,
                        after=new,
                    )
                )
    return changes


def _are_times_comparable(before: dict[str, Any], after: dict[str, Any]) -> bool:
    is_same = all(before[key] == after[key] for key in _SAME_PLATFORM)
    return is_same and not any((facts.get("load_before") or 0.0) > BUSY for facts in (before, after))


def _key(entry: dict[str, Any]) -> tuple[str, str, int]:
    return entry["workload"], entry["peer"], entry["concurrency"]


def _at(entry: Any, path: Sequence[str]) -> float | None:
    for name in path:
        entry = entry.get(name) if isinstance(entry, dict) else None
    return entry


def render(changes: Sequence[Change], tolerance: float) -> str:
    """Give the table, worst first."""
    lines = [
        "| Workload | nodes | in flight | what | before | after | change | |",
        "|---|---|--:|---|--:|--:|--:|---|",
    ]
    for change in sorted(changes, key=lambda c: -(float("inf") if c.growth is None else c.growth)):
        after = "missing" if change.after is None else f"{change.after:.3f}"
        growth = "" if change.growth is None else f"{change.growth:+.1%}"
        mark = "worse" if change.is_regression(tolerance) else ""
        lines.append(
            f"| {change.workload} | {change.peer} | {change.concurrency} | {change.metric} | {change.before:.3f} | "
            f"{after} | {growth} | {mark} |"
        )
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise IncomparableError(f"{path.name} cannot be read as a result file") from error
    if not isinstance(value, dict):
        raise IncomparableError(f"{path.name} is not a result file")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, compare, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("before", type=Path, metavar="BASELINE")
    parser.add_argument("after", type=Path, metavar="NEW")
    parser.add_argument(
        "--tolerance", type=float, default=15.0, metavar="PERCENT", help="how much worse is still the same"
    )
    parser.add_argument("--times", action="store_true", help="compare times across machines too")
    parser.add_argument(
        "--partial", action="store_true", help="what the new file has not measured is left out, not worse"
    )
    options = parser.parse_args(arguments)
    try:
        changes = compare(_read(options.before), _read(options.after), with_times=options.times or None)
    except IncomparableError as error:
        print(error, file=sys.stderr)
        return 2
    if options.partial:
        changes = [change for change in changes if change.after is not None]
    print(render(changes, options.tolerance / 100))
    return int(any(change.is_regression(options.tolerance / 100) for change in changes))


if __name__ == "__main__":
    sys.exit(main())

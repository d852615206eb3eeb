"""Measuring: latency histogram, CPU time, what the numbers were made on."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

__all__ = [
    "BUSY",
    "LatencyHistogram",
    "Load",
    "commit_facts",
    "platform_facts",
    "run_load",
    "say",
    "summarise",
    "tree_cpu_s",
]

#: A load average, before a run, above which its times are to be read with care.
BUSY = 1.0

#: Each bucket of a histogram is this much wider than the one before: percentiles are right to 1 %.
_GROWTH = math.log(1.01)
_FLOOR_S = 1e-6


@define
class LatencyHistogram:
    """
    Counts of latencies in buckets that grow by 1 %, from 1 µs on.

    Histograms of several turns can be added up, which percentiles cannot.
    """

    counts: dict[int, int] = field(factory=dict)
    longest_s: float = 0.0

    def record(self, seconds: float) -> None:
        """Count one latency."""
        bucket = 0 if seconds <= _FLOOR_S else math.ceil(math.log(seconds / _FLOOR_S) / _GROWTH)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.longest_s = max(self.longest_s, seconds)

    def add(self, other: LatencyHistogram) -> None:
        """Count what another one has counted."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.longest_s = max(self.longest_s, other.longest_s)

    @property
    def total(self) -> int:
        """How many latencies were counted."""
        return sum(self.counts.values())

    def percentile_s(self, percent: float) -> float:
        """Give the latency that *percent* of all do not exceed: the upper end of its bucket, at most the longest."""
        wanted = math.ceil(self.total * percent / 100)
        seen = 0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if seen >= wanted:
                return min(_FLOOR_S * math.exp(bucket * _GROWTH), self.longest_s)
        raise ValueError("nothing was counted")

    def to_dict(self) -> dict[str, float]:
        """Give the percentiles, in milliseconds."""
        named = {f"p{percent}": self.percentile_s(percent) for percent in (50, 95, 99)}
        return {name: round(value * 1e3, 4) for name, value in (named | {"max": self.longest_s}).items()}


@frozen(kw_only=True)
class Load:
    """What one turn came to."""

    operations: int
    elapsed_s: float
    user_s: float
    system_s: float
    latencies: LatencyHistogram

    @property
    def cpu_ms(self) -> float:
        """CPU time of this process for one operation, user and system, in milliseconds."""
        return (self.user_s + self.system_s) / self.operations * 1e3


async def run_load(
    operation: Callable[[], Awaitable[object]],
    *,
    concurrency: int,
    seconds: float,
    at_least: int = 1,
) -> Load:
    """
    Keep *concurrency* operations in flight for *seconds*, and until *at_least* were begun; wait for all of them.

    The CPU time is that of this process, so nothing else may run in it meanwhile. What is being measured must not fail: the
    first error ends the run.
    """
    latencies = LatencyHistogram()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    end = start + seconds
    begun = 0

    async def worker() -> None:
        nonlocal begun
        while begun < at_least or time.perf_counter() < end:
            begun += 1
            started = time.perf_counter()
            await operation()
            latencies.record(time.perf_counter() - started)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    elapsed = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    return Load(
        operations=latencies.total,
        elapsed_s=elapsed,
        user_s=after.ru_utime - before.ru_utime,
        system_s=after.ru_stime - before.ru_stime,
        latencies=latencies,
    )


def summarise(turns: Sequence[Load]) -> dict[str, Any]:
    """Give several turns of the same thing for the result file: the CPU of each, everybody's latencies."""
    cpu = [turn.cpu_ms for turn in turns]
    merged = LatencyHistogram()
    for turn in turns:
        merged.add(turn.latencies)
    return {
        "operations": merged.total,
        "cpu_ms": {
            "median": round(statistics.median(cpu), 4),
            "user": round(statistics.median(turn.user_s / turn.operations * 1e3 for turn in turns), 4),
            "turns": [round(value, 4) for value in cpu],
        },
        "latency_ms": merged.to_dict(),
        "per_second": round(merged.total / sum(turn.elapsed_s for turn in turns), 1),
    }


def tree_cpu_s(root: int) -> float | None:
    """
    Give the CPU seconds that a process, its descendants and its ended children have used so far.

    None where there is no ``/proc`` to tell.
    """
    if not Path("/proc/self/stat").exists():
        return None
    ticks = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            parents[int(entry.name)] = int(fields[1])
            used[int(entry.name)] = sum(map(int, fields[11:15])) / ticks
    wanted, total = [root], 0.0
    while wanted:
        process = wanted.pop()
        total += used.get(process, 0.0)
        wanted += [child for child, parent in parents.items() if parent == process]
    return total


# --- what the numbers were made on


def platform_facts() -> dict[str, Any]:
    """Give what a reader needs to judge the numbers; no host name, no user, no path."""
    names = ("aiohttp", "attrs", "coincurve", "cryptography", "eth-hash", "tenacity")
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "load_before": _load(),
        "packages": {name: version(name) for name in names},
    }


def _processor() -> str:
    found = _lines_of("/proc/cpuinfo", "model name")
    return found or platform.processor() or "unknown"


def _memory_gib() -> int | None:
    found = _lines_of("/proc/meminfo", "MemTotal")
    return round(int(found.split()[0]) / 2**20) if found else None


def _load() -> float | None:
    """Give how many processes wanted a core in the last minute: what else went on while this was measured."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _lines_of(path: str, key: str) -> str:
    try:
        lines: Iterable[str] = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def commit_facts() -> dict[str, Any]:
    """Give the commit that was measured, and whether files of the package differ from it."""
    root = Path(__file__).parent.parent

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=root,
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "dan_async", "benchmarks/*.py")
    return {"commit": git("rev-parse", "--short=10", "HEAD") or "unknown", "is_changed": bool(changed)}


def say(text: str) -> None:
    """Report progress on standard error."""
    print(text, file=sys.stderr, flush=True)

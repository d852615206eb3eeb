"""How a network's health is shown: a table for a person, one JSON object for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dan_async.cli.screen import clean, result
from dan_async.networks.base import NetworkHealth

__all__ = ["as_json", "as_lines", "refreshing"]

#: Width of a table that goes into a file or a pipe, where nothing should be folded.
_WIDE = 10_000

_COLOURS = {"live": "green", "down": "red"}


def as_json(health: NetworkHealth, *, needed: int | None) -> str:
    """
    Give one line of JSON.

    Args:
        health: What was seen.
        needed: How many nodes must be live, if that was asked.
    """
    return json.dumps(
        {
            "live": health.live,
            "total": len(health.nodes),
            "threshold": needed,
            "nodes": [
                {
                    "name": node.name,
                    "url": node.url,
                    "state": node.state,
                    "isLive": node.is_live,
                    "latencyMs": _milliseconds(node.latency_s),
                    "averageLatencyMs": _milliseconds(node.average_latency_s),
                    "clockSkewMs": _milliseconds(node.clock_skew_s),
                    "failures": node.failures,
                    "restsForMs": _milliseconds(node.rests_for_s),
                    "problem": node.problem or None,
                }
                for node in health.nodes
            ],
        }
    )


def as_lines(health: NetworkHealth, *, needed: int | None) -> str:
    """Give the table as text, without anything that only a terminal understands."""
    console = Console(file=sys.stdout, width=_WIDE, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as captured:
        console.print(_table(health, needed))
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


@contextmanager
def refreshing() -> Iterator[Callable[[NetworkHealth, int | None], None]]:
    """
    Give a function that shows the health, each time in place of the last; below it, where output is not a terminal.

    Raises:
        DanError: From the function: nobody reads the output any more.
    """
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda health, needed: result(as_lines(health, needed=needed) + "\n")
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        yield lambda health, needed: live.update(_table(health, needed), refresh=True)


def _table(health: NetworkHealth, needed: int | None) -> Group:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Node", no_wrap=True)
    table.add_column("URL", overflow="fold")
    table.add_column("State", no_wrap=True)
    table.add_column("Latency", justify="right", no_wrap=True)
    table.add_column("Average", justify="right", no_wrap=True)
    table.add_column("Clock", justify="right", no_wrap=True)
    table.add_column("Problem", overflow="fold")
    for node in health.nodes:
        rest = f", rests {node.rests_for_s:.0f} s" if node.rests_for_s >= 0.5 else ""
        table.add_row(
            # As Text: what comes from outside is neither markup nor, once clean, anything that a terminal obeys.
            Text(clean(node.name)),
            Text("" if node.url == node.name else clean(node.url)),
            Text(node.state + rest, style=_COLOURS.get(node.state, "yellow")),
            Text(_shown(node.latency_s)),
            Text(_shown(node.average_latency_s)),
            Text("" if node.clock_skew_s is None else f"{node.clock_skew_s:+.3f} s"),
            Text(" ".join(clean(node.problem).split())),
        )
    total = len(health.nodes)
    said = f"{health.live} of {total} live" + ("" if needed is None else f", {needed} needed")
    is_enough = health.live >= (1 if needed is None else needed)
    return Group(table, Text(f"\n{said}", style="" if is_enough else "bold red"))


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)

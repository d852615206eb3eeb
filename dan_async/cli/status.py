"""``dan-async status``: how the nodes are, or whether the gateway takes connections."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import typer
from attrs import evolve, frozen
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from dan_async.cli.options import NetworkOptions, option, parse_node, whole_number
from dan_async.cli.screen import (
    DONE,
    FAILED,
    Stopped,
    clean,
    console,
    log_lines,
    progress,
    result,
    run_until_signal,
)
from dan_async.config import Timeouts
from dan_async.errors import ConfigurationError
from dan_async.network_file import NetworkFile
from dan_async.opening import make_network

if TYPE_CHECKING:
    from dan_async.network import Network, NetworkHealth

#: Width of a table that goes into a file or a pipe, where nothing should be folded.
_WIDE = 10_000

#: A terminal narrower than this has the nodes' names, URLs and problems below the table, so that they can be copied.
_NARROW = 130

_TITLES = ("Node", "URL", "State", "Latency", "Average", "Clock", "Problem")

_COLOURS = {"live": "green", "down": "red"}

#: Seconds between two looks if --watch names none.
_USUAL_PAUSE = "2"

#: For how long to pause, and to wait, in seconds.
_LEAST_S, _MOST_S = 0.1, 3600


class Command(TyperCommand):
    """Lets ``--watch`` stand without a value, which Typer has no option for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the usual pause where ``--watch`` has no value."""
        given = []
        for place, text in enumerate(args):
            given.append(text)
            if text == "--watch" and (place + 1 == len(args) or args[place + 1].startswith("-")):
                given.append(_USUAL_PAUSE)
        return super().parse_args(ctx, given)


def _seconds(value: str | float) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not _LEAST_S <= seconds <= _MOST_S:
        raise typer.BadParameter(f"must be a number of seconds from {_LEAST_S:g} to {_MOST_S:g}")
    return seconds


@frozen(kw_only=True)
class LookOptions:
    """How to look, and at what to be content."""

    threshold: int | None = option(
        "T",
        "How many nodes must be live for exit code 0; by default the network file's threshold, or one.",
        parser=whole_number(1, 1000),
    )
    watch: float | None = option(
        "[SECONDS]",
        f"Repeat until Ctrl-C, with pauses of this many seconds; {_USUAL_PAUSE} by default.",
        parser=_seconds,
    )
    timeout: float = option("SECONDS", "How long to wait for the slowest node.", parser=_seconds, default=5.0)
    as_json: bool = option(
        None, "Print one JSON object on standard output; with --watch, one per line.", "--json", default=False
    )


def status(*, network: NetworkOptions, look: LookOptions) -> None:
    """
    Show the state of each node: whether it answers, how fast, and how far its clock is off.

    Each node must prove its identity. Exit codes: 0 enough of them are live, 1
    too few are, 2 the input is wrong. With --watch, Ctrl-C and SIGTERM end it
    with exit code 0.

    Try it: dan-async devnet --write net.toml in one terminal, and dan-async
    status --network net.toml in another.
    """
    timeouts = Timeouts(attempt_s=look.timeout, connect_s=look.timeout)
    chosen, threshold = _choose(network, look.threshold, timeouts)
    with log_lines(held_back=True):
        if look.watch is not None:
            with suppress(Stopped):
                run_until_signal(_watch(chosen, look.timeout, look.watch, threshold, as_object=look.as_json))
            return
        with progress("Asking the network …"):
            health = run_until_signal(_look_once(chosen, look.timeout))
    if look.as_json:
        result(as_json(health, needed=threshold))
    else:
        screen = console()
        result(as_lines(health, needed=threshold, width=screen.width if screen.is_terminal else _WIDE))
    raise typer.Exit(DONE if health.live >= (threshold or 1) else FAILED)


def _choose(options: NetworkOptions, threshold: int | None, timeouts: Timeouts) -> tuple[Network, int | None]:
    """
    Choose the network as for a key, but for a single node, which can be looked at as well.

    Return it and how many of its nodes must be live, if an option or the network file says so.
    """
    gateway = options.gateway
    if options.node is not None and options == NetworkOptions(node=options.node[:1]):
        file = NetworkFile(nodes=(parse_node(options.node[0], 1),))
    else:
        if gateway is not None and options.api_version is None and gateway.rstrip("/").endswith("/v2"):
            options = evolve(options, api_version="v2")
        file = cast("NetworkFile", options.choose().file)
    if threshold is not None:
        if file.gateway is not None:
            raise ConfigurationError(
                "--threshold is for nodes", hint="The nodes behind a gateway cannot be seen"
            )
        if threshold > len(file.nodes):
            raise ConfigurationError(
                f"--threshold asks for {threshold} nodes, but {len(file.nodes)} are named",
                hint="Repeat --node for each node, or ask for fewer",
            )
    elif file.threshold is not None and file.gateway is None:
        threshold = file.threshold.t
    return make_network(file, timeouts=timeouts), threshold


async def _look_once(network: Network, timeout_s: float) -> NetworkHealth:
    async with aclosing(network):
        return await network.health(timeout_s=timeout_s)


async def _watch(
    network: Network, timeout_s: float, pause_s: float, needed: int | None, *, as_object: bool
) -> None:
    async with aclosing(network):
        with _display(needed, as_object=as_object) as show:
            while True:
                show(await network.health(timeout_s=timeout_s))
                await asyncio.sleep(pause_s)


@contextmanager
def _display(needed: int | None, *, as_object: bool) -> Iterator[Callable[[NetworkHealth], None]]:
    """Return a function that shows the health: in place of the last one on a terminal, below it elsewhere and as JSON."""
    screen = console()
    if as_object:
        yield lambda health: result(as_json(health, needed=needed))
    elif not screen.is_terminal or screen.is_dumb_terminal:
        yield lambda health: result(as_lines(health, needed=needed) + "\n")
    else:
        with Live(console=screen, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda health: live.update(_table(health, needed, screen.width), refresh=True)


def as_json(health: NetworkHealth, *, needed: int | None) -> str:
    """Return one line of JSON; *needed* is the number of nodes that must be live, if anything says so."""
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


def as_lines(health: NetworkHealth, *, needed: int | None, width: int = _WIDE) -> str:
    """Return the table as text, without anything that only a terminal understands."""
    screen = console(width=width, color_system=None, force_terminal=False)
    with screen.capture() as captured:
        screen.print(_table(health, needed, width))
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def _table(health: NetworkHealth, needed: int | None, width: int) -> Group:
    table = Table(box=None, pad_edge=False, header_style="bold")
    is_narrow = width < _NARROW
    below: list[Text] = []
    for title in ("Node", "State", "Latency", "Average", "Clock") if is_narrow else _TITLES:
        is_figure = title in ("Latency", "Average", "Clock")
        table.add_column(title, justify="right" if is_figure else "left", no_wrap=True)
    for place, node in enumerate(health.nodes):
        rest = f", rests {node.rests_for_s:.0f} s" if node.rests_for_s >= 0.5 else ""
        # As Text, so that nothing from outside is markup, and cleaned, so that the terminal obeys none of it.
        name, url = Text(clean(node.name)), Text("" if node.url == node.name else clean(node.url))
        problem = Text(" ".join(clean(node.problem).split()))
        cells = (
            Text(node.state + rest, style=_COLOURS.get(node.state, "yellow")),
            Text(_shown(node.latency_s)),
            Text(_shown(node.average_latency_s)),
            Text("" if node.clock_skew_s is None else f"{node.clock_skew_s:+.3f} s"),
        )
        if is_narrow:
            table.add_row(Text(str(place)), *cells)
            below += [Text(f"\n{place}"), *(Text("  ") + line for line in (name, url, problem) if line.plain)]
        else:
            table.add_row(name, url, *cells, problem)
    total = len(health.nodes)
    summary = f"{health.live} of {total} live" + ("" if needed is None else f", {needed} needed")
    is_enough = health.live >= (1 if needed is None else needed)
    return Group(table, *below, Text(f"\n{summary}", style="" if is_enough else "bold red"))


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f} ms"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)

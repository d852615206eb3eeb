"""``dan-async status``: how the nodes are, or whether the gateway takes connections."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from dan_async.cli.common_options import NETWORK_PANEL, NodeOption
from dan_async.cli.exit_codes import DONE, FAILED, INTERRUPTED, TERMINATED
from dan_async.cli.log_lines import log_lines
from dan_async.cli.network_choice import check_gateway, parse_node
from dan_async.cli.screen import progress, result
from dan_async.cli.signals import run_until_signal
from dan_async.cli.status_view import as_json, as_lines, refreshing
from dan_async.cli.whole_number import whole_number
from dan_async.config import Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError

if TYPE_CHECKING:
    from dan_async.networks.base import Network, NetworkHealth

__all__ = ["StatusCommand", "status"]

#: Seconds between two looks if --watch names none.
_USUAL_PAUSE = "2"

#: Gives what is shown of one look.
_Show = Callable[["NetworkHealth", int | None], None]


class StatusCommand(TyperCommand):
    """Lets ``--watch`` stand alone: its value can be left out, which click's options cannot say through Typer."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the usual value where ``--watch`` has none, and go on as always."""
        given = []
        for place, text in enumerate(args):
            given.append(text)
            if text == "--watch" and (place + 1 == len(args) or args[place + 1].startswith("-")):
                given.append(_USUAL_PAUSE)
        return super().parse_args(ctx, given)


def _seconds(least: float, most: float) -> Callable[[str | float], float]:
    def parse(value: str | float) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not least <= seconds <= most:
            raise typer.BadParameter(f"must be a number of seconds from {least:g} to {most:g}")
        return seconds

    return parse


def status(
    *,
    node: NodeOption = None,
    gateway: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A gateway, with its version: wss://gateway.example/v1. The nodes behind it cannot be seen.",
            rich_help_panel=NETWORK_PANEL,
        ),
    ] = None,
    threshold: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, 1000),
            metavar="T",
            help="With --node: how many nodes must be live for exit code 0; one if not given.",
        ),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            parser=_seconds(0.1, 3600),
            metavar="[SECONDS]",
            help=f"Look again and again until Ctrl-C, with a pause of so many seconds, {_USUAL_PAUSE} if not given.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            parser=_seconds(0.1, 3600), metavar="SECONDS", help="How long to wait for the slowest node."
        ),
    ] = 5.0,
    as_one_object: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object on standard output; with --watch, one a line."),
    ] = False,
) -> None:
    """
    Show how each node is: whether it answers, how fast, and how far its clock is off.

    Each node must prove who it is, as in every use. Exit codes: 0 enough of them are live, 1 too few are, 2 the input is
    wrong. With --watch, Ctrl-C and SIGTERM end it with exit code 0.

    Try it: dan-async devnet in one terminal prints --node options for another.
    """
    network = _choose(node or [], gateway, threshold, Timeouts(attempt_s=timeout, connect_s=timeout))
    seen: list[NetworkHealth] = []

    def as_object(health: NetworkHealth, needed: int | None) -> None:
        result(as_json(health, needed=needed))

    def as_table(health: NetworkHealth, needed: int | None) -> None:
        result(as_lines(health, needed=needed))

    with log_lines(held_back=True):
        if watch is not None:
            run_until_signal(_watch(network, timeout, watch, threshold, as_object if as_one_object else None))
            return
        with progress("Asking how they are …"):
            stopped_by = run_until_signal(_look_once(network, timeout, seen))
    if stopped_by is not None:
        raise typer.Exit(INTERRUPTED if stopped_by.name == "SIGINT" else TERMINATED)
    (as_object if as_one_object else as_table)(seen[0], threshold)
    raise typer.Exit(DONE if seen[0].live >= (threshold or 1) else FAILED)


def _choose(nodes: list[str], gateway: str | None, threshold: int | None, timeouts: Timeouts) -> Network:
    if gateway is not None:
        if nodes:
            raise ConfigurationError("--node and --gateway both name a network", hint="Give one of them")
        if threshold is not None:
            raise ConfigurationError(
                "--threshold is for --node", hint="The nodes behind a gateway cannot be seen"
            )
        from dan_async.networks.gateway import GatewayNetwork

        version = "v2" if gateway.rstrip("/").endswith("/v2") else "v1"
        chosen = check_gateway(gateway, None, version)
        return GatewayNetwork(chosen.url, api_version=version, timeouts=timeouts)
    if not nodes:
        raise ConfigurationError(
            "no network is named", hint="Use --node URL=OPERATOR once for each node, or --gateway URL"
        )
    endpoints = [parse_node(text, place) for place, text in enumerate(nodes, start=1)]
    if threshold is not None and threshold > len(endpoints):
        raise ConfigurationError(
            f"--threshold asks for {threshold} nodes, and {len(endpoints)} are named",
            hint="Repeat --node for each node, or ask for fewer",
        )
    from dan_async.networks.direct import NodeNetwork

    try:
        return NodeNetwork(endpoints, timeouts=timeouts)
    except InvalidFieldError as error:
        problem = error.message.removeprefix(error.field + " ")
        raise InvalidFieldError("--node", problem, hint=error.hint) from None


async def _look_once(network: Network, timeout_s: float, seen: list[NetworkHealth]) -> None:
    try:
        seen.append(await network.health(timeout_s=timeout_s))
    finally:
        await network.aclose()


async def _watch(
    network: Network, timeout_s: float, pause_s: float, needed: int | None, show_object: _Show | None
) -> None:
    try:
        if show_object is not None:
            await _look_again(network, timeout_s, pause_s, needed, show_object)
            return
        with refreshing() as show:
            await _look_again(network, timeout_s, pause_s, needed, show)
    finally:
        await network.aclose()


async def _look_again(
    network: Network, timeout_s: float, pause_s: float, needed: int | None, show: _Show
) -> None:
    while True:
        show(await network.health(timeout_s=timeout_s), needed)
        await asyncio.sleep(pause_s)

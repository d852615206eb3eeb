"""Which network makes the key: a devnet of our own, or nodes that run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from dan_async.config import DEFAULT_THRESHOLD, NodeEndpoint, Threshold, Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError

if TYPE_CHECKING:
    from dan_async.networks.base import Network, NetworkSource

__all__ = ["DEVNET_CHAIN_ID", "NetworkChoice", "check_threshold", "choose_network"]

#: Polygon Amoy, a test network: on a devnet the chain id is only a label in the payload.
DEVNET_CHAIN_ID = 80002


@frozen(kw_only=True)
class NetworkChoice:
    """
    A network that was named and checked, and not yet opened.

    Args:
        threshold: t and n of the key to make.
        nodes: The nodes to talk to; none for a devnet, which starts its own.
    """

    threshold: Threshold
    nodes: tuple[NodeEndpoint, ...] = ()

    @property
    def is_devnet(self) -> bool:
        """Whether the nodes are our own."""
        return not self.nodes

    def describe(self) -> str:
        """Say what is being waited for."""
        return f"{self.threshold.n} nodes on loopback" if self.is_devnet else f"{len(self.nodes)} nodes"

    def open(self, timeouts: Timeouts) -> Network | NetworkSource:
        """Make what a client takes; the client starts and stops it."""
        if self.is_devnet:
            from dan_async.devnet import Devnet

            return Devnet(self.threshold.t, self.threshold.n)
        from dan_async.networks.direct import NodeNetwork

        return NodeNetwork(self.nodes, timeouts=timeouts)


def choose_network(
    *, devnet: str | None, nodes: Sequence[str], threshold: int | None, parties: int | None
) -> NetworkChoice:
    """
    Check what the options name.

    Args:
        devnet: ``T-of-N``.
        nodes: ``URL=OPERATOR`` each.
        threshold: t, for nodes.
        parties: n, for nodes.

    Raises:
        ConfigurationError: Not exactly one network is named, or it is malformed.
    """
    if devnet is not None and nodes:
        raise ConfigurationError("--devnet and --node both name a network", hint="Give one of them")
    if devnet is not None:
        if threshold is not None or parties is not None:
            raise ConfigurationError(
                "--threshold and --parties are for --node", hint="--devnet T-of-N says both: --devnet 3-of-5"
            )
        return NetworkChoice(threshold=_parse_threshold(devnet))
    if not nodes:
        raise ConfigurationError(
            "no network is named", hint="Use --devnet 3-of-5, or --node URL=OPERATOR once for each node"
        )
    endpoints = tuple(_parse_node(text, place) for place, text in enumerate(nodes, start=1))
    return NetworkChoice(threshold=_threshold_for(endpoints, threshold, parties), nodes=endpoints)


def check_threshold(threshold: int, parties: int, *, parties_option: str) -> Threshold:
    """
    Check t and n that come from options of their own.

    Raises:
        InvalidFieldError: One is out of range; the error names the option.
    """
    try:
        return Threshold(threshold, parties)
    except InvalidFieldError as error:
        option = parties_option if error.field == "parties_number" else "--threshold"
        problem = error.message.removeprefix(error.field + " ").replace("parties_number", parties_option)
        raise InvalidFieldError(option, problem, hint=error.hint) from None


def _threshold_for(
    endpoints: tuple[NodeEndpoint, ...], threshold: int | None, parties: int | None
) -> Threshold:
    n = min(DEFAULT_THRESHOLD.n, len(endpoints)) if parties is None else parties
    agreed = check_threshold(
        DEFAULT_THRESHOLD.t if threshold is None else threshold, n, parties_option="--parties"
    )
    if agreed.n > len(endpoints):
        raise ConfigurationError(
            f"--parties asks for {agreed.n} nodes, and {len(endpoints)} are named",
            hint="Repeat --node for each node, or ask for fewer",
        )
    return agreed


def _parse_threshold(text: str) -> Threshold:
    try:
        return Threshold.parse(text)
    except InvalidFieldError as error:
        if "form" in error.message:
            raise ConfigurationError("--devnet must have the form T-of-N", hint=error.hint) from None
        problem = error.message.replace("threshold", "T").replace("parties_number", "N")
        raise ConfigurationError(f"--devnet: {problem}", hint=error.hint) from None


def _parse_node(text: str, place: int) -> NodeEndpoint:
    try:
        return NodeEndpoint.of(text)
    except ConfigurationError as error:
        which = f"--node number {place}" if place > 1 else "--node"
        raise ConfigurationError(
            f"{which}: {error.message}",
            hint=error.hint
            or "For example: wss://node.example/v1/rpc=0x..., with the operator's address after the =",
        ) from None

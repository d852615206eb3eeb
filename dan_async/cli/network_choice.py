"""Which network makes the key: a devnet of our own, nodes that run elsewhere, or a gateway in front of some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from dan_async.config import DEFAULT_THRESHOLD, NodeEndpoint, Threshold, Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError

if TYPE_CHECKING:
    from dan_async.networks.base import Network, NetworkSource

__all__ = [
    "DEVNET_CHAIN_ID",
    "GatewayChoice",
    "NetworkChoice",
    "check_gateway",
    "check_threshold",
    "choose_network",
    "parse_node",
]

#: Polygon Amoy, a test network: on a devnet the chain id is only a label in the payload.
DEVNET_CHAIN_ID = 80002


@frozen(kw_only=True)
class GatewayChoice:
    """
    A gateway that was named and checked.

    Args:
        url: Its URL, version segment included.
        revision: Its revision, if it was named.
        api_version: ``v1`` or ``v2``.
    """

    url: str
    revision: str | None
    api_version: str


@frozen(kw_only=True)
class NetworkChoice:
    """
    A network that was named and checked, and not yet opened.

    Args:
        threshold: t and n of the key to make.
        nodes: The nodes to talk to; none for a devnet, which starts its own.
        gateway: The gateway to talk to instead.
    """

    threshold: Threshold
    nodes: tuple[NodeEndpoint, ...] = ()
    gateway: GatewayChoice | None = None

    @property
    def is_devnet(self) -> bool:
        """Whether the nodes are our own."""
        return not self.nodes and self.gateway is None

    def describe(self) -> str:
        """Say what is being waited for."""
        if self.gateway is not None:
            return "the gateway"
        return f"{self.threshold.n} nodes on loopback" if self.is_devnet else f"{len(self.nodes)} nodes"

    def open(self, timeouts: Timeouts) -> Network | NetworkSource:
        """Make what a client takes; the client starts and stops it."""
        if self.is_devnet:
            from dan_async.devnet import Devnet

            return Devnet(self.threshold.t, self.threshold.n)
        if self.gateway is not None:
            from dan_async.networks.gateway import GatewayNetwork

            return GatewayNetwork(
                self.gateway.url,
                revision=self.gateway.revision,
                api_version=self.gateway.api_version,
                timeouts=timeouts,
            )
        from dan_async.networks.direct import NodeNetwork

        return NodeNetwork(self.nodes, timeouts=timeouts)


def choose_network(
    *,
    devnet: str | None,
    nodes: Sequence[str],
    threshold: int | None,
    parties: int | None,
    gateway: str | None = None,
    revision: str | None = None,
    api_version: str | None = None,
) -> NetworkChoice:
    """
    Check what the options name.

    Args:
        devnet: ``T-of-N``.
        nodes: ``URL=OPERATOR`` each.
        threshold: t, for nodes and for a gateway.
        parties: n, for nodes and for a gateway.
        gateway: A gateway's URL.
        revision: The gateway's revision, if it is not to be found out.
        api_version: The form of the gateway's exchange; ``v1`` if None.

    Raises:
        ConfigurationError: Not exactly one network is named, or it is malformed.
    """
    named = [
        option
        for option, is_given in (
            ("--devnet", devnet is not None),
            ("--node", bool(nodes)),
            ("--gateway", gateway is not None),
        )
        if is_given
    ]
    if len(named) > 1:
        raise ConfigurationError(f"{' and '.join(named)} both name a network", hint="Give one of them")
    if gateway is None and (revision is not None or api_version is not None):
        raise ConfigurationError(
            "--revision and --api-version are for --gateway", hint="Leave them out, or name the gateway"
        )
    if devnet is not None:
        if threshold is not None or parties is not None:
            raise ConfigurationError(
                "--threshold and --parties are for --node and --gateway",
                hint="--devnet T-of-N says both: --devnet 3-of-5",
            )
        return NetworkChoice(threshold=_parse_threshold(devnet))
    if gateway is not None:
        chosen = check_gateway(gateway, revision, api_version or "v1")
        return NetworkChoice(threshold=_usual_threshold(threshold, parties), gateway=chosen)
    if not nodes:
        raise ConfigurationError(
            "no network is named",
            hint="Use --devnet 3-of-5, --node URL=OPERATOR once for each node, or --gateway URL",
        )
    endpoints = tuple(parse_node(text, place) for place, text in enumerate(nodes, start=1))
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


def _usual_threshold(
    threshold: int | None, parties: int | None, most: int = DEFAULT_THRESHOLD.n
) -> Threshold:
    n = min(DEFAULT_THRESHOLD.n, most) if parties is None else parties
    t = DEFAULT_THRESHOLD.t if threshold is None else threshold
    return check_threshold(t, n, parties_option="--parties")


def _threshold_for(
    endpoints: tuple[NodeEndpoint, ...], threshold: int | None, parties: int | None
) -> Threshold:
    agreed = _usual_threshold(threshold, parties, len(endpoints))
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


def parse_node(text: str, place: int) -> NodeEndpoint:
    """
    Read the value of --node.

    Args:
        text: ``URL=OPERATOR``.
        place: Which --node it is, from 1, for the error.

    Raises:
        ConfigurationError: It is malformed.
    """
    try:
        return NodeEndpoint.of(text)
    except ConfigurationError as error:
        which = f"--node number {place}" if place > 1 else "--node"
        raise ConfigurationError(
            f"{which}: {error.message}",
            hint=error.hint
            or "For example: wss://node.example/v1/rpc=0x..., with the operator's address after the =",
        ) from None


def check_gateway(url: str, revision: str | None, api_version: str) -> GatewayChoice:
    """
    Check what --gateway, --revision and --api-version say.

    Raises:
        InvalidFieldError: One is malformed, or they do not go together; the error names the option.
    """
    from dan_async.networks.gateway_url import check_gateway_revision, check_gateway_url

    try:
        check_gateway_revision(revision, api_version)
        checked = check_gateway_url("--gateway", url, api_version)
    except InvalidFieldError as error:
        option = {"revision": "--revision", "api_version": "--api-version"}.get(error.field, error.field)
        problem = error.message.removeprefix(error.field + " ").replace("api_version", "--api-version")
        hint = error.hint.replace("api_version", "--api-version")
        raise InvalidFieldError(option, problem, hint=hint) from None
    return GatewayChoice(url=checked, revision=revision, api_version=api_version)

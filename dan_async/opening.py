"""One text to a network: ``devnet://2-of-3``, a network file or its name, a gateway's URL, or nodes with their operators."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dan_async._values import check_text
from dan_async.config import NodeEndpoint, Threshold, Timeouts
from dan_async.errors import ConfigurationError
from dan_async.network_file import NETWORK_VARIABLE, NetworkFile, find_network_file

if TYPE_CHECKING:
    from dan_async.network import Network, NetworkSource

_DEVNET = "devnet://"


def open_network(where: str | None, *, timeouts: Timeouts | None = None) -> Network | NetworkSource:
    """Make the network that a text names; see ``DanClient.connect``."""
    text = os.environ.get(NETWORK_VARIABLE, "") if where is None else check_text("where", where, most=65_536)
    if not text:
        raise ConfigurationError(
            "no network is named",
            hint=f"For example devnet://2-of-3, a network file, or set {NETWORK_VARIABLE}",
        )
    if text.startswith(_DEVNET):
        from dan_async.devnet.cluster import Devnet

        threshold = Threshold.parse(text.removeprefix(_DEVNET).rstrip("/"))
        return Devnet(threshold.t, threshold.n)
    if "://" not in text:
        return make_network(NetworkFile.read(find_network_file(text)), timeouts=timeouts)
    urls = text.split()
    if len(urls) == 1 and "=0x" not in text:
        return make_network(NetworkFile(gateway=text), timeouts=timeouts)
    return make_network(NetworkFile(nodes=tuple(NodeEndpoint.of(url) for url in urls)), timeouts=timeouts)


def make_network(
    file: NetworkFile, *, timeouts: Timeouts | None = None, threshold: Threshold | None = None
) -> Network:
    """Make the network that a file describes; *threshold* wins over the file's."""
    common: dict[str, Any] = {
        "threshold": threshold or file.threshold,
        "options": file.options,
        "timeouts": timeouts,
    }
    if file.gateway is not None:
        from dan_async.gateway.network import GatewayNetwork

        return GatewayNetwork(file.gateway, revision=file.revision, api_version=file.api_version, **common)
    from dan_async.nodes.network import NodeNetwork

    return NodeNetwork(file.nodes, **common)

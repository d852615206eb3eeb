"""Who we talk to: the Network protocol and its forms."""

from __future__ import annotations

from dan_async.networks.base import Network, NetworkHealth, NetworkSource, NodeHealth, NodeState
from dan_async.networks.direct import NodeNetwork
from dan_async.networks.gateway import GatewayNetwork
from dan_async.networks.node_health import RestPolicy
from dan_async.networks.signing import SigningOptions

__all__ = [
    "GatewayNetwork",
    "Network",
    "NetworkHealth",
    "NetworkSource",
    "NodeHealth",
    "NodeNetwork",
    "NodeState",
    "RestPolicy",
    "SigningOptions",
]

"""The network of DAN nodes that a client asks directly."""

from __future__ import annotations

from dan_async.network import SigningOptions
from dan_async.nodes.health import RestPolicy
from dan_async.nodes.network import NodeNetwork

__all__ = ["NodeNetwork", "RestPolicy", "SigningOptions"]

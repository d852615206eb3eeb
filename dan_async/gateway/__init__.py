"""The network behind a wallet-provider gateway."""

from __future__ import annotations

from dan_async.gateway.network import GatewayNetwork

__all__ = ["GatewayNetwork"]

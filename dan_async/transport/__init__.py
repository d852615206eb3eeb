"""Ways to move JSON-RPC to one peer: a multiplexed WebSocket, HTTP, or a function in memory."""

from __future__ import annotations

from dan_async.transport.http import HttpTransport
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.transport.rpc import Transport
from dan_async.transport.websocket import WebSocketTransport

__all__ = [
    "HttpTransport",
    "InMemoryTransport",
    "Transport",
    "WebSocketTransport",
]

"""Moves JSON-RPC requests; knows nothing of what is in them."""

from __future__ import annotations

from typing import Protocol

from dan_async.types import Json

__all__ = ["Transport"]


class Transport(Protocol):
    """A way to one peer."""

    async def call(self, method: str, params: str, *, timeout_s: float | None) -> Json:
        """
        Send one request and wait for its reply.

        Args:
            method: The JSON-RPC method.
            params: Its parameters, already encoded as JSON text: a fan-out encodes them once for all nodes.
            timeout_s: Seconds to wait for the reply, connecting included; None for no limit.

        Returns:
            The decoded ``result`` member.

        Raises:
            ConnectError: The connection could not be opened; nothing was sent.
            ConnectionLostError: It broke before the reply came.
            RequestTimeoutError: No reply in time.
            RpcError: The peer answered with an error object.
            ProtocolError: The peer sent what JSON-RPC does not allow.
            ClientClosedError: The transport was closed by its owner.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection and fail what is pending. May be called twice."""
        ...

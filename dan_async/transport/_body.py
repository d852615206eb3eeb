"""A request's body that can be given up while it is being sent."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

#: Written at a time: the loop is not held for long bodies, and what waits to be sent stays small.
_PIECE = 64 * 1024


class RequestBody(aiohttp.payload.Payload):
    """
    Bytes to send.

    aiohttp closes a connection whose request was given up only when what was written to it has been sent, which is never
    if the peer does not read. The body sees the connection it is written to, so that ``drop_if_closing`` can end that.

    Args:
        value: The bytes.
    """

    _autoclose = True  # nothing to close: bytes in memory

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self._size = len(value)
        self._transport: asyncio.Transport | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Give the text."""
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: Any) -> None:
        """Send the bytes."""
        self._transport = writer.transport
        value = self._value
        if len(value) <= _PIECE:
            await writer.write(value)
            return
        for start in range(0, len(value), _PIECE):
            await writer.write(value[start : start + _PIECE])

    def drop_if_closing(self) -> None:
        """End the connection at once if it is being closed; one that serves further requests is left alone."""
        if self._transport is not None and self._transport.is_closing():
            self._transport.abort()

"""aiohttp's WebSocket, with what a ``FrameSocket`` needs to see and to write besides."""

from __future__ import annotations

import asyncio
import os
import select

import aiohttp
from aiohttp import WSMsgType

#: Not everywhere; where it is not, the question is answered with a yes.
_POLL = getattr(select, "poll", None)


def control_frame(opcode: WSMsgType, payload: bytes = b"") -> bytes:
    """
    Write a client's close, ping or pong frame (RFC 6455 section 5.5).

    Args:
        opcode: Which of them.
        payload: At most 125 bytes.
    """
    key = os.urandom(4)
    masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
    return bytes((0x80 | opcode, 0x80 | len(payload))) + key + masked


def may_be_readable(transport: asyncio.Transport) -> bool:
    """Tell whether the operating system holds something of the peer's that the event loop has not read yet."""
    socket = transport.get_extra_info("socket")
    if _POLL is None or socket is None or transport.is_closing():
        return True
    poll = _POLL()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class WebSocket(aiohttp.ClientWebSocketResponse):
    """aiohttp's WebSocket, which also shows what it is made of; for ``ClientSession(ws_response_class=…)``."""

    @property
    def response(self) -> aiohttp.ClientResponse:
        """The response that opened it."""
        return self._response

    def may_hold_frames(self) -> bool:
        """Tell whether frames, or the end of them, have been read from the connection and not been received."""
        queue = self._reader
        # aiohttp does not promise how it keeps its frames; where they cannot be seen, there may be some.
        return bool(queue.exception() or queue.is_eof() or getattr(queue, "_buffer", True))

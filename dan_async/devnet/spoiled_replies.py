"""Answers that are none: half a frame, garbage, and bytes that never end, written past aiohttp to the connection itself."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Iterator

from dan_async.devnet.faults import Disconnect, SendGarbage, Trickle

__all__ = ["SpoiledReply", "spoil_http", "spoil_websocket"]

SpoiledReply = Disconnect | SendGarbage | Trickle

#: RFC 6455 section 5.2: opcodes, the bit of a message's last frame, and what says that the length follows.
_CONTINUATION, _TEXT, _BINARY, _LAST = 0x0, 0x1, 0x2, 0x80
_LENGTH_16, _LENGTH_64 = 126, 127
_LONGEST_16 = 0xFFFF

_GARBAGE_BYTES = 64


def frame(opcode: int, payload: bytes) -> bytes:
    """Write a server's whole frame."""
    return _head(_LAST | opcode, len(payload)) + payload


def _head(first: int, length: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, length))
    if length <= _LONGEST_16:
        return bytes((first, _LENGTH_16)) + length.to_bytes(2, "big")
    return bytes((first, _LENGTH_64)) + length.to_bytes(8, "big")


def endless_message() -> Iterator[bytes]:
    """Give a text message without end, a byte at a time: one frame after the other, none of them the last."""
    opcode = _TEXT
    while True:
        for byte in _head(opcode, _LONGEST_16):
            yield bytes((byte,))
        for _ in range(_LONGEST_16):
            yield b" "
        opcode = _CONTINUATION


def endless_body() -> Iterator[bytes]:
    """Give the head of an HTTP response, and then its body without end, a chunk of one byte at a time."""
    yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"1\r\n \r\n"


def _no_json() -> str:
    return '{"jsonrpc":"2.0",' + base64.b64encode(secrets.token_bytes(_GARBAGE_BYTES)).decode()


def _no_frame() -> bytes:
    # All reserved bits and a reserved opcode: never a frame that a reader would wait to see completed.
    return b"\xff" + secrets.token_bytes(_GARBAGE_BYTES)


async def spoil_websocket(
    transport: asyncio.Transport, fault: SpoiledReply, reply: str, *, is_over: Callable[[], bool]
) -> None:
    """
    Write what the fault makes of an answer. Only garbage leaves the connection open and fit for further answers.

    Args:
        transport: The connection, past the upgrade.
        fault: What to do.
        reply: The answer, as it would have been.
        is_over: Tells a trickle that it has to end.
    """
    if isinstance(fault, Disconnect):
        whole = frame(_TEXT, reply.encode())
        _cut_after(transport, whole[: len(whole) // 2])
    elif isinstance(fault, Trickle):
        await _trickle(transport, endless_message(), fault.seconds, is_over)
    elif fault.form == "raw":
        transport.write(_no_frame())
    elif fault.form == "binary":
        transport.write(frame(_BINARY, secrets.token_bytes(_GARBAGE_BYTES)))
    else:
        transport.write(frame(_TEXT, _no_json().encode()))


async def spoil_http(
    transport: asyncio.Transport, fault: SpoiledReply, reply: str, *, is_over: Callable[[], bool]
) -> None:
    """Write what the fault makes of an answer to a POST, and close the connection; see ``spoil_websocket``."""
    if isinstance(fault, Trickle):
        await _trickle(transport, endless_body(), fault.seconds, is_over)
        return
    body = reply.encode()
    if isinstance(fault, Disconnect):
        whole = _http(body)
        _cut_after(transport, whole[: len(whole) - len(body) // 2 - 1])
    elif fault.form == "raw":
        _cut_after(transport, _no_frame())
    elif fault.form == "binary":
        _cut_after(transport, _http(secrets.token_bytes(_GARBAGE_BYTES), "application/octet-stream"))
    else:
        _cut_after(transport, _http(_no_json().encode()))


def _http(body: bytes, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _cut_after(transport: asyncio.Transport, data: bytes) -> None:
    transport.write(data)
    transport.close()  # when that has been sent


async def _trickle(
    transport: asyncio.Transport, pieces: Iterator[bytes], seconds: float, is_over: Callable[[], bool]
) -> None:
    try:
        for piece in pieces:
            if transport.is_closing() or is_over():
                return
            transport.write(piece)
            await asyncio.sleep(seconds)
    finally:
        # In the middle of a message there is nothing else to say, and no one may be reading.
        transport.abort()

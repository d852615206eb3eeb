"""The means of a faulty node: a second face in a key generation, and replies to clients that are none."""

from __future__ import annotations

import asyncio
import base64
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

from attrs import define, evolve, field

from dan_async.devnet.mpc.dkg import ProvingParty, Session, ShareMessage, sign_message
from dan_async.devnet.mpc.framing import join_parts, split_parts

#: Signs a 32-byte digest as the node's operator.
Sign = Callable[[bytes], bytes]


def spoilt(data: bytes) -> bytes:
    """Change the last byte."""
    return data[:-1] + bytes((data[-1] ^ 1,))


@define(kw_only=True)
class KeygenFace:
    """A node in one key generation, with a second face for its victim, who is the last of the other parties."""

    session: Session
    index: int
    sign: Sign
    #: Starts another session under the id of the key generation.
    squat: Callable[[], None]
    #: The bodies of the other parties of round 1, once they are there.
    commitments: Mapping[int, bytes] = field(factory=dict)
    #: Another party in the node's name.
    _second: ProvingParty = field(init=False)

    @_second.default
    def _second_party(self) -> ProvingParty:
        return ProvingParty(self.session, self.index, self.sign)

    @property
    def victim(self) -> int:
        last = len(self.session.identities)
        return last if last != self.index else last - 1

    def other_commitment(self) -> bytes:
        """Commit to another polynomial: the body of round 1 for the victim."""
        return self._second.commit()

    def other_opening(self) -> bytes:
        """Open the other polynomial: the body of round 2 for the victim."""
        return self._second.open(self.commitments)[self.victim]

    def with_wrong_share(self, body: bytes) -> bytes:
        """Change the share in a body of round 2 and sign it again: only the commitments tell that it is wrong."""
        opened, share = split_parts(body, 2)
        context = self.session.context
        message = ShareMessage.decode(share, context)
        wrong = sign_message(evolve(message, share=spoilt(message.share)), context, self.sign)
        return join_parts((opened, wrong.encode(context)))


# --- replies to clients -----------------------------------------------------------------------------------------------

#: RFC 6455 section 5.2: opcodes, the bit of a message's last frame, and what says that the length follows.
_CONTINUATION, _TEXT, _BINARY, _LAST = 0x0, 0x1, 0x2, 0x80
_LENGTH_16, _LENGTH_64 = 126, 127
_LONGEST_16 = 0xFFFF

_GARBAGE_BYTES = 64


class SpoiltReply(ABC):
    """A reply that a fault writes in the node's place, past aiohttp to the connection itself."""

    def __init__(self, transport: asyncio.Transport, text: str, *, is_over: Callable[[], bool]) -> None:
        self._transport = transport
        self._text = text.encode()
        self._is_over = is_over

    #: Whether the connection stays open, and fit for further replies, after garbage.
    stays_open: ClassVar[bool]

    @abstractmethod
    def half(self) -> bytes:
        """Return the first half of it."""

    @abstractmethod
    def whole(self, content: bytes, *, is_text: bool) -> bytes:
        """Return a complete message in its place."""

    def cut(self) -> None:
        """Send half of it and close the connection."""
        self._transport.write(self.half())
        self._transport.close()  # when that has been sent

    def garble(self, form: str | None) -> None:
        """Send something else: random bytes that are ``raw`` or in a ``binary`` message, or text that is not JSON."""
        noise = secrets.token_bytes(_GARBAGE_BYTES)
        if form == "raw":
            # All reserved bits and a reserved opcode: never a frame that a reader would wait to see completed.
            garbage = b"\xff" + noise
        elif form == "binary":
            garbage = self.whole(noise, is_text=False)
        else:
            garbage = self.whole(b'{"jsonrpc":"2.0",' + base64.b64encode(noise), is_text=True)
        self._transport.write(garbage)
        if not self.stays_open:
            self._transport.close()

    async def trickle(self, pause_s: float) -> None:
        """Send a byte at a time, without end."""
        try:
            for piece in self._endless():
                if self._transport.is_closing() or self._is_over():
                    return
                self._transport.write(piece)
                await asyncio.sleep(pause_s)
        finally:
            # In the middle of a message there is nothing else to say, and no one may be reading.
            self._transport.abort()

    @abstractmethod
    def _endless(self) -> Iterator[bytes]: ...


class SpoiltMessage(SpoiltReply):
    """A reply over a WebSocket."""

    stays_open = True

    def half(self) -> bytes:
        whole = self.whole(self._text, is_text=True)
        return whole[: len(whole) // 2]

    def whole(self, content: bytes, *, is_text: bool) -> bytes:
        return _head(_LAST | (_TEXT if is_text else _BINARY), len(content)) + content

    def _endless(self) -> Iterator[bytes]:
        # One frame after the other, none of them the message's last.
        opcode = _TEXT
        while True:
            for byte in _head(opcode, _LONGEST_16):
                yield bytes((byte,))
            for _ in range(_LONGEST_16):
                yield b" "
            opcode = _CONTINUATION


class SpoiltResponse(SpoiltReply):
    """A reply to a POST."""

    stays_open = False

    def half(self) -> bytes:
        whole = self.whole(self._text, is_text=True)
        return whole[: len(whole) - len(self._text) // 2 - 1]

    def whole(self, content: bytes, *, is_text: bool) -> bytes:
        content_type = "application/json" if is_text else "application/octet-stream"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
        return head.encode() + content

    def _endless(self) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            yield b"1\r\n \r\n"


def _head(first: int, length: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, length))
    if length <= _LONGEST_16:
        return bytes((first, _LENGTH_16)) + length.to_bytes(2, "big")
    return bytes((first, _LENGTH_64)) + length.to_bytes(8, "big")

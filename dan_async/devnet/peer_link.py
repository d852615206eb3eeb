"""One link between two nodes: encrypted frames over one WebSocket, in order, both ways."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

import aiohttp
from aiohttp import web

from dan_async._tasks import cancel_and_wait
from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.limits import NodeLimits
from dan_async.devnet.peer_handshake import HELLO_LENGTH, Dialler, LinkKeys, accept_hello, check_finish
from dan_async.errors import ProtocolError
from dan_async.types import OperatorAddress

__all__ = ["PeerLink", "WebSocket", "dial", "listen"]

_log = logging.getLogger(__name__)

WebSocket = aiohttp.ClientWebSocketResponse | web.WebSocketResponse

#: Close code of a link that was refused: RFC 6455 leaves 4000 to 4999 to applications.
CLOSE_REFUSED = 4403

_FLUSH_S = 0.5


class PeerLink:
    """
    A link whose handshake is done.

    Args:
        peer: Who is at the other end.
        websocket: The connection.
        keys: What the handshake gave.
        limits: How long a frame, and how much may wait to be sent.
    """

    def __init__(
        self, peer: OperatorAddress, websocket: WebSocket, keys: LinkKeys, limits: NodeLimits
    ) -> None:
        self.peer = peer
        self._websocket = websocket
        self._keys = keys
        self._limits = limits
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._is_closing = False

    def send(self, frame: bytes) -> bool:
        """
        Send a frame when its turn comes, without waiting.

        Returns:
            Whether it was taken. If the peer reads too slowly, the link is closed instead.

        Raises:
            ValueError: The frame is longer than the limit.
        """
        if len(frame) > self._limits.max_peer_frame_bytes:
            raise ValueError("the frame is longer than a link carries")
        if self._is_closing:
            return False
        if self._queued_bytes + len(frame) > self._limits.max_peer_queue_bytes:
            _log.warning("peer %s: reads too slowly, the link is closed", self.peer)
            self._is_closing = True
            self._queue.clear()
            self._wake.set()
            return False
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        self._wake.set()
        return True

    async def run(self, on_frame: Callable[[bytes], None]) -> None:
        """Pass on what the peer sends until the link ends; a link that breaks or misbehaves just ends."""
        writer = asyncio.create_task(self._write(), name=f"peer link to {self.peer}")
        try:
            await self._read(on_frame)
        except ProtocolError as error:
            _log.warning("peer %s: %s; the link is closed", self.peer, error.message)
        finally:
            self._is_closing = True
            await cancel_and_wait([writer])
            await self._websocket.close()

    async def aclose(self) -> None:
        """Send what waits to be sent, for a short while, and close; ``run`` then returns."""
        self._is_closing = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._flushed.wait()
        await self._websocket.close()

    async def _read(self, on_frame: Callable[[bytes], None]) -> None:
        while True:
            message = await self._websocket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                on_frame(self._keys.receiving.open(message.data))
            elif message.type is aiohttp.WSMsgType.TEXT:
                raise ProtocolError("the peer sent text on a link")
            else:
                return

    async def _write(self) -> None:
        try:
            while True:
                while self._queue:
                    frame = self._queue.popleft()
                    self._queued_bytes -= len(frame)
                    await self._websocket.send_bytes(self._keys.sending.seal(frame))
                if self._is_closing:
                    break
                self._wake.clear()
                await self._wake.wait()
        except (ConnectionError, aiohttp.ClientError):
            _log.debug("peer %s: the link broke while sending", self.peer)
        finally:
            self._flushed.set()
        # Nothing more can be sent, so the reader is told to end as well.
        await self._websocket.close()


async def dial(
    session: aiohttp.ClientSession,
    url: str,
    identity: NodeIdentity,
    peer: OperatorAddress,
    limits: NodeLimits,
) -> PeerLink:
    """
    Open a link to a peer.

    Args:
        session: Where connections come from.
        url: The peer's link endpoint.
        identity: Who is calling.
        peer: Who must answer.
        limits: How long it may take, and what the link then carries.

    Raises:
        ConnectionError: The connection could not be made, or was closed in the middle.
        TimeoutError: The peer took too long.
        ProtocolError: Somebody else answered.
    """
    async with asyncio.timeout(limits.handshake_s):
        try:
            websocket = await session.ws_connect(
                url,
                max_msg_size=limits.max_peer_frame_bytes + 64,
                timeout=aiohttp.ClientWSTimeout(ws_close=_FLUSH_S),
            )
        except aiohttp.ClientError as error:
            raise ConnectionError(f"no connection to the peer ({type(error).__name__})") from error
        try:
            dialler = Dialler(identity, peer)
            await websocket.send_bytes(dialler.hello())
            finish, keys = dialler.finish(await _receive(websocket))
            await websocket.send_bytes(finish)
        except BaseException:
            await websocket.close()
            raise
    return PeerLink(peer, websocket, keys, limits)


async def listen(
    websocket: web.WebSocketResponse,
    identity: NodeIdentity,
    roster: frozenset[OperatorAddress],
    limits: NodeLimits,
) -> PeerLink:
    """
    Answer a peer that opens a link; the connection is closed if it may not.

    Args:
        websocket: The prepared connection.
        identity: Who is being called.
        roster: Who may call.
        limits: How long it may take, and what the link then carries.

    Raises:
        ConnectionError: The connection was closed in the middle.
        TimeoutError: The peer took too long.
        ProtocolError: The peer is not on the roster, or not who it says.
    """
    try:
        async with asyncio.timeout(limits.handshake_s):
            hello = await _receive(websocket)
            answer, accepted = accept_hello(identity, hello[: HELLO_LENGTH + 1], roster)
            await websocket.send_bytes(answer)
            check_finish(accepted, await _receive(websocket))
    except BaseException:
        await websocket.close(code=CLOSE_REFUSED)
        raise
    return PeerLink(accepted.dialler, websocket, accepted.keys, limits)


async def _receive(websocket: WebSocket) -> bytes:
    message = await websocket.receive()
    if message.type is aiohttp.WSMsgType.BINARY:
        return bytes(message.data)
    if message.type is aiohttp.WSMsgType.TEXT:
        raise ProtocolError("the peer sent text on a link")
    raise ConnectionError("the peer closed the link during the handshake")

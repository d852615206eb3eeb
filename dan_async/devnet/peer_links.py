"""A node's links to all others: opened when a session needs them, kept while they hold, never to anyone off the roster."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import aiohttp
from aiohttp import web

from dan_async._tasks import cancel_and_wait
from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.limits import NodeLimits
from dan_async.devnet.peer_link import PeerLink, dial, listen
from dan_async.errors import ProtocolError
from dan_async.types import OperatorAddress

__all__ = ["PeerLinks"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


class PeerLinks:
    """
    The links of one node, at most one to each peer.

    Of two nodes the one with the lower operator address dials; so there is no race between two links of a pair.

    Args:
        identity: The node's own identity.
        roster: The link endpoint of every other node, by operator.
        on_frame: Called with every frame and its sender.
        on_linked: Called when a link to a peer comes up, also after a break: what is not yet known to have arrived
            should then be sent again.
        limits: Bounds of links and handshakes.
    """

    def __init__(
        self,
        identity: NodeIdentity,
        roster: Mapping[OperatorAddress, str],
        *,
        on_frame: Callable[[OperatorAddress, bytes], None],
        on_linked: Callable[[OperatorAddress], None],
        limits: NodeLimits,
    ) -> None:
        self._identity = identity
        self._roster = dict(roster)
        self._on_frame = on_frame
        self._on_linked = on_linked
        self._limits = limits
        self._links: dict[OperatorAddress, PeerLink] = {}
        self._wanted: Counter[OperatorAddress] = Counter()
        self._diallers: dict[OperatorAddress, asyncio.Task[None]] = {}
        self._listeners: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def peers(self) -> frozenset[OperatorAddress]:
        """Every operator that this node talks to."""
        return frozenset(self._roster)

    def start(self) -> None:
        """Get ready to dial."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), trust_env=False, auto_decompress=False
        )

    @contextmanager
    def wanted(self, peers: Iterable[OperatorAddress]) -> Iterator[None]:
        """Keep the links to these peers up, as far as this node is the one to dial."""
        needed = list(peers)
        self._wanted.update(needed)
        for peer in needed:
            self._dial_if_needed(peer)
        try:
            yield
        finally:
            self._wanted.subtract(needed)

    def send(self, peer: OperatorAddress, frame: bytes) -> bool:
        """Send a frame if there is a link; if there is none, ``on_linked`` will say when there is."""
        link = self._links.get(peer)
        return link is not None and link.send(frame)

    def is_up(self, peer: OperatorAddress) -> bool:
        """Tell whether there is a link to a peer."""
        return peer in self._links

    async def accept(self, websocket: web.WebSocketResponse) -> None:
        """Serve a connection that a peer opened, until it ends."""
        if len(self._listeners) >= self._limits.max_connections:
            await websocket.close(code=1013)
            return
        # A task of our own, so that closing the node ends it and waits for it.
        task = asyncio.create_task(self._listen(websocket), name="peer link, listening")
        self._listeners.add(task)
        task.add_done_callback(self._listeners.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await cancel_and_wait([task])
            raise

    async def aclose(self) -> None:
        """Flush and close every link. May be called twice."""
        await asyncio.gather(*(link.aclose() for link in list(self._links.values())))
        await cancel_and_wait([*self._diallers.values(), *self._listeners])
        if self._session is not None:
            await self._session.close()
            self._session = None

    def abort(self) -> None:
        """Drop every link at once, as a crash would; ``aclose`` is still needed."""
        for task in (*self._diallers.values(), *self._listeners):
            task.cancel()

    # --- dialling and listening ---------------------------------------------------------------------------------------

    def _dials(self, peer: OperatorAddress) -> bool:
        return peer in self._roster and self._identity.operator.lower() < peer.lower()

    def _dial_if_needed(self, peer: OperatorAddress) -> None:
        if self._dials(peer) and peer not in self._diallers and self._session is not None:
            task = asyncio.create_task(self._dial(peer, self._session), name=f"peer link, dialling {peer}")
            self._diallers[peer] = task

    async def _dial(self, peer: OperatorAddress, session: aiohttp.ClientSession) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            while self._wanted[peer] > 0:
                try:
                    link = await dial(session, self._roster[peer], self._identity, peer, self._limits)
                except (ConnectionError, TimeoutError, ProtocolError) as error:
                    _log.debug("peer %s: no link yet: %s", peer, error)
                    await asyncio.sleep(pause_s)
                    pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
                else:
                    pause_s = _FIRST_PAUSE_S
                    await self._run(link)
        finally:
            del self._diallers[peer]

    async def _listen(self, websocket: web.WebSocketResponse) -> None:
        try:
            link = await listen(websocket, self._identity, self.peers, self._limits)
        except (ConnectionError, TimeoutError, ProtocolError) as error:
            _log.warning("a link was refused: %s %s", type(error).__name__, error)
            return
        await self._run(link)

    async def _run(self, link: PeerLink) -> None:
        replaced = self._links.get(link.peer)
        self._links[link.peer] = link
        if replaced is not None:  # the peer came back before we noticed that it was gone
            await replaced.aclose()
        try:
            self._on_linked(link.peer)
            await link.run(lambda frame: self._on_frame(link.peer, frame))
        finally:
            if self._links.get(link.peer) is link:
                del self._links[link.peer]

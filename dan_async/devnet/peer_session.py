"""
One piece of work among nodes: messages out, messages in, round by round, whatever the protocol is.

A node that is busy, and one that is gone, are told apart by signs of life: whoever takes part in a session for longer than
a moment says so from time to time. So a round may take long on a busy machine, while a dead party is noticed soon.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from dan_async._tasks import cancel_and_wait
from dan_async.devnet.mailboxes import Mailbox, Mailboxes, PeerAbortError, SilentPeersError
from dan_async.devnet.peer_links import PeerLinks
from dan_async.devnet.peer_messages import AbortNotice, Kind, PeerMessage
from dan_async.types import OperatorAddress

__all__ = ["PeerSession", "PeerSessions", "credible_culprits"]


class PeerSession:
    """
    A session as one of its parties sees it.

    Args:
        kind: What its messages are about.
        box: What the other parties have sent.
        links: Where messages go.
        clock: A monotonic clock.
    """

    def __init__(
        self, kind: Kind, box: Mailbox, links: PeerLinks, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kind = kind
        self._box = box
        self._links = links
        self._clock = clock
        self._began = clock()
        self._heard: dict[OperatorAddress, float] = {}
        self._is_mute = False
        #: Everything sent so far, to be sent again over a link that comes up in the middle.
        self._sent: dict[OperatorAddress, list[bytes]] = {}

    @property
    def id(self) -> bytes:
        """32 bytes that all parties know it by."""
        return self._box.session_id

    @property
    def peers(self) -> frozenset[OperatorAddress]:
        """The other parties."""
        return self._box.peers

    def send(self, round_: int, bodies: Mapping[OperatorAddress, bytes]) -> None:
        """Send this node's messages of a round; a peer whose link is down gets them when it comes up."""
        for peer, body in bodies.items():
            self._send(peer, PeerMessage(self._kind, self.id, round_, body))

    async def receive(
        self, round_: int, *, timeout_s: float, quiet_s: float | None = None
    ) -> dict[OperatorAddress, bytes]:
        """
        Wait for every other party's message of a round.

        Args:
            round_: The round.
            timeout_s: How long, in seconds.
            quiet_s: How long a party may give no sign of life, in seconds; None for as long as *timeout_s*.

        Raises:
            SilentPeersError: Some did not come in time; if some gave no sign of life, only those are named.
            ConflictingMessageError: A peer contradicted itself.
            PeerAbortError: A peer gave up.
        """
        end = self._clock() + timeout_s
        wait_s = timeout_s if quiet_s is None else min(quiet_s, timeout_s)
        while True:
            try:
                return await self._box.collect(round_, timeout_s=wait_s)
            except SilentPeersError as error:
                now = self._clock()
                if quiet_s is None or now >= end:
                    raise
                since = {peer: self._heard.get(peer, self._began) for peer in error.peers}
                gone = frozenset(peer for peer, heard in since.items() if now - heard >= quiet_s)
                if gone:
                    raise SilentPeersError(gone, round_) from None
                wait_s = min(end, min(since.values()) + quiet_s) - now

    def heard(self, peer: OperatorAddress) -> None:
        """Take note of a sign of life."""
        self._heard[peer] = self._clock()

    def fall_silent(self) -> None:
        """Give no more signs of life: what a fault asks for."""
        self._is_mute = True

    def show_life(self, older_than_s: float) -> None:
        """Say that this node is still at work, if it has been for so long."""
        if self._is_mute or self._clock() - self._began < older_than_s:
            return
        frame = PeerMessage(Kind.ALIVE, self.id, 0, b"").encode()
        for peer in self.peers:
            self._links.send(peer, frame)

    def abort(self, notice: AbortNotice) -> None:
        """Tell every other party that this one gives up."""
        message = PeerMessage(Kind.ABORT, self.id, 0, notice.encode())
        for peer in self.peers:
            self._send(peer, message)

    def resend(self, peer: OperatorAddress) -> None:
        """Repeat what was sent to a peer."""
        for frame in self._sent.get(peer, ()):
            self._links.send(peer, frame)

    def _send(self, peer: OperatorAddress, message: PeerMessage) -> None:
        frame = message.encode()
        self._sent.setdefault(peer, []).append(frame)
        self._links.send(peer, frame)


class PeerSessions:
    """
    The sessions that a node takes part in.

    Args:
        links: The node's links to the others.
        mailboxes: What they have sent.
        beat_s: How often the node gives signs of life, in seconds.
    """

    def __init__(self, links: PeerLinks, mailboxes: Mailboxes, *, beat_s: float = 0.5) -> None:
        self._links = links
        self._mailboxes = mailboxes
        self._beat_s = beat_s
        self._running: dict[bytes, PeerSession] = {}
        self._beating: asyncio.Task[None] | None = None

    def on_message(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Sort in a peer's message, of any kind but a status; each is a sign of life."""
        session = self._running.get(message.session_id)
        if session is not None:
            session.heard(peer)
        if message.kind is not Kind.ALIVE:
            self._mailboxes.deliver(peer, message)

    def resend(self, peer: OperatorAddress) -> None:
        """Repeat what running sessions have sent to a peer: its link has just come up."""
        for session in self._running.values():
            session.resend(peer)

    def has_run(self, session_id: bytes) -> bool:
        """Tell whether a session of that id has begun here: none may begin twice."""
        return self._mailboxes.is_known(session_id)

    @contextmanager
    def open(
        self, kind: Kind, session_id: bytes, peers: Iterable[OperatorAddress], *, rounds: int
    ) -> Iterator[PeerSession]:
        """
        Take part in a session; links to its parties are kept up meanwhile.

        Args:
            kind: What its messages are about.
            session_id: 32 bytes that no other session ever had.
            peers: The other parties.
            rounds: How many rounds there are.
        """
        listed = tuple(peers)
        box = self._mailboxes.open(session_id, listed, rounds=rounds)
        session = self._running[session_id] = PeerSession(kind, box, self._links)
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="signs of life")
        try:
            with self._links.wanted(listed):
                yield session
        finally:
            del self._running[session_id]
            self._mailboxes.close(box)

    async def aclose(self) -> None:
        """Give no more signs of life."""
        if self._beating is not None:
            await cancel_and_wait([self._beating])

    async def _beat(self) -> None:
        try:
            while self._running:
                await asyncio.sleep(self._beat_s)
                for session in self._running.values():
                    session.show_life(self._beat_s)
        finally:
            self._beating = None


def credible_culprits(
    notice: AbortNotice, error: PeerAbortError, parties: Sequence[OperatorAddress]
) -> tuple[OperatorAddress, ...]:
    """
    Decide whom to blame for a peer's abort that comes without proof. Its word is not enough.

    Whoever it names is blamed if it names itself, or if this node, too, is still waiting for that party.

    Args:
        notice: What the peer says.
        error: The abort as this node saw it.
        parties: All parties in the order of their indices.

    Returns:
        The culprits, ascending.
    """
    named = {parties[index - 1] for index in notice.culprits if index <= len(parties)}
    return tuple(sorted(named & (error.missing | {error.peer}), key=str.lower))

"""One piece of work among nodes: messages out, messages in, round by round, whatever the protocol is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from dan_async.devnet.mailboxes import Mailbox, Mailboxes, PeerAbortError
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
    """

    def __init__(self, kind: Kind, box: Mailbox, links: PeerLinks) -> None:
        self._kind = kind
        self._box = box
        self._links = links
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

    async def receive(self, round_: int, *, timeout_s: float) -> dict[OperatorAddress, bytes]:
        """
        Wait for every other party's message of a round.

        Raises:
            SilentPeersError: Some did not come in time.
            ConflictingMessageError: A peer contradicted itself.
            PeerAbortError: A peer gave up.
        """
        return await self._box.collect(round_, timeout_s=timeout_s)

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
    """

    def __init__(self, links: PeerLinks, mailboxes: Mailboxes) -> None:
        self._links = links
        self._mailboxes = mailboxes
        self._running: dict[bytes, PeerSession] = {}

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
        try:
            with self._links.wanted(listed):
                yield session
        finally:
            del self._running[session_id]
            self._mailboxes.close(box)


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

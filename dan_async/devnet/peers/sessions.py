"""
What peers have sent, sorted by session and round, also what came before the session began here.

One piece of work among nodes: messages out, messages in, round by round, whatever the protocol is.

A node that is busy, and one that is gone, are told apart by signs of life: whoever takes part in a session for longer than
a moment says so from time to time. So a round may take long on a busy machine, while a dead party is noticed soon.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import field, frozen

from dan_async.deadline import cancel_and_wait
from dan_async.devnet.peers.links import PeerLinks
from dan_async.devnet.peers.messages import AbortNotice, Kind, PeerMessage
from dan_async.errors import DanError
from dan_async.types import OperatorAddress

_log = logging.getLogger(__name__)

_KEPT_ENDED_SESSIONS = 32_768

#: What keeping a message costs beside its body, so that empty ones count too.
_MESSAGE_OVERHEAD = 256


class SilentPeersError(DanError):
    """
    Some peers sent nothing for a round within its time.

    Args:
        peers: Those.
        round_: The round.
    """

    def __init__(self, peers: frozenset[OperatorAddress], round_: int) -> None:
        super().__init__(f"{len(peers)} parties sent nothing in round {round_}")
        self.peers = peers


class ConflictingMessageError(DanError):
    """
    A peer sent two different messages for one round.

    Args:
        peer: Who.
        round_: The round.
    """

    def __init__(self, peer: OperatorAddress, round_: int) -> None:
        super().__init__(f"a party sent two different messages in round {round_}")
        self.peer = peer


class PeerAbortError(DanError):
    """
    A peer gave the session up.

    Args:
        peer: Who.
        notice: The body of its message.
        missing: The peers that have not sent anything for the current round either.
    """

    def __init__(self, peer: OperatorAddress, notice: bytes, missing: frozenset[OperatorAddress]) -> None:
        super().__init__("a party gave up")
        self.peer = peer
        self.notice = notice
        self.missing = missing


class Mailbox:
    """
    One session's messages.

    Args:
        session_id: The session.
        peers: The other parties; nobody else is listened to.
        rounds: How many rounds there are; a message for any other is ignored.
    """

    def __init__(self, session_id: bytes, peers: Iterable[OperatorAddress], rounds: int) -> None:
        self.session_id = session_id
        self.peers = frozenset(peers)
        self._rounds: dict[int, dict[OperatorAddress, bytes]] = {r: {} for r in range(1, rounds + 1)}
        self._abort: tuple[OperatorAddress, bytes] | None = None
        self._conflict: tuple[OperatorAddress, int] | None = None
        self._changed = asyncio.Event()

    def deliver(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Put a message in. The same one again changes nothing: links repeat messages after a break."""
        if peer not in self.peers:
            _log.warning("session %s: %s is not a party", self.session_id.hex(), peer)
        elif message.kind is Kind.ABORT:
            self._abort = self._abort or (peer, message.body)
        elif message.round in self._rounds:
            known = self._rounds[message.round].setdefault(peer, message.body)
            if known != message.body:
                self._conflict = self._conflict or (peer, message.round)
        self._changed.set()

    async def collect(self, round_: int, *, timeout_s: float) -> dict[OperatorAddress, bytes]:
        """
        Wait until every peer's message for a round is there.

        Raises:
            SilentPeersError: Some did not come in time.
            ConflictingMessageError: A peer contradicted itself.
            PeerAbortError: A peer gave up.
        """
        received = self._rounds[round_]
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._changed.clear()
                    if self._conflict is not None:
                        raise ConflictingMessageError(*self._conflict)
                    missing = self.peers - received.keys()
                    if not missing:
                        return dict(received)
                    if self._abort is not None:
                        raise PeerAbortError(*self._abort, missing)
                    await self._changed.wait()
        except TimeoutError:
            missing = self.peers - received.keys()
            if not missing:  # the last one came in the very last moment
                return dict(received)
            raise SilentPeersError(missing, round_) from None


@frozen
class _Early:
    peer: OperatorAddress
    message: PeerMessage
    forget_at: float = field(repr=False)

    @property
    def size(self) -> int:
        return len(self.message.body) + _MESSAGE_OVERHEAD


class Mailboxes:
    """
    The mailboxes of one node.

    Args:
        early_s: How long a message for a session that has not begun is kept, in seconds.
        early_bytes: How much of that is kept for each peer, so that none can crowd out another.
        clock: A monotonic clock.
    """

    def __init__(self, *, early_s: float, early_bytes: int, clock: Callable[[], float]) -> None:
        self._early_s = early_s
        self._early_bytes = early_bytes
        self._clock = clock
        self._open: dict[bytes, Mailbox] = {}
        self._early: OrderedDict[bytes, list[_Early]] = OrderedDict()  # oldest session first
        self._used: Counter[OperatorAddress] = Counter()
        self._ended: OrderedDict[bytes, None] = OrderedDict()

    def open(self, session_id: bytes, peers: Iterable[OperatorAddress], *, rounds: int) -> Mailbox:
        """Begin a session: what its parties sent before is already in the mailbox."""
        if self.is_known(session_id):
            raise ValueError("a session is opened once")
        box = Mailbox(session_id, peers, rounds)
        self._open[session_id] = box
        for early in self._take_early(session_id):
            box.deliver(early.peer, early.message)
        return box

    def is_known(self, session_id: bytes) -> bool:
        """Tell whether a session of that id has begun here."""
        return session_id in self._open or session_id in self._ended

    def close(self, box: Mailbox) -> None:
        """End a session: what still comes for it is dropped."""
        del self._open[box.session_id]
        self._ended[box.session_id] = None
        if len(self._ended) > _KEPT_ENDED_SESSIONS:
            self._ended.popitem(last=False)

    def deliver(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Sort a message in."""
        box = self._open.get(message.session_id)
        if box is not None:
            box.deliver(peer, message)
        elif message.session_id not in self._ended:
            self._keep_early(peer, message)

    @property
    def early_count(self) -> int:
        """How many messages wait for their session to begin."""
        return sum(len(waiting) for waiting in self._early.values())

    def _keep_early(self, peer: OperatorAddress, message: PeerMessage) -> None:
        now = self._clock()
        self._forget_old(now)
        early = _Early(peer, message, now + self._early_s)
        if self._used[peer] + early.size > self._early_bytes:
            _log.warning(
                "session %s: a message of %s came too early and there is no room for it",
                message.session_id.hex(),
                peer,
            )
            return
        self._used[peer] += early.size
        self._early.setdefault(message.session_id, []).append(early)

    def _forget_old(self, now: float) -> None:
        while self._early:
            session_id, waiting = next(iter(self._early.items()))
            if waiting[0].forget_at > now:
                return
            self._take_early(session_id)

    def _take_early(self, session_id: bytes) -> list[_Early]:
        waiting = self._early.pop(session_id, [])
        for early in waiting:
            self._used[early.peer] -= early.size
        return waiting


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

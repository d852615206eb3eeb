"""What peers have sent, sorted by session and round, also what came before the session began here."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from attrs import field, frozen

from dan_async.devnet.peer_messages import Kind, PeerMessage
from dan_async.errors import DanError
from dan_async.types import OperatorAddress

__all__ = ["ConflictingMessageError", "Mailbox", "Mailboxes", "PeerAbortError", "SilentPeersError"]

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

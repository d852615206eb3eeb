"""
Sessions among nodes: the messages of each, and the one runner of everything that takes several rounds.

docs/reference/devnet.md has the bytes of the messages.

A node that is busy, and one that is gone, are told apart by signs of life: a party that takes part in a session for longer
than a moment says so from time to time. So a round may take long on a busy machine, while a dead party is noticed soon.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import IntEnum
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from attrs import define, evolve, field, frozen

from dan_async._json import load
from dan_async._values import from_hex
from dan_async.config import MAX_PARTIES
from dan_async.deadline import cancel_and_wait, carry_through
from dan_async.devnet.context import NodeContext, Urgency
from dan_async.devnet.faults.kinds import FalseAccusation, NodeCrashed
from dan_async.devnet.mpc.aborts import ProtocolAbort
from dan_async.devnet.peers.links import PeerLinks
from dan_async.errors import DanError, InvalidFieldError, ProtocolError, escape_controls
from dan_async.protocols.fields import Form, decode, encode, list_of, number, string, wire, write_hex
from dan_async.types import Clock, OperatorAddress

_log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_KEPT_ENDED_SESSIONS, _KEPT_UNHEARD_SESSIONS = 32_768, 32
#: A live party that others could replace has so many times the time that this one took to begin, and so many quiet
#: limits at least; and a part of one more in each later round, so that who waits in an earlier one gives up first. It has
#: twice that with twice so many sessions at work here, and so on: the others are as busy.
_TIMES_OWN, _TIMES_QUIET, _QUIET_PART, _BUSY = 4.0, 1.5, 0.5, 8
#: The cost of keeping a message beside its body, so that empty ones count too.
_MESSAGE_OVERHEAD = 256


# --- messages ---------------------------------------------------------------------------------------------------------

_SESSION_LENGTH = 32
_HEAD_LENGTH = 1 + _SESSION_LENGTH + 1
_LONGEST_REASON = 500

#: Bytes, or null.
_EVIDENCE: Form[bytes | None] = Form(
    lambda name, value: None if value is None else from_hex(value, field=name, prefix=True),
    lambda evidence: "null" if evidence is None else write_hex(evidence),
)


class Kind(IntEnum):
    """The subject of a message."""

    KEYGEN = 1
    ABORT = 2
    #: Which set-up for signing the sender has: the session id is the set-up's, or zeros. Round 1 asks for an answer.
    PAIR_STATUS = 3
    PAIR_SETUP = 4
    PRESIGN = 5
    #: The sender takes part in the session, and is still at work.
    ALIVE = 6
    #: Round 0 asks for the certificate of a key generation, round 1 passes it on. In the session's place is the request id.
    CERTIFICATE = 7


@frozen
class PeerMessage:
    """One message of one session."""

    kind: Kind
    #: 32 bytes.
    session_id: bytes
    #: 0 or 1 for a status; for an abort and a sign of life, the kind of their session.
    round: int
    #: The message of the protocol's step, or the abort's text.
    body: bytes

    @property
    def session(self) -> tuple[Kind, bytes]:
        """The session that it is about: ids of different kinds have nothing to do with each other."""
        is_about_one = self.kind in {Kind.ABORT, Kind.ALIVE}
        return Kind(self.round) if is_about_one else self.kind, self.session_id

    def encode(self) -> bytes:
        """Return kind (1 byte), session id (32), round (1), body."""
        return bytes((self.kind,)) + self.session_id + bytes((self.round,)) + self.body

    @classmethod
    def decode(cls, frame: bytes) -> PeerMessage:
        """Read a frame; raise ProtocolError if it is too short or of an unknown kind."""
        if len(frame) < _HEAD_LENGTH:
            raise ProtocolError("a message from the peer is too short")
        session_id = frame[1 : 1 + _SESSION_LENGTH]
        try:
            message = cls(Kind(frame[0]), session_id, frame[_HEAD_LENGTH - 1], frame[_HEAD_LENGTH:])
            _ = message.session  # raises if its kind is not known
        except ValueError:
            raise ProtocolError("a message from the peer is of an unknown kind") from None
        return message


@frozen
class AbortNotice:
    """A party's reason to give a session up; see ``RoundSession.judge`` for how far it is believed."""

    reason: Annotated[str, wire("reason", string(_LONGEST_REASON, least=0))]
    #: The indices of the parties that it blames.
    culprits: Annotated[
        tuple[int, ...], wire("culprits", list_of(number(1, MAX_PARTIES), 0, MAX_PARTIES))
    ] = ()
    #: Evidence in the form that ``mpc`` makes and checks.
    complaint: Annotated[bytes | None, wire("complaint", _EVIDENCE)] = None

    def encode(self) -> bytes:
        return encode(evolve(self, reason=self.reason[:_LONGEST_REASON])).encode()

    @classmethod
    def decode(cls, body: bytes) -> AbortNotice:
        """Read it; raise ProtocolError if it is malformed."""
        try:
            return decode(cls, load(body), "abort")
        except InvalidFieldError as error:
            raise ProtocolError(f"the peer's abort is malformed: {error.message}") from error


# --- how sessions fail -------------------------------------------------------------------------------------------------


@define
class SilentPeersError(Exception):
    """Some peers sent nothing for a round within its time."""

    peers: frozenset[OperatorAddress]


@define
class PeerAbortError(Exception):
    """A peer gave the session up; ``missing`` are the awaited ones whose message of the round has not come."""

    peer: OperatorAddress
    notice: bytes
    missing: frozenset[OperatorAddress]


def _one_line(reason: object) -> str:
    """Return a reason, which may be a peer's, so that it writes one line of a log and commands no terminal."""
    return escape_controls(str(reason)).replace("\n", "\\n")


@define
class SessionFailedError(Exception):
    """A session has ended without a result. The culprits are those that this node can blame by what it has seen itself."""

    reason: str = field(converter=_one_line)
    culprits: tuple[OperatorAddress, ...] = field(default=(), converter=tuple[OperatorAddress, ...])
    aborted_by: OperatorAddress | None = field(default=None, kw_only=True)
    #: Evidence to be passed on.
    complaint: bytes | None = field(default=None, kw_only=True)
    #: Whether the culprits have done nothing worse than to be silent.
    is_silence: bool = field(default=False, kw_only=True)


class TooManySessionsError(DanError):
    """This node takes part in as many sessions as it may."""


# --- sessions as they are open ----------------------------------------------------------------------------------------


@define(kw_only=True, eq=False, repr=False)
class PeerSession:
    """A session as one party sees it: messages out; and in, from its other parties and nobody else, for its rounds only."""

    _kind: Kind
    _session_id: bytes
    _peers: frozenset[OperatorAddress]
    _links: PeerLinks
    _clock: Clock
    _began: float
    #: The bodies of each round.
    _rounds: dict[int, dict[OperatorAddress, bytes]]
    _heard: dict[OperatorAddress, float] = field(factory=dict, init=False)
    #: The first abort of each peer, in the order of arrival.
    _aborts: dict[OperatorAddress, bytes] = field(factory=dict, init=False)
    _conflict: tuple[OperatorAddress, int] | None = field(default=None, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)
    #: Whether it gives no more signs of life, and does not say why it fails, as a fault asks for.
    is_mute: bool = field(default=False, init=False)
    #: Everything sent so far, to be sent again over a link that comes up in the middle.
    _sent: dict[OperatorAddress, list[bytes]] = field(factory=dict, init=False)
    #: The peers whose link was down when something was sent.
    _unreached: set[OperatorAddress] = field(factory=set, init=False)

    def take(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Take in a message, or a sign of life. The same one again changes nothing: links repeat messages after a break."""
        self._heard[peer] = self._clock()
        if message.kind is Kind.ALIVE:
            return
        if peer not in self._peers:
            _log.warning("%s %s: %s is not a party", self._kind.name, self._session_id.hex(), peer)
        elif message.kind is Kind.ABORT:
            self._aborts.setdefault(peer, message.body)
        elif message.round in self._rounds:
            known = self._rounds[message.round].setdefault(peer, message.body)
            if known != message.body:
                self._conflict = self._conflict or (peer, message.round)
        self._changed.set()

    async def receive(
        self,
        round_: int,
        *,
        end_s: float,
        quiet_s: float | None = None,
        awaited: Collection[OperatorAddress] | None = None,
        known: Collection[OperatorAddress] = (),
    ) -> dict[OperatorAddress, bytes]:
        """
        Wait for each *awaited* peer's message of a round; a conflict counts before it, an abort only without it.

        Until the session is *end_s* seconds old. A party may give no sign of life for *quiet_s* at most, None for the whole
        time. If some gave none, only those are named as silent. Aborts of *known* are known.
        """
        received, end = self._rounds[round_], self._began + end_s
        look_at = end if quiet_s is None else self._clock() + quiet_s
        while True:
            self._changed.clear()
            if self._conflict is not None:
                peer, conflicting = self._conflict
                raise SessionFailedError(f"two different messages in round {conflicting}", (peer,))
            missing = self._peers.intersection(self._peers if awaited is None else awaited) - received.keys()
            if not missing:
                return dict(received)
            for peer, notice in self._aborts.items():
                if peer not in known:
                    raise PeerAbortError(peer, notice, missing)
            now = self._clock()
            if now >= min(look_at, end):
                if quiet_s is None or now >= end:
                    raise SilentPeersError(missing)
                since = {peer: self._heard.get(peer, self._began) for peer in missing}
                gone = frozenset(peer for peer, heard in since.items() if now - heard >= quiet_s)
                if gone:
                    raise SilentPeersError(gone)
                look_at = min(since.values()) + quiet_s
            with suppress(TimeoutError):
                async with asyncio.timeout(min(look_at, end) - now):
                    await self._changed.wait()

    @property
    def age_s(self) -> float:
        return self._clock() - self._began

    def send(self, round_: int, bodies: Mapping[OperatorAddress, bytes]) -> None:
        """Send this node's messages of a round; a peer whose link is down gets them when it comes up."""
        for peer, body in bodies.items():
            self._send(peer, PeerMessage(self._kind, self._session_id, round_, body))

    def abort(self, notice: AbortNotice) -> None:
        self.tell_all(PeerMessage(Kind.ABORT, self._session_id, self._kind, notice.encode()))

    def tell_all(self, message: PeerMessage) -> None:
        """Send one message to every other party; it need not be of this session."""
        for peer in self._peers:
            self._send(peer, message)

    def resend(self, peer: OperatorAddress) -> None:
        self._unreached.discard(peer)
        for frame in self._sent.get(peer, ()):
            self._put(peer, frame)

    def end(self) -> bool:
        """Forget what has reached its peer; return whether there is anything else."""
        self._sent = {peer: frames for peer, frames in self._sent.items() if peer in self._unreached}
        return bool(self._sent)

    def show_life(self, older_than_s: float) -> None:
        """Say that this node is still at work, if it has been for so long."""
        if self.is_mute or self._clock() - self._began < older_than_s:
            return
        frame = PeerMessage(Kind.ALIVE, self._session_id, self._kind, b"").encode()
        for peer in self._peers:
            self._links.send(peer, frame)

    def _send(self, peer: OperatorAddress, message: PeerMessage) -> None:
        frame = message.encode()
        self._sent.setdefault(peer, []).append(frame)
        self._put(peer, frame)

    def _put(self, peer: OperatorAddress, frame: bytes) -> None:
        if not self._links.send(peer, frame):
            self._unreached.add(peer)


@frozen
class _Early:
    peer: OperatorAddress
    message: PeerMessage
    forget_at: float

    @property
    def size(self) -> int:
        return len(self.message.body) + _MESSAGE_OVERHEAD


@define(eq=False, repr=False)
class PeerSessions:
    """
    The sessions that a node takes part in; it gives signs of life in each every *beat_s* seconds.

    A message for a session that has not begun here is kept for a while, and only so many bytes for each peer, so that none
    can crowd out another.
    """

    _links: PeerLinks
    _early_s: float = field(kw_only=True)
    _early_bytes: int = field(kw_only=True)
    _beat_s: float = field(default=0.5, kw_only=True)
    _clock: Clock = field(default=time.monotonic, kw_only=True)
    # By kind and id: whoever may choose the id of one kind of session must not get in the way of another.
    _running: dict[tuple[Kind, bytes], PeerSession] = field(factory=dict, init=False)
    _ended: OrderedDict[tuple[Kind, bytes], None] = field(factory=OrderedDict, init=False)
    #: Sessions that ended before everybody had their messages, and until when they are repeated.
    _unheard: deque[tuple[float, PeerSession]] = field(
        factory=lambda: deque(maxlen=_KEPT_UNHEARD_SESSIONS), init=False
    )
    #: By session and peer, the oldest first: what comes of one peer is kept no shorter because of another's.
    _early: OrderedDict[tuple[tuple[Kind, bytes], OperatorAddress], list[_Early]] = field(
        factory=OrderedDict, init=False
    )
    _used: Counter[OperatorAddress] = field(factory=Counter, init=False)
    _beating: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def running(self) -> int:
        """How many sessions are at work here."""
        return len(self._running)

    def has_run(self, kind: Kind, session_id: bytes) -> bool:
        """Return whether a session of that kind and id has begun here: none may begin twice."""
        return (kind, session_id) in self._running or (kind, session_id) in self._ended

    @contextmanager
    def open(
        self, kind: Kind, session_id: bytes, peers: Sequence[OperatorAddress], *, rounds: int
    ) -> Iterator[PeerSession]:
        """Take part in a session with these peers; the links to them are kept up meanwhile."""
        if self.has_run(kind, session_id):
            raise ValueError("a session is opened once")
        session = self._running[kind, session_id] = PeerSession(
            kind=kind,
            session_id=session_id,
            peers=frozenset(peers),
            links=self._links,
            clock=self._clock,
            began=self._clock(),
            rounds={round_: {} for round_ in range(1, rounds + 1)},
        )
        waited = [early for peer in peers for early in self._take_early(((kind, session_id), peer))]
        for early in sorted(waited, key=attrgetter("forget_at")):  # as they came
            session.take(early.peer, early.message)
        if self._beating is None:
            self._beating = asyncio.create_task(self._beat(), name="signs of life")
        try:
            with self._links.wanted(peers):
                yield session
        finally:
            del self._running[kind, session_id]
            if session.end():
                self._unheard.append((self._clock() + self._early_s, session))
            self._ended[kind, session_id] = None
            if len(self._ended) > _KEPT_ENDED_SESSIONS:
                self._ended.popitem(last=False)

    def on_message(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Sort in a peer's message, of any kind but a status; those for a session that has ended are dropped."""
        session = self._running.get(message.session)
        if session is not None:
            session.take(peer, message)
        elif message.kind is not Kind.ALIVE and message.session not in self._ended:
            self._keep_early(peer, message)

    def resend(self, peer: OperatorAddress) -> None:
        """Repeat all messages of running sessions to a peer, and the last ones of others: its link has just come up."""
        for session in self._running.values():
            session.resend(peer)
        now = self._clock()
        for forget_at, session in self._unheard:
            if now < forget_at:
                session.resend(peer)
                session.end()

    async def aclose(self) -> None:
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

    def _keep_early(self, peer: OperatorAddress, message: PeerMessage) -> None:
        now = self._clock()
        while self._early and next(iter(self._early.values()))[0].forget_at <= now:
            self._take_early(next(iter(self._early)))
        early = _Early(peer, message, now + self._early_s)
        if self._used[peer] + early.size > self._early_bytes:
            _log.warning(
                "%s %s: a message of %s came too early and there is no space for it",
                message.session[0].name,
                message.session_id.hex(),
                peer,
            )
            return
        self._used[peer] += early.size
        self._early.setdefault((message.session, peer), []).append(early)

    def _take_early(self, place: tuple[tuple[Kind, bytes], OperatorAddress]) -> list[_Early]:
        waiting = self._early.pop(place, [])
        for early in waiting:
            self._used[early.peer] -= early.size
        return waiting


# --- the runner -------------------------------------------------------------------------------------------------------


class RoundSession(ABC, Generic[R]):
    """
    One protocol of several rounds, as one node runs it: opened, computed and exchanged in turn, and given up as a whole.

    A subclass says which protocol it is. Party i is ``parties[i - 1]``; the *members* are the parties of this session.
    The work belongs to the node and outlives the request that asked for it: the caller sees to that.
    """

    KIND: ClassVar[Kind]
    ROUNDS: ClassVar[int]
    #: Whether a round waits for busy parties without a quiet limit: there are no others who could take over.
    NEEDS_ALL: ClassVar[bool] = False
    #: Whether a step is carried through to its end while the node is stopping, its ``blame`` included.
    IS_CRITICAL: ClassVar[bool] = False
    #: Whether others could do it instead, so that a party that is alive does not keep the others for the whole of a round.
    IS_REPLACEABLE: ClassVar[bool] = False

    _session: PeerSession
    _patience_s: float

    def __init__(
        self,
        context: NodeContext,
        sessions: PeerSessions,
        *,
        name: str,
        session_id: bytes,
        parties: Sequence[OperatorAddress],
        members: Iterable[OperatorAddress] | None = None,
    ) -> None:
        self.context = context
        self._sessions = sessions
        self.session_id = session_id
        self.parties = tuple(parties)
        self.own_index = self.index(context.identity.operator)
        self.peers = tuple(
            operator for operator in members or parties if operator != context.identity.operator
        )
        self._name = name
        limits = context.limits
        self._round_s = limits.round_s if self.NEEDS_ALL else limits.sign_round_s
        self._quiet_s = None if self.NEEDS_ALL else limits.sign_quiet_s

    @abstractmethod
    async def work(self) -> R:
        """Run the protocol, by ``compute`` and ``exchange`` in turn."""

    async def blame(self, abort: ProtocolAbort) -> SessionFailedError:
        """Name the culprits of an abort that a step has found, and act on it."""
        return SessionFailedError(abort.reason, self.operators(abort.culprits))

    async def judge(self, notice: AbortNotice, error: PeerAbortError) -> SessionFailedError:
        """Name the culprits that a peer's abort shows by itself: the peer, if it says that it is its own fault."""
        own_fault = self.index(error.peer) in notice.culprits
        return SessionFailedError(notice.reason, (error.peer,) if own_fault else (), aborted_by=error.peer)

    def outgoing(self, round_: int, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:  # noqa: ARG002 - for subclasses
        """Return the bodies that are really sent, faults considered; none at all if the node falls silent."""
        return bodies

    def index(self, operator: OperatorAddress) -> int:
        return self.parties.index(operator) + 1

    def operators(self, indices: Iterable[int]) -> tuple[OperatorAddress, ...]:
        return tuple(self.parties[index - 1] for index in indices)

    async def run(self) -> R:
        """Take part in the session; raise SessionFailedError when it ends without a result, and tell its other parties."""
        with self._sessions.open(self.KIND, self.session_id, self.peers, rounds=self.ROUNDS) as self._session:
            try:
                return await self.work()
            except asyncio.CancelledError:
                self._session.abort(AbortNotice("the node is stopping", (self.own_index,)))
                raise
            except SessionFailedError as failure:
                # Also after a peer's abort: it may have told this node only, so that the others would call it silent.
                self._give_up(failure)
                raise
            except NodeCrashed as crash:
                self.context.on_crash(crash.restart_after)  # from here: the client that asked may be gone
                raise
            except Exception:
                self._session.abort(AbortNotice("the node has failed", (self.own_index,)))
                raise

    async def compute(
        self, step: Callable[..., T], *arguments: Any, urgency: Urgency = Urgency.UNDER_WAY
    ) -> T:
        """Take a step of the protocol off the event loop."""
        computing = self._compute(step, arguments, urgency)
        # To its end even if the node is stopping, where a ban must not get lost.
        return await (carry_through(computing) if self.IS_CRITICAL else computing)

    async def exchange(self, round_: int, bodies: Mapping[int, bytes]) -> dict[int, bytes]:
        """Send this node's messages of a round, and wait for every other party's; both by index."""
        try:
            bodies = self.outgoing(round_, bodies)
        except FalseAccusation as lie:
            raise self._silence(round_, self.operators(lie.culprits)) from lie
        if not bodies:
            self._session.is_mute = True
        self._session.send(round_, {self.parties[index - 1]: body for index, body in bodies.items()})
        received = await self._receive(round_)
        return {self.index(peer): body for peer, body in received.items()}

    async def _compute(self, step: Callable[..., T], arguments: Sequence[Any], urgency: Urgency) -> T:
        try:
            return await self.context.workers.compute(step, *arguments, urgency=urgency)
        except ProtocolAbort as abort:
            raise await self.blame(abort) from abort

    async def _receive(self, round_: int) -> dict[OperatorAddress, bytes]:
        """
        Wait for a round's messages; after an abort that proves nothing, for those whom it accuses, to this node's own limit.

        For an accusation may be a lie, and that a message has not come is true of everybody for a while. Nobody but those
        who are silent at the end is named.
        """
        end_s, known = self._end_s(round_), set[OperatorAddress]()
        accused: frozenset[OperatorAddress] | None = None
        first: SessionFailedError | None = None
        while True:
            try:
                received = await self._session.receive(
                    round_, end_s=end_s, quiet_s=self._quiet_s, awaited=accused, known=known
                )
            except PeerAbortError as error:
                failure, named = await self._judge(error)
                if failure.culprits:
                    raise failure from error
                first = first or failure
                known.add(error.peer)
                silent = error.missing - known
                if silent and self.context.identity.operator in named and self._is_overdue():
                    # It is called silent by somebody less patient: because of those for whom it still waits itself.
                    failure = self._silence(round_, silent)
                    failure.aborted_by = first.aborted_by
                    raise failure from error
                accused = ((accused or frozenset()) | (named & error.missing)) - known
            except SilentPeersError as error:
                failure = self._silence(round_, error.peers)
                failure.aborted_by = None if first is None else first.aborted_by
                raise failure from error
            else:
                if first is not None:
                    raise first
                return received

    def _silence(self, round_: int, peers: Iterable[OperatorAddress]) -> SessionFailedError:
        limit = "in time" if self._quiet_s is not None else f"within {self._round_s:g} s"
        silent = sorted(peers, key=str.lower)
        return SessionFailedError(f"no message in round {round_} {limit}", silent, is_silence=True)

    def _end_s(self, round_: int) -> float:
        """Return how old the session may be when a round ends."""
        end_s = self._session.age_s + self._round_s
        if not self.IS_REPLACEABLE or self._quiet_s is None:
            return end_s
        if round_ == 1:
            times = max(1.0, self._sessions.running / _BUSY)
            self._patience_s = times * max(_TIMES_QUIET * self._quiet_s, _TIMES_OWN * self._session.age_s)
        return min(end_s, self._patience_s + (round_ - 1) * _QUIET_PART * self._quiet_s)

    def _is_overdue(self) -> bool:
        """Whether the session has lasted as long as the least patient party waits for a round."""
        if not self.IS_REPLACEABLE or self._quiet_s is None:
            return False
        return self._session.age_s >= _TIMES_QUIET * self._quiet_s

    async def _judge(self, error: PeerAbortError) -> tuple[SessionFailedError, frozenset[OperatorAddress]]:
        """Return what follows from a peer's abort, and whom it accuses."""
        try:
            notice = AbortNotice.decode(error.notice)
        except ProtocolError:
            reason = "an abort that cannot be read"
            return SessionFailedError(reason, (error.peer,), aborted_by=error.peer), frozenset()
        named = frozenset(self.operators(index for index in notice.culprits if index <= len(self.parties)))
        return await self.judge(notice, error), named

    def _give_up(self, failure: SessionFailedError) -> None:
        named = f" (blamed: {', '.join(failure.culprits)})" if failure.culprits else ""
        # A client leaves a presignature as soon as it has others: the silent party may never have been asked for this one.
        level = logging.INFO if self.IS_REPLACEABLE and failure.is_silence else logging.WARNING
        _log.log(level, "%s failed: %s%s", self._name, failure.reason, named)
        culprits = tuple(self.index(culprit) for culprit in failure.culprits)
        if not self._session.is_mute:
            self._session.abort(AbortNotice(failure.reason, culprits, failure.complaint))

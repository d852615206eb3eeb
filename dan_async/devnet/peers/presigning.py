"""
Signing among nodes: the set-ups of pairs, kept by both, and presignatures. docs/reference/devnet.md has the messages.

``mpc.pairwise_setup`` and ``mpc.threshold_ecdsa`` compute, ``RoundSession`` moves messages and blames.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from attrs import define, field, frozen

from dan_async._json import dump
from dan_async.deadline import cancel_and_wait
from dan_async.devnet.context import NodeContext, RateLimit, Urgency
from dan_async.devnet.mpc.aborts import ProtocolAbort, Reason, SigningAbort
from dan_async.devnet.mpc.dkg import KeyShare
from dan_async.devnet.mpc.pairwise_setup import Ban, PairSetup, PairState
from dan_async.devnet.mpc.threshold_ecdsa import Presignature, SigningParty
from dan_async.devnet.peers.links import PeerLinks
from dan_async.devnet.peers.sessions import (
    Kind,
    PeerMessage,
    PeerSessions,
    RoundSession,
    SessionFailedError,
    TooManySessionsError,
)
from dan_async.devnet.share_store import BanList, ShareStore, ShareStoreError, StoredRecord, read_all
from dan_async.errors import DanError
from dan_async.protocols.fields import ADDRESS, Form, wire
from dan_async.types import OperatorAddress, RequestId

_log = logging.getLogger(__name__)

T = TypeVar("T")

_NO_SETUP = bytes(32)

#: After a key generation, first everybody gets their answer; after a failure, the next attempt waits a moment. In the
#: background each attempt waits twice as long as the one before, until that would be the longest pause.
_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 60

#: How often a peer may have a new set-up: it has no reason to.
_SETUPS_PER_S = 0.5
_SETUP_BURST = 8


# --- the store --------------------------------------------------------------------------------------------------------


_STATE = Form(lambda _, value: PairState.from_dict(value), lambda state: dump(state.to_dict()))


@frozen
class _PairRecord(StoredRecord):
    KIND = "pair"
    VERSION = 2

    operator: Annotated[OperatorAddress, wire("operator", ADDRESS)]
    state: Annotated[PairState, wire("state", _STATE)]


class PairStore:
    """The set-ups of one node with others, and its bans, which outlive them: one for each operator, over all set-ups."""

    def __init__(self, store: ShareStore, bans: BanList) -> None:
        self._store = store
        self._stored_bans = bans
        self._pairs: dict[OperatorAddress, PairState] = {}
        self._bans: dict[OperatorAddress, Ban] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def load(self) -> None:
        """Read everything from the store. Blocks. A node does not start if it might have forgotten a ban."""
        self._stored_bans.load()
        for data in read_all(self._store, "pair"):
            record = _PairRecord.decode(data)
            if self._stored_bans.find(record.operator) is None:
                raise ShareStoreError(
                    f"there is a set-up with {record.operator}, and nothing says whether that node is banned",
                    hint="Restore the folder bans, or remove the set-up's record if that node was never banned",
                )
            self._keep(record.operator, record.state)

    def get(self, operator: OperatorAddress) -> PairState | None:
        return self._pairs.get(operator)

    def is_banned(self, operator: OperatorAddress) -> bool:
        return self._ban(operator).is_set

    def put(self, operator: OperatorAddress, state: PairState) -> None:
        """Keep a set-up in the place of an earlier one: durably, and the place for a ban before it. Blocks."""
        self._stored_bans.reserve(operator)
        self._store.put(f"pair-{operator[2:].lower()}", _PairRecord(operator, state).encode())
        self._keep(operator, state)

    def ban(self, operator: OperatorAddress) -> None:
        """Never run with a node again: at once in memory, and durably before this returns. Blocks."""
        self._ban(operator).is_set = True
        self._stored_bans.ban(operator)

    def _keep(self, operator: OperatorAddress, state: PairState) -> None:
        state.ban = self._ban(operator)
        self._pairs[operator] = state

    def _ban(self, operator: OperatorAddress) -> Ban:
        return self._bans.setdefault(operator, Ban(bool(self._stored_bans.find(operator))))


# --- one set-up -------------------------------------------------------------------------------------------------------


class BannedPairError(DanError):
    """This node never signs with that one again, which has failed a check that bans."""

    def __init__(self, peer: OperatorAddress) -> None:
        super().__init__(f"this node never signs with {peer} again: it failed a check that bans")
        self.peer = peer


class UnreadyPairError(DanError):
    """A set-up did not come about in time."""

    def __init__(self, peer: OperatorAddress) -> None:
        super().__init__(f"there is no set-up with {peer}, and none came about in time")
        self.peer = peer


class PairSetupSession(RoundSession[PairState]):
    """One set-up with one peer, stored before anybody can use it."""

    KIND = Kind.PAIR_SETUP
    ROUNDS = 5

    def __init__(
        self,
        context: NodeContext,
        sessions: PeerSessions,
        store: PairStore,
        peer: OperatorAddress,
        session_id: bytes,
        *,
        is_awaited: Callable[[], bool],
    ) -> None:
        parties = sorted((context.identity.operator, peer), key=str.lower)
        name = f"peer {peer}: the set-up"
        super().__init__(context, sessions, name=name, session_id=session_id, parties=parties)
        self._store = store
        self._peer = peer
        self._is_awaited = is_awaited

    async def work(self) -> PairState:
        setup = PairSetup(session_id=self.session_id, own=self.context.identity.operator, peer=self._peer)
        message = await self._step(setup.start)
        for round_, step in enumerate((setup.choose, setup.challenge, setup.respond, setup.open), 1):
            message = await self._step(step, await self._swap(round_, message))
        state = await self._step(setup.finish, await self._swap(self.ROUNDS, message))
        await self.context.workers.use_disk(self._store.put, self._peer, state)
        return state

    async def blame(self, abort: ProtocolAbort) -> SessionFailedError:
        return SessionFailedError(abort.reason, (self._peer,))

    async def _step(self, step: Callable[..., T], *arguments: Any) -> T:
        # In the background, it must not hold up key generations and signatures.
        urgency = Urgency.AWAITED if self._is_awaited() else Urgency.NEW
        return await self.compute(step, *arguments, urgency=urgency)

    async def _swap(self, round_: int, message: bytes) -> bytes:
        (answer,) = (await self.exchange(round_, {self.index(self._peer): message})).values()
        return answer


# --- all set-ups ------------------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class PairSetups:
    """
    The set-ups of one node: one for each pair of nodes, before the two first sign together.

    The node with the lower operator address begins a set-up; the other one asks it to. Each says to the other which set-up
    it has, whenever a link comes up and after each change. A pair is ready when both have the same one. So a node that has
    lost its side, or died before it was stored, gets a new set-up, and the two never run with halves that do not match.
    """

    _context: NodeContext
    _links: PeerLinks
    _sessions: PeerSessions
    _store: PairStore
    _rate: RateLimit = field(
        factory=lambda: RateLimit(_SETUPS_PER_S, _SETUP_BURST, clock=time.monotonic), init=False
    )
    #: Which set-up each peer says it has.
    _told: dict[OperatorAddress, bytes] = field(factory=dict, init=False)
    #: How many wait for each pair in order to sign, and the peers that do.
    _urgent: Counter[OperatorAddress] = field(factory=Counter, init=False)
    _asked: set[OperatorAddress] = field(factory=set, init=False)
    #: When each peer was heard of last, and how often it fell silent in a set-up.
    _heard: dict[OperatorAddress, float] = field(factory=dict, init=False)
    _failures: Counter[OperatorAddress] = field(factory=Counter, init=False)
    _running: dict[OperatorAddress, asyncio.Task[None]] = field(factory=dict, init=False)
    _superseded: set[asyncio.Task[None]] = field(factory=set, init=False)
    #: The peers whose set-ups are made in the background, and the tasks that make them.
    _missing: set[OperatorAddress] = field(factory=set, init=False)
    _preparing: set[asyncio.Task[None]] = field(factory=set, init=False)
    #: Peers whose ban the disk has not taken yet.
    _unstored: set[OperatorAddress] = field(factory=set, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)
    _is_closed: bool = field(default=False, init=False)

    async def ready(self, peer: OperatorAddress) -> PairState:
        """Return this side of the set-up with a peer, which has the other side; make one if there is none."""
        if peer in self._unstored:
            await self.ban(peer)
        state = self._usable(peer)
        if state is not None:
            return state
        self._urgent[peer] += 1
        try:
            return await self._ready(peer)
        finally:
            self._urgent[peer] -= 1

    async def _ready(self, peer: OperatorAddress) -> PairState:
        try:
            with self._links.wanted([peer]):
                async with asyncio.timeout(self._context.limits.sign_round_s):
                    return await self._wait_until_ready(peer)
        except TimeoutError:
            raise UnreadyPairError(peer) from None

    def prepare(self, peers: Iterable[OperatorAddress]) -> None:
        """Make the set-ups with these nodes in the background, where this one is to begin."""
        missing = {peer for peer in peers if self._begins_with(peer) and self._store.get(peer) is None}
        missing -= self._missing
        if missing and not self._is_closed:
            self._missing |= missing
            task = asyncio.create_task(self._prepare(missing), name="pair set-ups")
            self._preparing.add(task)
            task.add_done_callback(self._preparing.discard)

    async def ban(self, peer: OperatorAddress) -> None:
        """Never run with a peer again. Durable when this returns, unless the disk fails; then it is tried again."""
        try:
            await self._context.workers.use_disk(self._store.ban, peer)
        except OSError as error:
            self._unstored.add(peer)
            _log.critical("peer %s is banned, and that cannot be stored: %s", peer, error)
        else:
            self._unstored.discard(peer)
        self._changed.set()

    def doubt(self, peer: OperatorAddress) -> None:
        """Forget which set-up a peer said to have, and ask again: it has turned out to have another one."""
        self._told.pop(peer, None)
        self._tell(peer)

    def on_linked(self, peer: OperatorAddress) -> None:
        """Take note of a link that has come up: the peer may be another one than before."""
        self._told.pop(peer, None)
        self._tell(peer)
        self._changed.set()

    def on_message(self, peer: OperatorAddress, message: PeerMessage) -> None:
        """Take note of a message, which its session has already."""
        if self._is_closed:
            return
        self._heard[peer] = time.monotonic()
        if message.kind is Kind.PAIR_STATUS:
            self._on_status(peer, message)
        elif message.kind is Kind.PAIR_SETUP and message.round == 1:
            self._on_start(peer, message.session_id)

    async def aclose(self) -> None:
        self._is_closed = True
        await cancel_and_wait([*self._preparing, *self._running.values(), *self._superseded])
        for peer in list(self._unstored):
            await self.ban(peer)

    # --- readiness ----------------------------------------------------------------------------------------------------

    def _usable(self, peer: OperatorAddress) -> PairState | None:
        if self._store.is_banned(peer):
            raise BannedPairError(peer)
        state = self._store.get(peer)
        if state is None:
            return None
        # A peer's word from before its link broke is void: it may have been restarted since.
        is_known = self._links.is_up(peer) and self._told.get(peer) == state.setup_id
        return state if is_known and peer not in self._running else None

    def _begins_with(self, peer: OperatorAddress) -> bool:
        return self._context.identity.operator.lower() < peer.lower()

    async def _wait_until_ready(self, peer: OperatorAddress) -> PairState:
        self._heard[peer] = time.monotonic()
        failures = self._failures[peer]
        self._tell(peer)
        while True:
            self._changed.clear()
            state = self._usable(peer)
            if state is not None:
                return state
            quiet_s = time.monotonic() - self._heard[peer]
            is_gone = quiet_s >= self._context.limits.sign_quiet_s and peer not in self._running
            if is_gone or self._failures[peer] > failures:
                raise UnreadyPairError(peer)
            if self._needs_setup(peer):
                self._start(peer)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, self._context.limits.sign_quiet_s - quiet_s)):
                    await self._changed.wait()

    def _differs(self, peer: OperatorAddress) -> bool:
        own = self._store.get(peer)
        return own is None or self._told.get(peer) != own.setup_id

    def _needs_setup(self, peer: OperatorAddress) -> bool:
        is_over = self._is_closed or self._store.is_banned(peer)
        if is_over or not self._begins_with(peer) or peer in self._running:
            return False
        # Without a state of its own, or with a peer that has another one. Not before the peer has said so.
        return self._store.get(peer) is None or (self._links.is_up(peer) and peer in self._told)

    async def _prepare(self, peers: set[OperatorAddress]) -> None:
        """Make set-ups, one after the other. A silent peer is asked again later, in the end by the first signature."""
        pause_s = _PAUSE_S
        while peers and pause_s < _LONGEST_PAUSE_S:
            await asyncio.sleep(pause_s)
            for peer in sorted(peers):
                try:
                    await self._ready(peer)
                except UnreadyPairError:
                    continue
                except BannedPairError:
                    pass
                peers.remove(peer)
                self._missing.remove(peer)
            pause_s *= 2
        self._missing -= peers

    # --- statuses -----------------------------------------------------------------------------------------------------

    def _tell(self, peer: OperatorAddress, *, is_answer: bool = False) -> None:
        """Say which set-up this node has; unasked, and if somebody waits to sign, ask for an answer, or for a new set-up."""
        if peer not in self._running:  # else what it has is about to change, and will be told then
            state = self._store.get(peer)
            setup_id = _NO_SETUP if state is None else state.setup_id
            asks = int(not is_answer and self._urgent[peer] > 0)
            self._links.send(peer, PeerMessage(Kind.PAIR_STATUS, setup_id, asks, b"").encode())

    def _on_status(self, peer: OperatorAddress, message: PeerMessage) -> None:
        self._told[peer] = message.session_id
        self._changed.set()
        if not message.round:
            return
        self._asked.add(peer)
        self._tell(peer, is_answer=True)
        if self._differs(peer) and self._needs_setup(peer) and not self._rate.take(peer):
            self._start(peer)

    def _on_start(self, peer: OperatorAddress, session_id: bytes) -> None:
        if peer.lower() >= self._context.identity.operator.lower() or self._sessions.has_run(
            Kind.PAIR_SETUP, session_id
        ):
            return
        if self._store.is_banned(peer) or self._rate.take(peer):
            _log.warning("peer %s: a set-up is refused", peer)
            return
        earlier = self._running.pop(peer, None)
        if earlier is not None:  # the peer was restarted in the middle of it
            self._superseded.add(earlier)
            earlier.add_done_callback(self._superseded.discard)
            earlier.cancel()
        self._start(peer, session_id)

    # --- the set-up ---------------------------------------------------------------------------------------------------

    def _start(self, peer: OperatorAddress, session_id: bytes | None = None) -> None:
        session_id = secrets.token_bytes(32) if session_id is None else session_id
        task = asyncio.create_task(self._set_up(peer, session_id), name=f"pair set-up with {peer}")
        self._running[peer] = task
        task.add_done_callback(lambda ended: self._ended(peer, ended))

    def _ended(self, peer: OperatorAddress, task: asyncio.Task[None]) -> None:
        if self._running.get(peer) is task:
            del self._running[peer]
            self._asked.discard(peer)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                _log.error("peer %s: the set-up failed: %s", peer, type(error).__name__)
            self._tell(peer)
        self._changed.set()

    async def _set_up(self, peer: OperatorAddress, session_id: bytes) -> None:
        session = PairSetupSession(
            self._context,
            self._sessions,
            self._store,
            peer,
            session_id,
            is_awaited=lambda: self._urgent[peer] > 0 or peer in self._asked,
        )
        try:
            state = await session.run()
        except SessionFailedError as failure:
            if failure.is_silence:
                self._failures[peer] += 1
            else:
                await asyncio.sleep(_PAUSE_S)  # before the next attempt
            return
        if self._told.get(peer) != state.setup_id:
            self._told.pop(peer, None)  # what it had before; it will say when it has stored this one
        _log.info("peer %s: the set-up for signing is made", peer)


# --- presignatures ----------------------------------------------------------------------------------------------------

_COMMIT, _MULTIPLY = 1, 2


@frozen(kw_only=True)
class PresignJob:
    """One presignature to be made with a key, by t of its participants, under an id that no other presignature ever had."""

    request_id: RequestId
    session_id: bytes
    share: KeyShare
    participants: tuple[OperatorAddress, ...]
    signers: tuple[OperatorAddress, ...]


class PresignSession(RoundSession[Presignature]):
    """One presignature of t signers, once the pairs are ready."""

    KIND = Kind.PRESIGN
    ROUNDS = _MULTIPLY
    IS_CRITICAL = True
    IS_REPLACEABLE = True

    def __init__(
        self, context: NodeContext, sessions: PeerSessions, pairs: PairSetups, job: PresignJob
    ) -> None:
        super().__init__(
            context,
            sessions,
            name=f"request {job.request_id}: presignature",
            session_id=job.session_id,
            parties=job.participants,
            members=job.signers,
        )
        self._pairs = pairs
        self._job = job

    async def work(self) -> Presignature:
        party, commits = await self.compute(self._begin, await self._ready_pairs(), urgency=Urgency.NEW)
        received = await self.exchange(_COMMIT, commits)
        multiplies = await self.compute(party.multiply, received)
        received = await self.exchange(_MULTIPLY, multiplies)
        return await self.compute(party.presign, received, urgency=Urgency.AWAITED)

    async def blame(self, abort: ProtocolAbort) -> SessionFailedError:
        """Ban, durably before anybody hears of it. Another set-up bans nobody: one of the two may have lost its own."""
        culprits = self.operators(abort.culprits)
        if abort.ban:
            for culprit in culprits:
                _log.error("request %s: %s: banned: %s", self._job.request_id, culprit, abort.reason)
                await self._pairs.ban(culprit)
        if abort.reason == Reason.SETUP_MISMATCH:
            for culprit in culprits:
                self._pairs.doubt(culprit)
        aborter = abort.aborter if isinstance(abort, SigningAbort) else None
        return SessionFailedError(
            abort.reason, culprits, aborted_by=None if aborter is None else self.parties[aborter - 1]
        )

    def outgoing(self, round_: int, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:
        return self.context.faults.signing_round(round_, bodies)

    def _begin(self, pairs: Mapping[int, PairState]) -> tuple[SigningParty, dict[int, bytes]]:
        share = self._job.share
        signers = (*pairs, share.index)
        party = SigningParty(
            session_id=self.session_id,
            share=share,
            signers=signers,
            operators=self._job.participants,
            sign=self.context.identity.sign,
            pairs=pairs,
        )
        return party, party.commit()

    async def _ready_pairs(self) -> dict[int, PairState]:
        peers = sorted(self.peers, key=str.lower)
        found = await asyncio.gather(*map(self._pairs.ready, peers), return_exceptions=True)
        for kind in (BannedPairError, UnreadyPairError):
            failed = [error for error in found if isinstance(error, kind)]
            if failed:
                unready = [error.peer for error in failed]
                raise SessionFailedError(failed[0].message, unready, is_silence=kind is UnreadyPairError)
        pairs = {}
        for peer, state in zip(peers, found, strict=True):
            if isinstance(state, BaseException):
                raise state
            pairs[self.index(peer)] = state
        return pairs


@define(eq=False, repr=False)
class PresignSessions:
    """The presignatures that a node makes with others, only so many at a time."""

    _context: NodeContext
    _sessions: PeerSessions
    _pairs: PairSetups
    _running: int = field(default=0, init=False)

    def has_run(self, session_id: bytes) -> bool:
        return self._sessions.has_run(Kind.PRESIGN, session_id)

    async def run(self, job: PresignJob) -> Presignature:
        if self._running >= self._context.limits.max_presigns:
            raise TooManySessionsError("too many presignatures are being made")
        self._running += 1
        try:
            return await PresignSession(self._context, self._sessions, self._pairs, job).run()
        finally:
            self._running -= 1

"""Presignatures among nodes: ``mpc.threshold_ecdsa`` computes, ``RoundSession`` moves messages and blames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from attrs import define, field, frozen

from dan_async.devnet.context import NodeContext, Urgency
from dan_async.devnet.mpc.aborts import ProtocolAbort, SigningReason
from dan_async.devnet.mpc.dkg import KeyShare
from dan_async.devnet.mpc.pairwise_setup import PairState
from dan_async.devnet.mpc.threshold_ecdsa import Presignature, SigningParty
from dan_async.devnet.peers.messages import Kind
from dan_async.devnet.peers.pairs import BannedPairError, PairSetups, UnreadyPairError
from dan_async.devnet.peers.sessions import (
    PeerSessions,
    RoundSession,
    SessionFailedError,
    TooManySessionsError,
)
from dan_async.types import OperatorAddress, RequestId

_log = logging.getLogger(__name__)

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
        if abort.reason == SigningReason.SETUP_MISMATCH:
            for culprit in culprits:
                self._pairs.doubt(culprit)
        return SessionFailedError(abort.reason, culprits)

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

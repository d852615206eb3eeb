"""Runs the rounds of one presignature over the links: moves messages, keeps deadlines, blames; ``mpc`` computes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import frozen

from dan_async.deadline import carry_through
from dan_async.devnet.context import NodeIdentity, NodeLimits, Urgency, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.faults.kinds import NodeCrashed
from dan_async.devnet.mpc.aborts import SigningAbort, SigningReason
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.mpc.pairwise_setup import PairState
from dan_async.devnet.mpc.threshold_ecdsa import Presignature, SigningParty
from dan_async.devnet.node.rpc import RefusalError, rate_limited
from dan_async.devnet.peers.messages import AbortNotice, Kind
from dan_async.devnet.peers.pairs import BannedPairError, PairSetups, UnreadyPairError
from dan_async.devnet.peers.sessions import (
    ConflictingMessageError,
    PeerAbortError,
    PeerSession,
    PeerSessions,
    SilentPeersError,
    credible_culprits,
)
from dan_async.errors import NodeCode, ProtocolError
from dan_async.types import OperatorAddress, RequestId

_log = logging.getLogger(__name__)

T = TypeVar("T")

_COMMIT, _MULTIPLY = 1, 2


@frozen
class _Failure(Exception):  # noqa: N818 - never leaves this module
    """Why there is no presignature: what to tell the client, and what to tell the other signers."""

    reason: str
    culprits: tuple[OperatorAddress, ...] = ()
    aborted_by: OperatorAddress | None = None


@frozen
class _Session:
    request_id: RequestId
    share: KeyShare
    participants: tuple[OperatorAddress, ...]
    signers: PeerSession

    def index(self, operator: OperatorAddress) -> int:
        return self.participants.index(operator) + 1

    def operators(self, indices: Sequence[int]) -> tuple[OperatorAddress, ...]:
        return tuple(self.participants[index - 1] for index in indices)


class PresignSessions:
    """
    The presignatures that a node makes with others.

    Args:
        identity: The node.
        sessions: Its sessions with the others.
        pairs: Its set-ups with them.
        workers: Where the arithmetic runs, so that the event loop is never held for long.
        limits: How long a round may take, and how many presignatures at a time.
        faults: What the node does wrong on purpose.
        on_crash: Called when a fault kills the node, with the seconds until it is to come back, if it is.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        sessions: PeerSessions,
        pairs: PairSetups,
        workers: Workers,
        limits: NodeLimits,
        faults: NodeFaults,
        on_crash: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        self._identity = identity
        self._sessions = sessions
        self._pairs = pairs
        self._workers = workers
        self._limits = limits
        self._faults = faults
        self._on_crash = on_crash
        self._running = 0

    def has_run(self, session_id: bytes) -> bool:
        """Tell whether a session of that id has begun here: none may begin twice."""
        return self._sessions.has_run(session_id)

    async def run(
        self,
        *,
        request_id: RequestId,
        session_id: bytes,
        share: KeyShare,
        participants: Sequence[OperatorAddress],
        signers: Sequence[OperatorAddress],
    ) -> Presignature:
        """
        Make a presignature together with the other signers.

        Args:
            request_id: For logs.
            session_id: 32 bytes that no other presignature ever had.
            share: This node's share of the key.
            participants: The key's parties; party i is ``participants[i - 1]``.
            signers: Exactly t of them, this node among them.

        Returns:
            This node's side of the presignature.

        Raises:
            RefusalError: ``SIGNING_FAILED``; ``data.culprits`` names whom this node can blame by what it saw itself.
                ``RATE_LIMITED`` if too many are being made.
        """
        if self._running >= self._limits.max_presigns:
            raise rate_limited("too many presignatures are being made", 1.0)
        peers = [operator for operator in signers if operator != self._identity.operator]
        self._running += 1
        try:
            return await self._attempt(request_id, session_id, share, tuple(participants), peers)
        finally:
            self._running -= 1

    async def _attempt(
        self,
        request_id: RequestId,
        session_id: bytes,
        share: KeyShare,
        participants: tuple[OperatorAddress, ...],
        peers: Sequence[OperatorAddress],
    ) -> Presignature:
        with self._sessions.open(Kind.PRESIGN, session_id, peers, rounds=_MULTIPLY) as parties:
            session = _Session(request_id, share, participants, parties)
            own = (share.index,)
            try:
                return await self._run(session)
            except asyncio.CancelledError:
                parties.abort(AbortNotice("the node is stopping", own))
                raise
            except _Failure as failure:
                culprits = tuple(session.index(culprit) for culprit in failure.culprits)
                parties.abort(AbortNotice(failure.reason, culprits))
                raise self._refusal(session, failure) from failure
            except NodeCrashed as crash:
                self._on_crash(crash.restart_after)  # from here: the client that asked may be gone
                raise
            except Exception:
                parties.abort(AbortNotice("the node has failed", own))
                raise

    async def _run(self, session: _Session) -> Presignature:
        pairs = await self._ready_pairs(session)

        def begin() -> tuple[SigningParty, dict[int, bytes]]:
            signers = (*pairs, session.share.index)
            party = SigningParty(
                session_id=session.signers.id, share=session.share, signers=signers, pairs=pairs
            )
            return party, party.commit()

        party, commits = await self._compute(session, Urgency.NEW, begin)
        received = await self._exchange(session, _COMMIT, commits)
        multiplies = await self._compute(session, Urgency.UNDER_WAY, party.multiply, received)
        received = await self._exchange(session, _MULTIPLY, multiplies)
        return await self._compute(session, Urgency.AWAITED, party.presign, received)

    async def _ready_pairs(self, session: _Session) -> dict[int, PairState]:
        peers = sorted(session.signers.peers, key=str.lower)
        found = await asyncio.gather(*map(self._pairs.ready, peers), return_exceptions=True)
        for kind in (BannedPairError, UnreadyPairError):
            failed = [error for error in found if isinstance(error, kind)]
            if failed:
                raise _Failure(failed[0].message, tuple(error.peer for error in failed))
        pairs = {}
        for peer, state in zip(peers, found, strict=True):
            if isinstance(state, BaseException):
                raise state
            pairs[session.index(peer)] = state
        return pairs

    async def _compute(
        self, session: _Session, urgency: Urgency, step: Callable[..., T], *arguments: Any
    ) -> T:
        # To its end even if the node is stopping: a ban must not get lost.
        return await carry_through(self._step(session, urgency, step, *arguments))

    async def _step(self, session: _Session, urgency: Urgency, step: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._workers.compute(step, *arguments, urgency=urgency)
        except SigningAbort as abort:
            culprits = session.operators(abort.culprits)
            if abort.ban:
                for culprit in culprits:
                    _log.error("request %s: %s: banned: %s", session.request_id, culprit, abort.reason)
                    await self._pairs.ban(culprit)
            if abort.reason == SigningReason.SETUP_MISMATCH:
                for culprit in culprits:
                    self._pairs.doubt(culprit)
                culprits = ()  # what one of the two has lost is nobody's fault
            raise _Failure(abort.reason, culprits) from abort

    async def _exchange(
        self, session: _Session, round_: int, bodies: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """Send this node's messages of a round and wait for everybody else's, by index."""
        bodies = self._faults.signing_round(round_, bodies)
        if not bodies:
            session.signers.fall_silent()
        session.signers.send(
            round_, {session.participants[index - 1]: body for index, body in bodies.items()}
        )
        try:
            received = await session.signers.receive(
                round_, timeout_s=self._limits.sign_round_s, quiet_s=self._limits.sign_quiet_s
            )
        except SilentPeersError as error:
            silent = tuple(sorted(error.peers, key=str.lower))
            raise _Failure(f"no message in round {round_} in time", silent) from error
        except ConflictingMessageError as error:
            raise _Failure(f"two different messages in round {round_}", (error.peer,)) from error
        except PeerAbortError as error:
            raise _judge(session, error) from error
        return {session.index(peer): body for peer, body in received.items()}

    def _refusal(self, session: _Session, failure: _Failure) -> RefusalError:
        named = f" (blamed: {', '.join(failure.culprits)})" if failure.culprits else ""
        _log.warning("request %s: no presignature: %s%s", session.request_id, failure.reason, named)
        data: dict[str, Any] = {"culprits": list(failure.culprits)}
        if failure.aborted_by is not None:
            data["abortedBy"] = failure.aborted_by
        return RefusalError(NodeCode.SIGNING_FAILED, f"signing failed: {failure.reason}", data=data)


def _judge(session: _Session, error: PeerAbortError) -> _Failure:
    try:
        notice = AbortNotice.decode(error.notice)
    except ProtocolError:
        return _Failure("an abort that cannot be read", (error.peer,), aborted_by=error.peer)
    return _Failure(
        notice.reason, credible_culprits(notice, error, session.participants), aborted_by=error.peer
    )

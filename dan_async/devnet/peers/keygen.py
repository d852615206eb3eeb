"""Runs one distributed key generation over the links: moves messages, keeps deadlines, blames; ``mpc.dkg`` computes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import define, field, frozen

from dan_async.config import Threshold
from dan_async.devnet.context import NodeIdentity, NodeLimits, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.faults.kinds import NodeCrashed
from dan_async.devnet.faults.lies import DkgFaults
from dan_async.devnet.mpc.dkg import DkgAbort, DkgParty
from dan_async.devnet.mpc.dkg_messages import Session
from dan_async.devnet.mpc.evidence import CommitmentBook, check_evidence, sign_commitment
from dan_async.devnet.mpc.framing import join_parts, split_parts
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.node.rpc import RefusalError
from dan_async.devnet.peers.messages import AbortNotice, Kind
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

_COMMIT, _OPEN, _ECHO = 1, 2, 3


@frozen
class _Failure(Exception):  # noqa: N818 - never leaves this module
    """Why a session ended without a key: what to tell the client, and what to tell the other parties."""

    reason: str
    culprits: tuple[OperatorAddress, ...] = ()
    complaint: bytes | None = None
    aborted_by: OperatorAddress | None = None


@define
class _Session:
    request_id: RequestId
    threshold: Threshold
    participants: tuple[OperatorAddress, ...]
    parties: PeerSession
    #: What the peers have committed to, by index.
    commitments: dict[int, bytes] = field(factory=dict)
    faults: DkgFaults | None = None

    @property
    def session_id(self) -> bytes:
        return self.parties.id

    @property
    def agreed(self) -> Session:
        """What all parties agree on beforehand."""
        return Session(session_id=self.session_id, threshold=self.threshold, identities=self.participants)

    def index(self, operator: OperatorAddress) -> int:
        return self.participants.index(operator) + 1


class DkgSessions:
    """
    The key generations that a node takes part in.

    Args:
        identity: The node.
        sessions: Its sessions with the others.
        workers: Where the arithmetic runs, so that the event loop is never held for long.
        limits: How long a round may take.
        faults: What the node does wrong on purpose.
        on_crash: Called when a fault kills the node, with the seconds until it is to come back, if it is.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        sessions: PeerSessions,
        workers: Workers,
        limits: NodeLimits,
        faults: NodeFaults,
        on_crash: Callable[[float | None], None] = lambda _: None,
    ) -> None:
        self._identity = identity
        self._sessions = sessions
        self._workers = workers
        self._limits = limits
        self._faults = faults
        self._on_crash = on_crash

    def has_run(self, session_id: bytes) -> bool:
        """Tell whether a session of that id has begun here: none may begin twice."""
        return self._sessions.has_run(session_id)

    async def run(
        self,
        *,
        request_id: RequestId,
        session_id: bytes,
        threshold: Threshold,
        participants: Sequence[OperatorAddress],
    ) -> KeyShare:
        """
        Make a key together with the other participants.

        Args:
            request_id: For logs.
            session_id: 32 bytes that no other key generation ever had.
            threshold: t and n.
            participants: The operators, ascending; party i is ``participants[i - 1]``, and one is this node.

        Returns:
            This node's share.

        Raises:
            RefusalError: ``KEYGEN_FAILED``; ``data.culprits`` names whom this node can blame by what it saw itself.
        """
        peers = [operator for operator in participants if operator != self._identity.operator]
        with self._sessions.open(Kind.KEYGEN, session_id, peers, rounds=_ECHO) as parties:
            return await self._attempt(_Session(request_id, threshold, tuple(participants), parties))

    async def _attempt(self, session: _Session) -> KeyShare:
        own = (session.index(self._identity.operator),)
        try:
            return await self._run(session)
        except asyncio.CancelledError:
            session.parties.abort(AbortNotice("the node is stopping", own))
            raise
        except _Failure as failure:
            # Also after a peer's abort: it may have told this node only, so that the others would call it silent.
            culprits = tuple(session.index(culprit) for culprit in failure.culprits)
            session.parties.abort(AbortNotice(failure.reason, culprits, failure.complaint))
            raise self._refusal(session, failure) from failure
        except NodeCrashed as crash:
            self._on_crash(crash.restart_after)  # from here: the client that asked may be gone
            raise
        except Exception:
            session.parties.abort(AbortNotice("the node has failed", own))
            raise

    async def _run(self, session: _Session) -> KeyShare:
        party = self._new_party(session)
        session.faults = self._faults_in(session)
        agreed = session.agreed
        book = CommitmentBook(agreed, session.index(self._identity.operator))
        commitment = sign_commitment(agreed, await self._compute(session, party.commit), self._identity.sign)
        committed = await self._exchange(session, _COMMIT, dict.fromkeys(session.parties.peers, commitment))
        commitments = await self._compute(session, book.read, commitment, committed)

        session.commitments = commitments
        opening = await self._compute(session, party.open, commitments)
        bodies = {
            peer: join_parts((opening.broadcast, opening.shares[session.index(peer)]))
            for peer in session.parties.peers
        }
        received = await self._exchange(session, _OPEN, bodies)
        openings, shares = _unpack(session, received)

        echo = await self._compute(session, party.verify, openings, shares)
        echoed = await self._exchange(session, _ECHO, dict.fromkeys(session.parties.peers, book.echo(echo)))
        return await self._compute(session, book.finish, party, echo, echoed)

    def _new_party(self, session: _Session) -> DkgParty:
        return DkgParty(
            session_id=session.session_id,
            index=session.index(self._identity.operator),
            threshold=session.threshold,
            identities=session.participants,
            sign=self._identity.sign,
        )

    def _faults_in(self, session: _Session) -> DkgFaults | None:
        faults = self._faults.in_key_generation()
        if not faults:
            return None
        return DkgFaults(
            faults,
            identity=self._identity,
            session=session.agreed,
            new_party=lambda: self._new_party(session),
        )

    async def _compute(self, session: _Session, step: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._workers.compute(step, *arguments)
        except DkgAbort as abort:
            culprits = tuple(session.participants[index - 1] for index in abort.culprits)
            raise _Failure(abort.reason, culprits, abort.complaint) from abort

    async def _exchange(
        self, session: _Session, round_: int, bodies: Mapping[OperatorAddress, bytes]
    ) -> dict[int, bytes]:
        """Send this node's messages of a round and wait for everybody else's, by index."""
        self._faults.before_round(round_)
        if session.faults is not None:
            bodies = session.faults.outgoing(round_, bodies, session.commitments)
        session.parties.send(round_, bodies)
        try:
            received = await session.parties.receive(round_, timeout_s=self._limits.round_s)
        except SilentPeersError as error:
            reason = f"no message in round {round_} within {self._limits.round_s:g} s"
            raise _Failure(reason, tuple(sorted(error.peers, key=str.lower))) from error
        except ConflictingMessageError as error:
            raise _Failure(f"two different messages in round {round_}", (error.peer,)) from error
        except PeerAbortError as error:
            raise await self._judge(session, error) from error
        return {session.index(peer): body for peer, body in received.items()}

    async def _judge(self, session: _Session, error: PeerAbortError) -> _Failure:
        """Decide whom to blame for a peer's abort: whom a complaint proves guilty, or see ``credible_culprits``."""
        by = error.peer
        try:
            notice = AbortNotice.decode(error.notice)
        except ProtocolError:
            return _Failure("an abort that cannot be read", (by,), aborted_by=by)
        if notice.complaint is not None:
            proven = await self._workers.compute(check_evidence, session.agreed, notice.complaint)
            if proven is None:
                return _Failure("a complaint that proves nothing", (by,), aborted_by=by)
            guilty = session.participants[proven - 1]
            return _Failure(notice.reason, (guilty,), notice.complaint, aborted_by=by)
        culprits = credible_culprits(notice, error, session.participants)
        return _Failure(notice.reason, culprits, aborted_by=by)

    def _refusal(self, session: _Session, failure: _Failure) -> RefusalError:
        named = f" (blamed: {', '.join(failure.culprits)})" if failure.culprits else ""
        _log.warning("request %s: key generation failed: %s%s", session.request_id, failure.reason, named)
        data: dict[str, Any] = {"culprits": list(failure.culprits)}
        if failure.aborted_by is not None:
            data["abortedBy"] = failure.aborted_by
        return RefusalError(NodeCode.KEYGEN_FAILED, f"key generation failed: {failure.reason}", data=data)


def _unpack(session: _Session, received: Mapping[int, bytes]) -> tuple[dict[int, bytes], dict[int, bytes]]:
    openings, shares = {}, {}
    for index, body in received.items():
        try:
            openings[index], shares[index] = split_parts(body, 2)
        except ProtocolError as error:
            raise _Failure("malformed message", (session.participants[index - 1],)) from error
    return openings, shares

"""Distributed key generation among nodes: ``mpc.dkg`` computes, ``RoundSession`` moves messages and blames."""

from __future__ import annotations

from collections.abc import Mapping

from dan_async.devnet.context import NodeContext
from dan_async.devnet.faults.in_force import KeygenFaults
from dan_async.devnet.faults.lies import KeygenFace
from dan_async.devnet.mpc.aborts import DkgAbort, ProtocolAbort, Reason
from dan_async.devnet.mpc.dkg import DkgParty
from dan_async.devnet.mpc.dkg_messages import Session
from dan_async.devnet.mpc.evidence import CommitmentBook, check_evidence, sign_commitment
from dan_async.devnet.mpc.framing import join_parts, split_parts
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.peers.messages import AbortNotice, Kind
from dan_async.devnet.peers.sessions import PeerAbortError, PeerSessions, RoundSession, SessionFailedError
from dan_async.errors import ProtocolError
from dan_async.types import RequestId

_COMMIT, _OPEN, _ECHO = 1, 2, 3


class KeygenSession(RoundSession[KeyShare]):
    """One key generation among the identities of *agreed*, under an id that no other key ever had."""

    NEEDS_ALL = True
    KIND = Kind.KEYGEN
    ROUNDS = _ECHO

    def __init__(
        self, context: NodeContext, sessions: PeerSessions, agreed: Session, request_id: RequestId
    ) -> None:
        super().__init__(
            context,
            sessions,
            name=f"request {request_id}: key generation",
            session_id=agreed.session_id,
            parties=agreed.identities,
        )
        self._agreed = agreed
        self._faults: KeygenFaults | None = None
        #: The peers' commitments, once they are there.
        self._commitments: dict[int, bytes] = {}

    async def work(self) -> KeyShare:
        agreed, sign = self._agreed, self.context.identity.sign
        party = self._new_party()
        face = KeygenFace(session=agreed, index=self.own_index, sign=sign, new_party=self._new_party)
        self._faults = self.context.faults.begin_keygen(face)
        book = CommitmentBook(agreed, self.own_index)
        commitment = sign_commitment(agreed, await self.compute(party.commit), sign)
        committed = await self.exchange(_COMMIT, self._to_all(commitment))
        self._commitments = await self.compute(book.read, commitment, committed)

        opening = await self.compute(party.open, self._commitments)
        openings, shares = self._split(
            await self.exchange(
                _OPEN,
                {index: join_parts((opening.broadcast, share)) for index, share in opening.shares.items()},
            )
        )
        echo = await self.compute(party.verify, openings, shares)
        echoed = await self.exchange(_ECHO, self._to_all(book.echo(echo)))
        return await self.compute(book.finish, party, echo, echoed)

    async def blame(self, abort: ProtocolAbort) -> SessionFailedError:
        """Blame the culprits, and pass on the complaint that convinces the others."""
        complaint = abort.complaint if isinstance(abort, DkgAbort) else None
        return SessionFailedError(abort.reason, self.operators(abort.culprits), complaint=complaint)

    async def judge(self, notice: AbortNotice, error: PeerAbortError) -> SessionFailedError:
        """Blame the party that a complaint proves guilty; a peer whose complaint proves nothing has lied."""
        if notice.complaint is None:
            return await super().judge(notice, error)
        by = error.peer
        proven = await self.context.workers.compute(check_evidence, self._agreed, notice.complaint)
        if proven is None:
            return SessionFailedError("a complaint that proves nothing", (by,), aborted_by=by)
        return SessionFailedError(
            notice.reason, self.operators((proven,)), aborted_by=by, complaint=notice.complaint
        )

    def outgoing(self, round_: int, bodies: Mapping[int, bytes]) -> Mapping[int, bytes]:
        assert self._faults is not None  # it has begun
        return self._faults.outgoing(round_, bodies, self._commitments)

    def _new_party(self) -> DkgParty:
        return DkgParty(
            session_id=self.session_id,
            index=self.own_index,
            threshold=self._agreed.threshold,
            identities=self._agreed.identities,
            sign=self.context.identity.sign,
        )

    def _to_all(self, body: bytes) -> dict[int, bytes]:
        return {self.index(peer): body for peer in self.peers}

    def _split(self, received: Mapping[int, bytes]) -> tuple[dict[int, bytes], dict[int, bytes]]:
        openings, shares = {}, {}
        for index, body in received.items():
            try:
                openings[index], shares[index] = split_parts(body, 2)
            except ProtocolError as error:
                raise SessionFailedError(Reason.MALFORMED_MESSAGE, self.operators((index,))) from error
        return openings, shares

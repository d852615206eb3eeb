"""Distributed key generation among nodes: ``mpc.dkg`` computes, ``RoundSession`` moves messages and blames."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from dan_async._values import from_hex
from dan_async.devnet.context import NodeContext
from dan_async.devnet.faults.lies import KeygenFace
from dan_async.devnet.mpc.aborts import DkgAbort, ProtocolAbort
from dan_async.devnet.mpc.dkg import (
    KeyShare,
    ProvingParty,
    Session,
    check_evidence,
)
from dan_async.devnet.peers.sessions import (
    AbortNotice,
    Kind,
    PeerAbortError,
    PeerMessage,
    PeerSessions,
    RoundSession,
    SessionFailedError,
)
from dan_async.types import OperatorAddress, RequestId

_COMMIT, _OPEN, _ECHO = 1, 2, 3

#: A party that lacks echoes for so long, and for as long as all rounds before took, asks the others for the certificate, and
#: again after twice the time, in seconds; and for how long it waits for the answer before it gives up.
_ASK_S, _LAST_WORD_S = 0.5, 0.1


class KeygenSession(RoundSession[tuple[KeyShare, ...]]):
    """
    One key generation among the identities of *agreed*, under an id that no other ever had; of one key or of several.

    The first key's request id is the name under which the parties pass on the certificate. One that has failed for want of
    echoes may still be certified; see ``certify``.
    """

    NEEDS_ALL = True
    KIND = Kind.KEYGEN
    ROUNDS = _ECHO

    #: The wait for the echoes, and the timer of the next question for the certificate.
    _echoes: asyncio.Timeout
    _asking: asyncio.TimerHandle

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
        self._request_id = request_id
        #: The party, once nothing but the others' echoes is missing.
        self._party: ProvingParty | None = None
        self._certified: asyncio.Future[tuple[KeyShare, ...]] = asyncio.get_running_loop().create_future()
        self._releasing = asyncio.Lock()
        self._is_over = False  # nobody waits for it in ``run``
        #: Peers that have asked for the certificate before there was one.
        self.asked: set[OperatorAddress] = set()
        #: The peers' bodies of round 1, once they are there.
        self._commitments: dict[int, bytes] = {}

    async def work(self) -> tuple[KeyShare, ...]:
        began = time.monotonic()
        party = self._new_party()
        face = KeygenFace(
            session=self._agreed,
            index=self.own_index,
            sign=self.context.identity.sign,
            squat=lambda: self._session.tell_all(PeerMessage(Kind.PAIR_SETUP, self.session_id, 1, b"")),
        )
        self._outgoing = self.context.faults.begin_keygen(face)
        committed = await self.exchange(_COMMIT, self._to_all(await self.compute(party.commit)))
        self._commitments = committed
        opened = await self.exchange(_OPEN, await self.compute(party.open, committed))
        echo = await self.compute(party.verify, opened)
        return await self._finish(party, echo, max(_ASK_S, time.monotonic() - began))

    @property
    def may_be_certified(self) -> bool:
        """Whether nothing is missing but proof that all parties agree."""
        return self._party is not None

    @property
    def certificate(self) -> bytes:
        """The proof that all parties agree, once there is a share."""
        return b"" if self._party is None else self._party.dkg.certificate

    async def certify(self, certificate: bytes) -> tuple[KeyShare, ...] | None:
        """Take a certificate, whoever brings it; return the shares if nobody waits for them in ``run`` any more."""
        async with self._releasing:
            if self._party is None or self._certified.done() or self.certificate:
                return None
            shares = await self.context.workers.compute(self._party.dkg.certify, certificate)
            if shares is not None:
                self._certified.set_result(shares)
                with suppress(RuntimeError):  # the wait has ended by itself
                    self._echoes.reschedule(0.0)
        return shares if self._is_over else None

    def ask(self) -> None:
        """Ask the other parties for the certificate."""
        self._session.tell_all(
            PeerMessage(Kind.CERTIFICATE, from_hex(self._request_id, field="requestId"), 0, b"")
        )

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
        return self._outgoing(round_, bodies, self._commitments)

    async def _finish(self, party: ProvingParty, echo: bytes, ask_s: float) -> tuple[KeyShare, ...]:
        """Wait for the echoes of all, or for a certificate where some are missing or spoilt."""
        self._party = party
        self._ask_after(ask_s)
        try:
            async with asyncio.timeout(None) as self._echoes:
                echoed = await self.exchange(_ECHO, self._to_all(echo))
                async with self._releasing:
                    if not self._certified.done():
                        return await self.compute(party.finish, echoed)
        except SessionFailedError:
            self.ask()
            await asyncio.wait([self._certified], timeout=_LAST_WORD_S)
            if not self._certified.done():
                self._is_over = True
                raise
        except TimeoutError:
            pass  # ``certify`` ended the wait
        finally:
            self._asking.cancel()
        return self._certified.result()

    def _ask_after(self, wait_s: float) -> None:
        self._asking = asyncio.get_running_loop().call_later(wait_s, self._ask_again, wait_s)

    def _ask_again(self, waited_s: float) -> None:
        self.ask()
        self._ask_after(2 * waited_s)

    def _new_party(self) -> ProvingParty:
        return ProvingParty(self._agreed, self.own_index, self.context.identity.sign)

    def _to_all(self, body: bytes) -> dict[int, bytes]:
        return {self.index(peer): body for peer in self.peers}

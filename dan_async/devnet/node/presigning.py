"""
A node's side of ``dan_presign``: checked requests in, presignatures made with the other signers and kept ready.

Each signs once, soon, for one ephemeral key, and does not outlive the process. That is what keeps any of them from being
used twice across a restart: nothing has to be written before the first byte of a signature leaves, because nothing could
bring a presignature back.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define, field, frozen

from dan_async.crypto.hashes import tagged_hash
from dan_async.devnet.context import NodeContext
from dan_async.devnet.mpc.threshold_ecdsa import Presignature
from dan_async.devnet.node.checks import check_presign_key, check_presign_time, check_signers
from dan_async.devnet.node.keys import KeyRecord, KeyRing
from dan_async.devnet.node.requests import RequestRuns, content_hash
from dan_async.devnet.node.rpc import RefusalError, rate_limited, refusing
from dan_async.devnet.peers.presigning import PresignJob, PresignSessions
from dan_async.errors import NodeCode
from dan_async.protocols.node import PresignatureOffer, PresignParams, commitments_hash
from dan_async.types import Clock, MpcKeyId, OperatorAddress, RequestId

#: How many ids of presignatures that are gone are remembered, to say what became of them.
_MOST_SPENT = 65_536

#: How many there may be in all.
_MOST_READY = 65_536


@frozen
class PresignatureOwner:
    """Who may use a presignature: an ephemeral key, for a key."""

    key_id: MpcKeyId
    eph_id: str


@frozen(kw_only=True)
class StockedPresignature:
    """A presignature, who may use it, and until when (Unix seconds)."""

    presignature: Presignature
    owner: PresignatureOwner
    signers: tuple[OperatorAddress, ...]
    expires_at: float
    #: The 32 bytes of its id on the wire, which binds it to the nonce point.
    name: bytes = field(init=False)

    @name.default
    def _name(self) -> bytes:
        return self.presignature.name


class PresignatureStock:
    """
    The presignatures of one node: *most* kept for one ephemeral key, and as many being made.

    A new one takes the place of the oldest: that one was made for a call which has its signature by now, from other nodes,
    or has ended without. Refused is only more work at a time, since a client can wait for that.
    """

    def __init__(self, *, most: int, clock: Clock) -> None:
        self._most = most
        self._clock = clock
        self._ready: dict[bytes, StockedPresignature] = {}
        self._owned: dict[PresignatureOwner, dict[bytes, StockedPresignature]] = {}  # the oldest first
        self._expiries: list[tuple[float, bytes]] = []  # a heap
        self._making: Counter[PresignatureOwner] = Counter()
        self._spent: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        self._forget_expired()
        return len(self._ready)

    @contextmanager
    def making(self, owner: PresignatureOwner) -> Iterator[None]:
        """Reserve a place for a presignature while it is made; ``add`` it inside."""
        self._forget_expired()
        if self._making[owner] >= self._most or len(self._ready) >= _MOST_READY:
            raise rate_limited("enough presignatures are being made", 1.0)
        self._making[owner] += 1
        try:
            yield
        finally:
            self._making[owner] -= 1
            if not self._making[owner]:
                del self._making[owner]

    def add(self, stocked: StockedPresignature) -> None:
        owned = self._owned.get(stocked.owner, {})
        if len(owned) >= self._most:
            self._drop([next(iter(owned.values()))])
        owned = self._owned.setdefault(stocked.owner, {})
        self._ready[stocked.name] = owned[stocked.name] = stocked
        heapq.heappush(self._expiries, (stocked.expires_at, stocked.name))

    def find(
        self, id_: bytes, *, owner: PresignatureOwner, signers: tuple[OperatorAddress, ...]
    ) -> StockedPresignature:
        self._forget_expired()
        if id_ in self._spent:
            raise RefusalError(NodeCode.PRESIGNATURE_SPENT, "the presignature was used before")
        found = self._ready.get(id_)
        if found is None or found.owner != owner or found.signers != signers:
            raise RefusalError(NodeCode.PRESIGNATURE_UNKNOWN, "there is no such presignature for this")
        return found

    def take(self, stocked: StockedPresignature) -> Presignature:
        """Take a presignature out for good; from here on its id is spent."""
        self._remove(stocked)
        self._spent[stocked.name] = None
        if len(self._spent) > _MOST_SPENT:
            self._spent.popitem(last=False)
        return stocked.presignature

    def discard(self, key_id: MpcKeyId, eph_id: str) -> None:
        self._drop(list(self._owned.get(PresignatureOwner(key_id, eph_id), {}).values()))

    def clear(self) -> None:
        self._drop(list(self._ready.values()))

    def _forget_expired(self) -> None:
        now = self._clock()
        while self._expiries and self._expiries[0][0] <= now:
            stocked = self._ready.get(heapq.heappop(self._expiries)[1])
            if stocked is not None:
                self._drop([stocked])

    def _drop(self, dropped: list[StockedPresignature]) -> None:
        for stocked in dropped:
            self._remove(stocked)
            stocked.presignature.discard()

    def _remove(self, stocked: StockedPresignature) -> None:
        del self._ready[stocked.name]
        owned = self._owned[stocked.owner]
        del owned[stocked.name]
        if not owned:
            del self._owned[stocked.owner]


def presign_job(
    record: KeyRecord, request_id: RequestId, signers: tuple[OperatorAddress, ...], *, index: int
) -> PresignJob:
    """Return what the signers work on; the index is 0 for ``dan_presign``, else the number of the message, from 1."""
    session_id = tagged_hash(
        "dan-node/1 presign session",
        bytes.fromhex(record.acknowledgement.key_id),
        request_id,
        index,
        *signers,
    )
    return PresignJob(
        request_id=request_id,
        session_id=session_id,
        share=record.share,
        participants=record.acknowledgement.participants,
        signers=signers,
    )


@define(kw_only=True, eq=False, repr=False)
class PresignService:
    """Presignatures at one node."""

    _context: NodeContext
    _ring: KeyRing
    _sessions: PresignSessions
    _stock: PresignatureStock
    _runs: RequestRuns[PresignatureOffer] = field(init=False)

    def __attrs_post_init__(self) -> None:
        most = self._context.limits.max_presigns
        self._runs = RequestRuns(self._context, "presignatures", most=most)

    async def presign(self, params: PresignParams) -> PresignatureOffer:
        """Take part in making a presignature, or say again what came of it."""
        request = (params.request_id, params.signers)
        return await self._runs.run(request, content_hash(params), lambda: self._begin(params))

    async def aclose(self) -> None:
        await self._runs.aclose()
        self._stock.clear()

    def _begin(self, params: PresignParams) -> Coroutine[Any, Any, PresignatureOffer]:
        record = self._check(params)
        check_signers(record, params.signers, self._context.identity.operator)
        job = presign_job(record, params.request_id, params.signers, index=0)
        if self._sessions.has_run(job.session_id):
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the nodes have worked on this request before")
        return self._make(params, job)

    def _check(self, params: PresignParams) -> KeyRecord:
        """Check what may change while a presignature is made."""
        now = self._context.clock()
        record = self._ring.get(params.key_id)
        check_presign_time(params, now)
        check_presign_key(record, params, now)
        return record

    async def _make(self, params: PresignParams, job: PresignJob) -> PresignatureOffer:
        owner = PresignatureOwner(params.key_id, params.eph_id)
        with self._stock.making(owner):
            with refusing(NodeCode.SIGNING_FAILED, "signing"):
                presignature = await self._sessions.run(job)
            try:
                record = self._check(params)  # the ephemeral key may have been revoked meanwhile
            except RefusalError:
                presignature.discard()
                raise
            return self._offer(params, record, owner, presignature)

    def _offer(
        self, params: PresignParams, record: KeyRecord, owner: PresignatureOwner, presignature: Presignature
    ) -> PresignatureOffer:
        key = record.ephemeral_keys.find(params.eph_id)
        assert key is not None
        kept_until = self._context.clock() + self._context.limits.presignature_lifetime_s
        expires_at = int(min(params.expires_at, key.claim.expiry, kept_until))
        stocked = StockedPresignature(
            presignature=presignature, owner=owner, signers=params.signers, expires_at=expires_at
        )
        self._stock.add(stocked)
        return PresignatureOffer(
            presignature_id=stocked.name,
            nonce_point=presignature.nonce_point,
            public_key=presignature.public_key,
            commitment=commitments_hash(stocked.name, presignature.commitments),
            expires_at=expires_at,
        )

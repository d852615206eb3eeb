"""
A node's side of signing: checked requests in, presignatures and shares of signatures out; and all that belongs to it.

A presignature is made with the other signers and kept ready. Each signs once, soon, for one ephemeral key, and does not
outlive the process. That is what keeps any of them from being used twice across a restart: nothing has to be written before
the first byte of a signature leaves, because nothing could bring a presignature back.

What is last before a share leaves happens in one go, without waiting for anything: the ephemeral key is looked up once
more, the presignatures are used up, the shares are made. So from the moment that a revocation is stored, or a key or its
presignature expires, nothing is signed.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, TypeVar

from attrs import evolve, frozen

from dan_async.crypto.hashes import tagged_hash
from dan_async.devnet.context import NodeContext, Urgency
from dan_async.devnet.mpc.aborts import SigningAbort
from dan_async.devnet.mpc.threshold_ecdsa import Presignature
from dan_async.devnet.node.checks import (
    ReadSign,
    check_presign_key,
    check_presign_time,
    check_signers,
    check_signing_key,
    content_hash,
    own_nonce,
    read_messages,
    read_sign,
    signed_content,
    usable_key,
)
from dan_async.devnet.node.keys import KeyRecord, KeyRing
from dan_async.devnet.node.requests import NonceStore, Remembered, RequestRuns
from dan_async.devnet.node.rpc import RefusalError, rate_limited, reading, refusing
from dan_async.devnet.peers.links import PeerLinks
from dan_async.devnet.peers.presigning import PairSetups, PairStore, PresignJob, PresignSessions
from dan_async.devnet.peers.sessions import PeerSessions
from dan_async.errors import NodeCode
from dan_async.permissions.checking import find_refusal
from dan_async.protocols.fields import decode, decode_key_id, to_json
from dan_async.protocols.node import (
    SIGNGEN,
    PresignatureOffer,
    PresignParams,
    SignatureClaims,
    SignatureShare,
    SignatureShares,
    SignParams,
    commitments_hash,
)
from dan_async.protocols.sign_request import SignRequest
from dan_async.types import Clock, Json, MpcKeyId, OperatorAddress, RequestId

_log = logging.getLogger(__name__)

T = TypeVar("T")

# --- presignatures ----------------------------------------------------------------------------------------------------

#: How many ids of presignatures that are gone are remembered, to say what became of them.
_MOST_SPENT = 65_536

#: How many there may be in all.
_MOST_READY = 65_536


#: Who may use a presignature: a key, and the id of an ephemeral key.
PresignatureOwner: TypeAlias = tuple[MpcKeyId, str]


@frozen(kw_only=True)
class StockedPresignature:
    """A presignature, who may use it, and until when (Unix seconds)."""

    presignature: Presignature
    owner: PresignatureOwner
    signers: tuple[OperatorAddress, ...]
    expires_at: float

    @property
    def name(self) -> bytes:
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
        self._drop(list(self._owned.get((key_id, eph_id), {}).values()))

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


# --- requests ---------------------------------------------------------------------------------------------------------

#: Setups and signatures up to this many characters are read on the event loop.
_SHORT = 8192

_MOST_AUTHORISED = 16_384


class NodeSigning:
    """Everything of a node that is about signing: set-ups with others, presignatures, signatures."""

    def __init__(
        self,
        context: NodeContext,
        *,
        ring: KeyRing,
        links: PeerLinks,
        sessions: PeerSessions,
        nonces: NonceStore,
    ) -> None:
        self._context = context
        self._ring = ring
        self._nonces = nonces
        limits = context.limits
        self.pairs = PairStore(context.store, context.bans)
        self.stock = PresignatureStock(most=limits.max_presignatures, clock=context.clock)
        self.setups = PairSetups(context, links=links, sessions=sessions, store=self.pairs)
        self._presigning = PresignSessions(context, sessions, self.setups)
        self._presigns = RequestRuns[PresignatureOffer](context, "presignatures", most=limits.max_presigns)
        self._signs = RequestRuns[SignatureShares](context, "signatures", most=limits.max_signs)
        self._checking = 0  # long requests for signatures
        #: What was signed of requests whose nonce is spent: with other signers they may come again.
        self._authorised = Remembered[RequestId, bytes](
            most=_MOST_AUTHORISED, keep_s=limits.nonce_lifetime_s, clock=context.clock
        )

    async def presign(self, params: dict[str, Json]) -> Json:
        """Take part in making a presignature, or say again what came of it."""
        asked = decode(PresignParams, params)
        record = self._check_presign(asked)
        # All but its signature, which anybody may spell in another way, and so pass the request on as another one.
        content = content_hash(evolve(asked, signature=""))
        begin = partial(self._begin_presigning, asked, record)
        return to_json(await self._presigns.run((asked.request_id, asked.signers), content, begin))

    async def sign(self, params: dict[str, Json]) -> Json:
        """Sign, or say again what was said to the same request."""
        asked = decode(SignParams, params)
        read, record, requests, digests = await self._checked(asked)
        request, content = (asked.request_id, asked.signers), signed_content(read)
        if asked.presignature_ids and _is_short(asked):
            shares = self._signs.run_at_once(request, content, partial(self._finish, read, digests, None))
        else:
            sign = partial(self._sign, read, record, requests, digests)
            shares = await self._signs.run(request, content, sign)
        return to_json(self._context.faults.forge_shares(shares, self._context.identity.sign))

    async def give_up(self) -> None:
        """Give up running work; callers that wait for it get an error."""
        await self._presigns.aclose()
        self.stock.clear()
        await self._signs.aclose()

    async def aclose(self) -> None:
        """Give up everything, and wait until it has ended."""
        await self.give_up()
        await self.setups.aclose()

    # --- presignatures ------------------------------------------------------------------------------------------------

    def _begin_presigning(
        self, params: PresignParams, record: KeyRecord
    ) -> Coroutine[Any, Any, PresignatureOffer]:
        check_signers(record, params.signers, self._context.identity.operator)
        job = presign_job(record, params.request_id, params.signers, index=0)
        if self._presigning.has_run(job.session_id):
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the nodes have worked on this request before")
        return self._make(params, job)

    def _check_presign(self, params: PresignParams) -> KeyRecord:
        """Check what may change while a presignature is made."""
        now = self._context.clock()
        record = self._ring.get(params.key_id)
        check_presign_time(params, now)
        check_presign_key(record, params, now)
        return record

    async def _make(self, params: PresignParams, job: PresignJob) -> PresignatureOffer:
        owner = (params.key_id, params.eph_id)
        with self.stock.making(owner):
            with refusing(NodeCode.SIGNING_FAILED, "signing"):
                presignature = await self._presigning.run(job)
            try:
                record = self._check_presign(params)  # the ephemeral key may have been revoked meanwhile
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
        self.stock.add(stocked)
        return PresignatureOffer(
            presignature_id=stocked.name,
            nonce_point=presignature.nonce_point,
            public_key=presignature.public_key,
            commitment=commitments_hash(stocked.name, presignature.commitments),
            expires_at=expires_at,
        )

    # --- signatures ---------------------------------------------------------------------------------------------------

    async def _checked(
        self, params: SignParams
    ) -> tuple[ReadSign, KeyRecord, Sequence[SignRequest], Sequence[bytes]]:
        """Check as ``_check`` does, before the request has a place under its id: a stranger's has none."""
        if _is_short(params):
            return self._check(params)
        self._signs.check_room(1 + self._checking)
        self._checking += 1
        try:
            return await self._compute(params, self._check, params)
        finally:
            self._checking -= 1

    async def _sign(
        self,
        read: ReadSign,
        record: KeyRecord,
        requests: Sequence[SignRequest],
        digests: Sequence[bytes],
    ) -> SignatureShares:
        made = None
        if not read.params.presignature_ids:
            self._spend_nonce(read)
            made = await self._presign(record, read, len(requests))
            # Their time may be over meanwhile.
            await self._compute(read.params, self._check_permissions, record, requests)
        return self._finish(read, digests, made)

    def _check(
        self, params: SignParams
    ) -> tuple[ReadSign, KeyRecord, Sequence[SignRequest], Sequence[bytes]]:
        """Check all but the presignatures or the nonce; return what was read, the key, the messages and their digests."""
        read = read_sign(params)
        record = self._record(read)
        check_signers(record, params.signers, self._context.identity.operator)
        check_signing_key(record, read, self._context.clock())
        requests, digests = read_messages(read)  # a stranger's messages are never read
        self._check_permissions(record, requests)
        return read, record, requests, digests

    async def _compute(self, params: SignParams, function: Callable[..., T], *arguments: Any) -> T:
        if _is_short(params):
            return function(*arguments)
        return await self._context.workers.compute(function, *arguments, urgency=Urgency.AWAITED)

    def _record(self, read: ReadSign) -> KeyRecord:
        with reading("setup"):
            key_id = decode_key_id(read.setup.key_id)
        return self._ring.get(key_id)

    def _check_permissions(self, record: KeyRecord, requests: Sequence[SignRequest]) -> None:
        now = self._context.clock()
        for request in requests:
            problem = find_refusal(record.permissions, request, now=now)
            if problem is not None:
                raise RefusalError(NodeCode.NOT_PERMITTED, problem)

    def _spend_nonce(self, read: ReadSign) -> None:
        """Use the nonce up, or remember that it was used up for the same request with other signers."""
        params, content = read.params, signed_content(read)
        if self._authorised.get(params.request_id) == content:
            return
        nonce = own_nonce(params, self._context.identity.operator) if params.participants else None
        with self._nonces.spending(nonce, params.request_id, SIGNGEN, read.setup_digest):
            self._authorised.put(params.request_id, content)

    async def _presign(self, record: KeyRecord, read: ReadSign, count: int) -> list[Presignature]:
        """Make a presignature for each message, all at the same time."""

        def make(index: int) -> Coroutine[Any, Any, Presignature]:
            job = presign_job(record, read.params.request_id, read.params.signers, index=index)
            if self._presigning.has_run(job.session_id):
                raise RefusalError(
                    NodeCode.CHALLENGE_REUSED, "the nodes have worked under this challenge before"
                )
            return self._presigning.run(job)

        with refusing(NodeCode.SIGNING_FAILED, "signing"):
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [
                        group.create_task(make(index), name=f"presignature {index}")
                        for index in range(1, count + 1)
                    ]
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None  # the others were cancelled, or have the same reason
        return [task.result() for task in tasks]

    # --- the last step: nothing is waited for from here on ------------------------------------------------------------

    def _finish(
        self, read: ReadSign, digests: Sequence[bytes], made: Sequence[Presignature] | None
    ) -> SignatureShares:
        record = self._record(read)
        key = usable_key(record, read, self._context.clock())
        presignatures = made
        if presignatures is None:
            owner = (record.acknowledgement.key_id, key.claim.eph_id)
            found = [
                self.stock.find(id_, owner=owner, signers=read.params.signers)
                for id_ in read.params.presignature_ids
            ]
            presignatures = [self.stock.take(stocked) for stocked in found]
        try:
            shares = [
                make_share(presignature, digest)
                for presignature, digest in zip(presignatures, digests, strict=True)
            ]
        except SigningAbort as abort:
            culprits = [record.acknowledgement.participants[index - 1] for index in abort.culprits]
            raise RefusalError(
                NodeCode.SIGNING_FAILED, f"signing failed: {abort.reason}", data={"culprits": culprits}
            ) from abort
        _log.info("request %s: %d signed", read.params.request_id, len(shares))
        return self._answer(record, read.params.request_id, shares)

    def _answer(
        self, record: KeyRecord, request_id: RequestId, shares: Sequence[SignatureShare]
    ) -> SignatureShares:
        claims = SignatureClaims(
            request_id=request_id,
            key_id=record.acknowledgement.key_id,
            public_key=record.share.public_key,
            shares=tuple(shares),
        )
        return self._context.signed(SignatureShares, claims, record.acknowledgement.participants)


def _is_short(params: SignParams) -> bool:
    return len(params.setup) + len(params.user_authentication.signature) <= _SHORT


def make_share(presignature: Presignature, digest: bytes) -> SignatureShare:
    u, w = presignature.sign(digest)
    return SignatureShare(
        presignature_id=presignature.name,
        nonce_point=presignature.nonce_point,
        commitments=presignature.commitments,
        digest=digest,
        u=u,
        w=w,
    )

"""
A node's side of signing: checked requests in, its shares of the signatures out; and all that belongs to it, put together.

What is last before a share leaves happens in one go, without waiting for anything: the ephemeral key is looked up once
more, the presignatures are used up, the shares are made. So from the moment that a revocation is stored, or a key or its
presignature expires, nothing is signed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from attrs import define, evolve, field

from dan_async.devnet.context import NodeContext, Urgency
from dan_async.devnet.mpc.aborts import SigningAbort
from dan_async.devnet.mpc.threshold_ecdsa import Presignature
from dan_async.devnet.node.checks import (
    ReadSign,
    check_signers,
    check_signing_key,
    own_nonce,
    read_messages,
    read_sign,
    usable_key,
)
from dan_async.devnet.node.keys import KeyRecord, KeyRing
from dan_async.devnet.node.presigning import PresignatureOwner, PresignatureStock, PresignService, presign_job
from dan_async.devnet.node.requests import NonceStore, Remembered, RequestRuns, content_hash
from dan_async.devnet.node.rpc import RefusalError, reading, refusing
from dan_async.devnet.peers.links import PeerLinks
from dan_async.devnet.peers.pairs import PairSetups, PairStore
from dan_async.devnet.peers.presigning import PresignSessions
from dan_async.devnet.peers.sessions import PeerSessions
from dan_async.errors import NodeCode
from dan_async.permissions.checking import find_refusal
from dan_async.protocols.fields import decode, decode_key_id, to_json
from dan_async.protocols.node import (
    SIGNGEN,
    PresignParams,
    SignatureClaims,
    SignatureShare,
    SignatureShares,
    SignParams,
)
from dan_async.protocols.sign_request import SignRequest
from dan_async.types import Json, RequestId

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Setups and signatures up to this many characters are read on the event loop.
_SHORT = 8192

_MOST_AUTHORISED = 16_384


@define(kw_only=True, eq=False, repr=False)
class SignService:
    """Signatures at one node; *sessions* makes presignatures for requests that name none."""

    _context: NodeContext
    _ring: KeyRing
    _nonces: NonceStore
    _sessions: PresignSessions
    _stock: PresignatureStock
    #: The hashes of requests whose nonce is spent: with other signers they may come again.
    _authorised: Remembered[RequestId, bytes] = field(init=False)
    _runs: RequestRuns[SignatureShares] = field(init=False)

    def __attrs_post_init__(self) -> None:
        keep_s, clock = self._context.limits.nonce_lifetime_s, self._context.clock
        self._authorised = Remembered(most=_MOST_AUTHORISED, keep_s=keep_s, clock=clock)
        self._runs = RequestRuns(self._context, "signatures", most=self._context.limits.max_signs)

    async def sign(self, params: SignParams) -> SignatureShares:
        """Sign, or say again what was said to the same request."""
        request = (params.request_id, params.signers)
        return await self._runs.run(request, content_hash(params), lambda: self._work(params))

    async def aclose(self) -> None:
        await self._runs.aclose()

    # --- the work -----------------------------------------------------------------------------------------------------

    async def _work(self, params: SignParams) -> SignatureShares:
        # A stranger's messages are never read: all that comes before is quick, whatever they are.
        read = await self._compute(params, read_sign, params)
        record = self._record(read)
        check_signers(record, params.signers, self._context.identity.operator)
        check_signing_key(record, read, self._context.clock())
        requests, digests = await self._compute(params, read_messages, read)
        await self._compute(params, self._check_permissions, record, requests)
        if params.presignature_ids:
            return self._finish(read, digests, None)
        self._spend_nonce(read)
        made = await self._presign(record, read, len(requests))
        # Their time may be over meanwhile.
        await self._compute(params, self._check_permissions, record, requests)
        return self._finish(read, digests, made)

    async def _compute(self, params: SignParams, function: Callable[..., T], *arguments: Any) -> T:
        if len(params.setup) + len(params.user_authentication.signature) <= _SHORT:
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
        params = read.params
        content = content_hash(evolve(params, signers=()))
        if self._authorised.get(params.request_id) == content:
            return
        nonce = own_nonce(params, self._context.identity.operator) if params.participants else None
        with self._nonces.spending(nonce, params.request_id, SIGNGEN, read.setup_digest):
            self._authorised.put(params.request_id, content)

    async def _presign(self, record: KeyRecord, read: ReadSign, count: int) -> list[Presignature]:
        """Make a presignature for each message, all at the same time."""

        def make(index: int) -> Coroutine[Any, Any, Presignature]:
            job = presign_job(record, read.params.request_id, read.params.signers, index=index)
            if self._sessions.has_run(job.session_id):
                raise RefusalError(
                    NodeCode.CHALLENGE_REUSED, "the nodes have worked under this challenge before"
                )
            return self._sessions.run(job)

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
            owner = PresignatureOwner(record.acknowledgement.key_id, key.claim.eph_id)
            found = [
                self._stock.find(id_, owner=owner, signers=read.params.signers)
                for id_ in read.params.presignature_ids
            ]
            presignatures = [self._stock.take(stocked) for stocked in found]
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
        self._identity = context.identity
        self._faults = context.faults
        self.pairs = PairStore(context.store, context.bans)
        self.stock = PresignatureStock(most=context.limits.max_presignatures, clock=context.clock)
        self.setups = PairSetups(context, links=links, sessions=sessions, store=self.pairs)
        rounds = PresignSessions(context, sessions, self.setups)
        self._presigns = PresignService(context=context, ring=ring, sessions=rounds, stock=self.stock)
        self._signs = SignService(
            context=context, ring=ring, nonces=nonces, sessions=rounds, stock=self.stock
        )

    async def presign(self, params: dict[str, Json]) -> Json:
        return to_json(await self._presigns.presign(decode(PresignParams, params)))

    async def sign(self, params: dict[str, Json]) -> Json:
        shares = await self._signs.sign(decode(SignParams, params))
        return to_json(self._faults.forge_shares(shares, self._identity.sign))

    async def give_up(self) -> None:
        """Give up running work; callers that wait for it get an error."""
        await self._presigns.aclose()
        await self._signs.aclose()

    async def aclose(self) -> None:
        """Give up everything, and wait until it has ended."""
        await self.give_up()
        await self.setups.aclose()

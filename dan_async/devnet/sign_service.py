"""
A node's side of ``dan_sign``: checked requests in, its shares of the signatures out.

What is last before a share leaves happens in one go, without waiting for anything: the ephemeral key is looked up once
more, the presignatures are used up, the shares are made. So from the moment that a revocation is stored, or a key or its
presignature expires, nothing is signed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from attrs import evolve, frozen

from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.key_record import KeyRecord, KeyRing
from dan_async.devnet.limits import NodeLimits
from dan_async.devnet.mpc.presignature import Presignature
from dan_async.devnet.mpc.signing_abort import SigningAbort
from dan_async.devnet.mpc.signing_messages import Envelope, SignMessage
from dan_async.devnet.nonce_desk import NonceDesk
from dan_async.devnet.owner_checks import refuse_field
from dan_async.devnet.presign_service import presign_session_id
from dan_async.devnet.presign_session import PresignSessions
from dan_async.devnet.presignature_stock import PresignatureOwner, PresignatureStock
from dan_async.devnet.request_runs import RequestRuns
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.devnet.sign_checks import ReadSign, check_signers, check_signing_key, read_sign, usable_key
from dan_async.devnet.workers import Urgency, Workers
from dan_async.errors import InvalidFieldError, NodeCode, ProtocolError
from dan_async.models.signing import SignatureShare, SignatureShares
from dan_async.types import Clock, MpcKeyId, RequestId
from dan_async.wire.codec import SignRequest
from dan_async.wire.node_1 import decode_key_id
from dan_async.wire.node_signing import (
    OPERATION,
    SignParams,
    encode_sign,
    presignature_id,
    shares_digest,
)
from dan_async.wire.sign_digest import sign_request_digest

__all__ = ["FindRefusal", "SignService"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


class FindRefusal(Protocol):
    """Applies a key's permissions: gives why a request may not be signed, or None."""

    def __call__(self, permissions: str | None, request: SignRequest, *, now: float) -> str | None:
        """Check one request."""
        ...


#: Setups up to this many characters are read on the event loop, in well under a millisecond.
_SHORT = 8192

_MOST_AUTHORISED = 16_384


@frozen
class _Authorised:
    """A request whose nonce is spent: with other signers it may come again."""

    content: bytes
    forget_at: float


class SignService:
    """
    Signatures at one node.

    Args:
        identity: The node.
        ring: The keys it holds shares of.
        nonces: What it gave out.
        sessions: Makes presignatures for requests that name none.
        stock: The presignatures that are ready.
        workers: Where long requests are read.
        limits: How much at a time, and for how long.
        clock: The wall clock.
        find_refusal: Applies the owner's permissions.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        ring: KeyRing,
        nonces: NonceDesk,
        sessions: PresignSessions,
        stock: PresignatureStock,
        workers: Workers,
        limits: NodeLimits,
        clock: Clock,
        find_refusal: FindRefusal,
    ) -> None:
        self._identity = identity
        self._ring = ring
        self._nonces = nonces
        self._sessions = sessions
        self._stock = stock
        self._workers = workers
        self._clock = clock
        self._keep_s = limits.nonce_lifetime_s
        self._find_refusal = find_refusal
        self._authorised: OrderedDict[RequestId, _Authorised] = OrderedDict()  # oldest first
        self._runs: RequestRuns[SignatureShares] = RequestRuns(
            "signatures", task_name="sign", most=limits.max_signs, keep_s=self._keep_s, clock=clock
        )

    async def sign(self, params: SignParams) -> SignatureShares:
        """
        Sign, or say again what was said to the same request.

        Raises:
            RefusalError: With the code of what is wrong.
        """
        content = hashlib.sha256(encode_sign(params).encode()).digest()
        return await self._runs.run((params.request_id, params.signers), content, lambda: self._work(params))

    async def aclose(self) -> None:
        """Give up what is running, and wait until it has ended."""
        await self._runs.aclose()

    # --- the work -----------------------------------------------------------------------------------------------------

    async def _work(self, params: SignParams) -> SignatureShares:
        read = await self._compute(params, read_sign, params)
        digests = await self._compute(params, _digests, read)
        record = self._record(read)
        check_signers(record, params.signers, self._identity.operator)
        check_signing_key(record, read, self._clock())
        await self._compute(params, self._check_permissions, record, read)
        if params.presignature_ids:
            return self._finish(read, digests, None)
        self._spend_nonce(read)
        made = await self._presign(record, read)
        await self._compute(params, self._check_permissions, record, read)  # their time may be over meanwhile
        return self._finish(read, digests, made)

    async def _compute(self, params: SignParams, function: Callable[..., T], *arguments: Any) -> T:
        if len(params.setup) <= _SHORT:
            return function(*arguments)
        return await self._workers.compute(function, *arguments, urgency=Urgency.AWAITED)

    def _record(self, read: ReadSign) -> KeyRecord:
        record = self._ring.by_key(_key_id(read))
        if record is None:
            raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key")
        return record

    def _check_permissions(self, record: KeyRecord, read: ReadSign) -> None:
        now = self._clock()
        for request in read.requests:
            problem = self._find_refusal(record.permissions, request, now=now)
            if problem is not None:
                raise RefusalError(NodeCode.NOT_PERMITTED, problem)

    def _spend_nonce(self, read: ReadSign) -> None:
        """Use the nonce up, or remember that it was used up for the same request with other signers."""
        params = read.params
        now = self._clock()
        while self._authorised and next(iter(self._authorised.values())).forget_at <= now:
            self._authorised.popitem(last=False)
        content = hashlib.sha256(encode_sign(evolve(params, signers=())).encode()).digest()
        known = self._authorised.get(params.request_id)
        if known is not None and known.content == content:
            return
        nonce = None
        if params.participants:
            if self._identity.operator not in params.participants:
                raise RefusalError(NodeCode.WRONG_PARTICIPANTS, "this node is not a participant")
            nonce = params.nonces[params.participants.index(self._identity.operator)]
        with self._nonces.spending(nonce, params.request_id, OPERATION, read.setup_digest):
            self._authorised[params.request_id] = _Authorised(content, now + self._keep_s)
        if len(self._authorised) > _MOST_AUTHORISED:
            self._authorised.popitem(last=False)

    async def _presign(self, record: KeyRecord, read: ReadSign) -> list[Presignature]:
        """Make a presignature for each message, all at the same time."""
        params, key_id = read.params, record.acknowledgement.key_id

        def make(index: int) -> Coroutine[Any, Any, Presignature]:
            session_id = presign_session_id(
                key_id=key_id, request_id=params.request_id, signers=params.signers, index=index
            )
            if self._sessions.has_run(session_id):
                raise RefusalError(
                    NodeCode.CHALLENGE_REUSED, "the nodes have worked under this challenge before"
                )
            return self._sessions.run(
                request_id=params.request_id,
                session_id=session_id,
                share=record.share,
                participants=record.acknowledgement.participants,
                signers=params.signers,
            )

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(make(index), name=f"presignature {index}")
                    for index, _ in enumerate(read.requests, 1)
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the others were cancelled, or have the same reason
        return [task.result() for task in tasks]

    # --- the last step: nothing is waited for from here on ------------------------------------------------------------

    def _finish(
        self, read: ReadSign, digests: Sequence[bytes], made: Sequence[Presignature] | None
    ) -> SignatureShares:
        record = self._record(read)
        key = usable_key(record, read, self._clock())
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
                _share(record.share.index, presignature, digest)
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
        unsigned = SignatureShares(
            request_id=request_id,
            operator=self._identity.operator,
            party_index=record.share.index,
            key_id=record.acknowledgement.key_id,
            public_key=record.share.public_key,
            shares=tuple(shares),
            signature=b"",
        )
        return evolve(unsigned, signature=self._identity.sign(shares_digest(unsigned)))


def _key_id(read: ReadSign) -> MpcKeyId:
    try:
        return decode_key_id(read.setup.key_id)
    except InvalidFieldError as error:
        refuse_field("setup", error)


def _digests(read: ReadSign) -> list[bytes]:
    try:
        return [sign_request_digest(request) for request in read.requests]
    except (InvalidFieldError, ProtocolError) as error:
        refuse_field("setup", error)


def _share(index: int, presignature: Presignature, digest: bytes) -> SignatureShare:
    message = SignMessage.decode(presignature.sign(digest), Envelope(presignature.id, index))
    return SignatureShare(
        presignature_id=presignature_id(presignature.id, presignature.nonce_point),
        nonce_point=presignature.nonce_point,
        digest=digest,
        u=int.from_bytes(message.u, "big"),
        w=int.from_bytes(message.w, "big"),
    )

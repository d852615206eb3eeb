"""A node's side of ``dan_presign``: checked requests in, presignatures made with the other signers and kept ready."""

from __future__ import annotations

import hashlib
from collections.abc import Coroutine
from typing import Any

from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.key_record import KeyRecord, KeyRing
from dan_async.devnet.limits import NodeLimits
from dan_async.devnet.mpc.presignature import Presignature
from dan_async.devnet.presign_session import PresignSessions
from dan_async.devnet.presignature_stock import PresignatureOwner, PresignatureStock, StockedPresignature
from dan_async.devnet.request_runs import RequestRuns
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.devnet.sign_checks import check_presign_key, check_presign_time, check_signers
from dan_async.errors import NodeCode
from dan_async.models.signing import PresignatureOffer
from dan_async.types import Clock, MpcKeyId, OperatorAddress, RequestId
from dan_async.wire.node_1 import tagged_hash
from dan_async.wire.node_hashes import u32
from dan_async.wire.node_signing import PresignParams, encode_presign

__all__ = ["PresignService", "presign_session_id"]


def presign_session_id(
    *, key_id: MpcKeyId, request_id: RequestId, signers: tuple[OperatorAddress, ...], index: int
) -> bytes:
    """
    Give the id under which the signers work together: 32 bytes that no other presignature has.

    Args:
        key_id: The key.
        request_id: The request.
        signers: Its signers.
        index: 0 for ``dan_presign``; in a request that names no presignatures, the number of the message, from 1.
    """
    members = [bytes.fromhex(operator[2:]) for operator in signers]
    return tagged_hash(
        "dan-node/1 presign session",
        bytes.fromhex(key_id),
        bytes.fromhex(request_id[2:]),
        u32(index),
        *members,
    )


class PresignService:
    """
    Presignatures at one node.

    Args:
        identity: The node.
        ring: The keys it holds shares of.
        sessions: Runs the rounds.
        stock: Where presignatures are kept.
        limits: How much at a time, and for how long.
        clock: The wall clock.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        ring: KeyRing,
        sessions: PresignSessions,
        stock: PresignatureStock,
        limits: NodeLimits,
        clock: Clock,
    ) -> None:
        self._identity = identity
        self._ring = ring
        self._sessions = sessions
        self._stock = stock
        self._limits = limits
        self._clock = clock
        self._runs: RequestRuns[PresignatureOffer] = RequestRuns(
            "presignatures",
            task_name="presign",
            most=limits.max_presigns,
            keep_s=limits.nonce_lifetime_s,
            clock=clock,
        )

    async def presign(self, params: PresignParams) -> PresignatureOffer:
        """
        Take part in making a presignature, or say again what came of it.

        Raises:
            RefusalError: With the code of what is wrong.
        """
        content = hashlib.sha256(encode_presign(params).encode()).digest()
        request = (params.request_id, params.signers)
        return await self._runs.run(request, content, lambda: self._begin(params))

    async def aclose(self) -> None:
        """Give up what is running, and throw away what is ready."""
        await self._runs.aclose()
        self._stock.clear()

    def _begin(self, params: PresignParams) -> Coroutine[Any, Any, PresignatureOffer]:
        record = self._check(params)
        check_signers(record, params.signers, self._identity.operator)
        session_id = presign_session_id(
            key_id=params.key_id, request_id=params.request_id, signers=params.signers, index=0
        )
        if self._sessions.has_run(session_id):
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the nodes have worked on this request before")
        return self._make(params, record, session_id)

    def _check(self, params: PresignParams) -> KeyRecord:
        """Check what may change while a presignature is made."""
        now = self._clock()
        record = self._ring.by_key(params.key_id)
        if record is None:
            raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key")
        check_presign_time(params, now)
        check_presign_key(record, params, now)
        return record

    async def _make(self, params: PresignParams, record: KeyRecord, session_id: bytes) -> PresignatureOffer:
        owner = PresignatureOwner(params.key_id, params.eph_id)
        with self._stock.making(owner):
            presignature = await self._sessions.run(
                request_id=params.request_id,
                session_id=session_id,
                share=record.share,
                participants=record.acknowledgement.participants,
                signers=params.signers,
            )
            try:
                self._check(params)  # the ephemeral key may have been revoked meanwhile
            except RefusalError:
                presignature.discard()
                raise
            return self._offer(params, record, owner, presignature)

    def _offer(
        self,
        params: PresignParams,
        record: KeyRecord,
        owner: PresignatureOwner,
        presignature: Presignature,
    ) -> PresignatureOffer:
        key = record.ephemeral_keys.find(params.eph_id)
        assert key is not None
        ends = (params.expires_at, key.claim.expiry, self._clock() + self._limits.presignature_lifetime_s)
        stocked = StockedPresignature(
            presignature=presignature, owner=owner, signers=params.signers, expires_at=int(min(ends))
        )
        self._stock.add(stocked)
        return PresignatureOffer(
            presignature_id=stocked.name,
            nonce_point=presignature.nonce_point,
            public_key=presignature.public_key,
            expires_at=int(min(ends)),
        )

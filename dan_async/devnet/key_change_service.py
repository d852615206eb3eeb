"""A node's side of adding and revoking ephemeral keys: the owner's signature in, a durable change, a receipt out."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable

from attrs import evolve

from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.key_record import KeyRecord, KeyRing
from dan_async.devnet.nonce_desk import NonceDesk
from dan_async.devnet.owner_checks import (
    check_claim,
    check_signature,
    is_owner,
    own_nonce,
    read_setup,
    refuse_field,
    signed_challenge,
)
from dan_async.devnet.passkey_registry import PasskeyRegistry
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.devnet.workers import Workers
from dan_async.errors import InvalidFieldError, NodeCode
from dan_async.models.claim import EphemeralClaim
from dan_async.models.ephemeral_key_change import ChangeReceipt
from dan_async.models.setup import EphemeralKeySetup
from dan_async.types import Clock, MpcKeyId
from dan_async.wire.node_1 import KeygenParams, decode_key_id, encode_keygen, setup_hash
from dan_async.wire.node_receipts import receipt_digest

__all__ = ["KeyChangeService"]

_log = logging.getLogger(__name__)


class KeyChangeService:
    """
    Changes of ephemeral keys at one node.

    Args:
        identity: The node.
        ring: The keys it holds shares of.
        nonces: What it gave out.
        passkeys: The passkeys it knows.
        workers: Where blocking work goes.
        clock: The wall clock.
        on_revoked: Told of a revocation when it is stored: the key's id, and the ephemeral key's.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        ring: KeyRing,
        nonces: NonceDesk,
        passkeys: PasskeyRegistry,
        workers: Workers,
        clock: Clock,
        on_revoked: Callable[[MpcKeyId, str], None] = lambda *_: None,
    ) -> None:
        self._identity = identity
        self._ring = ring
        self._passkeys = passkeys
        self._nonces = nonces
        self._workers = workers
        self._clock = clock
        self._on_revoked = on_revoked
        # One at a time: each change is made on top of the last one that was stored.
        self._changing = asyncio.Lock()

    async def change(self, operation: str, params: KeygenParams) -> ChangeReceipt:
        """
        Make a change, or say again that it was made.

        Args:
            operation: ``addEphemeralKey`` or ``revokeEphemeralKey``.
            params: The request.

        Raises:
            RefusalError: With the code of what is wrong.
        """
        setup = read_setup(params, operation)
        assert isinstance(setup, EphemeralKeySetup)
        content = hashlib.sha256(operation.encode() + encode_keygen(params).encode()).digest()
        async with self._changing:
            record = self._record(setup, params)
            repeated = record.ephemeral_keys.repeated(params.request_id, content)
            if repeated is not None:
                return repeated
            claim = check_claim(params, setup, self._clock())
            self._check_authorised(operation, params, setup)
            receipt = self._receipt(operation, params, record, claim)
            keys = record.ephemeral_keys.changed(claim, content, receipt)
            if params.user_authentication.method == "passkey":
                await self._workers.use_disk(self._passkeys.save, params.user_authentication.id)
            await self._workers.use_disk(self._ring.replace, evolve(record, ephemeral_keys=keys))
            if operation == "revokeEphemeralKey":
                self._on_revoked(receipt.key_id, claim.eph_id)
        _log.info("request %s: %s for key %s", params.request_id, operation, receipt.key_id)
        return receipt

    def _record(self, setup: EphemeralKeySetup, params: KeygenParams) -> KeyRecord:
        try:
            key_id = decode_key_id(setup.tagged_key_id)
        except InvalidFieldError as error:
            refuse_field("setup", error)
        if setup.key_id is not None and setup.key_id != setup.tagged_key_id:
            refuse_field("setup", InvalidFieldError("key_id", "is not the key of tag 3"))
        record = self._ring.by_key(key_id)
        if record is None or not is_owner(record.owner_id, params.user_authentication):
            raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key of this owner")
        return record

    def _check_authorised(self, operation: str, params: KeygenParams, setup: EphemeralKeySetup) -> None:
        challenge = signed_challenge(params, operation)
        digest = setup_hash(operation=operation, revision=params.revision, setup=params.setup)
        nonce = own_nonce(params, self._identity.operator)
        with self._nonces.spending(nonce, params.request_id, operation, digest):
            check_signature(params, operation, setup, challenge, self._passkeys)

    def _receipt(
        self, operation: str, params: KeygenParams, record: KeyRecord, claim: EphemeralClaim
    ) -> ChangeReceipt:
        unsigned = ChangeReceipt(
            request_id=params.request_id,
            operation=operation,
            operator=self._identity.operator,
            key_id=record.acknowledgement.key_id,
            eph_id=claim.eph_id,
            threshold=record.acknowledgement.threshold,
            signature=b"",
        )
        return evolve(unsigned, signature=self._identity.sign(receipt_digest(unsigned)))

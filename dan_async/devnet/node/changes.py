"""A node's side of changes that owners ask for: ephemeral keys added and revoked, passkeys registered; receipts out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, evolve, field

from dan_async.devnet.context import NodeContext
from dan_async.devnet.node.checks import (
    check_claim,
    check_signature,
    content_hash,
    is_owner,
    own_nonce,
    read_setup,
    signed_challenge,
)
from dan_async.devnet.node.keys import KeyRecord, KeyRing
from dan_async.devnet.node.passkeys import PasskeyRecord, PasskeyRegistry, load_webauthn, verify_registration
from dan_async.devnet.node.requests import NonceStore
from dan_async.devnet.node.rpc import RefusalError, reading
from dan_async.errors import InvalidFieldError, NodeCode
from dan_async.protocols.fields import decode_key_id
from dan_async.protocols.node import (
    REGISTER_PASSKEY,
    ChangeClaims,
    ChangeReceipt,
    KeygenParams,
    PasskeyClaims,
    PasskeyReceipt,
    setup_hash,
)
from dan_async.protocols.setups import EphemeralClaim, EphemeralKeySetup
from dan_async.types import MpcKeyId

_log = logging.getLogger(__name__)


@define(kw_only=True, eq=False, repr=False)
class OwnerChanges:
    """Changes of ephemeral keys and new passkeys at one node; ``on_revoked`` is called when a revocation is stored."""

    _context: NodeContext
    _ring: KeyRing
    _nonces: NonceStore
    _passkeys: PasskeyRegistry
    _on_revoked: Callable[[MpcKeyId, str], None]
    _is_ready: bool = field(default=False, init=False)
    #: One at a time: each change is made on top of the last one that was stored, and a receipt is for what was stored.
    _changing: asyncio.Lock = field(factory=asyncio.Lock, init=False)
    _registering: asyncio.Lock = field(factory=asyncio.Lock, init=False)

    async def prepare(self, params: KeygenParams) -> None:
        """Load what verifying takes, off the event loop, if a passkey authorises the request."""
        if params.user_authentication.method == "passkey" and not self._is_ready:
            await self._context.workers.compute(load_webauthn)
            self._is_ready = True

    async def change(self, operation: str, params: KeygenParams) -> ChangeReceipt:
        """Make a change, or say again that it was made."""
        setup = read_setup(params, operation)
        assert isinstance(setup, EphemeralKeySetup)
        content = content_hash(params, operation=operation)
        async with self._changing:
            record = self._record(setup, params)
            repeated = record.ephemeral_keys.repeated(params.request_id, content)
            if repeated is not None:
                return repeated
            claim = check_claim(params, setup, self._context.clock())
            with self._spending(operation, params) as challenge:
                check_signature(params, operation, setup, challenge, self._passkeys)
            receipt = self._receipt(operation, params, record, claim)
            keys = record.ephemeral_keys.changed(claim, content, receipt)
            if params.user_authentication.method == "passkey":
                await self._context.workers.use_disk(self._passkeys.save, params.user_authentication.id)
            await self._context.workers.use_disk(self._ring.put, evolve(record, ephemeral_keys=keys))
            if operation == "revokeEphemeralKey":
                self._on_revoked(receipt.claims.key_id, claim.eph_id)
        _log.info("request %s: %s for key %s", params.request_id, operation, receipt.claims.key_id)
        return receipt

    def _record(self, setup: EphemeralKeySetup, params: KeygenParams) -> KeyRecord:
        with reading("setup"):
            key_id = decode_key_id(setup.tagged_key_id)
            if setup.key_id is not None and setup.key_id != setup.tagged_key_id:
                raise InvalidFieldError("key_id", "is not the key of tag 3")
        record = self._ring.by_key(key_id)
        if record is None or not is_owner(record.owner_id, params.user_authentication):
            raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key of this owner")
        return record

    @contextmanager
    def _spending(self, operation: str, params: KeygenParams) -> Iterator[str]:
        """Use a request's nonce up, if the body succeeds; yield the challenge that must have been signed."""
        digest = setup_hash(operation=operation, revision=params.revision, setup=params.setup)
        nonce = own_nonce(params, self._context.identity.operator)
        with self._nonces.spending(nonce, params.request_id, operation, digest):
            yield signed_challenge(params, operation, digest)

    def _receipt(
        self, operation: str, params: KeygenParams, record: KeyRecord, claim: EphemeralClaim
    ) -> ChangeReceipt:
        known = record.acknowledgement.claims
        claims = ChangeClaims(
            request_id=params.request_id,
            key_id=known.key_id,
            t=known.t,
            n=known.n,
            public_key=known.public_key,
            participants=known.participants,
            keygen_id=known.request_id,
            operation=operation,
            eph_id=claim.eph_id,
        )
        return self._context.signed(ChangeReceipt, claims, params.participants)

    async def register(self, params: KeygenParams) -> PasskeyReceipt:
        """Register a passkey, or say again that it is registered."""
        read_setup(params, REGISTER_PASSKEY)
        content = content_hash(params, operation=REGISTER_PASSKEY)
        async with self._registering:
            record = self._passkeys.find(params.user_authentication.id)
            if record is None or record.content != content:
                record = self._verified(params, content)
            # Also when it is known: the first time may have been cut off before the disk had it.
            await self._context.workers.use_disk(self._passkeys.save, record.credential_id)
        _log.info("request %s: a passkey is registered", params.request_id)
        return record.receipt

    def _verified(self, params: KeygenParams, content: bytes) -> PasskeyRecord:
        if own_nonce(params, self._context.identity.operator) is None:
            # The challenge of a one-shot request is a hash of its setup, the same for everyone who registers.
            raise RefusalError(NodeCode.UNSUPPORTED, "a passkey is registered with nonces from the nodes")
        with self._spending(REGISTER_PASSKEY, params) as challenge:
            public_key, sign_count, sent = verify_registration(params.user_authentication, challenge)
            claims = PasskeyClaims(request_id=params.request_id, credential_id=params.user_authentication.id)
            record = PasskeyRecord(
                content=content,
                receipt=self._context.signed(PasskeyReceipt, claims, params.participants),
                public_key=public_key,
                sign_count=sign_count,
                rp_id=sent.rp_id,
                origin=sent.origin,
            )
            self._passkeys.add(record)
        return record

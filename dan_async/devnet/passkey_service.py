"""A node's side of registering passkeys: a verified credential in, a durable record, a receipt out."""

from __future__ import annotations

import asyncio
import hashlib
import logging

from attrs import evolve

from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.nonce_desk import NonceDesk
from dan_async.devnet.owner_checks import own_nonce, read_setup, signed_challenge
from dan_async.devnet.passkey_checks import load_webauthn, verify_registration
from dan_async.devnet.passkey_registry import PasskeyRecord, PasskeyRegistry
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.devnet.workers import Workers
from dan_async.errors import NodeCode
from dan_async.wire.node_1 import KeygenParams, encode_keygen, setup_hash
from dan_async.wire.node_passkeys import OPERATION, PasskeyReceipt, passkey_receipt_digest

__all__ = ["PasskeyService"]

_log = logging.getLogger(__name__)


class PasskeyService:
    """
    Passkeys at one node.

    Args:
        identity: The node.
        registry: The passkeys it knows.
        nonces: What it gave out.
        workers: Where blocking work goes.
    """

    def __init__(
        self, *, identity: NodeIdentity, registry: PasskeyRegistry, nonces: NonceDesk, workers: Workers
    ) -> None:
        self._identity = identity
        self._registry = registry
        self._nonces = nonces
        self._workers = workers
        self._is_ready = False
        # One at a time: whoever is told of a passkey is told of one that has been stored.
        self._registering = asyncio.Lock()

    async def prepare(self, params: KeygenParams) -> None:
        """
        Load what verifying takes, off the event loop, if a passkey authorises the request.

        Raises:
            RefusalError: ``UNSUPPORTED``: this node does not do passkeys.
        """
        if params.user_authentication.method == "passkey" and not self._is_ready:
            await self._workers.compute(load_webauthn)
            self._is_ready = True

    async def register(self, params: KeygenParams) -> PasskeyReceipt:
        """
        Register a passkey, or say again that it is registered.

        Raises:
            RefusalError: With the code of what is wrong.
        """
        read_setup(params, OPERATION)
        content = hashlib.sha256(OPERATION.encode() + encode_keygen(params).encode()).digest()
        async with self._registering:
            record = self._registry.find(params.user_authentication.id)
            if record is None or record.content != content:
                record = self._verified(params, content)
            # Also when it is known: the first time may have been cut off before the disk had it.
            await self._workers.use_disk(self._registry.save, record.credential_id)
        _log.info("request %s: a passkey is registered", params.request_id)
        return record.receipt

    def _verified(self, params: KeygenParams, content: bytes) -> PasskeyRecord:
        nonce = own_nonce(params, self._identity.operator)
        if nonce is None:
            # The challenge of a one-shot request is a hash of its setup, the same for everyone who registers.
            raise RefusalError(NodeCode.UNSUPPORTED, "a passkey is registered with nonces from the nodes")
        challenge = signed_challenge(params, OPERATION)
        digest = setup_hash(operation=OPERATION, revision=params.revision, setup=params.setup)
        with self._nonces.spending(nonce, params.request_id, OPERATION, digest):
            public_key, sign_count, sent = verify_registration(params.user_authentication, challenge)
            record = PasskeyRecord(
                content=content,
                receipt=self._receipt(params),
                public_key=public_key,
                sign_count=sign_count,
                rp_id=sent.rp_id,
                origin=sent.origin,
            )
            self._registry.add(record)
        return record

    def _receipt(self, params: KeygenParams) -> PasskeyReceipt:
        unsigned = PasskeyReceipt(
            request_id=params.request_id,
            operator=self._identity.operator,
            credential_id=params.user_authentication.id,
            signature=b"",
        )
        return evolve(unsigned, signature=self._identity.sign(passkey_receipt_digest(unsigned)))

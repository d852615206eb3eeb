"""A node's side of key generation: checked requests in, one key for each request id, ever."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import evolve

from dan_async.devnet.dkg_session import DkgSessions
from dan_async.devnet.ephemeral_registry import EphemeralRegistry, RegisteredKey
from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.key_record import KeyRecord, KeyRing
from dan_async.devnet.keygen_checks import OPERATION, CheckedKeygen, check_owner, check_request
from dan_async.devnet.keygen_settling import KeygenSettling
from dan_async.devnet.limits import NodeLimits
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.nonce_desk import NonceDesk
from dan_async.devnet.owner_checks import owner_name
from dan_async.devnet.passkey_registry import PasskeyRegistry
from dan_async.devnet.request_runs import RequestRuns, check_same
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.devnet.workers import Workers
from dan_async.errors import NodeCode
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.types import Clock, Json, OperatorAddress
from dan_async.wire.node_1 import KeygenParams, acknowledgement_digest, compute_key_id, encode_keygen

__all__ = ["KeygenService"]

_log = logging.getLogger(__name__)


class KeygenService:
    """
    Key generation at one node.

    Args:
        identity: The node.
        roster: The other nodes that it knows.
        sessions: Runs the distributed key generation.
        ring: What was finished before.
        nonces: What the node gave out.
        passkeys: The passkeys it knows.
        workers: Where blocking work goes.
        limits: How much at a time, and for how long.
        clock: The wall clock.
        on_made: Told who made a key, when it is stored.
    """

    def __init__(
        self,
        *,
        identity: NodeIdentity,
        roster: frozenset[OperatorAddress],
        sessions: DkgSessions,
        ring: KeyRing,
        nonces: NonceDesk,
        passkeys: PasskeyRegistry,
        workers: Workers,
        limits: NodeLimits,
        clock: Clock,
        on_made: Callable[[Sequence[OperatorAddress]], None] = lambda _: None,
    ) -> None:
        self._identity = identity
        self._roster = roster
        self._sessions = sessions
        self._ring = ring
        self._workers = workers
        self._clock = clock
        self._on_made = on_made
        self._nonces = nonces
        self._passkeys = passkeys
        self._settling = KeygenSettling(identity=identity, ring=ring, clock=clock)
        # Failures are kept for as long as the client may wonder what became of a request whose nonce is spent.
        self._runs: RequestRuns[Acknowledgement] = RequestRuns(
            "key generations",
            task_name="keygen",
            most=limits.max_keygens,
            keep_s=limits.nonce_lifetime_s,
            clock=clock,
        )

    async def keygen(self, params: KeygenParams) -> Acknowledgement:
        """
        Take part in making a key, or say again what came of it.

        Raises:
            RefusalError: With the code of what is wrong.
        """
        content = hashlib.sha256(encode_keygen(params).encode()).digest()
        record = self._ring.by_request(params.request_id)
        if record is not None:
            check_same(record.content, content)
            return record.acknowledgement
        return await self._runs.run(params.request_id, content, lambda: self._begin(params, content))

    async def settle(self, params: dict[str, Json]) -> Json:
        """Answer ``dan_settle_keygen``; see ``KeygenSettling.settle``."""
        return await self._settling.settle(params, self._runs.wait_for)

    async def aclose(self) -> None:
        """Give up what is running, and wait until it has ended."""
        await self._runs.aclose()

    def _begin(self, params: KeygenParams, content: bytes) -> Coroutine[Any, Any, Acknowledgement]:
        checked = check_request(
            params, operator=self._identity.operator, roster=self._roster, now=self._clock()
        )
        self._settling.check_open(params.request_id, checked.claim)
        with self._nonces.spending(checked.nonce, params.request_id, OPERATION, checked.setup_digest):
            check_owner(checked, self._passkeys)
            if self._sessions.has_run(checked.session_id):
                # Nonces see to that; a one-shot request, which has none, may come again after it failed.
                raise RefusalError(
                    NodeCode.CHALLENGE_REUSED, "the nodes have worked under this challenge before"
                )
        return self._generate(checked, content)

    async def _generate(self, checked: CheckedKeygen, content: bytes) -> Acknowledgement:
        params = checked.params
        _log.info("request %s: key generation %s begins", params.request_id, checked.threshold)
        share = await self._sessions.run(
            request_id=params.request_id,
            session_id=checked.session_id,
            threshold=checked.threshold,
            participants=params.participants,
        )
        acknowledgement = self._acknowledge(checked, share)
        record = KeyRecord(
            content=content,
            acknowledgement=acknowledgement,
            share=share,
            owner_id=owner_name(params.user_authentication),
            claim=checked.claim,
            permissions=checked.setup.permissions,
            ephemeral_keys=EphemeralRegistry(keys=(RegisteredKey(claim=checked.claim),)),
        )
        if params.user_authentication.method == "passkey":
            await self._workers.use_disk(self._passkeys.save, params.user_authentication.id)
        await self._workers.use_disk(self._ring.add, record)
        self._on_made(params.participants)
        _log.info("request %s: key %s is made", params.request_id, acknowledgement.key_id)
        return acknowledgement

    def _acknowledge(self, checked: CheckedKeygen, share: KeyShare) -> Acknowledgement:
        params = checked.params
        unsigned = Acknowledgement(
            request_id=params.request_id,
            operator=self._identity.operator,
            party_index=share.index,
            key_id=compute_key_id(
                public_key=share.public_key,
                t=checked.threshold.t,
                participants=params.participants,
                owner_id=params.user_authentication.id,
                request_id=params.request_id,
            ),
            public_key=share.public_key,
            public_shares=share.public_shares,
            threshold=checked.threshold,
            participants=params.participants,
            transcript_hash=share.transcript_hash,
            signature=b"",
        )
        return evolve(unsigned, signature=self._identity.sign(acknowledgement_digest(unsigned)))

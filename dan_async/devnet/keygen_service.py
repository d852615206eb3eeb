"""A node's side of key generation: checked requests in, one key for each request id, ever."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from attrs import evolve, frozen

from dan_async._tasks import cancel_and_wait
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
from dan_async.devnet.rpc_errors import RefusalError, rate_limited
from dan_async.devnet.workers import Workers
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.types import Clock, Json, OperatorAddress, RequestId
from dan_async.wire.node_1 import (
    Code,
    KeygenParams,
    acknowledgement_digest,
    compute_key_id,
    encode_keygen,
)

__all__ = ["KeygenService"]

_log = logging.getLogger(__name__)

_KEPT_FAILURES = 4096


@frozen
class _Run:
    """A key generation in progress; everyone who sends the same request waits for the same one."""

    content: bytes
    task: asyncio.Task[Acknowledgement]


@frozen
class _FailedRun:
    content: bytes
    refusal: RefusalError
    forget_at: float


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
        self._limits = limits
        self._clock = clock
        self._on_made = on_made
        self._nonces = nonces
        self._passkeys = passkeys
        self._settling = KeygenSettling(identity=identity, ring=ring, clock=clock)
        self._running: dict[RequestId, _Run] = {}
        self._failed: OrderedDict[RequestId, _FailedRun] = OrderedDict()

    async def keygen(self, params: KeygenParams) -> Acknowledgement:
        """
        Take part in making a key, or say again what came of it.

        The work belongs to the node, not to the caller: it goes on when the caller is gone, since the other parties
        count on it.

        Raises:
            RefusalError: With the code of what is wrong.
        """
        content = hashlib.sha256(encode_keygen(params).encode()).digest()
        record = self._ring.by_request(params.request_id)
        if record is not None:
            self._check_same(record.content, content)
            return record.acknowledgement
        run = self._running.get(params.request_id)
        if run is None:
            self._repeat_failure(params.request_id, content)
            run = self._start(params, content)
        else:
            self._check_same(run.content, content)
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if run.task.cancelled():
                raise RefusalError(Code.UNAVAILABLE, "the node is stopping") from None
            raise

    async def settle(self, params: dict[str, Json]) -> Json:
        """Answer ``dan_settle_keygen``; see ``KeygenSettling.settle``."""

        async def wait_for(request_id: RequestId) -> None:
            run = self._running.get(request_id)
            if run is not None:
                await asyncio.wait([run.task])

        return await self._settling.settle(params, wait_for)

    async def aclose(self) -> None:
        """Give up what is running, and wait until it has ended."""
        await cancel_and_wait([run.task for run in self._running.values()])

    # --- before the work ----------------------------------------------------------------------------------------------

    def _check_same(self, known: bytes, content: bytes) -> None:
        if known != content:
            raise RefusalError(Code.REQUEST_CONFLICT, "the request id is known with other content")

    def _repeat_failure(self, request_id: RequestId, content: bytes) -> None:
        failed = self._failed.get(request_id)
        if failed is not None and failed.content == content and self._clock() < failed.forget_at:
            raise RefusalError(failed.refusal.code, failed.refusal.message, data=failed.refusal.data)

    def _start(self, params: KeygenParams, content: bytes) -> _Run:
        if len(self._running) >= self._limits.max_keygens:
            raise rate_limited("too many key generations are running", 1.0)
        checked = check_request(
            params, operator=self._identity.operator, roster=self._roster, now=self._clock()
        )
        self._settling.check_open(params.request_id, checked.claim)
        with self._nonces.spending(checked.nonce, params.request_id, OPERATION, checked.setup_digest):
            check_owner(checked, self._passkeys)
            if self._sessions.has_run(checked.session_id):
                # Nonces see to that; a one-shot request, which has none, may come again after it failed.
                raise RefusalError(Code.CHALLENGE_REUSED, "the nodes have worked under this challenge before")
        task = asyncio.create_task(self._generate(checked, content), name=f"keygen {params.request_id}")
        run = self._running[params.request_id] = _Run(content, task)
        task.add_done_callback(partial(self._ended, params.request_id, content))
        return run

    # --- the work -----------------------------------------------------------------------------------------------------

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

    def _ended(self, request_id: RequestId, content: bytes, task: asyncio.Task[Acknowledgement]) -> None:
        del self._running[request_id]
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, RefusalError):
            error = RefusalError(Code.INTERNAL_ERROR, "the node has failed")
        # Kept for as long as the client may wonder what became of a request whose nonce is spent.
        forget_at = self._clock() + self._limits.nonce_lifetime_s
        self._failed[request_id] = _FailedRun(content, error, forget_at)
        if len(self._failed) > _KEPT_FAILURES:
            self._failed.popitem(last=False)

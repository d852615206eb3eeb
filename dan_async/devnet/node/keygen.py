"""A node's side of key generation: checked requests in, one key for each request id, ever; and what came of a request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from attrs import define, field

from dan_async.devnet.context import NodeContext
from dan_async.devnet.mpc.dkg_messages import Session
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.node.checks import KEYGEN, CheckedKeygen, check_owner, check_request, owner_name
from dan_async.devnet.node.keys import EphemeralRegistry, KeyRecord, KeyRing, RegisteredKey
from dan_async.devnet.node.passkeys import PasskeyRegistry
from dan_async.devnet.node.requests import NonceStore, Remembered, RequestRuns, check_same, content_hash
from dan_async.devnet.node.rpc import RefusalError, refusing
from dan_async.devnet.peers.keygen import KeygenSession
from dan_async.devnet.peers.sessions import PeerSessions
from dan_async.errors import NodeCode
from dan_async.protocols.fields import decode, to_json
from dan_async.protocols.node import (
    Acknowledgement,
    KeygenClaims,
    KeygenParams,
    Settlement,
    SettleParams,
    compute_key_id,
    request_ids,
)
from dan_async.types import Json, OperatorAddress, RequestId

_log = logging.getLogger(__name__)

#: How many settled requests are remembered, and for how long: nonces given out before are over long before then, and those
#: given out later go to clients that know what they ask for.
_MOST_SETTLED = 65_536
_REMEMBERED_S = 3600.0


@define(kw_only=True, eq=False, repr=False)
class KeygenService:
    """Key generation at one node; ``on_made`` is called with the participants when a key is stored."""

    _context: NodeContext
    _roster: frozenset[OperatorAddress]
    _sessions: PeerSessions
    _ring: KeyRing
    _nonces: NonceStore
    _passkeys: PasskeyRegistry
    _on_made: Callable[[Sequence[OperatorAddress]], None]
    #: The requests under which nothing begins any more, with the ephemeral key that settled them.
    _settled: Remembered[tuple[RequestId, bytes], bool] = field(init=False)
    _runs: RequestRuns[Acknowledgement] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._settled = Remembered(most=_MOST_SETTLED, keep_s=_REMEMBERED_S, clock=self._context.clock)
        most = self._context.limits.max_keygens
        self._runs = RequestRuns(self._context, "key generations", most=most)

    async def keygen(self, params: KeygenParams) -> Acknowledgement:
        """Take part in making a key, or say again what came of it."""
        content = content_hash(params)
        record = self._ring.by_request(params.request_id)
        if record is not None:
            check_same(record.content, content)
            return record.acknowledgement
        return await self._runs.run(params.request_id, content, lambda: self._begin(params, content))

    async def settle(self, params: dict[str, Json]) -> Json:
        """Answer a client that was cut off: what came of its request, and that nothing more will come of it."""
        asked = decode(SettleParams, params)
        if not asked.is_signed_for(self._context.identity.operator):
            raise RefusalError(
                NodeCode.EPHEMERAL_KEY_REFUSED, "the signature is not the ephemeral key's over this request"
            )
        ids = request_ids(asked.request_id)
        # First nothing new may begin, then what has begun must end: so the answer stays true.
        for request_id in ids:
            self._settled.put((request_id, asked.eph_pk), True)
        for request_id in ids:
            await self._runs.wait_for(request_id)
        records = (self._ring.by_request(request_id) for request_id in ids)
        found = (r.acknowledgement for r in records if r is not None and r.claim.eph_pk == asked.eph_pk)
        return to_json(Settlement(acknowledgements=tuple(found)))

    async def aclose(self) -> None:
        await self._runs.aclose()

    def _begin(self, params: KeygenParams, content: bytes) -> Coroutine[Any, Any, Acknowledgement]:
        checked = check_request(
            params, operator=self._context.identity.operator, roster=self._roster, now=self._context.clock()
        )
        if self._settled.get((params.request_id, checked.claim.eph_pk)):
            raise RefusalError(
                NodeCode.REQUEST_CONFLICT, "the request was settled: nothing begins under it any more"
            )
        with self._nonces.spending(checked.nonce, params.request_id, KEYGEN, checked.setup_digest):
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
        with refusing(NodeCode.KEYGEN_FAILED, "key generation"):
            agreed = Session(
                session_id=checked.session_id, threshold=checked.threshold, identities=params.participants
            )
            share = await KeygenSession(self._context, self._sessions, agreed, params.request_id).run()
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
            await self._context.workers.use_disk(self._passkeys.save, params.user_authentication.id)
        await self._context.workers.use_disk(self._ring.put, record)
        self._on_made(params.participants)
        _log.info("request %s: key %s is made", params.request_id, acknowledgement.key_id)
        return acknowledgement

    def _acknowledge(self, checked: CheckedKeygen, share: KeyShare) -> Acknowledgement:
        params = checked.params
        claims = KeygenClaims(
            request_id=params.request_id,
            key_id=compute_key_id(
                public_key=share.public_key,
                t=checked.threshold.t,
                participants=params.participants,
                owner_id=params.user_authentication.id,
                request_id=params.request_id,
            ),
            public_key=share.public_key,
            public_shares=share.public_shares,
            t=checked.threshold.t,
            n=checked.threshold.n,
            participants=params.participants,
            transcript_hash=share.transcript_hash,
        )
        return self._context.signed(Acknowledgement, claims, params.participants)

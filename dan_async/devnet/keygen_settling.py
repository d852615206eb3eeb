"""A node's answer to a client that was cut off: what came of its key generation, and that nothing more will come of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from dan_async.devnet.identity import NodeIdentity
from dan_async.devnet.key_record import KeyRing
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.errors import NodeCode
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.models.claim import EphemeralClaim
from dan_async.types import Clock, Json, RequestId
from dan_async.wire.node_settling import decode_settle, encode_settle_result, request_ids

__all__ = ["KeygenSettling"]

#: How many settled requests are remembered, and for how long: nonces given out before are over long before then, and those
#: given out later go to clients that know what they ask for.
_MOST_SETTLED = 65_536
_REMEMBERED_S = 3600.0


class KeygenSettling:
    """
    Settles key generations.

    Args:
        identity: The node.
        ring: What was finished.
        clock: The wall clock.
    """

    def __init__(self, *, identity: NodeIdentity, ring: KeyRing, clock: Clock) -> None:
        self._identity = identity
        self._ring = ring
        self._clock = clock
        self._settled: OrderedDict[tuple[RequestId, bytes], float] = OrderedDict()

    def check_open(self, request_id: RequestId, claim: EphemeralClaim) -> None:
        """
        Check that a request may still begin.

        Raises:
            RefusalError: ``REQUEST_CONFLICT``: its ephemeral key has settled it, and was told that nothing had begun.
        """
        forget_at = self._settled.get((request_id, claim.eph_pk))
        if forget_at is not None and self._clock() < forget_at:
            raise RefusalError(
                NodeCode.REQUEST_CONFLICT, "the request was settled: nothing begins under it any more"
            )

    async def settle(self, params: dict[str, Json], wait_for: Callable[[RequestId], Awaitable[None]]) -> Json:
        """
        Answer ``dan_settle_keygen``.

        Args:
            params: Its parameters.
            wait_for: Waits until the request of that id has ended, if it is under way.

        Raises:
            InvalidFieldError: A parameter is wrong.
            RefusalError: ``EPHEMERAL_KEY_REFUSED``: the ephemeral key did not sign it for this node.
        """
        asked = decode_settle(params)
        if not asked.is_signed_for(self._identity.operator):
            raise RefusalError(
                NodeCode.EPHEMERAL_KEY_REFUSED, "the signature is not the ephemeral key's over this request"
            )
        ids = request_ids(asked.request_id)
        # First nothing new may begin, then what has begun must end: so the answer stays true.
        self._remember(ids, asked.eph_pk)
        for request_id in ids:
            await wait_for(request_id)
        found: list[Acknowledgement] = []
        for request_id in ids:
            record = self._ring.by_request(request_id)
            if record is not None and record.claim.eph_pk == asked.eph_pk:
                found.append(record.acknowledgement)
        return encode_settle_result(tuple(found))

    def _remember(self, ids: tuple[RequestId, ...], eph_pk: bytes) -> None:
        now = self._clock()
        for request_id in ids:
            self._settled.pop((request_id, eph_pk), None)
            self._settled[request_id, eph_pk] = now + _REMEMBERED_S
        while self._settled and (
            len(self._settled) > _MOST_SETTLED or next(iter(self._settled.values())) <= now
        ):
            self._settled.popitem(last=False)

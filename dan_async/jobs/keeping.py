"""Keeping a session: the intent before the first byte leaves, the session before it is returned."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from attrs import define, field

from dan_async.errors import DanError, GatewayError, StoreError
from dan_async.request import PreparedRequest, WatchedAuth
from dan_async.session import DanSessionKeyPayload
from dan_async.storage.base import KeygenIntent, SessionState, SessionStore, StoredSession
from dan_async.types import Clock, RequestId

_log = logging.getLogger(__name__)


@define
class SessionKeeper:
    """A client's store, and the requests that the client is working on: nobody else may settle those."""

    store: SessionStore
    clock: Clock
    in_flight: set[RequestId] = field(factory=set)


class KeptKeygen:
    """
    One key generation, kept. Entering stores the intent; an error that leaves the block decides what becomes of it.

    Before the owner has signed, nothing can have been made, so the intent goes. After that it may have been, unless a
    gateway's error is of those that rule it out: the record stays pending, to be settled later.
    """

    def __init__(self, keeper: SessionKeeper, request: PreparedRequest) -> None:
        self.auth = WatchedAuth(request.auth)
        self._keeper = keeper
        self._record = _intended(request, now=keeper.clock())

    async def __aenter__(self) -> Self:
        self._keeper.in_flight.add(self._record.record_id)
        try:
            await self._keeper.store.save(self._record)
        except BaseException:
            self._keeper.in_flight.discard(self._record.record_id)
            raise
        return self

    async def finish(self, payload: DanSessionKeyPayload) -> None:
        """Store the session. If that fails it is made all the same, and ``recover()`` will find it."""
        done = self._record.changed("active", now=self._keeper.clock(), session=payload, problem="")
        try:
            await self._keeper.store.replace(done, expected="pending")
        except StoreError as error:
            error.add_note(
                f"The session key {payload.session_key_eoa} is made; recover() finds it once the store works again."
            )
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # A cancelled caller is in a hurry, and a store that failed once is not asked again: recover() comes to it.
            if isinstance(error, Exception) and not isinstance(error, StoreError):
                await self._give_up(error)
        finally:
            self._keeper.in_flight.discard(self._record.record_id)

    async def _give_up(self, error: Exception) -> None:
        store, record = self._keeper.store, self._record
        # Of a gateway's retryable errors it is certain that nothing was created.
        is_ruled_out = isinstance(error, GatewayError) and error.retryable
        state: SessionState = "pending" if self.auth.has_authorised and not is_ruled_out else "failed"
        try:
            if state == "failed" and record.reference is None:
                await store.delete(record.record_id, expected="pending")
            else:
                changed = record.changed(state, now=self._keeper.clock(), problem=describe_problem(error))
                await store.replace(changed, expected="pending")
        except StoreError as failure:
            _log.warning("request %s: the failure could not be stored: %s", record.record_id, failure)


def describe_problem(error: BaseException) -> str:
    """Return an error as a line for a record: ours show no secret, of others only the kind is known not to."""
    text = f"{type(error).__name__}: {error.message}" if isinstance(error, DanError) else type(error).__name__
    return text[:500]


def _intended(request: PreparedRequest, *, now: float) -> StoredSession:
    keygen, key = request.keygen, request.ephemeral_key
    moment = int(now * 1000)
    return StoredSession(
        record_id=keygen.request_id,
        owner=request.owner,
        chain_id=request.chain_id,
        state="pending",
        expires_at=keygen.claim.expiry,
        created_at=moment,
        updated_at=moment,
        reference=request.reference,
        intent=KeygenIntent(
            hex_eph_sk=key.to_hex(),
            eph_id=keygen.claim.eph_id,
            eph_alg=key.algorithm,
            owner_id=keygen.owner_id,
            threshold=keygen.threshold.t,
            parties_number=keygen.threshold.n,
            min_parties=keygen.min_parties,
            permissions=keygen.permissions,
            key_label=keygen.key_label,
        ),
    )

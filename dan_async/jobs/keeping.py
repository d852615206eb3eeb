"""Keeping a session: the intent before the first byte leaves, the session before it is returned."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING, Self

from attrs import define, field

from dan_async._values import check_text
from dan_async.errors import DanError, GatewayError, InvalidFieldError, StoreError
from dan_async.protocols.setups import AuthMethod
from dan_async.session import DanSessionKeyPayload
from dan_async.storage.base import KeygenIntent, SessionStore, StoredSession
from dan_async.types import Clock, RequestId, TypedData

if TYPE_CHECKING:
    from dan_async.network import AuthModule
    from dan_async.request import SessionRequest

_log = logging.getLogger(__name__)


@define
class SessionKeeper:
    """
    A client's store, and what the client is working on.

    Args:
        store: Where sessions are kept.
        clock: The wall clock.
        in_flight: The requests that are under way; nobody else may settle them.
    """

    store: SessionStore
    clock: Clock
    in_flight: set[RequestId] = field(factory=set)


class KeptKeygen:
    """
    One key generation, kept. Entering stores the intent; an error that leaves the block decides what becomes of it.

    Before the owner has signed, nothing can have been made, so the intent goes. After that it may have been, unless a
    gateway's error is of those that rule it out: the record stays pending, to be settled later.

    Args:
        keeper: The store; None to keep nothing.
        request: What is asked for.
        reference: The caller's own name for it.

    Raises:
        InvalidFieldError: There is a reference and no store, or it is no text.
    """

    def __init__(self, keeper: SessionKeeper | None, request: SessionRequest, reference: str | None) -> None:
        if reference is not None:
            check_text("reference", reference, most=200)
            if keeper is None:
                raise InvalidFieldError("reference", "needs a store", hint="DanClient(..., store=...)")
        self._keeper = keeper
        self._request = request
        self._reference = reference
        self._record: StoredSession | None = None
        self.auth: AuthModule = request.auth if keeper is None else _WatchedAuth(request.auth)

    async def __aenter__(self) -> Self:
        if self._keeper is not None:
            record = _intended(self._request, self._reference, now=self._keeper.clock())
            self._keeper.in_flight.add(record.record_id)
            try:
                await self._keeper.store.save(record)
            except BaseException:
                self._keeper.in_flight.discard(record.record_id)
                raise
            self._record = record
        return self

    async def finish(self, payload: DanSessionKeyPayload) -> None:
        """
        Store the session.

        Raises:
            StoreError: That failed. The session is made, and ``recover()`` will find it.
        """
        if self._keeper is None or self._record is None:
            return
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
        if self._keeper is None or self._record is None:
            return
        try:
            # A cancelled caller is in a hurry, and a store that failed once is not asked again: recover() comes to it.
            if isinstance(error, Exception) and not isinstance(error, StoreError):
                await self._give_up(self._keeper, self._record, error)
        finally:
            self._keeper.in_flight.discard(self._record.record_id)

    async def _give_up(self, keeper: SessionKeeper, record: StoredSession, error: Exception) -> None:
        may_be_made = isinstance(self.auth, _WatchedAuth) and self.auth.has_signed
        if isinstance(error, GatewayError) and error.retryable:
            may_be_made = False  # of these errors it is certain that nothing was created
        problem = describe_problem(error)
        now = keeper.clock()
        try:
            if may_be_made:
                await keeper.store.replace(
                    record.changed("pending", now=now, problem=problem), expected="pending"
                )
            elif record.reference is None:
                await keeper.store.delete(record.record_id, expected="pending")
            else:
                await keeper.store.replace(
                    record.changed("failed", now=now, problem=problem), expected="pending"
                )
        except StoreError as failure:
            _log.warning("request %s: the failure could not be stored: %s", record.record_id, failure)


class _WatchedAuth:
    """Passes everything on to an owner, and notes whether a signature was given."""

    def __init__(self, auth: AuthModule) -> None:
        self._auth = auth
        self.has_signed = False

    @property
    def method(self) -> AuthMethod:
        return self._auth.method

    @property
    def id(self) -> str:
        return self._auth.id

    @property
    def interactive(self) -> bool:
        return self._auth.interactive

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        signature = await self._auth.authorise(challenge=challenge, typed_data=typed_data)
        self.has_signed = True
        return signature


def describe_problem(error: BaseException) -> str:
    """Give an error as a line for a record: ours show no secret, of others only the kind is known not to."""
    text = f"{type(error).__name__}: {error.message}" if isinstance(error, DanError) else type(error).__name__
    return text[:500]


def _intended(request: SessionRequest, reference: str | None, *, now: float) -> StoredSession:
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
        reference=reference,
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

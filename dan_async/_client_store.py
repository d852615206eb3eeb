"""The part of DanClient that has to do with its store."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, cast

from dan_async import jobs
from dan_async._client_keys import KeyJobs
from dan_async.auth.base import AuthModule
from dan_async.batch.base import BatchRun, Made
from dan_async.batch.requests import check_names, read_request
from dan_async.config import Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError, RecordConflictError
from dan_async.jobs.keeping import SessionKeeper
from dan_async.jobs.recover import RecoveryReport
from dan_async.jobs.resume import make_once
from dan_async.models._fields import check_seconds
from dan_async.models.session import DanSessionKeyPayload
from dan_async.storage.base import SessionStore
from dan_async.storage.record import StoredSession
from dan_async.types import Clock, RequestId
from dan_async.wallets.base import Wallet

__all__ = ["StoredJobs"]


class StoredJobs(KeyJobs):
    """
    What a client does with its store.

    Args:
        store: The store, if there is one.
        timeouts: Limits for the jobs.
        clock: The wall clock.
    """

    def __init__(self, store: SessionStore | None, timeouts: Timeouts | None, clock: Clock) -> None:
        if store is not None and not isinstance(store, SessionStore):
            raise InvalidFieldError("store", f"must be a session store, not {type(store).__name__}")
        super().__init__(timeouts, clock)
        self._keeper = None if store is None else SessionKeeper(store, clock)

    @property
    def store(self) -> SessionStore:
        """
        The store that the client was given.

        Raises:
            ConfigurationError: It was given none.
        """
        return self._kept().store

    def _kept(self) -> SessionKeeper:
        if self._keeper is None:
            raise ConfigurationError("the client has no store", hint="DanClient(..., store=...)")
        return self._keeper

    async def recover(self, *, min_age_s: float = 0.0, timeout: float | None = None) -> RecoveryReport:
        """
        Settle what a crash or an error left pending in the store, by asking the nodes what came of it.

        If t nodes acknowledge the key, the session is stored as active. If too few can have made it, the record is dropped
        (or marked failed, if its failure had been reported), and no node will make it any more. Otherwise it stays
        pending: call again when more nodes answer. A gateway cannot be asked, so that what is pending there stays so until
        it expires. Calls of this client that are under way are left alone; for clients of other processes, use
        *min_age_s*.

        Args:
            min_age_s: Only what was asked for so many seconds ago.
            timeout: Seconds for asking about one record, instead of the client's.

        Returns:
            What became of each record.

        Raises:
            ConfigurationError: The client has no store, or a parameter is wrong.
            StoreError: The store failed; what was settled before is.
            ClientClosedError: The client was closed.
        """
        keeper = self._kept()
        if min_age_s != 0.0:
            check_seconds("min_age_s", min_age_s)
        return await jobs.recover(
            await self._open(),
            keeper,
            min_age_s=min_age_s,
            timeout_s=self._timeouts.total_s if timeout is None else check_seconds("timeout", timeout),
        )

    def generate_session_keys(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = 16,
        rate_limit: float | None = None,
        resume: bool = False,
        retry_failed: bool = False,
        **parameters: Any,
    ) -> BatchRun:
        """
        Make many session keys, so many at a time, and give each as soon as it is there.

        One failure is one result; the others go on. See ``BatchRun`` for how it is iterated over and closed.

        Args:
            requests: Anything to iterate over, sync or async. Each request is a mapping with parameters of
                ``generate_session_key``, or a ``DanSessionKeyRequestParams``. Read one by one, never further ahead than
                *concurrency* beyond the results that were taken.
            concurrency: How many to work on at a time, 1 to 100 000.
            rate_limit: How many to begin per second at most; None for no limit.
            resume: Whether each request has a *reference* under which its session is made once, however often the batch
                is broken off and started again. Needs a store.
            retry_failed: With *resume*: whether to try again what has failed before.
            **parameters: Parameters of ``generate_session_key`` that all requests share; a request's own win.

        Returns:
            The results, as an async iterator of ``ItemResult``. Nothing is begun before the first one is asked for.

        Raises:
            ConfigurationError: A parameter is wrong.
        """
        keeper = self._kept() if resume else None
        if retry_failed and not resume:
            raise InvalidFieldError("retry_failed", "needs resume=True")
        make: Callable[..., Awaitable[DanSessionKeyPayload]] = cast("Any", self).generate_session_key
        check_names(make, parameters)

        async def work(request: Any) -> Made:
            asked = {**parameters, **read_request(make, request)}
            if keeper is None:
                return "made", await make(**asked)
            reference = asked.get("reference")
            if not isinstance(reference, str):
                raise InvalidFieldError("reference", "is needed to resume a batch")
            return await make_once(
                await self._open(),
                keeper,
                reference,
                lambda: make(**asked),
                retry_failed=retry_failed,
                settle_s=self._timeouts.attempt_s,
            )

        return BatchRun(requests, work, concurrency=concurrency, rate_limit=rate_limit)

    async def revoke_stored_session(
        self,
        record_id: RequestId,
        *,
        wallet: Wallet | None = None,
        auth: AuthModule | None = None,
        timeout: float | None = None,
    ) -> StoredSession:
        """
        Take the use of a stored session's key from its ephemeral key, and mark the record as revoked.

        Args:
            record_id: The record.
            wallet: The owner's wallet.
            auth: The owner, instead of a wallet: a ``PasskeyAuth``.
            timeout: Seconds for the whole call, instead of the client's.

        Returns:
            The record as it is now.

        Raises:
            ConfigurationError: The client has no store, a parameter is wrong, or the wallet is not the owner's.
            RecordConflictError: There is no such record, or it is not active; nothing was sent.
            WalletError: The owner did not authorise it.
            QuorumError: Too few nodes confirmed; call again.
            DanError: Any other failure, named.
        """
        store = self._kept().store
        record = await store.get(record_id)
        if record is None or record.state != "active" or record.session is None:
            said = "is not in the store" if record is None else f"is {record.state}, not active"
            raise RecordConflictError(f"the record {said}", request_id=record_id)
        await jobs.revoke_ephemeral_key(
            await self._open(),
            record.session,
            wallet=wallet,
            auth=auth,
            timeout=timeout,
            timeouts=self._timeouts,
            clock=self._clock,
        )
        return await store.change_state(record_id, "revoked", expected="active")

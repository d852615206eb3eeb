"""Keeping a session: the intent before the first byte leaves, the session before it is returned."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from attrs import define, evolve

from dan_async.deadline import Deadline
from dan_async.errors import (
    ClientClosedError,
    DanError,
    DeadlineExceededError,
    GatewayError,
    RecordConflictError,
    StoreError,
)
from dan_async.network import OpenedKeygen
from dan_async.request import ClaimOutdatedError, PreparedRequest, WatchedAuth
from dan_async.session import DanSessionKeyPayload
from dan_async.types import Clock, RequestId

if TYPE_CHECKING:
    from dan_async.storage.base import SessionState, SessionStore, StoredSession

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: For how long the store is waited for when a call's time is over, in seconds.
_LAST_WRITE_S = 0.5

#: For how long after its deadline a call may still be at work, in seconds, and how long one without a deadline is.
_LEASE_MARGIN_S = 5.0
_LONGEST_LEASE_S = 600.0


@define(eq=False, repr=False)
class SessionKeeper:
    """A client's store. Records that somebody is working on are not settled by others."""

    store: SessionStore
    clock: Clock

    #: The requests that this process is working on, whichever client does, and how many calls are at each.
    in_flight: ClassVar[Counter[RequestId]] = Counter()

    def is_busy(self, record: StoredSession) -> bool:
        """
        Whether a program is at work on a pending record, or a record still waits for its owner.

        A program of this machine that was killed is at work on nothing.
        """
        if record.state == "waiting":
            return self.clock() * 1000 < record.busy_until
        if record.state != "pending":
            return False
        machine, _, process = record.worker.rpartition(" ")
        if record.record_id in self.in_flight:
            return True
        if not machine or not process.isdecimal():
            return False
        if machine == _machine() and (int(process) == os.getpid() or not _is_alive(int(process))):
            return False
        # A clock that is behind the record's is no reason to leave the record alone for longer than it was meant to be.
        return record.created_at - 60_000 <= self.clock() * 1000 < record.busy_until

    async def in_time(self, work: Awaitable[T], doing: str, deadline: Deadline, record_id: str) -> T:
        """Wait for the store for as long as the deadline allows, and a moment longer if it is over."""
        remaining = deadline.remaining()
        limit = asyncio.timeout(None if remaining is None else max(remaining, _LAST_WRITE_S))
        try:
            async with limit:
                return await work
        except TimeoutError as error:
            if isinstance(error, DanError) or not limit.expired():
                raise
            raise deadline.error(doing, request_id=record_id) from None


if hasattr(os, "register_at_fork"):  # what the parent works on, its child does not
    os.register_at_fork(after_in_child=SessionKeeper.in_flight.clear)


def _machine() -> str:
    """Return a name for whatever shares process ids with this process: a host, or a container."""
    try:
        return f"{socket.gethostname()[:100]} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()[:100]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is another user's
    return True


class KeptKeygen:
    """
    One key generation, kept. Entering stores the intent; an error that leaves the block decides what becomes of it.

    Before the owner has signed, nothing can have been made, so the intent goes. After that it may have been, unless a
    gateway's error is of those that rule it out: the record stays pending, to be settled later.

    Of a record that the store has *known* already, the owner has signed.
    """

    def __init__(
        self,
        keeper: SessionKeeper,
        request: PreparedRequest,
        deadline: Deadline,
        *,
        known: StoredSession | None = None,
    ) -> None:
        self.auth = WatchedAuth(request.auth)
        self.auth.has_authorised = known is not None
        self._keeper = keeper
        self._deadline = deadline
        self._known_state = None if known is None else known.state
        now = keeper.clock()
        lease_s = _LONGEST_LEASE_S if deadline.timeout_s is None else deadline.timeout_s + _LEASE_MARGIN_S
        self._record = evolve(
            (known or intended(request, now=now)).changed("pending", now=now),
            worker=f"{_machine()} {os.getpid()}",
            busy_until=int(now * 1000) + int(lease_s * 1000),
        )
        self._is_made = False

    async def __aenter__(self) -> Self:
        self._keeper.in_flight[self._record.record_id] += 1
        try:
            async with self._deadline.enforced("storing the request", request_id=self._record.record_id):
                if self._known_state is None:
                    await self._keeper.store.save(self._record)
                else:
                    await self._keeper.store.replace(self._record, expected=self._known_state)
        except BaseException:
            self._leave()
            raise
        return self

    async def finish(self, payload: DanSessionKeyPayload) -> None:
        """Store the session. If that fails it is made all the same, and ``recover()`` will find it."""
        self._is_made = True
        done = self._record.changed("active", now=self._keeper.clock(), session=payload, problem="")
        try:
            await self._in_time(self._replace_unless_found(done), "storing the session")
        except (StoreError, DeadlineExceededError) as error:
            error.add_note(
                f"The session key {payload.session_key_eoa} is made; once the store works again, its record"
                f" {self._record.record_id} is active, or recover() makes it so."
            )
            raise

    async def _replace_unless_found(self, done: StoredSession) -> None:
        try:
            await self._keeper.store.replace(done, expected="pending")
        except RecordConflictError:
            # While this process was suspended, another one may have settled the record.
            found = await self._keeper.store.get(done.record_id)
            if found is None or (found.state, found.session) != ("active", done.session):
                raise

    async def _in_time(self, writing: Awaitable[object], doing: str) -> None:
        await self._keeper.in_time(writing, doing, self._deadline, self._record.record_id)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # A cancelled caller is in a hurry, and a store that failed once is not asked again: recover() comes to it.
            if isinstance(error, Exception) and not self._is_made:
                await self._give_up(error)
        finally:
            self._leave()

    def _leave(self) -> None:
        in_flight, record_id = self._keeper.in_flight, self._record.record_id
        in_flight[record_id] -= 1
        if not in_flight[record_id]:
            del in_flight[record_id]

    async def _give_up(self, error: Exception) -> None:
        store, record = self._keeper.store, self._record
        # Of a gateway's retryable errors it is certain that nothing was created.
        is_ruled_out = isinstance(error, GatewayError) and error.retryable
        state: SessionState = "pending" if self.auth.has_authorised and not is_ruled_out else "failed"
        try:
            # That the client was closed says nothing of the request, which is to be made again.
            is_nobodys = isinstance(error, ClientClosedError | ClaimOutdatedError)
            if state == "failed" and (record.reference is None or is_nobodys):
                await self._in_time(
                    store.delete(record.record_id, expected="pending"), "dropping the request"
                )
            else:
                problem = "" if is_nobodys else describe_problem(error)
                changed = record.changed(state, now=self._keeper.clock(), problem=problem)
                await self._in_time(store.replace(changed, expected="pending"), "storing the failure")
        except (StoreError, DeadlineExceededError) as failure:
            _log.warning("request %s: the failure could not be stored: %s", record.record_id, failure)


def describe_problem(error: BaseException) -> str:
    """Return an error as a line for a record: ours show no secret, of others only the kind is known not to."""
    text = f"{type(error).__name__}: {error.message}" if isinstance(error, DanError) else type(error).__name__
    return text[:500]


def intended(request: PreparedRequest, *, now: float, opened: OpenedKeygen | None = None) -> StoredSession:
    """Return the record of a request; if it was *opened* it waits for its owner."""
    from dan_async.storage.base import KeygenIntent, StoredSession

    keygen, key = request.keygen, request.ephemeral_key
    moment = int(now * 1000)
    return StoredSession(
        record_id=keygen.request_id,
        owner=request.owner,
        chain_id=request.chain_id,
        state="pending" if opened is None else "waiting",
        expires_at=keygen.claim.expiry,
        created_at=moment,
        updated_at=moment,
        reference=request.reference,
        busy_until=0 if opened is None else 1000 * opened.expires_at,
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
            min_holders=keygen.min_holders,
            opened=None if opened is None else opened.text,
        ),
    )

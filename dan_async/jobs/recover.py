"""Sessions that a crash, or an error, left pending: the nodes are asked by request id, and no second key is made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import frozen

from dan_async._values import to_hex
from dan_async.config import Threshold
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.errors import (
    ClientClosedError,
    DanError,
    DeadlineExceededError,
    RecordConflictError,
    SessionFailedError,
    SessionPendingError,
    StoreError,
)
from dan_async.jobs.keeping import SessionKeeper, describe_problem
from dan_async.network import KeygenQuestion, KeygenReport, Network, SettlesKeygen
from dan_async.session import DanSessionKeyPayload
from dan_async.types import RequestId

if TYPE_CHECKING:
    from dan_async.storage.base import KeygenIntent, StoredSession

_log = logging.getLogger(__name__)

#: How many records are settled at a time.
_AT_ONCE = 16

#: finished: the session is active; dropped: no key was made, and the record is gone (or failed, if its failure was reported
#: before); expired: its time is over, and nobody can be asked; undecided: it stays as it was.
Settlement: TypeAlias = Literal["finished", "dropped", "expired", "undecided"]


@frozen(kw_only=True)
class SettledRecord:
    """
    One record, settled.

    Args:
        record_id: The record.
        reference: The caller's own name for it.
        settlement: Its outcome.
        session: The session, if it is finished.
        problem: Why it is undecided.
    """

    record_id: RequestId
    reference: str | None
    settlement: Settlement
    session: DanSessionKeyPayload | None = None
    problem: str = ""


@frozen
class RecoveryReport:
    """
    The outcomes of ``recover()``, record by record.

    Args:
        records: Each record that was looked at, and what became of it.
    """

    records: tuple[SettledRecord, ...] = ()

    def of(self, settlement: Settlement) -> tuple[SettledRecord, ...]:
        """
        Return the records that were settled in one way.

        Args:
            settlement: The way: ``finished``, ``dropped``, ``expired`` or ``undecided``.
        """
        return tuple(record for record in self.records if record.settlement == settlement)

    @property
    def sessions(self) -> tuple[DanSessionKeyPayload, ...]:
        """The sessions that were found."""
        return tuple(record.session for record in self.records if record.session is not None)


async def recover(
    network: Network,
    keeper: SessionKeeper,
    *,
    record_id: RequestId | None = None,
    min_age_s: float,
    timeout_s: float | None,
    record_s: float | None = None,
) -> RecoveryReport:
    """
    Return what became of each record, as *network* knows it.

    *network* is any open network, *keeper* the store as jobs use it, *timeout_s* are the seconds for the whole call, and
    *record_s* those for one record. The other arguments, and the errors, are those of ``DanClient.recover``.
    """
    deadline = Deadline(timeout_s)
    settled: list[SettledRecord] = []
    running: set[asyncio.Task[SettledRecord]] = set()
    try:
        async for record in _left_pending(keeper, min_age_s, record_s, deadline):
            if record_id not in (None, record.record_id):
                continue
            if deadline.is_over:
                problem = "the time was over before this record, and those after it, were looked at"
                settled.append(_said(record, "undecided", problem=problem))
                break
            limit_s = deadline.cap(record_s)
            running.add(asyncio.create_task(settle(network, keeper, record, timeout_s=limit_s)))
            if len(running) >= _AT_ONCE:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                settled += [task.result() for task in done]
                running -= done
        settled += await asyncio.gather(*running)
    finally:
        await cancel_and_wait(running)
    return RecoveryReport(tuple(settled))


async def _left_pending(
    keeper: SessionKeeper, min_age_s: float, read_s: float | None, deadline: Deadline
) -> AsyncIterator[StoredSession]:
    """Yield what nobody works on or waits for any more; also what a clock that was wrong called expired."""
    from dan_async.storage.base import SessionFilter

    now = keeper.clock()
    waiting = SessionFilter(state=("waiting", "pending"))
    for where in (waiting, SessionFilter(state="expired", expires_after=max(0, int(now)))):
        records = keeper.store.find(where)
        while True:
            limit = Deadline(read_s) if deadline.timeout_s is None else deadline
            async with limit.enforced("reading the store"):
                record = await anext(records, None)
            if record is None:
                break
            # One from the future is not young: the clock was set back.
            is_young = 0 <= now - record.created_at / 1000 < min_age_s
            if not is_young and not keeper.is_busy(record):
                yield record


async def settle(
    network: Network, keeper: SessionKeeper, record: StoredSession, *, timeout_s: float | None
) -> SettledRecord:
    """Settle one record that is pending, or was called expired too early, by asking the network about its request."""
    deadline = Deadline(timeout_s)
    try:
        async with deadline.enforced("settling the record", request_id=record.record_id):
            try:
                return await _settle(network, keeper, record, deadline)
            except RecordConflictError:
                # Somebody else has settled it meanwhile: their outcome holds.
                now = await keeper.store.get(record.record_id)
    except DeadlineExceededError as error:
        return _said(record, "undecided", problem=describe_problem(error))
    if now is None or now.state == "failed":
        return _said(record, "dropped")
    if now.session is not None:
        return _said(record, "finished", session=now.session)
    return _said(record, "expired" if now.state == "expired" else "undecided")


async def _settle(
    network: Network, keeper: SessionKeeper, record: StoredSession, deadline: Deadline
) -> SettledRecord:
    store, intent = keeper.store, record.intent
    if record.state == "waiting":  # its owner has not signed, so there is nobody to ask
        if not await store.delete(record.record_id, expected="waiting"):
            raise RecordConflictError("the record was changed meanwhile", request_id=record.record_id)
        return _said(record, "dropped")
    if record.session is not None or intent is None:
        await store.replace(record.changed("active", now=keeper.clock()), expected=record.state)
        return _said(record, "finished", session=record.session)
    if not isinstance(network, SettlesKeygen):
        if record.expires_at <= keeper.clock():
            await store.replace(record.changed("expired", now=keeper.clock()), expected=record.state)
            return _said(record, "expired")
        if record.state == "expired":
            await store.replace(record.changed("pending", now=keeper.clock()), expected=record.state)
        problem = "a gateway cannot be asked for the outcome of a request; the record stays pending until it expires"
        return _said(record, "undecided", problem=problem)
    with EphemeralKey.from_hex(intent.hex_eph_sk, intent.eph_alg) as key:
        question = KeygenQuestion(
            request_id=record.record_id,
            owner_id=intent.owner_id,
            threshold=Threshold(intent.threshold, intent.parties_number),
            min_parties=intent.min_parties,
            ephemeral_key=key,
        )
        try:
            found = await network.settle_keygen(question, deadline=deadline)
        except DanError as error:
            return _said(record, "undecided", problem=describe_problem(error))
    if found.report is not None:
        session = _session_of(found.report, record, intent)
        done = record.changed("active", now=keeper.clock(), session=session, problem="")
        await store.replace(done, expected=record.state)
        _log.info("request %s: session key %s found", record.record_id, session.session_key_eoa)
        return _said(record, "finished", session=session)
    if not found.is_certain:
        silent = "; ".join(outcome.describe() for outcome in found.outcomes)
        problem = f"too few nodes answered to tell the outcome of the request: {silent}"
        return _said(record, "undecided", problem=problem[:500])
    if record.state == "expired":
        return _said(record, "expired")
    if record.problem:
        await store.replace(record.changed("failed", now=keeper.clock()), expected="pending")
    elif not await store.delete(record.record_id, expected="pending"):
        raise RecordConflictError("the record was changed meanwhile", request_id=record.record_id)
    return _said(record, "dropped")


def _said(record: StoredSession, settlement: Settlement, **outcome: Any) -> SettledRecord:
    return SettledRecord(
        record_id=record.record_id, reference=record.reference, settlement=settlement, **outcome
    )


def _session_of(report: KeygenReport, record: StoredSession, intent: KeygenIntent) -> DanSessionKeyPayload:
    return DanSessionKeyPayload(
        session_key_eoa=public_key_to_address(report.public_key),
        mpc_key_id=report.key_id,
        hex_eph_sk_without_0x=intent.hex_eph_sk,
        parties_number=report.threshold.n,
        threshold=report.threshold.t,
        eoa_address=record.owner,
        chain_id=record.chain_id,
        public_key=to_hex(report.public_key),
        eph_id=intent.eph_id,
        eph_alg=intent.eph_alg,
        expires_at=record.expires_at,
    )


# --- batches that are resumed -----------------------------------------------------------------------------------------


Found: TypeAlias = tuple[Literal["made", "kept", "settled"], DanSessionKeyPayload]


async def make_once(
    network: Network,
    keeper: SessionKeeper,
    reference: str,
    make: Callable[[], Awaitable[DanSessionKeyPayload]],
    *,
    retry_failed: bool,
    settle_s: float,
    tries: int = 3,
) -> Found:
    """
    Return the session of a reference; make it only if nothing was made before.

    For batches that are broken off and resumed, or run twice at once: at most one key is made. Up to *tries* times others
    may be faster.
    """
    get = partial(keeper.store.get_by_reference, reference)
    known = await when_free(keeper, get, settle_s)
    if known is not None:
        found = await _look_at(network, keeper, known, retry_failed=retry_failed, settle_s=settle_s)
        if found is not None:
            return found
    try:
        return "made", await make()
    except ClientClosedError:
        raise
    except StoreError as error:
        if tries <= 1 or not isinstance(error, RecordConflictError):
            raise
    except Exception as error:
        # The owner may have signed, and the nodes may have made the key all the same.
        async with Deadline(settle_s).enforced("reading the store"):
            left = await get()
        if left is None or left.state != "pending" or keeper.is_busy(left):  # busy: others try again already
            raise
        settled = await settle(network, keeper, left, timeout_s=settle_s)
        if settled.session is None:
            raise
        error.add_note("The key was made all the same.")
        return "settled", settled.session
    # Another program was faster with the same reference, and may have died since: look at its record, as at first.
    return await make_once(
        network, keeper, reference, make, retry_failed=retry_failed, settle_s=settle_s, tries=tries - 1
    )


async def when_free(
    keeper: SessionKeeper, get: Callable[[], Awaitable[StoredSession | None]], timeout_s: float
) -> StoredSession | None:
    """Return a record as soon as nobody works on it."""
    deadline, pause_s = Deadline(timeout_s), 0.05
    while True:
        async with deadline.enforced("reading the store"):
            known = await get()
        if known is None or known.state != "pending" or not keeper.is_busy(known):
            return known
        if deadline.is_over:
            raise SessionPendingError(
                "another program is working on it",
                hint="No second key is made meanwhile. Call again to get its session",
                request_id=known.record_id,
            )
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)


async def _look_at(
    network: Network, keeper: SessionKeeper, known: StoredSession, *, retry_failed: bool, settle_s: float
) -> Found | None:
    """Return the session of an earlier attempt; None if there is to be a new attempt."""
    if known.session is not None and known.state != "pending":
        return "kept", known.session
    if known.state == "waiting":
        if keeper.is_busy(known) or not await keeper.store.delete(known.record_id, expected="waiting"):
            raise SessionPendingError(
                "it was begun in two steps, and waits for its owner's signature",
                hint="Complete it, or wait until it has expired",
                request_id=known.record_id,
            )
        return None
    if known.state == "pending":
        settled = await settle(network, keeper, known, timeout_s=settle_s)
        if settled.session is not None:
            return "settled", settled.session
        if settled.settlement == "undecided":
            raise SessionPendingError(
                f"the outcome of an earlier attempt is not known: {settled.problem}",
                hint="No second key is made meanwhile. Try again when more nodes answer",
                request_id=known.record_id,
            )
        left = await keeper.store.get(known.record_id)
        if left is None:
            return None  # a crash, and no key: as if it had never been tried
        known = left
    if not retry_failed:
        raise SessionFailedError(
            f"an earlier attempt failed: {known.problem or 'its time ran out'}",
            hint="Failed rows are tried again with retry_failed",
            request_id=known.record_id,
        )
    await keeper.store.delete(known.record_id, expected=known.state)
    return None

"""A session key under a reference, made once however often it is asked for: for batches that are broken off and resumed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from dan_async.errors import (
    ClientClosedError,
    RecordConflictError,
    SessionFailedError,
    SessionPendingError,
    StoreError,
)
from dan_async.jobs.keeping import SessionKeeper
from dan_async.jobs.recover import settle
from dan_async.models.session import DanSessionKeyPayload
from dan_async.storage.record import StoredSession

if TYPE_CHECKING:
    from dan_async.networks.base import Network

__all__ = ["Found", "make_once"]

Found: TypeAlias = tuple[Literal["made", "kept", "settled"], DanSessionKeyPayload]


async def make_once(
    network: Network,
    keeper: SessionKeeper,
    reference: str,
    make: Callable[[], Awaitable[DanSessionKeyPayload]],
    *,
    retry_failed: bool,
    settle_s: float,
) -> Found:
    """
    Give the session of a reference; make it only if nothing was made before.

    Args:
        network: Who is asked what came of an earlier attempt.
        keeper: The store.
        reference: The reference.
        make: Makes the session under that reference.
        retry_failed: Whether to try again what has failed.
        settle_s: Seconds for asking what came of an attempt.

    Raises:
        SessionFailedError: It failed before, and is not to be tried again.
        SessionPendingError: It cannot be told what came of it.
        DanError: What *make* raises.
    """
    known = await keeper.store.get_by_reference(reference)
    if known is not None:
        found = await _look_at(network, keeper, known, retry_failed=retry_failed, settle_s=settle_s)
        if found is not None:
            return found
    try:
        return "made", await make()
    except (ClientClosedError, StoreError):
        raise
    except Exception as error:
        # The owner may have signed, and the nodes may have made the key all the same.
        left = await keeper.store.get_by_reference(reference)
        if left is None or left.state != "pending":
            raise
        settled = await settle(network, keeper, left, timeout_s=settle_s)
        if settled.session is None:
            raise
        error.add_note("The key was made all the same.")
        return "settled", settled.session


async def _look_at(
    network: Network, keeper: SessionKeeper, known: StoredSession, *, retry_failed: bool, settle_s: float
) -> Found | None:
    """Give what an earlier attempt came to; None if there is to be a new one."""
    if known.session is not None and known.state != "pending":
        return "kept", known.session
    if known.state == "pending":
        if known.record_id in keeper.in_flight:
            raise RecordConflictError("the reference is being worked on", request_id=known.record_id)
        settled = await settle(network, keeper, known, timeout_s=settle_s)
        if settled.session is not None:
            return "settled", settled.session
        if settled.settlement == "undecided":
            raise SessionPendingError(
                f"it is not known what came of an earlier attempt: {settled.problem}",
                hint="No second key is made meanwhile. Try again when more nodes answer",
                request_id=known.record_id,
            )
        left = await keeper.store.get(known.record_id)
        if left is None:
            return None  # a crash, and no key: as if it had never been tried
        known = left
    if not retry_failed:
        raise SessionFailedError(
            f"it failed before: {known.problem or 'its time ran out'}",
            hint="It is tried again when that is asked for",
            request_id=known.record_id,
        )
    await keeper.store.delete(known.record_id, expected=known.state)
    return None

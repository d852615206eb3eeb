"""generate_session_key: ephemeral key, owner's authorisation, distributed key generation, payload."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from dan_async._values import to_hex
from dan_async.config import Timeouts
from dan_async.crypto.address import public_key_to_address
from dan_async.deadline import Deadline
from dan_async.jobs.keeping import KeptKeygen, SessionKeeper
from dan_async.listeners import RequestLog
from dan_async.network import FinishKeygen, KeygenReport, Network
from dan_async.request import (
    ClaimOutdatedError,
    OnReport,
    PreparedRequest,
    SessionKeyRequest,
    clock_check,
    prepare,
)
from dan_async.session import DanSessionKeyPayload
from dan_async.types import Clock

if TYPE_CHECKING:
    from dan_async.storage.base import StoredSession

_log = logging.getLogger(__name__)


async def generate_session_key(
    network: Network,
    request: SessionKeyRequest,
    *,
    keeper: SessionKeeper | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock = time.time,
    deadline: Deadline | None = None,
    in_batch: bool = False,
) -> DanSessionKeyPayload:
    """
    Run the job over *network*; ``DanClient.generate_session_key`` has the full description.

    The errors are those of ``DanClient.generate_session_key``.

    Args:
        network: Any open network.
        request: The parameters, checked.
        keeper: The store, as a job uses it; None to keep nothing.
        timeouts: Limits for the job, in seconds.
        clock: The wall clock, in Unix seconds.
        deadline: The job's, if it has begun already.
        in_batch: Whether the network may make the key together with others; see ``KeygenRequest``.

    Returns:
        The payload.
    """
    check = clock_check(network)
    while True:
        prepared = await prepare(
            request,
            network,
            timeouts=timeouts or Timeouts(),
            clock=clock,
            has_store=keeper is not None,
            in_batch=in_batch,
            check=check,
        )
        deadline = deadline or Deadline(prepared.timeout_s)
        keygen = partial(network.keygen, prepared.keygen)
        try:
            return await run_prepared(
                prepared, keygen, keeper=keeper, on_report=request.on_report, deadline=deadline
            )
        except ClaimOutdatedError:
            # The first answers of a client's nodes said so: once, as then they have told the time.
            check = None


async def run_prepared(
    prepared: PreparedRequest,
    run: FinishKeygen,
    *,
    keeper: SessionKeeper | None,
    known: StoredSession | None = None,
    on_report: OnReport | None = None,
    deadline: Deadline | None = None,
) -> DanSessionKeyPayload:
    """Run the key generation of a request, whose record may be known already, and wipe the request's ephemeral key."""
    started = time.monotonic()
    try:
        deadline = deadline or Deadline(prepared.timeout_s)
        keeping: AbstractAsyncContextManager[KeptKeygen | None]
        keeping = nullcontext() if keeper is None else KeptKeygen(keeper, prepared, deadline, known=known)
        async with keeping as kept:
            auth = prepared.auth if kept is None else kept.auth
            async with deadline.enforced("making the key", request_id=prepared.keygen.request_id):
                report = await run(auth, deadline=deadline)
            payload = _payload(prepared, report)
            if kept is not None:
                await kept.finish(payload)
    finally:
        prepared.wipe_key()  # the payload has its own copy, or nobody needs it any more
    if _log.isEnabledFor(logging.INFO):
        RequestLog(_log, report.request_id).info("session key %s made", payload.session_key_eoa)
    if on_report is not None:
        _report(on_report, report, time.monotonic() - started)
    return payload


def _payload(prepared: PreparedRequest, report: KeygenReport) -> DanSessionKeyPayload:
    key, claim = prepared.ephemeral_key, prepared.keygen.claim
    return DanSessionKeyPayload(
        session_key_eoa=public_key_to_address(report.public_key),
        mpc_key_id=report.key_id,
        hex_eph_sk_without_0x=key.to_hex(),
        parties_number=report.threshold.n,
        threshold=report.threshold.t,
        eoa_address=prepared.owner,
        chain_id=prepared.chain_id,
        public_key=to_hex(report.public_key),
        eph_id=claim.eph_id,
        eph_alg=key.algorithm,
        expires_at=claim.expiry,
    )


def _report(on_report: OnReport, report: KeygenReport, total_s: float) -> None:
    try:
        on_report(evolve(report, timings=evolve(report.timings, total_s=total_s)))
    except Exception:  # noqa: BLE001 - the key is made: a listener's bug must not lose it
        RequestLog(_log, report.request_id).exception("on_report failed; the session key is returned")

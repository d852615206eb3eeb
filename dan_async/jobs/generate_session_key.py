"""generate_session_key: ephemeral key, owner's authorisation, distributed key generation, payload."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractAsyncContextManager, nullcontext

from attrs import evolve

from dan_async._values import to_hex
from dan_async.config import Timeouts
from dan_async.crypto.address import public_key_to_address
from dan_async.deadline import Deadline
from dan_async.events import RequestLog
from dan_async.jobs.keeping import KeptKeygen, SessionKeeper
from dan_async.network import KeygenReport, Network
from dan_async.request import OnReport, SessionKeyRequest, prepare
from dan_async.session import DanSessionKeyPayload
from dan_async.types import Clock

_log = logging.getLogger(__name__)


async def generate_session_key(
    network: Network,
    request: SessionKeyRequest,
    *,
    keeper: SessionKeeper | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock = time.time,
    deadline: Deadline | None = None,
) -> DanSessionKeyPayload:
    """Run the job over *network*; ``DanClient.generate_session_key`` has the full description."""
    prepared = await prepare(
        request, network, timeouts=timeouts or Timeouts(), clock=clock, has_store=keeper is not None
    )
    keygen, key = prepared.keygen, prepared.ephemeral_key
    started = time.monotonic()
    try:
        deadline = deadline or Deadline(prepared.timeout_s)
        keeping: AbstractAsyncContextManager[KeptKeygen | None]
        keeping = nullcontext() if keeper is None else KeptKeygen(keeper, prepared, deadline)
        async with keeping as kept:
            auth = prepared.auth if kept is None else kept.auth
            async with deadline.enforced("making the key", request_id=keygen.request_id):
                report = await network.keygen(keygen, auth, deadline=deadline)
            payload = DanSessionKeyPayload(
                session_key_eoa=public_key_to_address(report.public_key),
                mpc_key_id=report.key_id,
                hex_eph_sk_without_0x=key.to_hex(),
                parties_number=report.threshold.n,
                threshold=report.threshold.t,
                eoa_address=prepared.owner,
                chain_id=prepared.chain_id,
                public_key=to_hex(report.public_key),
                eph_id=keygen.claim.eph_id,
                eph_alg=key.algorithm,
                expires_at=keygen.claim.expiry,
            )
            if kept is not None:
                await kept.finish(payload)
    finally:
        prepared.wipe_key()  # the payload has its own copy, or nobody needs it any more
    if _log.isEnabledFor(logging.INFO):
        RequestLog(_log, report.request_id).info("session key %s made", payload.session_key_eoa)
    if request.on_report is not None:
        _report(request.on_report, report, time.monotonic() - started)
    return payload


def _report(on_report: OnReport, report: KeygenReport, total_s: float) -> None:
    try:
        on_report(evolve(report, timings=evolve(report.timings, total_s=total_s)))
    except Exception:  # noqa: BLE001 - the key is made: a listener's bug must not lose it
        RequestLog(_log, report.request_id).exception("on_report failed; the session key is returned")

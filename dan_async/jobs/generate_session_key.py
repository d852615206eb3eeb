"""generate_session_key: ephemeral key, owner's authorisation, distributed key generation, payload."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from dan_async._values import to_hex
from dan_async.config import Timeouts
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.errors import InvalidFieldError
from dan_async.events import RequestLog
from dan_async.jobs.keeping import KeptKeygen, SessionKeeper
from dan_async.network import KeygenReport
from dan_async.request import DEFAULT_DURATION_S, HardcodedValues, SmartAccount, prepare
from dan_async.session import DanSessionKeyPayload
from dan_async.types import Clock, KeyAlgorithm
from dan_async.wallets.base import Wallet

if TYPE_CHECKING:
    from dan_async.network import AuthModule, Network

_log = logging.getLogger(__name__)

#: Told how a key generation went.
OnReport = Callable[[KeygenReport], None]


async def generate_session_key(
    network: Network,
    *,
    wallet: Wallet | None = None,
    auth: AuthModule | None = None,
    smart_account_client: SmartAccount | None = None,
    browser_wallet: Wallet | None = None,
    hardcoded_values: Mapping[str, Any] | HardcodedValues | None = None,
    duration: int = DEFAULT_DURATION_S,
    chain_id: int | None = None,
    threshold: int | None = None,
    parties_number: int | None = None,
    min_parties: int | None = None,
    permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
    key_label: str | None = None,
    eph_alg: KeyAlgorithm | None = None,
    ephemeral_key: EphemeralKey | str | None = None,
    eph_id: str | None = None,
    timeout: float | None = None,
    allow_resign: bool = False,
    on_report: OnReport | None = None,
    reference: str | None = None,
    keeper: SessionKeeper | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock = time.time,
) -> DanSessionKeyPayload:
    """Run the job over *network*; ``DanClient.generate_session_key`` has the full description."""
    limits = timeouts or Timeouts()
    _check_options(allow_resign, on_report)
    request = await prepare(
        network,
        timeouts=limits,
        clock=clock,
        wallet=wallet,
        auth=auth,
        smart_account_client=smart_account_client,
        browser_wallet=browser_wallet,
        hardcoded_values=hardcoded_values,
        duration=duration,
        chain_id=chain_id,
        threshold=threshold,
        parties_number=parties_number,
        min_parties=min_parties,
        permissions=permissions,
        key_label=key_label,
        eph_alg=eph_alg,
        ephemeral_key=ephemeral_key,
        eph_id=eph_id,
        timeout=timeout,
        allow_resign=allow_resign,
    )
    key = request.ephemeral_key
    started = time.monotonic()
    try:
        async with KeptKeygen(keeper, request, reference) as kept:
            deadline = Deadline(request.timeout_s)
            async with deadline.enforced("making the key", request_id=request.keygen.request_id):
                report = await network.keygen(request.keygen, kept.auth, deadline=deadline)
            payload = DanSessionKeyPayload(
                session_key_eoa=public_key_to_address(report.public_key),
                mpc_key_id=report.key_id,
                hex_eph_sk_without_0x=key.to_hex(),
                parties_number=report.threshold.n,
                threshold=report.threshold.t,
                eoa_address=request.owner,
                chain_id=request.chain_id,
                public_key=to_hex(report.public_key),
                eph_id=request.keygen.claim.eph_id,
                eph_alg=key.algorithm,
                expires_at=request.keygen.claim.expiry,
            )
            await kept.finish(payload)
    finally:
        if key is not ephemeral_key:  # ours: the payload has its own copy, or nobody needs it any more
            key.wipe()
    if _log.isEnabledFor(logging.INFO):
        RequestLog(_log, report.request_id).info("session key %s made", payload.session_key_eoa)
    if on_report is not None:
        _tell(on_report, report, time.monotonic() - started)
    return payload


def _check_options(allow_resign: object, on_report: object) -> None:
    if not isinstance(allow_resign, bool):
        raise InvalidFieldError("allow_resign", f"must be True or False, not {type(allow_resign).__name__}")
    if on_report is not None and (not callable(on_report) or inspect.iscoroutinefunction(on_report)):
        raise InvalidFieldError("on_report", "must be a function that takes a KeygenReport and is not async")


def _tell(on_report: OnReport, report: KeygenReport, total_s: float) -> None:
    try:
        on_report(evolve(report, timings=evolve(report.timings, total_s=total_s)))
    except Exception:  # noqa: BLE001 - the key is made: a listener's bug must not lose it
        RequestLog(_log, report.request_id).exception("on_report failed; the session key is returned")

"""sign_message: message and session -> one signature that recovers to the session's address."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dan_async._hex import to_hex
from dan_async._tasks import Deadline
from dan_async.config import Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import EphemeralKeyRefusedError, InvalidFieldError, SessionExpiredError
from dan_async.jobs.message_request import Message, chain_of, message_request
from dan_async.models._fields import check_seconds
from dan_async.models.claim import EphemeralClaim
from dan_async.models.request_params import DEFAULT_DURATION_S
from dan_async.models.session import DanModuleInfo
from dan_async.networks.signing import SigningOrder
from dan_async.types import Clock, Hex, KeyAlgorithm
from dan_async.wire.sign_digest import sign_request_digest
from dan_async.wire.sign_request import SignRequest

if TYPE_CHECKING:
    from dan_async.networks.base import Network

__all__ = ["sign_message"]

#: Stands for the name that the nodes give to keys of gateway revision 0.1, which have none: the public key.
_BY_KEY = ""

_log = logging.getLogger(__name__)


async def sign_message(
    network: Network,
    message: Message,
    session: DanModuleInfo | Mapping[str, Any],
    *,
    request_type: str | None = None,
    timeout: float | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock = time.time,
) -> Hex:
    """Run the job over *network*; ``DanClient.sign_message`` has the full description."""
    info = session_of(session)
    request = message_request(message, request_type)
    digest = sign_request_digest(request)
    _refuse_other_chain(request, info)
    limits = timeouts or Timeouts()
    deadline = Deadline(limits.total_s if timeout is None else check_seconds("timeout", timeout))
    _refuse_if_expired(info, clock)
    signature = await _signed(network, info, request, digest, deadline=deadline, clock=clock)
    _log.debug("key %s signed a message of type %s", info.mpc_key_id, request.request_type)
    return signature


async def _signed(
    network: Network,
    info: DanModuleInfo,
    request: SignRequest,
    digest: bytes,
    *,
    deadline: Deadline,
    clock: Clock,
) -> Hex:
    refusal: EphemeralKeyRefusedError | None = None
    for algorithm, eph_id in _names(info, network.default_eph_alg):
        with EphemeralKey.from_hex(
            info.hex_eph_sk_without_0x, algorithm, field="hex_eph_sk_without_0x"
        ) as key:
            order = SigningOrder(
                key_id=info.mpc_key_id,
                address=info.session_key_eoa,
                t=info.threshold or network.default_threshold.t,
                claim=EphemeralClaim(
                    eph_id=_name_of(key, eph_id),
                    eph_pk=key.public_key,
                    # The network knows when it ends; a session that does not say gets what the TypeScript clients send.
                    expiry=info.expires_at or math.floor(clock()) + DEFAULT_DURATION_S,
                    sign_alg=key.algorithm,
                ),
                owner_id=info.eoa_address,
                requests=(request,),
                digests=(digest,),
            )
            try:
                async with deadline.enforced("signing"):
                    signatures = await network.signgen(order, key, deadline=deadline)
            except EphemeralKeyRefusedError as error:
                refusal = refusal or error
            else:
                return order.check(signatures)[0]
    assert refusal is not None
    raise refusal


def _names(info: DanModuleInfo, usual: KeyAlgorithm) -> Iterator[tuple[KeyAlgorithm, str | None]]:
    """
    Give the algorithms and names under which the nodes may know the ephemeral key, the likely one first.

    The seed's seven fields say neither; then it may be an ed25519 key of a gateway as well. Revision 0.1 has no names for
    ephemeral keys: there the nodes know it by its public key.
    """
    yield info.eph_alg or usual, info.eph_id
    if info.eph_alg is None and usual != "ed25519":
        yield "ed25519", info.eph_id
    if info.eph_alg in (None, "ed25519"):
        yield "ed25519", _BY_KEY


def _name_of(key: EphemeralKey, eph_id: str | None) -> str:
    if eph_id is None:
        return key.default_id
    return to_hex(key.public_key) if eph_id == _BY_KEY else eph_id


def session_of(session: object) -> DanModuleInfo:
    """
    Take a session in any of its forms.

    Raises:
        InvalidFieldError: It is none.
    """
    if isinstance(session, DanModuleInfo):
        return session
    if isinstance(session, Mapping):
        return DanModuleInfo.from_dict(session)
    raise InvalidFieldError("session", f"must be a session payload or its dict, not {type(session).__name__}")


def _refuse_if_expired(info: DanModuleInfo, clock: Clock) -> None:
    if info.expires_at is not None and info.expires_at <= clock():
        raise SessionExpiredError(
            "the session's expiry has passed, so the network would refuse it",
            hint="Nothing was sent. Make a new session, add an ephemeral key to this one's key, or check the clock",
        )


def _refuse_other_chain(request: SignRequest, info: DanModuleInfo) -> None:
    chain = chain_of(request)
    if chain is not None and info.chain_id is not None and chain != info.chain_id:
        raise InvalidFieldError(
            "chainId",
            f"is {chain}, and the session is for chain {info.chain_id}",
            hint="Nothing was sent. Check which chain the user operation is for",
        )

"""sign_message: message and session -> one signature that recovers to the session's address."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from dan_async._json import dump
from dan_async._values import (
    MAX_SAFE_INT,
    check_int,
    check_seconds,
    from_hex,
    member_of,
    number_of,
    to_hex,
    utf8,
)
from dan_async.config import Timeouts
from dan_async.crypto.address import parse_address
from dan_async.crypto.eip712 import SpelledValue, typed_data_digest
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.hashes import takes_long
from dan_async.deadline import Deadline
from dan_async.errors import EphemeralKeyRefusedError, InvalidFieldError, SessionExpiredError
from dan_async.network import Network, SigningOrder, known_skew, network_time
from dan_async.protocols.setups import EphemeralClaim
from dan_async.protocols.sign_request import RequestType, SignRequest, sign_request_digest
from dan_async.request import DEFAULT_DURATION_S
from dan_async.session import DanModuleInfo, session_of
from dan_async.types import Clock, Hex, KeyAlgorithm, TimeSpan, TypedData

if TYPE_CHECKING:
    from dan_async.user_operation import UserOperation

#: The messages that ``sign_message`` takes.
Message: TypeAlias = str | bytes | bytearray | memoryview | TypedData

_MOST_BITS = 256
_DEEPEST = 60
_DIGEST_LENGTH = 32

#: Stands for the name that the nodes give to keys of gateway revision 0.1, which have none: the public key.
_BY_KEY = ""

_read_chain = number_of(256)

_log = logging.getLogger(__name__)


async def sign_message(
    network: Network,
    message: Message,
    session: DanModuleInfo | Mapping[str, Any],
    *,
    request_type: str | None = None,
    chain_id: int | None = None,
    entry_point: str | None = None,
    timeout: TimeSpan | None = None,
    timeouts: Timeouts | None = None,
    clock: Clock = time.time,
    deadline: Deadline | None = None,
) -> Hex:
    """
    Run the job over *network*; ``DanClient.sign_message`` has the full description.

    *network* is any open network, *timeouts* are the limits, *clock* is the wall clock in Unix seconds, *deadline* the
    job's if it has begun already. The other arguments, and the errors, are those of ``DanClient.sign_message``.

    Returns:
        ``0x`` and 130 hex digits: r, s, v.
    """
    info = session if isinstance(session, DanModuleInfo) else session_of(session)
    asked = (message, info, request_type, chain_id, entry_point)
    request, digest = await asyncio.to_thread(_read, *asked) if takes_long(message) else _read(*asked)
    if deadline is None:
        limits = timeouts or Timeouts()
        deadline = Deadline(limits.total_s if timeout is None else check_seconds("timeout", timeout))
    _refuse_if_expired(info, network, clock)
    refusal: EphemeralKeyRefusedError | None = None
    for algorithm, eph_id in _names(info, network.default_eph_alg):
        with EphemeralKey.from_hex(
            info.hex_eph_sk_without_0x, algorithm, field="hex_eph_sk_without_0x"
        ) as key:
            order = SigningOrder(
                key_id=info.mpc_key_id,
                address=parse_address("session_key_eoa", info.session_key_eoa),
                t=info.threshold or network.default_threshold.t,
                claim=EphemeralClaim(
                    eph_id=_name_of(key, eph_id),
                    eph_pk=key.public_key,
                    # The network knows when it ends; without an expiry, this is the one that the TypeScript clients send.
                    expiry=info.expires_at
                    or math.floor(network_time(network, clock, info.threshold)) + DEFAULT_DURATION_S,
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
                continue
        signature = order.check(signatures)[0]
        _log.debug("key %s signed a message of type %s", info.mpc_key_id, request.request_type)
        return signature
    assert refusal is not None
    raise refusal


def _read(
    message: Message,
    info: DanModuleInfo,
    request_type: str | None,
    chain_id: int | None,
    entry_point: str | None,
) -> tuple[SignRequest, bytes]:
    request = message_request(message, request_type)
    digest = sign_request_digest(request)
    _refuse_other_place(request, info, chain_id, entry_point)
    return request, digest


def _names(info: DanModuleInfo, usual: KeyAlgorithm) -> tuple[tuple[KeyAlgorithm, str | None], ...]:
    """
    Return the algorithms and names under which the nodes may know the ephemeral key, the likely one first.

    The seven fields of the TypeScript clients say neither; then it may be an ed25519 key of a gateway as well. Revision
    0.1 has no names for ephemeral keys: there the nodes know it by its public key.
    """
    names: tuple[tuple[KeyAlgorithm, str | None], ...] = ((info.eph_alg or usual, info.eph_id),)
    if info.eph_alg is None and usual != "ed25519":
        names += (("ed25519", info.eph_id),)
    if info.eph_alg in (None, "ed25519"):
        names += (("ed25519", _BY_KEY),)
    return names


def _name_of(key: EphemeralKey, eph_id: str | None) -> str:
    if eph_id is None:
        return key.default_id
    return to_hex(key.public_key) if eph_id == _BY_KEY else eph_id


def _refuse_if_expired(info: DanModuleInfo, network: Network, clock: Clock) -> None:
    if info.expires_at is None:
        return
    skew = known_skew(network, info.threshold)
    if info.expires_at <= clock() + (0.0 if skew is None else skew.correction_s):
        hint = (
            "Nothing was sent. Make a new session, add an ephemeral key to this one's key, or check the clock"
        )
        raise SessionExpiredError(
            "the session's expiry has passed, so the network would refuse it",
            hint=hint if skew is None else f"{skew}. {hint}",
        )


def _refuse_other_place(
    request: SignRequest, info: DanModuleInfo, chain_id: int | None, entry_point: str | None
) -> None:
    """Refuse a message whose chain or entry point is neither the session's nor named."""
    chain = None
    if request.request_type is RequestType.EIP712:
        chain = request.content["domain"].get("chainId")
    elif request.request_type is RequestType.USER_OPERATION:
        from dan_async.user_operation import check_entry_point

        found = request.content
        chain = found["chainId"]
        check_entry_point(found["entryPointAddress"], found["entryPointVersion"], named=entry_point)
    if chain is not None or chain_id is not None:
        check_chain(chain, info, chain_id)


def check_chain(found: object, session: DanModuleInfo, named: int | None) -> None:
    """
    Refuse a message for another chain than *named*, or than the session's if that is None.

    *found* is the message's own chain: None if it names none, and 0 if it holds on every chain.
    """
    expected = session.chain_id if named is None else check_int("chain_id", named, least=0, most=2**256 - 1)
    if found is None:
        return
    chain = _read_chain("chainId", found)
    if chain != expected and (expected is not None or chain == 0):
        wanted = f"the session is for {session.chain_id or 'one of them'}"
        if named is not None:
            wanted = f"chain {named} is asked for"
        raise InvalidFieldError(
            "chainId",
            f"is {chain or '0, which is every chain'}, and {wanted}",
            hint=f"Nothing was sent. If that is intended, pass chain_id={chain}",
        )


# --- the message ------------------------------------------------------------------------------------------------------


def message_request(message: Message, request_type: str | None = None) -> SignRequest:
    """Make the request that a message stands for; its form says of which type it is, unless *request_type* does."""
    kind = _kind_of(message, request_type)
    if kind is RequestType.EDDSA:
        raise InvalidFieldError(
            "request_type", "must not be eddsa: session keys are secp256k1 keys", hint="Sign it as EIP191"
        )
    if kind is RequestType.EIP191:
        text = to_hex(_plain_bytes(message))
    elif kind is RequestType.RAW_BYTES:
        text = to_hex(_digest(message))
    else:
        value = _json_value(message, kind)
        text = value if isinstance(value, str) else dump(value)
    request = SignRequest(request_type=kind, message=text, transaction_id=secrets.token_hex(16))
    if kind is RequestType.EIP712 and isinstance(value, dict):
        typed_data_digest(value)  # the text no longer shows which values were bytes or numbers
    return request


def _kind_of(message: object, request_type: object) -> RequestType:
    if request_type is not None:
        return member_of(RequestType, "request_type", request_type, hint="Or leave it out")
    if isinstance(message, str | bytes | bytearray | memoryview):
        return RequestType.EIP191
    if isinstance(message, Mapping):
        return RequestType.USER_OPERATION if "userOperation" in message else RequestType.EIP712
    if _is_user_operation(message):
        raise InvalidFieldError(
            "message",
            "is a user operation without its entry point and chain",
            hint="Use sign_user_operation(), or give a mapping with userOperation, entryPointVersion, entryPointAddress "
            "and chainId",
        )
    raise InvalidFieldError(
        "message", f"must be text, bytes, typed data or a user operation, not {type(message).__name__}"
    )


def _is_user_operation(value: object) -> TypeGuard[UserOperation]:
    from dan_async.user_operation import UserOperation

    return isinstance(value, UserOperation)


def _plain_bytes(message: object) -> bytes:
    if isinstance(message, str):
        return utf8("message", message, hint="Give it as bytes")
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    raise InvalidFieldError("message", f"must be text or bytes, not {type(message).__name__}")


def _digest(message: object) -> bytes:
    raw = from_hex(message, field="message") if isinstance(message, str) else _plain_bytes(message)
    if len(raw) != _DIGEST_LENGTH:
        raise InvalidFieldError("message", f"must hold {_DIGEST_LENGTH} bytes, not {len(raw)}")
    return raw


def _json_value(message: object, kind: RequestType) -> str | dict[str, Any]:
    if isinstance(message, str):
        return message
    if not isinstance(message, Mapping):
        raise InvalidFieldError(
            "message", f"must be a mapping or JSON text for {kind}, not {type(message).__name__}"
        )
    ready: dict[str, Any] = _json_ready(message, 0)
    return ready


def _json_ready(value: Any, depth: int) -> Any:
    """Return the value as the wire's JSON carries it: bytes as 0x hex, large numbers as decimal text."""
    if depth > _DEEPEST:
        raise InvalidFieldError("message", "is nested too deeply")
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise InvalidFieldError("message", "has a member whose name is not text")
        return {name: _json_ready(entry, depth + 1) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(entry, depth + 1) for entry in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return SpelledValue(to_hex(bytes(value)))
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        if abs(value) <= MAX_SAFE_INT:
            return value
        if value.bit_length() > _MOST_BITS:
            raise InvalidFieldError("message", f"has a number of more than {_MOST_BITS} bits")
        return SpelledValue(value)
    if _is_user_operation(value):
        return value.to_dict()
    raise InvalidFieldError("message", f"has a value of type {type(value).__name__}, which cannot be signed")

"""
What a node checks before it takes part in a key generation. Pure: the time is an argument.

A node trusts neither the client nor a gateway in between. Each refusal has a code of its own (docs/node-protocol.md).
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from attrs import frozen

from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.signature import recover_address
from dan_async.devnet.rpc_errors import RefusalError, invalid_params
from dan_async.errors import DanError, InvalidFieldError, ProtocolError
from dan_async.models._fields import MAX_LIFETIME_S, MAX_PERMISSIONS_LENGTH, check_address, check_text
from dan_async.models.claim import EphemeralClaim
from dan_async.models.setup import KeygenSetup
from dan_async.models.threshold import Threshold
from dan_async.types import Json, OperatorAddress
from dan_async.wire.codec import Operation, Revision, decode_setup, owner_claim, owner_typed_data
from dan_async.wire.node_1 import Code, KeygenParams, decode_keygen, final_challenge, setup_hash

__all__ = ["OPERATION", "CheckedKeygen", "check_owner", "check_request", "read_keygen"]

OPERATION = str(Operation.KEYGEN)

#: How far a client's clock may be ahead when it asks for the longest life.
_SKEW_S = 60

#: Members that are there and wrong have codes of their own.
_CODES = {
    "participants": Code.WRONG_PARTICIPANTS,
    "revision": Code.UNSUPPORTED,
    "method": Code.UNSUPPORTED,
}


@frozen(kw_only=True)
class CheckedKeygen:
    """
    A request in which all is well but for what is still to be checked: the nonce, and the owner's signature.

    Args:
        params: The request as it came.
        setup: Its setup.
        setup_digest: The setup's hash.
        threshold: t and n.
        claim: The ephemeral key that the owner vouches for.
        nonce: The nonce that this node gave out for it.
        challenge: The final challenge, 32 bytes.
    """

    params: KeygenParams
    setup: KeygenSetup
    setup_digest: bytes
    threshold: Threshold
    claim: EphemeralClaim
    nonce: bytes
    challenge: bytes


def read_keygen(value: Json) -> KeygenParams:
    """
    Read the parameters of ``dan_keygen``.

    Raises:
        RefusalError: ``INVALID_PARAMS``, ``WRONG_PARTICIPANTS`` or ``UNSUPPORTED``.
    """
    try:
        return decode_keygen(value)
    except InvalidFieldError as error:
        code = _CODES.get(error.field)
        if code is None or error.field not in _members_of(value):
            raise invalid_params(error) from error
        raise RefusalError(code, error.message) from error


def _members_of(value: Json) -> set[str]:
    authentication = value.get("userAuthentication")
    return {*value, *(authentication if isinstance(authentication, dict) else ())}


def check_request(
    params: KeygenParams, *, operator: OperatorAddress, roster: frozenset[OperatorAddress], now: float
) -> CheckedKeygen:
    """
    Check everything but the nonce and the owner's signature.

    Args:
        params: The request.
        operator: This node.
        roster: The other nodes that this node knows.
        now: The time, in Unix seconds.

    Raises:
        RefusalError: ``INVALID_PARAMS``, ``UNSUPPORTED``, ``WRONG_PARTICIPANTS`` or ``CLAIM_EXPIRED``.
    """
    if params.user_authentication.method != "eoa":
        raise RefusalError(Code.UNSUPPORTED, "a key generation is authorised with method 'eoa'")
    setup = _read_setup(params)
    threshold = _read_threshold(setup)
    _check_participants(params, threshold, operator, roster)
    claim = _read_claim(setup, params)
    _check_expiry(claim, now)
    _check_permissions(setup.permissions)
    digest = setup_hash(operation=OPERATION, revision=params.revision, setup=params.setup)
    return CheckedKeygen(
        params=params,
        setup=setup,
        setup_digest=digest,
        threshold=threshold,
        claim=claim,
        nonce=params.nonces[params.participants.index(operator)],
        challenge=final_challenge(
            operation=OPERATION,
            request_id=params.request_id,
            setup_digest=digest,
            participants=params.participants,
            nonces=params.nonces,
        ),
    )


def check_owner(checked: CheckedKeygen) -> None:
    """
    Check that the owner signed this very request.

    Raises:
        RefusalError: ``WRONG_OWNER``, or ``INVALID_PARAMS`` if the owner is no address.
    """
    authentication = checked.params.user_authentication
    try:
        owner = check_address("id", authentication.id)
    except InvalidFieldError as error:
        raise invalid_params(error) from error
    typed_data = owner_typed_data(checked.params.revision, OPERATION, checked.setup, checked.challenge.hex())
    try:
        signer = recover_address(typed_data_digest(typed_data), authentication.signature)
    except InvalidFieldError as error:
        raise RefusalError(Code.WRONG_OWNER, f"the owner's {error.message}") from error
    if signer != owner:
        raise RefusalError(Code.WRONG_OWNER, "the signature is not the owner's over this request")


def _read_setup(params: KeygenParams) -> KeygenSetup:
    try:
        setup = decode_setup(params.revision, OPERATION, params.setup)
    except (InvalidFieldError, ProtocolError) as error:
        _refuse_field("setup", error)
    assert isinstance(setup, KeygenSetup)
    return setup


def _read_threshold(setup: KeygenSetup) -> Threshold:
    if setup.sign_alg != "secp256k1":
        raise RefusalError(Code.UNSUPPORTED, "this node makes secp256k1 keys only")
    try:
        return Threshold(setup.t, setup.n)
    except InvalidFieldError as error:
        raise RefusalError(Code.UNSUPPORTED, error.message) from error


def _check_participants(
    params: KeygenParams, threshold: Threshold, operator: OperatorAddress, roster: frozenset[OperatorAddress]
) -> None:
    if len(params.participants) != threshold.n:
        problem = f"there are {len(params.participants)} participants, and the setup says {threshold.n}"
    elif operator not in params.participants:
        problem = "this node is not a participant"
    elif not roster.issuperset(set(params.participants) - {operator}):
        problem = "a participant is not known to this node"
    else:
        return
    raise RefusalError(Code.WRONG_PARTICIPANTS, problem)


def _read_claim(setup: KeygenSetup, params: KeygenParams) -> EphemeralClaim:
    authentication = params.user_authentication
    if params.revision != Revision.V0_1 and authentication.credentials != setup.claim_text:
        _refuse_field(
            "credentials", InvalidFieldError("credentials", "must be the setup's claim, to the letter")
        )
    try:
        return owner_claim(params.revision, setup, authentication)
    except (InvalidFieldError, ProtocolError) as error:
        _refuse_field("credentials", error)


def _check_expiry(claim: EphemeralClaim, now: float) -> None:
    if claim.expiry <= now:
        raise RefusalError(Code.CLAIM_EXPIRED, "the ephemeral claim has expired")
    if claim.expiry > now + MAX_LIFETIME_S + _SKEW_S:
        raise RefusalError(Code.CLAIM_EXPIRED, "the ephemeral claim lives longer than 365 days")


def _check_permissions(text: str | None) -> None:
    if text is None:
        return
    try:
        check_text("permissions", text, most=MAX_PERMISSIONS_LENGTH)
        parsed = json.loads(text, parse_constant=_refuse_constant)
    except InvalidFieldError as error:
        raise invalid_params(error) from error
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict | list):
        raise invalid_params(InvalidFieldError("permissions", "must be a JSON object or list"))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _refuse_field(field: str, error: DanError) -> NoReturn:
    raise RefusalError(Code.INVALID_PARAMS, f"{field}: {error.message}", data={"field": field}) from error

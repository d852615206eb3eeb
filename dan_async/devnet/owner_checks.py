"""
What a node checks of every request that an owner authorises, whatever it is for. Pure: the time is an argument.

A node trusts neither the client nor a gateway in between. Each refusal has a code of its own (docs/node-protocol.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from dan_async.crypto.address import parse_address
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.signature import recover_address
from dan_async.devnet.passkey_checks import check_assertion
from dan_async.devnet.passkey_registry import PasskeyRegistry
from dan_async.devnet.rpc_errors import RefusalError, invalid_params
from dan_async.errors import DanError, InvalidFieldError, NodeCode, ProtocolError
from dan_async.models._fields import MAX_LIFETIME_S
from dan_async.models.authentication import UserAuthentication
from dan_async.models.claim import EphemeralClaim
from dan_async.types import Json, OperatorAddress
from dan_async.wire.codec import (
    Revision,
    Setup,
    decode_setup,
    oneshot_challenge,
    owner_claim,
    owner_typed_data,
)
from dan_async.wire.node_1 import (
    KeygenParams,
    decode_keygen,
    final_challenge,
    oneshot_request_id,
    setup_hash,
    tagged_hash,
)
from dan_async.wire.revisions import check_method

__all__ = [
    "check_claim",
    "check_signature",
    "is_owner",
    "own_nonce",
    "owner_name",
    "read_request",
    "read_setup",
    "refuse_field",
    "session_id_of",
    "signed_challenge",
]

#: How far a client's clock may be ahead when it asks for the longest life.
_SKEW_S = 60

#: Members that are there and wrong have codes of their own.
_CODES = {
    "participants": NodeCode.WRONG_PARTICIPANTS,
    "revision": NodeCode.UNSUPPORTED,
    "method": NodeCode.UNSUPPORTED,
}


def read_request(value: Json) -> KeygenParams:
    """
    Read the parameters of a request that an owner authorises.

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


def read_setup(params: KeygenParams, operation: str) -> Setup:
    """
    Read the request's setup.

    Raises:
        RefusalError: ``INVALID_PARAMS``, or ``UNSUPPORTED`` if neither the owner's wallet nor its passkey authorises it.
    """
    try:
        check_method(params.revision, operation, params.user_authentication.method)
        if params.user_authentication.method == "ephemeral":
            raise InvalidFieldError("method", "must be eoa or passkey")
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, error.message) from error
    try:
        return decode_setup(params.revision, operation, params.setup)
    except (InvalidFieldError, ProtocolError) as error:
        refuse_field("setup", error)


def own_nonce(params: KeygenParams, operator: OperatorAddress) -> bytes | None:
    """
    Give the nonce that this node is said to have given out; None for a one-shot request.

    Raises:
        RefusalError: ``WRONG_PARTICIPANTS`` if this node is not a participant.
    """
    if operator not in params.participants:
        raise RefusalError(NodeCode.WRONG_PARTICIPANTS, "this node is not a participant")
    return params.nonces[params.participants.index(operator)] if params.nonces else None


def signed_challenge(params: KeygenParams, operation: str) -> str:
    """
    Give the challenge that the owner must have signed: 64 hex digits.

    Raises:
        RefusalError: ``CHALLENGE_MISMATCH`` if it is a one-shot request under another id than its own, or in a revision
            that has none.
    """
    digest = setup_hash(operation=operation, revision=params.revision, setup=params.setup)
    if params.nonces:
        return final_challenge(
            operation=operation,
            request_id=params.request_id,
            setup_digest=digest,
            participants=params.participants,
            nonces=params.nonces,
        ).hex()
    if params.revision != Revision.V1 or params.request_id != oneshot_request_id(digest):
        raise RefusalError(
            NodeCode.CHALLENGE_MISMATCH, "a request without nonces has the id that its setup gives it"
        )
    return oneshot_challenge(params.setup)


def session_id_of(challenge: str, participants: Sequence[OperatorAddress]) -> bytes:
    """Give the id under which the participants work together: no other set of them can have the same."""
    members = [bytes.fromhex(operator[2:]) for operator in participants]
    return tagged_hash("dan-node/1 session", bytes.fromhex(challenge), *members)


def check_claim(params: KeygenParams, setup: Setup, now: float) -> EphemeralClaim:
    """
    Give the ephemeral key that the owner vouches for.

    Raises:
        RefusalError: ``INVALID_PARAMS`` if setup and credentials do not agree, ``CLAIM_EXPIRED`` if it is over or lives
            longer than allowed.
    """
    authentication = params.user_authentication
    text = getattr(setup, "claim_text", None)
    if params.revision != Revision.V0_1 and authentication.credentials != text:
        refuse_field(
            "credentials", InvalidFieldError("credentials", "must be the setup's claim, to the letter")
        )
    try:
        claim = owner_claim(params.revision, setup, authentication)
    except (InvalidFieldError, ProtocolError) as error:
        refuse_field("credentials", error)
    if claim.expiry <= now:
        raise RefusalError(NodeCode.CLAIM_EXPIRED, "the ephemeral claim has expired")
    if claim.expiry > now + MAX_LIFETIME_S + _SKEW_S:
        raise RefusalError(NodeCode.CLAIM_EXPIRED, "the ephemeral claim lives longer than 365 days")
    return claim


def owner_name(authentication: UserAuthentication) -> str:
    """
    Give the name under which a node knows an owner.

    A credential id is base64url, and whoever makes it chooses it: without the prefix, one could spell somebody's address.
    """
    passkey = authentication.method == "passkey"
    return f"passkey:{authentication.id}" if passkey else authentication.id


def is_owner(name: str, authentication: UserAuthentication) -> bool:
    """Whether somebody says to be the owner of that name. Addresses have no case, credential ids do."""
    if authentication.method == "passkey":
        return name == owner_name(authentication)
    return name.lower() == authentication.id.lower()


def check_signature(
    params: KeygenParams,
    operation: str,
    setup: Setup,
    challenge: str,
    passkeys: PasskeyRegistry | None = None,
) -> None:
    """
    Check that the owner signed this very request.

    Args:
        params: The request.
        operation: What it is for.
        setup: Its setup.
        challenge: What the owner must have signed: 64 hex digits.
        passkeys: The passkeys that the node knows; a passkey's counter is noted there.

    Raises:
        RefusalError: ``WRONG_OWNER``, or ``INVALID_PARAMS`` if the owner is no address.
    """
    authentication = params.user_authentication
    if authentication.method == "passkey":
        if passkeys is None:
            raise RefusalError(NodeCode.UNSUPPORTED, "this node does not do passkeys")
        check_assertion(authentication, challenge, passkeys)
        return
    try:
        owner = parse_address("id", authentication.id)
    except InvalidFieldError as error:
        raise invalid_params(error) from error
    typed_data = owner_typed_data(params.revision, operation, setup, challenge)
    try:
        signer = recover_address(typed_data_digest(typed_data), authentication.signature)
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.WRONG_OWNER, f"the owner's {error.message}") from error
    if signer != owner:
        raise RefusalError(NodeCode.WRONG_OWNER, "the signature is not the owner's over this request")


def refuse_field(field: str, error: DanError) -> NoReturn:
    """Refuse a request for one member, which ``data.field`` names."""
    raise RefusalError(NodeCode.INVALID_PARAMS, f"{field}: {error.message}", data={"field": field}) from error

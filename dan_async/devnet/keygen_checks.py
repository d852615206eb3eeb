"""What a node checks before it takes part in a key generation. Pure: the time is an argument."""

from __future__ import annotations

from attrs import frozen

from dan_async.devnet.owner_checks import (
    check_claim,
    check_signature,
    own_nonce,
    read_request,
    read_setup,
    session_id_of,
    signed_challenge,
)
from dan_async.devnet.passkey_registry import PasskeyRegistry
from dan_async.devnet.rpc_errors import RefusalError, invalid_params
from dan_async.errors import InvalidFieldError, NodeCode
from dan_async.models.claim import EphemeralClaim
from dan_async.models.permissions import permissions_text
from dan_async.models.setup import KeygenSetup
from dan_async.models.threshold import Threshold
from dan_async.types import OperatorAddress
from dan_async.wire.codec import Operation
from dan_async.wire.node_1 import KeygenParams, setup_hash

__all__ = ["OPERATION", "CheckedKeygen", "check_owner", "check_request", "read_keygen"]

OPERATION = str(Operation.KEYGEN)

#: The parameters have the form of every request that an owner authorises.
read_keygen = read_request


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
        nonce: The nonce that this node gave out for it; None for a one-shot request.
        challenge: What the owner must have signed: 64 hex digits.
        session_id: What the parties call the work, 32 bytes.
    """

    params: KeygenParams
    setup: KeygenSetup
    setup_digest: bytes
    threshold: Threshold
    claim: EphemeralClaim
    nonce: bytes | None
    challenge: str
    session_id: bytes


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
        RefusalError: ``INVALID_PARAMS``, ``UNSUPPORTED``, ``WRONG_PARTICIPANTS``, ``CLAIM_EXPIRED`` or
            ``CHALLENGE_MISMATCH``.
    """
    setup = read_setup(params, OPERATION)
    assert isinstance(setup, KeygenSetup)
    threshold = _read_threshold(setup)
    _check_participants(params, threshold, operator, roster)
    claim = check_claim(params, setup, now)
    _check_permissions(setup.permissions)
    challenge = signed_challenge(params, OPERATION)
    return CheckedKeygen(
        params=params,
        setup=setup,
        setup_digest=setup_hash(operation=OPERATION, revision=params.revision, setup=params.setup),
        threshold=threshold,
        claim=claim,
        nonce=own_nonce(params, operator),
        challenge=challenge,
        session_id=session_id_of(challenge, params.participants),
    )


def check_owner(checked: CheckedKeygen, passkeys: PasskeyRegistry | None = None) -> None:
    """
    Check that the owner signed this very request.

    Args:
        checked: The request.
        passkeys: The passkeys that the node knows.

    Raises:
        RefusalError: ``WRONG_OWNER``, or ``INVALID_PARAMS`` if the owner is no address.
    """
    check_signature(checked.params, OPERATION, checked.setup, checked.challenge, passkeys)


def _read_threshold(setup: KeygenSetup) -> Threshold:
    if setup.sign_alg != "secp256k1":
        raise RefusalError(NodeCode.UNSUPPORTED, "this node makes secp256k1 keys only")
    try:
        return Threshold(setup.t, setup.n)
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, error.message) from error


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
    raise RefusalError(NodeCode.WRONG_PARTICIPANTS, problem)


def _check_permissions(text: str | None) -> None:
    try:
        permissions_text(text)
    except InvalidFieldError as error:
        raise invalid_params(error) from error

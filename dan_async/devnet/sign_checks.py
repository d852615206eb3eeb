"""
What a node checks before it makes a presignature or signs. Pure: the time is an argument.

A node trusts neither the client nor a gateway in between. Each refusal has a code of its own (docs/node-protocol.md).
"""

from __future__ import annotations

from attrs import frozen

from dan_async.crypto.ephemeral_signature import is_signed_by
from dan_async.devnet.ephemeral_registry import RegisteredKey
from dan_async.devnet.key_record import KeyRecord
from dan_async.devnet.owner_checks import is_owner, refuse_field
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.errors import InvalidFieldError, NodeCode, ProtocolError
from dan_async.models.authentication import UserAuthentication
from dan_async.models.claim import EphemeralClaim
from dan_async.models.setup import SigngenSetup
from dan_async.types import OperatorAddress
from dan_async.wire.codec import (
    Revision,
    SignRequest,
    decode_setup,
    ephemeral_payload,
    oneshot_challenge,
    read_ephemeral_proof,
    sign_requests,
)
from dan_async.wire.node_1 import final_challenge, oneshot_request_id, setup_hash
from dan_async.wire.node_signing import OPERATION, PresignParams, SignParams, presign_digest, sign_challenge
from dan_async.wire.revisions import check_method

__all__ = [
    "ReadSign",
    "check_presign_key",
    "check_presign_time",
    "check_signers",
    "check_signing_key",
    "read_sign",
    "signed_challenge",
]

#: How far ahead a request for a presignature may end, in seconds.
_LONGEST_PRESIGN_S = 300


@frozen(kw_only=True)
class ReadSign:
    """
    A request for signatures whose form is right; nothing else was checked.

    Args:
        params: The request as it came.
        setup: Its setup.
        setup_digest: The setup's hash.
        requests: What is to be signed, in the order of the messages.
        claim: The ephemeral key that says to have asked. Its expiry means nothing.
        signature: Its signature, 0x hex.
    """

    params: SignParams
    setup: SigngenSetup
    setup_digest: bytes
    requests: tuple[SignRequest, ...]
    claim: EphemeralClaim
    signature: str


def read_sign(params: SignParams) -> ReadSign:
    """
    Take a request apart.

    Raises:
        RefusalError: ``INVALID_PARAMS``, or ``UNSUPPORTED`` for another algorithm or way to authorise.
    """
    auth = params.user_authentication
    try:
        check_method(params.revision, OPERATION, auth.method)
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, error.message) from error
    try:
        setup = decode_setup(params.revision, OPERATION, params.setup)
        assert isinstance(setup, SigngenSetup)
        if setup.sign_alg != "secp256k1":
            raise RefusalError(NodeCode.UNSUPPORTED, "this node signs with secp256k1 keys only")
        requests = sign_requests(params.revision, setup)
    except (InvalidFieldError, ProtocolError) as error:
        refuse_field("setup", error)
    try:
        claim, signature = read_ephemeral_proof(params.revision, setup, auth)
    except (InvalidFieldError, ProtocolError) as error:
        refuse_field("credentials", error)
    if params.presignature_ids and len(params.presignature_ids) != len(requests):
        refuse_field("presignatureIds", InvalidFieldError("presignatureIds", "must be one for each message"))
    return ReadSign(
        params=params,
        setup=setup,
        setup_digest=setup_hash(operation=OPERATION, revision=params.revision, setup=params.setup),
        requests=requests,
        claim=claim,
        signature=signature,
    )


def check_signers(record: KeyRecord, signers: tuple[OperatorAddress, ...], operator: OperatorAddress) -> None:
    """
    Check that signers are exactly t of the key's parties, this node among them.

    Raises:
        RefusalError: ``WRONG_PARTICIPANTS``.
    """
    known = record.acknowledgement
    if len(signers) != known.threshold.t:
        problem = f"there are {len(signers)} signers, and the key needs {known.threshold.t}"
    elif operator not in signers:
        problem = "this node is not a signer"
    elif not set(signers) <= set(known.participants):
        problem = "a signer is no party of the key"
    else:
        return
    raise RefusalError(NodeCode.WRONG_PARTICIPANTS, problem)


def check_presign_time(params: PresignParams, now: float) -> None:
    """
    Check that a request for a presignature has not ended, and ends soon.

    Raises:
        RefusalError: ``CHALLENGE_EXPIRED``.
    """
    if params.expires_at <= now:
        raise RefusalError(NodeCode.CHALLENGE_EXPIRED, "the request has expired")
    if params.expires_at > now + _LONGEST_PRESIGN_S:
        problem = f"a request for a presignature ends within {_LONGEST_PRESIGN_S} s"
        raise RefusalError(NodeCode.CHALLENGE_EXPIRED, problem)


def check_presign_key(record: KeyRecord, params: PresignParams, now: float) -> RegisteredKey:
    """
    Check that an ephemeral key that may use the key asks for a presignature.

    Raises:
        RefusalError: ``EPHEMERAL_KEY_REFUSED``.
    """
    found = record.ephemeral_keys.find(params.eph_id)
    eph_pk = b"" if found is None else found.claim.eph_pk
    key = record.ephemeral_keys.check_usable(params.eph_id, eph_pk, now)
    digest = presign_digest(
        request_id=params.request_id,
        key_id=params.key_id,
        eph_id=params.eph_id,
        signers=params.signers,
        expires_at=params.expires_at,
    )
    _check_signed(key, digest, params.signature)
    return key


def signed_challenge(read: ReadSign) -> str:
    """
    Give the challenge that the ephemeral key must have signed: 64 hex digits.

    Raises:
        RefusalError: ``CHALLENGE_MISMATCH`` if it is a one-shot request under another id than its own, or in a revision
            that has none.
    """
    params = read.params
    if params.presignature_ids:
        return sign_challenge(
            request_id=params.request_id,
            setup_digest=read.setup_digest,
            signers=params.signers,
            presignature_ids=params.presignature_ids,
        ).hex()
    if params.participants:
        return final_challenge(
            operation=OPERATION,
            request_id=params.request_id,
            setup_digest=read.setup_digest,
            participants=params.participants,
            nonces=params.nonces,
        ).hex()
    if params.revision != Revision.V1 or params.request_id != oneshot_request_id(read.setup_digest):
        raise RefusalError(
            NodeCode.CHALLENGE_MISMATCH, "a request without nonces has the id that its setup gives it"
        )
    return oneshot_challenge(params.setup)


def check_signing_key(record: KeyRecord, read: ReadSign, now: float) -> RegisteredKey:
    """
    Check that an ephemeral key that may use the key now has signed this very request.

    Raises:
        RefusalError: ``UNKNOWN_KEY`` if the credentials name another owner, ``INVALID_PARAMS`` if t is not the key's,
            ``CHALLENGE_MISMATCH``, or ``EPHEMERAL_KEY_REFUSED``.
    """
    params = read.params
    if read.setup.t != record.acknowledgement.threshold.t:
        refuse_field("setup", InvalidFieldError("t", "is not the key's"))
    if params.revision == Revision.V0_1 and not is_owner(record.owner_id, _named_owner(params)):
        raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key of this owner")
    key = usable_key(record, read, now)
    payload = ephemeral_payload(params.revision, params.setup, signed_challenge(read))
    _check_signed(key, payload, read.signature)
    return key


def usable_key(record: KeyRecord, read: ReadSign, now: float) -> RegisteredKey:
    """
    Give the ephemeral key that asks, if it may use the key now: what is checked once more when nothing is waited for.

    Raises:
        RefusalError: ``EPHEMERAL_KEY_REFUSED``.
    """
    claim = read.claim
    eph_id = claim.eph_id
    if read.params.revision == Revision.V0_1:
        # Its credentials have no name, but another revision may have registered the key under one.
        same = [key for key in record.ephemeral_keys.keys if key.claim.eph_pk == claim.eph_pk]
        eph_id = same[-1].claim.eph_id if same else eph_id
    return record.ephemeral_keys.check_usable(eph_id, claim.eph_pk, now)


def _named_owner(params: SignParams) -> UserAuthentication:
    auth = params.user_authentication
    return UserAuthentication(
        method="eoa", id=auth.id, credentials=auth.credentials, signature=auth.signature
    )


def _check_signed(key: RegisteredKey, data: bytes, signature: str) -> None:
    if not is_signed_by(key.claim.eph_pk, key.claim.sign_alg, data, signature):
        raise RefusalError(
            NodeCode.EPHEMERAL_KEY_REFUSED,
            "the signature is not the ephemeral key's over this request",
            data={"reason": "signature"},
        )

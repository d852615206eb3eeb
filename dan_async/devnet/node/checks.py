"""
A node's checks of a request before it acts on it: owner, ephemeral key, claim, signers. Pure: time is an argument.

Unknown, revoked or expired ephemeral keys are refused by ``keys.EphemeralRegistry``.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

from attrs import evolve, frozen

from dan_async._values import MAX_LIFETIME_S, to_hex
from dan_async.config import Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.ephemeral_key import is_signed_by
from dan_async.crypto.hashes import tagged_hash
from dan_async.crypto.signature import parse_signature, recover_address
from dan_async.devnet.node.keys import KeyRecord, RegisteredKey
from dan_async.devnet.node.passkeys import PasskeyRegistry, check_assertion
from dan_async.devnet.node.rpc import RefusalError, invalid_params, reading
from dan_async.errors import InvalidFieldError, NodeCode
from dan_async.permissions.rules import permissions_text
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.fields import decode, encode
from dan_async.protocols.gateway import GatewayProtocol, Operation, Revision
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    SIGNGEN,
    KeygenParams,
    PresignParams,
    SignParams,
    final_challenge,
    oneshot_request_id,
    presign_digest,
    setup_hash,
    sign_challenge,
)
from dan_async.protocols.setups import EphemeralClaim, KeygenSetup, Setup, SigngenSetup, UserAuthentication
from dan_async.protocols.sign_request import SignRequest, sign_request_digest
from dan_async.types import Json, OperatorAddress, RequestId

KEYGEN = str(Operation.KEYGEN)


#: How far ahead a request for a presignature may end, in seconds.
_LONGEST_PRESIGN_S = 300

#: How far a client's clock may be ahead when it asks for the longest life.
_SKEW_S = 60

#: Members that are there and wrong have codes of their own.
_CODES = {
    "participants": NodeCode.WRONG_PARTICIPANTS,
    "revision": NodeCode.UNSUPPORTED,
    "method": NodeCode.UNSUPPORTED,
}


def content_hash(params: object, *, operation: str = "") -> bytes:
    """
    Hash all of a request, which tells it from another under its id.

    An owner's address and signature can be spelled in several ways. Whoever passes a request on in another one must not make
    it conflict with the owner's own.
    """
    if isinstance(params, KeygenParams) and params.user_authentication.method == "eoa":
        said = params.user_authentication
        with suppress(InvalidFieldError):  # it is refused, or conflicts, as it stands
            address, signature = parse_address("id", said.id), to_hex(parse_signature(said.signature))
            params = evolve(params, user_authentication=evolve(said, id=address, signature=signature))
    return hashlib.sha256(operation.encode() + encode(params).encode()).digest()


def read_request(value: Json) -> KeygenParams:
    try:
        return decode(KeygenParams, value)
    except InvalidFieldError as error:
        code = _CODES.get(error.field)
        authentication = value.get("userAuthentication")
        sent = {*value, *(authentication if isinstance(authentication, dict) else ())}
        if code is None or error.field not in sent:
            raise invalid_params(error) from error
        raise RefusalError(code, error.message) from error


def read_setup(params: KeygenParams, operation: str) -> Setup:
    try:
        protocol_for(params.revision).check_method(operation, params.user_authentication.method)
        if params.user_authentication.method == "ephemeral":
            raise InvalidFieldError("method", "must be eoa or passkey")
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, error.message) from error
    with reading("setup"):
        return protocol_for(params.revision).decode_setup(operation, params.setup)


def own_nonce(params: KeygenParams | SignParams, operator: OperatorAddress) -> bytes | None:
    """Return the nonce that this node is said to have given out; None for a one-shot request."""
    if operator not in params.participants:
        raise RefusalError(NodeCode.WRONG_PARTICIPANTS, "this node is not a participant")
    return params.nonces[params.participants.index(operator)] if params.nonces else None


def signed_challenge(params: KeygenParams | SignParams, operation: str, digest: bytes) -> str:
    """Return the challenge that must have been signed for a setup of that hash: 64 hex digits."""
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
    return REVISION_1.oneshot_challenge(params.setup)


def check_claim(params: KeygenParams, setup: Setup, now: float) -> EphemeralClaim:
    """Return the ephemeral key that the owner vouches for."""
    authentication = params.user_authentication
    text = getattr(setup, "claim_text", None)
    with reading("credentials"):
        if params.revision != Revision.V0_1 and authentication.credentials != text:
            raise InvalidFieldError("credentials", "must be the setup's claim, to the letter")
        claim = protocol_for(params.revision).owner_claim(setup, authentication)
    if claim.expiry <= now:
        raise RefusalError(NodeCode.CLAIM_EXPIRED, "the ephemeral claim has expired")
    if claim.expiry > now + MAX_LIFETIME_S + _SKEW_S:
        raise RefusalError(NodeCode.CLAIM_EXPIRED, "the ephemeral claim lives longer than 365 days")
    return claim


def owner_name(authentication: UserAuthentication) -> str:
    """Return the name under which a node knows an owner."""
    # A credential id is base64url, and its maker chooses it: without the prefix, one could spell somebody's address.
    passkey = authentication.method == "passkey"
    return f"passkey:{authentication.id}" if passkey else authentication.id


def is_owner(name: str, authentication: UserAuthentication) -> bool:
    """Return whether somebody says to be the owner of that name. Addresses have no case, credential ids do."""
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
    typed_data = protocol_for(params.revision).typed_data(operation, setup, challenge)
    try:
        signer = recover_address(typed_data_digest(typed_data), authentication.signature)
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.WRONG_OWNER, f"the owner's {error.message}") from error
    if signer != owner:
        raise RefusalError(NodeCode.WRONG_OWNER, "the signature is not the owner's over this request")


# --- key generation --------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class CheckedKeygen:
    """A request in which all is well but for the nonce and the owner's signature, which are still to be checked."""

    params: KeygenParams
    #: Hash of all of it.
    content: bytes
    setup: KeygenSetup
    setup_digest: bytes
    threshold: Threshold
    claim: EphemeralClaim
    #: The nonce that this node gave out; None for a one-shot request.
    nonce: bytes | None
    #: Signed by the owner: 64 hex digits.
    challenge: str
    #: Names the work among the participants: no other set of them can have the same.
    session_id: bytes

    @property
    def request_id(self) -> RequestId:
        return self.params.request_id


def check_request(
    params: KeygenParams, *, operator: OperatorAddress, roster: frozenset[OperatorAddress], now: float
) -> CheckedKeygen:
    """Check everything but the nonce and the owner's signature."""
    setup = read_setup(params, KEYGEN)
    assert isinstance(setup, KeygenSetup)
    threshold = _read_threshold(setup)
    _check_participants(params, threshold, operator, roster)
    claim = check_claim(params, setup, now)
    _check_permissions(setup.permissions)
    digest = setup_hash(operation=KEYGEN, revision=params.revision, setup=params.setup)
    challenge = signed_challenge(params, KEYGEN, digest)
    return CheckedKeygen(
        params=params,
        content=content_hash(params),
        setup=setup,
        setup_digest=digest,
        threshold=threshold,
        claim=claim,
        nonce=own_nonce(params, operator),
        challenge=challenge,
        session_id=tagged_hash("dan-node/1 session", bytes.fromhex(challenge), *params.participants),
    )


def check_owner(checked: CheckedKeygen, passkeys: PasskeyRegistry | None = None) -> None:
    check_signature(checked.params, KEYGEN, checked.setup, checked.challenge, passkeys)


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


# --- presignatures and signatures ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ReadSign:
    """A request for signatures whose form is right; its messages are not read before its signature was checked."""

    params: SignParams
    protocol: GatewayProtocol
    setup: SigngenSetup
    setup_digest: bytes
    #: The ephemeral key that says to have asked. Its expiry means nothing.
    claim: EphemeralClaim
    signature: str


def read_sign(params: SignParams) -> ReadSign:
    auth = params.user_authentication
    try:
        protocol = protocol_for(params.revision)
        protocol.check_method(SIGNGEN, auth.method)
    except InvalidFieldError as error:
        raise RefusalError(NodeCode.UNSUPPORTED, error.message) from error
    with reading("setup"):
        setup = protocol.decode_setup(SIGNGEN, params.setup)
        assert isinstance(setup, SigngenSetup)
        if setup.sign_alg != "secp256k1":
            raise RefusalError(NodeCode.UNSUPPORTED, "this node signs with secp256k1 keys only")
    with reading("credentials"):
        claim, signature = protocol.ephemeral_proof(setup, auth)
    return ReadSign(
        params=params,
        protocol=protocol,
        setup=setup,
        setup_digest=setup_hash(operation=SIGNGEN, revision=params.revision, setup=params.setup),
        claim=claim,
        signature=signature,
    )


def read_messages(read: ReadSign) -> tuple[tuple[SignRequest, ...], list[bytes]]:
    """Read the messages of a request, and hash them: the long part, for those who may use the key."""
    with reading("setup"):
        requests = read.protocol.sign_requests(read.setup)
    with reading("presignatureIds"):
        if read.params.presignature_ids and len(read.params.presignature_ids) != len(requests):
            raise InvalidFieldError("presignatureIds", "must be one for each message")
    with reading("setup"):
        return requests, [sign_request_digest(request) for request in requests]


def check_signers(record: KeyRecord, signers: tuple[OperatorAddress, ...], operator: OperatorAddress) -> None:
    """Check that signers are exactly t of the key's parties, this node among them."""
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
    """Check that a request for a presignature has not ended, and ends soon."""
    if params.expires_at <= now:
        raise RefusalError(NodeCode.CHALLENGE_EXPIRED, "the request has expired")
    if params.expires_at > now + _LONGEST_PRESIGN_S:
        problem = f"a request for a presignature ends within {_LONGEST_PRESIGN_S} s"
        raise RefusalError(NodeCode.CHALLENGE_EXPIRED, problem)


def check_presign_key(record: KeyRecord, params: PresignParams, now: float) -> RegisteredKey:
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


def signing_challenge(read: ReadSign) -> str:
    """Return the challenge that the ephemeral key must have signed: 64 hex digits."""
    params = read.params
    if params.presignature_ids:
        return sign_challenge(
            request_id=params.request_id,
            setup_digest=read.setup_digest,
            signers=params.signers,
            presignature_ids=params.presignature_ids,
        ).hex()
    return signed_challenge(params, SIGNGEN, read.setup_digest)


def signed_content(read: ReadSign) -> bytes:
    """Return what tells a request whose signature was checked from others under its id: what was signed, and by whom."""
    # Not the signature itself, nor the credentials: with these spelled in another way, anybody could pass it on as another.
    return bytes.fromhex(signing_challenge(read)) + read.claim.eph_pk


def check_signing_key(record: KeyRecord, read: ReadSign, now: float) -> RegisteredKey:
    """Check that an ephemeral key that may use the key now has signed this very request."""
    params = read.params
    with reading("setup"):
        if read.setup.t != record.acknowledgement.threshold.t:
            raise InvalidFieldError("t", "is not the key's")
    names_owner = params.revision == Revision.V0_1  # by address, which has no case
    if names_owner and record.owner_id.lower() != params.user_authentication.id.lower():
        raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key of this owner")
    key = usable_key(record, read, now)
    payload = read.protocol.ephemeral_payload(params.setup, signing_challenge(read))
    _check_signed(key, payload, read.signature)
    return key


def usable_key(record: KeyRecord, read: ReadSign, now: float) -> RegisteredKey:
    """Return the ephemeral key that asks, if it may use the key now; checked once more right before a share leaves."""
    claim = read.claim
    eph_id = claim.eph_id
    if read.params.revision == Revision.V0_1:
        # Its credentials have no name, but another revision may have registered the key under one.
        same = [key for key in record.ephemeral_keys.keys if key.claim.eph_pk == claim.eph_pk]
        eph_id = same[-1].claim.eph_id if same else eph_id
    return record.ephemeral_keys.check_usable(eph_id, claim.eph_pk, now)


def _check_signed(key: RegisteredKey, data: bytes, signature: str) -> None:
    if not is_signed_by(key.claim.eph_pk, key.claim.sign_alg, data, signature):
        raise RefusalError(
            NodeCode.EPHEMERAL_KEY_REFUSED,
            "the signature is not the ephemeral key's over this request",
            data={"reason": "signature"},
        )

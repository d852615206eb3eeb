"""
dan-node/1: what the client and a node say to each other. docs/node-protocol.md is the specification of this file.

Every hash is ``H(tag, part, part, …)``: SHA-256 over the tag and the parts, each preceded by its length as a 32-bit
big-endian number. Numbers in a hash are 32 bits, big-endian; addresses are 20 bytes; points are 33 bytes, compressed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from dan_async._hex import from_hex, to_hex
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError, ProtocolError
from dan_async.models._fields import check_address, check_int, check_text
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.models.authentication import UserAuthentication
from dan_async.models.threshold import MAX_PARTIES, Threshold
from dan_async.types import Json, MpcKeyId, OperatorAddress, RequestId
from dan_async.wire.json_text import dump

PROTOCOL = "dan-node/1"

#: Revisions in which an owner may have signed a setup; the node checks the typed data of that revision.
REVISIONS = ("0.1", "0.3", "1")


class Code:
    """Error codes of dan-node/1, besides JSON-RPC's own (-32700, -32600 to -32603)."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    #: The request is longer than the node accepts.
    TOO_LARGE = -32010
    #: Too many requests; ``data.retryAfter`` has the seconds to wait.
    RATE_LIMITED = -32011
    #: The node is shutting down or not yet ready.
    UNAVAILABLE = -32012
    #: The nonce was never given out, or for another request, operation or setup.
    CHALLENGE_MISMATCH = -32020
    #: The nonce's time has passed.
    CHALLENGE_EXPIRED = -32021
    #: The nonce was used already.
    CHALLENGE_REUSED = -32022
    #: The signature is not the owner's over this request.
    WRONG_OWNER = -32023
    #: The ephemeral claim has expired, or lives longer than allowed.
    CLAIM_EXPIRED = -32024
    #: The request id is known with other content.
    REQUEST_CONFLICT = -32025
    #: The participants are not ascending, do not contain this node, or hold one that it does not know.
    WRONG_PARTICIPANTS = -32026
    #: t, n, algorithm, method or revision that this node does not do.
    UNSUPPORTED = -32027
    #: Distributed key generation failed; ``data.culprits`` names the operators to blame, if any.
    KEYGEN_FAILED = -32030
    #: No such key, or not this owner's.
    UNKNOWN_KEY = -32040
    #: The ephemeral key is not registered, was revoked or has expired.
    EPHEMERAL_KEY_REFUSED = -32041
    #: The permissions do not allow it.
    NOT_PERMITTED = -32042


# --- hashes -----------------------------------------------------------------------------------------------------------


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """H(tag, part, …) as described above."""
    state = hashlib.sha256()
    for part in (tag.encode(), *parts):
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return state.digest()


def u32(number: int) -> bytes:
    """Give a number as 32 bits, big-endian."""
    return number.to_bytes(4, "big")


def _raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def setup_hash(*, operation: str, revision: str, setup: str) -> bytes:
    """H("dan-node/1 setup", operation, revision, the setup's exact text)."""
    return tagged_hash("dan-node/1 setup", operation.encode(), revision.encode(), setup.encode())


def final_challenge(
    *,
    operation: str,
    request_id: RequestId,
    setup_digest: bytes,
    participants: Sequence[OperatorAddress],
    nonces: Sequence[bytes],
) -> bytes:
    """
    The 32 bytes that the owner signs, in hex, as the typed data's challenge.

    H("dan-node/1 challenge", operation, request id, setup hash, number of participants, then operator and nonce of each).
    """
    pairs = [part for operator, nonce in zip(participants, nonces, strict=True) for part in (_raw(operator), nonce)]
    return tagged_hash(
        "dan-node/1 challenge", operation.encode(), _raw(request_id), setup_digest, u32(len(participants)), *pairs
    )


def compute_key_id(
    *,
    public_key: bytes,
    t: int,
    participants: Sequence[OperatorAddress],
    owner_id: str,
    request_id: RequestId,
) -> MpcKeyId:
    """H("dan-node/1 key", public key, t, n, each participant, owner id in lower case, request id) as 64 hex digits."""
    return MpcKeyId(
        tagged_hash(
            "dan-node/1 key",
            public_key,
            u32(t),
            u32(len(participants)),
            *map(_raw, participants),
            owner_id.lower().encode(),
            _raw(request_id),
        ).hex()
    )


def restarted_request_id(request_id: RequestId, restart: int) -> RequestId:
    """
    The id of the request that follows when a key generation has to be started again with other participants.

    H("dan-node/1 restart", first request id, number of the restart): whoever knows the first id can ask after all of them.
    """
    return RequestId(to_hex(tagged_hash("dan-node/1 restart", _raw(request_id), u32(restart))))


def acknowledgement_digest(ack: Acknowledgement) -> bytes:
    """
    What the operator signs.

    H("dan-node/1 acknowledgement", request id, operator, party index, key id, public key, t, n, each participant,
    each public share, transcript hash).
    """
    return tagged_hash(
        "dan-node/1 acknowledgement",
        _raw(ack.request_id),
        _raw(ack.operator),
        u32(ack.party_index),
        bytes.fromhex(ack.key_id),
        ack.public_key,
        u32(ack.threshold.t),
        u32(ack.threshold.n),
        *map(_raw, ack.participants),
        *ack.public_shares,
        ack.transcript_hash,
    )


def identity_digest(*, operator: OperatorAddress, nonce: bytes) -> bytes:
    """H("dan-node/1 identity", operator, nonce): what a node signs to show who it is."""
    return tagged_hash("dan-node/1 identity", _raw(operator), nonce)


# --- requests ---------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ChallengeParams:
    """Parameters of ``dan_challenge``."""

    request_id: RequestId
    operation: str
    setup_hash: bytes


@frozen(kw_only=True)
class ChallengeResult:
    """Result of ``dan_challenge``: a single-use nonce (32 bytes) and when it ends, in Unix seconds."""

    nonce: bytes
    expires_at: int


@frozen(kw_only=True)
class KeygenParams:
    """Parameters of ``dan_keygen``."""

    request_id: RequestId
    revision: str
    setup: str
    participants: tuple[OperatorAddress, ...]
    nonces: tuple[bytes, ...]
    user_authentication: UserAuthentication


def encode_identify(nonce: bytes) -> str:
    """Parameters of ``dan_identify``."""
    return dump({"nonce": to_hex(nonce)})


def encode_challenge(params: ChallengeParams) -> str:
    """Parameters of ``dan_challenge`` as JSON text."""
    return dump(
        {
            "requestId": params.request_id,
            "operation": params.operation,
            "setupHash": to_hex(params.setup_hash),
        }
    )


def encode_keygen(params: KeygenParams) -> str:
    """Parameters of ``dan_keygen`` as JSON text: the same for every node."""
    auth = params.user_authentication
    return dump(
        {
            "requestId": params.request_id,
            "revision": params.revision,
            "setup": params.setup,
            "participants": list(params.participants),
            "nonces": [to_hex(nonce) for nonce in params.nonces],
            "userAuthentication": {
                "method": auth.method,
                "id": auth.id,
                "credentials": auth.credentials,
                "signature": auth.signature,
            },
        }
    )


def _members(value: Json, name: str, *keys: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidFieldError(name, "must be an object")
    for key in keys:
        if key not in value:
            raise InvalidFieldError(key, "is missing")
    if len(value) != len(keys):
        raise InvalidFieldError(name, "has members that the protocol does not know")
    return value


def _list(value: Json, name: str) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_PARTIES:
        raise InvalidFieldError(name, f"must be a list of 1 to {MAX_PARTIES} entries")
    return value


def decode_request_id(value: Json) -> RequestId:
    """Check a request id: 0x and 64 lower-case hex digits."""
    return RequestId(to_hex(from_hex(value, field="requestId", length=32, prefix=True)))


def decode_participants(value: Json) -> tuple[OperatorAddress, ...]:
    """Check a list of operators: addresses, strictly ascending as numbers, so that each set has one form."""
    found = tuple(OperatorAddress(check_address("participants", entry)) for entry in _list(value, "participants"))
    if any(a.lower() >= b.lower() for a, b in zip(found, found[1:], strict=False)):
        raise InvalidFieldError("participants", "must be strictly ascending")
    return found


def decode_identify(value: Json) -> bytes:
    """Read the parameters of ``dan_identify``: a nonce of 32 bytes."""
    return from_hex(_members(value, "params", "nonce")["nonce"], field="nonce", length=32, prefix=True)


def decode_challenge(value: Json) -> ChallengeParams:
    """
    Read the parameters of ``dan_challenge``.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    members = _members(value, "params", "requestId", "operation", "setupHash")
    return ChallengeParams(
        request_id=decode_request_id(members["requestId"]),
        operation=check_text("operation", members["operation"], most=32),
        setup_hash=from_hex(members["setupHash"], field="setupHash", length=32, prefix=True),
    )


def decode_user_authentication(value: Json) -> UserAuthentication:
    """
    Read the member ``userAuthentication``.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    members = _members(value, "userAuthentication", "method", "id", "credentials", "signature")
    if members["method"] not in ("eoa", "ephemeral", "passkey"):
        raise InvalidFieldError("method", "must be 'eoa', 'ephemeral' or 'passkey'")
    return UserAuthentication(**members)


def decode_keygen(value: Json) -> KeygenParams:
    """
    Read the parameters of ``dan_keygen``.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    members = _members(
        value, "params", "requestId", "revision", "setup", "participants", "nonces", "userAuthentication"
    )
    if members["revision"] not in REVISIONS:
        raise InvalidFieldError("revision", f"must be one of {', '.join(REVISIONS)}")
    participants = decode_participants(members["participants"])
    nonces = _list(members["nonces"], "nonces")
    if len(nonces) != len(participants):
        raise InvalidFieldError("nonces", "must be one for each participant")
    return KeygenParams(
        request_id=decode_request_id(members["requestId"]),
        revision=members["revision"],
        setup=check_text("setup", members["setup"], most=256 * 1024),
        participants=participants,
        nonces=tuple(from_hex(nonce, field="nonces", length=32, prefix=True) for nonce in nonces),
        user_authentication=decode_user_authentication(members["userAuthentication"]),
    )


# --- results ----------------------------------------------------------------------------------------------------------


def encode_challenge_result(result: ChallengeResult) -> Json:
    """Result of ``dan_challenge``."""
    return {"nonce": to_hex(result.nonce), "expiresAt": result.expires_at}


def encode_acknowledgement(ack: Acknowledgement) -> Json:
    """Result of ``dan_keygen``."""
    return {
        "requestId": ack.request_id,
        "operator": ack.operator,
        "partyIndex": ack.party_index,
        "keyId": ack.key_id,
        "publicKey": to_hex(ack.public_key),
        "publicShares": [to_hex(share) for share in ack.public_shares],
        "t": ack.threshold.t,
        "n": ack.threshold.n,
        "participants": list(ack.participants),
        "transcriptHash": to_hex(ack.transcript_hash),
        "signature": to_hex(ack.signature),
    }


def _as_protocol_error(error: DanError, what: str) -> ProtocolError:
    return NodeProtocolError(f"{what} is malformed: {error.message}", hint="The node does not speak dan-node/1")


def decode_identify_result(value: Json) -> tuple[OperatorAddress, bytes]:
    """
    Read the result of ``dan_identify``: who the node says it is, and its signature over ``identity_digest``.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        members = _members(value, "result", "protocol", "operator", "signature")
        if members["protocol"] != PROTOCOL:
            raise InvalidFieldError("protocol", f"must be {PROTOCOL}")
        return (
            OperatorAddress(check_address("operator", members["operator"])),
            from_hex(members["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise _as_protocol_error(error, "the node's identity") from error


def decode_challenge_result(value: Json) -> ChallengeResult:
    """
    Read the result of ``dan_challenge``.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        members = _members(value, "result", "nonce", "expiresAt")
        return ChallengeResult(
            nonce=from_hex(members["nonce"], field="nonce", length=32, prefix=True),
            expires_at=check_int("expiresAt", members["expiresAt"], least=0, most=2**53 - 1),
        )
    except InvalidFieldError as error:
        raise _as_protocol_error(error, "the node's challenge") from error


def decode_acknowledgement(value: Json) -> Acknowledgement:
    """
    Read the result of ``dan_keygen``. Nothing in it is believed yet: that is for ``quorum.tally``.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        members = _members(
            value,
            "result",
            *("requestId", "operator", "partyIndex", "keyId", "publicKey", "publicShares"),
            *("t", "n", "participants", "transcriptHash", "signature"),
        )
        participants = decode_participants(members["participants"])
        shares = _list(members["publicShares"], "publicShares")
        if len(shares) != len(participants):
            raise InvalidFieldError("publicShares", "must be one for each participant")
        key_id = members["keyId"]
        from_hex(key_id, field="keyId", length=32, prefix=False)
        return Acknowledgement(
            request_id=decode_request_id(members["requestId"]),
            operator=OperatorAddress(check_address("operator", members["operator"])),
            party_index=check_int("partyIndex", members["partyIndex"], least=1, most=len(participants)),
            key_id=MpcKeyId(key_id.lower()),
            public_key=from_hex(members["publicKey"], field="publicKey", length=33, prefix=True),
            public_shares=tuple(from_hex(s, field="publicShares", length=33, prefix=True) for s in shares),
            threshold=Threshold(members["t"], members["n"]),
            participants=participants,
            transcript_hash=from_hex(members["transcriptHash"], field="transcriptHash", length=32, prefix=True),
            signature=from_hex(members["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise _as_protocol_error(error, "the acknowledgement") from error

"""
dan-node/1: what the client and a node say to each other. docs/node-protocol.md is the specification of this file.

The hashes that both sides compute are in node_hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from attrs import frozen

from dan_async._hex import from_hex, to_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError, ProtocolError
from dan_async.models._fields import check_int, check_text
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.models.authentication import UserAuthentication
from dan_async.models.threshold import MAX_PARTIES, Threshold
from dan_async.types import Json, MpcKeyId, OperatorAddress, RequestId
from dan_async.wire.json_text import dump
from dan_async.wire.node_hashes import (
    acknowledgement_digest,
    compute_key_id,
    final_challenge,
    identity_digest,
    oneshot_request_id,
    restarted_request_id,
    setup_hash,
    tagged_hash,
)

__all__ = [
    "PROTOCOL",
    "REVISIONS",
    "ChallengeParams",
    "ChallengeResult",
    "KeygenParams",
    "acknowledgement_digest",
    "compute_key_id",
    "decode_acknowledgement",
    "decode_challenge",
    "decode_challenge_result",
    "decode_identify",
    "decode_identify_result",
    "decode_key_id",
    "decode_keygen",
    "decode_participants",
    "decode_request_id",
    "decode_user_authentication",
    "encode_acknowledgement",
    "encode_challenge",
    "encode_challenge_result",
    "encode_identify",
    "encode_keygen",
    "final_challenge",
    "identity_digest",
    "oneshot_request_id",
    "restarted_request_id",
    "setup_hash",
    "tagged_hash",
]

PROTOCOL = "dan-node/1"

#: Revisions in which an owner may have signed a setup; the node checks the typed data of that revision.
REVISIONS = ("0.1", "0.3", "1")


# --- requests ---------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class ChallengeParams:
    """Parameters of ``dan_challenge``."""

    request_id: RequestId
    operation: str
    setup_hash: bytes
    #: The key it is about, for operations on one: a node that does not hold it says so at once.
    key_id: MpcKeyId | None = None


@frozen(kw_only=True)
class ChallengeResult:
    """Result of ``dan_challenge``: a single-use nonce (32 bytes) and when it ends, in Unix seconds."""

    nonce: bytes
    expires_at: int


@frozen(kw_only=True)
class KeygenParams:
    """
    Parameters of ``dan_keygen``, ``dan_add_ephemeral_key`` and ``dan_revoke_ephemeral_key``.

    Without nonces it is a one-shot request, whose challenge is a hash of the setup alone.
    """

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
    about = {} if params.key_id is None else {"keyId": params.key_id}
    return dump(
        {
            "requestId": params.request_id,
            "operation": params.operation,
            "setupHash": to_hex(params.setup_hash),
            **about,
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


def decode_key_id(value: Json) -> MpcKeyId:
    """Check a key id: 64 hex digits without 0x."""
    return MpcKeyId(from_hex(value, field="keyId", length=32, prefix=False).hex())


def decode_participants(value: Json) -> tuple[OperatorAddress, ...]:
    """Check a list of operators: addresses, strictly ascending as numbers, so that each set has one form."""
    found = tuple(
        OperatorAddress(parse_address("participants", entry)) for entry in _list(value, "participants")
    )
    if any(a.lower() >= b.lower() for a, b in pairwise(found)):
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
    about = ("keyId",) if isinstance(value, dict) and "keyId" in value else ()
    members = _members(value, "params", "requestId", "operation", "setupHash", *about)
    return ChallengeParams(
        request_id=decode_request_id(members["requestId"]),
        operation=check_text("operation", members["operation"], most=32),
        setup_hash=from_hex(members["setupHash"], field="setupHash", length=32, prefix=True),
        key_id=decode_key_id(members["keyId"]) if about else None,
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
    nonces = members["nonces"]
    if not isinstance(nonces, list) or len(nonces) not in {0, len(participants)}:
        raise InvalidFieldError("nonces", "must be one for each participant, or none for a one-shot request")
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
    return NodeProtocolError(
        f"{what} is malformed: {error.message}", hint="The node does not speak dan-node/1"
    )


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
            OperatorAddress(parse_address("operator", members["operator"])),
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
        return Acknowledgement(
            request_id=decode_request_id(members["requestId"]),
            operator=OperatorAddress(parse_address("operator", members["operator"])),
            party_index=check_int("partyIndex", members["partyIndex"], least=1, most=len(participants)),
            key_id=decode_key_id(members["keyId"]),
            public_key=from_hex(members["publicKey"], field="publicKey", length=33, prefix=True),
            public_shares=tuple(from_hex(s, field="publicShares", length=33, prefix=True) for s in shares),
            threshold=Threshold(members["t"], members["n"]),
            participants=participants,
            transcript_hash=from_hex(
                members["transcriptHash"], field="transcriptHash", length=32, prefix=True
            ),
            signature=from_hex(members["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise _as_protocol_error(error, "the acknowledgement") from error

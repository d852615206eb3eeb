"""
A node's signed statement that it holds a share of the key.

dan-node/1: what the client and a node say to each other. docs/node-protocol.md is the specification of this file.

The hashes that both sides compute are in node_hashes.

The hashes of dan-node/1, which nodes and clients compute independently.

Every hash is ``H(tag, part, part, …)``: SHA-256 over the tag and the parts, each preceded by its length as a 32-bit
big-endian number. Numbers in a hash are 32 bits, big-endian; addresses are 20 bytes; points are 33 bytes, compressed.

dan-node/1: registering a passkey, and a node's receipt for it (docs/passkeys.md, "On the nodes").

The request has the form of ``dan_keygen``: the same members, with the setup of registerPasskey, and the new credential as
the signature.

dan-node/1: a node's receipt for adding or revoking an ephemeral key (docs/node-protocol.md, "Receipt").

The requests themselves have the form of ``dan_keygen``: the same members, authorised the same way.

dan-node/1: ``dan_settle_keygen`` (docs/node-protocol.md): what came of a key generation whose client was cut off.

The ephemeral key asks. The node answers with what it acknowledged, if anything, and will from then on begin nothing under
that request for that ephemeral key: so the answer stays true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attrs import field, frozen

from dan_async._json import dump
from dan_async._values import check_algorithm, check_int, check_text, from_hex, required, to_hex
from dan_async.config import MAX_PARTIES, Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.ephemeral_key import is_signed_by
from dan_async.crypto.hashes import tagged_hash, u32
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError, ProtocolError
from dan_async.protocols.fields import members
from dan_async.protocols.setups import UserAuthentication
from dan_async.types import Json, KeyAlgorithm, MpcKeyId, OperatorAddress, RequestId


@frozen(kw_only=True)
class ChangeReceipt:
    """
    A node's signed statement that it has made the change (docs/node-protocol.md, "Receipt").

    Args:
        request_id: The request it answers.
        operation: ``addEphemeralKey`` or ``revokeEphemeralKey``.
        operator: The node that says so.
        key_id: The key.
        eph_id: The ephemeral key's name.
        threshold: t and n of the key.
        signature: The operator's 65-byte signature over the hash of all of the above.
    """

    request_id: RequestId
    operation: str
    operator: OperatorAddress
    key_id: MpcKeyId
    eph_id: str
    threshold: Threshold
    signature: bytes


@frozen(kw_only=True)
class Acknowledgement:
    """
    What a node says after key generation (docs/node-protocol.md, "Acknowledgement").

    Args:
        request_id: The request it answers.
        operator: The node that says so.
        party_index: Its index, 1 to n: its place among the participants.
        key_id: The key's id, a hash that the client computes again.
        public_key: The distributed public key, 33 bytes.
        public_shares: Every participant's public share, 33 bytes each, in the order of the participants.
        threshold: t and n.
        participants: The operators of all parties, ascending.
        transcript_hash: Hash over the whole key generation, equal on every honest node.
        signature: The operator's 65-byte signature (r, s, v) over the hash of all of the above.
    """

    request_id: RequestId
    operator: OperatorAddress
    party_index: int
    key_id: MpcKeyId
    public_key: bytes
    public_shares: tuple[bytes, ...]
    threshold: Threshold
    participants: tuple[OperatorAddress, ...]
    transcript_hash: bytes
    signature: bytes

    @property
    def public_share(self) -> bytes:
        """The node's own public share."""
        return self.public_shares[self.party_index - 1]

    @property
    def summary(self) -> str:
        """What it says, in a few words."""
        return f"acknowledged key {self.key_id[:8]}…"

    @property
    def claims(self) -> tuple[object, ...]:
        """The fields on which agreeing nodes agree: everything but who says it."""
        return (
            self.request_id,
            self.key_id,
            self.public_key,
            self.public_shares,
            self.threshold,
            self.participants,
            self.transcript_hash,
        )


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
    pairs = [
        part for operator, nonce in zip(participants, nonces, strict=True) for part in (_raw(operator), nonce)
    ]
    return tagged_hash(
        "dan-node/1 challenge",
        operation.encode(),
        _raw(request_id),
        setup_digest,
        u32(len(participants)),
        *pairs,
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


def oneshot_request_id(setup_digest: bytes) -> RequestId:
    """
    The only id that a one-shot request may have.

    H("dan-node/1 one-shot", setup hash): no node gave a nonce for it, so it is its own guard against replay.
    """
    return RequestId(to_hex(tagged_hash("dan-node/1 one-shot", setup_digest)))


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


REGISTER_METHOD = "dan_register_passkey"

OPERATION = "registerPasskey"

_MEMBERS = ("requestId", "operator", "credentialId", "signature")


@frozen(kw_only=True)
class PasskeyReceipt:
    """
    A node's word, signed by its operator, that it knows a passkey from now on.

    Args:
        request_id: The request that it answers.
        operator: The node.
        credential_id: The passkey, base64url.
        signature: 65 bytes over ``passkey_receipt_digest``.
    """

    request_id: RequestId
    operator: OperatorAddress
    credential_id: str = field(validator=required(check_text, most=1400))
    signature: bytes


def passkey_receipt_digest(receipt: PasskeyReceipt) -> bytes:
    """
    What the operator signs.

    H("dan-node/1 passkey receipt", request id, operator, credential id).
    """
    return tagged_hash(
        "dan-node/1 passkey receipt",
        bytes.fromhex(receipt.request_id[2:]),
        bytes.fromhex(receipt.operator[2:]),
        receipt.credential_id.encode(),
    )


def encode_passkey_receipt(receipt: PasskeyReceipt) -> Json:
    """Result of ``dan_register_passkey``."""
    return {
        "requestId": receipt.request_id,
        "operator": receipt.operator,
        "credentialId": receipt.credential_id,
        "signature": to_hex(receipt.signature),
    }


def decode_passkey_receipt(value: Json) -> PasskeyReceipt:
    """
    Read the result of ``dan_register_passkey``. Nothing in it is believed before its signature was checked.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(value, "result", _MEMBERS)
        return PasskeyReceipt(
            request_id=decode_request_id(found["requestId"]),
            operator=OperatorAddress(parse_address("operator", found["operator"])),
            credential_id=found["credentialId"],
            signature=from_hex(found["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise NodeProtocolError(
            f"the receipt is malformed: {error.message}", hint="The node does not speak dan-node/1"
        ) from error


#: The operation, as the owner signs it, and the JSON-RPC method that carries it out.
METHODS = {"addEphemeralKey": "dan_add_ephemeral_key", "revokeEphemeralKey": "dan_revoke_ephemeral_key"}

_RECEIPT_MEMBERS = ("requestId", "operation", "operator", "keyId", "ephId", "t", "n", "signature")


def receipt_digest(receipt: ChangeReceipt) -> bytes:
    """
    What the operator signs.

    H("dan-node/1 receipt", operation, request id, operator, key id, ephemeral id, t, n).
    """
    return tagged_hash(
        "dan-node/1 receipt",
        receipt.operation.encode(),
        bytes.fromhex(receipt.request_id[2:]),
        bytes.fromhex(receipt.operator[2:]),
        bytes.fromhex(receipt.key_id),
        receipt.eph_id.encode(),
        u32(receipt.threshold.t),
        u32(receipt.threshold.n),
    )


def encode_receipt(receipt: ChangeReceipt) -> Json:
    """Result of the two methods."""
    return {
        "requestId": receipt.request_id,
        "operation": receipt.operation,
        "operator": receipt.operator,
        "keyId": receipt.key_id,
        "ephId": receipt.eph_id,
        "t": receipt.threshold.t,
        "n": receipt.threshold.n,
        "signature": to_hex(receipt.signature),
    }


def decode_receipt(value: Json) -> ChangeReceipt:
    """
    Read the result of the two methods. Nothing in it is believed before its signature was checked.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(value, "result", _RECEIPT_MEMBERS)
        return ChangeReceipt(
            request_id=decode_request_id(found["requestId"]),
            operation=check_text("operation", found["operation"], most=32),
            operator=OperatorAddress(parse_address("operator", found["operator"])),
            key_id=decode_key_id(found["keyId"]),
            eph_id=check_text("ephId", found["ephId"], most=256),
            threshold=Threshold(found["t"], found["n"]),
            signature=from_hex(found["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise NodeProtocolError(
            f"the receipt is malformed: {error.message}", hint="The node does not speak dan-node/1"
        ) from error


SETTLE_METHOD = "dan_settle_keygen"

#: How many new starts of a key generation a node looks for. A client starts anew far less often.
MOST_RESTARTS = 32


@frozen(kw_only=True)
class SettleParams:
    """
    Parameters of ``dan_settle_keygen``.

    Args:
        request_id: The first id of the key generation; its new starts are meant as well.
        eph_pk: The ephemeral key that the request was for: 65 bytes for secp256k1, 32 for ed25519.
        sign_alg: Its algorithm.
        signature: Its own, over ``settle_digest``, in 0x hex.
    """

    request_id: RequestId
    eph_pk: bytes
    sign_alg: KeyAlgorithm
    signature: str

    def is_signed_for(self, operator: OperatorAddress) -> bool:
        """Whether the ephemeral key signed it, for this node."""
        digest = settle_digest(request_id=self.request_id, operator=operator, eph_pk=self.eph_pk)
        try:
            return is_signed_by(self.eph_pk, self.sign_alg, digest, self.signature)
        except InvalidFieldError:
            return False


def settle_digest(*, request_id: RequestId, operator: OperatorAddress, eph_pk: bytes) -> bytes:
    """H("dan-node/1 settle", request id, operator, ephemeral public key): what the ephemeral key signs."""
    return tagged_hash(
        "dan-node/1 settle", bytes.fromhex(request_id[2:]), bytes.fromhex(operator[2:]), eph_pk
    )


def request_ids(first: RequestId) -> tuple[RequestId, ...]:
    """Give the ids that are meant: the first one, and those of its new starts."""
    return (first, *(restarted_request_id(first, restart) for restart in range(1, MOST_RESTARTS + 1)))


def encode_settle(params: SettleParams) -> str:
    """Parameters of ``dan_settle_keygen`` as JSON text."""
    return dump(
        {
            "requestId": params.request_id,
            "ephPK": to_hex(params.eph_pk),
            "signAlg": params.sign_alg,
            "signature": params.signature,
        }
    )


def decode_settle(value: Json) -> SettleParams:
    """
    Read the parameters of ``dan_settle_keygen``.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(value, "params", ("requestId", "ephPK", "signAlg", "signature"))
    algorithm: KeyAlgorithm = (
        "ed25519" if check_algorithm("signAlg", found["signAlg"]) == "ed25519" else "secp256k1"
    )
    length = 32 if algorithm == "ed25519" else 65
    return SettleParams(
        request_id=decode_request_id(found["requestId"]),
        eph_pk=from_hex(found["ephPK"], field="ephPK", length=length, prefix=True),
        sign_alg=algorithm,
        signature=check_text("signature", found["signature"], most=132),
    )


def encode_settle_result(acknowledgements: tuple[Acknowledgement, ...]) -> Json:
    """Result of ``dan_settle_keygen``."""
    return {"acknowledgements": [encode_acknowledgement(entry) for entry in acknowledgements]}


def decode_settle_result(value: Json) -> tuple[Acknowledgement, ...]:
    """
    Read the result of ``dan_settle_keygen``: at most one acknowledgement for each id. None of them is believed yet.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(value, "result", ("acknowledgements",))["acknowledgements"]
        if not isinstance(found, list) or len(found) > MOST_RESTARTS + 1:
            raise InvalidFieldError("acknowledgements", "must be a list, not longer than there are ids")
    except InvalidFieldError as error:
        raise NodeProtocolError(
            f"the result of {SETTLE_METHOD} is malformed: {error.message}",
            hint="The node does not speak dan-node/1",
        ) from error
    return tuple(decode_acknowledgement(entry) for entry in found)

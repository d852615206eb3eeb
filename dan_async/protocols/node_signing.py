"""
dan-node/1: presignatures and signatures (docs/node-protocol.md, "Signing").

``dan_presign`` has t nodes prepare one signature, authorised by the ephemeral key; ``dan_sign`` turns it into shares of a
signature over one message. A client puts the shares together itself. The hashes are in node_signing_hashes.

What a node gives for a signature: a presignature that it made with others, and later its share of the signature.

The hashes of signing in dan-node/1, in the style of node_hashes: nodes and clients compute them independently.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from attrs import field, frozen

from dan_async._json import dump
from dan_async._values import check_int, check_text, from_hex, to_hex
from dan_async.config import MAX_PARTIES
from dan_async.crypto.address import parse_address
from dan_async.crypto.curve import ORDER
from dan_async.crypto.hashes import tagged_hash, u32
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError
from dan_async.protocols.fields import members
from dan_async.protocols.node import REVISIONS, decode_key_id, decode_request_id, decode_user_authentication
from dan_async.protocols.setups import UserAuthentication
from dan_async.protocols.sign_request import MOST_REQUESTS
from dan_async.types import Json, MpcKeyId, OperatorAddress, RequestId


@frozen(kw_only=True)
class PresignatureOffer:
    """
    What a signer says of a presignature (docs/node-protocol.md, "dan_presign"). Honest signers say the same.

    Args:
        presignature_id: 32 bytes by which its signers know it, bound to the nonce point.
        nonce_point: R, 33 bytes.
        public_key: The key that it is for, 33 bytes.
        expires_at: When the nodes throw it away, in Unix seconds.
    """

    presignature_id: bytes
    nonce_point: bytes
    public_key: bytes
    expires_at: int


@frozen(kw_only=True)
class SignatureShare:
    """
    One signer's part of one signature: s = Σw / Σu over all signers.

    Args:
        presignature_id: The presignature that it spent, 32 bytes.
        nonce_point: R, 33 bytes.
        digest: What it signed, 32 bytes.
        u: Its share of the denominator, from 0 to the group order - 1.
        w: Its share of the numerator, likewise.
    """

    presignature_id: bytes
    nonce_point: bytes
    digest: bytes
    u: int = field(repr=False)
    w: int = field(repr=False)


@frozen(kw_only=True)
class SignatureShares:
    """
    A node's signed answer to a signing request (docs/node-protocol.md, "Signature shares").

    Args:
        request_id: The request that it answers.
        operator: The node that says so.
        party_index: Its place among the key's participants, 1 to n.
        key_id: The key.
        public_key: The key itself, 33 bytes.
        shares: One for each message, in their order.
        signature: The operator's 65-byte signature over the hash of all of the above.
    """

    request_id: RequestId
    operator: OperatorAddress
    party_index: int
    key_id: MpcKeyId
    public_key: bytes
    shares: tuple[SignatureShare, ...]
    signature: bytes


def _raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def presign_digest(
    *,
    request_id: RequestId,
    key_id: MpcKeyId,
    eph_id: str,
    signers: Sequence[OperatorAddress],
    expires_at: int,
) -> bytes:
    """
    What the ephemeral key signs to have a presignature made.

    H("dan-node/1 presign", request id, key id, ephemeral id, number of signers, each signer, when it expires).
    """
    return tagged_hash(
        "dan-node/1 presign",
        _raw(request_id),
        bytes.fromhex(key_id),
        eph_id.encode(),
        u32(len(signers)),
        *map(_raw, signers),
        u32(expires_at),
    )


def presignature_id(session: bytes, nonce_point: bytes) -> bytes:
    """
    The id of a presignature, of which R is a part.

    H("dan-node/1 presignature", session, R); what the session's 32 bytes are is the nodes' own affair.
    """
    return tagged_hash("dan-node/1 presignature", session, nonce_point)


def sign_challenge(
    *,
    request_id: RequestId,
    setup_digest: bytes,
    signers: Sequence[OperatorAddress],
    presignature_ids: Sequence[bytes],
) -> bytes:
    """
    The 32 bytes that the ephemeral key signs, in hex, as the challenge of a signature from presignatures.

    H("dan-node/1 sign", request id, setup hash, number of signers, each signer, each presignature id).
    """
    return tagged_hash(
        "dan-node/1 sign",
        _raw(request_id),
        setup_digest,
        u32(len(signers)),
        *map(_raw, signers),
        *presignature_ids,
    )


def shares_digest(shares: SignatureShares) -> bytes:
    """
    What the operator signs.

    H("dan-node/1 signature shares", request id, operator, party index, key id, public key, number of shares, then
    presignature id, R, digest, u and w of each).
    """
    parts = [
        part
        for share in shares.shares
        for part in (
            share.presignature_id,
            share.nonce_point,
            share.digest,
            share.u.to_bytes(32, "big"),
            share.w.to_bytes(32, "big"),
        )
    ]
    return tagged_hash(
        "dan-node/1 signature shares",
        _raw(shares.request_id),
        _raw(shares.operator),
        u32(shares.party_index),
        bytes.fromhex(shares.key_id),
        shares.public_key,
        u32(len(shares.shares)),
        *parts,
    )


#: The methods, and the operation of the setup and of ``dan_challenge``.
PRESIGN = "dan_presign"

SIGN = "dan_sign"

OPERATION = "signgen"

_SIGN_MEMBERS = (
    *("requestId", "revision", "setup", "signers", "presignatureIds"),
    *("participants", "nonces", "userAuthentication"),
)

#: Latest time that fits the hash's 32 bits.
_LATEST = 2**32 - 1


@frozen(kw_only=True)
class PresignParams:
    """
    Parameters of ``dan_presign``: the same for every signer.

    Args:
        request_id: Names it on every node.
        key_id: The key.
        eph_id: The ephemeral key that asks.
        signers: Exactly t operators, ascending, all of them holders of the key.
        expires_at: When the request ends, and with it at the latest the presignature, in Unix seconds.
        signature: The ephemeral key's over ``presign_digest``, in 0x hex: for ed25519 over the 32 bytes, for secp256k1
            over the personal message of them.
    """

    request_id: RequestId
    key_id: MpcKeyId
    eph_id: str
    signers: tuple[OperatorAddress, ...]
    expires_at: int
    signature: str


@frozen(kw_only=True)
class SignParams:
    """
    Parameters of ``dan_sign``: the same for every signer.

    With presignature ids it spends what ``dan_presign`` made. With participants and their nonces (``dan_challenge``), the
    nodes make presignatures first; that is for a gateway, which has no ephemeral key to ask with. With neither it is a
    one-shot request, whose challenge is a hash of the setup alone.

    Args:
        request_id: Names it on every node.
        revision: The gateway revision in whose form the ephemeral key signed.
        setup: The setup's exact text.
        signers: Exactly t operators, ascending.
        presignature_ids: One for each message, in their order; or none.
        participants: Who gave nonces, ascending: any t of them may sign; or none.
        nonces: One from each participant, in their order; or none.
        user_authentication: What the ephemeral key signed.
    """

    request_id: RequestId
    revision: str
    setup: str
    signers: tuple[OperatorAddress, ...]
    presignature_ids: tuple[bytes, ...] = ()
    participants: tuple[OperatorAddress, ...] = ()
    nonces: tuple[bytes, ...] = ()
    user_authentication: UserAuthentication


# --- requests ---------------------------------------------------------------------------------------------------------
def encode_presign(params: PresignParams) -> str:
    """Parameters of ``dan_presign`` as JSON text."""
    return dump(
        {
            "requestId": params.request_id,
            "keyId": params.key_id,
            "ephId": params.eph_id,
            "signers": list(params.signers),
            "expiresAt": params.expires_at,
            "signature": params.signature,
        }
    )


def encode_sign(params: SignParams) -> str:
    """Parameters of ``dan_sign`` as JSON text."""
    auth = params.user_authentication
    return dump(
        {
            "requestId": params.request_id,
            "revision": params.revision,
            "setup": params.setup,
            "signers": list(params.signers),
            "presignatureIds": [to_hex(entry) for entry in params.presignature_ids],
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


def _list(value: Json, name: str, *, least: int, most: int) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise InvalidFieldError(name, f"must be a list of {least} to {most} entries")
    return value


def _operators(value: Json, name: str, *, least: int) -> tuple[OperatorAddress, ...]:
    entries = _list(value, name, least=least, most=MAX_PARTIES)
    found = tuple(OperatorAddress(parse_address(name, entry)) for entry in entries)
    if any(a.lower() >= b.lower() for a, b in pairwise(found)):
        raise InvalidFieldError(name, "must be strictly ascending")
    return found


def _hashes(value: Json, name: str, *, most: int) -> tuple[bytes, ...]:
    entries = _list(value, name, least=0, most=most)
    found = tuple(from_hex(entry, field=name, length=32, prefix=True) for entry in entries)
    if len(set(found)) != len(found):
        raise InvalidFieldError(name, "must be different from one another")
    return found


def _scalar(value: Json, name: str) -> int:
    found = int.from_bytes(from_hex(value, field=name, length=32, prefix=True), "big")
    if found >= ORDER:
        raise InvalidFieldError(name, "must be below the group order")
    return found


def decode_presign(value: Json) -> PresignParams:
    """
    Read the parameters of ``dan_presign``. Whether the signature holds is for the caller to check.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(value, "params", ("requestId", "keyId", "ephId", "signers", "expiresAt", "signature"))
    signature = found["signature"]
    if len(from_hex(signature, field="signature", prefix=True)) not in {64, 65}:
        raise InvalidFieldError("signature", "must hold 64 or 65 bytes")
    return PresignParams(
        request_id=decode_request_id(found["requestId"]),
        key_id=decode_key_id(found["keyId"]),
        eph_id=check_text("ephId", found["ephId"], most=256),
        signers=_operators(found["signers"], "signers", least=2),
        expires_at=check_int("expiresAt", found["expiresAt"], least=0, most=_LATEST),
        signature=signature,
    )


def decode_sign(value: Json) -> SignParams:
    """
    Read the parameters of ``dan_sign``. Whether the setup is one, and the signature holds, is for the caller to check.

    Raises:
        InvalidFieldError: A member is missing, unknown or wrong.
    """
    found = members(
        value,
        "params",
        _SIGN_MEMBERS,
    )
    if found["revision"] not in REVISIONS:
        raise InvalidFieldError("revision", f"must be one of {', '.join(REVISIONS)}")
    signers = _operators(found["signers"], "signers", least=2)
    presignatures = _hashes(found["presignatureIds"], "presignatureIds", most=MOST_REQUESTS)
    participants = _operators(found["participants"], "participants", least=0)
    nonces = _list(found["nonces"], "nonces", least=0, most=MAX_PARTIES)
    if presignatures and participants:
        raise InvalidFieldError("participants", "must be none where presignatures are named")
    if participants and not set(signers) <= set(participants):
        raise InvalidFieldError("signers", "must be among the participants")
    if len(nonces) != len(participants):
        raise InvalidFieldError("nonces", "must be one for each participant")
    return SignParams(
        request_id=decode_request_id(found["requestId"]),
        revision=found["revision"],
        setup=check_text("setup", found["setup"], most=4 * 1024 * 1024),
        signers=signers,
        presignature_ids=presignatures,
        participants=participants,
        nonces=tuple(from_hex(nonce, field="nonces", length=32, prefix=True) for nonce in nonces),
        user_authentication=decode_user_authentication(found["userAuthentication"]),
    )


# --- results ----------------------------------------------------------------------------------------------------------
def encode_presign_result(offer: PresignatureOffer) -> Json:
    """Result of ``dan_presign``."""
    return {
        "presignatureId": to_hex(offer.presignature_id),
        "noncePoint": to_hex(offer.nonce_point),
        "publicKey": to_hex(offer.public_key),
        "expiresAt": offer.expires_at,
    }


def encode_sign_result(shares: SignatureShares) -> Json:
    """Result of ``dan_sign``."""
    return {
        "requestId": shares.request_id,
        "operator": shares.operator,
        "partyIndex": shares.party_index,
        "keyId": shares.key_id,
        "publicKey": to_hex(shares.public_key),
        "shares": [
            {
                "presignatureId": to_hex(share.presignature_id),
                "noncePoint": to_hex(share.nonce_point),
                "digest": to_hex(share.digest),
                "u": to_hex(share.u.to_bytes(32, "big")),
                "w": to_hex(share.w.to_bytes(32, "big")),
            }
            for share in shares.shares
        ],
        "signature": to_hex(shares.signature),
    }


def decode_presign_result(value: Json) -> PresignatureOffer:
    """
    Read the result of ``dan_presign``.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(value, "result", ("presignatureId", "noncePoint", "publicKey", "expiresAt"))
        return PresignatureOffer(
            presignature_id=from_hex(found["presignatureId"], field="presignatureId", length=32, prefix=True),
            nonce_point=from_hex(found["noncePoint"], field="noncePoint", length=33, prefix=True),
            public_key=from_hex(found["publicKey"], field="publicKey", length=33, prefix=True),
            expires_at=check_int("expiresAt", found["expiresAt"], least=0, most=_LATEST),
        )
    except InvalidFieldError as error:
        raise _malformed("the presignature", error) from error


def decode_sign_result(value: Json) -> SignatureShares:
    """
    Read the result of ``dan_sign``. Nothing in it is believed yet: that is for ``quorum.signature_shares``.

    Raises:
        NodeProtocolError: It is malformed.
    """
    try:
        found = members(
            value,
            "result",
            ("requestId", "operator", "partyIndex", "keyId", "publicKey", "shares", "signature"),
        )
        return SignatureShares(
            request_id=decode_request_id(found["requestId"]),
            operator=OperatorAddress(parse_address("operator", found["operator"])),
            party_index=check_int("partyIndex", found["partyIndex"], least=1, most=MAX_PARTIES),
            key_id=decode_key_id(found["keyId"]),
            public_key=from_hex(found["publicKey"], field="publicKey", length=33, prefix=True),
            shares=_shares(_list(found["shares"], "shares", least=1, most=MOST_REQUESTS)),
            signature=from_hex(found["signature"], field="signature", length=65, prefix=True),
        )
    except InvalidFieldError as error:
        raise _malformed("the signature share", error) from error


def _shares(entries: Sequence[Json]) -> tuple[SignatureShare, ...]:
    read = (
        members(entry, "share", ("presignatureId", "noncePoint", "digest", "u", "w")) for entry in entries
    )
    return tuple(
        SignatureShare(
            presignature_id=from_hex(share["presignatureId"], field="presignatureId", length=32, prefix=True),
            nonce_point=from_hex(share["noncePoint"], field="noncePoint", length=33, prefix=True),
            digest=from_hex(share["digest"], field="digest", length=32, prefix=True),
            u=_scalar(share["u"], "u"),
            w=_scalar(share["w"], "w"),
        )
        for share in read
    )


def _malformed(what: str, error: DanError) -> NodeProtocolError:
    return NodeProtocolError(
        f"{what} is malformed: {error.message}", hint="The node does not speak dan-node/1"
    )

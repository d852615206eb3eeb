"""The hashes of signing in dan-node/1, in the style of node_hashes: nodes and clients compute them independently."""

from __future__ import annotations

from collections.abc import Sequence

from dan_async.models.signing import SignatureShares
from dan_async.types import MpcKeyId, OperatorAddress, RequestId
from dan_async.wire.node_hashes import tagged_hash, u32


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

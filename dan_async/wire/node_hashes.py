"""
The hashes of dan-node/1, which nodes and clients compute independently.

Every hash is ``H(tag, part, part, …)``: SHA-256 over the tag and the parts, each preceded by its length as a 32-bit
big-endian number. Numbers in a hash are 32 bits, big-endian; addresses are 20 bytes; points are 33 bytes, compressed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dan_async._hex import to_hex
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.types import MpcKeyId, OperatorAddress, RequestId


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

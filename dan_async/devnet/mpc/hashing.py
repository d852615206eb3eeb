"""
Domain-separated hashing for the protocols of this folder.

Every hash is ``H(tag, part, part, …)``: SHA-256 over the tag and the parts, each preceded by its length as a 32-bit
big-endian number, so that no two different inputs give the same bytes. The proofs that the modules cite treat it as a
random oracle, one for each tag.
"""

from __future__ import annotations

import hashlib

from dan_async.crypto.point import ORDER

DIGEST_BYTES = 32


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """Give H(tag, part, …), 32 bytes."""
    state = hashlib.sha256()
    for part in (tag.encode(), *parts):
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return state.digest()


def hash_to_scalar(tag: str, *parts: bytes) -> int:
    """
    Give H(tag, part, …) as a scalar.

    The group order lies within 2^129 of 2^256, so that reducing 256 bits is 2^-127 close to uniform.
    """
    return int.from_bytes(tagged_hash(tag, *parts), "big") % ORDER


def u32(number: int) -> bytes:
    """Give a number as 32 bits, big-endian."""
    return number.to_bytes(4, "big")

"""
The two hashes: Ethereum's Keccak-256, and SHA-256 with a tag for each purpose.

Keccak-256 is not the SHA3-256 of FIPS 202, whose padding differs. A tagged hash is ``H(tag, part, part, …)``: SHA-256 over
the tag and the parts, each preceded by its length as a 32-bit big-endian number, so that no two different inputs give the
same bytes. The proofs that the protocols' modules cite treat it as a random oracle, one for each tag.
"""

from __future__ import annotations

import hashlib

from eth_hash.backends.pysha3 import keccak256 as _keccak256

DIGEST_BYTES = 32


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 hash of *data*."""
    return _keccak256(data)


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """Return H(tag, part, …) as described above."""
    state = hashlib.sha256()
    for part in (tag.encode(), *parts):
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return state.digest()


def u32(number: int) -> bytes:
    """Return a number as 32 bits, big-endian."""
    return number.to_bytes(4, "big")

"""Keccak-256, the hash of Ethereum (not the SHA3-256 of FIPS 202, whose padding differs)."""

from __future__ import annotations

# The backend is named, not left to eth_hash.auto: that one prefers pycryptodome wherever another package happens to have
# installed it, and a hash of 64 bytes then takes six times as long.
from eth_hash.backends.pysha3 import keccak256 as _keccak256

__all__ = ["keccak256"]


def keccak256(data: bytes) -> bytes:
    """Give the 32-byte Keccak-256 hash of *data*."""
    return _keccak256(data)

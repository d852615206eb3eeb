"""
The two hashes: Ethereum's Keccak-256, and SHA-256 with a tag for each purpose; and what takes long to hash.

Keccak-256 is not the SHA3-256 of FIPS 202, whose padding differs. A tagged hash is ``H(tag, part, part, …)``: SHA-256 over
the tag and the parts, each preceded by its length as a 32-bit big-endian number, so that no two different inputs give the
same bytes. A part that is a number has 32 bits as well; an address or a request id stands for its bytes. The proofs that the
protocols' modules cite treat it as a random oracle, one for each tag.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache

from eth_hash.backends import pysha3

from dan_async.types import OperatorAddress, RequestId

DIGEST_BYTES = 32

#: Returns the 32-byte hash of bytes.
keccak256: Callable[[bytes], bytes] = pysha3.keccak256


def tagged_hash(tag: str, *parts: bytes | int | OperatorAddress | RequestId) -> bytes:
    """Return H(tag, part, …) as described above; the hex digits of addresses and ids were checked before."""
    framed = [_frame_tag(tag)]
    for part in parts:
        if isinstance(part, bytes):
            framed += len(part).to_bytes(4, "big"), part
        else:
            framed.append(_frame(part))
    return hashlib.sha256(b"".join(framed)).digest()


@lru_cache(maxsize=1024)  # one request is hashed several times, with the same few operators
def _frame(part: str | int) -> bytes:
    data = bytes.fromhex(part[2:]) if isinstance(part, str) else part.to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + data


@lru_cache(maxsize=64)
def _frame_tag(tag: str) -> bytes:
    data = tag.encode()
    return len(data).to_bytes(4, "big") + data


#: Characters and values of a message that take up to 5 ms to read and hash; 256 KiB of numbers take 0.2 s.
_LONG = 8 * 1024


def takes_long(message: object) -> bool:
    """Return whether a message, of any kind, should be read and hashed in a thread rather than on an event loop."""
    left, pending = _LONG - 8, [message]
    while pending and left > 0:
        value = pending.pop()
        if isinstance(value, str | bytes | bytearray):
            left -= len(value)
        elif isinstance(value, list | tuple | dict) or isinstance(value, Mapping):  # noqa: SIM101 - a mapping is slow to tell
            left -= 8 * len(value)  # not even looked at if they are too many
            if left > 0:
                pending += value if isinstance(value, list | tuple) else value.values()
    return left <= 0

"""
Keys, addresses, signatures and points: pure functions, no I/O.

Curve arithmetic is coincurve's (libsecp256k1); ed25519 is cryptography's.
"""

from dan_async.crypto import hashes
from dan_async.crypto.address import parse_address, public_key_to_address, to_checksum_address
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import (
    parse_signature,
    personal_message_digest,
    recover_address,
    recover_public_key,
    sign_digest,
)
from dan_async.errors import InvalidFieldError

__all__ = [
    "EphemeralKey",
    "keccak256",
    "parse_address",
    "parse_signature",
    "personal_message_digest",
    "public_key_to_address",
    "recover_address",
    "recover_public_key",
    "sign_digest",
    "to_checksum_address",
    "typed_data_digest",
]


def keccak256(data: bytes) -> bytes:
    """
    Return the 32-byte Keccak-256 hash of some bytes.

    Args:
        data: The bytes.

    Raises:
        InvalidFieldError: They are something else.
    """
    try:
        return hashes.keccak256(data)
    except TypeError:
        raise InvalidFieldError("data", f"must be bytes, not {type(data).__name__}") from None

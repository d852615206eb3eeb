"""Checks what an ephemeral key signed, in the way of the wire format (WIRE, "Authentication by the ephemeral key")."""

from __future__ import annotations

from dan_async._hex import from_hex
from dan_async.crypto.point import compress
from dan_async.crypto.signature import personal_message_digest, recover_public_key
from dan_async.errors import InvalidFieldError
from dan_async.types import KeyAlgorithm

__all__ = ["is_signed_by"]

_ED25519_LENGTH = 64


def is_signed_by(public_key: bytes, algorithm: KeyAlgorithm, data: bytes, signature: str) -> bool:
    """
    Tell whether ``EphemeralKey.sign_message`` of that key gave this signature over these bytes.

    Args:
        public_key: 65 bytes uncompressed for secp256k1, 32 bytes for ed25519.
        algorithm: The key's.
        data: The bytes.
        signature: 0x hex: for ed25519 64 bytes, for secp256k1 65 bytes over the EIP-191 personal message.

    Raises:
        InvalidFieldError: The public key is on no curve.
    """
    if algorithm == "ed25519":
        return _is_ed25519(public_key, data, signature)
    known = compress(public_key)
    try:
        return recover_public_key(personal_message_digest(data), signature) == known
    except InvalidFieldError:
        return False


def _is_ed25519(public_key: bytes, data: bytes, signature: str) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        raw = from_hex(signature, field="signature", length=_ED25519_LENGTH)
        Ed25519PublicKey.from_public_bytes(public_key).verify(raw, data)
    except (InvalidFieldError, InvalidSignature):
        return False
    return True

"""
Recoverable ECDSA signatures on secp256k1 in Ethereum's form: 65 bytes r, s, v with v 27 or 28.

Low-s (EIP-2) and deterministic (RFC 6979) where we make them; checked strictly where we read them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from coincurve import PrivateKey, PublicKey

from dan_async._values import from_hex
from dan_async.crypto.address import point_to_address
from dan_async.crypto.curve import HALF_ORDER, ORDER
from dan_async.crypto.hashes import DIGEST_BYTES, keccak256
from dan_async.errors import InvalidFieldError
from dan_async.types import Address

#: A private key made ready for many signatures.
SigningKey: TypeAlias = PrivateKey

_SECRET_LENGTH = 32
_SIGNATURE_LENGTH = 65

#: Last byte of a signature as wallets write it -> recovery id, and that -> last byte as we write it.
_RECOVERY_IDS = {0: 0, 1: 1, 27: 0, 28: 1}
_LAST_BYTES = (b"\x1b", b"\x1c")

_ZERO, _ORDER, _HALF_ORDER = bytes(32), ORDER.to_bytes(32, "big"), HALF_ORDER.to_bytes(32, "big")


def signing_key(secret: bytes, *, field: str = "private_key") -> SigningKey:
    """Make a private key ready for many signatures; its ``secret`` is a copy that cannot be wiped."""
    # coincurve would pad a shorter secret with zeros.
    if isinstance(secret, bytes) and len(secret) == _SECRET_LENGTH:
        try:
            return PrivateKey(secret)
        except ValueError:
            pass
    raise InvalidFieldError(field, "must be 32 bytes, from 1 to the group order - 1")


def sign_digest(private_key: bytes | SigningKey, digest: bytes) -> bytes:
    """
    Sign a digest.

    Args:
        private_key: 32 bytes, or a ``signing_key`` where many signatures are made: making one costs more than a
            signature.
        digest: 32 bytes.

    Returns:
        65 bytes: r, s (low) and v (27 or 28).

    Raises:
        InvalidFieldError: The key or the digest is wrong.
    """
    if not isinstance(private_key, PrivateKey):
        private_key = signing_key(private_key)
    if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
        raise InvalidFieldError("digest", "must be 32 bytes")
    signature = private_key.sign_recoverable(digest, hasher=None)
    return signature[:64] + bytes((27 + signature[64],))


def personal_message_digest(message: bytes) -> bytes:
    """
    Return the digest of an EIP-191 personal message (version 0x45), which ``personal_sign`` signs.

    Args:
        message: The message's bytes; text is encoded by the caller.

    Raises:
        InvalidFieldError: It is not bytes.
    """
    try:
        return keccak256(b"\x19Ethereum Signed Message:\n%d" % len(message) + message)
    except TypeError:
        raise InvalidFieldError("message", f"must be bytes, not {type(message).__name__}") from None


def parse_signature(value: str | bytes, *, field: str = "signature") -> bytes:
    """
    Read a signature strictly and return it in one form.

    A high s is replaced by q - s and v flipped. Both forms are signatures of the same key over the same digest, some
    wallets and hardware keys return the high one, and contracts refuse it (EIP-2); after this step two signatures are
    equal only if their bytes are.

    Args:
        value: 65 bytes, or hex with or without 0x. v may be 0, 1, 27 or 28.
        field: Its name, for the error.

    Returns:
        65 bytes with low s and v 27 or 28.

    Raises:
        InvalidFieldError: It has another length (the 64-byte form of EIP-2098 is refused), v is something else, or
            r or s is not from 1 to q - 1.
    """
    if isinstance(value, str):
        value = from_hex(value, field=field)
    elif not isinstance(value, bytes):
        raise InvalidFieldError(field, f"must be bytes or hex text, not {type(value).__name__}")
    if len(value) != _SIGNATURE_LENGTH:
        raise InvalidFieldError(field, f"must hold 65 bytes (r, s, v), not {len(value)}")
    recovery_id = _RECOVERY_IDS.get(value[64])
    if recovery_id is None:
        raise InvalidFieldError(field, "must end with v = 0, 1, 27 or 28")
    r, s = value[:32], value[32:64]  # numbers of one length compare as their bytes do
    if not (_ZERO < r < _ORDER and _ZERO < s < _ORDER):
        raise InvalidFieldError(field, "must have r and s from 1 to the group order - 1")
    if s > _HALF_ORDER:
        return r + (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big") + _LAST_BYTES[1 - recovery_id]
    return value[:64] + _LAST_BYTES[recovery_id]


def read_signature(digest: bytes, signature: str | bytes) -> tuple[bytes, Address]:
    """Return a signature in its one form, and its signer: ``parse_signature`` and ``recover_address`` in one step."""
    parsed = parse_signature(signature)
    return parsed, point_to_address(_recover(digest, parsed))


def signer_of(digest: bytes, signature: str | bytes) -> str | None:
    """Return the address whose key signed a digest; None if it is no signature."""
    try:
        return point_to_address(_recover(digest, parse_signature(signature)))
    except InvalidFieldError:
        return None


def recover_address(digest: bytes, signature: str | bytes) -> Address:
    """
    Return the address whose key made a signature.

    Args:
        digest: The 32 bytes that were signed.
        signature: As ``parse_signature`` takes it.

    Raises:
        InvalidFieldError: The signature is malformed or belongs to no key.
    """
    return point_to_address(_recover(digest, parse_signature(signature)))


def recover_public_key(digest: bytes, signature: str | bytes) -> bytes:
    """
    Return the public key that made a signature.

    Args:
        digest: The 32 bytes that were signed.
        signature: As ``parse_signature`` takes it.

    Returns:
        33 bytes, compressed.

    Raises:
        InvalidFieldError: The signature is malformed or belongs to no key.
    """
    return _recover(digest, parse_signature(signature)).format(compressed=True)


def _recover(digest: bytes, parsed: bytes) -> PublicKey:
    if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
        raise InvalidFieldError("digest", "must be 32 bytes")
    return _recover_checked(digest, parsed)


@lru_cache(maxsize=64)
def _recover_checked(digest: bytes, parsed: bytes) -> PublicKey:
    """Recover; remembered, since a new signature is checked by whoever makes it and by whoever hands it on."""
    try:
        return PublicKey.from_signature_and_message(
            parsed[:64] + bytes((parsed[64] - 27,)), digest, hasher=None
        )
    except ValueError:  # r is no x coordinate of a point
        raise InvalidFieldError("signature", "belongs to no public key") from None

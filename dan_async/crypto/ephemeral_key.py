"""
The short-lived key that stands for the owner until it expires: made here, signs here, is never shown.

Its signatures, and the check of them, are as the public clients send them to a gateway; see docs/reference/gateway.md.
"""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, NoReturn, Self

from coincurve import PublicKey

from dan_async._values import check_algorithm, from_hex, to_hex
from dan_async.crypto.curve import compress
from dan_async.crypto.signature import (
    SigningKey,
    personal_message_digest,
    recover_public_key,
    sign_digest,
    signing_key,
)
from dan_async.errors import ClientClosedError, InvalidFieldError
from dan_async.types import Hex, KeyAlgorithm

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ID_PREFIX = b"dan ephemeral key"
_ID_DIGITS = 32
_ED25519_LENGTH = 64


class EphemeralKey:
    """
    An ephemeral private key. Make one with ``generate`` or ``from_hex``.

    The key is held in a buffer that ``wipe``, or leaving the ``with`` block, overwrites with zeros. Python cannot wipe the
    text that ``to_hex`` returns, the text given to ``from_hex``, and the copies that the cryptographic libraries make when
    it signs; ``wipe`` drops them.

    Attributes:
        algorithm: ``"secp256k1"`` or ``"ed25519"``.
        public_key: 65 bytes uncompressed for secp256k1, 32 bytes for ed25519.
    """

    __slots__ = ("_secret", "_signing_key", "algorithm", "public_key")

    algorithm: KeyAlgorithm
    public_key: bytes

    def __init__(self, secret: bytearray, algorithm: KeyAlgorithm) -> None:
        self._secret = secret
        #: Kept: making the libraries' own object of a key costs more than a signature.
        self._signing_key: SigningKey | Ed25519PrivateKey | None = None
        self.algorithm = algorithm
        if algorithm == "secp256k1":
            self.public_key = PublicKey.from_valid_secret(bytes(secret)).format(compressed=False)
        else:
            check_algorithm("algorithm", algorithm)
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            key = Ed25519PrivateKey.from_private_bytes(bytes(secret))
            self.public_key, self._signing_key = key.public_key().public_bytes_raw(), key

    @classmethod
    def generate(cls, algorithm: KeyAlgorithm = "secp256k1") -> Self:
        """
        Make a new key from the operating system's randomness.

        Args:
            algorithm: ``"secp256k1"`` or ``"ed25519"``.

        Raises:
            InvalidFieldError: The algorithm is another one.
        """
        check_algorithm("algorithm", algorithm)
        while True:
            try:
                return cls(bytearray(secrets.token_bytes(32)), algorithm)
            except ValueError:  # 0 or not below the group order, once in 2**128 draws
                continue

    @classmethod
    def from_hex(
        cls, text: str, algorithm: KeyAlgorithm = "secp256k1", *, field: str = "ephemeral_key"
    ) -> Self:
        """
        Take an existing key.

        Args:
            text: 64 hex digits, with or without 0x.
            algorithm: ``"secp256k1"`` or ``"ed25519"``.
            field: Its name, for the error.

        Raises:
            InvalidFieldError: The text is not such a key, or the algorithm is another one. The text is not repeated.
        """
        check_algorithm("algorithm", algorithm)
        secret = bytearray(from_hex(text, field=field, length=32))
        try:
            return cls(secret, algorithm)
        except ValueError:
            raise InvalidFieldError(
                field, "is not a private key of secp256k1: 0, or not below its order"
            ) from None

    @property
    def default_id(self) -> str:
        """
        The nodes' name for it unless the caller chooses one: 32 hex digits, no 0x.

        The first 16 bytes of SHA-256 over ``dan ephemeral key``, the algorithm's name and the public key, so that
        the private key alone is enough to find it again.
        """
        return sha256(_ID_PREFIX + self.algorithm.encode() + self.public_key).hexdigest()[:_ID_DIGITS]

    def to_hex(self) -> str:
        """
        Return the private key itself: 64 hex digits, no 0x.

        Raises:
            ClientClosedError: It was wiped.
        """
        return self._use().hex()

    def sign_message(self, data: bytes) -> Hex:
        """
        Sign bytes as the wire format demands.

        Args:
            data: The bytes.

        Returns:
            0x hex: for ed25519 the plain 64-byte signature; for secp256k1 an EIP-191 personal message, 65 bytes.

        Raises:
            ClientClosedError: The key was wiped.
        """
        secret, key = self._use(), self._signing_key
        if key is None:
            key = self._signing_key = signing_key(bytes(secret))
        if isinstance(key, SigningKey):
            return to_hex(sign_digest(key, personal_message_digest(data)))
        return to_hex(key.sign(data))

    def wipe(self) -> None:
        """Overwrite the key with zeros; it cannot be used any more. May be called twice."""
        self._secret[:] = bytes(len(self._secret))
        self._secret = bytearray()
        self._signing_key = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return f"EphemeralKey(algorithm={self.algorithm!r}, public_key={to_hex(self.public_key)!r}, secret='***')"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # copy.copy and copy.deepcopy call this too: a copy would outlive wipe().
        raise TypeError(
            "an EphemeralKey is neither pickled nor copied; use to_hex() where the key itself is wanted"
        )

    def __getstate__(self) -> NoReturn:
        raise TypeError("an EphemeralKey does not give its state")

    def _use(self) -> bytearray:
        if not self._secret:
            raise ClientClosedError("the ephemeral key was wiped", hint="Make a new one")
        return self._secret


def is_signed_by(public_key: bytes, algorithm: KeyAlgorithm, data: bytes, signature: str) -> bool:
    """Return whether *signature* is that key's ``EphemeralKey.sign_message`` of these bytes."""
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

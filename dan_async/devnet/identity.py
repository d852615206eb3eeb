"""Who a node is: a secp256k1 key whose Ethereum address is the node's operator address."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import NoReturn, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dan_async._hex import from_hex
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.point import ORDER
from dan_async.crypto.signature import sign_digest, signing_key
from dan_async.devnet.share_store import replace_file
from dan_async.types import OperatorAddress

__all__ = ["NodeIdentity"]

_STORAGE_INFO = b"dan-devnet share store key"


class NodeIdentity:
    """
    A node's identity key.

    Args:
        secret: The private key, 32 bytes.

    Raises:
        InvalidFieldError: It is not a private key.
    """

    __slots__ = ("_key", "operator")

    def __init__(self, secret: bytes) -> None:
        self._key = signing_key(secret)
        self.operator = OperatorAddress(public_key_to_address(self._key.public_key.format()))

    @classmethod
    def generate(cls) -> Self:
        """Make a new one."""
        while True:
            secret = secrets.token_bytes(32)
            if 0 < int.from_bytes(secret, "big") < ORDER:
                return cls(secret)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read a private key: 64 hex digits, no 0x."""
        return cls(from_hex(text, field="identity", length=32, prefix=False))

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """
        Read the identity kept in a file, or make one and keep it there, with mode 0600.

        The file is not encrypted: whoever can read it is the node.

        Raises:
            InvalidFieldError: The file holds something else.
        """
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            identity = cls.generate()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, identity.to_hex().encode() + b"\n")
            return identity
        return cls.from_hex(text.strip())

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest: 65 bytes r, s, v."""
        return sign_digest(self._key, digest)

    def storage_key(self) -> bytes:
        """Derive the key that encrypts this node's records (HKDF-SHA256)."""
        return HKDF(SHA256(), 32, salt=None, info=_STORAGE_INFO).derive(self._key.secret)

    def to_hex(self) -> str:
        """Give the private key as 64 hex digits, to be handed to the node's own process or file and to nobody else."""
        return self._key.secret.hex()

    def __repr__(self) -> str:
        return f"NodeIdentity(operator={self.operator!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a node's identity is not pickled: it would carry the private key")

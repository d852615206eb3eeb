"""A wallet that is a private key in this process."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from dan_async._values import from_hex, to_hex
from dan_async.crypto.address import point_to_address
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.hashes import takes_long
from dan_async.crypto.signature import personal_message_digest, sign_digest, signing_key
from dan_async.types import Address, Hex, TypedData


class LocalWallet:
    """
    Signs with a private key that this process holds, without asking anyone.

    Args:
        private_key: 32 bytes, or 64 hex digits with or without 0x. It stays in memory as long as the wallet does, and
            Python gives no way to wipe it.

    Raises:
        InvalidFieldError: It is not a private key; it is not repeated.
    """

    __slots__ = ("_key", "address")

    address: Address
    #: No person is asked.
    interactive = False

    def __init__(self, private_key: str | bytes) -> None:
        secret = (
            private_key
            if isinstance(private_key, bytes)
            else from_hex(private_key, field="private_key", length=32)
        )
        self._key = signing_key(secret)
        self.address = point_to_address(self._key.public_key)

    async def sign_typed_data(self, typed_data: TypedData) -> Hex:
        """
        Sign EIP-712 typed data; see ``Wallet``.

        Raises:
            InvalidFieldError: It is not well-formed typed data.
        """
        if takes_long(typed_data):
            digest = await asyncio.to_thread(typed_data_digest, typed_data)
        else:
            digest = typed_data_digest(typed_data)
        return to_hex(self.sign_digest(digest))

    def sign_digest(self, digest: bytes) -> bytes:
        """
        Sign a digest.

        Args:
            digest: 32 bytes. Sign none that somebody else has computed: nothing shows its meaning.

        Returns:
            65 bytes: r, s (low) and v (27 or 28).

        Raises:
            InvalidFieldError: It has another length.
        """
        return sign_digest(self._key, digest)

    async def sign_message(self, message: bytes) -> Hex:
        """
        Sign a personal message (EIP-191), as ``personal_sign`` does; smart accounts take it for a user operation's hash.

        Args:
            message: The message's bytes.

        Returns:
            ``0x`` and 130 hex digits: r, s, v.
        """
        return to_hex(sign_digest(self._key, personal_message_digest(message)))

    async def sign_authorisation(self, *, chain_id: int, address: str, nonce: int) -> Hex:
        """
        Sign that this key's account runs the code of a contract (EIP-7702). ``SmartAccountClient`` asks for it.

        Args:
            chain_id: The chain; 0 for every chain.
            address: The contract, which may do anything with the account: know it.
            nonce: The account's nonce for which it holds.

        Returns:
            ``0x`` and 65 bytes r, s, v in hex.

        Raises:
            InvalidFieldError: An argument is wrong.
        """
        from dan_async.crypto.set_code import authorisation_digest

        digest = authorisation_digest(chain_id=chain_id, address=address, nonce=nonce)
        return to_hex(self.sign_digest(digest))

    def __repr__(self) -> str:
        return f"LocalWallet(address={self.address!r}, private_key='***')"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a LocalWallet is neither pickled nor copied, since it holds a private key")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a LocalWallet does not give its state, since it holds a private key")

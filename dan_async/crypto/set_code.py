"""
EIP-7702: the authorisation by which an EOA runs a contract's code, and the type-4 transaction that carries one.

Both are hashed over RLP (Ethereum's Yellow Paper, appendix B), of which this needs the writing only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import evolve, field, frozen

from dan_async._values import check_int, to_hex
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import keccak256
from dan_async.crypto.signature import parse_signature, recover_address
from dan_async.errors import InvalidFieldError
from dan_async.types import Address, Hex

_Item: TypeAlias = "bytes | int | Sequence[_Item]"

#: Longest text or list whose length fits into its first byte.
_SHORT = 55

#: What an authorisation, and a transaction with some, are hashed with in front.
_AUTHORISATION, _TRANSACTION = b"\x05", b"\x04"

#: The code of an EOA that runs another's: this, then the address.
DELEGATION_PREFIX = b"\xef\x01\x00"


def encode_rlp(item: _Item) -> bytes:
    """Encode bytes, a number or a list of them."""
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8)
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _headed(0x80, item)
    return _headed(0xC0, b"".join(map(encode_rlp, item)))


def _headed(start: int, content: bytes) -> bytes:
    if len(content) <= _SHORT:
        return bytes((start + len(content),)) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((start + _SHORT + len(length),)) + length + content


def authorisation_digest(*, chain_id: int, address: str, nonce: int) -> bytes:
    """
    Return the digest that an EOA signs to run a contract's code (EIP-7702: ``keccak(0x05 ‖ rlp([chain, address, nonce]))``).

    Args:
        chain_id: The chain; 0 for every chain.
        address: The contract; the zero address ends the delegation.
        nonce: The EOA's nonce when the authorisation is applied, below 2**64 - 1.

    Raises:
        InvalidFieldError: An argument is wrong.
    """
    check_int("chain_id", chain_id, least=0, most=2**256 - 1)
    check_int("nonce", nonce, least=0, most=2**64 - 2)
    where = bytes.fromhex(parse_address("address", address)[2:])
    return keccak256(_AUTHORISATION + encode_rlp((chain_id, where, nonce)))


def _read_address(value: str) -> Address:
    return parse_address("address", value)


@frozen(kw_only=True)
class Authorisation:
    """
    An EOA's signed permission to run a contract's code at its own address (EIP-7702).

    Args:
        chain_id: The chain on which it holds; 0 for every chain.
        address: The contract; the zero address ends the delegation.
        nonce: The EOA's nonce for which it holds.
        signature: 65 bytes r, s, v, or their hex.

    Raises:
        InvalidFieldError: A field is wrong, or the signature belongs to no key.
    """

    chain_id: int
    address: Address = field(converter=_read_address)
    nonce: int
    signature: bytes = field(converter=parse_signature, repr=False)
    #: Whose it is, by its signature.
    authority: Address = field(init=False)

    def __attrs_post_init__(self) -> None:
        digest = authorisation_digest(chain_id=self.chain_id, address=self.address, nonce=self.nonce)
        object.__setattr__(self, "authority", recover_address(digest, self.signature))

    def to_dict(self) -> dict[str, Hex]:
        """Return its form in JSON-RPC: a member of *authorizationList*, and a bundler's *eip7702Auth*."""
        return {
            "chainId": hex(self.chain_id),
            "address": self.address,
            "nonce": hex(self.nonce),
            "yParity": hex(self.signature[64] - 27),
            "r": to_hex(self.signature[:32]),
            "s": to_hex(self.signature[32:64]),
        }

    def _fields(self) -> tuple[_Item, ...]:
        r, s = int.from_bytes(self.signature[:32]), int.from_bytes(self.signature[32:64])
        return (self.chain_id, bytes.fromhex(self.address[2:]), self.nonce, self.signature[64] - 27, r, s)


@frozen(kw_only=True)
class SetCodeTransaction:
    """A transaction of type 4. Prices in wei for each unit of gas; *signature* is empty before it is signed."""

    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    to: Address
    data: bytes = field(repr=False)
    authorisations: tuple[Authorisation, ...]
    signature: bytes = field(default=b"", repr=False)

    def _fields(self) -> tuple[_Item, ...]:
        return (
            self.chain_id,
            self.nonce,
            self.max_priority_fee_per_gas,
            self.max_fee_per_gas,
            self.gas_limit,
            bytes.fromhex(self.to[2:]),
            0,
            self.data,
            (),
            tuple(one._fields() for one in self.authorisations),
        )

    def digest(self) -> bytes:
        """Return what its sender signs."""
        return keccak256(_TRANSACTION + encode_rlp(self._fields()))

    def signed(self, signature: bytes) -> SetCodeTransaction:
        """Return it with its sender's signature: 65 bytes r, s, v."""
        return evolve(self, signature=parse_signature(signature))

    def encode(self) -> bytes:
        """Return the bytes for ``eth_sendRawTransaction``."""
        if not self.signature:
            raise InvalidFieldError("signature", "is missing from the transaction")
        r, s = int.from_bytes(self.signature[:32]), int.from_bytes(self.signature[32:64])
        return _TRANSACTION + encode_rlp((*self._fields(), self.signature[64] - 27, r, s))

"""
ERC-4337: the hash that the entry point gives a user operation, and that the account's owner signs.

Follows ``getUserOpHash`` of the EntryPoint contracts v0.6 (``UserOperationLib.pack`` over ``UserOperation``) and v0.7 (over
``PackedUserOperation``). Everything hashed is a 32-byte word, since the ABI's variable-length members go in as their
Keccak-256; so the packing is a row of words and needs no ABI library.

Operations are known here by their fields alone: crypto lies below models, whose user operations have these fields.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

from dan_async.crypto.address import parse_address
from dan_async.crypto.keccak import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.types import EntryPointVersion

__all__ = ["HashableV06", "HashableV07", "user_operation_hash"]

_LARGEST = 2**256 - 1


class _Hashable(Protocol):
    # Read-only members, so that frozen classes and properties fit.
    @property
    def sender(self) -> str:
        """The smart account: ``0x`` and 40 hex digits."""
        ...

    @property
    def nonce(self) -> int:
        """Its nonce, of 256 bits."""
        ...

    @property
    def init_code(self) -> bytes:
        """The factory and its call, or nothing."""
        ...

    @property
    def call_data(self) -> bytes:
        """What the account is called with."""
        ...

    @property
    def pre_verification_gas(self) -> int:
        """Gas for the bundler's own costs, of 256 bits."""
        ...

    @property
    def paymaster_and_data(self) -> bytes:
        """The paymaster and its data, or nothing."""
        ...


class HashableV06(_Hashable, Protocol):
    """The fields of a v0.6 operation that its hash covers: numbers have at most 256 bits."""

    version: ClassVar[Literal["v0.6.0"]]

    @property
    def call_gas_limit(self) -> int:
        """Gas for the call."""
        ...

    @property
    def verification_gas_limit(self) -> int:
        """Gas for checking the operation."""
        ...

    @property
    def max_fee_per_gas(self) -> int:
        """The highest price in wei."""
        ...

    @property
    def max_priority_fee_per_gas(self) -> int:
        """The highest tip in wei."""
        ...


class HashableV07(_Hashable, Protocol):
    """The fields of a v0.7 operation that its hash covers, packed as the contract takes them."""

    version: ClassVar[Literal["v0.7.0"]]

    @property
    def account_gas_limits(self) -> bytes:
        """Verification and call gas limit, 16 bytes each."""
        ...

    @property
    def gas_fees(self) -> bytes:
        """Highest tip and price, 16 bytes each."""
        ...


def user_operation_hash(
    operation: HashableV06 | HashableV07, *, entry_point: str, chain_id: int, version: EntryPointVersion
) -> bytes:
    """
    Give the 32 bytes that ``EntryPoint.getUserOpHash`` gives; the operation's signature has no part in them.

    Args:
        operation: The operation, of the models or with the same fields.
        entry_point: The entry point's address.
        chain_id: The chain's id, at least 1.
        version: The entry point's version, which must be the operation's.

    Raises:
        InvalidFieldError: The version is not the operation's, or another argument is wrong.
    """
    if operation.version != version:
        raise InvalidFieldError(
            "version", f"is not the user operation's, which has the form of {operation.version}"
        )
    entry_point = parse_address("entry_point", entry_point)
    if isinstance(chain_id, bool) or not isinstance(chain_id, int) or not 1 <= chain_id <= _LARGEST:
        raise InvalidFieldError("chain_id", "must be a whole number from 1 to 2**256 - 1")
    words = _words_v06(operation) if operation.version == "v0.6.0" else _words_v07(operation)
    return keccak256(keccak256(b"".join(words)) + _address(entry_point) + _number(chain_id))


def _words_v06(operation: HashableV06) -> list[bytes]:
    return [
        _address(operation.sender),
        _number(operation.nonce),
        keccak256(operation.init_code),
        keccak256(operation.call_data),
        _number(operation.call_gas_limit),
        _number(operation.verification_gas_limit),
        _number(operation.pre_verification_gas),
        _number(operation.max_fee_per_gas),
        _number(operation.max_priority_fee_per_gas),
        keccak256(operation.paymaster_and_data),
    ]


def _words_v07(operation: HashableV07) -> list[bytes]:
    return [
        _address(operation.sender),
        _number(operation.nonce),
        keccak256(operation.init_code),
        keccak256(operation.call_data),
        operation.account_gas_limits,
        _number(operation.pre_verification_gas),
        operation.gas_fees,
        keccak256(operation.paymaster_and_data),
    ]


def _address(address: str) -> bytes:
    return bytes(12) + bytes.fromhex(address[2:])


def _number(value: int) -> bytes:
    return value.to_bytes(32)

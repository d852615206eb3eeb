"""User operations of EntryPoint v0.7 as the contract takes them: gas limits, prices and paymaster packed into words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from attrs import field, frozen

from dan_async.models._fields import number_of
from dan_async.models._user_operation_fields import (
    JsonRpcForm,
    Member,
    address,
    address_and_data,
    data,
    shorten,
    word,
)
from dan_async.types import Address

__all__ = [
    "ADDRESS_LENGTH",
    "HALF_WORD",
    "PAYMASTER_HEAD",
    "PackedUserOperation",
]

ADDRESS_LENGTH = 20

#: Bytes of a gas limit or a price.
HALF_WORD = 16

#: Where the paymaster's own data begins in a packed paymasterAndData: after the address and two gas limits.
PAYMASTER_HEAD = ADDRESS_LENGTH + 2 * HALF_WORD


@frozen(kw_only=True)
class PackedUserOperation(JsonRpcForm):
    """
    A user operation of EntryPoint v0.7 as the contract takes it.

    Args:
        sender: The smart account.
        nonce: Its nonce in the entry point.
        init_code: The factory's address and its call, if the account is not deployed yet.
        call_data: What the entry point calls the account with.
        account_gas_limits: 32 bytes: verification gas limit and call gas limit, 16 each.
        pre_verification_gas: Gas that is paid for the bundler's own costs.
        gas_fees: 32 bytes: highest tip and highest price, 16 each.
        paymaster_and_data: Paymaster, its two gas limits of 16 bytes, its data; or nothing.
        signature: The account's signature; empty before it is made.

    Raises:
        InvalidFieldError: A field is wrong.
    """

    version: ClassVar[Literal["v0.7.0"]] = "v0.7.0"
    members: ClassVar[Mapping[str, Member]] = {
        "sender": Member("sender", address),
        "nonce": Member("nonce", number_of(256)),
        "init_code": Member("initCode", address_and_data(ADDRESS_LENGTH), needed=False),
        "call_data": Member("callData", data),
        "account_gas_limits": Member("accountGasLimits", word),
        "pre_verification_gas": Member("preVerificationGas", number_of(256)),
        "gas_fees": Member("gasFees", word),
        "paymaster_and_data": Member("paymasterAndData", address_and_data(PAYMASTER_HEAD), needed=False),
        "signature": Member("signature", data, needed=False),
    }

    sender: Address
    nonce: int
    init_code: bytes = field(default=b"", repr=shorten)
    call_data: bytes = field(repr=shorten)
    account_gas_limits: bytes = field(repr=shorten)
    pre_verification_gas: int
    gas_fees: bytes = field(repr=shorten)
    paymaster_and_data: bytes = field(default=b"", repr=shorten)
    signature: bytes = field(default=b"", repr=shorten)

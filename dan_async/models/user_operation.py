"""
User operations of ERC-4337 v0.6 and v0.7, in the JSON-RPC form of bundlers (ERC-7769).

Inputs are normalised: numbers may be ints, ``0x`` hex or decimal texts; bytes may be bytes, or hex text with or without
``0x``, which the earliest TypeScript clients leave away. ``to_dict`` has one form: quantities and bytes as ``0x`` hex.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, TypeAlias

from attrs import field, fields, frozen

from dan_async._hex import to_hex
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import number_of
from dan_async.models._user_operation_fields import (
    JsonRpcForm,
    Member,
    address,
    address_and_data,
    data,
    shorten,
)
from dan_async.models.packed_user_operation import (
    ADDRESS_LENGTH,
    HALF_WORD,
    PAYMASTER_HEAD,
    PackedUserOperation,
)
from dan_async.types import Address, EntryPointVersion

__all__ = [
    "PackedUserOperation",
    "UserOperation",
    "UserOperationV06",
    "UserOperationV07",
    "user_operation_from_dict",
]


@frozen(kw_only=True)
class UserOperationV06(JsonRpcForm):
    """
    A user operation of EntryPoint v0.6. Numbers are unsigned and of 256 bits; prices are in wei for each unit of gas.

    Args:
        sender: The smart account.
        nonce: Its nonce in the entry point: 192 bits of lane, 64 bits of sequence.
        init_code: The factory's address and its call, if the account is not deployed yet.
        call_data: What the entry point calls the account with.
        call_gas_limit: Gas for that call.
        verification_gas_limit: Gas for checking the operation.
        pre_verification_gas: Gas that is paid for the bundler's own costs.
        max_fee_per_gas: The highest price (EIP-1559).
        max_priority_fee_per_gas: The highest tip.
        paymaster_and_data: The paymaster's address and its data, if one pays.
        signature: The account's signature; empty before it is made.

    Raises:
        InvalidFieldError: A field is wrong.
    """

    version: ClassVar[Literal["v0.6.0"]] = "v0.6.0"
    members: ClassVar[Mapping[str, Member]] = {
        "sender": Member("sender", address),
        "nonce": Member("nonce", number_of(256)),
        "init_code": Member("initCode", address_and_data(ADDRESS_LENGTH), needed=False),
        "call_data": Member("callData", data),
        "call_gas_limit": Member("callGasLimit", number_of(256)),
        "verification_gas_limit": Member("verificationGasLimit", number_of(256)),
        "pre_verification_gas": Member("preVerificationGas", number_of(256)),
        "max_fee_per_gas": Member("maxFeePerGas", number_of(256)),
        "max_priority_fee_per_gas": Member("maxPriorityFeePerGas", number_of(256)),
        "paymaster_and_data": Member("paymasterAndData", address_and_data(ADDRESS_LENGTH), needed=False),
        "signature": Member("signature", data, needed=False),
    }

    sender: Address
    nonce: int
    init_code: bytes = field(default=b"", repr=shorten)
    call_data: bytes = field(repr=shorten)
    call_gas_limit: int
    verification_gas_limit: int
    pre_verification_gas: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    paymaster_and_data: bytes = field(default=b"", repr=shorten)
    signature: bytes = field(default=b"", repr=shorten)


#: Our fields that belong to a paymaster, and mean nothing without one; likewise the factory's.
_OF_PAYMASTER = ("paymaster_verification_gas_limit", "paymaster_post_op_gas_limit", "paymaster_data")
_OF_FACTORY = ("factory_data",)
_EMPTY = (None, "", "0x")


@frozen(kw_only=True)
class UserOperationV07(JsonRpcForm):
    """
    A user operation of EntryPoint v0.7 in the form of JSON-RPC. Gas limits and prices have at most 128 bits.

    Args:
        sender: The smart account.
        nonce: Its nonce in the entry point.
        factory: The account's factory, if it is not deployed yet.
        factory_data: What the factory is called with; needs a factory.
        call_data: What the entry point calls the account with.
        call_gas_limit: Gas for that call.
        verification_gas_limit: Gas for checking the operation.
        pre_verification_gas: Gas that is paid for the bundler's own costs; up to 256 bits.
        max_fee_per_gas: The highest price in wei (EIP-1559).
        max_priority_fee_per_gas: The highest tip in wei.
        paymaster: Who pays instead of the account, if anyone.
        paymaster_verification_gas_limit: Gas for the paymaster's check; needs a paymaster. None counts as 0.
        paymaster_post_op_gas_limit: Gas for what it does afterwards; likewise.
        paymaster_data: What it is given; likewise.
        signature: The account's signature; empty before it is made.

    Raises:
        InvalidFieldError: A field is wrong, or belongs to a factory or paymaster that is not named.
    """

    version: ClassVar[Literal["v0.7.0"]] = "v0.7.0"
    members: ClassVar[Mapping[str, Member]] = {
        "sender": Member("sender", address),
        "nonce": Member("nonce", number_of(256)),
        "factory": Member("factory", address, needed=False),
        "factory_data": Member("factoryData", data, needed=False),
        "call_data": Member("callData", data),
        "call_gas_limit": Member("callGasLimit", number_of(128)),
        "verification_gas_limit": Member("verificationGasLimit", number_of(128)),
        "pre_verification_gas": Member("preVerificationGas", number_of(256)),
        "max_fee_per_gas": Member("maxFeePerGas", number_of(128)),
        "max_priority_fee_per_gas": Member("maxPriorityFeePerGas", number_of(128)),
        "paymaster": Member("paymaster", address, needed=False),
        "paymaster_verification_gas_limit": Member(
            "paymasterVerificationGasLimit", number_of(128), needed=False
        ),
        "paymaster_post_op_gas_limit": Member("paymasterPostOpGasLimit", number_of(128), needed=False),
        "paymaster_data": Member("paymasterData", data, needed=False),
        "signature": Member("signature", data, needed=False),
    }

    sender: Address
    nonce: int
    factory: Address | None = None
    factory_data: bytes | None = field(default=None, repr=shorten)
    call_data: bytes = field(repr=shorten)
    call_gas_limit: int
    verification_gas_limit: int
    pre_verification_gas: int
    max_fee_per_gas: int
    max_priority_fee_per_gas: int
    paymaster: Address | None = None
    paymaster_verification_gas_limit: int | None = None
    paymaster_post_op_gas_limit: int | None = None
    paymaster_data: bytes | None = field(default=None, repr=shorten)
    signature: bytes = field(default=b"", repr=shorten)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for owner, belongings in (("factory", _OF_FACTORY), ("paymaster", _OF_PAYMASTER)):
            for ours in belongings:
                if getattr(self, owner) is None and getattr(self, ours):
                    raise InvalidFieldError(self.members[ours].wire, f"needs a {owner}")

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """
        Read the camelCase form of JSON-RPC, strictly, and the form that the public DAN clients send.

        That one has ``paymasterAndData`` in place of the paymaster's four members, and empty texts for what there is not.

        Args:
            found: A mapping, as ``json.loads`` gives it. A null counts as left out.

        Raises:
            InvalidFieldError: A member is missing, unknown or wrong; unknown names are not repeated.
        """
        if not isinstance(found, Mapping):
            return super().from_dict(found)
        values = dict(found)
        packed = data(values.pop("paymasterAndData", None) or b"", "paymasterAndData")
        for owner, belongings in (("factory", _OF_FACTORY), ("paymaster", _OF_PAYMASTER)):
            if values.get(owner) in _EMPTY:
                for name in (owner, *(cls.members[ours].wire for ours in belongings)):
                    if values.get(name) in _EMPTY:
                        values.pop(name, None)
        if packed:
            if len(packed) < PAYMASTER_HEAD or values.get("paymaster") is not None:
                raise InvalidFieldError(
                    "paymasterAndData",
                    f"must be {PAYMASTER_HEAD} bytes or more, and alone: an address, two gas limits, data",
                )
            values |= {cls.members[ours].wire: value for ours, value in _unpack_paymaster(packed).items()}
        return super().from_dict(values)

    @classmethod
    def from_packed(cls, packed: PackedUserOperation) -> Self:
        """Read the contract's form."""
        limits, fees, init_code = packed.account_gas_limits, packed.gas_fees, packed.init_code
        return cls(
            sender=packed.sender,
            nonce=packed.nonce,
            factory=Address(to_hex(init_code[:ADDRESS_LENGTH])) if init_code else None,
            factory_data=init_code[ADDRESS_LENGTH:] if init_code else None,
            call_data=packed.call_data,
            call_gas_limit=int.from_bytes(limits[HALF_WORD:]),
            verification_gas_limit=int.from_bytes(limits[:HALF_WORD]),
            pre_verification_gas=packed.pre_verification_gas,
            max_fee_per_gas=int.from_bytes(fees[HALF_WORD:]),
            max_priority_fee_per_gas=int.from_bytes(fees[:HALF_WORD]),
            **(_unpack_paymaster(packed.paymaster_and_data) if packed.paymaster_and_data else {}),
            signature=packed.signature,
        )

    def pack(self) -> PackedUserOperation:
        """Give the same operation as the contract takes it."""
        names = [attribute.name for attribute in fields(PackedUserOperation)]
        return PackedUserOperation(**{name: getattr(self, name) for name in names})

    @property
    def init_code(self) -> bytes:
        """The factory and its data as the contract takes them."""
        return b"" if self.factory is None else bytes.fromhex(self.factory[2:]) + (self.factory_data or b"")

    @property
    def account_gas_limits(self) -> bytes:
        """Verification and call gas limit as one word."""
        return _two_halves(self.verification_gas_limit, self.call_gas_limit)

    @property
    def gas_fees(self) -> bytes:
        """Tip and price as one word."""
        return _two_halves(self.max_priority_fee_per_gas, self.max_fee_per_gas)

    @property
    def paymaster_and_data(self) -> bytes:
        """The paymaster, its gas limits and its data as the contract takes them."""
        if self.paymaster is None:
            return b""
        verification, post_op = self.paymaster_verification_gas_limit, self.paymaster_post_op_gas_limit
        limits = _two_halves(verification or 0, post_op or 0)
        return bytes.fromhex(self.paymaster[2:]) + limits + (self.paymaster_data or b"")


#: A user operation in any form.
UserOperation: TypeAlias = UserOperationV06 | UserOperationV07 | PackedUserOperation


def user_operation_from_dict(found: Mapping[str, Any], *, version: EntryPointVersion) -> UserOperation:
    """
    Read a user operation for an entry point of this version; v0.7 packed or not, as its members tell.

    Args:
        found: A mapping, as ``json.loads`` gives it.
        version: The entry point's.

    Raises:
        InvalidFieldError: It is not a user operation of that version, or there is no such version.
    """
    if version == "v0.6.0":
        return UserOperationV06.from_dict(found)
    if version != "v0.7.0":
        raise InvalidFieldError("entryPointVersion", "must be v0.6.0 or v0.7.0")
    if isinstance(found, Mapping) and "accountGasLimits" in found:
        return PackedUserOperation.from_dict(found)
    return UserOperationV07.from_dict(found)


def _two_halves(first: int, second: int) -> bytes:
    return first.to_bytes(HALF_WORD) + second.to_bytes(HALF_WORD)


def _unpack_paymaster(packed: bytes) -> dict[str, Any]:
    middle = ADDRESS_LENGTH + HALF_WORD
    return {
        "paymaster": to_hex(packed[:ADDRESS_LENGTH]),
        "paymaster_verification_gas_limit": int.from_bytes(packed[ADDRESS_LENGTH:middle]),
        "paymaster_post_op_gas_limit": int.from_bytes(packed[middle:PAYMASTER_HEAD]),
        "paymaster_data": packed[PAYMASTER_HEAD:],
    }

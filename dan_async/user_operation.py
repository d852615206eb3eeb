"""
User operations of ERC-4337 v0.6 and v0.7 in the JSON-RPC form of bundlers (ERC-7769), their hash and their receipts.

Inputs are normalised: numbers may be ints, ``0x`` hex or decimal texts; bytes may be bytes, or hex text with or without
``0x``, which the earliest TypeScript clients leave away. ``to_dict`` has one form: quantities and bytes as ``0x`` hex.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, cast, get_type_hints

from attrs import NOTHING, field, fields, frozen
from attrs.converters import optional

from dan_async._values import camel_case, check_mapping, from_hex, number_of, to_hex
from dan_async.crypto.abi import encode_arguments, encode_call_of_any_types
from dan_async.crypto.address import parse_address
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.types import Address, EntryPointVersion, Hex

__all__ = [
    "ENTRY_POINTS",
    "Call",
    "PackedUserOperation",
    "UserOperation",
    "UserOperationReceipt",
    "UserOperationV06",
    "UserOperationV07",
    "user_operation_from_dict",
    "user_operation_hash",
]

#: Longest member of variable length, in bytes; no block takes a longer one.
_MOST_BYTES = 128 * 1024
_SHOWN_BYTES = 16

_WORD = 32
_SELECTOR_LENGTH = 4
_ADDRESS_LENGTH = 20

#: Bytes of a gas limit or a price.
_HALF_WORD = 16

#: Where the paymaster's own data begins in a packed paymasterAndData: after the address and two gas limits.
_PAYMASTER_HEAD = _ADDRESS_LENGTH + 2 * _HALF_WORD

_read_uint256 = number_of(256, may_be_empty=True)
_read_uint128 = number_of(128, may_be_empty=True)


def _read_bytes(name: str, value: object) -> bytes:
    found = value if isinstance(value, bytes) else from_hex(value, field=name)
    if len(found) > _MOST_BYTES:
        raise InvalidFieldError(name, f"must hold at most {_MOST_BYTES} bytes")
    return found


def _read_word(name: str, value: object) -> bytes:
    found = _read_bytes(name, value)
    if len(found) != _WORD:
        raise InvalidFieldError(name, f"must hold {_WORD} bytes, not {len(found)}")
    return found


def normalise_addresses(form: Any, *names: str) -> None:
    """Put these addresses of a frozen value into their EIP-55 form; None stays."""
    for name in names:
        if (given := getattr(form, name)) is not None:
            object.__setattr__(form, name, parse_address(name, given))


def _address_and_data(least: int) -> Callable[[str, Any], bytes]:
    """Return a reader of bytes that are empty, or begin with an address and have *least* bytes or more."""

    def read(name: str, value: object) -> bytes:
        found = _read_bytes(name, value)
        if found and len(found) < least:
            raise InvalidFieldError(name, f"must be empty or hold {least} bytes or more, an address first")
        return found

    return read


def _shorten(value: bytes | None) -> str:
    if value is None or len(value) <= _SHOWN_BYTES:
        return "None" if value is None else to_hex(value)
    return f"{to_hex(value[:_SHOWN_BYTES])}… ({len(value)} bytes)"


@frozen
class Call:
    """
    A call of the smart account.

    Args:
        target: The address to call.
        value: Wei sent with it; an int, or decimal or ``0x`` text.
        data: The call data, as bytes or hex text. Nothing for a plain transfer.
    """

    target: Address = field(converter=Address)
    value: int = 0
    data: bytes = field(default=b"", repr=_shorten)

    def __attrs_post_init__(self) -> None:
        normalise_addresses(self, "target")
        object.__setattr__(self, "value", _read_uint256("value", self.value))
        object.__setattr__(self, "data", _read_bytes("data", self.data))

    @classmethod
    def of(cls, target: str, signature: str, *arguments: Any, value: int = 0) -> Self:
        """
        Return the call of a contract's function (extra ``eth-account``, which brings eth-abi).

        Args:
            target: The contract's address.
            signature: The function, as ``transfer(address,uint256)``; its types may be any of the ABI, also tuples, arrays
                and fixed arrays: ``swap((address,uint24)[2],int256,string)``.
            *arguments: Its arguments, as eth-abi takes them.
            value: Wei sent with it.

        Raises:
            MissingExtraError: eth-abi is not installed.
            InvalidFieldError: The signature is none, an argument does not fit its type, or the address is wrong.
        """
        return cls(target, value, encode_call_of_any_types(signature, arguments))

    @property
    def selector(self) -> bytes:
        """The first four bytes of the call data; empty for a plain transfer."""
        return self.data[:_SELECTOR_LENGTH]


@frozen(repr=False)
class _Member:
    """A member of the JSON-RPC form: its name there, the reader of its value, and whether it must be there."""

    wire: str
    read: Callable[[str, Any], Any]
    needed: bool


def _find_members(form: type[Any]) -> Mapping[str, _Member]:
    """Return the members by our field names: the name is the field's in camelCase, its annotation has the reader."""
    hints = get_type_hints(form, include_extras=True)
    found = {}
    for attribute in fields(form):
        (read,) = hints[attribute.name].__metadata__
        needed = attribute.default is NOTHING
        found[attribute.name] = _Member(camel_case(attribute.name), read, needed)
    return found


_members_of = cast("Callable[[type[Any]], Mapping[str, _Member]]", cache(_find_members))


class JsonRpcForm:
    """The common part of all forms: fields that are normalised, and the way to JSON and back."""

    __slots__ = ()

    def __attrs_post_init__(self) -> None:
        for ours, member in _members_of(type(self)).items():
            value = getattr(self, ours)
            if value is not None or member.needed:
                object.__setattr__(self, ours, member.read(ours, value))

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """
        Read the camelCase form of JSON-RPC, strictly.

        Args:
            found: A mapping, as ``json.loads`` returns it. A null counts as left out.

        Raises:
            InvalidFieldError: A member is missing, unknown or wrong; unknown names are not repeated.
        """
        check_mapping("userOperation", found, "a JSON object")
        members = _members_of(cls)
        values: dict[str, Any] = {}
        for ours, member in members.items():
            value = found.get(member.wire)
            if value is not None:
                values[ours] = member.read(member.wire, value)
            elif member.needed:
                raise InvalidFieldError(member.wire, "is missing from the user operation")
        known = [member.wire for member in members.values()]
        if not set(found) <= set(known):
            raise InvalidFieldError(
                "userOperation",
                "has members that this form of user operation does not know",
                hint=f"Members: {', '.join(known)}",
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the camelCase form of JSON-RPC: quantities and bytes as 0x hex; None is left out."""
        values = ((member.wire, getattr(self, ours)) for ours, member in _members_of(type(self)).items())
        return {wire: _wire_value(value) for wire, value in values if value is not None}


def _wire_value(value: bytes | int | str) -> str:
    if isinstance(value, bytes):
        return to_hex(value)
    return hex(value) if isinstance(value, int) else value


@frozen(kw_only=True)
class UserOperationV06(JsonRpcForm):
    """
    A user operation of EntryPoint v0.6. Numbers are unsigned and of 256 bits; prices are in wei for each unit of gas.

    Args:
        sender: The smart account.
        nonce: Its nonce in the entry point: 192 bits of lane, 64 bits of sequence.
        init_code: The factory's address and its call, if the account is not deployed yet.
        call_data: The entry point's call of the account.
        call_gas_limit: Gas for that call.
        verification_gas_limit: Gas for checking the operation.
        pre_verification_gas: Gas that is paid for the bundler's own costs.
        max_fee_per_gas: The highest price (EIP-1559).
        max_priority_fee_per_gas: The highest tip.
        paymaster_and_data: The paymaster's address and its data, if one pays.
        signature: The account's signature; empty before it is made.
    """

    version: ClassVar[Literal["v0.6.0"]] = "v0.6.0"

    sender: Annotated[Address, parse_address] = field(converter=Address)
    nonce: Annotated[int, _read_uint256]
    init_code: Annotated[bytes, _address_and_data(_ADDRESS_LENGTH)] = field(default=b"", repr=_shorten)
    call_data: Annotated[bytes, _read_bytes] = field(repr=_shorten)
    call_gas_limit: Annotated[int, _read_uint256]
    verification_gas_limit: Annotated[int, _read_uint256]
    pre_verification_gas: Annotated[int, _read_uint256]
    max_fee_per_gas: Annotated[int, _read_uint256]
    max_priority_fee_per_gas: Annotated[int, _read_uint256]
    paymaster_and_data: Annotated[bytes, _address_and_data(_ADDRESS_LENGTH)] = field(
        default=b"", repr=_shorten
    )
    signature: Annotated[bytes, _read_bytes] = field(default=b"", repr=_shorten)


@frozen(kw_only=True)
class PackedUserOperation(JsonRpcForm):
    """
    A user operation of EntryPoint v0.7 as the contract takes it.

    Args:
        sender: The smart account.
        nonce: Its nonce in the entry point.
        init_code: The factory's address and its call, if the account is not deployed yet.
        call_data: The entry point's call of the account.
        account_gas_limits: 32 bytes: verification gas limit and call gas limit, 16 each.
        pre_verification_gas: Gas that is paid for the bundler's own costs.
        gas_fees: 32 bytes: highest tip and highest price, 16 each.
        paymaster_and_data: Paymaster, its two gas limits of 16 bytes, its data; or nothing.
        signature: The account's signature; empty before it is made.
    """

    version: ClassVar[Literal["v0.7.0"]] = "v0.7.0"

    sender: Annotated[Address, parse_address] = field(converter=Address)
    nonce: Annotated[int, _read_uint256]
    init_code: Annotated[bytes, _address_and_data(_ADDRESS_LENGTH)] = field(default=b"", repr=_shorten)
    call_data: Annotated[bytes, _read_bytes] = field(repr=_shorten)
    account_gas_limits: Annotated[bytes, _read_word] = field(repr=_shorten)
    pre_verification_gas: Annotated[int, _read_uint256]
    gas_fees: Annotated[bytes, _read_word] = field(repr=_shorten)
    paymaster_and_data: Annotated[bytes, _address_and_data(_PAYMASTER_HEAD)] = field(
        default=b"", repr=_shorten
    )
    signature: Annotated[bytes, _read_bytes] = field(default=b"", repr=_shorten)


#: The fields that mean nothing without a factory, or without a paymaster.
_BELONGINGS = {
    "factory": ("factory_data",),
    "paymaster": ("paymaster_verification_gas_limit", "paymaster_post_op_gas_limit", "paymaster_data"),
}

_EMPTY = (None, "", "0x")


@frozen(kw_only=True)
class UserOperationV07(JsonRpcForm):
    """
    A user operation of EntryPoint v0.7 in the form of JSON-RPC. Gas limits and prices have at most 128 bits.

    Args:
        sender: The smart account.
        nonce: Its nonce in the entry point.
        factory: The account's factory, if it is not deployed yet.
        factory_data: The call of the factory; needs a factory.
        call_data: The entry point's call of the account.
        call_gas_limit: Gas for that call.
        verification_gas_limit: Gas for checking the operation.
        pre_verification_gas: Gas that is paid for the bundler's own costs; up to 256 bits.
        max_fee_per_gas: The highest price in wei (EIP-1559).
        max_priority_fee_per_gas: The highest tip in wei.
        paymaster: The paymaster that pays instead of the account, if any.
        paymaster_verification_gas_limit: Gas for the paymaster's check; needs a paymaster. None counts as 0.
        paymaster_post_op_gas_limit: Gas for its work afterwards; likewise.
        paymaster_data: Its data; likewise.
        signature: The account's signature; empty before it is made.

    Raises:
        InvalidFieldError: A field is wrong, or belongs to a factory or paymaster that is not named.
    """

    version: ClassVar[Literal["v0.7.0"]] = "v0.7.0"

    sender: Annotated[Address, parse_address] = field(converter=Address)
    nonce: Annotated[int, _read_uint256]
    factory: Annotated[Address | None, parse_address] = field(default=None, converter=optional(Address))
    factory_data: Annotated[bytes | None, _read_bytes] = field(default=None, repr=_shorten)
    call_data: Annotated[bytes, _read_bytes] = field(repr=_shorten)
    call_gas_limit: Annotated[int, _read_uint128]
    verification_gas_limit: Annotated[int, _read_uint128]
    pre_verification_gas: Annotated[int, _read_uint256]
    max_fee_per_gas: Annotated[int, _read_uint128]
    max_priority_fee_per_gas: Annotated[int, _read_uint128]
    paymaster: Annotated[Address | None, parse_address] = field(default=None, converter=optional(Address))
    paymaster_verification_gas_limit: Annotated[int | None, _read_uint128] = None
    paymaster_post_op_gas_limit: Annotated[int | None, _read_uint128] = None
    paymaster_data: Annotated[bytes | None, _read_bytes] = field(default=None, repr=_shorten)
    signature: Annotated[bytes, _read_bytes] = field(default=b"", repr=_shorten)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for owner, belongings in _BELONGINGS.items():
            for ours in belongings:
                if getattr(self, owner) is None and getattr(self, ours):
                    raise InvalidFieldError(_members_of(type(self))[ours].wire, f"needs a {owner}")

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """
        Read the camelCase form of JSON-RPC, strictly, and the form that the public DAN clients send.

        That one has ``paymasterAndData`` in place of the paymaster's four members, and empty texts for absent members.

        Args:
            found: A mapping, as ``json.loads`` returns it. A null counts as left out.

        Raises:
            InvalidFieldError: A member is missing, unknown or wrong; unknown names are not repeated.
        """
        values = dict(check_mapping("userOperation", found, "a JSON object"))
        members = _members_of(cls)
        packed = _read_bytes("paymasterAndData", values.pop("paymasterAndData", None) or b"")
        for owner, belongings in _BELONGINGS.items():
            if values.get(owner) in _EMPTY:
                for name in (owner, *(members[ours].wire for ours in belongings)):
                    if values.get(name) in _EMPTY:
                        values.pop(name, None)
        if packed:
            if len(packed) < _PAYMASTER_HEAD or values.get("paymaster") is not None:
                raise InvalidFieldError(
                    "paymasterAndData",
                    f"must be {_PAYMASTER_HEAD} bytes or more, and alone: an address, two gas limits, data",
                )
            values |= {members[ours].wire: value for ours, value in _unpack_paymaster(packed).items()}
        return super().from_dict(values)

    @classmethod
    def from_packed(cls, packed: PackedUserOperation) -> Self:
        """
        Read the contract's form.

        Args:
            packed: The operation in the contract's form.
        """
        limits, fees, init_code = packed.account_gas_limits, packed.gas_fees, packed.init_code
        return cls(
            sender=packed.sender,
            nonce=packed.nonce,
            factory=Address(to_hex(init_code[:_ADDRESS_LENGTH])) if init_code else None,
            factory_data=init_code[_ADDRESS_LENGTH:] if init_code else None,
            call_data=packed.call_data,
            call_gas_limit=int.from_bytes(limits[_HALF_WORD:]),
            verification_gas_limit=int.from_bytes(limits[:_HALF_WORD]),
            pre_verification_gas=packed.pre_verification_gas,
            max_fee_per_gas=int.from_bytes(fees[_HALF_WORD:]),
            max_priority_fee_per_gas=int.from_bytes(fees[:_HALF_WORD]),
            **(_unpack_paymaster(packed.paymaster_and_data) if packed.paymaster_and_data else {}),
            signature=packed.signature,
        )

    def pack(self) -> PackedUserOperation:
        """Return the same operation as the contract takes it."""
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


def _two_halves(first: int, second: int) -> bytes:
    return first.to_bytes(_HALF_WORD) + second.to_bytes(_HALF_WORD)


def _unpack_paymaster(packed: bytes) -> dict[str, Any]:
    middle = _ADDRESS_LENGTH + _HALF_WORD
    return {
        "paymaster": to_hex(packed[:_ADDRESS_LENGTH]),
        "paymaster_verification_gas_limit": int.from_bytes(packed[_ADDRESS_LENGTH:middle]),
        "paymaster_post_op_gas_limit": int.from_bytes(packed[middle:_PAYMASTER_HEAD]),
        "paymaster_data": packed[_PAYMASTER_HEAD:],
    }


#: Version -> the address of the entry point, which is the same on every chain.
ENTRY_POINTS: Mapping[EntryPointVersion, Address] = MappingProxyType(
    {
        "v0.6.0": Address("0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"),
        "v0.7.0": Address("0x0000000071727De22E5E9d8BAf0edAc6f37da032"),
    }
)


def check_entry_point(address: str, version: EntryPointVersion, *, named: str | None = None) -> Address:
    """Return an entry point's address if it is that of *version*, or the one *named*; never another version's."""
    found = parse_address("entry_point", address)
    if found == ENTRY_POINTS[version]:
        return found
    if found in ENTRY_POINTS.values():
        raise InvalidFieldError("entry_point", f"belongs to a version other than {version}")
    if named is None or parse_address("entry_point", named) != found:
        raise InvalidFieldError(
            "entry_point",
            f"is not the well-known one of {version}",
            hint="If that is intended, pass entry_point",
        )
    return found


#: A user operation in any form.
UserOperation: TypeAlias = UserOperationV06 | UserOperationV07 | PackedUserOperation


def user_operation_from_dict(found: Mapping[str, Any], *, version: EntryPointVersion) -> UserOperation:
    """
    Return a user operation for an entry point of this version; its members tell whether one of v0.7 is packed.

    Args:
        found: A mapping, as ``json.loads`` returns it.
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


def user_operation_hash(
    operation: UserOperation, *, entry_point: str, chain_id: int, version: EntryPointVersion
) -> bytes:
    """
    Return the hash of an operation for an entry point, which its account's owner signs; the signature has no part in it.

    Follows ``getUserOpHash`` of the EntryPoint contracts v0.6 (``UserOperationLib.pack`` over ``UserOperation``) and v0.7
    (over ``PackedUserOperation``). Members of variable length go in as their Keccak-256.

    Args:
        operation: The operation.
        entry_point: The entry point's address.
        chain_id: The chain's id, at least 1.
        version: The entry point's version, which must be the operation's.

    Raises:
        InvalidFieldError: The version is not the operation's, or another argument is wrong.
    """
    if not isinstance(operation, UserOperationV06 | UserOperationV07 | PackedUserOperation):
        raise InvalidFieldError("operation", f"must be a user operation, not {type(operation).__name__}")
    if operation.version != version:
        raise InvalidFieldError(
            "version", f"is not the user operation's, which has the form of {operation.version}"
        )
    entry_point = parse_address("entry_point", entry_point)
    if isinstance(chain_id, bool) or not isinstance(chain_id, int) or not 1 <= chain_id < 2**256:
        raise InvalidFieldError("chain_id", "must be a whole number from 1 to 2**256 - 1")
    gas: tuple[bytes | int, ...]
    if isinstance(operation, UserOperationV06):
        types = "uint256," * 5
        gas = (
            operation.call_gas_limit,
            operation.verification_gas_limit,
            operation.pre_verification_gas,
            operation.max_fee_per_gas,
            operation.max_priority_fee_per_gas,
        )
    else:
        types = "bytes32,uint256,bytes32,"
        gas = (operation.account_gas_limits, operation.pre_verification_gas, operation.gas_fees)
    hashes = (keccak256(operation.init_code), keccak256(operation.call_data))
    values = (operation.sender, operation.nonce, *hashes, *gas, keccak256(operation.paymaster_and_data))
    packed = encode_arguments(f"(address,uint256,bytes32,bytes32,{types}bytes32)", values)
    return keccak256(
        encode_arguments("(bytes32,address,uint256)", (keccak256(packed), entry_point, chain_id))
    )


#: Longest text of a revert that is kept.
_LONGEST_REASON = 1024


@frozen(kw_only=True)
class UserOperationReceipt:
    """
    A bundler's receipt of an operation on the chain (``eth_getUserOperationReceipt``, ERC-7769).

    Args:
        user_operation_hash: The operation's hash.
        transaction_hash: The transaction that carried it.
        block_number: Its block.
        is_success: Whether its calls were executed; if not, they were reverted and the gas is paid all the same.
        reason: Why not: the revert's text or bytes, shortened; empty if nothing is known.
        actual_gas_cost: The price paid for gas, in wei.
        actual_gas_used: Gas used.
        raw: The whole answer.
    """

    user_operation_hash: Hex
    transaction_hash: Hex
    block_number: int
    is_success: bool
    reason: str
    actual_gas_cost: int
    actual_gas_used: int
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_dict(cls, found: Any) -> Self:
        """
        Read the bundler's answer; members that are not needed may be there or not.

        Args:
            found: The answer, as ``json.loads`` returns it.

        Raises:
            InvalidFieldError: A needed member is missing or wrong.
        """
        receipt = found.get("receipt") if isinstance(found, Mapping) else None
        if not isinstance(receipt, Mapping):
            raise InvalidFieldError("receipt", "must be a JSON object")
        if not isinstance(found.get("success"), bool):
            raise InvalidFieldError("success", "must be true or false")
        reason = found.get("reason")
        return cls(
            user_operation_hash=to_hex(_read_word("userOpHash", found.get("userOpHash"))),
            transaction_hash=to_hex(_read_word("transactionHash", receipt.get("transactionHash"))),
            block_number=_read_uint256("blockNumber", receipt.get("blockNumber")),
            is_success=found["success"],
            reason=reason[:_LONGEST_REASON] if isinstance(reason, str) else "",
            actual_gas_cost=_read_uint256("actualGasCost", found.get("actualGasCost")),
            actual_gas_used=_read_uint256("actualGasUsed", found.get("actualGasUsed")),
            raw=found,
        )

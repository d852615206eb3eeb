"""The kinds of smart accounts: how each encodes its calls, is deployed, and takes its signature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, Protocol

from attrs import field, frozen
from attrs.converters import optional

from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.crypto.address import parse_address, to_checksum_address
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.types import Address, EntryPointVersion
from dan_async.user_operation import Call
from dan_async.userops.service import version_of

#: A signature of the right length that recovers to some address, so that contracts which refuse malformed ones estimate gas
#: as they would for the real one: r is the x coordinate of secp256k1's generator, s a large low number.
_DUMMY_SIGNATURE = (
    bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798") + b"\x7a" * 32 + b"\x1c"
)


class FactoryCall(NamedTuple):
    """
    How an account is deployed, and how its address is found.

    Args:
        factory: The factory.
        data: The call data that deploys the account.
        address_function: The factory's function that returns the address: name and types of arguments.
        address_arguments: That function's arguments.
        address: The address, worked out here: the factory must name the same. None if its code is not known here.
    """

    factory: str
    data: bytes
    address_function: str
    address_arguments: tuple[Any, ...]
    address: str | None = None


class AccountKind(Protocol):
    """A kind of smart account. Write your own for an account that is not among these."""

    @property
    def version(self) -> EntryPointVersion:
        """The version of its entry point."""
        ...

    def encode_calls(self, calls: Sequence[Call]) -> bytes:
        """
        Return the call data by which the account makes these calls, one at least.

        Args:
            calls: The calls, in their order.
        """
        ...

    def deployment(self, owner: Address, salt: int) -> FactoryCall | None:
        """
        Return how it is deployed; None if it must be there already.

        Args:
            owner: The address that the account obeys.
            salt: Which of the owner's accounts, from 0.
        """
        ...

    def wrap_signature(self, signature: bytes) -> bytes:
        """
        Return the operation's signature, made from the owner's.

        Args:
            signature: 65 bytes: r, s, v.
        """
        ...

    @property
    def dummy_signature(self) -> bytes:
        """A signature for the estimation of gas."""
        ...


def _factory(value: str) -> Address:
    return parse_address("factory", value)


def _module(value: str) -> Address:
    return parse_address("module", value)


#: eth-infinitism's own deployments.
_SIMPLE_FACTORIES: dict[EntryPointVersion, Address] = {
    "v0.6.0": Address("0x9406Cc6185a346906296840746125a0E44976454"),
    "v0.7.0": Address("0x91E60e0613810449d098b0b5Ec8b51A0FE8c8985"),
}


@frozen
class SimpleAccount:
    """
    The reference account of ERC-4337 (eth-infinitism's SimpleAccount and SimpleAccountFactory), with one owner.

    Args:
        version: The entry point's: ``"v0.6.0"`` or ``"v0.7.0"``.
        factory: The factory; the well-known one if None.

    Raises:
        InvalidFieldError: An argument is wrong.
    """

    version: EntryPointVersion = "v0.7.0"
    factory: Address | None = field(default=None, converter=optional(_factory))

    def __attrs_post_init__(self) -> None:
        # No converter: pyright would not take the field for the property of ``AccountKind``.
        object.__setattr__(self, "version", version_of(self.version))

    def encode_calls(self, calls: Sequence[Call]) -> bytes:
        """
        Return the call data of ``execute`` or ``executeBatch``.

        Raises:
            InvalidFieldError: There are no calls, or several with value on v0.6, whose batch has none.
        """
        if len(calls) == 1:
            call = calls[0]
            return encode_call("execute(address,uint256,bytes)", call.target, call.value, call.data)
        targets, values, datas = _columns(calls)
        if self.version == "v0.7.0":
            return encode_call("executeBatch(address[],uint256[],bytes[])", targets, values, datas)
        if any(values):
            raise InvalidFieldError("calls", "must send no value: a batch of SimpleAccount v0.6 cannot")
        return encode_call("executeBatch(address[],bytes[])", targets, datas)

    def deployment(self, owner: Address, salt: int) -> FactoryCall:
        """Return how it is deployed; with its address, if the factory is the well-known one."""
        usual = _SIMPLE_FACTORIES[self.version]
        # The factory's first contract is the account's code, which each account's proxy is made for.
        first = keccak256(b"\xd6\x94" + bytes.fromhex(usual[2:]) + b"\x01")[12:]
        start = (to_checksum_address(first), encode_call("initialize(address)", owner))
        init_code = _proxy_code(self.version) + encode_arguments("(address,bytes)", start)
        factory = self.factory or usual
        return FactoryCall(
            factory,
            encode_call("createAccount(address,uint256)", owner, salt),
            "getAddress(address,uint256)",
            (owner, salt),
            _created_at(usual, salt.to_bytes(32), keccak256(init_code)) if factory == usual else None,
        )

    def wrap_signature(self, signature: bytes) -> bytes:
        """Return the owner's signature as it is."""
        return signature

    @property
    def dummy_signature(self) -> bytes:
        """65 bytes."""
        return _DUMMY_SIGNATURE


#: The signature that Biconomy's SDK estimates an owner's operation with.
_BICONOMY_DUMMY_SIGNATURE = bytes.fromhex(
    "81d4b4981670cb18f99f0b4a66446df1bf5b204d24cfcb659bf38ba27a4359b5"
    "711649ec2423c5e1247245eba2964679b6a1dbb85c992ae40b9b00c6935b02ff1b"
)

#: Biconomy's factory of V2, the fallback handler of its accounts, and the hash of their proxy's init code: from its SDK.
_BICONOMY_FACTORY = Address("0x000000a56Aaca3e9a4C479ea6b6CD0DbcB6634F5")
_BICONOMY_HANDLER = Address("0x0bBa6d96BD616BedC6BFaa341742FD43c60b83C1")
_BICONOMY_PROXY = bytes.fromhex("9e23d82770fbe728cd88babbb4dd51431b0a3c40bfd053a9fba2db0c3edaa369")


#: Where an account's list of modules begins: the one before the module that was enabled last.
_FIRST_MODULE = "0x" + "00" * 19 + "01"


@frozen
class BiconomyV2:
    """
    Biconomy's Smart Account V2, validated by a module: here the one for a single ECDSA owner.

    Args:
        factory: Its factory.
        module: The validation module.

    Raises:
        InvalidFieldError: An argument is wrong.
    """

    factory: Address = field(default=_BICONOMY_FACTORY, converter=_factory)
    module: Address = field(default=Address("0x0000001c5b32F37F5beA87BDD5374eB2aC54eA8e"), converter=_module)

    @property
    def version(self) -> EntryPointVersion:
        """v0.6.0."""
        return "v0.6.0"

    def encode_calls(self, calls: Sequence[Call]) -> bytes:
        """
        Return the call data of the functions with the cheap selectors.

        Raises:
            InvalidFieldError: There are no calls.
        """
        if len(calls) == 1:
            call = calls[0]
            return encode_call("execute_ncC(address,uint256,bytes)", call.target, call.value, call.data)
        return encode_call("executeBatch_y6U(address[],uint256[],bytes[])", *_columns(calls))

    def deployment(self, owner: Address, salt: int) -> FactoryCall:
        """Return how it is deployed; with its address, if the factory is the well-known one."""
        arguments = (self.module, encode_call("initForSmartAccount(address)", owner), salt)
        start = encode_call("init(address,address,bytes)", _BICONOMY_HANDLER, *arguments[:2])
        salted = keccak256(keccak256(start) + salt.to_bytes(32))
        is_usual = self.factory == _BICONOMY_FACTORY
        return FactoryCall(
            self.factory,
            encode_call("deployCounterFactualAccount(address,bytes,uint256)", *arguments),
            "getAddressForCounterFactualAccount(address,bytes,uint256)",
            arguments,
            _created_at(_BICONOMY_FACTORY, salted, _BICONOMY_PROXY) if is_usual else None,
        )

    def wrap_signature(self, signature: bytes) -> bytes:
        """Return the signature and the module that checks it, ABI-encoded."""
        return encode_arguments("(bytes,address)", (signature, self.module))

    @property
    def dummy_signature(self) -> bytes:
        """A wrapped signature."""
        return self.wrap_signature(_BICONOMY_DUMMY_SIGNATURE)

    @staticmethod
    def enable_module(account: str, module: str) -> Call:
        """
        Return the account's call that lets a module check operations, and act for the account.

        Args:
            account: The account.
            module: The module's address.

        Raises:
            InvalidFieldError: An address is wrong.
        """
        return Call(account, 0, encode_call("enableModule(address)", _module(module)))

    @staticmethod
    def set_up_module(account: str, contract: str, setup: bytes) -> Call:
        """
        Return the account's call that sets a module up and enables it.

        Args:
            account: The account.
            contract: The contract that sets the module up and returns its address.
            setup: The call data for that.

        Raises:
            InvalidFieldError: An argument is wrong.
        """
        signature = "setupAndEnableModule(address,bytes)"
        return Call(account, 0, encode_call(signature, _module(contract), setup))

    @staticmethod
    def disable_module(account: str, module: str, *, previous: str = _FIRST_MODULE) -> Call:
        """
        Return the account's call that disables a module.

        Args:
            account: The account.
            module: The module.
            previous: The module that was enabled right after it; nothing for the one that was enabled last.

        Raises:
            InvalidFieldError: An address is wrong.
        """
        arguments = (parse_address("previous", previous), _module(module))
        return Call(account, 0, encode_call("disableModule(address,address)", *arguments))


def _created_at(factory: Address, salt: bytes, init_code_hash: bytes) -> Address:
    """Return the address that CREATE2 gives to a contract (EIP-1014)."""
    return to_checksum_address(keccak256(b"\xff" + bytes.fromhex(factory[2:]) + salt + init_code_hash)[12:])


def _columns(calls: Sequence[Call]) -> tuple[list[Address], list[int], list[bytes]]:
    if not calls:
        raise InvalidFieldError("calls", "must be one at least")
    return [call.target for call in calls], [call.value for call in calls], [call.data for call in calls]


@cache
def _proxy_code(version: EntryPointVersion) -> bytes:
    """
    Return the creation code of the proxies that eth-infinitism's SimpleAccountFactory deploys: OpenZeppelin's ERC1967Proxy.

    It is out of the factories' own code in the packages @account-abstraction/contracts 0.6.0 and 0.7.0. The factories'
    well-known addresses are made of that code (CREATE2): there cannot be another one there.
    """
    table = json.loads(resources.files(__package__).joinpath("proxy_code.json").read_text(encoding="ascii"))
    return bytes.fromhex(table[version][2:])

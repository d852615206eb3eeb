"""The kinds of smart accounts: how each encodes its calls, is deployed, and takes its signature."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, NamedTuple, Protocol

from attrs import evolve, field, frozen
from attrs.converters import optional as or_none

from dan_async._values import check_bool, check_instance, optional, required
from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.crypto.address import parse_address, to_checksum_address
from dan_async.crypto.hashes import keccak256
from dan_async.errors import InvalidFieldError
from dan_async.types import Address, EntryPointVersion
from dan_async.user_operation import Call, normalise_addresses
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
    """
    A kind of smart account. Write your own for an account that is not among these.

    A class derived from this one inherits the last three methods, which fit most accounts.
    """

    @property
    def version(self) -> EntryPointVersion:
        """The version of its entry point."""

    def encode_calls(self, calls: Sequence[Call]) -> bytes:
        """
        Return the call data by which the account makes these calls, one at least.

        Args:
            calls: The calls, in their order.

        Raises:
            InvalidFieldError: There are none, or not such as the account can make together: a batch of SimpleAccount v0.6
                sends no value.
        """

    def deployment(self, owner: Address, salt: int) -> FactoryCall | None:
        """
        Return how it is deployed, with its address if that is known here; None if it must be there already.

        Args:
            owner: The address that the account obeys.
            salt: Which of the owner's accounts, from 0.
        """

    def nonce_key(self, lane: int) -> int:
        """
        Return the entry point's key of a nonce lane: the lane's own number, unless the account's keys mean more.

        Args:
            lane: The lane's number, below 2**192.
        """
        return lane

    def wrap_signature(self, signature: bytes) -> bytes:
        """
        Return the operation's signature, made from the owner's.

        Args:
            signature: 65 bytes: r, s, v.
        """
        return signature

    @property
    def dummy_signature(self) -> bytes:
        """A signature for the estimation of gas."""
        return self.wrap_signature(_DUMMY_SIGNATURE)


#: eth-infinitism's own deployments.
_SIMPLE_FACTORIES: dict[EntryPointVersion, Address] = {
    "v0.6.0": Address("0x9406Cc6185a346906296840746125a0E44976454"),
    "v0.7.0": Address("0x91E60e0613810449d098b0b5Ec8b51A0FE8c8985"),
}


@frozen
class SimpleAccount(AccountKind):
    """
    The reference account of ERC-4337 (eth-infinitism's SimpleAccount and SimpleAccountFactory), with one owner.

    Args:
        version: The entry point's: ``"v0.6.0"`` or ``"v0.7.0"``.
        factory: The factory; the well-known one if None.
    """

    version: EntryPointVersion = "v0.7.0"
    factory: Address | None = field(default=None, converter=or_none(Address))

    def __attrs_post_init__(self) -> None:
        normalise_addresses(self, "factory")
        # No converter: pyright would not take the field for the property of ``AccountKind``.
        object.__setattr__(self, "version", version_of(self.version))

    def encode_calls(self, calls: Sequence[Call]) -> bytes:
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
        usual = _SIMPLE_FACTORIES[self.version]
        # The factory's first contract is the account's code, which each account's proxy is made for.
        start = (first_created(usual), encode_call("initialize(address)", owner))
        init_code = _proxy_code(self.version) + encode_arguments("(address,bytes)", start)
        factory = self.factory or usual
        return FactoryCall(
            factory,
            encode_call("createAccount(address,uint256)", owner, salt),
            "getAddress(address,uint256)",
            (owner, salt),
            _created_at(usual, salt.to_bytes(32), keccak256(init_code)) if factory == usual else None,
        )


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
FIRST_MODULE = Address("0x" + "00" * 19 + "01")


@frozen
class BiconomyV2(AccountKind):
    """
    Biconomy's Smart Account V2, validated by a module: here the one for a single ECDSA owner.

    Args:
        factory: Its factory.
        module: The validation module.
    """

    factory: Address = field(default=_BICONOMY_FACTORY, converter=Address)
    module: Address = field(default=Address("0x0000001c5b32F37F5beA87BDD5374eB2aC54eA8e"), converter=Address)

    def __attrs_post_init__(self) -> None:
        normalise_addresses(self, "factory", "module")

    @property
    def version(self) -> EntryPointVersion:
        return "v0.6.0"

    def encode_calls(self, calls: Sequence[Call]) -> bytes:
        if len(calls) == 1:
            call = calls[0]
            return encode_call("execute_ncC(address,uint256,bytes)", call.target, call.value, call.data)
        return encode_call("executeBatch_y6U(address[],uint256[],bytes[])", *_columns(calls))

    def deployment(self, owner: Address, salt: int) -> FactoryCall:
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
        return encode_arguments("(bytes,address)", (signature, self.module))

    @property
    def dummy_signature(self) -> bytes:
        return self.wrap_signature(_BICONOMY_DUMMY_SIGNATURE)

    @staticmethod
    def enable_module(account: str, module: str) -> Call:
        """
        Return the account's call that lets a module check operations, and act for the account.

        Args:
            account: The account.
            module: The module's address.
        """
        return Call(account, 0, encode_call("enableModule(address)", parse_address("module", module)))

    @staticmethod
    def set_up_module(account: str, contract: str, setup: bytes) -> Call:
        """
        Return the account's call that sets a module up and enables it.

        Args:
            account: The account.
            contract: The contract that sets the module up and returns its address.
            setup: The call data for that.
        """
        signature = "setupAndEnableModule(address,bytes)"
        return Call(account, 0, encode_call(signature, parse_address("module", contract), setup))

    @staticmethod
    def disable_module(account: str, module: str, *, previous: str = FIRST_MODULE) -> Call:
        """
        Return the account's call that disables a module.

        Args:
            account: The account.
            module: The module.
            previous: The module that was enabled right after it; nothing for the one that was enabled last.
        """
        arguments = (parse_address("previous", previous), parse_address("module", module))
        return Call(account, 0, encode_call("disableModule(address,address)", *arguments))


#: Nexus 1.2.0, the first release that an EOA can delegate to: from Biconomy's SDK (its MEE version 2.0.0).
_NEXUS_FACTORY = Address("0x000000001D1D5004a02bAfAb9de2D6CE5b7B13de")
_NEXUS_BOOTSTRAP = Address("0x00000000D3254452a909E4eeD47455Af7E27C289")
_NEXUS_IMPLEMENTATION = Address("0x000000004F43C49e93C970E84001853a70923B03")

#: Rhinestone's OwnableValidator 1.0.0, from its package @rhinestone/module-sdk 0.4.0.
_OWNABLE_VALIDATOR = Address("0x000000000013fdB5234E4E3162a810F54d9f7E98")

_NO_ADDRESS = Address("0x" + "00" * 20)

#: ERC-7579: the type of the modules that check operations.
VALIDATOR_TYPE = 1

#: ERC-7579's modes: one call, or several; a call that fails undoes them all.
_SINGLE_MODE, _BATCH_MODE = bytes(32), b"\x01" + bytes(31)

#: Bits of a nonce key that Nexus leaves to the lanes: the first three bytes. A byte of mode and the validator follow.
_LANE_BITS, _KEY_BITS = 24, 192


@frozen(kw_only=True)
class Nexus(AccountKind):
    """
    Biconomy's Nexus, an account of ERC-7579: modules check its operations, and each nonce names the module.

    Args:
        factory: Its factory; that of Nexus 1.2.0 by default, as the next two.
        bootstrap: The contract that sets up a new account's modules.
        implementation: The account's code, for a delegated EOA.
        owner_validator: The module that knows the owner; None for the one which is part of the implementation since
            Nexus 1.2. With a module the account is set up as those before 1.2 are.
        session_validator: The module that knows the session keys: Rhinestone's OwnableValidator.
        validator: The module that checks the operations made here; the owner's if None. See ``for_sessions``.
        is_delegated: Whether the account is the owner's EOA, which runs the implementation's code at its own address
            (EIP-7702), instead of a contract that the factory deploys.
        proxy_code: The creation code of the factory's proxies. With it the account's address is worked out here as well;
            without it the factory alone is asked.
    """

    factory: Address = field(default=_NEXUS_FACTORY, converter=Address)
    bootstrap: Address = field(default=_NEXUS_BOOTSTRAP, converter=Address)
    implementation: Address = field(default=_NEXUS_IMPLEMENTATION, converter=Address)
    owner_validator: Address | None = field(default=None, converter=or_none(Address))
    session_validator: Address = field(default=_OWNABLE_VALIDATOR, converter=Address)
    validator: Address | None = field(default=None, converter=or_none(Address))
    is_delegated: bool = field(default=False, validator=required(check_bool))
    proxy_code: bytes | None = field(default=None, validator=optional(check_instance, kind=bytes), repr=False)

    def __attrs_post_init__(self) -> None:
        normalise_addresses(self, "factory", "bootstrap", "implementation", "session_validator")
        normalise_addresses(self, "owner_validator", "validator")

    @property
    def version(self) -> EntryPointVersion:
        return "v0.7.0"

    def for_sessions(self) -> Nexus:
        """Return the same kind of account for operations that a session key signs."""
        return evolve(self, validator=self.session_validator)

    def encode_calls(self, calls: Sequence[Call]) -> bytes:
        if len(calls) == 1:
            call = calls[0]
            packed = bytes.fromhex(call.target[2:]) + call.value.to_bytes(32) + call.data
            return encode_call("execute(bytes32,bytes)", _SINGLE_MODE, packed)
        rows = tuple(zip(*_columns(calls), strict=True))
        return encode_call(
            "execute(bytes32,bytes)", _BATCH_MODE, encode_arguments("((address,uint256,bytes)[])", (rows,))
        )

    def deployment(self, owner: Address, salt: int) -> FactoryCall | None:
        if self.is_delegated:
            return None
        arguments = (self._setup(owner), salt.to_bytes(32))
        address = None
        if self.proxy_code is not None:
            start = encode_call("initializeAccount(bytes)", arguments[0])
            init_code = self.proxy_code + encode_arguments("(address,bytes)", (self.implementation, start))
            address = _created_at(self.factory, arguments[1], keccak256(init_code))
        return FactoryCall(
            self.factory,
            encode_call("createAccount(bytes,bytes32)", *arguments),
            "computeAccountAddress(bytes,bytes32)",
            arguments,
            address,
        )

    def set_up(self, account: str, owner: str) -> Call:
        """
        Return the account's call that sets up a delegated EOA, which no factory does: its first.

        Args:
            account: The account.
            owner: Who owns it: the EOA itself, for one.
        """
        setup = self._setup(parse_address("owner", owner))
        return Call(account, 0, encode_call("initializeAccount(bytes)", setup))

    def _setup(self, owner: Address) -> bytes:
        """Return the bootstrap contract and its call, by which a new account is set up."""
        key = bytes.fromhex(owner[2:])
        if self.owner_validator is None:
            # As in Biconomy's SDK, down to the word of zeros for no hook: the address depends on it.
            call = encode_call(
                "initNexusWithDefaultValidatorAndOtherModulesNoRegistry(bytes,(address,bytes)[],(address,bytes)[],"
                "(address,bytes),(address,bytes)[],(uint256,address,bytes)[])",
                *(key, (), (), (_NO_ADDRESS, bytes(32)), (), ()),
            )
        else:
            call = encode_call(
                "initNexusWithSingleValidator(address,bytes,address,address[],uint8)",
                *(self.owner_validator, key, _NO_ADDRESS, (), 0),
            )
        return encode_arguments("(address,bytes)", (self.bootstrap, call))

    def nonce_key(self, lane: int) -> int:
        # Three bytes of the lane's number, a zero for the mode, and the module that checks the operation.
        module = self.validator or self.owner_validator or _NO_ADDRESS
        shift = _KEY_BITS - _LANE_BITS
        return lane >> shift << shift | int(module, 16)

    @staticmethod
    def install_validator(account: str, module: str, setup: bytes) -> Call:
        """
        Return the account's call that installs a module which checks operations.

        Args:
            account: The account.
            module: The module.
            setup: The module's own data.
        """
        arguments = (VALIDATOR_TYPE, parse_address("module", module), setup)
        return Call(account, 0, encode_call("installModule(uint256,address,bytes)", *arguments))

    @staticmethod
    def uninstall_validator(
        account: str, module: str, *, previous: str = FIRST_MODULE, teardown: bytes = b""
    ) -> Call:
        """
        Return the account's call that uninstalls a module which checks operations.

        Args:
            account: The account.
            module: The module.
            previous: The module that was installed right after it; nothing for the one that was installed last.
            teardown: The module's own data.
        """
        data = encode_arguments("(address,bytes)", (parse_address("previous", previous), teardown))
        arguments = (VALIDATOR_TYPE, parse_address("module", module), data)
        return Call(account, 0, encode_call("uninstallModule(uint256,address,bytes)", *arguments))


def first_created(contract: str) -> Address:
    """Return the address of the first contract that a contract creates: of RLP of its address and the nonce 1."""
    return to_checksum_address(keccak256(b"\xd6\x94" + bytes.fromhex(contract[2:]) + b"\x01")[12:])


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

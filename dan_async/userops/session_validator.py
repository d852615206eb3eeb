"""
A session key as an owner of its own validator module on an ERC-7579 account: granted, and revoked, by the account's owner.

The module is Rhinestone's OwnableValidator, ``session_validator`` of ``Nexus``. It takes a signature by any of its owners
(threshold 1) over the personal message of an operation's hash, which is what nodes sign. The account's owner is in another
module and stays the owner. On the chain a session key may do what the owner may: the permissions that the nodes keep are
its limit.
"""

from __future__ import annotations

from collections.abc import Iterable

from dan_async._values import check_bool, check_instance
from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.crypto.address import parse_address
from dan_async.crypto.set_code import Authorisation
from dan_async.errors import ConfigurationError, InvalidFieldError, ProtocolError
from dan_async.types import Address, TimeSpan
from dan_async.user_operation import Call, UserOperationReceipt
from dan_async.userops.account_kinds import FIRST_MODULE, VALIDATOR_TYPE, Nexus
from dan_async.userops.smart_account import SmartAccountClient

#: Most modules of an account that are looked at.
_MOST_MODULES = 100


async def grant_session_key(
    account: SmartAccountClient,
    session_key: str,
    *,
    set_up: bool = False,
    authorisation: Authorisation | None = None,
    timeout: TimeSpan | None = None,
) -> UserOperationReceipt:
    """
    Have the owner let a session key sign operations of an ERC-7579 account.

    One operation does it, and whatever else is still to be done: the deployment, or a delegation and its setup.

    Args:
        account: The owner's client of a ``Nexus`` account.
        session_key: The session's address, ``session_key_eoa``.
        set_up: Whether to set up a delegated EOA, with itself as the owner: its first operation must.
        authorisation: Of ``account.authorise_delegation()``, for a delegated EOA that does not run the account's code yet.
        timeout: Seconds for the operation, and again for its receipt.

    Returns:
        The receipt.

    Raises:
        InvalidFieldError: An argument is wrong, or the key is granted already.
        ConfigurationError: The account is of another kind, or the module wants more than one signature there.
        DanError: As for ``send_user_operation`` and ``wait_for_receipt``.
    """
    kind = _nexus(account)
    key, module = parse_address("session_key", session_key), kind.session_validator
    address = await account.get_address()
    calls: list[Call] = []
    if check_bool("set_up", set_up):
        calls.append(kind.set_up(address, account.owner))
    if not set_up and await account.is_deployed() and await _is_installed(account, module):
        (threshold,) = await account.read_contract(module, "threshold(address)", (address,), "(uint256)")
        if threshold != 1:
            raise ConfigurationError(
                f"the module at {module} takes {threshold} signatures for this account, and a session key makes one",
                hint="Give Nexus() another session_validator",
            )
        if key in await _owners(account, module):
            raise InvalidFieldError("session_key", "is granted already")
        calls.append(Call(module, 0, encode_call("addOwner(address)", key)))
    else:
        setup = encode_arguments("(uint256,address[])", (1, (key,)))
        calls.append(kind.install_validator(address, module, setup))
    return await _send(account, calls, authorisation, timeout)


async def revoke_session_key(
    account: SmartAccountClient, session_key: str, *, timeout: TimeSpan | None = None
) -> UserOperationReceipt:
    """
    Have the owner take a session key from an ERC-7579 account: with the last key its module goes as well.

    This ends the key on the chain. ``DanClient.revoke_ephemeral_key`` ends its use at the nodes: do both.

    Args:
        account: The owner's client of a ``Nexus`` account.
        session_key: The session's address, ``session_key_eoa``.
        timeout: Seconds for the operation, and again for its receipt.

    Returns:
        The receipt.

    Raises:
        InvalidFieldError: An argument is wrong, or the key is not granted.
        ConfigurationError: The account is of another kind.
        DanError: As for ``send_user_operation`` and ``wait_for_receipt``.
    """
    kind = _nexus(account)
    key, module = parse_address("session_key", session_key), kind.session_validator
    owners: tuple[Address, ...] = ()
    if await account.is_deployed() and await _is_installed(account, module):
        owners = await _owners(account, module)
    if key not in owners:
        raise InvalidFieldError("session_key", "is not granted")
    address = await account.get_address()
    if len(owners) > 1:
        call = Call(module, 0, encode_call("removeOwner(address,address)", _before(key, owners), key))
    else:
        modules, _ = await account.read_contract(
            address,
            "getValidatorsPaginated(address,uint256)",
            (FIRST_MODULE, _MOST_MODULES),
            "(address[],address)",
        )
        call = kind.uninstall_validator(address, module, previous=_before(module, modules))
    return await _send(account, [call], None, timeout)


def _nexus(account: SmartAccountClient) -> Nexus:
    kind = check_instance("account", account, SmartAccountClient).kind
    if not isinstance(kind, Nexus):
        raise ConfigurationError(
            f"session keys are granted in Nexus accounts, not in {type(kind).__name__}",
            hint="Make the account with account=Nexus(); Biconomy V2 has create_session_with_distributed_key()",
        )
    return kind


async def _is_installed(account: SmartAccountClient, module: Address) -> bool:
    (found,) = await account.read_contract(
        await account.get_address(),
        "isModuleInstalled(uint256,address,bytes)",
        (VALIDATOR_TYPE, module, b""),
        "(bool)",
    )
    return bool(found)


async def _owners(account: SmartAccountClient, module: Address) -> tuple[Address, ...]:
    (found,) = await account.read_contract(
        module, "getOwners(address)", (await account.get_address(),), "(address[])"
    )
    return tuple(found)


def _before(one: Address, listed: tuple[Address, ...]) -> Address:
    if one not in listed:
        raise ProtocolError(
            f"the node says that {one} is installed, and that it is not among the account's modules",
            hint=f"It may be catching up: call again. More than {_MOST_MODULES} modules are not looked at",
        )
    position = listed.index(one)
    return listed[position - 1] if position else FIRST_MODULE  # where a list of owners begins, too


async def _send(
    account: SmartAccountClient,
    calls: Iterable[Call],
    authorisation: Authorisation | None,
    timeout: TimeSpan | None,
) -> UserOperationReceipt:
    sent = await account.send_user_operation(calls, authorisation=authorisation, timeout=timeout)
    return await account.wait_for_receipt(sent, timeout=timeout)

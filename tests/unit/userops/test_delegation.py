"""Delegated EOAs, and session keys in ERC-7579 accounts, piece by piece: what is checked, asked and sent, and in which order."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest
import rlp
from eth_account import Account

from dan_async import CallbackWallet, LocalWallet, Timeouts
from dan_async.crypto.abi import decode_arguments, encode_arguments, encode_call, function_selector
from dan_async.crypto.hashes import keccak256
from dan_async.crypto.set_code import Authorisation
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    ConnectionLostError,
    InvalidFieldError,
    ProtocolError,
    RpcError,
    UserOperationRevertedError,
    UserOperationTimeoutError,
    WalletError,
    WalletSignatureError,
    WalletTimeoutError,
    WrongSignerError,
)
from dan_async.permissions import decode_calls
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.userops import Call, Nexus, SimpleAccount, WalletSigner, grant_session_key, revoke_session_key
from dan_async.wallets.eth_account_wallet import EthAccountWallet
from tests.unit.userops.services import CHAIN_ID, TARGET, EoaWorld, World, account_in

WALLET = LocalWallet(b"\x01" * 32)
KEY = "0x3079B249DFDE4692D7844aA261f8cf7D927A0DA5"
OTHER = "0xFA66E705cf2582cF56528386Bb9dFCA119767262"
CALL = Call(TARGET, 5, b"abcd")
KIND = Nexus(is_delegated=True, owner_validator=TARGET)


def code_of(kind: Nexus = KIND) -> bytes:
    """The code of an EOA that is delegated to this kind."""
    return b"\xef\x01\x00" + bytes.fromhex(kind.implementation[2:])


async def test_an_authorisation_travels_beside_the_operation() -> None:
    """In the estimate and in the sending, in the form that bundlers read; it is no part of the operation or its hash."""
    world = EoaWorld()
    account = await account_in(world, account=KIND)
    authorisation = await account.authorise_delegation()
    assert (authorisation.nonce, authorisation.authority) == (3, WALLET.address)
    seen: list[Any] = []

    def take(sent: Any) -> str:
        seen.append(sent.pop("eip7702Auth"))
        return World._take(world, sent)

    world._take = take  # type: ignore[method-assign]
    sent = await account.send_user_operation(CALL, authorisation=authorisation)
    (estimated,) = [params for method, params in world.calls if method == "eth_estimateUserOperationGas"]
    assert estimated[0]["eip7702Auth"] == seen[0] == authorisation.to_dict()
    everywhere = await account.authorise_delegation(chain_id=0)
    await account.send_user_operation(CALL, authorisation=everywhere)
    *_, last = [params for method, params in world.calls if method == "eth_estimateUserOperationGas"]
    assert (last[0]["eip7702Auth"]["chainId"], seen[1]["chainId"]) == (hex(CHAIN_ID), "0x0")
    assert world.operations[sent].sender == WALLET.address == await account.get_address()
    assert "factory" not in world.operations[sent].to_dict()


async def test_an_eoa_that_runs_other_code_signs_nothing() -> None:
    """Its code is looked at each time, since its owner may delegate it elsewhere."""
    world = EoaWorld()
    account = await account_in(world, account=KIND)
    for code in (b"", b"\xef\x01\x00" + b"\x01" * 20, b"\x60"):
        world.code = code
        with pytest.raises(ConfigurationError, match="does not run the code"):
            await account.send_user_operation(CALL)
        assert not await account.is_deployed()
    world.code = code_of()
    await account.send_user_operation(CALL)
    world.code = b""
    with pytest.raises(ConfigurationError):
        await account.send_user_operation(CALL)
    assert len(world.operations) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nonce": 2}, "nonce 2, which is 3 now"),
        ({"chain_id": 1}, "for chain 1"),
        ({"address": TARGET}, "for the code of"),
        ({"key": b"\x02" * 32}, "is signed by"),
    ],
)
async def test_an_authorisation_that_would_do_nothing_is_refused(change: Any, reason: str) -> None:
    """A chain passes over an authorisation that does not fit, without a word: here it is an error, and nothing is sent."""
    world = EoaWorld()
    account = await account_in(world, account=KIND)
    fields = {"chain_id": CHAIN_ID, "address": KIND.implementation, "nonce": 3} | change
    wallet = LocalWallet(fields.pop("key", b"\x01" * 32))
    made = Authorisation(**fields, signature=await wallet.sign_authorisation(**fields))
    with pytest.raises(InvalidFieldError, match=reason):
        await account.send_user_operation(CALL, authorisation=made)
    assert "eth_sendUserOperation" not in world.methods()


async def test_every_chain_must_be_asked_for_by_name() -> None:
    """0 is every chain; another one than the account's is refused; the default is the account's."""
    account = await account_in(EoaWorld(), account=KIND)
    assert (await account.authorise_delegation()).chain_id == CHAIN_ID
    assert (await account.authorise_delegation(chain_id=0)).chain_id == 0
    with pytest.raises(InvalidFieldError, match="chain_id"):
        await account.authorise_delegation(chain_id=1)


async def test_only_an_eoas_own_address_is_delegated() -> None:
    """The account of a delegated EOA is the owner, and accounts of other kinds are not delegated."""
    with pytest.raises(InvalidFieldError, match="must be the owner's"):
        await account_in(EoaWorld(), account=KIND, address=TARGET)
    for kind in (Nexus(), SimpleAccount()):
        account = await account_in(EoaWorld(), account=kind)
        with pytest.raises(ConfigurationError, match="not a delegated EOA"):
            await account.authorise_delegation()
        with pytest.raises(ConfigurationError, match="not a delegated EOA"):
            await account.end_delegation()


async def test_an_account_of_eth_account_authorises() -> None:
    """The same authorisation as from the key itself."""
    wallet = EthAccountWallet(Account.from_key(b"\x01" * 32))
    account = await account_in(EoaWorld(), account=KIND, signer=wallet, owner=wallet.address)
    again = await account_in(EoaWorld(), account=KIND)
    assert await account.authorise_delegation() == await again.authorise_delegation()
    with pytest.raises(ConfigurationError, match="cannot sign transactions"):
        await account.delegate()


async def test_an_agent_cannot_delegate() -> None:
    """Its client has no wallet of the owner's, or another's."""
    agent = await account_in(EoaWorld(), account=KIND, signer=WalletSigner(WALLET), owner=WALLET.address)
    with pytest.raises(ConfigurationError, match="a session cannot sign authorisations"):
        await agent.authorise_delegation()
    other = await account_in(EoaWorld(), account=KIND, owner=OTHER)
    with pytest.raises(WrongSignerError):
        await other.authorise_delegation()
    for account in (agent, other):
        with pytest.raises(ConfigurationError, match="cannot sign transactions of its owner"):
            await account.delegate()


class Misled(LocalWallet):
    """A wallet that signs something else."""

    answer: Any = None

    async def sign_authorisation(self, *, chain_id: int, address: str, nonce: int) -> Any:
        """Return what it is told to, or the authorisation for another code."""
        return self.answer or await super().sign_authorisation(chain_id=chain_id, address=OTHER, nonce=nonce)


@pytest.mark.parametrize(
    ("answer", "error"),
    [("0x" + "02" * 65, WalletSignatureError), (7, WalletSignatureError), (None, WrongSignerError)],
)
async def test_what_a_wallet_returns_is_checked(answer: Any, error: type[WalletError]) -> None:
    """No signature, or one over something else."""
    wallet = Misled(b"\x01" * 32)
    wallet.answer = answer
    account = await account_in(EoaWorld(), account=KIND, signer=wallet)
    with pytest.raises(error):
        await account.authorise_delegation()


async def test_a_wallet_that_hangs_is_given_up() -> None:
    """After the time that wallets have."""

    class Hanging(LocalWallet):
        async def sign_authorisation(self, **_: Any) -> Any:
            await asyncio.Event().wait()

    timeouts = Timeouts(wallet_s=0.05)
    account = await account_in(EoaWorld(), account=KIND, signer=Hanging(b"\x01" * 32), timeouts=timeouts)
    with pytest.raises(WalletTimeoutError, match="did not sign within"):
        await account.authorise_delegation()


async def test_browsers_wallets_sign_no_authorisations() -> None:
    """The error says whose wallets do."""

    async def sign(_: Any) -> str:
        raise AssertionError

    wallet = CallbackWallet(WALLET.address, sign)
    account = await account_in(EoaWorld(), account=KIND, signer=wallet)
    with pytest.raises(ConfigurationError, match="cannot sign authorisations") as caught:
        await account.authorise_delegation()
    assert "LocalWallet" in caught.value.hint


async def test_a_transaction_delegates_and_sets_up_at_once() -> None:
    """From the EOA to itself; the estimate sees the code, and no signature; the authorisation is for the nonce after."""
    world = EoaWorld()
    account = await account_in(world, account=KIND)
    sent = await account.delegate()
    assert world.code == code_of()
    (raw,) = world.sent
    assert sent == "0x" + keccak256(raw).hex()
    fields = rlp.decode(raw[1:])
    assert fields[5].hex() == WALLET.address[2:].lower()
    assert fields[7] == KIND.set_up(WALLET.address, WALLET.address).data
    assert int.from_bytes(fields[4]) == 75_000
    (estimate,) = [params for method, params in world.calls if method == "eth_estimateGas"]
    assert estimate[2] == {WALLET.address: {"code": "0x" + code_of().hex()}}
    assert await account.is_deployed()
    await account.end_delegation()
    assert world.code == b""


async def test_a_refused_or_lost_transaction_is_looked_for() -> None:
    """A reply that was lost is no failure; a refusal is, if the chain does not know the transaction."""
    world = EoaWorld()
    account = await account_in(world, account=KIND)
    world.failures["eth_sendRawTransaction"] = [RpcError(-32000, "insufficient funds")]
    with pytest.raises(BundlerError, match="insufficient funds"):
        await account.delegate()
    assert world.sent == []
    world.failures["eth_getTransactionReceipt"] = [ConnectionLostError("lost")] * 3
    await account.delegate()
    assert len(world.sent) == 1


@pytest.mark.parametrize("failure", [ProtocolError("no JSON"), RpcError(-32005, "too many requests")])
async def test_a_node_that_fails_after_the_transaction_left_is_asked_again(failure: Exception) -> None:
    """No error says that nothing was sent, or leaves it open."""
    world = EoaWorld()

    async def node(method: str, params: Any) -> Any:
        answer = await world.node(method, params)
        if method == "eth_sendRawTransaction" and isinstance(failure, ProtocolError):
            raise failure
        return answer

    account = await account_in(world, account=KIND, rpc_url=InMemoryTransport(node, name="node"))
    world.failures["eth_getTransactionReceipt"] = [failure]
    sent = await account.delegate()
    assert ["0x" + keccak256(one).hex() for one in world.sent] == [sent]


async def test_a_transaction_that_does_not_come_is_said_to_have_been_sent() -> None:
    """Its hash is in the error."""
    world = EoaWorld()
    world.status = None
    account = await account_in(world, account=KIND)
    with pytest.raises(UserOperationTimeoutError) as caught:
        await account.delegate(timeout=0.3)
    assert "0x" + keccak256(world.sent[0]).hex() in caught.value.message


async def test_a_reverted_setup_and_a_chain_that_knows_no_delegation_are_told_apart() -> None:
    """The receipt's status, and the code that the EOA has afterwards."""
    world = EoaWorld()
    world.status = "0x0"
    account = await account_in(world, account=KIND)
    with pytest.raises(UserOperationRevertedError, match="its call was reverted"):
        await account.delegate()
    world = EoaWorld()
    world.applies = False
    account = await account_in(world, account=KIND)
    with pytest.raises(ProtocolError, match="does not run the code"):
        await account.delegate()


# --- session keys -----------------------------------------------------------------------------------------------------


def reading(world: EoaWorld, **answers: tuple[str, Any]) -> None:
    """Have the chain's contracts answer these functions."""
    signatures = {
        "installed": "isModuleInstalled(uint256,address,bytes)",
        "threshold": "threshold(address)",
        "owners": "getOwners(address)",
        "modules": "getValidatorsPaginated(address,uint256)",
    }
    for name, (types, values) in answers.items():
        world.reads[function_selector(signatures[name])] = encode_arguments(types, values)


async def granting(world: EoaWorld, **options: Any) -> tuple[Call, ...]:
    """The calls of the operation that grants the key."""
    account = await account_in(world, account=KIND)
    await grant_session_key(account, KEY, **options)
    (operation,) = world.operations.values()
    return decode_calls(operation.call_data)


async def test_the_first_session_key_brings_its_module() -> None:
    """It is the only owner there, and one signature is enough."""
    world = EoaWorld()
    world.code = code_of()
    reading(world, installed=("(bool)", (False,)))
    (call,) = await granting(world)
    kind, module, setup = decode_arguments("(uint256,address,bytes)", call.data[4:])
    assert (call.target, kind, module) == (WALLET.address, 1, KIND.session_validator)
    assert decode_arguments("(uint256,address[])", setup) == (1, (KEY,))


async def test_a_delegated_eoa_is_set_up_first() -> None:
    """One operation: setup, then the module."""
    world = EoaWorld()
    world.code = code_of()
    first, second = await granting(world, set_up=True)
    assert first == KIND.set_up(WALLET.address, WALLET.address)
    assert second.selector == function_selector("installModule(uint256,address,bytes)")


async def test_further_session_keys_join() -> None:
    """They become owners of the module; not if it wants several signatures, and not twice."""
    world = EoaWorld()
    world.code = code_of()
    reading(
        world,
        installed=("(bool)", (True,)),
        threshold=("(uint256)", (1,)),
        owners=("(address[])", ([OTHER],)),
    )
    (call,) = await granting(world)
    assert call == Call(KIND.session_validator, 0, encode_call("addOwner(address)", KEY))
    account = await account_in(world, account=KIND)
    reading(world, owners=("(address[])", ([OTHER, KEY],)))
    with pytest.raises(InvalidFieldError, match="granted already"):
        await grant_session_key(account, KEY)
    reading(world, threshold=("(uint256)", (2,)))
    with pytest.raises(ConfigurationError, match="takes 2 signatures"):
        await grant_session_key(account, KEY)


@pytest.mark.parametrize(
    ("owners", "expected"),
    [
        ([KEY, OTHER], encode_call("removeOwner(address,address)", "0x" + "00" * 19 + "01", KEY)),
        ([OTHER, KEY], encode_call("removeOwner(address,address)", OTHER, KEY)),
    ],
)
async def test_one_of_several_session_keys_is_removed(owners: list[str], expected: bytes) -> None:
    """By the one before it in the list."""
    world = EoaWorld()
    world.code = code_of()
    reading(world, installed=("(bool)", (True,)), owners=("(address[])", (owners,)))
    account = await account_in(world, account=KIND)
    await revoke_session_key(account, KEY)
    (operation,) = world.operations.values()
    assert decode_calls(operation.call_data) == (Call(KIND.session_validator, 0, expected),)


async def test_the_last_session_key_takes_its_module_along() -> None:
    """Which is found among the account's."""
    world = EoaWorld()
    world.code = code_of()
    module = KIND.session_validator
    reading(
        world,
        installed=("(bool)", (True,)),
        owners=("(address[])", ([KEY],)),
        modules=("(address[],address)", ([TARGET, module], "0x" + "00" * 19 + "01")),
    )
    account = await account_in(world, account=KIND)
    await revoke_session_key(account, KEY)
    (operation,) = world.operations.values()
    assert decode_calls(operation.call_data) == (
        KIND.uninstall_validator(WALLET.address, module, previous=TARGET),
    )
    reading(world, installed=("(bool)", (False,)))
    with pytest.raises(InvalidFieldError, match="not granted"):
        await revoke_session_key(account, KEY)


async def test_a_node_that_contradicts_itself_is_named() -> None:
    """By its one word the account has the module, by the other one it has not: nothing is signed."""
    world = EoaWorld()
    world.code = code_of()
    reading(
        world,
        installed=("(bool)", (True,)),
        owners=("(address[])", ([KEY],)),
        modules=("(address[],address)", ([TARGET], "0x" + "00" * 19 + "01")),
    )
    account = await account_in(world, account=KIND)
    with pytest.raises(ProtocolError, match="not among"):
        await revoke_session_key(account, KEY)
    assert not world.operations


async def test_other_accounts_have_no_session_keys_of_this_kind() -> None:
    """The error says which have."""
    account = await account_in(World())
    for job in (grant_session_key, revoke_session_key):
        with pytest.raises(ConfigurationError, match="in Nexus accounts"):
            await job(account, KEY)


async def test_agents_of_one_account_are_told_apart_by_nonce() -> None:
    """Owner and session differ in the module that the nonce names; lanes in three bytes before it."""
    world = EoaWorld()
    world.code = code_of()
    account = await account_in(world, account=KIND)
    agent = account.signed_by(WalletSigner(LocalWallet(secrets.token_bytes(32))), kind=KIND.for_sessions())
    for client, module in ((account, TARGET), (agent, KIND.session_validator)):
        keys = {client.lanes.key(name) for name in ("", "a", "b")}
        assert len(keys) == 3
        assert {key & 2**160 - 1 for key in keys} == {int(module, 16)}
        assert {key >> 160 & 0xFF for key in keys} == {0}
        sent = await client.send_user_operation(CALL, lane="a")
        assert world.operations[sent].nonce == client.lanes.key("a") << 64

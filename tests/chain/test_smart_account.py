"""Smart accounts on a real chain, through a real bundler: operations signed by a wallet's key."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import pytest
from attrs import evolve

from dan_async import LocalWallet, Timeouts
from dan_async.crypto.abi import encode_call
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    DuplicateUserOperationError,
    InvalidFieldError,
    RpcError,
    UserOperationRevertedError,
)
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.transport.rpc import Transport
from dan_async.types import EntryPointVersion
from dan_async.user_operation import UserOperationReceipt
from dan_async.userops import (
    Call,
    SimpleAccount,
    SmartAccountClient,
    WalletSigner,
    create_smart_account_client,
)
from dan_async.userops.service import JsonRpcService
from tests.chain.local_chain import CHAIN_ID, ETHER, LocalChain

# Starting the bundler counts to the first test that needs it.
pytestmark = pytest.mark.timeout(150)

VERSIONS: list[EntryPointVersion] = ["v0.6.0", "v0.7.0"]


def fresh_address() -> str:
    """An address that nobody used."""
    return "0x" + secrets.token_hex(20)


async def account_of(
    chain: LocalChain, bundler_url: str | Transport, version: EntryPointVersion = "v0.7.0", **options: Any
) -> SmartAccountClient:
    """A SimpleAccount of a new key, with one ether."""
    options = {
        "signer": LocalWallet(secrets.token_bytes(32)),
        "chain_id": CHAIN_ID,
        "account": SimpleAccount(version, factory=chain.factories[version]),
    } | options
    account = await create_smart_account_client(
        bundler_url=bundler_url,
        rpc_url=chain.url,
        timeouts=Timeouts(total_s=60),
        **options,
    )
    chain.fund(await account.get_address())
    return account


@pytest.mark.parametrize("version", VERSIONS)
async def test_calls_are_made_and_the_account_is_deployed(
    chain: LocalChain, bundler_url: str, version: EntryPointVersion
) -> None:
    """The first operation deploys the account and sends ether; the second is a batch; the chain shows both."""
    first, second = fresh_address(), fresh_address()
    async with await account_of(chain, bundler_url, version) as account:
        address = await account.get_address()
        assert not chain.has_code(address)
        receipt = await account.wait_for_receipt(await account.send_user_operation(Call(first, 123)))
        assert receipt.is_success
        assert receipt.actual_gas_cost > 0
        assert chain.has_code(address)
        assert chain.balance(first) == 123
        value = 7 if version == "v0.7.0" else 0
        batch = [Call(second, value), Call(second, value)]
        await account.wait_for_receipt(await account.send_user_operation(batch))
        assert chain.balance(second) == 2 * value
        assert await account.get_nonce() == account.lanes.key() << 64 | 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_well_known_factorys_address_is_worked_out(
    chain: LocalChain, bundler_url: str, version: EntryPointVersion
) -> None:
    """The factory that its own code puts at the well-known address names, and deploys to, the address worked out here."""
    wallet, salt = LocalWallet(secrets.token_bytes(32)), secrets.randbits(64)
    async with await account_of(
        chain, bundler_url, version, signer=wallet, salt=salt, account=SimpleAccount(version)
    ) as account:
        address = await account.get_address()
        assert SimpleAccount(version).deployment(wallet.address, salt).address == address
        await account.wait_for_receipt(await account.send_user_operation(Call(fresh_address(), 1)))
        assert chain.has_code(address)


async def test_the_chain_decides_whether_an_operation_is_made_again(
    chain: LocalChain, bundler_url: str
) -> None:
    """A bundler that executes what it says it refuses, and denies it: the entry point's event shows whose the nonce was."""
    honest = JsonRpcService("bundler", bundler_url)
    deadline, offered, to = Deadline(60), [], fresh_address()

    async def lying(method: str, params: Any) -> Any:
        if method in ("eth_getUserOperationByHash", "pimlico_getUserOperationStatus"):
            return None
        answer = await honest.ask(method, params, deadline=deadline)
        if method == "eth_sendUserOperation":
            offered.append(answer)
            raise RpcError(-32500, "AA25 invalid account nonce")
        return answer

    wallet = LocalWallet(secrets.token_bytes(32))
    async with await account_of(chain, bundler_url, signer=wallet) as account:
        await account.wait_for_receipt(await account.send_user_operation(Call(fresh_address(), 1)))
    async with await account_of(chain, InMemoryTransport(lying), signer=wallet) as account:
        sent = await account.send_user_operation(Call(to, 7))
        assert (await account.wait_for_receipt(sent)).is_success
    await honest.aclose()
    assert set(offered) == {sent}
    assert chain.balance(to) == 7


async def test_lanes_do_not_wait_for_each_other_and_keep_their_order(
    chain: LocalChain, bundler_url: str
) -> None:
    """Operations of three lanes at once, two in each: all are executed, none collides, each lane counts its own."""
    async with await account_of(chain, bundler_url) as account:
        await account.wait_for_receipt(await account.send_user_operation(Call(fresh_address(), 1)))
        to = fresh_address()
        lanes = [name for name in ("a", "b", "c") for _ in range(2)]
        sent = await asyncio.gather(*(account.send_user_operation(Call(to, 1), lane=lane) for lane in lanes))
        await asyncio.gather(*(account.wait_for_receipt(one) for one in sent))
        assert len(set(sent)) == 6
        assert chain.balance(to) == 6
        for lane in ("a", "b", "c"):
            assert await account.get_nonce(lane) == account.lanes.key(lane) << 64 | 2


async def test_two_clients_in_one_lane_get_through(chain: LocalChain, bundler_url: str) -> None:
    """Two programs that share signer and lane do not know of each other: each of their calls is made exactly once."""
    wallet, to = LocalWallet(secrets.token_bytes(32)), fresh_address()
    async with (
        await account_of(chain, bundler_url, signer=wallet) as one,
        await account_of(chain, bundler_url, signer=wallet) as other,
    ):
        await one.wait_for_receipt(await one.send_user_operation(Call(fresh_address(), 1)))
        sent = await asyncio.gather(
            *(account.send_user_operation(Call(to, 1)) for account in (one, other, one, other))
        )
        await asyncio.gather(*(one.wait_for_receipt(each) for each in sent))
        assert await one.get_nonce() == one.lanes.key() << 64 | 5
    assert chain.balance(to) == 4


async def test_parallel_first_operations_deploy_once(chain: LocalChain, bundler_url: str) -> None:
    """Lanes that begin before the account is deployed wait for the one that deploys it."""
    async with await account_of(chain, bundler_url) as account:
        to = fresh_address()
        sent = await asyncio.gather(
            *(account.send_user_operation(Call(to, 1), lane=name) for name in ("a", "b"))
        )
        await asyncio.gather(*(account.wait_for_receipt(one) for one in sent))
    assert chain.balance(to) == 2


async def test_a_reverted_call_is_told(chain: LocalChain, bundler_url: str) -> None:
    """What fails in the estimate is refused with its reason; what fails on the chain is an error with its receipt."""
    async with await account_of(chain, bundler_url) as account:
        await account.wait_for_receipt(await account.send_user_operation(Call(fresh_address(), 1)))
        too_much = Call(fresh_address(), 5 * ETHER)
        with pytest.raises(BundlerError) as refused:
            await account.send_user_operation(too_much)
        assert refused.value.service == "bundler"
        small = await account.prepare_user_operation(
            Call(fresh_address(), 1), nonce=await account.get_nonce()
        )
        failing = evolve(
            small,
            call_data=SimpleAccount().encode_calls([too_much]),
            verification_gas_limit=200_000,
            call_gas_limit=200_000,
            pre_verification_gas=100_000,
        )
        with pytest.raises(UserOperationRevertedError) as reverted:
            await account.wait_for_receipt(await account.send_signed(await sign(account, failing)))
    assert not UserOperationReceipt.from_dict(reverted.value.receipt).is_success


async def sign(account: SmartAccountClient, operation: Any) -> Any:
    """The operation with its owner's signature."""
    assert isinstance(account.signer, LocalWallet)
    signature = await WalletSigner(account.signer).sign_user_operation(
        operation, entry_point=account.entry_point, chain_id=account.chain_id
    )
    return evolve(operation, signature=signature)


async def test_a_foreign_signature_is_explained(chain: LocalChain, bundler_url: str) -> None:
    """The bundler refuses a signature of somebody else, and the error says so in plain words."""
    async with (
        await account_of(chain, bundler_url) as account,
        await account_of(chain, bundler_url) as stranger,
    ):
        operation = await account.prepare_user_operation(
            Call(fresh_address(), 1), nonce=await account.get_nonce()
        )
        with pytest.raises(BundlerError, match="does not accept the signature") as caught:
            await account.send_signed(await sign(stranger, operation))
    assert "owner" in caught.value.hint


async def test_an_empty_account_is_explained(chain: LocalChain, bundler_url: str) -> None:
    """An account that cannot pay is AA21, in plain words."""
    wallet = LocalWallet(secrets.token_bytes(32))
    async with await account_of(chain, bundler_url, signer=wallet, salt=7) as rich:
        operation = await rich.prepare_user_operation(Call(fresh_address()), nonce=await rich.get_nonce())
        chain.rpc("anvil_setBalance", await rich.get_address(), "0x0")
        with pytest.raises(BundlerError, match="cannot pay for the gas") as caught:
            await rich.send_signed(await sign(rich, operation))
    assert caught.value.entry_point_code == "AA21"


async def test_the_same_operation_is_not_sent_twice(chain: LocalChain, bundler_url: str) -> None:
    """The client notices; and another client's second sending is taken for the first."""
    to = fresh_address()
    wallet = LocalWallet(secrets.token_bytes(32))
    async with (
        await account_of(chain, bundler_url, signer=wallet) as account,
        await account_of(chain, bundler_url, signer=wallet) as again,
    ):
        operation = await sign(
            account,
            await account.prepare_user_operation(Call(to, 5), nonce=await account.get_nonce()),
        )
        sent = await account.send_signed(operation)
        with pytest.raises(DuplicateUserOperationError):
            await account.send_signed(operation)
        await account.wait_for_receipt(sent)
        assert await again.send_signed(operation) == sent
    assert chain.balance(to) == 5


async def test_the_wrong_chain_is_noticed_before_anything_is_signed(
    chain: LocalChain, bundler_url: str
) -> None:
    """A client that believes to be on another chain signs nothing."""
    async with await account_of(chain, bundler_url, chain_id=1) as account:
        with pytest.raises(InvalidFieldError, match="is on chain 31337") as caught:
            await account.send_user_operation(Call(fresh_address(), 1))
    assert caught.value.field == "bundler_url"


async def test_the_bundler_is_asked_for_its_chain(chain: LocalChain, bundler_url: str) -> None:
    """Without chain_id the bundler says which chain it is."""
    async with await account_of(chain, bundler_url, chain_id=None) as account:
        assert account.chain_id == CHAIN_ID


async def test_tokens_move(chain: LocalChain, bundler_url: str) -> None:
    """Call data reaches the contract: a deposit into the entry point is credited to the one named."""
    beneficiary = fresh_address()
    async with await account_of(chain, bundler_url) as account:
        deposit = Call(account.entry_point, 1000, encode_call("depositTo(address)", beneficiary))
        await account.wait_for_receipt(await account.send_user_operation(deposit))
        (held,) = chain.call(account.entry_point, "balanceOf(address)", beneficiary, returns="(uint256)")
    assert held == 1000

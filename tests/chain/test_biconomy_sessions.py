"""Sessions on chain against Biconomy's own contracts, the devnet's nodes and a real bundler."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from attrs import evolve

from dan_async import DanClient, LocalWallet, Timeouts
from dan_async.crypto.abi import encode_call
from dan_async.crypto.hashes import keccak256
from dan_async.devnet import Devnet
from dan_async.errors import BundlerError, NotPermittedError, PermissionDeniedError
from dan_async.storage import MemorySessionStore
from dan_async.types import Address
from dan_async.userops import (
    AbiPolicy,
    AbiRule,
    BiconomyV2,
    Call,
    Erc20Policy,
    SessionLeaf,
    SmartAccountClient,
    create_session_with_distributed_key,
    create_smart_account_client,
    open_session_on_chain,
)
from tests.chain.biconomy_contracts import CONTRACTS, BiconomyContracts
from tests.chain.local_chain import CHAIN_ID, ETHER, LocalChain

pytestmark = pytest.mark.timeout(400)

PATIENT = Timeouts(total_s=90, attempt_s=60)
TRANSFER = "transfer(address,uint256)"

#: The account's check failed, its module says no, or it is the wrong time.
REFUSED = re.compile("AA2[234]|-3250[37]")


@pytest.fixture
async def dan() -> AsyncIterator[DanClient]:
    """A client of a 2-of-3 network."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net, timeouts=PATIENT) as client:
        yield client


@pytest.fixture
async def account(
    contracts: BiconomyContracts, chain: LocalChain, bundler_url: str
) -> AsyncIterator[SmartAccountClient]:
    """An account that is not deployed yet, with an ether and a thousand tokens."""
    found = await create_smart_account_client(
        signer=LocalWallet(secrets.token_bytes(32)),
        bundler_url=bundler_url,
        rpc_url=chain.url,
        account=BiconomyV2(),
        chain_id=CHAIN_ID,
        timeouts=PATIENT,
    )
    async with found:
        chain.fund(await found.get_address(), ETHER)
        contracts.mint(await found.get_address(), 1000)
        yield found


def fresh_address() -> Address:
    return Address("0x" + secrets.token_hex(20))


def test_addresses_are_the_factorys(contracts: BiconomyContracts, chain: LocalChain) -> None:
    """A hundred owners and indices: worked out here, and by the factory itself."""
    for _ in range(100):
        found = BiconomyV2().deployment(fresh_address(), secrets.randbelow(2**256))
        (said,) = chain.call(
            found.factory, found.address_function, *found.address_arguments, returns="(address)"
        )
        assert said == found.address


async def test_an_agent_moves_a_token_without_the_owner(
    contracts: BiconomyContracts, chain: LocalChain, account: SmartAccountClient, dan: DanClient
) -> None:
    """The first operation deploys and grants; then the session acts, is held to its policy, and is revoked."""
    store, shop = MemorySessionStore(), fresh_address()
    policy = Erc20Policy(
        token=contracts.token, recipient=shop, max_amount=100, valid_until=int(time.time()) + 3600
    )
    session = await create_session_with_distributed_key(
        account, policy, client=dan, store=store, permissions="from-policy"
    )
    assert chain.has_code(await account.get_address())
    signature = bytes.fromhex((await account.sign_message("hello"))[2:])
    digest = keccak256(b"\x19Ethereum Signed Message:\n5hello")
    answer = chain.call(
        await account.get_address(), "isValidSignature(bytes32,bytes)", digest, signature, returns="(bytes4)"
    )
    assert answer == (bytes.fromhex("1626ba7e"),)

    def transfer(amount: int = 100, to: str = shop) -> Call:
        return Call(contracts.token, 0, encode_call(TRANSFER, to, amount))

    await session.send_transaction(transfer())
    assert contracts.tokens(shop) == 100
    for call, rule in (
        (transfer(101), "max_amount"),
        (transfer(to=fresh_address()), "recipient"),
        (evolve(transfer(), target=fresh_address()), "token"),
    ):
        with pytest.raises(PermissionDeniedError, match=rule):
            await session.send_transaction(call)
    outcome = await session.revoke()
    assert outcome.is_complete
    with pytest.raises(PermissionDeniedError, match="merkleRoot"):
        await session.send_transaction(transfer())
    assert contracts.tokens(shop) == 100


async def test_the_chain_and_the_nodes_refuse_by_themselves(
    contracts: BiconomyContracts,
    chain: LocalChain,
    account: SmartAccountClient,
    dan: DanClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the check here switched off: amount, recipient, token, function, times, a foreign proof, a leaf not in the tree."""
    store, shop, now = MemorySessionStore(), fresh_address(), int(time.time())
    erc20 = Erc20Policy(token=contracts.token, recipient=shop, max_amount=100, valid_until=now + 3600)
    abi = AbiPolicy(
        target=contracts.token, function=TRANSFER, rules=[AbiRule(0, "==", shop), AbiRule(32, "<=", 100)]
    )
    later = evolve(abi, valid_after=now + 1800)
    free = await create_session_with_distributed_key(account, erc20, client=dan, store=store)
    ruled = await create_session_with_distributed_key(account, abi, client=dan, store=store)
    early = await create_session_with_distributed_key(account, later, client=dan, store=store)
    bound = await create_session_with_distributed_key(
        account, erc20, client=dan, store=store, permissions="from-policy"
    )
    over = evolve(erc20, valid_until=now - 3600)
    late = await create_session_with_distributed_key(
        account, over, client=dan, store=store, clock=lambda: now - 7200.0
    )
    monkeypatch.setattr(SessionLeaf, "check_call", lambda *_, **__: None)

    def transfer(amount: int = 10, to: str = shop, at: str = contracts.token, name: str = TRANSFER) -> Call:
        return Call(at, 0, encode_call(name, to, amount))

    refused: list[tuple[Any, Call]] = [
        (free, transfer(101)),
        (free, transfer(to=fresh_address())),
        (free, transfer(at=fresh_address())),
        (ruled, transfer(101)),
        (ruled, transfer(to=fresh_address())),
        (ruled, transfer(at=fresh_address())),
        (ruled, transfer(name="approve(address,uint256)")),
        (early, transfer()),
    ]
    for session, call in refused:
        with pytest.raises(BundlerError, match=REFUSED):
            await session.send_transaction(call)
    operation = await account.prepare_user_operation(transfer(101), nonce=7 << 64)
    with pytest.raises(NotPermittedError):  # nobody but the nodes has looked at it
        await dan.sign_user_operation(operation, bound.session)
    with pytest.raises(BundlerError, match=REFUSED):  # another session's leaf and proof
        await evolve(free, leaves=ruled.leaves).send_transaction(transfer())
    with monkeypatch.context() as patch:  # a leaf that nobody granted, with the proof of one that was
        generous = SessionLeaf.of(evolve(erc20, max_amount=10**6), free.session.session_key_eoa, CONTRACTS)
        tree = await free._tree.current()
        proof = tree.proof(free.leaves[0])
        patch.setattr(type(tree), "proof", lambda *_: proof)
        with pytest.raises(BundlerError, match="AA23"):
            await evolve(free, leaves=(generous,)).send_transaction(transfer(101))
    assert contracts.tokens(shop) == 0
    await free.send_transaction(transfer())
    await ruled.send_transaction(transfer())
    with pytest.raises(BundlerError, match=REFUSED):
        await late.send_transaction(transfer())
    assert contracts.tokens(shop) == 20


async def test_two_grants_and_three_agents_at_once(
    contracts: BiconomyContracts, account: SmartAccountClient, dan: DanClient
) -> None:
    """Both sessions are on the chain, and each call is executed exactly once; batches go through the router."""
    store, shop = MemorySessionStore(), fresh_address()
    policy = Erc20Policy(token=contracts.token, recipient=shop, max_amount=100)
    both = AbiPolicy(target=contracts.token, function=TRANSFER, rules=[AbiRule(0, "==", shop)])
    first, second = await asyncio.gather(
        create_session_with_distributed_key(account, policy, client=dan, store=store),
        create_session_with_distributed_key(account, [policy, both], client=dan, store=store, batch=True),
    )
    again = await open_session_on_chain(account, second.session_id, client=dan, store=store)

    def transfer(amount: int) -> Call:
        return Call(contracts.token, 0, encode_call(TRANSFER, shop, amount))

    agents = ((first, "a"), (second, "b"), (again, "c"))
    await asyncio.gather(
        *(agent.send_transaction(transfer(2**n), lane=lane) for n, (agent, lane) in enumerate(agents))
    )
    assert contracts.tokens(shop) == 7
    await second.send_transactions([transfer(100), transfer(300)])
    assert contracts.tokens(shop) == 407

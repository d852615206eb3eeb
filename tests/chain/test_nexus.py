"""ERC-7579 accounts (Biconomy's Nexus) and delegated EOAs, whose operations a session key signs, through a real bundler."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from attrs import evolve

from dan_async import DanClient, DanSessionKeyPayload, LocalWallet, Timeouts
from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.crypto.set_code import DELEGATION_PREFIX
from dan_async.devnet import Devnet
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    InvalidFieldError,
    NotPermittedError,
    PermissionDeniedError,
    UserOperationCostError,
)
from dan_async.permissions import decode_calls
from dan_async.types import Address
from dan_async.userops import (
    Call,
    Nexus,
    SessionSigner,
    SmartAccountClient,
    WalletSigner,
    create_smart_account_client,
    grant_session_key,
    revoke_session_key,
)
from tests.chain.local_chain import CHAIN_ID, LocalChain
from tests.chain.nexus_contracts import NexusContracts

# Starting the bundler, and compiling, count to the first test that needs them.
pytestmark = pytest.mark.timeout(400)

SESSIONS = Nexus().session_validator
PATIENT = Timeouts(total_s=90, attempt_s=60)
TRANSFER = "transfer(address,uint256)"


@pytest.fixture
async def dan() -> AsyncIterator[DanClient]:
    """A client of a 2-of-3 network."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net, timeouts=PATIENT) as client:
        yield client


@pytest.fixture
def wallet() -> LocalWallet:
    """The owner."""
    return LocalWallet(secrets.token_bytes(32))


async def account_of(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, wallet: Any, **changes: Any
) -> SmartAccountClient:
    """The owner's client of a Nexus account, with an ether and a thousand tokens."""
    account = await create_smart_account_client(
        signer=wallet,
        bundler_url=bundler_url,
        rpc_url=chain.url,
        account=nexus.kind(**changes),
        timeouts=PATIENT,
    )
    address = await account.get_address()
    chain.fund(address)
    nexus.mint(address, 1000)
    return account


def fresh_address() -> Address:
    """An address that nobody used."""
    return Address("0x" + secrets.token_hex(20))


async def session_of(
    dan: DanClient, wallet: LocalWallet, nexus: NexusContracts, account: SmartAccountClient, shop: str
) -> DanSessionKeyPayload:
    """A session whose nodes allow small transfers of the token to one shop, and nothing else."""
    permissions = {
        "chainId": CHAIN_ID,
        "account": await account.get_address(),
        "permissions": [
            {
                "type": "erc20",
                "method": "transfer",
                "to": nexus.token,
                "args": {"to": shop, "value": 10, "eq": "<="},
            }
        ],
    }
    return await dan.generate_session_key(wallet=wallet, chain_id=CHAIN_ID, permissions=permissions)


def agent_of(account: SmartAccountClient, dan: DanClient, session: Any) -> SmartAccountClient:
    """A client of the same account for which the session signs."""
    return account.signed_by(SessionSigner(dan, session), kind=account.kind.for_sessions())


async def done(account: SmartAccountClient, calls: Any, **options: Any) -> Any:
    """Make the calls, and wait for them."""
    return await account.wait_for_receipt(await account.send_user_operation(calls, **options))


def test_the_address_is_the_factorys(chain: LocalChain, nexus: NexusContracts) -> None:
    """For a hundred random owners and salts, and the code that the factory deploys is the proxy's."""
    for _ in range(100):
        found = nexus.kind().deployment(fresh_address(), secrets.randbits(256))
        assert found is not None
        (address,) = chain.call(
            found.factory, found.address_function, *found.address_arguments, returns="(address)"
        )
        assert found.address == address


async def test_a_session_key_acts_within_its_permissions(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, dan: DanClient, wallet: LocalWallet
) -> None:
    """One operation of the owner deploys and grants; the agent pays alone; what the nodes refuse does not happen."""
    shop = fresh_address()
    async with await account_of(chain, nexus, bundler_url, wallet) as account:
        session = await session_of(dan, wallet, nexus, account, shop)
        await grant_session_key(account, session.session_key_eoa)
        agent = agent_of(account, dan, session)
        pay = Call(nexus.token, 0, encode_call(TRANSFER, shop, 7))
        await done(agent, pay)
        await done(agent, [pay, pay])
        assert nexus.tokens(shop) == 21
        assert await agent.get_nonce() >> 64 & (1 << 160) - 1 == int(SESSIONS, 16)
        address = await account.get_address()
        for calls in (
            Call(nexus.token, 0, encode_call(TRANSFER, shop, 11)),
            [pay, Call(nexus.token, 0, encode_call(TRANSFER, fresh_address(), 1))],
            [pay, Call(shop, 1)],
            nexus.kind().uninstall_validator(address, nexus.owner_validator, previous=SESSIONS),
            Call(SESSIONS, 0, encode_call("addOwner(address)", fresh_address())),
        ):
            with pytest.raises(NotPermittedError):
                await agent.send_user_operation(calls)
        await done(account, Call(shop, 5))  # the owner is the owner still
    assert (nexus.tokens(shop), chain.balance(shop)) == (21, 5)


@pytest.mark.long
async def test_nodes_refuse_what_the_account_would_do(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, dan: DanClient, wallet: LocalWallet
) -> None:
    """Modes and encodings that this account executes when its owner signs them get no signature of the nodes."""
    shop, thief = fresh_address(), fresh_address()
    pay, steal = ((nexus.token, 0, encode_call(TRANSFER, to, 3)) for to in (shop, thief))
    good, evil = (encode_arguments("((address,uint256,bytes)[])", ([one],)) for one in (pay, steal))
    batch, attempt = b"\x01" + bytes(31), b"\x01\x01" + bytes(30)
    crooked = len(good).to_bytes(32) + good[32:] + evil[32:]
    assert crooked[32:].startswith(
        good[32:]
    )  # a reader who expects the calls where they always are sees the good ones
    attacks = {
        "an offset to a second batch": encode_call("execute(bytes32,bytes)", batch, crooked),
        "try mode": encode_call("execute(bytes32,bytes)", attempt, good),
        "a word behind the calls": encode_call("execute(bytes32,bytes)", batch, good + bytes(32)),
    }
    async with await account_of(chain, nexus, bundler_url, wallet) as account:
        session = await session_of(dan, wallet, nexus, account, shop)
        await grant_session_key(account, session.session_key_eoa)
        agent = agent_of(account, dan, session)
        draft = await agent.prepare_user_operation(Call(*pay), nonce=await agent.get_nonce())
        for name, call_data in attacks.items():
            with pytest.raises(NotPermittedError):
                await dan.sign_user_operation(evolve(draft, call_data=call_data), session)
            mine = evolve(draft, call_data=call_data, nonce=await account.get_nonce(name))
            signer = WalletSigner(wallet)
            signature = await signer.sign_user_operation(
                mine, entry_point=account.entry_point, chain_id=CHAIN_ID
            )
            await account.wait_for_receipt(await account.send_signed(evolve(mine, signature=signature)))
    assert (nexus.tokens(shop), nexus.tokens(thief)) == (6, 3)


def calls_made(trace: dict[str, Any], account: str) -> list[Call]:
    """The calls of an account, as the chain traced them; a delegate call out of its own code is none of its kind's."""
    found: list[Call] = []
    for inner in trace.get("calls", ()):
        if inner["type"] == "CALL" and inner["from"] == account.lower():
            found.append(Call(inner["to"], int(inner["value"], 16), inner["input"]))
        else:
            found += calls_made(inner, account)
    return found


@pytest.mark.long
async def test_what_nodes_read_is_what_the_account_does(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, wallet: LocalWallet
) -> None:
    """Call data that was tampered with is refused here, or the account makes the very calls that were read."""
    random = Random(7579)
    batch = "((address,uint256,bytes)[])"
    targets = ["0x" + random.randbytes(20).hex() for _ in range(3)]
    async with await account_of(chain, nexus, bundler_url, wallet) as account:
        await done(account, Call(targets[0], 1))
        address, read, differs = await account.get_address(), 0, 0
        for _ in range(1500):
            calls = [
                (random.choice(targets), random.randrange(9), random.randbytes(random.randrange(40)))
                for _ in range(random.randrange(1, 4))
            ]
            if random.random() < 0.3:
                (target, value, data), *_ = calls
                packed = bytes.fromhex(target[2:]) + value.to_bytes(32) + data
                whole = encode_call("execute(bytes32,bytes)", bytes(32), packed)
            else:
                whole = encode_call(
                    "execute(bytes32,bytes)", b"\x01" + bytes(31), encode_arguments(batch, (calls,))
                )
            changed = bytearray(whole)
            for _ in range(random.randrange(3)):
                place = random.randrange(4, len(changed))
                changed[place] = random.choice((0, 1, 0x20, 0x40, 0x60, random.randrange(256)))
            asked = {"from": account.entry_point, "to": address, "data": "0x" + changed.hex()}
            trace = chain.rpc("debug_traceCall", asked, "latest", {"tracer": "callTracer"})
            happens = [] if "error" in trace else calls_made(trace, address)
            try:
                seen = list(decode_calls(bytes(changed)))
            except PermissionDeniedError:
                differs += bool(happens)
                continue
            assert seen == happens or "error" in trace, changed.hex()
            read += not trace.get("error")
    assert (read > 300, differs > 30) == (True, True), (read, differs)


@pytest.mark.long
async def test_two_session_keys_come_and_go(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, dan: DanClient, wallet: LocalWallet
) -> None:
    """Each is granted and revoked by itself; a revoked one is refused on the chain, and the last one takes its module along."""
    shop = fresh_address()
    pay = Call(nexus.token, 0, encode_call(TRANSFER, shop, 1))
    async with await account_of(chain, nexus, bundler_url, wallet) as account:
        sessions = [await session_of(dan, wallet, nexus, account, shop) for _ in range(2)]
        first = agent_of(account, dan, sessions[0])
        second = await create_smart_account_client(  # as in a process of its own
            signer=SessionSigner(dan, sessions[1]),
            bundler_url=bundler_url,
            rpc_url=chain.url,
            account=nexus.kind().for_sessions(),
            owner=wallet.address,
            timeouts=PATIENT,
        )
        for session in sessions:
            await grant_session_key(account, session.session_key_eoa)
        with pytest.raises(InvalidFieldError, match="granted already"):
            await grant_session_key(account, sessions[0].session_key_eoa)
        await done(first, pay)
        await done(second, pay)
        await revoke_session_key(account, sessions[0].session_key_eoa)
        with pytest.raises(BundlerError, match=r"AA24|-32507"):
            await first.send_user_operation(pay)
        await done(second, pay)
        await revoke_session_key(account, sessions[1].session_key_eoa)
        with pytest.raises(BundlerError, match=r"AA23|AA24|-3250[07]"):
            await second.send_user_operation(pay)
        with pytest.raises(InvalidFieldError, match="not granted"):
            await revoke_session_key(account, sessions[1].session_key_eoa)
        modules, _ = await account.read_contract(
            await account.get_address(),
            "getValidatorsPaginated(address,uint256)",
            ("0x" + "00" * 19 + "01", 9),
            "(address[],address)",
        )
        await second.aclose()
    assert modules == (account.kind.owner_validator,)
    assert nexus.tokens(shop) == 3


async def test_an_eoa_is_delegated_and_a_session_key_acts_for_it(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, dan: DanClient, wallet: LocalWallet
) -> None:
    """One operation delegates the owner's EOA, sets it up and grants; then the session pays out of it, within permissions."""
    shop = fresh_address()
    pay = Call(nexus.token, 0, encode_call(TRANSFER, shop, 4))
    async with await account_of(chain, nexus, bundler_url, wallet, is_delegated=True) as account:
        assert await account.get_address() == wallet.address
        session = await session_of(dan, wallet, nexus, account, shop)
        agent = agent_of(account, dan, session)
        with pytest.raises(ConfigurationError, match="does not run the code"):
            await agent.send_user_operation(pay)
        authorisation = await account.authorise_delegation()
        assert (authorisation.chain_id, authorisation.authority) == (CHAIN_ID, wallet.address)
        await grant_session_key(account, session.session_key_eoa, set_up=True, authorisation=authorisation)
        code = chain.rpc("eth_getCode", wallet.address, "latest")
        assert code == "0x" + DELEGATION_PREFIX.hex() + nexus.implementation[2:].lower()
        await done(agent, [pay, pay])
        for calls in (Call(shop, 1), [pay, Call(wallet.address, 0)]):
            with pytest.raises(NotPermittedError):
                await agent.send_user_operation(calls)
        with pytest.raises(InvalidFieldError, match="nonce 0, which is 1 now"):
            await account.send_user_operation(pay, authorisation=authorisation)
    assert nexus.tokens(shop) == 8


@pytest.mark.long
async def test_a_delegation_moves_and_ends(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, dan: DanClient, wallet: LocalWallet
) -> None:
    """By the EOA's own transaction; another code is noticed; an authorisation that comes with an agent's operation brings it back."""
    shop = fresh_address()
    pay = Call(nexus.token, 0, encode_call(TRANSFER, shop, 2))
    async with await account_of(chain, nexus, bundler_url, wallet, is_delegated=True) as account:
        await account.delegate()
        assert await account.is_deployed()
        session = await session_of(dan, wallet, nexus, account, shop)
        agent = agent_of(account, dan, session)
        await grant_session_key(account, session.session_key_eoa)
        await done(agent, pay)
        elsewhere = evolve(account.kind, implementation=nexus.bootstrap)
        other = await create_smart_account_client(
            signer=wallet, bundler_url=bundler_url, rpc_url=chain.url, account=elsewhere, timeouts=PATIENT
        )
        async with other:
            await other.delegate(set_up=False)
        with pytest.raises(ConfigurationError, match="does not run the code"):
            await agent.send_user_operation(pay)
        await done(agent, pay, authorisation=await account.authorise_delegation())
        with pytest.raises(BundlerError, match="eth_estimateGas"):
            await account.delegate()  # it is set up
        await account.end_delegation()
        assert not await account.is_deployed()
        assert not chain.has_code(wallet.address)
    assert nexus.tokens(shop) == 4


@pytest.mark.long
async def test_an_authorisation_is_checked_before_anything_is_sent(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str, wallet: LocalWallet
) -> None:
    """Another's, another code's, another chain's; for every chain only by name; and no price beyond the limit."""
    kind = nexus.kind(is_delegated=True)
    stranger = LocalWallet(secrets.token_bytes(32))
    async with (
        await account_of(chain, nexus, bundler_url, wallet, is_delegated=True) as account,
        await account_of(chain, nexus, bundler_url, stranger, is_delegated=True) as other,
        await create_smart_account_client(
            signer=wallet, bundler_url=bundler_url, rpc_url=chain.url, account=kind, cost_limit=1
        ) as frugal,
    ):
        call = Call(fresh_address(), 1)
        with pytest.raises(InvalidFieldError, match="signed by"):
            await account.send_user_operation(call, authorisation=await other.authorise_delegation())
        wrong = await account.authorise_delegation()
        for change, reason in (
            ({"address": nexus.bootstrap}, "for the code of"),
            ({"chain_id": 1}, "for chain 1"),
        ):
            fields = {name: getattr(wrong, name) for name in ("chain_id", "address", "nonce")} | change
            made = evolve(wrong, **fields, signature=await wallet.sign_authorisation(**fields))
            with pytest.raises(InvalidFieldError, match=reason):
                await account.send_user_operation(call, authorisation=made)
        with pytest.raises(InvalidFieldError, match="or 0 for every chain"):
            await account.authorise_delegation(chain_id=1)
        with pytest.raises(UserOperationCostError, match="delegation could cost"):
            await frugal.delegate()
        assert int(chain.rpc("eth_getTransactionCount", wallet.address, "latest"), 16) == 0
        everywhere = await account.authorise_delegation(chain_id=0)
        assert (everywhere.chain_id, everywhere.authority) == (0, wallet.address)
        set_up = kind.set_up(wallet.address, wallet.address)
        await done(account, [set_up, call], authorisation=everywhere)
        assert chain.balance(call.target) == 1

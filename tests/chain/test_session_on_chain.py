"""The whole way: a session's distributed key owns a smart account, the devnet signs, a bundler carries it to the chain."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dan_async import DanClient, DanSessionKeyPayload, GatewayNetwork, LocalWallet, Timeouts
from dan_async.crypto.abi import encode_call
from dan_async.devnet import Devnet
from dan_async.errors import EphemeralKeyRefusedError, NotPermittedError, PermissionDeniedError
from dan_async.types import EntryPointVersion
from dan_async.userops import (
    Call,
    SessionSigner,
    SimpleAccount,
    SmartAccountClient,
    create_smart_account_client,
    sign_user_operation,
)
from tests.chain.local_chain import CHAIN_ID, ETHER, LocalChain

# Starting the bundler counts to the first test that needs it.
pytestmark = pytest.mark.timeout(150)

OWNER = LocalWallet("0x" + "00" * 31 + "01")
PATIENT = Timeouts(total_s=60, attempt_s=60)
VERSIONS: list[EntryPointVersion] = ["v0.6.0", "v0.7.0"]


def fresh_address() -> str:
    """An address that nobody used."""
    return "0x" + secrets.token_hex(20)


@pytest.fixture
async def net() -> AsyncIterator[Devnet]:
    """A 2-of-3 network."""
    async with Devnet(threshold=2, parties=3) as running:
        yield running


@pytest.fixture
async def dan(net: Devnet) -> AsyncIterator[DanClient]:
    """A client that speaks to the nodes."""
    async with DanClient(net, timeouts=PATIENT) as client:
        yield client


async def account_of(
    chain: LocalChain,
    bundler_url: str,
    dan: DanClient,
    session: DanSessionKeyPayload,
    version: EntryPointVersion = "v0.7.0",
) -> SmartAccountClient:
    """A SimpleAccount whose owner is the session key, with one ether."""
    account = await create_smart_account_client(
        signer=SessionSigner(dan, session),
        bundler_url=bundler_url,
        rpc_url=chain.url,
        account=SimpleAccount(version, factory=chain.factories[version]),
        timeouts=PATIENT,
    )
    chain.fund(await account.get_address())
    return account


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_devnet_signs_and_the_chain_executes(
    chain: LocalChain, bundler_url: str, dan: DanClient, version: EntryPointVersion
) -> None:
    """A user operation signed by t nodes is accepted by the account's contract, and its effect is on the chain."""
    session = await dan.generate_session_key(wallet=OWNER, chain_id=CHAIN_ID)
    to = fresh_address()
    async with await account_of(chain, bundler_url, dan, session, version) as account:
        sent = await account.send_user_operation(Call(to, 4337))
        receipt = await account.wait_for_receipt(sent)
        (owner,) = chain.call(await account.get_address(), "owner()", returns="(address)")
    assert receipt.is_success
    assert chain.balance(to) == 4337
    assert owner == session.session_key_eoa


async def test_an_operation_is_signed_by_itself(chain: LocalChain, bundler_url: str, dan: DanClient) -> None:
    """Prepared, signed and sent in three steps, with the permissions checked before the second."""
    to = fresh_address()
    permissions: Any = {
        "factory": chain.factories["v0.7.0"],
        "permissions": [{"type": "call", "to": to, "valueLimit": 2}],
    }
    session = await dan.generate_session_key(wallet=OWNER, chain_id=CHAIN_ID, permissions=permissions)
    async with await account_of(chain, bundler_url, dan, session) as account:
        nonce = await account.get_nonce()
        prepared = await account.prepare_user_operation(Call(to, 2), nonce=nonce)
        signed = await dan.sign_user_operation(prepared, session, permissions=permissions)
        await account.wait_for_receipt(await account.send_signed(signed))
        too_much = await account.prepare_user_operation(Call(to, 3), nonce=await account.get_nonce())
        with pytest.raises(PermissionDeniedError, match=r"permissions\[0\]\.valueLimit"):
            await dan.sign_user_operation(too_much, session, permissions=permissions)
    assert chain.balance(to) == 2


async def test_through_the_gateway_too(chain: LocalChain, bundler_url: str, net: Devnet) -> None:
    """The same through the gateway, in the protocol of the public clients."""
    async with DanClient(GatewayNetwork(net.gateway_url, revision="0.3"), timeouts=PATIENT) as dan:
        session = await dan.generate_session_key(
            wallet=OWNER, chain_id=CHAIN_ID, threshold=2, parties_number=3
        )
        to = fresh_address()
        async with await account_of(chain, bundler_url, dan, session) as account:
            await account.wait_for_receipt(await account.send_user_operation(Call(to, 1)))
    assert chain.balance(to) == 1


async def test_agents_of_one_session_work_side_by_side(
    chain: LocalChain, bundler_url: str, dan: DanClient
) -> None:
    """Two agents with ephemeral keys of their own never meet in a nonce lane."""
    session = await dan.generate_session_key(wallet=OWNER, chain_id=CHAIN_ID)
    second = await dan.add_ephemeral_key(session, wallet=OWNER)
    to = fresh_address()
    async with (
        await account_of(chain, bundler_url, dan, session) as one,
        await account_of(chain, bundler_url, dan, second) as other,
    ):
        assert await one.get_address() == await other.get_address()
        assert one.lanes.key() != other.lanes.key()
        await one.wait_for_receipt(await one.send_user_operation(Call(to, 1)))
        for agent in (one, other):
            await agent.wait_for_receipt(await agent.send_user_operation(Call(to, 1)))
    assert chain.balance(to) == 3


async def test_a_revoked_key_never_gets_a_signature(
    chain: LocalChain, bundler_url: str, dan: DanClient
) -> None:
    """After its revocation the ephemeral key signs nothing: no operation leaves, and the chain shows nothing."""
    session = await dan.generate_session_key(wallet=OWNER, chain_id=CHAIN_ID)
    to = fresh_address()
    async with await account_of(chain, bundler_url, dan, session) as account:
        await account.wait_for_receipt(await account.send_user_operation(Call(to, 1)))
        nonce = await account.get_nonce()
        prepared = await account.prepare_user_operation(Call(to, 1), nonce=nonce)
        await dan.revoke_ephemeral_key(session, wallet=OWNER)
        with pytest.raises(EphemeralKeyRefusedError):
            await account.send_user_operation(Call(to, 1))
        with pytest.raises(EphemeralKeyRefusedError):
            await sign_user_operation(prepared, session, client=dan)
        with pytest.raises(EphemeralKeyRefusedError):
            await dan.sign_user_operation(prepared, session)
        assert await account.get_nonce() == nonce
    assert chain.balance(to) == 1


async def test_outside_its_permissions_never_gets_a_signature(
    chain: LocalChain, bundler_url: str, dan: DanClient
) -> None:
    """Nodes sign what the owner allowed and nothing else: value, target, another chain, a raw digest of the same operation."""
    to, factory = fresh_address(), chain.factories["v0.7.0"]
    permissions: dict[str, Any] = {
        "chainId": CHAIN_ID,
        "factory": factory,
        "permissions": [{"type": "call", "to": to, "selectors": ["0x"], "valueLimit": 10}],
    }
    session = await dan.generate_session_key(
        wallet=OWNER, chain_id=CHAIN_ID, permissions=json.dumps(permissions)
    )
    async with await account_of(chain, bundler_url, dan, session) as account:
        await account.wait_for_receipt(await account.send_user_operation(Call(to, 10)))
        assert chain.balance(to) == 10
        nonce = await account.get_nonce()
        for calls in (
            [Call(to, 11)],
            [Call(fresh_address(), 1)],
            [Call(to, 1), Call(fresh_address(), 1)],
            [Call(to, 0, b"abcd")],
            [Call(account.entry_point, 0, encode_call("depositTo(address)", to))],
        ):
            with pytest.raises(NotPermittedError):
                await account.send_user_operation(calls)
        with pytest.raises(NotPermittedError):
            await dan.sign_message(secrets.token_bytes(32), session, request_type="rawBytes")
        assert await account.get_nonce() == nonce
    assert chain.balance(to) == 10
    assert chain.balance(await account.get_address()) > ETHER // 2

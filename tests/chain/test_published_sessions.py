"""@biconomy/account, unmodified, on the same chain, nodes and accounts: a session of one side is used by the other."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from dan_async import DanClient, LocalWallet, Timeouts
from dan_async.crypto.abi import encode_call
from dan_async.devnet import Devnet
from dan_async.gateway import GatewayNetwork
from dan_async.storage import MemorySessionStore
from dan_async.types import Address
from dan_async.userops import (
    AbiPolicy,
    AbiRule,
    BiconomyV2,
    Call,
    Erc20Policy,
    SmartAccountClient,
    create_session_with_distributed_key,
    create_smart_account_client,
    export_biconomy_sessions,
    import_biconomy_sessions,
    open_session_on_chain,
)
from tests.chain.biconomy_contracts import BiconomyContracts
from tests.chain.local_chain import CHAIN_ID, LocalChain
from tests.servers import serve

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

PACKAGE = Path(__file__).parent.parent / "biconomy"
PATIENT = Timeouts(total_s=90, attempt_s=60)
TRANSFER = "transfer(address,uint256)"


def fresh_address() -> Address:
    return Address("0x" + secrets.token_hex(20))


@pytest.fixture
async def biconomys_bundler(bundler_url: str) -> AsyncIterator[str]:
    """Alto, with the manners of Biconomy's bundler: prices in estimates, and a third parameter of operations."""

    async def post(request: web.Request) -> web.Response:
        asked = await request.json()
        asked["params"] = asked["params"][:2]
        async with ClientSession() as client, client.post(bundler_url, json=asked) as answer:
            found = await answer.json(content_type=None)
        if asked["method"] == "eth_estimateUserOperationGas" and "result" in found:
            gas = {name: int(value, 16) for name, value in found["result"].items() if isinstance(value, str)}
            found["result"] = gas | {"maxFeePerGas": 3 * 10**9, "maxPriorityFeePerGas": 10**9}
        return web.json_response(found, status=400 if "error" in found else 200)

    async with serve(post=post) as port:
        yield f"http://127.0.0.1:{port}/v1/rpc"


@pytest.fixture
async def net() -> AsyncIterator[Devnet]:
    """The published package asks for three of five."""
    async with Devnet(threshold=3, parties=5) as running:
        yield running


@pytest.fixture
async def dan(net: Devnet) -> AsyncIterator[DanClient]:
    """A client through the same gateway, in the same revision."""
    network = GatewayNetwork(net.gateway_url, revision="0.1")
    async with DanClient(network, timeouts=PATIENT) as client:
        yield client


@pytest.fixture
async def owner() -> str:
    """The owner's private key."""
    return "0x" + secrets.token_hex(32)


@pytest.fixture
async def account(
    contracts: BiconomyContracts, chain: LocalChain, bundler_url: str, owner: str
) -> AsyncIterator[SmartAccountClient]:
    """The owner's account, with something to pay with and to move."""
    found = await create_smart_account_client(
        signer=LocalWallet(owner),
        bundler_url=bundler_url,
        rpc_url=chain.url,
        account=BiconomyV2(),
        timeouts=PATIENT,
    )
    async with found:
        chain.fund(await found.get_address())
        contracts.mint(await found.get_address(), 1000)
        yield found


@pytest.fixture
def published(net: Devnet, chain: LocalChain, biconomys_bundler: str) -> Callable[..., Awaitable[Any]]:
    """Runs one job in the published package, on the same chain and network."""
    common = {
        "gateway": net.gateway_url,
        "chainId": CHAIN_ID,
        "rpcUrl": chain.url,
        "bundlerUrl": biconomys_bundler,
    }
    return partial(run_published, common)


async def run_published(common: dict[str, Any], **job: Any) -> Any:
    node = shutil.which("node")
    assert node is not None
    if not (PACKAGE / "node_modules/@biconomy/account").is_dir():
        pytest.skip("needs `npm ci --ignore-scripts` in tests/biconomy")
    process = await asyncio.create_subprocess_exec(
        node,
        "published.mjs",
        cwd=PACKAGE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(json.dumps(common | job).encode()), 120)
    lines = [line for line in out.decode().splitlines() if line.startswith("@@")]
    assert lines, out.decode() + err.decode()
    said = json.loads(lines[-1][2:])
    assert "error" not in said, said["error"] + out.decode()[-3000:] + err.decode()[-3000:]
    return said["result"]


@pytest.mark.long
async def test_a_session_granted_in_typescript_is_used_from_python(
    contracts: BiconomyContracts,
    published: Callable[..., Awaitable[Any]],
    dan: DanClient,
    owner: str,
    account: SmartAccountClient,
) -> None:
    """It deploys the account and grants; its store is imported; a session granted here leaves it as it is."""
    shop, store, until = fresh_address(), MemorySessionStore(), int(time.time()) + 3600
    rule = {"offset": 0, "condition": 0, "referenceValue": shop}
    policy = {"contractAddress": contracts.token, "functionSelector": TRANSFER, "rules": [rule]}
    made = await published(
        operation="grant",
        ownerKey=owner,
        account=await account.get_address(),
        policy=policy | {"interval": {"validUntil": until, "validAfter": 0}},
    )
    assert made["account"] == await account.get_address()
    (leaf,) = await import_biconomy_sessions(account, made["sessions"], store=store)
    session = await open_session_on_chain(account, leaf.session_id, client=dan, store=store)
    call = Call(contracts.token, 0, encode_call(TRANSFER, shop, 7))
    await session.send_transaction(call)
    other = Erc20Policy(token=contracts.token, recipient=shop, max_amount=5, valid_until=until)
    await create_session_with_distributed_key(account, other, client=dan, store=store)
    await session.send_transaction(call)
    assert contracts.tokens(shop) == 14


@pytest.mark.long
async def test_a_session_granted_in_python_is_used_from_typescript(
    contracts: BiconomyContracts,
    published: Callable[..., Awaitable[Any]],
    dan: DanClient,
    account: SmartAccountClient,
) -> None:
    """From the exported store, one of two sessions of the account."""
    shop, store, until = fresh_address(), MemorySessionStore(), int(time.time()) + 3600
    policy = AbiPolicy(
        target=contracts.token, function=TRANSFER, rules=[AbiRule(0, "==", shop)], valid_until=until
    )
    await create_session_with_distributed_key(account, policy, client=dan, store=store, session_id="shop")
    await create_session_with_distributed_key(account, policy, client=dan, store=store)
    made = await published(
        operation="use",
        account=await account.get_address(),
        sessions=await export_biconomy_sessions(account, store=store),
        sessionId="shop",
        token=contracts.token,
        transfer=[shop, 9],
    )
    assert made["userOpHash"].startswith("0x")
    assert contracts.tokens(shop) == 9

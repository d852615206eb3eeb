"""@biconomy/abstractjs and viem, unmodified, beside this package: the same bytes, and the same accounts on one chain."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from typing import Any

import pytest
from attrs import evolve

from dan_async import LocalWallet, Timeouts
from dan_async.crypto.abi import encode_arguments
from dan_async.crypto.set_code import Authorisation, SetCodeTransaction, authorisation_digest
from dan_async.types import Address
from dan_async.user_operation import ENTRY_POINTS, UserOperationV07, user_operation_hash
from dan_async.userops import Call, Nexus, WalletSigner, create_smart_account_client
from tests.chain.local_chain import CHAIN_ID, LocalChain
from tests.chain.nexus_contracts import HERE, NexusContracts

pytestmark = [pytest.mark.interop, pytest.mark.long, pytest.mark.timeout(400)]

SESSIONS = Nexus().session_validator


def fresh_address() -> Address:
    """An address that nobody used."""
    return Address("0x" + secrets.token_hex(20))


def hexed(data: bytes) -> str:
    """0x hex."""
    return "0x" + data.hex()


async def run_published(chain: LocalChain, **job: Any) -> Any:
    """Run one job in the published packages, on this chain."""
    node = shutil.which("node")
    assert node is not None
    process = await asyncio.create_subprocess_exec(
        node,
        "published.mjs",
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    common = {"chainId": CHAIN_ID, "rpcUrl": chain.url}
    out, err = await asyncio.wait_for(process.communicate(json.dumps(common | job).encode()), 120)
    lines = [line for line in out.decode().splitlines() if line.startswith("@@")]
    assert lines, out.decode() + err.decode()
    said = json.loads(lines[-1][2:])
    assert "error" not in said, said["error"]
    return said["result"]


def calls_of(calls: list[Call]) -> list[dict[str, str]]:
    """Calls as the job has them."""
    return [{"to": call.target, "value": str(call.value), "data": hexed(call.data)} for call in calls]


@pytest.mark.parametrize("version", ["V2_0_0", "V1_1_0"])
async def test_the_bytes_are_the_published_ones(
    chain: LocalChain, nexus: NexusContracts, version: str
) -> None:
    """Address, init code, calls, nonce keys, the session's module, operation hash, authorisation and type-4 transaction."""
    key, lane = secrets.token_bytes(32), secrets.randbelow(2**24 - 1)
    owner, session_key, salt = LocalWallet(key), fresh_address(), secrets.randbits(200)
    kind, contracts = nexus.kind(), {}
    if version == "V2_0_0":
        kind = Nexus(proxy_code=nexus.proxy_code)
        nexus.put(kind.implementation, kind.factory)
    else:
        contracts = {
            "factoryAddress": kind.factory,
            "bootStrapAddress": kind.bootstrap,
            "implementationAddress": kind.implementation,
            "defaultValidatorAddress": kind.owner_validator,
        }
    calls = [Call(fresh_address(), secrets.randbits(80), secrets.token_bytes(n)) for n in (68, 0, 33)]
    operation = UserOperationV07(
        sender=fresh_address(),
        nonce=secrets.randbits(256),
        call_data=kind.encode_calls(calls),
        call_gas_limit=secrets.randbits(128),
        verification_gas_limit=secrets.randbits(128),
        pre_verification_gas=secrets.randbits(256),
        max_fee_per_gas=secrets.randbits(128),
        max_priority_fee_per_gas=secrets.randbits(128),
        factory=kind.factory,
        factory_data=secrets.token_bytes(77),
    )
    authorisation = {"chainId": CHAIN_ID, "address": kind.implementation, "nonce": 41}
    said = await run_published(
        chain,
        do="bytes",
        version=version,
        contracts=contracts,
        ownerKey=hexed(key),
        index=str(salt),
        calls=calls_of(calls),
        lane=lane,
        sessionKey=session_key,
        sessionValidator=SESSIONS,
        operation=operation.to_dict(),
        numbers=[name for name, value in operation.to_dict().items() if "Gas" in name or name == "nonce"],
        entryPoint=ENTRY_POINTS["v0.7.0"],
        authorisation=authorisation,
    )
    found = kind.deployment(owner.address, salt)
    assert found is not None
    assert said["address"] == found.address
    assert said["initCode"].lower() == found.factory.lower() + found.data.hex()
    assert said["single"] == hexed(kind.encode_calls(calls[:1]))
    assert said["batch"] == hexed(kind.encode_calls(calls))
    number = lane << 168 | secrets.randbits(168)
    assert int(said["nonceKey"], 16) == kind.nonce_key(number)
    assert int(said["sessionNonceKey"], 16) == kind.for_sessions().nonce_key(number)
    setup = encode_arguments("(uint256,address[])", (1, (session_key,)))
    assert said["session"] == {"module": SESSIONS, "data": hexed(setup)}
    assert said["userOpHash"] == hexed(
        user_operation_hash(
            operation, entry_point=ENTRY_POINTS["v0.7.0"], chain_id=CHAIN_ID, version="v0.7.0"
        )
    )
    own = evolve(operation, sender=found.address)
    signature = await WalletSigner(owner).sign_user_operation(
        own, entry_point=ENTRY_POINTS["v0.7.0"], chain_id=CHAIN_ID
    )
    assert said["signature"] == hexed(kind.wrap_signature(signature))
    fields: dict[str, Any] = {"chain_id": CHAIN_ID, "address": kind.implementation, "nonce": 41}
    assert said["authorisationHash"] == hexed(authorisation_digest(**fields))
    signed = Authorisation(**fields, signature=await owner.sign_authorisation(**fields))
    theirs = said["authorisation"]
    ours = signed.to_dict()
    assert [int(ours[name], 16) for name in ("r", "s", "yParity")] == [
        int(theirs["r"], 16),
        int(theirs["s"], 16),
        theirs["yParity"],
    ]
    transaction = SetCodeTransaction(
        chain_id=CHAIN_ID,
        nonce=40,
        max_priority_fee_per_gas=7,
        max_fee_per_gas=3 * 10**9,
        gas_limit=100_000,
        to=owner.address,
        data=calls[0].data,
        authorisations=(signed,),
    )
    assert said["transaction"] == hexed(transaction.signed(owner.sign_digest(transaction.digest())).encode())


async def test_the_published_client_uses_an_account_of_ours(
    chain: LocalChain, nexus: NexusContracts, bundler_url: str
) -> None:
    """Deployed from here, used from there by the same owner: one account."""
    key, to = secrets.token_bytes(32), fresh_address()
    kind = nexus.kind()
    account = await create_smart_account_client(
        signer=LocalWallet(key),
        bundler_url=bundler_url,
        rpc_url=chain.url,
        account=kind,
        timeouts=Timeouts(total_s=90),
    )
    async with account:
        address = await account.get_address()
        chain.fund(address)
        await account.wait_for_receipt(await account.send_user_operation(Call(to, 1)))
        said = await run_published(
            chain,
            do="send",
            bundlerUrl=bundler_url,
            version="V1_1_0",
            contracts={
                "factoryAddress": kind.factory,
                "bootStrapAddress": kind.bootstrap,
                "implementationAddress": kind.implementation,
                "defaultValidatorAddress": kind.owner_validator,
            },
            ownerKey=hexed(key),
            index="0",
            calls=calls_of([Call(to, 2), Call(to, 3)]),
            price=str(3 * 10**9),
        )
    assert said == {"address": address, "success": True}
    assert chain.balance(to) == 6

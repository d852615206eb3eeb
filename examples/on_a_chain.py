"""
A smart account that a session key owns makes its first payment, on a chain of your own.

    dan-async dev    # in another terminal: nodes, a chain and a bundler; it writes dev.toml and dev-owner.key
    python examples/on_a_chain.py [NETWORK FILE [KEY FILE]]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp

from dan_async import ConfigurationError, DanClient, DanError, LocalWallet
from dan_async.network_file import NetworkFile
from dan_async.userops import Call, SessionSigner, create_smart_account_client

SHOP = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
ETHER = 10**18


async def fund(address: str, rpc_url: str) -> None:
    """Let Anvil give the account one ether. On another chain, send it something to pay with."""
    request = {"jsonrpc": "2.0", "id": 1, "method": "anvil_setBalance", "params": [address, hex(ETHER)]}
    async with (
        aiohttp.ClientSession(raise_for_status=True) as http,
        http.post(rpc_url, json=request) as answer,
    ):
        await answer.read()


async def main(network: str, owner: LocalWallet) -> None:
    """Make a session, send an operation that it signs, and wait until it is on the chain."""
    chain = NetworkFile.read(network).chain
    if chain is None or chain.rpc_url is None or chain.bundler_url is None:
        raise ConfigurationError(f"{network} names no chain", hint="Use the file that dan-async dev writes")
    async with DanClient.connect(network) as dan:
        session = await dan.generate_session_key(wallet=owner, chain_id=chain.id)
        print(f"session key     {session.session_key_eoa}")
        async with await create_smart_account_client(
            signer=SessionSigner(dan, session), bundler_url=chain.bundler_url, rpc_url=chain.rpc_url
        ) as account:
            address = await account.get_address()
            print(f"smart account   {address}")
            await fund(address, chain.rpc_url)
            sent = await account.send_user_operation(Call(SHOP, ETHER // 1000))
            print(f"user operation  {sent}")
            receipt = await account.wait_for_receipt(sent)
            print(f"on the chain    {receipt.transaction_hash}")


if __name__ == "__main__":
    network_file = sys.argv[1] if len(sys.argv) > 1 else "dev.toml"
    owner_key_file = sys.argv[2] if len(sys.argv) > 2 else "dev-owner.key"
    try:
        owner_key = Path(owner_key_file).read_text(encoding="ascii").strip()
        asyncio.run(main(network_file, LocalWallet(owner_key)))
    except FileNotFoundError:
        sys.exit(f"error: there is no file {owner_key_file}; dan-async dev writes it in its folder")
    except (DanError, OSError) as error:
        sys.exit(f"error: {error}")

"""
A transfer by web3.py from a session's address: filled in, signed by two of three nodes, sent raw.

    python examples/recipes/web3_transfer/web3_transfer.py http://127.0.0.1:8545

The chain must have an account that the node itself signs for, as Anvil does: it pays the session's gas.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets

from web3 import AsyncHTTPProvider, AsyncWeb3

from dan_async import DanClient, LocalWallet
from dan_async.devnet import Devnet
from dan_async.web3 import session_middleware


async def main(url: str) -> None:
    """Fund the session's address, then send from it."""
    w3 = AsyncWeb3(AsyncHTTPProvider(url))
    rich, to, *_ = list(await w3.eth.accounts)
    owner = LocalWallet(secrets.token_hex(32))  # a throwaway owner
    async with DanClient(Devnet(threshold=2, parties=3)) as dan:
        session = await dan.generate_session_key(wallet=owner, chain_id=await w3.eth.chain_id)
        w3.middleware_onion.inject(session_middleware(dan, session), layer=0)
        w3.eth.default_account = w3.to_checksum_address(session.session_key_eoa)

        ether = w3.to_wei(1, "ether")
        await w3.eth.wait_for_transaction_receipt(
            await w3.eth.send_transaction({"from": rich, "to": session.session_key_eoa, "value": ether})
        )
        sent = await w3.eth.send_transaction({"to": to, "value": w3.to_wei(0.25, "ether")})
        receipt = await w3.eth.wait_for_transaction_receipt(sent)
        print("sent from", receipt["from"], "in block", receipt["blockNumber"])
        print("has left ", w3.from_wei(await w3.eth.get_balance(w3.eth.default_account), "ether"), "ether")
    await w3.provider.disconnect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("url")
    asyncio.run(main(parser.parse_args().url))

"""
Sign with a key that nobody holds: a message, typed data, and a transaction for web3.py.

    python examples/sign.py
"""

from __future__ import annotations

import asyncio
import sys

try:
    from eth_account import Account
    from eth_account.messages import encode_defunct
except ImportError:
    sys.exit('error: this example needs eth-account. Install it with: pip install "dan-async[eth-account]"')

from dan_async import DanClient, LocalWallet
from dan_async.account import DanAccount
from dan_async.devnet import Devnet

OWNER_KEY = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"  # well known: for tests only

ORDER = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
        "Order": [{"name": "amount", "type": "uint256"}, {"name": "token", "type": "address"}],
    },
    "domain": {"name": "Example exchange", "chainId": 80002},
    "primaryType": "Order",
    "message": {"amount": 10**18, "token": "0x9c5754De1443984659E1b3a8d1931D83475ba29C"},
}


async def main() -> None:
    """Make a session, then sign three things with it."""
    async with DanClient(Devnet(threshold=2, parties=3)) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(OWNER_KEY), chain_id=80002)
        print("address:    ", session.session_key_eoa)

        signature = await dan.sign_message("hello", session)
        print("message:    ", signature)
        print("  signed by ", Account.recover_message(encode_defunct(text="hello"), signature=signature))

        print("typed data: ", await dan.sign_message(ORDER, session))

        account = DanAccount(dan, session)
        transaction = {
            "to": "0x9c5754De1443984659E1b3a8d1931D83475ba29C",
            "value": 1,
            "nonce": 0,
            "gas": 21_000,
            "maxFeePerGas": 2 * 10**9,
            "maxPriorityFeePerGas": 10**9,
            "chainId": 80002,
        }
        signed = await account.sign_transaction(transaction)
        print("transaction:", signed.raw_transaction.to_0x_hex())
        print("  signed by ", Account.recover_transaction(signed.raw_transaction))


if __name__ == "__main__":
    asyncio.run(main())

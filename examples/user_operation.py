"""
An agent that may move one token, and nothing else: the owner's permissions, enforced by every node.

    python examples/user_operation.py
"""

from __future__ import annotations

import asyncio

from dan_async import DanClient, LocalWallet
from dan_async.crypto import personal_message_digest, recover_address
from dan_async.crypto.abi import encode_call
from dan_async.devnet import Devnet
from dan_async.errors import NotPermittedError
from dan_async.types import Address
from dan_async.user_operation import ENTRY_POINTS, Call, UserOperationV07, user_operation_hash
from dan_async.userops import SimpleAccount

OWNER_KEY = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"  # well known: for tests only
CHAIN_ID = 80002
ACCOUNT = Address("0x3790b3EC9006AB29eD9a8a6858f64A392C1AE967")
TOKEN = Address("0x9c5754De1443984659E1b3a8d1931D83475ba29C")
SHOP = Address("0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF")

PERMISSIONS = {
    "chainId": CHAIN_ID,
    "account": ACCOUNT,
    "permissions": [
        {
            "type": "erc20",
            "method": "transfer",
            "to": TOKEN,
            "args": {"to": SHOP, "value": 1000, "eq": "<="},
        }
    ],
}


def pay(amount: int) -> UserOperationV07:
    """Make the operation that pays the shop. (A SmartAccountClient makes one with nonce and gas from the chain.)"""
    transfer = encode_call("transfer(address,uint256)", SHOP, amount)
    return UserOperationV07(
        sender=ACCOUNT,
        nonce=0,
        call_data=SimpleAccount().encode_calls([Call(TOKEN, 0, transfer)]),
        call_gas_limit=60_000,
        verification_gas_limit=100_000,
        pre_verification_gas=50_000,
        max_fee_per_gas=2 * 10**9,
        max_priority_fee_per_gas=10**9,
    )


async def main() -> None:
    """Sign what is allowed; try what is not."""
    async with DanClient(Devnet(threshold=2, parties=3)) as dan:
        session = await dan.generate_session_key(
            wallet=LocalWallet(OWNER_KEY), chain_id=CHAIN_ID, permissions=PERMISSIONS
        )
        print("session key", session.session_key_eoa)

        signed = await dan.sign_user_operation(pay(1000), session)
        digest = user_operation_hash(
            signed,
            entry_point=ENTRY_POINTS["v0.7.0"],
            chain_id=CHAIN_ID,
            version="v0.7.0",
        )
        print("paying 1000: signed by", recover_address(personal_message_digest(digest), signed.signature))

        try:
            await dan.sign_user_operation(pay(1001), session)
        except NotPermittedError as error:
            print("paying 1001:", error.message)
            print(error.nodes[0].describe())


if __name__ == "__main__":
    asyncio.run(main())

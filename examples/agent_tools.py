"""
Tools for an agent that may pay one shop in one token, and nothing else: the owner's permissions, enforced by every node.

    python examples/agent_tools.py
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from dan_async import DanClient, DanError, DanSessionKeyPayload, LocalWallet
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
STRANGER = Address("0x1111111111111111111111111111111111111111")

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


class PaymentTools:
    """The tools of one agent. A model sees their names, their descriptions and what they return."""

    def __init__(self, dan: DanClient, session: DanSessionKeyPayload) -> None:
        self._dan = dan
        self._session = session  # holds the ephemeral private key: it never goes into a tool's result

    async def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run a tool that a model asked for; a refusal is a result that the model can act on."""
        tools: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "session_status": self.session_status,
            "pay": self.pay,
        }
        try:
            return await tools[name](**arguments)
        except NotPermittedError as error:
            reasons = sorted({str(node.error) for node in error.nodes if node.error})
            return {"error": "not permitted", "reasons": reasons, "retry": False}
        except DanError as error:
            return {"error": error.message, "hint": error.hint, "retry": error.retryable}
        except (KeyError, TypeError):
            return {"error": "there is no such tool, or it takes other arguments", "retry": False}

    async def session_status(self) -> dict[str, Any]:
        """Say who the agent is, and until when."""
        return {"address": self._session.session_key_eoa, "expiresAt": self._session.expires_at}

    async def pay(self, to: str, amount: int) -> dict[str, Any]:
        """Pay so many of the token's smallest units."""
        # A SmartAccountClient takes nonce and gas from the chain, and sends the operation.
        transfer = encode_call("transfer(address,uint256)", Address(to), amount)
        operation = UserOperationV07(
            sender=ACCOUNT,
            nonce=0,
            call_data=SimpleAccount().encode_calls([Call(TOKEN, 0, transfer)]),
            call_gas_limit=60_000,
            verification_gas_limit=100_000,
            pre_verification_gas=50_000,
            max_fee_per_gas=2 * 10**9,
            max_priority_fee_per_gas=10**9,
        )
        signed = await self._dan.sign_user_operation(operation, self._session)
        digest = user_operation_hash(
            signed, entry_point=ENTRY_POINTS["v0.7.0"], chain_id=CHAIN_ID, version="v0.7.0"
        )
        signer = recover_address(personal_message_digest(digest), signed.signature)
        return {"userOperationHash": "0x" + digest.hex(), "signedBy": signer}


async def main() -> None:
    """Make a session with permissions, then do what a model asks for."""
    async with DanClient(Devnet(threshold=2, parties=3)) as dan:
        session = await dan.generate_session_key(
            wallet=LocalWallet(OWNER_KEY), chain_id=CHAIN_ID, permissions=PERMISSIONS, duration=900
        )
        tools = PaymentTools(dan, session)
        for name, arguments in (
            ("session_status", {}),
            ("pay", {"to": SHOP, "amount": 1000}),
            ("pay", {"to": SHOP, "amount": 1001}),  # more than the owner allows
            ("pay", {"to": STRANGER, "amount": 1}),  # to somebody else
        ):
            print(json.dumps({"tool": name, **arguments, "result": await tools.call(name, arguments)}))


if __name__ == "__main__":
    asyncio.run(main())

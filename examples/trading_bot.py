"""
A trading bot: it signs an order for each price that moves enough, and renews its session by itself.

    python examples/trading_bot.py [ORDERS]
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from dan_async import DanClient, DanError, LocalWallet
from dan_async.devnet import Devnet

OWNER_KEY = "0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"  # well known: for tests only


def order_for(price: float, number: int) -> dict[str, Any]:
    """Return an order as typed data, the form that exchanges take."""
    return {
        "types": {
            "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
            "Order": [{"name": "number", "type": "uint256"}, {"name": "price", "type": "uint256"}],
        },
        "domain": {"name": "Example exchange", "chainId": 80002},
        "primaryType": "Order",
        "message": {"number": number, "price": round(price * 10**6)},
    }


async def prices(count: int) -> AsyncIterator[float]:
    """Stand for the exchange's feed."""
    price = 100.0
    for _ in range(count):
        price *= 1 + random.gauss(0, 0.001)
        yield price
        await asyncio.sleep(0.05)


async def main(count: int) -> None:
    """Trade, and say how long the signatures took."""
    owner = LocalWallet(OWNER_KEY)
    latencies_ms = []
    async with DanClient(Devnet(threshold=2, parties=3)) as dan:
        session = await dan.generate_session_key(wallet=owner, chain_id=80002, duration=3600)
        async with dan.keep_alive(session, wallet=owner, duration=3600) as live:
            number = 0
            async for price in prices(count):
                number += 1
                began = time.perf_counter()
                try:
                    signature = await dan.sign_message(order_for(price, number), live.session, timeout=2)
                except DanError as error:
                    if not error.retryable:
                        raise
                    print(f"order {number} missed its moment: {error.message}")
                    continue
                latencies_ms.append(1000 * (time.perf_counter() - began))
                print(f"order {number} at {price:.2f}: {signature[:18]}…")
    cuts = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    print(f"{len(latencies_ms)} signatures: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))

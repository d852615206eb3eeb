"""
A trading loop: orders signed as they come, a session that renews itself, and how long it took.

    python examples/recipes/trading_loop/trading_loop.py [ORDERS]
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import statistics
import time
from collections.abc import AsyncIterator

from dan_async import DanClient, LocalWallet
from dan_async.devnet import Devnet
from dan_async.types import TypedData

TYPES = {
    "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
    "Order": [{"name": "id", "type": "uint256"}, {"name": "price", "type": "uint256"}],
}


async def market(orders: int) -> AsyncIterator[list[TypedData]]:
    """Yield what the market asks for, some orders at each tick."""
    for first in range(0, orders, 8):
        await asyncio.sleep(0.01)
        yield [
            {
                "types": TYPES,
                "primaryType": "Order",
                "domain": {"name": "Example exchange", "chainId": 80002},
                "message": {"id": number, "price": 10_000 + number},
            }
            for number in range(first, min(first + 8, orders))
        ]


async def main(orders: int) -> None:
    """Sign every order, four at a time; one that fails costs no other."""
    owner = LocalWallet(
        secrets.token_hex(32)
    )  # signs by itself, so that the session can be renewed without a person
    took: list[float] = []
    failed = 0
    async with DanClient(Devnet(threshold=2, parties=3)) as dan:
        session = await dan.generate_session_key(wallet=owner, chain_id=80002, duration=3600)
        async with dan.keep_alive(session, wallet=owner, duration=3600) as live:
            async for wanted in market(orders):
                tick = time.perf_counter()
                # The session is taken anew at each tick: it may have been renewed.
                async for one in dan.sign_many(wanted, live.session, concurrency=4):
                    if one.error is None:
                        took.append(time.perf_counter() - tick)
                    else:
                        failed += 1
                        print(f"an order was not signed: {one.error}")
    print(f"{len(took)} orders signed, {failed} failed")
    if len(took) > 1:
        p50, p99 = (statistics.quantiles(took, n=100)[place] * 1000 for place in (49, 98))
        print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("orders", type=int, nargs="?", default=200)
    asyncio.run(main(parser.parse_args().orders))

"""Many keygens at once: no reply goes to the wrong caller, and the loop is never held for long."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from dan_async import DanClient, LocalWallet
from dan_async.config import Timeouts
from tests.fake_nodes import FakeNetwork

WALLET = LocalWallet("0x" + "00" * 31 + "01")


async def test_a_thousand_at_once_with_random_delays() -> None:
    """Every session's key is the one that its own nodes made for its own request."""
    fake = FakeNetwork(2, 2)
    chance = random.Random(7)

    async def dawdle(method: str, params: Any) -> Any:
        await asyncio.sleep(chance.random() * 0.05)

    for index in (1, 2):
        fake.misbehaviour[fake.operator(index)] = dawdle
    timeouts = Timeouts(total_s=50, attempt_s=50)
    client = DanClient(fake.network(timeouts=timeouts), timeouts=timeouts)
    payloads = await asyncio.gather(
        *(client.generate_session_key(wallet=WALLET, chain_id=1) for _ in range(1000))
    )
    made = {key.key_id_of(key.public_key): key.public_key for key in fake._keys.values()}
    assert len({payload.session_key_eoa for payload in payloads}) == 1000
    for payload in payloads:
        assert made[payload.mpc_key_id].hex() == payload.public_key[2:]
    await client.aclose()


async def test_the_loop_is_not_held() -> None:
    """With five hundred keygens in flight, another task on the loop still gets its turn."""
    fake = FakeNetwork(2, 3)
    client = DanClient(fake.network(), timeouts=Timeouts(total_s=50))
    await client.generate_session_key(wallet=WALLET, chain_id=1)  # first-use imports are not what is measured
    longest = 0.0
    stop = asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        while not stop.is_set():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, (time.thread_time() - before))

    async def one(delay: int) -> None:
        await asyncio.sleep(delay / 500)
        await client.generate_session_key(wallet=WALLET, chain_id=1)

    watcher = asyncio.create_task(watch())
    await asyncio.gather(*(one(number) for number in range(500)))
    stop.set()
    await watcher
    assert longest < 0.25, f"one turn of the loop took {longest * 1000:.0f} ms"
    await client.aclose()

"""Many keygens at once: no reply goes to the wrong caller, and the loop is never held for long."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from typing import Any

import pytest

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


async def test_the_loop_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """With five hundred keygens in flight, no single step of any task holds the event loop for 20 ms of CPU."""
    fake = FakeNetwork(2, 3)
    client = DanClient(fake.network(), timeouts=Timeouts(total_s=50))
    await client.generate_session_key(wallet=WALLET, chain_id=1)  # first-use imports are not what is measured
    steps: list[float] = []
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        before = time.thread_time()
        run(handle)
        steps.append(time.thread_time() - before)

    gc.collect()
    gc.disable()  # a full collection of the test runner's heap is not the client's doing
    try:
        monkeypatch.setattr(asyncio.Handle, "_run", timed)
        await asyncio.gather(*(client.generate_session_key(wallet=WALLET, chain_id=1) for _ in range(500)))
        monkeypatch.undo()
    finally:
        gc.enable()
    assert len(steps) > 5000
    assert max(steps) < 0.02, f"one step of the loop took {max(steps) * 1000:.0f} ms"
    await client.aclose()

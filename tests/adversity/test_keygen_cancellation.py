"""Cancelling a keygen: no task, no pending entry, no open socket, and the client works afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dan_async import CallbackWallet, DanClient, EphemeralKey, LocalWallet
from dan_async.config import Timeouts
from tests.adversity.cancelling import cancel_after_loop_turns, cancel_everywhere
from tests.fake_nodes import FakeNetwork

WALLET = LocalWallet("0x" + "00" * 31 + "01")


def in_flight(client: DanClient) -> int:
    """Requests that the client's transports still hold."""
    return sum(len(node._transport._in_flight) for node in client.network.pool.nodes)


async def test_at_every_await_of_the_job() -> None:
    """Cancelled at its k-th await, for every k there is: nothing is left behind."""
    fake = FakeNetwork(2, 3)
    client = DanClient(fake.network(), timeouts=Timeouts(total_s=5))

    async def after(k: int) -> None:
        assert len(asyncio.all_tasks()) == 1, f"a task outlived the cancellation at await {k}"
        assert in_flight(client) == 0

    async def sign(typed_data: Any) -> str:
        await asyncio.sleep(0)
        return await WALLET.sign_typed_data(typed_data)

    wallet = CallbackWallet(WALLET.address, sign)
    runs = await cancel_everywhere(lambda: client.generate_session_key(wallet=wallet, chain_id=1), after)
    assert (
        runs >= 3
    )  # the challenges, the wallet, the acknowledgements; a step may wait for its turn of the loop besides
    payload = await client.generate_session_key(wallet=WALLET, chain_id=1)
    assert payload.parties_number == 3
    await client.aclose()


async def test_after_every_turn_of_the_loop() -> None:
    """Cancelled after k turns of the event loop, which also lands between the awaits of its tasks."""
    fake = FakeNetwork(2, 3)
    client = DanClient(fake.network(), timeouts=Timeouts(total_s=5))
    turns, cut = 0, True
    while cut:
        turns += 1
        cut = await cancel_after_loop_turns(
            lambda: client.generate_session_key(wallet=WALLET, chain_id=1), turns
        )
        assert len(asyncio.all_tasks()) == 1
        assert in_flight(client) == 0
    assert turns > 5
    await client.generate_session_key(wallet=WALLET, chain_id=1)
    await client.aclose()


async def test_an_ephemeral_key_made_for_the_call_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cancelled call's key is zeroed; a key that the caller gave is left alone."""
    made: list[EphemeralKey] = []
    generate = EphemeralKey.generate

    def remember(*arguments: Any) -> EphemeralKey:
        made.append(generate(*arguments))
        return made[-1]

    monkeypatch.setattr(EphemeralKey, "generate", remember)
    fake = FakeNetwork(2, 2)
    client = DanClient(fake.network())
    await cancel_after_loop_turns(lambda: client.generate_session_key(wallet=WALLET, chain_id=1), 3)
    assert len(made) == 1
    with pytest.raises(Exception, match="wiped"):
        made[0].to_hex()
    mine = generate("secp256k1")
    await cancel_after_loop_turns(
        lambda: client.generate_session_key(wallet=WALLET, chain_id=1, ephemeral_key=mine), 3
    )
    assert len(mine.to_hex()) == 64
    await client.aclose()


async def test_closing_the_client_fails_what_is_under_way() -> None:
    """aclose() while keygens are pending ends them with a clear error instead of leaving them hanging."""
    fake = FakeNetwork(2, 2)

    async def hang(method: str, params: Any) -> Any:
        await asyncio.Event().wait()

    for index in (1, 2):
        fake.misbehaviour[fake.operator(index)] = hang
    client = DanClient(fake.network())
    calls = [asyncio.create_task(client.generate_session_key(wallet=WALLET, chain_id=1)) for _ in range(3)]
    while in_flight(client) < 6:
        await asyncio.sleep(0)
    await client.aclose()
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert all("closed" in str(result) for result in results), results
    assert len(asyncio.all_tasks()) == 1

"""More signatures at once than the nodes have room for: calls wait for their turn, and none of them is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from dan_async import DanClient, LocalWallet, NodeNetwork, Threshold
from dan_async.devnet import Devnet, NodeLimits
from dan_async.errors import OverloadedError
from dan_async.nodes import SigningOptions
from dan_async.session import DanSessionKeyPayload

OWNER = LocalWallet("0x" + "00" * 31 + "07")


@asynccontextmanager
async def devnet(t: int, n: int, sessions: int, **limits: Any) -> AsyncIterator[Any]:
    async with Devnet(threshold=t, parties=n, limits=NodeLimits(**limits)) as net, DanClient(net) as dan:
        yield (
            dan,
            [await dan.generate_session_key(wallet=OWNER, chain_id=80002) for _ in range(sessions)],
        )


async def sign(dan: DanClient, session: DanSessionKeyPayload, number: int, timeout: float) -> None:
    text = f"message {number}"
    signature = await dan.sign_message(text, session, timeout=timeout)
    assert Account.recover_message(encode_defunct(text=text), signature=signature) == session.session_key_eoa


def at_once(
    dan: DanClient, session: DanSessionKeyPayload, count: int, timeout: float = 250.0
) -> Coroutine[Any, Any, list[Any]]:
    return asyncio.wait_for(
        asyncio.gather(*(sign(dan, session, i, timeout) for i in range(count)), return_exceptions=True), 280
    )


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("max_presignatures", 4),
        pytest.param("max_presigns", 4, marks=pytest.mark.long),
        pytest.param("max_signs", 2, marks=pytest.mark.long),
        pytest.param("max_in_flight", 4, marks=pytest.mark.long),
    ],
)
async def test_nodes_that_ask_to_slow_down_lose_no_call(name: str, most: int) -> None:
    """Whichever of their limits it is; another session's calls get through meanwhile."""
    async with devnet(2, 3, 2, **{name: most}) as (dan, (session, other)):
        many = asyncio.create_task(at_once(dan, session, 30))
        await asyncio.sleep(0.2)
        for i in range(2):
            await sign(dan, other, i, 60)
        assert await many == [None] * 30


async def test_a_session_with_one_call_is_not_behind_another_ones_hundreds() -> None:
    """It has its signature when most of the others still wait."""
    async with devnet(2, 3, 2) as (dan, (session, other)):
        ended: list[int] = []

        async def counted(number: int) -> None:
            await sign(dan, session, number, 250)
            ended.append(number)

        async with asyncio.TaskGroup() as group:
            for i in range(120):
                group.create_task(counted(i))
            await asyncio.sleep(0.2)
            await sign(dan, other, 0, 60)
            assert len(ended) < 60
        assert ended[0] < 32  # and among themselves, the first come first
        assert len(ended) == 120


async def test_a_deadline_that_comes_first_says_how_many_were_waiting() -> None:
    """Those whose turn came are signed, the others were never sent; cancelled ones leave no trace."""
    async with devnet(2, 3, 1) as (patient, (session,)):
        endpoints = [node.endpoint for node in patient.network.pool.nodes]
        narrow = NodeNetwork(endpoints, threshold=Threshold(2, 3), signing=SigningOptions(at_once=2))
        async with DanClient(narrow) as dan:
            await sign(dan, session, 0, 60)
            cancelled = asyncio.create_task(at_once(dan, session, 100))
            await asyncio.sleep(0.1)
            cancelled.cancel()
            await asyncio.wait([cancelled])
            assert narrow.pool.signer.queue.waiting == 0
            results = await at_once(dan, session, 500, 4.0)
            assert narrow.pool.signer.queue.waiting == 0
            assert results[0] is None
            late = [result for result in results if isinstance(result, OverloadedError)]
            assert late[0].waiting > 0
            assert "other calls are waiting" in str(late[0])
            await sign(dan, session, 1, 60)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("t", "n"), [(2, 3), (3, 5)])
async def test_a_thousand_at_once_are_all_signed(t: int, n: int) -> None:
    """On one session, with nodes as they are by default, beside two sessions that sign one after the other."""
    async with devnet(t, n, 3) as (dan, (session, *others)):
        many = asyncio.create_task(at_once(dan, session, 1000))
        for i in range(10):
            for other in others:
                await sign(dan, other, i, 60)
        assert not many.done()
        assert await many == [None] * 1000

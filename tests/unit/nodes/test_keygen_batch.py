"""Key generations put together: what a closed network does with those that wait for others, or are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from dan_async.config import Threshold
from dan_async.deadline import Deadline
from dan_async.errors import ClientClosedError
from dan_async.nodes import NodeNetwork
from dan_async.nodes.node import Request
from dan_async.nodes.round import NodeRound, SetupText
from dan_async.protocols.node import KEYGEN_BATCH, MOST_IN_BATCH, Acknowledgement
from dan_async.retry import Tries
from tests.fake_nodes import REQUEST_ID, FakeNetwork
from tests.helpers import error_of, no_leaks, wait_until


class Joined:
    """Requests that were put together over one network, each asked of every node."""

    def __init__(self, network: NodeNetwork) -> None:
        self.pool = network.pool
        self.asked: list[asyncio.Task[Any]] = []

    def join(self, count: int) -> None:
        """Add so many requests at once."""
        participants = tuple(self.pool.by_operator)
        setup = SetupText(request_id=REQUEST_ID, operation="keygen", revision="1", text="{}")
        opened = NodeRound(setup=setup, participants=participants, nonces=(b"a nonce",) * len(participants))
        request = Request("dan_keygen", "{}", Acknowledgement.read, REQUEST_ID)
        for _ in range(count):
            ask = self.pool.batches.join(
                self.pool.by_operator, opened, Threshold(2, 3), Deadline(60), request
            )
            self.asked += [asyncio.create_task(error_of(ask(node, Tries()))) for node in self.pool.nodes]

    async def errors(self) -> Iterator[type[BaseException]]:
        """The classes of all errors, which must come within a second."""
        async with asyncio.timeout(1):
            return map(type, await asyncio.gather(*self.asked))


@pytest.fixture
def fake() -> FakeNetwork:
    """Nodes that never answer."""

    async def hang(method: str, params: object) -> None:
        await asyncio.Event().wait()

    fake = FakeNetwork(2, 3)
    fake.misbehaviour = {identity.operator: hang for identity in fake.identities}
    return fake


async def test_closing_begins_no_batch_that_waited_for_another(fake: FakeNetwork) -> None:
    """The requests that waited are never sent, together or alone; all fail, and no task is left."""
    async with no_leaks():
        network = fake.network()
        joined = Joined(network)
        joined.join(2)
        await wait_until(lambda: len(fake.called(KEYGEN_BATCH)) == 3)
        joined.join(2)
        await network.aclose()
        assert set(await joined.errors()) == {ClientClosedError}
        assert len(fake.called(KEYGEN_BATCH)) == 3
        assert fake.called("dan_keygen") == []


async def test_a_batch_that_is_closed_as_it_begins_keeps_nobody_waiting(fake: FakeNetwork) -> None:
    """It is full, and the network is closed before its task has run: its requests fail at once, not at the deadline."""
    async with no_leaks():
        network = fake.network()
        joined = Joined(network)
        joined.join(MOST_IN_BATCH)
        await network.aclose()
        assert set(await joined.errors()) == {ClientClosedError}


async def test_a_batch_has_no_calls_that_were_cancelled(fake: FakeNetwork) -> None:
    """Of those that wait for others, one that was cancelled is not sent; the last one goes alone."""
    async with no_leaks():
        network = fake.network()
        joined = Joined(network)
        joined.join(3)
        await asyncio.sleep(0)
        for asked in joined.asked[:6]:
            asked.cancel()
        await wait_until(lambda: len(fake.called("dan_keygen")) == 3)
        assert fake.called(KEYGEN_BATCH) == []
        joined.asked = joined.asked[6:]
        await network.aclose()
        assert set(await joined.errors()) == {ClientClosedError}


async def test_a_batch_that_is_cancelled_begins_no_other(fake: FakeNetwork) -> None:
    """As when a program ends, which cancels all tasks that there are, and waits for none that is begun meanwhile."""
    network = fake.network()
    joined = Joined(network)
    joined.join(2)
    await wait_until(lambda: len(fake.called(KEYGEN_BATCH)) == 3)
    joined.join(2)
    await asyncio.sleep(0)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await network.aclose()

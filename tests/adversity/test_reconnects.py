"""
A node whose connection drops with a thousand requests on it: each is answered or fails exactly once, and nothing is left.

The node is real as far as the client can see: it proves who it is on every connection, and answers by request id.
"""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from dan_async import DanClient, LocalWallet, NodeNetwork, Threshold
from dan_async._values import to_hex
from dan_async.config import NodeEndpoint, Timeouts, TransportOptions
from dan_async.deadline import Deadline
from dan_async.devnet import Devnet
from dan_async.errors import ConnectError, DanError, NodeError, NodeUnreachableError, RequestTimeoutError
from dan_async.nodes import RestPolicy
from dan_async.nodes.node import Node, Request
from dan_async.protocols.node import PROTOCOL, identity_digest
from dan_async.retry import RetryPolicy, Tries
from dan_async.transport.websocket import Backoff, WebSocketTransport
from tests.fake_nodes import Identity
from tests.helpers import CuttableProxy, ManualClock, assert_runs_under, no_leaks, wait_until
from tests.servers import RpcServer, rpc_server

COUNT = 1000
PATIENT = RetryPolicy(attempts=50, first_wait_s=0.01, longest_wait_s=0.05)
TIMEOUTS = Timeouts(attempt_s=20, connect_s=5)


class NodeSide:
    """The node's end: it counts what it did, and holds back the answers to odd numbers until told otherwise."""

    def __init__(self) -> None:
        self.identity = Identity()
        self.done: Counter[int] = Counter()
        self.identified = 0
        self.may_answer = asyncio.Event()

    async def __call__(self, method: str, params: Any) -> Any:
        if method == "dan_identify":
            self.identified += 1
            nonce = bytes.fromhex(params["nonce"][2:])
            digest = identity_digest(operator=self.identity.operator, nonce=nonce, time_ms=5)
            return {
                "protocol": PROTOCOL,
                "operator": self.identity.operator,
                "time": 5,
                "signature": to_hex(self.identity.sign(digest)),
            }
        self.done[params["number"]] += 1
        if params["number"] % 2:
            await self.may_answer.wait()
        return {"number": params["number"], "double": 2 * params["number"]}


class Bench:
    """The client's end, and what became of each call."""

    def __init__(self, side: NodeSide, server: RpcServer, proxy: CuttableProxy, retry: RetryPolicy) -> None:
        self.side, self.server, self.proxy = side, server, proxy
        endpoint = NodeEndpoint(f"ws://127.0.0.1:{proxy.port}/v1/rpc", side.identity.operator)
        self.node = Node(
            endpoint, options=TransportOptions(), timeouts=TIMEOUTS, retry=retry, rest=RestPolicy()
        )
        self.endings: list[tuple[int, Any]] = []

    async def call(self, number: int, *, total_s: float = 40) -> None:
        try:
            request = Request("dan_test", json.dumps({"number": number}), lambda value: value)
            result = await self.node.ask(Tries(), request=request, deadline=Deadline(total_s))
        except DanError as error:
            self.endings.append((number, error))
        else:
            self.endings.append((number, result))

    @property
    def transport(self) -> WebSocketTransport:
        transport = self.node._transport
        assert isinstance(transport, WebSocketTransport)
        return transport

    def check_each_ended_once(self) -> None:
        assert sorted(number for number, _ in self.endings) == list(range(COUNT))

    def check_each_was_answered(self) -> None:
        self.check_each_ended_once()
        for number, ending in self.endings:
            assert ending == {"number": number, "double": 2 * number}


@asynccontextmanager
async def bench(retry: RetryPolicy = PATIENT) -> AsyncIterator[Bench]:
    side = NodeSide()
    async with no_leaks(), rpc_server(side) as server, CuttableProxy(server.port) as proxy:
        made = Bench(side, server, proxy, retry)
        yield made
        await made.node.aclose()


@pytest.mark.long
async def test_a_thousand_requests_survive_cuts_in_the_middle() -> None:
    """The line is cut five times with hundreds in flight; each request is repeated as it was and answered once."""
    async with bench() as at, assert_runs_under(40), asyncio.TaskGroup() as group:
        for number in range(COUNT):
            group.create_task(at.call(number))
        for cut in range(5):
            await wait_until(lambda cut=cut: at.side.identified > cut and len(at.side.done) > COUNT // 2)
            at.proxy.cut()
        at.side.may_answer.set()
    at.check_each_was_answered()
    # One connection after each loss, however many requests were waiting for it; and nothing is asked of it but who it is
    # and what the calls ask.
    assert at.side.identified <= at.proxy.accepted <= 12
    methods = Counter(request["method"] for request in at.server.requests)
    assert set(methods) == {"dan_identify", "dan_test"}
    assert methods["dan_identify"] <= at.proxy.accepted


async def test_cuts_in_the_middle_of_replies_at_random_places() -> None:
    """Half a reply is none: wherever the line breaks, no call gets another's answer, and each ends once."""
    chance = random.Random(7)
    async with bench() as at, assert_runs_under(40):
        at.side.may_answer.set()
        async with asyncio.TaskGroup() as group:
            for number in range(COUNT):
                group.create_task(at.call(number))
                if number % 100 == 50:
                    await asyncio.sleep(0)
                    at.proxy.cut_after(chance.randrange(1, 20_000))
    at.check_each_was_answered()


async def test_a_peer_that_stays_away_fails_each_request_once() -> None:
    """Cut, and refused from then on: a thousand errors, each with an object of its own, and few attempts to connect."""
    async with bench(RetryPolicy(attempts=3, first_wait_s=0.01, longest_wait_s=0.02)) as at:
        async with assert_runs_under(40), asyncio.TaskGroup() as group:
            for number in range(COUNT):
                group.create_task(at.call(number))
            await wait_until(lambda: len(at.endings) == COUNT // 2 and len(at.side.done) == COUNT)
            at.proxy.refuse()
            at.proxy.cut()
        at.check_each_ended_once()
        failed = [ending for number, ending in at.endings if number % 2]
        assert all(isinstance(error, NodeUnreachableError) for error in failed)
        assert {error.attempts for error in failed} == {3}
        assert len({id(error) for error in failed}) == COUNT // 2
        # 500 requests with three attempts each are not 1500 connections; nor 500 failures of the node.
        assert at.proxy.accepted <= 20  # how many depends on how long the errors take to arrive
        assert at.node.health.failures <= 8


async def test_cancelled_requests_stay_cancelled() -> None:
    """Half of the callers go away while the line is down: the others are served, nobody is served twice."""
    async with bench() as at, assert_runs_under(40):
        tasks = [asyncio.create_task(at.call(number)) for number in range(COUNT)]
        await wait_until(lambda: len(at.side.done) == COUNT)
        at.proxy.cut()
        for task in tasks[1::4]:
            task.cancel()
        at.side.may_answer.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(end, asyncio.CancelledError) for end in ended) == COUNT // 4
        assert sorted(number for number, _ in at.endings) == [n for n in range(COUNT) if n % 4 != 1]
        assert at.transport.connection is not None
        assert at.transport.connection.pending == 0


async def test_closing_during_a_reconnect_fails_what_waits() -> None:
    """The node is closed while hundreds wait for a new connection: they end at once, and nothing goes on."""
    async with bench() as at, assert_runs_under(20):
        tasks = [asyncio.create_task(at.call(number)) for number in range(COUNT)]
        await wait_until(lambda: len(at.endings) == COUNT // 2 and len(at.side.done) == COUNT)
        at.proxy.stall()
        at.proxy.cut()
        await wait_until(lambda: at.transport._attempt is not None)
        await at.node.aclose()
        await asyncio.gather(*tasks)
        at.check_each_ended_once()
        assert sum(isinstance(ending, DanError) for _, ending in at.endings) == COUNT // 2


async def test_reconnecting_waits_longer_each_time_up_to_a_cap() -> None:
    """After the k-th failure in a row at least half of min(2, 0.1 · 2^(k−1)) seconds pass; a good connection resets it."""
    clock = ManualClock()
    async with rpc_server() as server, CuttableProxy(server.port) as proxy:
        backoff = Backoff(clock=clock, random=lambda: 1.0)
        url = f"ws://127.0.0.1:{proxy.port}/v1/rpc"
        transport = WebSocketTransport(url, backoff=backoff, connect_timeout_s=30)
        proxy.refuse()
        waits = []
        for _ in range(7):
            try:
                await transport.call("m", "{}", timeout_s=30)
            except ConnectError:
                waits.append(backoff.remaining())
            clock.advance(waits[-1])
            assert backoff.remaining() == pytest.approx(0, abs=1e-9)  # so the next call sleeps no real time
        assert [round(wait, 3) for wait in waits] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
        proxy.refuses = False
        await transport.call("m", "{}", timeout_s=30)
        clock.advance(10)
        connection = transport.connection
        assert connection is not None
        proxy.cut()
        await wait_until(lambda: connection.is_lost)
        clock.advance(0.1)
        await transport.call("m", "{}", timeout_s=30)
        await transport.aclose()


async def test_a_thousand_requests_to_a_peer_that_does_not_read_cost_little() -> None:
    """What cannot be sent is neither copied nor polled for: bounded memory, a free loop, and each ends in its time."""
    params = json.dumps({"number": 0, "text": "p" * 20_000})
    async with no_leaks(), rpc_server() as server, CuttableProxy(server.port) as proxy:
        transport = WebSocketTransport(f"ws://127.0.0.1:{proxy.port}/v1/rpc")
        await transport.call("m", "{}", timeout_s=5)
        proxy.stall()
        endings: list[BaseException] = []

        async def call() -> None:
            try:
                await transport.call("m", params, timeout_s=1.5)
            except RequestTimeoutError as error:
                endings.append(error)

        tracemalloc.start()
        try:
            tasks = [asyncio.create_task(call()) for _ in range(COUNT)]
            await asyncio.sleep(0.3)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        connection = transport.connection
        assert connection is not None
        assert connection.pending == COUNT
        # The requests are 20 MB; the transport may hold 256 KiB and one message of them, and a few KB for each call.
        assert connection._socket._transport.get_write_buffer_size() < 300_000
        assert held < 8_000_000
        async with assert_runs_under(20):
            await asyncio.gather(*tasks)
        assert len(endings) == COUNT
        assert connection.pending == 0
        await transport.aclose()


async def test_a_dropped_connection_is_one_failure_of_the_node() -> None:
    """A thousand requests lose their reply together: the node rests as after one failure, and is live again afterwards."""
    async with bench() as at, assert_runs_under(40):
        tasks = [asyncio.create_task(at.call(number)) for number in range(COUNT)]
        await wait_until(lambda: len(at.side.done) == COUNT)
        changes: list[tuple[str, int]] = []
        at.node.health.on_change = lambda state: changes.append((state, at.node.health.failures))
        at.proxy.cut()
        at.side.may_answer.set()
        await asyncio.gather(*tasks)
        assert changes[0] == ("resting", 1)
        assert changes[-1] == ("live", 0)
        assert max(failures for _, failures in changes) <= 3
        assert not any(isinstance(ending, NodeError) for _, ending in at.endings)


@pytest.mark.long
async def test_the_first_job_after_every_connection_went_silent_succeeds() -> None:
    """At default settings, well within its own time; the next one at once."""
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(Devnet(threshold=2, parties=3))
        proxies = [
            await stack.enter_async_context(CuttableProxy(urlsplit(node.url).port or 0)) for node in net.nodes
        ]
        endpoints = [
            NodeEndpoint(f"ws://127.0.0.1:{proxy.port}/v1/rpc", node.operator)
            for proxy, node in zip(proxies, net.nodes, strict=True)
        ]
        dan = await stack.enter_async_context(DanClient(NodeNetwork(endpoints, threshold=Threshold(2, 3))))
        wallet = LocalWallet("11" * 32)
        session = await dan.generate_session_key(wallet=wallet, chain_id=1)
        for job in (
            lambda: dan.sign_message("hello", session),
            lambda: dan.generate_session_key(wallet=wallet, chain_id=1),
        ):
            for proxy in proxies:
                proxy.silence()
            async with assert_runs_under(10):
                await job()
            async with assert_runs_under(2):
                await job()


async def test_retries_do_not_go_over_a_silent_connection() -> None:
    """A node's second attempt succeeds, though the first one's whole time passed without a word."""
    async with bench(RetryPolicy(attempts=2)) as at, assert_runs_under(10):
        at.side.may_answer.set()
        await at.call(0)
        at.node._timeouts = Timeouts(attempt_s=2)
        at.proxy.silence()
        await at.call(1)
    assert [ending for _, ending in at.endings] == [{"number": n, "double": 2 * n} for n in (0, 1)]

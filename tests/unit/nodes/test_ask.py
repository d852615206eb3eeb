"""One node asked over an open connection: no task, unless the first attempt fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dan_async.config import NodeEndpoint, Timeouts, TransportOptions
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.errors import NodeError, NodeProtocolError, NodeRefusedError, NodeTimeoutError, RpcError
from dan_async.events import AttemptFailed, Event
from dan_async.nodes.node import Node, Request
from dan_async.retry import RetryPolicy, Tries
from dan_async.transport.websocket import WebSocketTransport
from dan_async.types import Json
from tests.helpers import no_leaks, wait_until
from tests.servers import rpc_server


class Peer:
    """Answers by the method's name, and counts."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, method: str, params: Any) -> Any:
        self.asked.append(method)
        if method == "hang":
            await asyncio.Event().wait()
        if method == "refuse" or (method == "busy" and self.asked.count("busy") == 1):
            raise RpcError(-32012 if method == "busy" else -32602, method)
        return params


@asynccontextmanager
async def asked_before(**retry: Any) -> AsyncIterator[tuple[Node, Peer]]:
    """A node whose connection is open."""
    peer = Peer()
    async with no_leaks(), rpc_server(peer) as server:
        url = f"ws://127.0.0.1:{server.port}/v1/rpc"
        node = Node(
            NodeEndpoint(url, "0x" + "11" * 20),
            options=TransportOptions(),
            timeouts=Timeouts(attempt_s=5),
            retry=RetryPolicy(first_wait_s=0.001, **retry),
            transport=WebSocketTransport(url),
        )
        await ask(node, "greet")
        yield node, peer
        await node.aclose()


def ask(
    node: Node, method: str, *, decode: Callable[[Json], Any] = lambda value: value, total_s: float = 5
) -> asyncio.Future[Any]:
    return node.ask(Tries(), request=Request(method, "[1]", decode), deadline=Deadline(total_s))


async def test_no_task_is_made_where_the_first_attempt_does() -> None:
    """The request leaves at once, and its reply comes by the connection's own reader."""
    async with asked_before() as (node, peer):
        tasks = asyncio.all_tasks()
        answers = [ask(node, "greet") for _ in range(3)]
        assert asyncio.all_tasks() == tasks
        assert await asyncio.gather(*answers) == [[1]] * 3
        assert peer.asked == ["greet"] * 4
        assert node.health.requests == 4


async def test_a_failure_that_may_pass_is_tried_again() -> None:
    """All attempts count, and the answer is that of the last."""
    async with asked_before() as (node, peer):
        tries = Tries()
        request = Request("busy", "[1]", lambda value: value)
        assert await node.ask(tries, request=request, deadline=Deadline(5)) == [1]
        assert peer.asked[1:] == ["busy", "busy"]
        assert tries.made == 2


async def test_a_failure_for_good_is_the_node_s() -> None:
    """It names the node, its cause is the transport's error, and nothing is tried again."""
    async with asked_before() as (node, peer):
        with pytest.raises(NodeRefusedError, match="refuse") as caught:
            await ask(node, "refuse")
        assert (caught.value.node, caught.value.attempts) == (node.operator, 1)
        assert isinstance(caught.value.__cause__, RpcError)
        assert peer.asked[1:] == ["refuse"]


async def test_what_cannot_be_sent_fails_like_any_other_attempt() -> None:
    """Later, for whoever awaits it, and without harm to the connection."""
    async with asked_before() as (node, peer):
        answer = node.ask(Tries(), request=Request("greet", '"\ud800"', str), deadline=Deadline(5))
        with pytest.raises(NodeError, match="surrogate"):
            await answer
        assert peer.asked == ["greet"]
        assert await ask(node, "greet") == [1]


async def test_its_time_runs_out() -> None:
    """As the deadline says, though an attempt might take longer."""
    async with asked_before(attempts=1) as (node, _):
        with pytest.raises(NodeTimeoutError):
            await ask(node, "hang", total_s=0.05)
        assert node.health.failures == 1


async def test_one_that_is_given_up_is_forgotten() -> None:
    """At once, and without blame; a late reply is expected."""
    async with asked_before() as (node, peer):
        answer = ask(node, "hang")
        await wait_until(lambda: "hang" in peer.asked)
        assert answer.cancel()
        assert answer.cancelled()
        assert not answer.cancel()
        assert node.health.failures == 0
        assert await ask(node, "greet") == [1]


async def test_one_that_is_tried_again_ends_with_its_task() -> None:
    """Whoever cancels it can wait for the end."""
    async with asked_before(longest_wait_s=60) as (node, peer):
        answer = ask(node, "busy")
        await wait_until(lambda: "busy" in peer.asked)
        await asyncio.sleep(0)
        await cancel_and_wait([answer])
        assert answer.done()


async def test_an_answer_that_cannot_be_read_counts_against_the_node() -> None:
    """And not against the connection, which others are using."""

    def refuse(_: Json) -> None:
        raise NodeProtocolError("not that")

    async with asked_before(attempts=1) as (node, _):
        with pytest.raises(NodeProtocolError):
            await ask(node, "greet", decode=refuse)
        assert node.health.failures == 1
        assert await ask(node, "greet") == [1]


@pytest.mark.parametrize("wants_all", [True, False])
async def test_listeners_hear_of_it_as_of_any_other_attempt(wants_all: bool) -> None:
    """Of what goes well at once only if they want to; of failures, what follows them, and what is given up always."""
    heard: list[Event] = []

    class Listener:
        wants_all_attempts = wants_all

        def __call__(self, event: Event) -> None:
            heard.append(event)

    def names() -> list[tuple[str, int]]:
        told = [(event.name, event.attempt) for event in heard if hasattr(event, "attempt")]
        heard.clear()
        return told

    async with asked_before() as (node, peer):
        node.events.add(Listener())
        await ask(node, "greet")
        assert names() == ([("attempt_started", 1), ("attempt_succeeded", 1)] if wants_all else [])
        await ask(node, "busy")
        told = [("attempt_started", 1), ("attempt_failed", 1), ("retry_scheduled", 1)]
        told += [("attempt_started", 2), ("attempt_succeeded", 2)]
        assert names() == [it for it in told if wants_all or it[0] != "attempt_started"]
        answer = ask(node, "hang")
        await wait_until(lambda: "hang" in peer.asked)
        answer.cancel()
        [*_, (name, attempt)] = names()
        assert (name, attempt) == ("attempt_abandoned", 1)
        with pytest.raises(ZeroDivisionError):
            await ask(node, "greet", decode=lambda _: 1 // 0)
        assert isinstance(heard[-1], AttemptFailed)
        assert heard[-1].elapsed_s > 0


async def test_a_bug_is_raised_where_the_answer_is_awaited() -> None:
    """The reader, and with it every other request, goes on."""
    async with asked_before() as (node, _):
        with pytest.raises(ZeroDivisionError):
            await ask(node, "greet", decode=lambda _: 1 // 0)
        assert await ask(node, "greet") == [1]

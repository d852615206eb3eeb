"""Nodes that ask to slow down: HTTP 429 and 503 with Retry-After, at the WebSocket's upgrade and at POST."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from dan_async import GatewayNetwork
from dan_async.config import NodeEndpoint, Timeouts, TransportOptions
from dan_async.deadline import Deadline
from dan_async.errors import GatewayError, NodeUnreachableError, RateLimitedError
from dan_async.nodes import RestPolicy
from dan_async.nodes.node import Node, Request
from dan_async.retry import RetryDetails, RetryPolicy
from tests.gateway_server import CountingWallet, operate

OPERATOR = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"

#: Shorter than any Retry-After below, so that a connection that rests refuses a call at once instead of sleeping in it.
TIMEOUTS = Timeouts(attempt_s=0.5)


class Sleeper:
    """Records waits instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


@contextlib.asynccontextmanager
async def busy_server(status: int, headers: dict[str, str]) -> AsyncIterator[tuple[int, list[str]]]:
    """A server that answers everything with one status: its port, and what it was asked."""
    asked: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(status=status, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1], asked
    finally:
        await runner.cleanup()


async def waits_at(
    scheme: str, status: int, headers: dict[str, str], *, total_s: float | None = None, **policy: Any
) -> tuple[list[float], BaseException]:
    """Ask a busy node and give the waits between the attempts, and the error."""
    sleeper = Sleeper()
    async with busy_server(status, headers) as (port, _):
        node = Node(
            NodeEndpoint(f"{scheme}://127.0.0.1:{port}/v1/rpc", OPERATOR),
            options=TransportOptions(),
            timeouts=TIMEOUTS,
            retry=RetryPolicy(sleep=sleeper, **policy),
        )
        try:
            with pytest.raises((RateLimitedError, NodeUnreachableError)) as caught:
                await node.call(
                    request=Request("dan_health", "{}", lambda value: value), deadline=Deadline(total_s)
                )
        finally:
            await node.aclose()
    return sleeper.waits, caught.value


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_retry_after_is_waited_for(scheme: str, status: int) -> None:
    """As long as the node asked for, each time, and the error says so in the end."""
    waits, error = await waits_at(scheme, status, {"Retry-After": "7"}, attempts=3)
    assert waits == pytest.approx([7, 7], abs=1)
    assert isinstance(error, RateLimitedError)
    assert error.attempts == 3
    assert error.retry_after == pytest.approx(7, abs=1)


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_node_cannot_send_the_client_away_for_hours(scheme: str) -> None:
    """What it asks for is capped by the policy."""
    waits, _ = await waits_at(scheme, 503, {"Retry-After": "7200"}, longest_retry_after_s=3)
    assert waits == pytest.approx([3, 3], abs=0.5)


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_after_the_cap_the_node_is_really_asked_again(scheme: str) -> None:
    """Neither the connection's own pause nor the node's rest lasts longer than the policy allows."""
    policy = RetryPolicy(attempts=2, longest_retry_after_s=0.05, first_wait_s=0.001, longest_wait_s=0.001)
    async with busy_server(503, {"Retry-After": "7200"}) as (port, asked):
        node = Node(
            NodeEndpoint(f"{scheme}://127.0.0.1:{port}/v1/rpc", OPERATOR),
            options=TransportOptions(),
            timeouts=TIMEOUTS,
            retry=policy,
            rest=RestPolicy(first_s=0.01),
        )
        with pytest.raises(RateLimitedError):
            await node.call(request=Request("dan_health", "{}", lambda value: value), deadline=Deadline(5))
        await node.aclose()
        assert len(asked) == 2
    assert node.health.rests_for_s <= 0.05


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_wait_beyond_the_deadline_is_not_begun(scheme: str) -> None:
    """The error comes now."""
    waits, error = await waits_at(scheme, 503, {"Retry-After": "7"}, total_s=5)
    assert waits == []
    assert error.attempts == 1


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_without_retry_after_the_usual_waits_hold(scheme: str) -> None:
    """A 503 alone is a failure like others."""
    waits, error = await waits_at(scheme, 503, {}, first_wait_s=0.001, longest_wait_s=0.002)
    assert len(waits) == 2
    assert max(waits) <= 0.002
    assert isinstance(error, NodeUnreachableError)


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_refusal_is_not_repeated(scheme: str) -> None:
    """403 judges the client, and Retry-After is not looked at."""
    waits, error = await waits_at(scheme, 403, {"Retry-After": "7"})
    assert waits == []
    assert not error.retryable


@pytest.mark.parametrize(
    ("asked", "waits"), [("7", [7.0, 7.0]), ("7200", [60.0, 60.0])], ids=["waited for", "capped"]
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_gateway(status: int, asked: str, waits: list[float]) -> None:
    """At the upgrade of the operation's own connection, before the wallet is asked."""
    sleeper, wallet = Sleeper(), CountingWallet()
    async with busy_server(status, {"Retry-After": asked}) as (port, requests):
        network = GatewayNetwork(
            f"ws://127.0.0.1:{port}/v1", revision="1", retry=RetryPolicy(attempts=3, sleep=sleeper)
        )
        with pytest.raises(GatewayError) as caught:
            await operate(network, wallet=wallet, total_s=1000)
        await network.aclose()
    assert sleeper.waits == waits
    assert (caught.value.status, caught.value.attempts, len(requests)) == (status, 3, 3)
    assert wallet.asked == 0


async def test_the_hook_hears_of_it() -> None:
    """Why, and how long: enough to tell an operator."""
    told: list[RetryDetails] = []
    await waits_at("http", 429, {"Retry-After": "7"}, attempts=2, before_sleep=told.append)
    (details,) = told
    assert (details.attempt, details.wait_s, details.error.node) == (1, 7, OPERATOR)

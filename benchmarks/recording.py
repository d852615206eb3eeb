"""What an operation puts on the wire, byte for byte: recorded once between the real client and its nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web
from attrs import frozen

__all__ = ["Exchange", "Recording", "record"]

#: Every text of the protocol begins like this; the id follows, and what follows the id is what is recorded.
HEAD = '{"jsonrpc":"2.0","id":'

#: The round trips of a keygen, in their order.
STEPS = ("dan_challenge", "dan_keygen")


def split_id(text: str) -> tuple[int, str]:
    """
    Split a text into its id and what follows it.

    Raises:
        ValueError: It does not begin with ``HEAD``.
    """
    end = text.find(",", len(HEAD))
    if not text.startswith(HEAD) or end < 0:
        raise ValueError("the text does not begin with the members jsonrpc and id")
    return int(text[len(HEAD) : end]), text[end:]


@frozen
class Exchange:
    """A request to one node and its reply, each without head and id."""

    request: str
    reply: str


@frozen
class Recording:
    """For each node, its exchanges in the order of the steps."""

    nodes: tuple[tuple[Exchange, ...], ...]
    steps: tuple[str, ...] = STEPS

    @property
    def bytes_sent(self) -> int:
        """Payload bytes to all nodes, heads included and ids not counted."""
        return sum(len(HEAD) + len(x.request.encode()) for node in self.nodes for x in node)

    @property
    def bytes_received(self) -> int:
        """Payload bytes from all nodes, likewise."""
        return sum(len(HEAD) + len(x.reply.encode()) for node in self.nodes for x in node)

    def to_json(self) -> list[Any]:
        """Give it for the process that replays it."""
        return [[[x.request, x.reply] for x in node] for node in self.nodes]

    @classmethod
    def from_json(cls, value: list[Any]) -> Recording:
        """Read it there."""
        return cls(tuple(tuple(Exchange(*pair) for pair in node) for node in value))

    def result(self, node: int, step: str) -> Any:
        """Give the decoded result of one exchange."""
        return json.loads(HEAD + "0" + self.nodes[node][self.steps.index(step)].reply)["result"]

    def params(self, node: int, step: str) -> Any:
        """Give the decoded parameters of one exchange."""
        return json.loads(HEAD + "0" + self.nodes[node][self.steps.index(step)].request)["params"]


class _Relay:
    """Stands between the client and one node and keeps what goes by."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url
        self._session = session
        self._open: dict[int, str] = {}
        self.exchanges: dict[str, Exchange] = {}

    async def talk(self, request: web.Request) -> web.WebSocketResponse:
        client = web.WebSocketResponse(compress=False)
        await client.prepare(request)
        async with self._session.ws_connect(self._url, compress=0) as node, asyncio.TaskGroup() as group:
            down = group.create_task(self._down(node, client))
            async for message in client:
                number, rest = split_id(message.data)
                self._open[number] = rest
                await node.send_str(message.data)
            down.cancel()
        return client

    async def _down(self, node: aiohttp.ClientWebSocketResponse, client: web.WebSocketResponse) -> None:
        async for message in node:
            if message.type is not WSMsgType.TEXT:
                break
            number, rest = split_id(message.data)
            request = self._open.pop(number)
            method = json.loads(HEAD + "0" + request)["method"]
            self.exchanges[method] = Exchange(request, rest)
            await client.send_str(message.data)


async def record(
    nodes: Sequence[dict[str, str]],
    operation: Callable[[list[dict[str, str]]], Awaitable[object]],
    *,
    steps: tuple[str, ...] = STEPS,
) -> Recording:
    """
    Run an operation through relays, and keep its last exchange of each step with each node that took all of them.

    Args:
        nodes: URL and operator of each node.
        operation: Does it over the nodes that it is given, and returns when every node has answered.
        steps: The methods of its round trips, in their order.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        relays = [_Relay(node["url"], session) for node in nodes]
        relayed = []
        for node, relay in zip(nodes, relays, strict=True):
            app = web.Application()
            app.router.add_get("/v1/rpc", relay.talk)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"ws://127.0.0.1:{runner.addresses[0][1]}/v1/rpc"
            relayed.append({"url": url, "operator": node["operator"]})
        await operation(relayed)
    exchanges = [relay.exchanges for relay in relays if relay.exchanges.keys() >= set(steps)]
    return Recording(tuple(tuple(found[step] for step in steps) for found in exchanges), steps)

"""
The floor: what the same bytes cost when nothing is done with them.

A bare aiohttp client keeps one WebSocket to each node, with one reader task each, and replays a recorded operation: the very
texts that the real client sent, a new id put in. The server, in a process of its own, finds the recorded reply by the
request's text and puts the id in. Nothing is parsed, checked, hashed, signed, timed out or retried; a reply's id is cut out
of its text, since without that there is no multiplexing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import WSMsgType

from benchmarks.peers import serve_until_eof, start_site
from benchmarks.recording import HEAD, Recording, split_id

__all__ = ["FloorClient"]


class _Connection:
    """One WebSocket, many requests in flight."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse, requests: Sequence[str]) -> None:
        self._ws = ws
        self._requests = requests
        self._pending: dict[int, asyncio.Future[str]] = {}
        self._last_id = 0
        self._loop = asyncio.get_running_loop()
        self._reader = asyncio.create_task(self._read())

    async def send(self, step: int) -> asyncio.Future[str]:
        self._last_id = number = self._last_id + 1
        answer = self._pending[number] = self._loop.create_future()
        await self._ws.send_str(f"{HEAD}{number}{self._requests[step]}")
        return answer

    async def _read(self) -> None:
        receive, pending, start = self._ws.receive, self._pending, len(HEAD)
        while True:
            message = await receive()
            if message.type is not WSMsgType.TEXT:
                break
            text = message.data
            pending.pop(int(text[start : text.index(",", start)])).set_result(text)
        for answer in pending.values():
            answer.set_exception(RuntimeError("the floor's server closed the connection"))

    async def aclose(self) -> None:
        await self._ws.close()
        await self._reader


class FloorClient:
    """
    Replays an operation; use it as an async context manager.

    Args:
        urls: The floor's servers, in the order of the recording.
        recording: What to replay.
    """

    def __init__(self, urls: Sequence[str], recording: Recording) -> None:
        self._urls = urls
        self._recording = recording
        self._stack = AsyncExitStack()
        self._connections: list[_Connection] = []

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            for url, node in zip(self._urls, self._recording.nodes, strict=True):
                ws = await session.ws_connect(url, compress=0)
                connection = _Connection(ws, [exchange.request for exchange in node])
                stack.push_async_callback(connection.aclose)
                self._connections.append(connection)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def exchange(self) -> None:
        """Make all round trips, all nodes at once."""
        for step in range(len(self._recording.steps)):
            answers = [await connection.send(step) for connection in self._connections]
            for answer in answers:
                await answer

    async def exchange_in_turn(self) -> None:
        """Make all round trips, one node after the other."""
        for step in range(len(self._recording.steps)):
            for connection in self._connections:
                await (await connection.send(step))


def _replayer(replies: dict[str, str]) -> Any:
    def answer(text: str) -> str:
        number, rest = split_id(text)
        return f"{HEAD}{number}{replies[rest]}"

    return answer


async def _open(config: dict[str, Any], stack: AsyncExitStack) -> dict[str, Any]:
    recording = Recording.from_json(config["recording"])
    nodes = []
    for node in recording.nodes:
        replies = {exchange.request: exchange.reply for exchange in node}
        url = await start_site(_replayer(replies), stack, delay_s=config["delay_ms"] / 1e3)
        nodes.append({"url": url, "operator": ""})
    return {"nodes": nodes}


if __name__ == "__main__":
    serve_until_eof(_open)

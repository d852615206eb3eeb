"""The other side, in a process of its own: how it is started, what it says when it listens, how it is stopped."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from benchmarks.measure import tree_cpu_s

__all__ = ["Peer", "serve_until_eof", "start_site"]

#: A devnet of twenty processes takes its time on two cores.
_START_S = 120.0
_STOP_S = 30.0


class Peer:
    """
    A server process: it gets one JSON line on standard input, answers one when it listens, and ends with its input.

    Args:
        module: What to run.
        config: The JSON line.
    """

    def __init__(self, module: str, config: dict[str, Any]) -> None:
        self._module = module
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self.described: dict[str, Any] = {}

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process; it must be running."""
        if self._process is None:
            raise RuntimeError(f"{self._module} has not been started")
        return self._process

    @property
    def nodes(self) -> list[dict[str, str]]:
        """URL and operator of each node."""
        return list(self.described["nodes"])

    def cpu_s(self) -> float | None:
        """CPU seconds that it and its own processes have used so far."""
        return tree_cpu_s(self.process.pid)

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self._module),
            cwd=Path(__file__).parent.parent,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        try:
            stdin, stdout = self._process.stdin, self._process.stdout
            if stdin is None or stdout is None:
                raise RuntimeError("the process has no pipes")
            stdin.write(json.dumps(self._config).encode() + b"\n")
            await stdin.drain()
            async with asyncio.timeout(_START_S):
                line = await stdout.readline()
            if not line:
                raise RuntimeError(f"{self._module} ended before it listened; its own message is above")
            self.described = json.loads(line)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        process = self.process
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def serve_until_eof(
    open_servers: Callable[[dict[str, Any], AsyncExitStack], Awaitable[dict[str, Any]]],
) -> None:
    """
    Be the other end of ``Peer``.

    Args:
        open_servers: Starts listening by the configuration, leaves on the stack what must be closed, and gives what to say.
    """

    async def run() -> None:
        config = json.loads(await asyncio.to_thread(sys.stdin.readline))
        async with AsyncExitStack() as stack:
            print(json.dumps(await open_servers(config, stack)), flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


Answer = Callable[[str], str]

#: Waits before the reply to a request, by the request's text.
Stall = Callable[[str], Awaitable[None]]


async def start_site(
    answer: Answer, stack: AsyncExitStack, *, delay_s: float, stall: Stall | None = None
) -> str:
    """
    Listen on a port of the system's choice and answer each text frame at ``/v1/rpc``.

    Args:
        answer: Gives the reply to one request.
        stack: Gets what must be closed.
        delay_s: How long each reply waits; others are not held up by it.
        stall: Awaited before each reply as well.

    Returns:
        The URL.
    """

    async def talk(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=2**22)
        await ws.prepare(request)
        late: set[asyncio.Task[None]] = set()

        async def reply_late(text: str) -> None:
            if stall:
                await stall(text)
            if delay_s:
                await asyncio.sleep(delay_s)
            await ws.send_str(answer(text))

        async for message in ws:
            if delay_s or stall:
                task = asyncio.create_task(reply_late(message.data))
                late.add(task)
                task.add_done_callback(late.discard)
            else:
                await ws.send_str(answer(message.data))
        for task in late:
            task.cancel()
        return ws

    app = web.Application()
    app.router.add_get("/v1/rpc", talk)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    addresses: Sequence[Any] = runner.addresses
    return f"ws://127.0.0.1:{addresses[0][1]}/v1/rpc"

"""Small servers on loopback that do what a test tells them to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from dan_async.errors import RpcError
from tests.helpers import let_accepted_connections_begin

Handler = Callable[[str, Any], Awaitable[Any]]


async def echo(method: str, params: Any) -> Any:
    """Answer with the method and its parameters."""
    return {"method": method, "params": params}


def reply_to(request: dict[str, Any], result: Any) -> str:
    """Write a JSON-RPC reply."""
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})


class RpcServer:
    """
    A JSON-RPC server: WebSocket on ``GET /v1/rpc``, HTTP on ``POST /v1/rpc``.

    Args:
        handler: Gives the result of each request; WebSocket requests run side by side, and may be refused with an RpcError.
    """

    def __init__(self, handler: Handler = echo) -> None:
        self.handler = handler
        self.port = 0
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.close_codes: list[int | None] = []

    async def on_websocket(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        answers = []
        try:
            async for message in socket:
                call = json.loads(message.data)
                self.requests.append(call)
                answers.append(asyncio.create_task(self._answer(socket, call)))
        finally:
            self.sockets.remove(socket)
            self.close_codes.append(socket.close_code)
            for answer in answers:
                answer.cancel()
            await asyncio.gather(*answers, return_exceptions=True)
        return socket

    async def _answer(self, socket: web.WebSocketResponse, call: dict[str, Any]) -> None:
        try:
            text = reply_to(call, await self.handler(call["method"], call["params"]))
        except RpcError as error:
            refusal = {"code": error.code, "message": error.message}
            text = json.dumps({"jsonrpc": "2.0", "id": call["id"], "error": refusal})
        with contextlib.suppress(ConnectionError):
            await socket.send_str(text)

    async def on_post(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        call = await request.json()
        self.requests.append(call)
        return web.Response(
            text=reply_to(call, await self.handler(call["method"], call["params"])),
            content_type="application/json",
        )


@contextlib.asynccontextmanager
async def serve(
    *,
    get: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None,
    post: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[int]:
    """Serve ``/v1/rpc`` with aiohttp; gives the port."""
    app = web.Application(client_max_size=64 * 1024 * 1024)
    if get is not None:
        app.router.add_get("/v1/rpc", get)
    if post is not None:
        app.router.add_post("/v1/rpc", post)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def rpc_server(
    handler: Handler = echo, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[RpcServer]:
    """Run an ``RpcServer``."""
    server = RpcServer(handler)
    async with serve(get=server.on_websocket, post=server.on_post, tls=tls) as server.port:
        yield server


@contextlib.asynccontextmanager
async def socket_script(script: Callable[[web.WebSocketResponse], Awaitable[None]]) -> AsyncIterator[int]:
    """Serve WebSockets, each of which is handed to *script*; gives the port."""

    async def on_websocket(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        with contextlib.suppress(ConnectionError):
            await script(socket)
        return socket

    async with serve(get=on_websocket) as port:
        yield port


@contextlib.asynccontextmanager
async def raw_server(
    script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Serve plain TCP with *script*; gives the port. Connections are broken at the end."""
    tasks: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        tasks[task] = writer
        try:
            await script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            del tasks[task]
            writer.transport.abort()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await let_accepted_connections_begin()
        running = list(tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


async def read_head(reader: asyncio.StreamReader) -> str:
    """Read the head of an HTTP request."""
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")


class ConnectProxy:
    """An HTTP proxy that knows CONNECT, and absolute URLs for plain HTTP; it writes down what it was asked."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.status = "200 Connection established"

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        self.heads.append(head)
        method, target, _ = head.split(" ", 2)
        if not self.status.startswith("200"):
            writer.write(f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        if method != "CONNECT":
            target = target.partition("://")[2].partition("/")[0]
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            if method == "CONNECT":
                writer.write(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
            else:
                far_writer.write(head.encode("latin-1"))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer))
                group.create_task(self._pump(far_reader, writer))
        finally:
            far_writer.transport.abort()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

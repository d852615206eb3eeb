"""
A gateway that answers at once, in revision 0.3: a random challenge, then a key that nobody had before.

It makes no key that anyone could use and checks nothing: what is measured against it is the client, not the network.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import WSMsgType, web
from coincurve import PrivateKey

from benchmarks.peers import serve_until_eof

_IDLE_S = 60.0
_ONE = (1).to_bytes(32, "big")


class _Keys:
    """Gives another point of the curve each time: the one before plus the generator."""

    def __init__(self) -> None:
        self._last = PrivateKey().public_key

    def result(self) -> str:
        self._last = self._last.add(_ONE)
        return f"keyId={secrets.token_hex(32)}:publicKey={self._last.format().hex()}"


_KEYS = web.AppKey("keys", _Keys)


async def _keygen(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    for reply in (secrets.token_hex(32), request.app[_KEYS].result()):
        async with asyncio.timeout(_IDLE_S):
            message = await ws.receive()
        if message.type is not WSMsgType.TEXT:
            return ws
        await ws.send_str(reply)
    async with asyncio.timeout(_IDLE_S):
        await ws.receive()  # the client closes
    return ws


async def _open(config: dict[str, Any], stack: AsyncExitStack) -> dict[str, Any]:
    del config
    app = web.Application()
    app[_KEYS] = _Keys()
    app.router.add_get("/v1/keygen", _keygen)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    return {"url": f"ws://127.0.0.1:{runner.addresses[0][1]}/v1"}


if __name__ == "__main__":
    serve_until_eof(_open)

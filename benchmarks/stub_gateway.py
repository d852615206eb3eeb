"""
A gateway that answers at once, in revision 0.3: a random challenge, then one and the same key.

It makes no key and checks nothing, so that what is measured against it is the client, not the network.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import WSMsgType, web

from benchmarks.peers import serve_until_eof

_RESULT = (
    "keyId=620303c1dba1215c0c8391c38612cf88f4d6d68584ea892aa5cc42948fe3dcff:"
    "publicKey=039e75ef3377c418b3521816c399363901259a4429c9826d0676a5515ef768fba9"
)
_IDLE_S = 60.0


async def _keygen(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    for reply in (secrets.token_hex(32), _RESULT):
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
    app.router.add_get("/v1/keygen", _keygen)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    return {"url": f"ws://127.0.0.1:{runner.addresses[0][1]}/v1"}


if __name__ == "__main__":
    serve_until_eof(_open)

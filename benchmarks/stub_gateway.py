"""
A gateway that answers at once, in revision 0.3: a random challenge, then a key that nobody had before, or a signature.

It makes no key that anyone could use, signs with one of its own and checks nothing: what is measured against it is the
client, not the network.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from aiohttp import WSMsgType, web
from coincurve import PrivateKey

from benchmarks.peers import serve_until_eof
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.signature import sign_digest
from dan_async.protocols.gateway_0_3 import REVISION_0_3
from dan_async.protocols.results import SigngenResult, encode_signgen_results
from dan_async.protocols.sign_request import sign_request_digest

_IDLE_S = 300.0
_ONE = (1).to_bytes(32, "big")


class _Keys:
    """Gives another point of the curve each time, the one before plus the generator; signs with one and the same key."""

    def __init__(self) -> None:
        self._last = PrivateKey().public_key
        self._signer = PrivateKey()

    def session(self) -> dict[str, Any]:
        """Give the session of the key that signs."""
        return {
            "sessionKeyEOA": public_key_to_address(self._signer.public_key.format()),
            "mpcKeyId": "5e" * 32,
            "hexEphSKWithout0x": secrets.token_hex(32),
            "partiesNumber": 5,
            "threshold": 3,
        }

    def signature(self, setup: str) -> str:
        """Sign the message of a setup."""
        [request] = REVISION_0_3.sign_requests(REVISION_0_3.decode_setup("signgen", setup))  # type: ignore[arg-type]
        made = sign_digest(self._signer, sign_request_digest(request))
        return encode_signgen_results([SigngenResult(signature=made[:64], recovery_id=made[64] - 27)])

    def key(self, setup: str) -> str:
        """Give a key."""
        del setup
        self._last = self._last.add(_ONE)
        return f"keyId={secrets.token_hex(32)}:publicKey={self._last.format().hex()}"


_KEYS = web.AppKey("keys", _Keys)


async def _answer(request: web.Request, result: Callable[[str], str]) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(compress=False)
    await ws.prepare(request)
    setup = ""
    for reply in (lambda _: secrets.token_hex(32), result):
        async with asyncio.timeout(_IDLE_S):
            message = await ws.receive()
        if message.type is not WSMsgType.TEXT:
            return ws
        setup = setup or message.data
        await ws.send_str(reply(setup))
    async with asyncio.timeout(_IDLE_S):
        await ws.receive()  # the client closes
    return ws


async def _keygen(request: web.Request) -> web.WebSocketResponse:
    return await _answer(request, request.app[_KEYS].key)


async def _signgen(request: web.Request) -> web.WebSocketResponse:
    return await _answer(request, request.app[_KEYS].signature)


async def _open(config: dict[str, Any], stack: AsyncExitStack) -> dict[str, Any]:
    del config
    app = web.Application()
    app[_KEYS] = keys = _Keys()
    app.router.add_get("/v1/keygen", _keygen)
    app.router.add_get("/v1/signgen", _signgen)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    return {"url": f"ws://127.0.0.1:{runner.addresses[0][1]}/v1", "session": keys.session()}


if __name__ == "__main__":
    serve_until_eof(_open)

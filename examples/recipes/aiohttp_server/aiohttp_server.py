"""
A signing service: sessions in an encrypted store, one client for the whole server, errors as status codes.

    python examples/recipes/aiohttp_server/aiohttp_server.py [PORT] [STORE]
    curl -X POST http://127.0.0.1:8080/sessions -d '{"reference": "desk 1"}'
    curl -X POST http://127.0.0.1:8080/sessions/desk%201/signatures -d '{"message": "hello"}'
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from dan_async import ConfigurationError, DanClient, DanError, LocalWallet, PermissionDeniedError
from dan_async.devnet import Devnet
from dan_async.storage import StoreKey, keys_from_file
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

CLIENT = web.AppKey("client", DanClient)
STORE = web.AppKey("store", Path)
OWNER = LocalWallet(secrets.token_hex(32))  # a throwaway owner; a real one comes from your key store


async def dan(app: web.Application) -> AsyncIterator[None]:
    """Open store and client when the server starts, and close them when it stops."""
    key_file = app[STORE].with_suffix(".key")
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(StoreKey.generate().to_text())
    async with (
        SQLAlchemyStore(f"sqlite:///{app[STORE]}", keys_from_file(key_file)) as store,
        DanClient(Devnet(threshold=2, parties=3), store=store) as client,
    ):
        app[CLIENT] = client
        yield


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error of ours with a status and a sentence; none of them holds a secret."""
    try:
        return await handler(request)
    except DanError as error:
        status = 502
        if isinstance(error, ConfigurationError):
            status = 400
        elif isinstance(error, PermissionDeniedError):
            status = 403
        elif error.retryable:
            status = 503
        return web.json_response({"error": error.message, "hint": error.hint}, status=status)


async def make(request: web.Request) -> web.Response:
    """Make a session under a reference."""
    reference = (await request.json())["reference"]
    made = await request.app[CLIENT].generate_session_key(wallet=OWNER, chain_id=80002, reference=reference)
    return web.json_response({"address": made.session_key_eoa, "expiresAt": made.expires_at}, status=201)


async def sign(request: web.Request) -> web.Response:
    """Sign a message with a stored session."""
    client = request.app[CLIENT]
    record = await client.store.get_by_reference(request.match_info["reference"])
    if record is None or record.session is None:
        raise web.HTTPNotFound
    message = (await request.json())["message"]
    return web.json_response({"signature": await client.sign_message(message, record.session, timeout=10)})


async def main(port: int, store: Path) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = web.Application(middlewares=[errors])
    app[STORE] = store
    app.cleanup_ctx.append(dan)
    app.router.add_post("/sessions", make)
    app.router.add_post("/sessions/{reference}/signatures", sign)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("port", type=int, nargs="?", default=8080)
    parser.add_argument("store", type=Path, nargs="?", default=Path("sessions.db"))
    given = parser.parse_args()
    asyncio.run(main(given.port, given.store))

"""
Session keys in a web server: one client for the whole process, opened and closed with the server.

    python examples/in_a_web_server.py [PORT]
    curl -X POST 'http://127.0.0.1:8080/sessions?duration=600'

The server answers with what may be shown. The ephemeral private key stays here.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncIterator

from aiohttp import web

from dan_async import DanClient, DanError, DanSessionKeyPayload, LocalWallet
from dan_async.devnet import Devnet
from dan_async.errors import ConfigurationError

CLIENT = web.AppKey("client", DanClient)
OWNER = web.AppKey("owner", LocalWallet)
SESSIONS = web.AppKey("sessions", dict[str, DanSessionKeyPayload])


async def dan(app: web.Application) -> AsyncIterator[None]:
    """Open the client when the server starts, and close it when it stops."""
    async with DanClient(Devnet(threshold=2, parties=3)) as client:
        app[CLIENT] = client
        yield


async def create(request: web.Request) -> web.Response:
    """Make a session. Requests run side by side on the one client; a caller who hangs up cancels theirs."""
    duration = request.query.get("duration", "3600")
    if not (duration.isascii() and duration.isdecimal() and len(duration) < 10):
        return web.json_response({"error": "duration must be a number of seconds"}, status=400)
    try:
        session = await request.app[CLIENT].generate_session_key(
            wallet=request.app[OWNER], chain_id=80002, duration=int(duration), timeout=10
        )
    except ConfigurationError as error:
        return web.json_response({"error": str(error)}, status=400)
    except DanError as error:
        status = 503 if error.retryable else 502
        return web.json_response({"error": error.message, "hint": error.hint}, status=status)
    request.app[SESSIONS][session.session_key_eoa] = session  # keep it encrypted in a real server
    shown = {"address": session.session_key_eoa, "keyId": session.mpc_key_id, "expiresAt": session.expires_at}
    return web.json_response(shown, status=201)


def make_app() -> web.Application:
    """Put the server together."""
    app = web.Application()
    app[OWNER] = LocalWallet(secrets.token_hex(32))  # a throwaway owner; a real one comes from your key store
    app[SESSIONS] = {}
    app.cleanup_ctx.append(dan)
    app.router.add_post("/sessions", create)
    return app


async def main(port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(make_app(), handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"POST http://127.0.0.1:{runner.addresses[0][1]}/sessions", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("port", type=int, nargs="?", default=8080)
    try:
        asyncio.run(main(parser.parse_args().port))
    except (DanError, OSError, OverflowError) as error:
        sys.exit(f"error: {error}")

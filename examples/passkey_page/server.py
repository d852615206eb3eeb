"""
A page whose visitors own session keys with a passkey. Needs the extra "passkeys", for the devnet's nodes.

    python examples/passkey_page/server.py [PORT]

Then open the address that it prints. Each job is a WebSocket: the server sends what it asks of the browser, the page
answers with the credential, and the last message is the result.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

try:
    import webauthn  # noqa: F401 - the devnet's nodes verify passkeys with it
except ImportError:
    sys.exit('error: this example needs webauthn. Install it with: pip install "dan-async[passkeys]"')

from dan_async import DanClient, DanError, GatewayNetwork
from dan_async.devnet import Devnet
from dan_async.errors import WalletRefusedError
from dan_async.wallets import PasskeyAuth, PasskeyRegister

CLIENT = web.AppKey("client", DanClient)
#: Filled in when the port is known.
PAGE = web.AppKey("page", dict[str, str])

#: What the session keys are filed under; a real server has an account for each visitor.
ACCOUNT_ID = b"visitor-0001"
ACCOUNT_ADDRESS = "0x52908400098527886E0F7030069857D2E4169EE7"

Ask = Callable[[dict[str, Any]], Awaitable[Mapping[str, Any] | None]]


async def dan(app: web.Application) -> AsyncIterator[None]:
    """Open a network and a client when the server starts, and close them when it stops."""
    async with (
        Devnet(threshold=2, parties=3) as net,
        DanClient(GatewayNetwork(net.gateway_url, revision="1")) as client,
    ):
        app[CLIENT] = client
        yield


def asking(socket: web.WebSocketResponse, what: str) -> Ask:
    """Make the callback that takes the options to the page and the credential back."""

    async def ask(options: dict[str, Any]) -> Mapping[str, Any] | None:
        await socket.send_json({"ask": what, "options": options})
        answer = await socket.receive()
        if answer.type is not WSMsgType.TEXT:
            raise WalletRefusedError("the page was closed", hint="Open it again")
        try:
            found: Mapping[str, Any] | None = answer.json()
        except ValueError:
            raise WalletRefusedError("the page's answer is not JSON") from None
        return found

    return ask


async def register(request: web.Request, socket: web.WebSocketResponse) -> dict[str, Any]:
    """Have the browser make a passkey, and the network remember it."""
    page = request.app[PAGE]
    passkey = PasskeyRegister(
        "visitor",
        ACCOUNT_ID,
        asking(socket, "create"),
        rp_id=page["rp_id"],
        rp_name="Passkey page",
        origin=page["origin"],
    )
    return {"credentialId": await request.app[CLIENT].register_passkey(passkey)}


async def session(request: web.Request, socket: web.WebSocketResponse) -> dict[str, Any]:
    """Have the visitor's passkey authorise a session key; the ephemeral private key stays here."""
    page, credential_id = request.app[PAGE], request.query.get("id", "")
    owner = PasskeyAuth(credential_id, asking(socket, "get"), rp_id=page["rp_id"], origin=page["origin"])
    made = await request.app[CLIENT].generate_session_key(
        auth=owner,
        hardcoded_values={"eoa_address": ACCOUNT_ADDRESS},
        chain_id=80002,
        threshold=2,
        parties_number=3,
    )
    return {"address": made.session_key_eoa, "keyId": made.mpc_key_id}


JOBS = {"register": register, "session": session}


async def serve_job(request: web.Request) -> web.StreamResponse:
    """Run one job. Other pages may open WebSockets here as well, so their origin is looked at."""
    job = JOBS.get(request.match_info["job"])
    if job is None or request.headers.get("Origin") != request.app[PAGE]["origin"]:
        return web.Response(status=403)
    socket = web.WebSocketResponse(max_msg_size=256 * 1024, timeout=1.0)
    await socket.prepare(request)
    try:
        result = await job(request, socket)
    except DanError as error:
        result = {"error": error.message, "kind": type(error).__name__}
    if not socket.closed:
        await socket.send_json(result)
        await socket.close()
    return socket


async def show_page(_: web.Request) -> web.StreamResponse:
    """Give the page."""
    return web.FileResponse(Path(__file__).with_name("page.html"))


def make_app() -> web.Application:
    """Put the server together."""
    app = web.Application()
    app[PAGE] = {}
    app.cleanup_ctx.append(dan)
    app.router.add_get("/", show_page)
    app.router.add_get("/jobs/{job}", serve_job)
    return app


async def main(port: int) -> None:
    """Serve until Ctrl-C."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = make_app()
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        # Browsers take localhost for secure without TLS; a passkey belongs to the name, so the page is not 127.0.0.1.
        origin = f"http://localhost:{runner.addresses[0][1]}"
        app[PAGE].update(rp_id="localhost", origin=origin)
        print(f"open {origin}", flush=True)
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

"""
The owner's wallet is in a browser: CallbackWallet hands the typed data to a page and takes the signature from it.

    python examples/callback_wallet.py [PORT]

Open the address it prints in a browser with a wallet extension. The page connects the wallet, the server asks it to sign
once, and the page shows the session key's address.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

from dan_async import CallbackWallet, DanClient, DanError
from dan_async.devnet import Devnet
from dan_async.errors import WalletError, WalletRefusedError
from dan_async.types import TypedData

CLIENT = web.AppKey("client", DanClient)

PAGE = """<!doctype html>
<meta charset="utf-8"><title>A session key</title>
<button>Make a session key</button><pre></pre>
<script>
const show = (text) => { document.querySelector("pre").textContent = text; };
document.querySelector("button").onclick = async () => {
  const [owner] = await window.ethereum.request({ method: "eth_requestAccounts" });
  const socket = new WebSocket(location.href.replace("http", "ws") + "session");
  socket.onopen = () => socket.send(JSON.stringify({ owner }));
  socket.onmessage = async ({ data }) => {
    const message = JSON.parse(data);
    if (!message.sign) return show(JSON.stringify(message, null, 2));
    try {
      const params = [owner, JSON.stringify(message.sign)];
      socket.send(JSON.stringify({ signature: await window.ethereum.request({ method: "eth_signTypedData_v4", params }) }));
    } catch (error) {
      socket.send(JSON.stringify({ refused: error.message }));
    }
  };
};
</script>
"""


async def page(_: web.Request) -> web.Response:
    """Serve the page."""
    return web.Response(text=PAGE, content_type="text/html")


async def session(request: web.Request) -> web.WebSocketResponse:
    """Make one session for the owner on the other end of this WebSocket."""
    socket = web.WebSocketResponse(heartbeat=20)
    await socket.prepare(request)

    async def sign_in_the_browser(typed_data: TypedData) -> str:
        await socket.send_json({"sign": typed_data})
        answer = await socket.receive()
        if answer.type is not WSMsgType.TEXT:
            raise WalletError("the page was closed before it signed")
        reply = answer.json()
        if "signature" not in reply:
            raise WalletRefusedError("the owner declined in the browser")
        return str(reply["signature"])

    try:
        owner = str((await socket.receive_json())["owner"])
        made = await request.app[CLIENT].generate_session_key(
            wallet=CallbackWallet(owner, sign_in_the_browser), chain_id=80002
        )
    except DanError as error:
        if not socket.closed:
            await socket.send_json({"error": str(error)})
    except (LookupError, TypeError, ValueError):  # whoever it is, it is not our page
        if not socket.closed:
            await socket.send_json({"error": 'expected {"owner": ADDRESS}, then {"signature": HEX}'})
    else:
        # The ephemeral private key stays on the server, which acts for the owner from now on.
        await socket.send_json({"sessionKey": made.session_key_eoa, "expiresAt": made.expires_at})
    await socket.close()
    return socket


async def dan(app: web.Application) -> AsyncIterator[None]:
    """Open the client when the server starts, and close it when it stops."""
    async with DanClient(Devnet(threshold=2, parties=3)) as client:
        app[CLIENT] = client
        yield


async def main(port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = web.Application()
    app.cleanup_ctx.append(dan)
    app.router.add_get("/", page)
    app.router.add_get("/session", session)
    runner = web.AppRunner(app)
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
    try:
        asyncio.run(main(parser.parse_args().port))
    except (DanError, OSError, OverflowError) as error:
        sys.exit(f"error: {error}")

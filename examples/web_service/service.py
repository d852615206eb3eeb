"""
A web service whose visitors authorise session keys with the wallet in their browser. Needs FastAPI: the extra "recipes".

    python examples/web_service/service.py [PORT]

Then open the address that it prints. The ephemeral private keys stay here, and the service acts with them.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse

from dan_async import ConfigurationError, DanClient, DanError, WalletError
from dan_async.errors import PendingNotFoundError

Text = Annotated[str, Body(embed=True)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client with the service; with a store, several processes can serve, and a restart loses nothing."""
    async with DanClient.connect("devnet://2-of-3") as app.state.dan:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> FileResponse:
    """Serve the page."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/sessions")
async def begin(owner: Text) -> dict[str, Any]:
    """Ask the nodes for a challenge; the page has the owner's wallet sign it."""
    pending = await app.state.dan.begin_session_key(owner=owner, chain_id=80002, duration=600)
    shown: dict[str, Any] = pending.to_dict()
    return shown


@app.post("/sessions/{pending_id}")
async def complete(pending_id: str, signature: Text) -> dict[str, Any]:
    """Make the key. The same signature may come twice; there is one key."""
    session = await app.state.dan.complete_session_key(pending_id, signature)
    return {"address": session.session_key_eoa, "expiresAt": session.expires_at}


@app.delete("/sessions/{pending_id}")
async def cancel(pending_id: str) -> bool:
    """Call it off: the owner has declined."""
    found: bool = await app.state.dan.cancel_session_key(pending_id)
    return found


@app.exception_handler(DanError)
async def explain(_: Request, error: Exception) -> JSONResponse:
    """Say what happened, in words that hold no secret."""
    assert isinstance(error, DanError)
    status = 400 if isinstance(error, ConfigurationError | WalletError) else 503 if error.retryable else 502
    status = 404 if isinstance(error, PendingNotFoundError) else status
    return JSONResponse({"error": error.message, "hint": error.hint}, status)


def main(port: int) -> None:
    """Serve until Ctrl-C."""
    with socket.create_server(("127.0.0.1", port)) as listening, suppress(KeyboardInterrupt):
        print(f"open http://127.0.0.1:{listening.getsockname()[1]}/", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("port", type=int, nargs="?", default=8080)
    try:
        main(parser.parse_args().port)
    except (OSError, OverflowError) as error:
        sys.exit(f"error: {error}")

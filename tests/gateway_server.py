"""A gateway that does what a test's script tells it to, on every connection."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import coincurve
from aiohttp import WSMsgType, web

from dan_async.config import Threshold, Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.devnet.gateway import accept
from dan_async.gateway import GatewayNetwork
from dan_async.gateway.operation import SEEN
from dan_async.network import EphemeralKeyChange, KeygenRequest
from dan_async.protocols.results import STATUS_OK, KeygenResult
from dan_async.protocols.setups import EphemeralClaim
from dan_async.retry import RetryPolicy
from dan_async.types import MpcKeyId, RequestId
from dan_async.wallets import CallbackWallet, LocalWallet
from dan_async.wallets.base import EoaAuth

VECTORS = json.loads((Path(__file__).parent / "vectors" / "wire.json").read_text())["cases"]

OWNER_KEY = "0x" + "00" * 31 + "01"
REQUEST_ID = RequestId("0x" + "ab" * 32)
KEY_ID = MpcKeyId("17" * 32)
PUBLIC_KEY = coincurve.PrivateKey(b"\x05" * 32).public_key.format()

#: For tests that want each failure at once.
ONCE = RetryPolicy(attempts=1)
#: For tests of retries: no wait to speak of.
QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002)


class Visit:
    """One connection to a ``ScriptedGateway``."""

    def __init__(self, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.version: str = request.match_info["version"]
        self.operation: str = request.match_info["operation"]
        self.headers = request.headers
        self.path_qs = request.path_qs
        self.socket = socket
        self.frames: list[str] = []
        self.is_over = False
        self._transport = request.transport

    async def receive(self) -> str:
        """Wait for the client's next frame, which must be text."""
        message = await self.socket.receive()
        if message.type is not WSMsgType.TEXT:
            raise ConnectionResetError(f"the client left: {message.type}")
        self.frames.append(message.data)
        return message.data

    async def send(self, text: str) -> None:
        """Send a text frame."""
        await self.socket.send_str(text)

    async def leave(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection properly."""
        await self.socket.close(code=code, message=reason.encode())

    async def gone(self) -> None:
        """Wait until the client has left."""
        while not self.socket.closed and (await self.socket.receive()).type is WSMsgType.TEXT:
            pass

    def raw(self, data: bytes) -> None:
        """Write bytes to the socket as they are."""
        self._transport.write(data)

    def abort(self) -> None:
        """Break the connection without a goodbye."""
        self._transport.abort()


Script = Callable[[Visit], Awaitable[None]]


class ScriptedGateway:
    """
    A gateway on loopback.

    Args:
        scripts: What to do on the first, the second … connection; the last one also on all that follow.
        upgrade: Answers a request instead of upgrading it, if it returns a response, or a coroutine that does.
    """

    def __init__(
        self,
        scripts: Sequence[Script],
        upgrade: Callable[[web.Request], Any] | None = None,
    ) -> None:
        self._scripts = list(scripts)
        self._upgrade = upgrade
        self.visits: list[Visit] = []
        self.requests: list[web.Request] = []
        self.scheme = "ws"
        self.port = 0

    def url(self, version: str = "v1") -> str:
        """Give its URL."""
        return f"{self.scheme}://127.0.0.1:{self.port}/{version}"

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        refusal = self._upgrade(request) if self._upgrade else None
        if inspect.isawaitable(refusal):
            refusal = await refusal
        if refusal is not None:
            return refusal
        socket = web.WebSocketResponse(autoping=True, timeout=0.2, max_msg_size=0)
        await socket.prepare(request)
        visit = Visit(request, socket)
        self.visits.append(visit)
        script = self._scripts[min(len(self.visits), len(self._scripts)) - 1]
        try:
            with contextlib.suppress(ConnectionError):
                await script(visit)
        finally:
            visit.is_over = True
        return socket


@contextlib.asynccontextmanager
async def scripted(
    *scripts: Script,
    upgrade: Callable[[web.Request], Any] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ScriptedGateway]:
    """Run a ``ScriptedGateway``. The process forgets the challenges it has seen: those of recorded exchanges come again."""
    SEEN._seen.clear()
    gateway = ScriptedGateway(scripts, upgrade)
    app = web.Application()
    app.router.add_get("/{version}/{operation}", gateway.serve)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        gateway.port = runner.addresses[0][1]
        gateway.scheme = "ws" if tls is None else "wss"
        yield gateway
    finally:
        await runner.cleanup()


# --- scripts ----------------------------------------------------------------------------------------------------------


def new_challenge() -> str:
    """Give 64 hex digits that were not given before."""
    return secrets.token_hex(32)


def challenge_frame(visit: Visit, challenge: str | None = None) -> str:
    """Write the challenge frame for the setup that came, in its revision."""
    exchange = accept(visit.operation, visit.frames[0])
    return exchange.challenge_frame({slot: challenge or new_challenge() for slot in tuple(exchange.setups)})


def result_frame(visit: Visit) -> str:
    """Write the result frame for what was asked, in its revision."""
    exchange = accept(visit.operation, visit.frames[0], api_version=visit.version)  # type: ignore[arg-type]
    if visit.operation != "keygen":
        return STATUS_OK
    return exchange.protocol.encode_keygen_results([KeygenResult(key_id=KEY_ID, public_key=PUBLIC_KEY)])


def speaking(*revisions: str) -> Script:
    """Serve honestly in these revisions, and close with 1003 on setups of others; every revision if none is named."""

    async def script(visit: Visit) -> None:
        frame = await visit.receive()
        if visit.version == "v1":
            if revisions and accept(visit.operation, frame).protocol.revision not in revisions:
                await visit.leave(1003, "no such revision")
                return
            await visit.send(challenge_frame(visit))
            await visit.receive()
        await visit.send(result_frame(visit))
        await visit.gone()

    return script


honest = speaking()


def replaying(replies: Sequence[str]) -> Script:
    """Answer each frame with the next reply, whatever it says."""

    async def script(visit: Visit) -> None:
        for reply in replies:
            await visit.receive()
            await visit.send(reply)
        await visit.gone()

    return script


def at_challenge(move: Script) -> Script:
    """Make a move in place of the challenge."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await move(visit)

    return script


def at_wallet(move: Script) -> Script:
    """Make a move right after the challenge, before the authentication came."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit))
        await move(visit)

    return script


def at_result(move: Script) -> Script:
    """Make a move in place of the result."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        if visit.version == "v1":
            await visit.send(challenge_frame(visit))
            await visit.receive()
        await move(visit)

    return script


# --- the client's side ------------------------------------------------------------------------------------------------


def make_claim(algorithm: Any = "ed25519", *, expiry: int = 2**33) -> EphemeralClaim:
    """Make the claim of a new ephemeral key."""
    key = EphemeralKey.generate(algorithm)
    return EphemeralClaim(eph_id=key.default_id, eph_pk=key.public_key, expiry=expiry, sign_alg=key.algorithm)


def keygen_request(**changes: Any) -> KeygenRequest:
    """Make a request for a 2-of-3 key."""
    fields = {
        "request_id": REQUEST_ID,
        "owner_id": LocalWallet(OWNER_KEY).address,
        "threshold": Threshold(2, 3),
        "claim": changes.get("claim") or make_claim(),
    }
    return KeygenRequest(**(fields | changes))


def key_change(action: Any, **changes: Any) -> EphemeralKeyChange:
    """Make a request to add or revoke an ephemeral key."""
    fields = {
        "request_id": REQUEST_ID,
        "action": action,
        "key_id": KEY_ID,
        "owner_id": LocalWallet(OWNER_KEY).address,
        "claim": changes.get("claim") or make_claim(),
        "threshold": Threshold(2, 3),
    }
    return EphemeralKeyChange(**(fields | changes))


class CountingWallet:
    """
    The owner's wallet: counts how often it is asked.

    Args:
        interactive: Whether a person sees a prompt.
        before: Awaited before it signs.
        timeout_s: Its limit.
    """

    def __init__(
        self,
        *,
        interactive: bool = False,
        before: Callable[[], Awaitable[Any]] | None = None,
        timeout_s: float | None = 5.0,
    ) -> None:
        self.asked = 0
        self.is_asked = asyncio.Event()
        self.was_cancelled = False
        self._before = before
        self._wallet = LocalWallet(OWNER_KEY)
        self.auth = EoaAuth(
            CallbackWallet(self._wallet.address, self._sign, interactive=interactive), timeout_s=timeout_s
        )

    async def _sign(self, typed_data: Any) -> str:
        self.asked += 1
        self.is_asked.set()
        try:
            if self._before is not None:
                await self._before()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return await self._wallet.sign_typed_data(typed_data)


async def run(
    gateway: ScriptedGateway,
    *,
    operation: str = "keygen",
    wallet: CountingWallet | None = None,
    total_s: float = 10.0,
    version: str = "v1",
    request: Any = None,
    **options: Any,
) -> Any:
    """Run one operation over a network of its own."""
    options = {"retry": ONCE, "timeouts": Timeouts(attempt_s=10.0, connect_s=5.0)} | options
    network = GatewayNetwork(gateway.url(version), api_version=version, **options)
    try:
        return await operate(network, operation, wallet, total_s=total_s, request=request)
    finally:
        await network.aclose()


async def operate(
    network: GatewayNetwork,
    operation: str = "keygen",
    wallet: CountingWallet | None = None,
    *,
    total_s: float = 10.0,
    request: Any = None,
) -> Any:
    """Run one operation over a network."""
    auth = (wallet or CountingWallet()).auth
    deadline = Deadline(total_s)
    if operation == "keygen":
        return await network.keygen(request or keygen_request(), auth, deadline=deadline)
    if operation == "addEphemeralKey":
        return await network.add_ephemeral_key(request or key_change("add"), auth, deadline=deadline)
    return await network.revoke_ephemeral_key(request or key_change("revoke"), auth, deadline=deadline)

"""Where nodes listen: ports that stay a devnet's while a node is stopped, and a node's socket, to be shut and opened."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from dan_async._values import check_list, check_text
from dan_async.errors import InvalidFieldError

_log = logging.getLogger(__name__)

_BACKLOG = 1024

#: Turns of the event loop until a connection that was accepted is known to the server.
_TURNS = 5


def check_loopback(host: str) -> str:
    """Check that a host is a loopback address, which is where a devnet belongs."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise InvalidFieldError(
            "host",
            "must be a loopback address",
            hint="A devnet is no custody software: it serves this machine only",
        )
    return host


def check_origins(field: str, value: object) -> tuple[str, ...]:
    """Check that a value is a list of the origins of web pages."""
    origins = check_list(field, value)
    for origin in origins:
        url = urlsplit(check_text(field, origin, most=300))
        if not url.netloc or "@" in url.netloc or origin != f"{url.scheme}://{url.netloc.lower()}":
            raise InvalidFieldError(
                field, "must be origins, as location.origin says", hint="For example http://localhost:5173"
            )
    return origins


def refusing_origins(allowed: Collection[str]) -> Any:
    """Return the middleware that turns web pages away, but for those of the allowed origins."""

    # Any page may open WebSockets, and POST, to loopback; its browser says with Origin whose page it is, and no other
    # client has a reason to.
    @web.middleware
    async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not set(request.headers.getall("Origin", ())) <= set(allowed):
            return web.Response(status=403, text="this origin is not allowed here")
        return await handler(request)

    return admit


def listening_socket(host: str, port: int) -> socket.socket:
    """Bind a socket for a node to listen on, at a port that a ``PortReservation`` holds."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


class PortReservation:
    """A port held by a bound socket that never listens: connections are refused, and no other program is given the port."""

    def __init__(self, host: str, port: int = 0) -> None:
        if port:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                # Two that share a port by SO_REUSEPORT would each get some of the connections.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        self._socket = listening_socket(host, port)
        self.host = host
        self.port = int(self._socket.getsockname()[1])
        if not hasattr(socket, "SO_REUSEPORT"):
            self._socket.close()  # found and let go again: somebody else may then take it

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def close(self) -> None:
        self._socket.close()


class Door:
    """Where one node listens, by a listener that is now the door's; ``on_shut`` is called whenever it was shut."""

    def __init__(
        self, runner: web.AppRunner, listener: socket.socket, *, on_shut: Callable[[], None] = lambda: None
    ) -> None:
        self._runner = runner
        self._on_shut = on_shut
        self._listener: socket.socket | None = listener
        self._host, self._port = listener.getsockname()[:2]
        self._server: asyncio.Server | None = None
        self._is_wanted_open = False
        self._moving: asyncio.Task[None] | None = None

    async def start(self, *, is_open: bool) -> None:
        self._is_wanted_open = is_open
        await self._move()

    def set_open(self, is_open: bool) -> None:  # noqa: FBT001 - says what the name asks
        """Open or shut it within a moment."""
        self._is_wanted_open = is_open
        if self._moving is None or self._moving.done():
            self._moving = asyncio.create_task(self._move(), name="devnet node door")

    async def aclose(self) -> None:
        self._is_wanted_open = False
        if self._moving is not None:
            # It takes a few turns; cancelled, it might lose an open server.
            await asyncio.wait([self._moving])
        await self._move()

    async def _move(self) -> None:
        while self._is_wanted_open is not (self._server is not None):
            if self._is_wanted_open:
                await self._open()
            else:
                await self._shut()
        if not self._is_wanted_open:
            self._drop_listener()

    async def _open(self) -> None:
        if self._listener is None:
            try:
                self._listener = listening_socket(self._host, self._port)
            except OSError as error:
                _log.error("port %d cannot be listened at again: %s", self._port, error.strerror)
                self._is_wanted_open = False
                return
        factory = self._runner.server
        assert factory is not None  # the runner is set up
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(factory, sock=self._listener, backlog=_BACKLOG)

    async def _shut(self) -> None:
        # asyncio hands over in a later turn what it accepted in this one, and loses it, socket and all, if the server was
        # closed in between. So nothing more is accepted first, and then it is closed.
        if self._listener is not None:
            with contextlib.suppress(NotImplementedError, RuntimeError):  # loops that accept in another way
                asyncio.get_running_loop().remove_reader(self._listener)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if self._server is not None:
            self._server.close()
            self._server = None
        self._drop_listener()
        self._on_shut()

    def _drop_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

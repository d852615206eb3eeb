"""Where nodes and gateways listen: ports that stay a devnet's, sockets to be shut and opened, strangers held in bounds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import traceback
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import WSMsgType, hdrs, http_exceptions, web
from aiohttp.typedefs import Handler
from attrs import define, field

from dan_async._values import check_list, check_text
from dan_async.config import is_loopback
from dan_async.errors import InvalidFieldError

_log = logging.getLogger(__name__)

_BACKLOG = 1024

#: How long a stopping server waits for a connection to close, in seconds.
CLOSE_S = 0.5

#: More headers than any client sends; each may be 8 KiB long, and they are kept until the last has come.
_MOST_HEADERS = 64

_TIMEOUT_REPLY = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

#: Turns of the event loop until a connection that was accepted is known to the server.
_TURNS = 5


def check_loopback(host: str) -> str:
    """Check that a host is a loopback address, which is where a devnet belongs."""
    if not is_loopback(check_text("host", host, least=0)):
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


async def receive(
    websocket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, timeout_s: float | None = None
) -> aiohttp.WSMessage:
    """Wait for the next message other than pings, which are answered, and pongs; *websocket* does not do so by itself."""
    while True:
        message = await websocket.receive(timeout_s)
        if message.type is WSMsgType.PING:
            with contextlib.suppress(ConnectionError):  # then the end is what comes next
                await websocket.pong(message.data)
        elif message.type is not WSMsgType.PONG:
            return message
        # The next one may be here already, and a flood of them must not hold the event loop.
        await asyncio.sleep(0)


def place_of(error: BaseException) -> str:
    """Say where an unforeseen error was raised, and no more: its own text might hold anything."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {place.filename}:{place.lineno}"


class _HttpLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's complaints, one line each: strangers who send what is no HTTP write no tracebacks into the log."""

    def exception(self, msg: object, *args: object, exc_info: Any = None, **_: Any) -> None:
        foreseen = (http_exceptions.HttpProcessingError, web.RequestPayloadError, ConnectionError)
        if isinstance(exc_info, foreseen):
            self.debug("a client was refused: %s", type(exc_info).__name__)
        else:
            self.error(f"{msg}: %s", *args, place_of(exc_info))


@define(eq=False, repr=False)
class Arrivals:
    """
    The connections of one door that wait for a request, the first or the next.

    Each has so many seconds to send all its headers. Of more than *most* the one that waits longest is dropped, so that
    those who say nothing keep nobody out. Web pages are turned away, but for those of *origins*: any page may open
    WebSockets, and POST, to loopback; its browser says with Origin whose page it is, and no other client has a reason to.
    """

    _most: int
    _limit_s: float
    _origins: Collection[str] = ()
    #: By when each must have sent them, the earliest first; one timer for all.
    _waiting: dict[web.RequestHandler, float] = field(factory=dict, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)

    async def serve(self, app: web.Application) -> web.AppRunner:
        """Set a server up for an application; only requests that are admitted reach it."""
        # Compressed bodies are not unpacked: their size says nothing, and one that is broken is answered badly.
        options: Mapping[str, Any] = {"auto_decompress": False, "max_headers": _MOST_HEADERS}
        runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            shutdown_timeout=CLOSE_S,
            logger=_HttpLog(_log, {}),
            **options,
        )
        await runner.setup()
        server = runner.server
        assert server is not None
        # In front of the whole application: a middleware of its own would cost twice as much.
        server.request_handler = partial(self._admit, server.request_handler)
        return runner

    def begin(self, connection: web.RequestHandler) -> web.RequestHandler:
        loop = asyncio.get_running_loop()
        self._waiting[connection] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_later(self._limit_s, self._drop_late)
        if len(self._waiting) > self._most:
            self._drop(next(iter(self._waiting)))
        return connection

    def _drop_late(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._waiting:
            connection, until = next(iter(self._waiting.items()))
            if until > loop.time():
                self._timer = loop.call_at(until, self._drop_late)
                return
            self._drop(connection)

    def _drop(self, connection: web.RequestHandler) -> None:
        del self._waiting[connection]
        if connection.transport is None:
            return
        if connection.transport.get_write_buffer_size():
            connection.transport.abort()  # its last reply was never read
        else:
            connection.transport.write(_TIMEOUT_REPLY)
            connection.force_close()

    async def _admit(self, handler: Handler, request: web.Request) -> web.StreamResponse:
        self._waiting.pop(request.protocol, None)
        try:
            if not b"".join([value for _, value in request.raw_headers]).isascii():
                return web.Response(status=400, text="a header is not ASCII")
            if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
                return web.Response(
                    status=415,
                    text="no Content-Encoding is taken",
                    headers={hdrs.ACCEPT_ENCODING: "identity"},
                )
            if not all(origin in self._origins for origin in request.headers.getall(hdrs.ORIGIN, ())):
                return web.Response(status=403, text="this origin is not allowed here")
            return await handler(request)
        finally:
            self.begin(request.protocol)


class Door:
    """Where one node listens, by a listener that is now the door's; ``on_shut`` is called whenever it was shut."""

    def __init__(
        self,
        runner: web.AppRunner,
        listener: socket.socket,
        arrivals: Arrivals,
        *,
        on_shut: Callable[[], None] = lambda: None,
    ) -> None:
        self._runner = runner
        self._arrivals = arrivals
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
        self._server = await loop.create_server(
            lambda: self._arrivals.begin(factory()), sock=self._listener, backlog=_BACKLOG
        )

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

"""Where a node listens. It can be shut, so that connections are refused, and opened again at the same port."""

from __future__ import annotations

import asyncio
import logging
import socket

from aiohttp import web

from dan_async._tasks import cancel_and_wait
from dan_async.devnet.listening import listening_socket

__all__ = ["Door"]

_log = logging.getLogger(__name__)

_BACKLOG = 1024


class Door:
    """
    The listening socket of one node.

    Args:
        runner: Serves what connects; set up already.
        listener: A bound socket at the node's port; belongs to the door from now on.
    """

    def __init__(self, runner: web.AppRunner, listener: socket.socket) -> None:
        self._runner = runner
        self._listener: socket.socket | None = listener
        self._host, self._port = listener.getsockname()[:2]
        self._site: web.SockSite | None = None
        self._is_wanted_open = False
        self._moving: asyncio.Task[None] | None = None

    async def start(self, *, is_open: bool) -> None:
        """Begin, open or shut."""
        self._is_wanted_open = is_open
        await self._move()

    def set_open(self, is_open: bool) -> None:  # noqa: FBT001 - says what the name asks
        """Open or shut it within a moment."""
        self._is_wanted_open = is_open
        if self._moving is None or self._moving.done():
            self._moving = asyncio.create_task(self._move(), name="devnet node door")

    async def aclose(self) -> None:
        """Shut it for good."""
        if self._moving is not None:
            await cancel_and_wait([self._moving])
        self._is_wanted_open = False
        await self._move()

    async def _move(self) -> None:
        while self._is_wanted_open is not (self._site is not None):
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
        site = web.SockSite(self._runner, self._listener, backlog=_BACKLOG)
        await site.start()
        self._site, self._listener = site, None  # closing the site closes the socket

    async def _shut(self) -> None:
        site, self._site = self._site, None
        if site is not None:
            await site.stop()

    def _drop_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

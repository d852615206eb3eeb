"""Room to write: calls wait in a row until a peer that reads slowly has taken what was written before."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

#: How often it is looked whether the peer has read on, in seconds: one timer, however many calls wait.
_POLL_S = 0.005


class WriteRoom:
    """
    Who may write next to a transport.

    Args:
        transport: What is written to. It never pauses its writers by itself.
        most: While more bytes than this are unread, nobody may.
    """

    __slots__ = ("_loop", "_most", "_timer", "_transport", "_waiting")

    def __init__(self, transport: asyncio.WriteTransport, most: int) -> None:
        self._transport = transport
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_free(self) -> bool:
        """Whether the peer has read enough of what was written."""
        return self._transport.get_write_buffer_size() <= self._most

    @property
    def is_crowded(self) -> bool:
        """Whether a call that comes now has to wait."""
        return bool(self._waiting) or not self.is_free

    async def wait(self, answer: asyncio.Future[Any]) -> None:
        """
        Wait for this call's turn, in the order of arrival.

        Args:
            answer: The call's answer: once there is one (its time is over, the connection is lost), no turn is needed.
        """
        if not self.is_crowded:
            return
        turn: asyncio.Future[None] = self._loop.create_future()

        def release(_: object) -> None:
            if not turn.done():
                turn.set_result(None)

        self._waiting[turn] = None
        answer.add_done_callback(release)
        if self._timer is None:
            self._timer = self._loop.call_later(_POLL_S, self._look)
        try:
            await turn
        finally:
            self._waiting.pop(turn, None)
            answer.remove_done_callback(release)
            if not self._waiting and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def pass_on(self) -> None:
        """Give the next call its turn, if there is room: to be called after each write."""
        while self._waiting and self.is_free:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_result(None)
                return

    def _look(self) -> None:
        self._timer = None
        self.pass_on()
        if self._waiting:
            self._timer = self._loop.call_later(_POLL_S, self._look)

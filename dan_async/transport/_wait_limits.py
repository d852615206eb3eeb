"""Time limits of many waits on one event loop, with one timer for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dan_async.transport._deadlines import Deadlines

#: Called when a wait has taken too long.
OnLate = Callable[[], object]


class WaitLimits:
    """
    Calls whoever waits too long.

    A timer of asyncio's for each wait costs several times as much, most of it in a heap of timers that were cancelled
    (see ``Deadlines``). To be used on the event loop on which it was made.
    """

    __slots__ = ("_deadlines", "_last", "_pending", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._pending: dict[int, OnLate] = {}
        self._deadlines = Deadlines(self._pending, _call)
        self._last = 0

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, limit_s: float, on_late: OnLate) -> int:
        """
        Take note of a wait.

        Args:
            limit_s: Seconds it may take.
            on_late: Called if it takes longer.

        Returns:
            Its number, for ``end``.
        """
        self._last = number = self._last + 1
        self._pending[number] = on_late
        self._deadlines.add(number, limit_s)
        return number

    def end(self, number: int) -> None:
        """Take note that a wait has ended. May be called twice."""
        self._pending.pop(number, None)

    def close(self) -> None:
        """Forget everything; nobody is called any more."""
        self._pending.clear()
        self._deadlines.close()


def _call(on_late: OnLate) -> None:
    on_late()

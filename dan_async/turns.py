"""
Be fair to the host's event loop: spread our work over its turns by a time budget.

A turn is one pass of the loop over everything that is ready. A thousand calls that a program begins at once, or their
replies, would all run in one turn, and nothing else of the program before it is over. So each larger step first asks here:
once this turn's budget is used up it waits for a later turn, in the order of arrival, work under way before new calls.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import chain
from weakref import WeakKeyDictionary

#: The processor's time that our work may use in one turn, in seconds; the step that is at work then is finished. Shorter
#: turns cost throughput: code that runs again and again finds its data in the processor's caches.
BUDGET_S = 0.002

#: A part of the budget that each step is taken to use afterwards, in other tasks: for a reply, those that it wakes.
FOLLOWING_S = 0.00005


class _Line:
    """Those that wait, in the order of arrival."""

    __slots__ = ("earliest", "ends", "length", "passed", "places", "refused", "returning")

    def __init__(self) -> None:
        self.length = 0
        #: Places that are not called up yet.
        self.places: deque[asyncio.Future[bool]] = deque()
        #: When the time of each of them is over. A timer for each would cost more than all else that a wait does.
        self.ends: deque[float] = deque()
        #: Nobody's time is over before.
        self.earliest = math.inf
        #: Places of those that were called up and found no time left, and their ends: they are the next.
        self.refused: list[tuple[asyncio.Future[bool], float]] = []
        #: Those of them that were called up again, for this turn.
        self.returning: set[asyncio.Future[bool]] = set()
        #: How many have passed in this turn.
        self.passed = 0

    def call_up(self, *, is_full: bool) -> None:
        """Wake as many as passed in the turn before, and more if that was not full; who finds no time left comes back."""
        count = max(1, self.passed) if is_full else 2 * self.passed + 1
        returning = len(self.refused)
        while self.refused:
            place, end = self.refused.pop()
            self.places.appendleft(place)
            self.ends.appendleft(end)
        self.passed = 0
        self.returning.clear()
        while self.places and count:
            place = self.places.popleft()
            self.ends.popleft()
            returning -= 1
            if not place.done():  # else it was cancelled, or its time is over
                place.set_result(True)
                count -= 1
                if returning >= 0:
                    self.returning.add(place)

    def end_overdue(self, now: float) -> None:
        """Wake those whose time is over: to be called when ``earliest`` has come, for it looks through the line."""
        self.earliest = math.inf
        for place, end in chain(self.refused, zip(self.places, self.ends, strict=True)):
            if place.done():
                continue
            if end <= now:
                place.set_result(False)
            else:
                self.earliest = min(self.earliest, end)


class Turns:
    """
    The turns of one event loop, shared by everything of ours that runs on it.

    *clock* is the thread's processor time, of which each turn has its budget; *now* is the time by which a wait ends.
    """

    __slots__ = ("__weakref__", "_clock", "_ends", "_is_due", "_new", "_now", "_under_way")

    def __init__(
        self, *, clock: Callable[[], float] = time.thread_time, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._now = now
        #: When the time of this turn is used up; None before the first step in it.
        self._ends: float | None = None
        #: Whether the end of this turn will be noticed.
        self._is_due = False
        self._under_way = _Line()
        self._new = _Line()

    @classmethod
    def of_running_loop(cls) -> Turns:
        """Return the turns of the event loop that runs."""
        loop = asyncio.get_running_loop()
        found = _TURNS.get(loop)
        if found is None:
            found = _TURNS[loop] = cls()
        return found

    async def go_on(self) -> None:
        """Let work that is under way take its next step: at once, or in a later turn."""
        if not self.may_go_on():
            await self.later()

    def later(self) -> Awaitable[bool]:
        """Let work that is under way take its next step in a later turn: where ``may_go_on`` has said no."""
        return self._wait(self._under_way, None)

    async def begin(self, timeout_s: float | None) -> bool:
        """Let a new call begin, at once or in a later turn; False if its time is over before its turn comes."""
        return self.may_begin() or await self.begin_later(timeout_s)

    def may_begin(self) -> bool:
        """Take a step's time from this turn's budget for a new call, if something is left of it and no other waits."""
        line = self._new
        return not (line.places or line.refused or line.returning) and self.may_go_on()

    def begin_later(self, timeout_s: float | None) -> Awaitable[bool]:
        """Let a new call begin in a later turn: where ``may_begin`` has said no."""
        return self._wait(self._new, timeout_s)

    @property
    def waiting(self) -> int:
        """How many new calls wait for their turn."""
        return self._new.length

    def may_go_on(self, *, is_next: bool = False) -> bool:
        """
        Take a step's time from this turn's budget for work that is under way, if something is left of it.

        None is left while others wait, who would be overtaken, unless the work *is_next*.
        """
        line = self._under_way
        if not is_next and (line.places or line.refused or line.returning):
            return False
        # While nobody waits, a turn's end is noticed only once half of the budget is used, since noticing it costs another
        # turn; till then the budget goes on over later turns.
        now = self._clock()
        if self._ends is None:
            self._ends = now + BUDGET_S
        if now >= self._ends:
            return False
        self._ends -= FOLLOWING_S
        if self._ends - now < BUDGET_S / 2:
            self._notice_end()
        return True

    def _notice_end(self) -> None:
        """Have ``_next`` called when this turn is over."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._next)

    async def _wait(self, line: _Line, timeout_s: float | None) -> bool:
        end = math.inf if timeout_s is None else self._now() + timeout_s
        loop = asyncio.get_running_loop()
        place = loop.create_future()
        line.length += 1
        line.places.append(place)
        line.ends.append(end)
        try:
            while True:
                line.earliest = min(line.earliest, end)
                self._notice_end()
                try:
                    if not await place:
                        return False
                finally:
                    line.returning.discard(place)
                if self.may_go_on(is_next=True):
                    line.passed += 1
                    return self._now() < end  # the loop may have been blocked meanwhile
                place = loop.create_future()
                line.refused.append((place, end))
        finally:
            line.length -= 1

    def _next(self) -> None:
        """Note that a turn is over, and call up those that wait."""
        # Where work under way has used up a whole turn, a new call would most likely come for nothing.
        is_full = self._ends is not None and self._clock() >= self._ends
        may_begin = not is_full or self._new.passed or not self._under_way.passed
        self._ends = None
        if self._new.length and (now := self._now()) >= self._new.earliest:
            self._new.end_overdue(now)
        # Also lines in which nobody waits any more: places of calls that were cancelled would stay, and keep others waiting.
        self._under_way.call_up(is_full=is_full)
        if may_begin and not self._under_way.places:
            self._new.call_up(is_full=is_full)
        self._is_due = bool(self._under_way.length or self._new.length)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._next)


#: By event loop: what shares a loop shares its turns, whichever client or network it belongs to.
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()

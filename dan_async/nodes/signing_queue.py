"""The queue in front of signing: so many calls at once, the sessions in turn, none of them able to take every place."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from attrs import define, field

from dan_async.deadline import Deadline
from dan_async.errors import OverloadedError

#: Sessions that are remembered as slowed down at the same time.
_MOST_LIMITS = 1024


@define(eq=False)
class SigningQueue:
    """
    Admits calls of sessions.

    A session may take one more place while it has fewer than are free: alone it gets half of them, beside k others one of
    k + 2 parts, so that a newcomer finds a place even where another session's calls hang. One whose calls the nodes have
    no room for has a limit of its own: a place less for each such call, one more after as many successes as it has places.
    """

    _places: int
    _most_waiting: int
    _held: Counter[Hashable] = field(factory=Counter, init=False)
    _free: int = field(init=False)
    _limits: dict[Hashable, float] = field(factory=dict, init=False)
    #: The calls that wait, by session; the session whose turn it is stands first.
    _lines: dict[Hashable, OrderedDict[asyncio.Future[None], None]] = field(factory=dict, init=False)
    waiting: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._free = self._places

    @asynccontextmanager
    async def place(
        self, session: Hashable, *, deadline: Deadline, is_again: bool = False
    ) -> AsyncIterator[None]:
        """
        Hold a place while the block runs; raise an OverloadedError if there is none before the deadline.

        A call that comes again is the next one of its session.
        """
        if session in self._lines or not self._admits(session):
            await self._wait(session, deadline, is_first=is_again)
        else:
            self._take(session)
        try:
            yield
            if limit := self._limits.get(session):
                self._limits[session] = limit + 1 / limit
                if limit >= self._places / 2:  # more than it could have anyway
                    del self._limits[session]
        finally:
            self._give_back(session)

    def slow_down(self, session: Hashable) -> None:
        """Note that the nodes had no room for a call."""
        limit = min(self._limits.pop(session, self._places), self._held[session])
        self._limits[session] = max(1.0, limit - 1.0)  # the latest stands last
        while len(self._limits) > _MOST_LIMITS:
            del self._limits[next(iter(self._limits))]

    def overloaded(self, problem: str) -> OverloadedError:
        """Return the error of a call that did not get its turn."""
        return OverloadedError(
            f"{problem}; {self.waiting} other calls are waiting to sign",
            waiting=self.waiting,
            hint="Nothing was signed. Send fewer calls at once, or give them a longer timeout",
            phase="signing",
        )

    async def _wait(self, session: Hashable, deadline: Deadline, *, is_first: bool) -> None:
        if self.waiting >= self._most_waiting:
            raise self.overloaded("the queue for signing is full")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(session, OrderedDict())
        line[turn] = None
        line.move_to_end(turn, last=not is_first)
        self.waiting += 1
        try:
            async with asyncio.timeout(deadline.remaining()):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_back(session)
            else:
                self._leave(session, turn)
            if isinstance(error, TimeoutError):
                problem = f"the deadline of {deadline.timeout_s:g} s ran out before this call's turn came"
                raise self.overloaded(problem) from None
            raise

    def _leave(self, session: Hashable, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(session)
        if line is not None and turn in line:
            self.waiting -= 1
            del line[turn]
            if not line:
                del self._lines[session]

    def _admits(self, session: Hashable) -> bool:
        return self._held[session] < min(self._free, int(self._limits.get(session, self._free)))

    def _take(self, session: Hashable) -> None:
        self._held[session] += 1
        self._free -= 1

    def _give_back(self, session: Hashable) -> None:
        self._free += 1
        self._held[session] -= 1
        if not self._held[session]:
            del self._held[session]
        self._admit_next()

    def _admit_next(self) -> None:
        """Hand out the free places, one for each session in turn."""
        while self._free:
            session = next(filter(self._admits, self._lines), None)
            if session is None:
                return
            line = self._lines.pop(session)
            turn = next(iter(line))
            self._lines[session] = line  # to the end
            self._leave(session, turn)
            if not turn.cancelled():  # its task will learn of that in a moment
                self._take(session)
                turn.set_result(None)

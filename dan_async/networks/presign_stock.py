"""Presignatures that were made ahead: few, short-lived, each given out once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable

from attrs import define, field, frozen

from dan_async.models.signing import PresignatureOffer
from dan_async.types import OperatorAddress

__all__ = ["PresignStock", "StockedPresignature"]

#: Sessions that are remembered at the same time.
_MOST_SESSIONS = 1024

#: Signatures of a session that lie further back than this, in seconds, do not count.
_MEMORY_S = 60.0


@frozen(kw_only=True)
class StockedPresignature:
    """
    A presignature and whose it is.

    Args:
        offer: What its signers said of it.
        signers: Their operators, ascending.
        ends: When it must not be used any more, in monotonic seconds.
    """

    offer: PresignatureOffer
    signers: tuple[OperatorAddress, ...]
    ends: float


@define
class _Shelf:
    entries: deque[StockedPresignature] = field(factory=deque)
    uses: int = 0
    last_use: float = 0.0
    ordered: int = 0


class PresignStock:
    """
    The presignatures of every session that signs over a network.

    Args:
        most: How many to keep for a session.
        clock: Monotonic seconds.
    """

    def __init__(self, most: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._shelves: dict[Hashable, _Shelf] = {}

    def __len__(self) -> int:
        return sum(len(shelf.entries) for shelf in self._shelves.values())

    def take(
        self, session: Hashable, count: int, *, usable: Callable[[tuple[OperatorAddress, ...]], bool]
    ) -> list[StockedPresignature]:
        """
        Take presignatures of one set of signers out of the stock; they are never given out again.

        Args:
            session: Whose.
            count: How many are needed.
            usable: Says whether a set of signers may be asked now; presignatures of others are thrown away.

        Returns:
            *count* presignatures of one set; none if there are not as many.
        """
        shelf = self._shelves.get(session)
        if shelf is None:
            return []
        now = self._clock()
        shelf.entries = deque(e for e in shelf.entries if e.ends > now and usable(e.signers))
        for signers in {entry.signers for entry in shelf.entries}:
            found = [entry for entry in shelf.entries if entry.signers == signers][:count]
            if len(found) == count:
                shelf.entries = deque(entry for entry in shelf.entries if entry not in found)
                return found
        return []

    def used(self, session: Hashable, count: int) -> None:
        """Note that a session has signed: one that signs again and again gets a stock."""
        now = self._clock()
        shelf = self._shelves.pop(session, None) or _Shelf()
        self._shelves[session] = shelf  # the latest use stands last
        shelf.uses = shelf.uses + count if now - shelf.last_use < _MEMORY_S else count
        shelf.last_use = now
        while len(self._shelves) > _MOST_SESSIONS:
            del self._shelves[next(iter(self._shelves))]

    def order(self, session: Hashable) -> bool:
        """
        Say whether one more presignature should be made for a session, and note that it is being made.

        Whoever was told so calls ``arrived`` in the end.
        """
        shelf = self._shelves.get(session)
        if shelf is None:
            return False
        wanted = min(self._most, shelf.uses - 1)
        if len(shelf.entries) + shelf.ordered >= wanted:
            return False
        shelf.ordered += 1
        return True

    def arrived(self, session: Hashable, entry: StockedPresignature | None) -> None:
        """Put a presignature that was ordered into the stock; None if it could not be made."""
        shelf = self._shelves.get(session)
        if shelf is not None:
            shelf.ordered -= 1
            if entry is not None:
                shelf.entries.append(entry)

    def drop(self, session: Hashable) -> None:
        """Throw away everything of a session: the nodes do not know it any more."""
        shelf = self._shelves.get(session)
        if shelf is not None:
            shelf.entries.clear()

    def clear(self) -> None:
        """Throw everything away."""
        self._shelves.clear()

"""How long to stay away from a peer after a connection failed or broke."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable

#: A connection that lived this long was a good one: what breaks it does not count as a further failure.
STABLE_S = 5.0


class Backoff:
    """
    Spaces out connection attempts, so that a peer that comes back is not run over.

    After the k-th failure in a row the next attempt is due ``min(longest_wait_s, first_wait_s * 2**(k - 1))`` seconds
    later, times a random factor from 0.5 to 1. Time that has passed since the failure counts, so that after a longer
    pause there is no wait at all.

    Args:
        first_wait_s: Longest wait after the first failure, in seconds.
        longest_wait_s: Waits stop growing here.
        clock: Monotonic seconds.
        random: Numbers from 0 to 1; not a source of secrets.
        longest_retry_after_s: The longest wait that the peer can ask for; None for no limit.
    """

    __slots__ = (
        "_clock",
        "_due",
        "_failures",
        "_first_wait_s",
        "_longest_retry_after_s",
        "_longest_wait_s",
        "_random",
    )

    def __init__(
        self,
        *,
        first_wait_s: float = 0.1,
        longest_wait_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
        longest_retry_after_s: float | None = None,
    ) -> None:
        self._first_wait_s = first_wait_s
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._random = random
        self._longest_retry_after_s = math.inf if longest_retry_after_s is None else longest_retry_after_s
        self._failures = 0
        self._due = 0.0

    def now(self) -> float:
        """Give the clock's time."""
        return self._clock()

    def remaining(self) -> float:
        """Seconds until the next attempt is due."""
        return max(0.0, self._due - self._clock())

    def attempt_failed(self, *, retry_after: float | None = None) -> None:
        """Note that an attempt failed; the peer may have asked for a longer wait."""
        self._note(self._clock(), min(retry_after or 0.0, self._longest_retry_after_s))

    def connection_lost(self, *, opened_at: float, lost_at: float) -> None:
        """Note that a connection broke, by the times of this object's clock."""
        if lost_at - opened_at >= STABLE_S:
            self._failures = 0
        self._note(lost_at, 0.0)

    def _note(self, at: float, least: float) -> None:
        # The exponent is bounded: 2.0**1024 would overflow.
        longest = min(self._longest_wait_s, self._first_wait_s * 2.0 ** min(self._failures, 64))
        self._failures += 1
        self._due = at + max(least, longest * (0.5 + 0.5 * self._random()))

"""A token bucket for each address that sends requests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

__all__ = ["RateLimit"]


class RateLimit:
    """
    Allows so many requests per second and address, and short bursts.

    Args:
        per_s: How fast a bucket fills.
        burst: How much it holds.
        clock: A monotonic clock.
        max_addresses: How many buckets are kept; the one not used for longest goes first.
    """

    def __init__(
        self, per_s: float, burst: int, *, clock: Callable[[], float], max_addresses: int = 4096
    ) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._clock = clock
        self._max_addresses = max_addresses
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> float:
        """Take one token; gives 0.0 if there was one, else the seconds until there is."""
        now = self._clock()
        level, at = self._buckets.pop(address, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._per_s)
        allowed = level >= 1.0
        self._buckets[address] = (level - 1.0 if allowed else level, now)
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - level) / self._per_s

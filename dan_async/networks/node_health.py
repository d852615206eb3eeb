"""How well one node has been doing, as far as we have seen."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field

__all__ = ["HealthRecord"]

#: Weight of the newest latency in the moving average.
_NEWEST = 0.2

#: A node that failed k times in a row rests min(_REST_S * 2**(k - 1), _LONGEST_REST_S) seconds.
_REST_S = 1.0
_LONGEST_REST_S = 60.0


@define
class HealthRecord:
    """
    Latency (exponentially weighted moving average) and failures of one node.

    A node that keeps failing rests for a growing time: it is asked last, not never, so that a pool with nothing better still
    tries it, and the first success clears its record.
    """

    clock: Callable[[], float] = time.monotonic
    latency_s: float | None = None
    failures: int = 0
    rests_until: float = field(default=0.0, repr=False)

    def succeeded(self, latency_s: float) -> None:
        """Note an answer that took *latency_s* seconds."""
        old = self.latency_s
        self.latency_s = latency_s if old is None else old + _NEWEST * (latency_s - old)
        self.failures = 0
        self.rests_until = 0.0

    def failed(self) -> None:
        """Note a failure to answer, or a wrong answer."""
        self.failures += 1
        rest = min(_REST_S * 2.0 ** min(self.failures - 1, 16), _LONGEST_REST_S)
        self.rests_until = self.clock() + rest

    @property
    def rank(self) -> tuple[bool, int, float]:
        """Lower is better: rested before resting, fewer failures first, then faster (unknown latency counts as fast)."""
        return (self.clock() < self.rests_until, self.failures, self.latency_s or 0.0)

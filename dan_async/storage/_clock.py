"""Is the clock good enough to call something expired?"""

from __future__ import annotations

from dan_async.errors import StoreClockError

#: How far, in milliseconds, clocks of processes that share a store may be apart.
TOLERANCE_MS = 60_000


def check_clock(now: float, newest_ms: int | None) -> None:
    """
    Compare the clock with the newest record.

    Args:
        now: The time, in Unix seconds.
        newest_ms: When the store was changed last, in Unix milliseconds; None if it is empty.

    Raises:
        StoreClockError: The clock is behind.
    """
    if newest_ms is not None and now * 1000 + TOLERANCE_MS < newest_ms:
        behind_s = (newest_ms - now * 1000) / 1000
        raise StoreClockError(
            f"the clock is {behind_s:.0f} s behind the newest record, so nothing can be called expired",
            hint="The clock was set back, or was wrong when that record was written; set it and try again",
        )

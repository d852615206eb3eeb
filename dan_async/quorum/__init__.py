"""One request, many nodes, one verdict."""

from __future__ import annotations

from dan_async.quorum.fan_out import fan_out
from dan_async.quorum.tally import KeygenTally

__all__ = ["KeygenTally", "fan_out"]

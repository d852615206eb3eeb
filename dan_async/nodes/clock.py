"""How far this machine's clock is off, as far as t nodes agree; so that one of them, or t - 1, can say what they like."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, field, frozen

from dan_async.network import ClockSkew
from dan_async.types import Clock, OperatorAddress

#: Nodes agree if their clocks are no further apart, in seconds; and less than the second is nothing to speak of.
_AGREE_S = 10.0
_RIGHT_S = 5.0

#: An answer that took longer says too little about the time.
_MOST_WAITED_S = 5.0

#: If the clock has gained so much on the monotonic one, in seconds, it was set, or the machine was asleep: nobody can tell,
#: and an earlier answer says nothing. If it has lost, it was set back, and is so much more behind.
_JUMP_S = 1.0


@frozen
class _Sample:
    skew_s: float
    ahead_s: float  # the clock's lead over the monotonic one


@define(eq=False)
class NetworkClock:
    """The wall clock, and what the nodes say of it."""

    _clock: Clock
    _monotonic: Callable[[], float] = time.monotonic
    _samples: dict[OperatorAddress, _Sample] = field(factory=dict, init=False)
    #: The clock's lead over the monotonic one when every node's time was its own; None if some node's was not.
    _right_at_s: float | None = field(default=None, init=False)

    def note(self, operator: OperatorAddress, node_time: float, *, waited_s: float) -> None:
        """Note a node's time, in Unix seconds, from an answer that took so long."""
        now = self._clock()
        if waited_s <= _MOST_WAITED_S:
            skew_s = node_time - (now - waited_s / 2)
            self._samples[operator] = _Sample(skew_s, now - self._monotonic())
            is_right = all(abs(sample.skew_s) <= _RIGHT_S for sample in self._samples.values())
            self._right_at_s = self._samples[operator].ahead_s if is_right else None

    def skew(self, t: int) -> ClockSkew | None:
        """Return the skew that t nodes agree on, one of whom is honest; None if there is none."""
        if not self._samples:
            return None
        ahead_s = self._clock() - self._monotonic()
        if self._right_at_s is not None and abs(ahead_s - self._right_at_s) <= _JUMP_S:
            return None
        jumps = ((sample, ahead_s - sample.ahead_s) for sample in self._samples.values())
        known = sorted(s.skew_s - min(0.0, jump_s) for s, jump_s in jumps if jump_s <= _JUMP_S)
        groups = [known[i : i + t] for i in range(len(known) - t + 1)]
        group = min(groups, key=lambda g: g[-1] - g[0], default=[])
        if not group or group[-1] - group[0] > _AGREE_S:
            return None
        seconds = group[t // 2]
        if abs(seconds) <= _RIGHT_S:
            return None
        agreeing = sum(abs(skew_s - seconds) <= _AGREE_S for skew_s in known)
        return ClockSkew(seconds=seconds, agreeing=agreeing, asked=len(known))

    def correction_s(self, t: int) -> float:
        """Return the seconds to add to this machine's clock."""
        skew = self.skew(t)
        return 0.0 if skew is None else skew.correction_s

    def now(self, t: int) -> float:
        """Return the time, corrected, in Unix seconds."""
        return self._clock() + self.correction_s(t)

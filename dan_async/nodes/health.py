"""
The health of the nodes, the time after which a step of signing is late, and the nodes' clocks.

The one place where latencies, failures and times are kept. The records are pure: the clock and the jitter are injected.
Choosing nodes (``rank``) only reads them.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
from typing import Literal, Protocol, TypeVar

from attrs import define, field, frozen

from dan_async._values import check_seconds, in_seconds, required
from dan_async.listeners import EventHub
from dan_async.network import ClockSkew
from dan_async.types import Clock, OperatorAddress

_log = logging.getLogger(__name__)

#: Weight of the newest time in a moving average.
_NEWEST = 0.2

#: After so many late acknowledgements in a row a node is not listened to, when enough others have come; but for one key
#: generation in sixteen, to find out whether it still is late.
_LATE = 2
_LISTEN_EVERY = 16

#: Suspicion of a node in signing: after how many seconds it is half, how much it is at most, and what is as good as none.
_HALF_LIFE_S = 60.0
_MOST_SUSPICION, _LEAST_SUSPICION = 8.0, 0.125

#: What is left of it when the node has helped to sign.
_TRUST = 0.25

#: A step is late after its usual time and so many times what that differs by (as in RFC 6298, for TCP), but not before the
#: first or after the second of these multiples of the usual time; and within these bounds, in seconds.
_SPREADS, _LEAST_TIMES, _MOST_TIMES = 4.0, 2.0, 4.0
_LEAST_S, _MOST_S = 0.1, 10.0

#: What counts as late before anything is known, in seconds. A pair of nodes that meet for the first time has work to do.
_UNKNOWN_S = {"presign": 0.75, "sign": 0.5}

#: ``live``: nothing speaks against it. ``resting``: it failed, and is asked last. ``probing``: it has rested, and one
#: request is under way that lets it prove itself.
RestState = Literal["live", "resting", "probing"]


def _average(usual_s: float | None, seconds: float) -> float:
    """Take one more time into an exponentially weighted moving average."""
    return seconds if usual_s is None else usual_s + _NEWEST * (seconds - usual_s)


@frozen(kw_only=True)
class RestPolicy:
    """
    How long a node that failed is left alone.

    After the k-th failure in a row it rests for ``min(longest_s, first_s * 2**(k - 1))`` seconds, times a random factor
    from 0.5 to 1, so that clients which saw the same failure do not all come back at once.

    Args:
        first_s: The longest rest after one failure, in seconds.
        longest_s: Rests stop growing here.
        clock: Monotonic seconds; injected by tests.
        random: Returns numbers from 0 to 1 for the jitter; injected by tests. Not a source of secrets.

    Raises:
        InvalidFieldError: A number is out of range.
    """

    first_s: float = field(default=1.0, converter=in_seconds, validator=required(check_seconds))
    longest_s: float = field(default=60.0, converter=in_seconds, validator=required(check_seconds))
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    def rest_s(self, failures: int, *, least: float = 0.0) -> float:
        """
        Return the seconds of rest after so many failures in a row; the node may have asked for *least*.

        Args:
            failures: How many in a row, from 1.
            least: Seconds that the node has asked for.
        """
        longest = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 64))
        return max(least, longest * (0.5 + 0.5 * self.random()))


@define(eq=False, repr=False)
class Asked:
    """A request that is under way, until the ``HealthRecord`` learns how it ended."""

    started: float  # by the policy's clock
    failures_seen: int  # counted in all when it began
    is_proof: bool  # its success ends a rest


@define(eq=False, repr=False)
class HealthRecord:
    """
    Latency and failures of one node.

    A node that keeps failing rests for a growing time: it is asked last, not never, so that a pool with nothing better
    still tries it. When the rest is over, one request at a time may probe it; the first success clears its record. Requests
    that were in flight together when a node went down count as one failure, however many they were.
    """

    policy: RestPolicy = field(factory=RestPolicy)
    #: Called with each new state: the one place where a node goes down or comes up.
    on_change: Callable[[RestState], None] | None = field(default=None, repr=False)
    latency_s: float | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)
    rests_until: float = field(default=0.0, init=False)
    busy_until: float = field(default=0.0, init=False)
    requests: int = field(default=0, init=False)
    keygens: int = field(default=0, init=False)
    late_keygens: int = field(default=0, init=False)
    _suspicion: tuple[float, float] = field(default=(0.0, 0.0), init=False)  # how much, and when
    _failures_seen: int = field(default=0, init=False)
    _probe: Asked | None = field(default=None, init=False)

    # --- what happens to it -------------------------------------------------------------------------------------------

    def begin(self, *, is_look: bool = False) -> Asked:
        """Note that the node is asked. A mere health check (*is_look*) changes a rest only if it is the rest's probe."""
        self.requests += 1
        if not self.failures:
            return Asked(self.policy.clock(), self._failures_seen, True)
        is_due = self.is_due
        is_proof = not is_look or is_due
        asked = Asked(self.policy.clock(), self._failures_seen, is_proof)
        if is_due:
            self._probe = asked
            self._report("probing")
        return asked

    def succeeded(self, asked: Asked, *, is_timed: bool = True) -> None:
        """Note a right answer; *is_timed* if the time that it took says something about this node alone."""
        if is_timed:
            self.latency_s = _average(self.latency_s, self.policy.clock() - asked.started)
        if self.failures and asked.is_proof:
            self.failures, self.rests_until, self._probe = 0, 0.0, None
            self._report("live")

    def busy(self, asked: Asked, for_s: float) -> None:
        """Note that the node asked to be left alone for so long: no failure, but those that are not busy come first."""
        self.busy_until = self.policy.clock() + for_s
        self.gave_up(asked, is_timed=False)

    def failed(self, asked: Asked, *, least_rest_s: float = 0.0) -> None:
        """Note that no answer came, or a wrong one, or none for so long."""
        if asked is self._probe:
            self._probe = None
        elif not asked.is_proof or asked.failures_seen != self._failures_seen:
            return
        self.misbehaved(least_rest_s=least_rest_s)

    def misbehaved(self, *, least_rest_s: float = 0.0) -> None:
        """Note a failure that showed only later: an answer that failed a check, or blame by the other nodes."""
        self.failures += 1
        self._failures_seen += 1
        self._probe = None
        rest_s = self.policy.rest_s(self.failures, least=least_rest_s)
        self.rests_until = self.policy.clock() + rest_s
        self._report("resting")

    def gave_up(self, asked: Asked, *, is_timed: bool = True) -> None:
        """Note that nobody waited for the end. That is no failure; but it took at least this long."""
        elapsed = self.policy.clock() - asked.started
        if is_timed and elapsed > (self.latency_s or 0.0):
            self.latency_s = _average(self.latency_s, elapsed)
        if asked is self._probe:
            self._probe = None
            self._report("resting")

    def acknowledged(self, *, in_time: bool) -> None:
        """Note whether its acknowledgement of a key that was made came before or within the grace."""
        self.late_keygens = 0 if in_time else self.late_keygens + 1

    def suspect(self, weight: float) -> None:
        """
        Note that it may be what kept others from signing: 1 if it is clear, less if it was one of several.

        Suspicion orders the nodes for signatures, and changes nothing else: a step takes as long as all its signers
        together, so what goes wrong in it must not change the participants of a key generation.
        """
        if weight:
            self._suspicion = min(_MOST_SUSPICION, self.suspicion + weight), self.policy.clock()

    def trust(self) -> None:
        """Note that it has helped to sign."""
        if self._suspicion[0]:
            self._suspicion = _TRUST * self.suspicion, self.policy.clock()

    def _report(self, state: RestState) -> None:
        if self.on_change is not None:
            self.on_change(state)

    # --- what it says -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> RestState:
        """Whether it is live, resting or probing."""
        if not self.failures:
            return "live"
        return "resting" if self._probe is None else "probing"

    @property
    def suspicion(self) -> float:
        """How much speaks against it in signing; decays with time."""
        weight, since = self._suspicion
        if weight:
            weight *= 0.5 ** ((self.policy.clock() - since) / _HALF_LIFE_S)
        return weight if weight >= _LEAST_SUSPICION else 0.0

    @property
    def is_worth_the_grace(self) -> bool:
        """Whether to listen for its acknowledgement when enough others have come: not if it was late twice in a row."""
        return self.late_keygens < _LATE or self.keygens % _LISTEN_EVERY == 0

    @property
    def is_due(self) -> bool:
        """Whether it has rested long enough and no request is proving it yet."""
        return bool(self.failures) and self._probe is None and self.policy.clock() >= self.rests_until

    @property
    def rests_for_s(self) -> float:
        """Seconds until it may be probed; 0 if it may be asked now."""
        return max(0.0, self.rests_until - self.policy.clock()) if self.failures else 0.0

    @property
    def rank(self) -> tuple[int, float, float]:
        """Lower is better: live nodes by latency (unknown is fast), busy ones last; those that have rested; the others."""
        latency = self.latency_s or 0.0
        if not self.failures:
            return (0, float(self.busy_until > 0.0 and self.busy_until > self.policy.clock()), latency)
        if self.is_due:
            return (1, float(self.failures), latency)
        return (2, self.rests_until, latency)  # whose rest is over first


class Ranked(Protocol):
    """A node, as far as ranking knows it."""

    operator: OperatorAddress
    health: HealthRecord


N = TypeVar("N", bound=Ranked)

_by_health = attrgetter("health.rank")


def rank(nodes: Iterable[N], *, without: Collection[OperatorAddress] = ()) -> list[N]:
    """Return the nodes but those named in *without*, best ``HealthRecord.rank`` first; ties stay in their order."""
    return sorted([node for node in nodes if node.operator not in without], key=_by_health)


@define(eq=False, repr=False)
class NodeUpDown:
    """Reports that a node went down or is back, as a ``HealthRecord.on_change``."""

    _record: HealthRecord
    _operator: OperatorAddress
    _events: EventHub
    _failures: int = field(default=0, init=False)

    def __call__(self, state: RestState) -> None:  # noqa: D102 - see the class
        before, self._failures = self._failures, self._record.failures
        if state == "resting" and not before:
            _log.info("node %s failed and rests for %.2f s", self._operator, self._record.rests_for_s)
            if self._events.listeners:
                from dan_async.events import NodeDown

                rest_s = self._record.rests_for_s
                self._events.emit(NodeDown(node=self._operator, failures=self._failures, rest_s=rest_s))
        elif state == "live" and before:
            _log.info("node %s is back after %d failures", self._operator, before)
            if self._events.listeners:
                from dan_async.events import NodeUp

                self._events.emit(NodeUp(node=self._operator, failures=before))


@define(eq=False, repr=False)
class Lateness:
    """How long each step of signing usually takes."""

    clock: Callable[[], float] = time.monotonic
    #: By step, and by how much it differs.
    _usual_s: dict[str, tuple[float, float]] = field(factory=dict, init=False)

    def took(self, step: str, seconds: float) -> None:
        """Note that all t nodes took so long."""
        usual, spread = self._usual_s.get(step, (seconds, seconds / 2))
        self._usual_s[step] = _average(usual, seconds), _average(spread, abs(seconds - usual))

    def limit_s(self, step: str) -> float:
        """Return the seconds after which a step is late."""
        if step not in self._usual_s:
            return _UNKNOWN_S.get(step, _LEAST_S)
        usual, spread = self._usual_s[step]
        limit_s = min(max(usual + _SPREADS * spread, _LEAST_TIMES * usual), _MOST_TIMES * usual)
        return min(max(limit_s, _LEAST_S), _MOST_S)


# --- the time: so that one of t nodes, or t - 1, can say what they like -----------------------------------------------

#: Nodes agree if their clocks are no further apart, in seconds; and less than the second is nothing to speak of.
_AGREE_S = 10.0
_RIGHT_S = 5.0

#: An answer that took longer says too little about the time.
_MOST_WAITED_S = 5.0

#: If the clock has gained so much on the monotonic one, in seconds, it was set, or the machine was asleep: nobody can tell,
#: and an earlier answer says nothing. If it has lost, it was set back, and is so much more behind.
_JUMP_S = 1.0


@frozen(eq=False, repr=False)
class _Sample:
    skew_s: float
    ahead_s: float  # the clock's lead over the monotonic one


@define(eq=False, repr=False)
class NetworkClock:
    """The wall clock, and what the nodes say of it."""

    wall: Clock
    _monotonic: Callable[[], float] = time.monotonic
    _samples: dict[OperatorAddress, _Sample] = field(factory=dict, init=False)
    #: The clock's lead over the monotonic one when every node's time was its own; None if some node's was not.
    _right_at_s: float | None = field(default=None, init=False)

    def note(self, operator: OperatorAddress, node_time: float, *, waited_s: float) -> None:
        """Note a node's time, in Unix seconds, from an answer that took so long."""
        now = self.wall()
        if waited_s <= _MOST_WAITED_S:
            skew_s = node_time - (now - waited_s / 2)
            self._samples[operator] = _Sample(skew_s, now - self._monotonic())
            is_right = all(abs(sample.skew_s) <= _RIGHT_S for sample in self._samples.values())
            self._right_at_s = self._samples[operator].ahead_s if is_right else None

    def is_known(self, t: int) -> bool:
        """Whether t nodes have told the time, and the clock has not jumped since."""
        if len(self._samples) < t:
            return False
        ahead_s = self.wall() - self._monotonic()
        if self._right_at_s is not None and abs(ahead_s - self._right_at_s) <= _JUMP_S:
            return True
        return sum(abs(ahead_s - sample.ahead_s) <= _JUMP_S for sample in self._samples.values()) >= t

    def skew(self, t: int) -> ClockSkew | None:
        """Return the skew that t nodes agree on, one of whom is honest; None if there is none."""
        if not self._samples:
            return None
        ahead_s = self.wall() - self._monotonic()
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
        return self.wall() + self.correction_s(t)

"""The health of one node: averages, rests, probes; the clock moves only when told to."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dan_async.errors import InvalidFieldError
from dan_async.nodes import RestPolicy
from dan_async.nodes.health import Asked, HealthRecord
from tests.helpers import ManualClock


@define
class Watched:
    """A record, its clock and what it told."""

    clock: ManualClock = field(factory=ManualClock)
    told: list[str] = field(factory=list)
    record: HealthRecord = field(init=False)

    def __attrs_post_init__(self) -> None:
        policy = RestPolicy(first_s=1, longest_s=60, clock=self.clock, random=lambda: 1.0)
        self.record = HealthRecord(policy, on_change=self.told.append)

    def fail(self, **options: Any) -> None:
        self.record.failed(self.record.begin(), **options)

    def answer(self, seconds: float = 0.0, **options: Any) -> None:
        asked = self.record.begin()
        self.clock.advance(seconds)
        self.record.succeeded(asked, **options)


@pytest.fixture
def node() -> Watched:
    return Watched()


def test_a_new_node_is_live(node: Watched) -> None:
    """Nothing is known, nothing speaks against it."""
    assert (node.record.state, node.record.failures, node.record.latency_s) == ("live", 0, None)
    assert node.record.rests_for_s == 0


def test_the_average_moves_by_a_fifth(node: Watched) -> None:
    """The first latency is the average; each further one moves it by a fifth of the difference."""
    node.answer(1.0)
    assert node.record.latency_s == pytest.approx(1.0)
    node.answer(2.0)
    assert node.record.latency_s == pytest.approx(1.2)


def test_what_depends_on_others_is_not_timed(node: Watched) -> None:
    """A key generation takes as long as the slowest node: it leaves the average alone."""
    node.answer(1.0)
    node.answer(9.0, is_timed=False)
    asked = node.record.begin()
    node.clock.advance(9)
    node.record.gave_up(asked, is_timed=False)
    assert node.record.latency_s == pytest.approx(1.0)


def test_rests_double_up_to_the_cap(node: Watched) -> None:
    """1, 2, 4, … 60, 60 seconds."""
    rests = []
    for _ in range(9):
        node.fail()
        rests.append(node.record.rests_for_s)
        node.clock.advance(node.record.rests_for_s)
    assert rests == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])


def test_a_node_may_ask_for_a_longer_rest(node: Watched) -> None:
    """Retry-After counts where it is longer."""
    node.fail(least_rest_s=7)
    assert node.record.rests_for_s == pytest.approx(7)


def test_a_busy_node_is_live_and_comes_after_those_that_are_not(node: Watched) -> None:
    """To ask for a pause is no failure, and no word of it is reported; for so long the others come first."""
    other = Watched(node.clock)
    other.answer(1.0)
    node.record.busy(node.record.begin(), 7)
    assert (node.record.state, node.record.failures, node.record.rests_for_s, node.told) == ("live", 0, 0, [])
    assert node.record.rank > other.record.rank
    node.clock.advance(7)
    assert node.record.rank < other.record.rank


def test_a_success_clears_the_record(node: Watched) -> None:
    """One right answer, even in the middle of a rest: it is live again, and the next rest is short."""
    node.fail()
    node.fail()
    node.answer()
    assert (node.record.state, node.record.failures, node.record.rests_for_s) == ("live", 0, 0)
    node.fail()
    assert node.record.rests_for_s == pytest.approx(1)
    assert node.told == ["resting", "resting", "live", "resting"]


def test_one_outage_is_one_failure(node: Watched) -> None:
    """A hundred requests that were in flight when the node went down do not send it to rest for an hour."""
    in_flight = [node.record.begin() for _ in range(100)]
    for asked in in_flight:
        node.record.failed(asked)
    assert (node.record.failures, node.told) == (1, ["resting"])
    assert node.record.rests_for_s == pytest.approx(1)


def test_an_old_failure_does_not_undo_a_newer_success(node: Watched) -> None:
    """What was asked before the node was found to be back says nothing about now."""
    slow = node.record.begin()
    node.fail()
    node.answer()
    node.record.failed(slow)
    assert node.record.state == "live"


def test_a_rested_node_is_probed_by_one_request(node: Watched) -> None:
    """The first request after the rest is the probe; while it is under way there is no second one."""
    node.fail()
    assert not node.record.is_due
    node.clock.advance(1)
    assert node.record.is_due
    probe = node.record.begin()
    assert (node.record.state, node.record.is_due) == ("probing", False)
    node.record.begin()
    node.record.succeeded(probe)
    assert node.told == ["resting", "probing", "live"]


def test_a_failed_probe_rests_for_longer(node: Watched) -> None:
    """Twice as long as before."""
    node.fail()
    node.clock.advance(1)
    node.fail()
    assert node.record.state == "resting"
    assert node.record.rests_for_s == pytest.approx(2)


def test_a_probe_that_is_given_up_proves_nothing(node: Watched) -> None:
    """It counts neither way, and the next request is the probe."""
    node.fail()
    node.clock.advance(1)
    node.record.gave_up(node.record.begin())
    assert (node.record.state, node.record.failures, node.record.is_due) == ("resting", 1, True)


def test_giving_up_shows_that_it_takes_longer(node: Watched) -> None:
    """A node that was not waited for is at least as slow as that; giving up early says nothing."""
    node.answer(1.0)
    for seconds in (0.1, 6.0):
        asked = node.record.begin()
        node.clock.advance(seconds)
        node.record.gave_up(asked)
    assert node.record.latency_s == pytest.approx(2.0)


def test_looking_does_not_cut_a_rest_short(node: Watched) -> None:
    """Somebody who watches a node that fails at its work does not bring it back by that."""
    node.fail()
    node.record.succeeded(node.record.begin(is_look=True))
    assert node.record.state == "resting"


def test_looking_does_not_make_a_rest_longer(node: Watched) -> None:
    """Watching a dead node once a second does not send it to rest for a minute; but it is noticed that it died."""
    for _ in range(5):
        node.record.failed(node.record.begin(is_look=True))
    assert (node.record.failures, node.record.rests_for_s) == (1, pytest.approx(1))


def test_a_look_after_the_rest_is_a_probe(node: Watched) -> None:
    """Then its answer counts."""
    node.fail()
    node.clock.advance(1)
    node.record.succeeded(node.record.begin(is_look=True))
    assert node.record.state == "live"


def test_misbehaviour_that_shows_later_counts(node: Watched) -> None:
    """Blame by the others, an acknowledgement that failed a check: the node rests."""
    node.answer()
    node.record.misbehaved()
    assert (node.record.state, node.record.failures) == ("resting", 1)


def test_a_laggard_is_listened_to_once_in_sixteen_times(node: Watched) -> None:
    """After two late acknowledgements in a row, until one comes in time again."""
    for _ in range(2):
        assert node.record.is_worth_the_grace
        node.record.acknowledged(in_time=False)
    listened = []
    for _ in range(32):
        node.record.keygens += 1
        listened.append(node.record.is_worth_the_grace)
    assert listened.count(True) == 2
    node.record.keygens += 1
    assert not node.record.is_worth_the_grace
    node.record.acknowledged(in_time=True)
    assert node.record.is_worth_the_grace


@given(failures=st.integers(1, 10_000), chance=st.floats(0, 1), least=st.floats(0, 100))
def test_the_formula_of_rests(failures: int, chance: float, least: float) -> None:
    """Between half and all of min(cap, first · 2^(k−1)), unless the node asked for more."""
    policy = RestPolicy(first_s=0.5, longest_s=30, random=lambda: chance)
    whole = min(30, 0.5 * 2.0 ** min(failures - 1, 100))
    rest = policy.rest_s(failures, least=least)
    assert rest == least or whole / 2 <= rest <= whole
    assert rest >= least


@pytest.mark.parametrize("name", ["first_s", "longest_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", None, True])
def test_wrong_rests(name: str, value: Any) -> None:
    """Named when they are made, not when they are used."""
    with pytest.raises(InvalidFieldError, match=name):
        RestPolicy(**{name: value})


class HealthMachine(RuleBasedStateMachine):
    """Requests that begin, end and are given up in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.watched = Watched()
        self.record = self.watched.record
        self.under_way: list[tuple[Asked, bool]] = []
        self.begun = 0

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.watched.clock.advance(seconds)

    @rule(is_look=st.booleans())
    def begin(self, is_look: bool) -> None:
        was_due = self.record.is_due
        self.under_way.append((self.record.begin(is_look=is_look), was_due))
        self.begun += 1

    def _take(self, data: Any) -> tuple[Asked, bool]:
        return self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def succeed(self, data: Any) -> None:
        asked, _ = self._take(data)
        self.record.succeeded(asked)
        assert not asked.is_proof or self.record.state == "live"

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def fail(self, data: Any) -> None:
        asked, was_probe = self._take(data)
        before = self.record.failures
        self.record.failed(asked)
        assert self.record.failures - before in {0, 1}
        if was_probe and self.record.failures > before:
            assert self.record.rests_for_s > 0

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def give_up(self, data: Any) -> None:
        before = self.record.failures
        self.record.gave_up(self._take(data)[0])
        assert self.record.failures == before

    @invariant()
    def it_makes_sense(self) -> None:
        record = self.record
        assert (record.state == "live") == (record.failures == 0)
        assert record.requests == self.begun
        assert 0 <= record.rests_for_s <= 60
        assert not (record.is_due and record.state != "resting")
        assert record.rank[0] == (0 if record.state == "live" else 1 if record.is_due else 2)
        if self.watched.told:
            assert self.watched.told[-1] == record.state


TestHealthMachine = HealthMachine.TestCase


# --- suspicion --------------------------------------------------------------------------------------------------------


def test_suspicion_adds_up_to_a_limit_and_halves_every_minute(node: Watched) -> None:
    """However often a node is suspected, some minutes later nothing is left of it."""
    node.record.suspect(0.5)
    node.record.suspect(1.0)
    assert node.record.suspicion == 1.5
    node.clock.advance(60)
    assert node.record.suspicion == 0.75
    for _ in range(100):
        node.record.suspect(1.0)
    assert node.record.suspicion == 8.0
    node.clock.advance(6 * 60)
    assert node.record.suspicion == 0.125
    node.clock.advance(1)
    assert node.record.suspicion == 0.0


def test_who_has_helped_to_sign_is_trusted_again(node: Watched) -> None:
    """A fourth is left: an honest node that a liar accused is soon as good as before."""
    node.record.suspect(1.0)
    node.record.trust()
    assert node.record.suspicion == 0.25
    node.record.trust()
    assert node.record.suspicion == 0.0


def test_suspicion_orders_signers_only(node: Watched) -> None:
    """A node that is suspected rests for nobody, and ranks where it did."""
    before = node.record.rank
    node.record.suspect(8.0)
    assert (node.record.rank, node.record.state, node.told) == (before, "live", [])

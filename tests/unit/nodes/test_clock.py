"""The skew that nodes agree on: no minority moves it, and a clock that was set makes it void."""

from __future__ import annotations

import pytest

from dan_async.network import ClockSkew, MeasuresClock
from dan_async.nodes import NodeNetwork
from dan_async.nodes.health import NetworkClock
from tests.fake_nodes import FakeNetwork
from tests.helpers import ManualClock


class Watches:
    """This machine's two clocks, and the nodes' one."""

    def __init__(self, behind: float = 0.0) -> None:
        self.true, self.monotonic = ManualClock(1_800_000_000.0), ManualClock(500.0)
        self.wall = ManualClock(self.true.now - behind)
        self.clock = NetworkClock(self.wall, self.monotonic)

    def pass_by(self, seconds: float) -> None:
        for clock in (self.true, self.monotonic, self.wall):
            clock.advance(seconds)

    def hear(self, *offs: float, waited_s: float = 0.0) -> None:
        """Each node says its time, which is so much off."""
        for i, off in enumerate(offs):
            self.clock.note(f"0x{i}", self.true() + off, waited_s=waited_s)


def test_nothing_is_known_before_t_nodes_have_said_the_same():
    """One node's word is none."""
    watches = Watches(behind=240)
    assert watches.clock.skew(2) is None
    watches.hear(0)
    assert watches.clock.skew(2) is None
    assert watches.clock.now(2) == watches.wall()
    watches.hear(0, 0.5)
    assert watches.clock.now(2) == pytest.approx(watches.true(), abs=1)


@pytest.mark.parametrize("lie", [-1e9, -600, -20, 20, 600, 1e9])
@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("behind", [0, 240, -240])
def test_t_minus_1_liars_move_nothing(lie, place, behind):
    """3 of 5: two say the same lie, or each another one, and the others are a little apart."""
    for second in (lie, -lie, 0.0):
        offs = [0.4, -0.3, 0.1, 0.0]
        offs[place % 4] = second
        offs.insert(place, lie)
        watches = Watches(behind=behind)
        watches.hear(*offs)
        assert watches.clock.now(3) == pytest.approx(watches.true(), abs=1)


@pytest.mark.parametrize("behind", [-1.0, 4.9])
def test_a_clock_that_is_right_is_left_alone(behind):
    """A few seconds matter to nobody, and are no news."""
    watches = Watches(behind=behind)
    watches.hear(0, 0, 0)
    assert watches.clock.skew(2) is None
    assert watches.clock.now(2) == watches.wall()


def test_half_of_the_wait_is_taken_off_and_a_long_one_says_nothing():
    """The node looked at its clock somewhere in between."""
    watches = Watches(behind=60)
    watches.hear(-2.0, -2.0, waited_s=4.0)
    skew = watches.clock.skew(2)
    assert skew is not None
    assert skew.seconds == pytest.approx(60)
    slow = Watches(behind=60)
    slow.hear(0, 0, waited_s=6.0)
    assert slow.clock.skew(2) is None


@pytest.mark.parametrize("jump", [-3600, -500, -2])
def test_a_clock_that_is_set_back_is_so_much_more_behind(jump):
    """The monotonic clock shows by how much."""
    watches = Watches(behind=240)
    watches.hear(0, 0, 0)
    watches.pass_by(1000)
    watches.wall.advance(jump)
    skew = watches.clock.skew(2)
    assert skew is not None
    assert skew.seconds == 240 - jump


@pytest.mark.parametrize("jump", [2, 30, 3600])
def test_a_clock_that_jumps_ahead_makes_the_measurement_void(jump):
    """It was set, or the machine was asleep: what was measured holds no more, what is new does."""
    watches = Watches(behind=240)
    watches.hear(0, 0, 0)
    watches.pass_by(1000)
    assert watches.clock.now(2) == watches.true()
    watches.wall.advance(jump)
    assert watches.clock.skew(2) is None
    watches.hear(0, 0)
    skew = watches.clock.skew(2)
    assert skew is not None
    assert skew.seconds == 240 - jump
    assert skew.asked == 2


def test_more_than_a_quarter_of_an_hour_is_only_reported():
    """Something else is wrong then: the clock has to be set."""
    watches = Watches(behind=901)
    watches.hear(0, 0)
    assert str(watches.clock.skew(2)).startswith("This machine's clock is 15 minutes behind 2 of 2 nodes")
    assert watches.clock.now(2) == watches.wall()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (7, "7 seconds behind"),
        (-119, "119 seconds ahead of"),
        (240, "4 minutes behind"),
        (-9000, "2 hours ahead of"),
        (864_000, "10 days behind"),
    ],
)
def test_in_words(seconds, words):
    """For the hint of an error."""
    assert f"clock is {words} 3 of 5 nodes; set it" in str(ClockSkew(seconds=seconds, agreeing=3, asked=5))


async def test_a_network_of_nodes_measures_the_clock():
    """A job asks any network that does."""
    network = FakeNetwork(2, 3).network()
    assert isinstance(network, NodeNetwork)
    assert isinstance(network, MeasuresClock)
    assert network.clock_skew(2) is None
    await network.aclose()

"""The stock of presignatures: as many as are used, short-lived, each given out once."""

from __future__ import annotations

import pytest

from dan_async.errors import InvalidFieldError
from dan_async.nodes import SigningOptions
from dan_async.nodes.signing import PresignStock, StockedPresignature
from dan_async.protocols.node import PresignatureOffer

HERE = ("key", "ephemeral")


class Clock:
    """Monotonic seconds that the test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def stock(clock):
    return PresignStock(2, clock=clock)


def entry(name, signers=("a", "b"), ends=45.0):
    offer = PresignatureOffer(
        presignature_id=bytes([name]) * 32,
        nonce_point=bytes(33),
        public_key=bytes(33),
        commitment=bytes(32),
        expires_at=0,
    )
    return StockedPresignature(offers=dict.fromkeys(signers, offer), signers=signers, ends=ends)


def _name(entry):
    return entry.offers["a"].presignature_id[0]


def put(stock, *entries):
    """Use the session until it has a stock, then put something in."""
    for _ in entries:
        stock.used(HERE, 1)
    for one in entries:
        assert stock.order(HERE)
        stock.arrived(HERE, one)


def take(stock, count=1, usable=lambda signers: True):
    return stock.take(HERE, count, usable=usable)


def test_nothing_is_made_for_a_session_that_has_not_signed(stock):
    """It may never sign."""
    assert not stock.order(HERE)


def test_one_is_made_after_the_first_signature(stock):
    """So that the second one is one round trip."""
    stock.used(HERE, 1)
    assert [stock.order(HERE) for _ in range(2)] == [True, False]


def test_the_stock_grows_with_each_signature_that_found_none(clock):
    """And stays for those that found one; never above the most."""
    stock = PresignStock(4, clock=clock)
    stock.used(HERE, 1)
    assert [stock.order(HERE) for _ in range(2)] == [True, False]
    stock.used(HERE, 1, was_stocked=True)
    assert not stock.order(HERE)
    stock.used(HERE, 1)
    stock.used(HERE, 1)
    assert [stock.order(HERE) for _ in range(3)] == [True, True, False]
    stock.used(HERE, 30)
    assert [stock.order(HERE) for _ in range(2)] == [True, False]


def test_a_burst_that_comes_again_is_met(clock):
    """Ten at once, with a pause between: none of the second ten makes its own."""
    stock = PresignStock(16, clock=clock)
    for burst in range(2):
        found = [bool(take(stock)) for _ in range(10)]
        for was_stocked in found:
            stock.used(HERE, 1, was_stocked=was_stocked)
        while stock.order(HERE):
            stock.arrived(HERE, entry(1, ends=clock.now + 45.0))
        assert found.count(True) == 10 * burst
        clock.now += 20.0


def test_the_stock_shrinks_with_each_that_expired(stock, clock):
    """A slower session keeps fewer, and one at least while it signs."""
    put(stock, entry(1, ends=10.0), entry(2, ends=10.0))
    clock.now = 30.0
    assert take(stock) == []
    stock.used(HERE, 1, was_stocked=True)
    assert [stock.order(HERE) for _ in range(2)] == [True, False]


def test_use_long_ago_does_not_count(stock, clock):
    """A minute later a session begins anew."""
    stock.used(HERE, 2)
    clock.now = 60.0
    stock.used(HERE, 1)
    assert [stock.order(HERE) for _ in range(2)] == [True, False]


def test_what_it_costs_is_counted(stock, clock):
    """Made, used, and thrown away: those that expired or came too late, and those of signers that may not be asked."""
    put(stock, entry(1, ends=10.0), entry(2, ends=100.0))
    assert len(take(stock)) == 1
    clock.now = 60.0
    assert len(take(stock)) == 1
    stock.used(HERE, 1)
    assert stock.order(HERE)
    stock.clear()
    stock.arrived(HERE, entry(3))
    assert (stock.made, stock.used_up, stock.wasted) == (3, 2, 1)


def test_a_stock_of_zero_orders_nothing(clock):
    """However much it is used."""
    stock = PresignStock(0, clock=clock)
    stock.used(HERE, 10)
    assert not stock.order(HERE)


def test_what_could_not_be_made_is_ordered_again(stock):
    """The next time."""
    stock.used(HERE, 2)
    assert stock.order(HERE)
    stock.arrived(HERE, None)
    assert stock.order(HERE)


def test_each_is_given_out_once(stock):
    """The oldest first."""
    put(stock, entry(1), entry(2))
    assert [_name(one) for one in take(stock)] == [1]
    assert [_name(one) for one in take(stock)] == [2]
    assert take(stock) == []


def test_nothing_is_given_out_after_its_end(stock, clock):
    """And it is gone then."""
    put(stock, entry(1, ends=10.0))
    clock.now = 10.0
    assert take(stock) == []
    assert len(stock) == 0


def test_signers_that_may_not_be_asked_are_thrown_away(stock):
    """The others stay."""
    put(stock, entry(1, ("a", "b")), entry(2, ("a", "c")))
    (found,) = take(stock, usable=lambda signers: "b" not in signers)
    assert found.signers == ("a", "c")
    assert len(stock) == 0


def test_several_are_of_one_set_or_none(stock):
    """A request with several messages has one set of signers."""
    put(stock, entry(1, ("a", "b")), entry(2, ("a", "c")))
    assert take(stock, 2) == []
    assert len(take(stock, 1)) == 1


def test_sessions_are_apart(stock):
    """Presignatures belong to a key and an ephemeral key."""
    put(stock, entry(1))
    assert stock.take(("key", "other"), 1, usable=lambda signers: True) == []


def test_a_dropped_session_has_nothing(stock):
    """And gets new ones."""
    put(stock, entry(1), entry(2))
    stock.drop(HERE)
    assert take(stock) == []
    assert stock.order(HERE)


def test_nothing_arrives_after_clearing(stock):
    """A network that is closed keeps nothing."""
    stock.used(HERE, 2)
    assert stock.order(HERE)
    stock.clear()
    stock.arrived(HERE, entry(1))
    assert len(stock) == 0


def test_only_so_many_sessions_are_remembered(stock):
    """The one that signed longest ago is forgotten."""
    put(stock, entry(1))
    for i in range(1024):
        stock.used(("key", i), 1)
    assert take(stock) == []


@pytest.mark.parametrize(
    "options",
    [{"stock": -1}, {"stock": 33}, {"stock": 1.0}, {"stock": True}, {"stock_s": 0}, {"stock_s": 301}],
)
def test_wrong_options_are_refused(options):
    """By name."""
    with pytest.raises(InvalidFieldError, match="stock"):
        SigningOptions(**options)


def test_an_order_of_a_session_that_was_forgotten_leaves_no_extra_place(stock):
    """What arrives for it is not kept, and the session, when it comes again, has as many as ever."""
    stock.used(HERE, 1)
    assert stock.order(HERE)
    stock.clear()
    stock.used(HERE, 1)
    stock.arrived(HERE, entry(1))
    assert len(stock) == 0
    assert [stock.order(HERE) for _ in range(2)] == [True, False]

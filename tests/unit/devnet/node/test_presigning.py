"""The presignatures that a node keeps ready."""

from __future__ import annotations

import itertools

import pytest

from dan_async.devnet.mpc.aborts import ProtocolStateError
from dan_async.devnet.mpc.threshold_ecdsa import Presignature
from dan_async.devnet.node.rpc import RefusalError
from dan_async.devnet.node.signing import PresignatureStock, StockedPresignature
from dan_async.errors import NodeCode
from tests.helpers import ManualClock

OWNER = ("aa" * 32, "eph")
OTHER = ("aa" * 32, "other")
SIGNERS = ("0xA", "0xB")
NUMBERS = itertools.count(1)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def stock(clock):
    return PresignatureStock(most=3, clock=clock)


def presignature():
    return Presignature(
        id=next(NUMBERS).to_bytes(32, "big"),
        signers=(1, 2),
        operators=SIGNERS,
        public_key=b"\x02" * 33,
        nonce_point=b"\x03" * 33,
        commitments=b"",
        secrets=[(1, 2, 3)],
        pairs={},
    )


def put(stock, clock, *, owner=OWNER, lifetime=60):
    made = StockedPresignature(
        presignature=presignature(), owner=owner, signers=SIGNERS, expires_at=clock() + lifetime
    )
    stock.add(made)
    return made


def find(stock, made, *, owner=OWNER, signers=SIGNERS):
    return stock.find(made.name, owner=owner, signers=signers)


def code_of(action, *arguments, **options):
    with pytest.raises(RefusalError) as caught:
        action(*arguments, **options)
    return caught.value.code


def test_what_is_taken_is_gone(stock, clock):
    """The second one who asks is told that it was used."""
    made = put(stock, clock)
    assert find(stock, made) is made
    assert stock.take(made) is made.presignature
    assert code_of(find, stock, made) == NodeCode.PRESIGNATURE_SPENT
    assert len(stock) == 0


@pytest.mark.parametrize("change", [{"owner": OTHER}, {"signers": ("0xA", "0xC")}, {"signers": SIGNERS[:1]}])
def test_it_is_for_one_ephemeral_key_and_one_set_of_signers(stock, clock, change):
    """Anybody else's request does not even learn that it is there."""
    made = put(stock, clock)
    assert code_of(find, stock, made, **change) == NodeCode.PRESIGNATURE_UNKNOWN
    assert find(stock, made) is made


def test_it_expires_to_the_second(stock, clock):
    """In the order of their ends, whatever the order of their making; what has expired can sign no more."""
    late, early = put(stock, clock, lifetime=60), put(stock, clock, lifetime=10)
    clock.advance(9.9)
    assert len(stock) == 2
    clock.advance(0.1)
    assert code_of(find, stock, early) == NodeCode.PRESIGNATURE_UNKNOWN
    with pytest.raises(ProtocolStateError):
        early.presignature.sign(bytes(32))
    assert find(stock, late) is late
    clock.advance(50)
    assert code_of(find, stock, late) == NodeCode.PRESIGNATURE_UNKNOWN


def test_a_new_one_takes_the_place_of_the_oldest(stock, clock):
    """Presignatures that nobody came back for keep no signature from being made. Another ephemeral key has its own."""
    other = put(stock, clock, owner=OTHER)
    first, second, third, fourth = (put(stock, clock, lifetime=60 - i) for i in range(4))
    assert code_of(find, stock, first) == NodeCode.PRESIGNATURE_UNKNOWN
    with pytest.raises(ProtocolStateError):
        first.presignature.sign(bytes(32))
    assert all(find(stock, made) is made for made in (second, third, fourth))
    assert find(stock, other, owner=OTHER) is other
    stock.take(third)
    fifth = put(stock, clock)
    assert find(stock, second) is second
    assert find(stock, fifth) is fifth


def test_so_many_are_made_at_a_time(stock, clock):
    """More are refused, for as long as none of them has ended; those that are ready do not count."""
    for _ in range(3):
        put(stock, clock)
    with stock.making(OWNER), stock.making(OWNER):
        with stock.making(OWNER):
            assert code_of(stock.making(OWNER).__enter__) == NodeCode.RATE_LIMITED
            with stock.making(OTHER):
                pass
        with pytest.raises(ValueError, match="no"), stock.making(OWNER):
            raise ValueError("no")
        with stock.making(OWNER):
            pass


def test_discarding_is_for_one_ephemeral_key(stock, clock):
    """What is thrown away can sign no more."""
    mine, others = put(stock, clock), put(stock, clock, owner=OTHER)
    stock.discard(*OWNER)
    assert code_of(find, stock, mine) == NodeCode.PRESIGNATURE_UNKNOWN
    with pytest.raises(ProtocolStateError):
        mine.presignature.sign(bytes(32))
    assert find(stock, others, owner=OTHER) is others
    stock.clear()
    assert len(stock) == 0

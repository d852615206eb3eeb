"""What a node remembers of settled requests: nothing is forgotten before its time, and nobody fills it alone."""

from __future__ import annotations

import pytest

from dan_async.devnet.node.keygen import _Settled
from dan_async.devnet.node.rpc import RefusalError
from dan_async.errors import NodeCode
from dan_async.protocols.node import restarted_request_id
from tests.helpers import ManualClock

KEY, OTHER = b"one key", b"another"


def request(number):
    return f"0x{number:064x}"


def test_a_request_is_settled_with_its_new_starts_and_for_its_key_only():
    """A stranger's question settles nothing of anybody else."""
    settled = _Settled(8, ManualClock())
    settled.put(KEY, request(1), "here")
    assert settled.covers(KEY, request(1))
    assert settled.covers(KEY, restarted_request_id(request(1), 32))
    assert not settled.covers(OTHER, request(1))
    assert not settled.covers(KEY, request(2))


def test_no_address_takes_more_than_a_quarter_and_nothing_is_pushed_out():
    """Whoever asks too much is refused, for as long as the oldest is remembered; the same question again takes no place."""
    clock = ManualClock()
    settled = _Settled(8, clock)
    settled.put(KEY, request(1), "here")
    settled.put(KEY, request(2), "here")
    with pytest.raises(RefusalError) as caught:
        settled.put(KEY, request(3), "here")
    assert (caught.value.code, caught.value.data) == (NodeCode.RATE_LIMITED, {"retryAfter": 3600})
    settled.put(KEY, request(3), "there")
    settled.put(KEY, request(4), "there")
    settled.put(KEY, request(1), "there")  # a full address may ask again, also for what another has settled
    assert all(settled.covers(KEY, request(number)) for number in (1, 2, 3, 4))


def test_a_full_store_refuses_everybody():
    """Addresses are cheap; then no answer is given that might become untrue."""
    settled = _Settled(4, ManualClock())
    for number in range(4):
        settled.put(KEY, request(number), f"address {number}")
    with pytest.raises(RefusalError):
        settled.put(KEY, request(4), "address 4")
    assert all(settled.covers(KEY, request(number)) for number in range(4))


def test_after_its_time_it_makes_place():
    """An hour; asked again, it counts from then."""
    clock = ManualClock()
    settled = _Settled(4, clock)
    settled.put(KEY, request(1), "here")
    clock.advance(3000)
    settled.put(KEY, request(1), "here")
    clock.advance(3000)
    assert settled.covers(KEY, request(1))
    clock.advance(600)
    assert not settled.covers(KEY, request(1))
    settled.put(OTHER, request(2), "here")
    assert (len(settled._entries), len(settled._by_key), dict(settled._by_address)) == (1, 1, {"here": 1})

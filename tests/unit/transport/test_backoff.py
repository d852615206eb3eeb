"""Waits between attempts to connect."""

from __future__ import annotations

import pytest

from dan_async.transport.websocket import STABLE_S, Backoff
from tests.helpers import ManualClock


def _backoff(clock, random=1.0):
    return Backoff(first_wait_s=0.1, longest_wait_s=2.0, clock=clock, random=lambda: random)


def test_first_attempt_is_due_at_once():
    """Nothing has failed yet."""
    assert _backoff(ManualClock()).remaining() == 0.0


def test_waits_double_up_to_the_longest():
    """0.1, 0.2, 0.4 … and never more than 2 seconds, however often it fails."""
    backoff = _backoff(ManualClock(0))
    waits = []
    for _ in range(2000):
        backoff.attempt_failed()
        waits.append(backoff.remaining())
    assert waits[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0])
    assert set(waits[6:]) == {2.0}


def test_jitter_halves_the_wait_at_most():
    """With the random number at 0 the wait is half as long."""
    backoff = _backoff(ManualClock(0), random=0.0)
    backoff.attempt_failed()
    assert backoff.remaining() == pytest.approx(0.05)


def test_time_that_has_passed_counts():
    """After a pause the next attempt is due at once."""
    clock = ManualClock(0)
    backoff = _backoff(clock)
    backoff.attempt_failed()
    clock.advance(0.06)
    assert backoff.remaining() == pytest.approx(0.04)
    clock.advance(1)
    assert backoff.remaining() == 0.0


def test_retry_after_lengthens_the_wait():
    """What the peer asked for wins if it is longer."""
    backoff = _backoff(ManualClock(0))
    backoff.attempt_failed(retry_after=7.0)
    assert backoff.remaining() == pytest.approx(7.0)


def test_what_the_peer_asks_for_can_be_capped():
    """Nobody is sent away for hours."""
    backoff = Backoff(clock=ManualClock(0), random=lambda: 1.0, longest_retry_after_s=3.0)
    backoff.attempt_failed(retry_after=7200.0)
    assert backoff.remaining() == pytest.approx(3.0)
    backoff.attempt_failed(retry_after=1.0)
    assert backoff.remaining() == pytest.approx(1.0)


def test_good_connection_forgets_earlier_failures():
    """The loss of a connection that lived for a while begins at the shortest wait again."""
    clock = ManualClock(0)
    backoff = _backoff(clock)
    for _ in range(5):
        backoff.attempt_failed()
    backoff.connection_lost(opened_at=clock.now, lost_at=clock.now + STABLE_S)
    assert backoff.remaining() == pytest.approx(STABLE_S + 0.1)


def test_short_lived_connections_count_as_failures():
    """A peer that accepts and drops is not hammered."""
    backoff = _backoff(ManualClock(0))
    for _ in range(3):
        backoff.connection_lost(opened_at=0, lost_at=0)
    assert backoff.remaining() == pytest.approx(0.4)

"""Nonces: each for one request, once, and not for long."""

from __future__ import annotations

import pytest

from dan_async.devnet.node.requests import (
    ExpiredNonceError,
    MismatchedNonceError,
    NonceBook,
    NonceBookFullError,
    UnknownNonceError,
    UsedNonceError,
)
from tests.helpers import ManualClock

REQUEST = "0x" + "11" * 32
OTHER_REQUEST = "0x" + "22" * 32
SETUP = b"\x33" * 32
PURPOSE = (REQUEST, "keygen", SETUP)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def book(clock):
    return NonceBook(clock=clock, lifetime_s=60, capacity=3)


def test_a_nonce_may_be_used_for_what_it_was_given_out_for(book):
    """The usual case: no error."""
    book.use(book.issue(*PURPOSE).nonce, *PURPOSE)


def test_a_nonce_is_used_once(book):
    """The second use is an error of its own."""
    nonce = book.issue(*PURPOSE).nonce
    book.use(nonce, *PURPOSE)
    with pytest.raises(UsedNonceError):
        book.use(nonce, *PURPOSE)


def test_checking_does_not_use_up(book):
    """A request that is refused for another reason does not cost the nonce."""
    nonce = book.issue(*PURPOSE).nonce
    book.check(nonce, *PURPOSE)
    book.use(nonce, *PURPOSE)


def test_a_nonce_of_somebody_else_is_unknown(book):
    """A nonce that this node never gave out is refused."""
    with pytest.raises(UnknownNonceError):
        book.use(bytes(32), *PURPOSE)


@pytest.mark.parametrize(
    "purpose",
    [
        (OTHER_REQUEST, "keygen", SETUP),
        (REQUEST, "signgen", SETUP),
        (REQUEST, "keygen", b"\x44" * 32),
    ],
    ids=["request", "operation", "setup"],
)
def test_a_nonce_is_bound_to_its_purpose(book, purpose):
    """Another request id, operation or setup hash is refused, and the nonce stays good for its own."""
    nonce = book.issue(*PURPOSE).nonce
    with pytest.raises(MismatchedNonceError):
        book.use(nonce, *purpose)
    book.use(nonce, *PURPOSE)


def test_a_nonce_expires_at_the_second_it_says(book, clock):
    """One moment before it is good; at expires_at it is not."""
    challenge = book.issue(*PURPOSE)
    clock.now = challenge.expires_at - 0.001
    book.check(challenge.nonce, *PURPOSE)
    clock.now = challenge.expires_at
    with pytest.raises(ExpiredNonceError):
        book.use(challenge.nonce, *PURPOSE)


def test_an_expired_nonce_is_forgotten_in_the_end(book, clock):
    """For as long again it is known as expired; then it is unknown, which is refused as well."""
    nonce = book.issue(*PURPOSE).nonce
    clock.advance(120)
    book.issue(*PURPOSE)
    with pytest.raises(UnknownNonceError):
        book.use(nonce, *PURPOSE)
    assert len(book) == 1


def test_a_full_book_refuses_and_keeps_what_it_has(book):
    """A flood of challenges cannot push out the nonce of somebody who is reading the wallet prompt."""
    first = book.issue(*PURPOSE).nonce
    book.issue(*PURPOSE)
    book.issue(*PURPOSE)
    with pytest.raises(NonceBookFullError) as caught:
        book.issue(*PURPOSE)
    assert caught.value.retry_after == pytest.approx(120)
    book.use(first, *PURPOSE)


def test_a_full_book_has_room_again_when_the_oldest_are_forgotten(book, clock):
    """Used ones count until they are forgotten."""
    for _ in range(3):
        book.use(book.issue(*PURPOSE).nonce, *PURPOSE)
    clock.advance(120)
    book.issue(*PURPOSE)
    assert len(book) == 1


def test_nonces_differ(book):
    """Two challenges for the same purpose have different nonces of 32 bytes."""
    a, b = book.issue(*PURPOSE).nonce, book.issue(*PURPOSE).nonce
    assert a != b
    assert len(a) == len(b) == 32

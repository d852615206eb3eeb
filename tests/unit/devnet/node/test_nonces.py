"""Nonces: each for one request, once, and not for long."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from dan_async.devnet.context import NodeLimits
from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.node.requests import NonceStore
from dan_async.devnet.node.rpc import RefusalError
from dan_async.devnet.share_store import MemoryShareStore
from dan_async.errors import NodeCode
from dan_async.protocols.node import ChallengeParams
from tests.helpers import ManualClock
from tests.unit.devnet.node_context import node_context

REQUEST = "0x" + "11" * 32
OTHER_REQUEST = "0x" + "22" * 32
SETUP = b"\x33" * 32
PURPOSE = (REQUEST, "keygen", SETUP)


@pytest.fixture
def clock():
    return ManualClock()


class Nonces:
    """A store of them, and the two things done with a nonce."""

    def __init__(self, clock):
        limits = NodeLimits(nonce_lifetime_s=60, max_nonces=3)
        self.store = NonceStore(node_context(clock=clock, limits=limits), KeyRing(MemoryShareStore()))

    def issue(self, request_id, operation, setup_hash):
        return self.store.issue(
            ChallengeParams(request_id=request_id, operation=operation, setup_hash=setup_hash)
        )

    def use(self, nonce, *purpose):
        with self.store.spending(nonce, *purpose):
            pass

    def check(self, nonce, *purpose):
        """Check it for a request that is then refused for another reason."""
        with pytest.raises(ZeroDivisionError), self.store.spending(nonce, *purpose):
            raise ZeroDivisionError


@pytest.fixture
def nonces(clock):
    return Nonces(clock)


@contextmanager
def refused(code, match):
    with pytest.raises(RefusalError, match=match) as caught:
        yield
    assert caught.value.code == code


def used():
    return refused(NodeCode.CHALLENGE_REUSED, "was used before")


def unknown():
    return refused(
        NodeCode.CHALLENGE_MISMATCH, "not given out by this node for this request, operation and setup"
    )


def expired():
    return refused(NodeCode.CHALLENGE_EXPIRED, "has expired")


def test_a_nonce_may_be_used_for_what_it_was_given_out_for(nonces):
    """The usual case: no error."""
    nonces.use(nonces.issue(*PURPOSE).nonce, *PURPOSE)


def test_a_nonce_is_used_once(nonces):
    """The second use is an error of its own."""
    nonce = nonces.issue(*PURPOSE).nonce
    nonces.use(nonce, *PURPOSE)
    with used():
        nonces.use(nonce, *PURPOSE)


def test_checking_does_not_use_up(nonces):
    """A request that is refused for another reason does not cost the nonce."""
    nonce = nonces.issue(*PURPOSE).nonce
    nonces.check(nonce, *PURPOSE)
    nonces.use(nonce, *PURPOSE)


def test_a_nonce_of_somebody_else_is_unknown(nonces, clock):
    """One that this node never gave out is refused, and so is one of before its restart."""
    for other in (bytes(32), Nonces(clock).issue(*PURPOSE).nonce):
        with unknown():
            nonces.use(other, *PURPOSE)


@pytest.mark.parametrize("at", range(32))
def test_no_byte_of_a_nonce_can_be_changed(nonces, at):
    """Its end least of all."""
    nonce = bytearray(nonces.issue(*PURPOSE).nonce)
    nonce[at] ^= 1
    with unknown():
        nonces.use(bytes(nonce), *PURPOSE)


@pytest.mark.parametrize(
    "purpose",
    [
        (OTHER_REQUEST, "keygen", SETUP),
        (REQUEST, "signgen", SETUP),
        (REQUEST, "keygen", b"\x44" * 32),
    ],
    ids=["request", "operation", "setup"],
)
def test_a_nonce_is_bound_to_its_purpose(nonces, purpose):
    """Another request id, operation or setup hash is refused, and the nonce stays good for its own."""
    nonce = nonces.issue(*PURPOSE).nonce
    with unknown():
        nonces.use(nonce, *purpose)
    nonces.use(nonce, *PURPOSE)


def test_a_nonce_expires_at_the_second_it_says(nonces, clock):
    """One moment before it is good; at expires_at it is not."""
    challenge = nonces.issue(*PURPOSE)
    clock.now = challenge.expires_at - 0.001
    nonces.check(challenge.nonce, *PURPOSE)
    clock.now = challenge.expires_at
    with expired():
        nonces.use(challenge.nonce, *PURPOSE)


def test_a_used_nonce_is_forgotten_when_it_has_long_expired(nonces, clock):
    """Until then it is known as used; after that it has expired."""
    nonce = nonces.issue(*PURPOSE).nonce
    nonces.use(nonce, *PURPOSE)
    clock.advance(119)
    nonces.issue(*PURPOSE)
    with used():
        nonces.use(nonce, *PURPOSE)
    clock.advance(1)
    nonces.issue(*PURPOSE)
    assert len(nonces.store) == 0
    with expired():
        nonces.use(nonce, *PURPOSE)


def test_a_flood_of_challenges_takes_no_room(nonces):
    """However many nonces are asked for, each is good, and nothing is kept of those that are not used."""
    given = [nonces.issue(*PURPOSE).nonce for _ in range(1000)]
    assert len(nonces.store) == 0
    nonces.use(given[0], *PURPOSE)
    nonces.use(given[-1], *PURPOSE)


def test_too_many_used_nonces_refuse_all_but_revocations(nonces, clock):
    """With the time until there is room: before the wallet is asked, and when it was asked already."""
    late = nonces.issue(*PURPOSE).nonce
    for _ in range(3):
        nonces.use(nonces.issue(*PURPOSE).nonce, *PURPOSE)
    for attempt in (lambda: nonces.issue(*PURPOSE), lambda: nonces.use(late, *PURPOSE)):
        with pytest.raises(RefusalError) as caught:
            attempt()
        assert caught.value.code == NodeCode.RATE_LIMITED
        assert caught.value.data["retryAfter"] == 120
    revocation = (REQUEST, "revokeEphemeralKey", SETUP)
    nonces.use(nonces.issue(*revocation).nonce, *revocation)
    assert len(nonces.store) == 3
    clock.advance(120)
    nonces.issue(*PURPOSE)
    assert len(nonces.store) == 0


def test_nonces_differ(nonces):
    """Two challenges for the same purpose have different nonces of 32 bytes."""
    a, b = nonces.issue(*PURPOSE).nonce, nonces.issue(*PURPOSE).nonce
    assert a != b
    assert len(a) == len(b) == 32

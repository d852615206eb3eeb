"""Sessions: every message to its session and round, and nothing without bound."""

from __future__ import annotations

import asyncio
import time

import pytest

from dan_async.devnet.peers.sessions import (
    Kind,
    PeerAbortError,
    PeerMessage,
    PeerSessions,
    SessionFailedError,
    SilentPeersError,
)
from tests.unit.devnet.peers.played_peers import Links

A, B, C = "0xA", "0xB", "0xC"
SESSION, OTHER = b"\x01" * 32, b"\x02" * 32


def message(body=b"x", *, session=SESSION, round_=1, kind=Kind.KEYGEN):
    return PeerMessage(kind, session, round_, body)


class Clock:
    """Goes on by itself, and may be put forward."""

    def __init__(self):
        self.ahead_s = 0.0

    def __call__(self):
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def sessions(clock):
    made = PeerSessions(Links(), early_s=10, early_bytes=1000, clock=clock)
    yield made
    await made.aclose()


def early_count(sessions):
    """How many messages wait for their session to begin."""
    return sum(len(waiting) for waiting in sessions._early.values())


def opened(sessions, peers, session_id=SESSION):
    return sessions.open(Kind.KEYGEN, session_id, peers, rounds=3)


async def test_collect_waits_for_everybody(sessions):
    """The round is complete when the last peer's message is there."""
    with opened(sessions, [A, B]) as session:
        sessions.on_message(A, message(b"a"))
        collecting = asyncio.create_task(session.receive(1, end_s=5))
        await asyncio.sleep(0)
        assert not collecting.done()
        sessions.on_message(B, message(b"b"))
        assert await collecting == {A: b"a", B: b"b"}


async def test_rounds_are_kept_apart(sessions):
    """A peer may be a round ahead."""
    with opened(sessions, [A]) as session:
        sessions.on_message(A, message(b"two", round_=2))
        sessions.on_message(A, message(b"one", round_=1))
        assert await session.receive(1, end_s=1) == {A: b"one"}
        assert await session.receive(2, end_s=1) == {A: b"two"}


async def test_silent_peers_are_named(sessions):
    """Those whose message is missing when the time is over, and no others."""
    with opened(sessions, [A, B, C]) as session:
        sessions.on_message(B, message())
        with pytest.raises(SilentPeersError) as caught:
            await session.receive(1, end_s=0.01)
        assert caught.value.peers == {A, C}


async def test_a_repeated_message_changes_nothing(sessions):
    """Links repeat messages after a break."""
    with opened(sessions, [A]) as session:
        sessions.on_message(A, message(b"same"))
        sessions.on_message(A, message(b"same"))
        assert await session.receive(1, end_s=1) == {A: b"same"}


async def test_two_different_messages_for_a_round_are_a_fault(sessions):
    """The peer is named."""
    with opened(sessions, [A, B]) as session:
        sessions.on_message(A, message(b"one"))
        sessions.on_message(A, message(b"two"))
        with pytest.raises(SessionFailedError) as caught:
            await session.receive(1, end_s=1)
        assert caught.value.culprits == (A,)
        assert caught.value.reason == "two different messages in round 1"


async def test_an_abort_ends_the_wait(sessions):
    """With what the peer said, and who else is missing."""
    with opened(sessions, [A, B, C]) as session:
        collecting = asyncio.create_task(session.receive(1, end_s=5))
        await asyncio.sleep(0)
        sessions.on_message(C, message())
        sessions.on_message(A, message(b"why", kind=Kind.ABORT, round_=Kind.KEYGEN))
        with pytest.raises(PeerAbortError) as caught:
            await collecting
        assert (caught.value.peer, caught.value.notice, caught.value.missing) == (A, b"why", {A, B})


async def test_an_abort_after_the_round_is_complete_does_not_undo_it(sessions):
    """What everybody sent has arrived; a later abort cannot take it back."""
    with opened(sessions, [A]) as session:
        sessions.on_message(A, message(b"last"))
        sessions.on_message(A, message(b"why", kind=Kind.ABORT, round_=Kind.KEYGEN))
        assert await session.receive(1, end_s=1) == {A: b"last"}


async def test_only_parties_are_listened_to(sessions):
    """A node of the roster that is no party of the session neither helps nor harms it."""
    with opened(sessions, [A]) as session:
        sessions.on_message(B, message(b"intruder"))
        sessions.on_message(B, message(b"stop", kind=Kind.ABORT, round_=Kind.KEYGEN))
        with pytest.raises(SilentPeersError):
            await session.receive(1, end_s=0.01)


async def test_kinds_of_sessions_are_kept_apart(sessions):
    """One id may be that of two sessions: neither takes the other's place, messages, aborts or mailbox."""
    sessions.on_message(A, message(b"early", kind=Kind.PAIR_SETUP))
    with opened(sessions, [A]) as keygen, sessions.open(Kind.PAIR_SETUP, SESSION, [A], rounds=2) as setup:
        sessions.on_message(A, message(b"for the key"))
        sessions.on_message(A, message(b"stop", kind=Kind.ABORT, round_=Kind.PAIR_SETUP))
        sessions.on_message(A, message(b"not yet", round_=2))
        assert await keygen.receive(1, end_s=1) == {A: b"for the key"}
        assert await setup.receive(1, end_s=1) == {A: b"early"}
        with pytest.raises(PeerAbortError):
            await setup.receive(2, end_s=1)
        assert await keygen.receive(2, end_s=1) == {A: b"not yet"}
    assert sessions.has_run(Kind.KEYGEN, SESSION)
    assert not sessions.has_run(Kind.PRESIGN, SESSION)


async def test_rounds_that_do_not_exist_are_ignored(sessions):
    """They take no room."""
    with opened(sessions, [A]) as session:
        sessions.on_message(A, message(round_=0))
        sessions.on_message(A, message(round_=4))
        assert all(not received for received in session._rounds.values())


async def test_early_messages_wait_for_their_session(sessions):
    """A peer may be told of a session before this node is."""
    sessions.on_message(A, message(b"early"))
    sessions.on_message(A, message(b"elsewhere", session=OTHER))
    with opened(sessions, [A]) as session:
        assert await session.receive(1, end_s=1) == {A: b"early"}
        assert early_count(sessions) == 1


async def test_early_messages_are_not_kept_for_ever(sessions, clock):
    """After their time they make room."""
    sessions.on_message(A, message(b"old"))
    clock.ahead_s = 10
    sessions.on_message(B, message(session=OTHER))
    assert early_count(sessions) == 1


async def test_an_early_message_is_kept_as_long_whoever_else_sent_one(sessions, clock):
    """A peer that knows of a session long before the others does not have their messages thrown away with its own."""
    sessions.on_message(A, message(b"a"))
    clock.ahead_s = 9
    sessions.on_message(B, message(b"b"))
    clock.ahead_s = 11
    sessions.on_message(A, message(session=OTHER))
    with opened(sessions, [A, B]) as session:
        assert await session.receive(1, end_s=1, awaited=[B]) == {B: b"b"}


async def test_early_messages_are_bounded_for_each_peer(sessions):
    """One peer's flood does not cost another its place."""
    for number in range(100):
        sessions.on_message(A, message(b"", session=number.to_bytes(32, "big")))
    assert early_count(sessions) == 3
    sessions.on_message(B, message(b"b"))
    assert early_count(sessions) == 4


async def test_room_for_early_messages_comes_back(sessions):
    """When the session begins, what was kept for it no longer counts."""
    for number in range(20):
        session = number.to_bytes(32, "big")
        sessions.on_message(A, message(b"y" * 500, session=session))
        assert early_count(sessions) == 1
        with opened(sessions, [A], session):
            assert early_count(sessions) == 0


async def test_late_messages_are_dropped(sessions):
    """What comes for a session that has ended is not taken for early."""
    with opened(sessions, [A]):
        pass
    sessions.on_message(A, message())
    assert early_count(sessions) == 0


async def test_a_session_is_opened_once(sessions):
    """Neither while it runs nor after it has ended: its messages would be mixed up."""
    with opened(sessions, [A]):
        with pytest.raises(ValueError, match="once"), opened(sessions, [A]):
            pass
    with pytest.raises(ValueError, match="once"), opened(sessions, [A]):
        pass


async def test_what_a_peer_could_not_be_sent_reaches_it_after_the_end(sessions, clock):
    """It would wait for a message, and take this node for silent, because their link came up a moment too late."""
    links = sessions._links
    links.up = False
    with opened(sessions, [A, B]) as session:
        session.send(1, {A: b"a", B: b"b"})
        links.up = True
        sessions.resend(B)
    sessions.resend(A)
    sessions.resend(A)
    sessions.resend(B)
    assert [(peer, sent.body) for peer, sent in links.sent] == [(B, b"b"), (A, b"a")]
    links.up = False
    with opened(sessions, [A], OTHER) as session:
        session.send(1, {A: b"old"})
    links.up = True
    clock.ahead_s = 10
    sessions.resend(A)
    assert len(links.sent) == 2

"""Mailboxes: every message to its session and round, and nothing without bound."""

from __future__ import annotations

import asyncio

import pytest

from dan_async.devnet.peers.messages import Kind, PeerMessage
from dan_async.devnet.peers.sessions import (
    ConflictingMessageError,
    Mailboxes,
    PeerAbortError,
    SilentPeersError,
)
from tests.helpers import ManualClock

A, B, C = "0xA", "0xB", "0xC"
SESSION, OTHER = b"\x01" * 32, b"\x02" * 32


def message(body=b"x", *, session=SESSION, round_=1, kind=Kind.KEYGEN):
    return PeerMessage(kind, session, round_, body)


@pytest.fixture
def clock():
    return ManualClock(0.0)


@pytest.fixture
def boxes(clock):
    return Mailboxes(early_s=10, early_bytes=1000, clock=clock)


async def test_collect_waits_for_everybody(boxes):
    """The round is complete when the last peer's message is there."""
    box = boxes.open(SESSION, [A, B], rounds=3)
    boxes.deliver(A, message(b"a"))
    collecting = asyncio.create_task(box.collect(1, timeout_s=5))
    await asyncio.sleep(0)
    assert not collecting.done()
    boxes.deliver(B, message(b"b"))
    assert await collecting == {A: b"a", B: b"b"}


async def test_rounds_are_kept_apart(boxes):
    """A peer may be a round ahead."""
    box = boxes.open(SESSION, [A], rounds=3)
    boxes.deliver(A, message(b"two", round_=2))
    boxes.deliver(A, message(b"one", round_=1))
    assert await box.collect(1, timeout_s=1) == {A: b"one"}
    assert await box.collect(2, timeout_s=1) == {A: b"two"}


async def test_silent_peers_are_named(boxes):
    """Those whose message is missing when the time is over, and no others."""
    box = boxes.open(SESSION, [A, B, C], rounds=3)
    boxes.deliver(B, message())
    with pytest.raises(SilentPeersError) as caught:
        await box.collect(1, timeout_s=0.01)
    assert caught.value.peers == {A, C}


async def test_a_repeated_message_changes_nothing(boxes):
    """Links repeat messages after a break."""
    box = boxes.open(SESSION, [A], rounds=3)
    boxes.deliver(A, message(b"same"))
    boxes.deliver(A, message(b"same"))
    assert await box.collect(1, timeout_s=1) == {A: b"same"}


async def test_two_different_messages_for_a_round_are_a_fault(boxes):
    """The peer is named."""
    box = boxes.open(SESSION, [A, B], rounds=3)
    boxes.deliver(A, message(b"one"))
    boxes.deliver(A, message(b"two"))
    with pytest.raises(ConflictingMessageError) as caught:
        await box.collect(1, timeout_s=1)
    assert caught.value.peer == A


async def test_an_abort_ends_the_wait(boxes):
    """With what the peer said, and who else is missing."""
    box = boxes.open(SESSION, [A, B, C], rounds=3)
    collecting = asyncio.create_task(box.collect(1, timeout_s=5))
    await asyncio.sleep(0)
    boxes.deliver(C, message())
    boxes.deliver(A, message(b"why", kind=Kind.ABORT, round_=0))
    with pytest.raises(PeerAbortError) as caught:
        await collecting
    assert (caught.value.peer, caught.value.notice, caught.value.missing) == (A, b"why", {A, B})


async def test_an_abort_after_the_round_is_complete_does_not_undo_it(boxes):
    """What everybody sent has arrived; a later abort cannot take it back."""
    box = boxes.open(SESSION, [A], rounds=3)
    boxes.deliver(A, message(b"last"))
    boxes.deliver(A, message(b"why", kind=Kind.ABORT, round_=0))
    assert await box.collect(1, timeout_s=1) == {A: b"last"}


async def test_only_parties_are_listened_to(boxes):
    """A node of the roster that is no party of the session neither helps nor harms it."""
    box = boxes.open(SESSION, [A], rounds=3)
    boxes.deliver(B, message(b"intruder"))
    boxes.deliver(B, message(b"stop", kind=Kind.ABORT, round_=0))
    with pytest.raises(SilentPeersError):
        await box.collect(1, timeout_s=0.01)


async def test_rounds_that_do_not_exist_are_ignored(boxes):
    """They take no room."""
    box = boxes.open(SESSION, [A], rounds=3)
    boxes.deliver(A, message(round_=0))
    boxes.deliver(A, message(round_=4))
    assert all(not received for received in box._rounds.values())


async def test_early_messages_wait_for_their_session(boxes):
    """A peer may be told of a session before this node is."""
    boxes.deliver(A, message(b"early"))
    boxes.deliver(A, message(b"elsewhere", session=OTHER))
    box = boxes.open(SESSION, [A], rounds=3)
    assert await box.collect(1, timeout_s=1) == {A: b"early"}
    assert boxes.early_count == 1


def test_early_messages_are_not_kept_for_ever(boxes, clock):
    """After their time they make room."""
    boxes.deliver(A, message(b"old"))
    clock.advance(10)
    boxes.deliver(B, message(session=OTHER))
    assert boxes.early_count == 1


def test_early_messages_are_bounded_for_each_peer(boxes):
    """One peer's flood does not cost another its place."""
    for number in range(100):
        boxes.deliver(A, message(b"", session=number.to_bytes(32, "big")))
    assert boxes.early_count == 3
    boxes.deliver(B, message(b"b"))
    assert boxes.early_count == 4


def test_room_for_early_messages_comes_back(boxes):
    """When the session begins, what was kept for it no longer counts."""
    for number in range(20):
        session = number.to_bytes(32, "big")
        boxes.deliver(A, message(b"y" * 500, session=session))
        assert boxes.early_count == 1
        boxes.close(boxes.open(session, [A], rounds=3))


def test_late_messages_are_dropped(boxes):
    """What comes for a session that has ended is not taken for early."""
    boxes.close(boxes.open(SESSION, [A], rounds=3))
    boxes.deliver(A, message())
    assert boxes.early_count == 0


def test_a_session_is_opened_once(boxes):
    """Neither while it runs nor after it has ended: its messages would be mixed up."""
    box = boxes.open(SESSION, [A], rounds=3)
    with pytest.raises(ValueError, match="once"):
        boxes.open(SESSION, [A], rounds=3)
    boxes.close(box)
    with pytest.raises(ValueError, match="once"):
        boxes.open(SESSION, [A], rounds=3)

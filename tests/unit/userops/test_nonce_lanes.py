"""Nonce lanes: keys of their own, order within, no waiting between, nothing twice."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.deadline import Deadline
from dan_async.errors import DuplicateUserOperationError, InvalidFieldError, UserOperationTimeoutError
from dan_async.userops import NonceLanes, lane_key


def soon() -> Deadline:
    """A deadline that no test comes near."""
    return Deadline(30)


class Chain:
    """Next sequence of each key, as an entry point counts it."""

    def __init__(self) -> None:
        self.next: dict[int, int] = {}
        self.asked = asyncio.Event()

    async def fetch(self, key: int, deadline: Deadline) -> int:
        """Give the next nonce."""
        self.asked.set()
        return key << 64 | self.next.get(key, 0)

    def execute(self, nonce: int) -> None:
        """Use a nonce up."""
        self.next[nonce >> 64] = (nonce & (2**64 - 1)) + 1


async def brief(_: float) -> None:
    """Wait for one turn of the loop."""
    await asyncio.sleep(0)


@given(st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_keys_differ_wherever_signer_or_name_do(a: bytes, b: bytes, name: str, other: str) -> None:
    """192 bits, the same for the same signer and name, and not for another: no text runs over into the next part."""
    assert 0 <= lane_key(a, name) < 2**192
    assert (lane_key(a, name) == lane_key(b, other)) is ((a, name) == (b, other))


def test_a_key_stays_what_it_was() -> None:
    """An agent finds its lanes again after a restart, and with a newer version of the package."""
    assert lane_key(b"agent", "buy") == 0xFA489EF54234958B917D7AC4C746E52C5654583C5FB90A9E


@pytest.mark.parametrize("name", ["x" * 257, 7, "\ud800"])
def test_a_lanes_name_is_a_text(name: object) -> None:
    """A name that cannot be hashed is refused."""
    with pytest.raises(InvalidFieldError, match="lane"):
        lane_key(b"", name)


async def test_within_a_lane_operations_follow_each_other() -> None:
    """The next turn comes when the last operation is on the chain, and has the next nonce."""
    chain = Chain()
    lanes = NonceLanes(b"a", chain.fetch, sleep=brief)
    async with lanes.turn(deadline=soon()) as first:
        first.sent = "0x01"

    async def second() -> int:
        async with lanes.turn(deadline=soon()) as turn:
            return turn.nonce

    waiting = asyncio.create_task(second())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    chain.execute(first.nonce)
    assert await waiting == first.nonce + 1


async def test_turns_do_not_overlap() -> None:
    """While one operation is being made, nobody else gets its nonce."""
    chain = Chain()
    lanes = NonceLanes(b"a", chain.fetch, sleep=brief)
    inside = 0

    async def one() -> int:
        nonlocal inside
        async with lanes.turn(deadline=soon()) as turn:
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.001)
            inside -= 1
            turn.sent = hex(turn.nonce)
            chain.execute(turn.nonce)
            return turn.nonce

    nonces = await asyncio.gather(*(one() for _ in range(10)))
    assert [nonce - nonces[0] for nonce in nonces] == list(range(10))


async def test_lanes_do_not_wait_for_each_other() -> None:
    """A turn that is held, or an operation that is waited for, concerns its own lane."""
    lanes = NonceLanes(b"a", Chain().fetch, sleep=brief)
    async with lanes.turn("one", deadline=soon()) as one, lanes.turn("two", deadline=soon()) as two:
        assert one.nonce != two.nonce


async def test_what_was_not_sent_uses_no_nonce() -> None:
    """A turn that ends without sending, or with an error, leaves the nonce to the next one."""
    lanes = NonceLanes(b"a", Chain().fetch, sleep=brief)
    async with lanes.turn(deadline=soon()) as first:
        pass
    with pytest.raises(KeyError):
        async with lanes.turn(deadline=soon()):
            raise KeyError
    async with lanes.turn(deadline=soon()) as third:
        assert third.nonce == first.nonce


async def test_an_error_after_sending_keeps_the_nonce_used() -> None:
    """An operation that may be on its way is waited for, whatever went wrong afterwards."""
    lanes = NonceLanes(b"a", Chain().fetch, sleep=brief)
    with pytest.raises(KeyError):
        async with lanes.turn(deadline=soon()) as turn:
            turn.sent = "0x01"
            raise KeyError
    with pytest.raises(UserOperationTimeoutError) as caught:
        async with lanes.turn(deadline=Deadline(0.01)):
            pass
    assert caught.value.user_operation_hash == "0x01"


async def test_others_in_the_lane_are_taken_into_account() -> None:
    """The nonce is the chain's own: whoever else used the lane is seen."""
    chain = Chain()
    lanes = NonceLanes(b"a", chain.fetch, sleep=brief)
    async with lanes.turn(deadline=soon()) as first:
        first.sent = "0x01"
    for nonce in range(first.nonce, first.nonce + 5):
        chain.execute(nonce)
    async with lanes.turn(deadline=soon()) as second:
        assert second.nonce == first.nonce + 5


async def test_a_forgotten_operation_is_replaced() -> None:
    """After forget() the next operation takes the nonce of the one that its bundler dropped."""
    lanes = NonceLanes(b"a", Chain().fetch, sleep=brief)
    async with lanes.turn(deadline=soon()) as first:
        first.sent = "0x01"
    assert not lanes.forget("another lane")
    assert not lanes.forget(user_operation_hash="0x02")
    assert lanes.forget(user_operation_hash="0x01")
    assert not lanes.forget()
    async with lanes.turn(deadline=soon()) as second:
        assert second.nonce == first.nonce


def test_an_operation_is_noted_once() -> None:
    """A second sending of the same hash is noticed, until the note is taken back."""
    lanes = NonceLanes(b"a", Chain().fetch)
    lanes.note("0x01")
    lanes.note("0x02")
    with pytest.raises(DuplicateUserOperationError) as caught:
        lanes.note("0x01")
    assert caught.value.user_operation_hash == "0x01"
    lanes.unnote("0x01")
    lanes.note("0x01")


def test_the_notes_are_bounded() -> None:
    """A program that runs for years does not keep every hash."""
    lanes = NonceLanes(b"a", Chain().fetch)
    for number in range(5000):
        lanes.note(hex(number))
    lanes.note(hex(0))
    with pytest.raises(DuplicateUserOperationError):
        lanes.note(hex(4999))

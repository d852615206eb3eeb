"""The queue in front of signing: whose turn it is, and how waiting ends."""

from __future__ import annotations

import asyncio

import pytest

from dan_async.deadline import Deadline
from dan_async.errors import DeadlineExceededError, OverloadedError
from dan_async.nodes.signing import SigningQueue
from tests.helpers import run_in_virtual_time


class Calls:
    """Calls that hold their places until they are told to end."""

    def __init__(self, queue):
        self.queue = queue
        self.begun = []
        self.open = {}
        self.tasks = {}

    async def _call(self, session, number, timeout, **options):
        deadline = Deadline(timeout, clock=asyncio.get_running_loop().time)
        with await self.queue.place(session, deadline, **options):
            self.begun.append((session, number))
            self.open[session, number] = asyncio.Event()
            await self.open[session, number].wait()

    async def start(self, session, count, *, first=0, timeout=60.0):
        for number in range(first, first + count):
            self.tasks[session, number] = asyncio.create_task(self._call(session, number, timeout))
        await self.settle()

    async def end(self, *call):
        self.open.pop(call).set()
        await self.settle()

    async def end_all(self):
        while self.open:
            await self.end(*next(iter(self.open)))
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    @staticmethod
    async def settle():
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
def calls():
    return Calls(SigningQueue(8, 100))


async def test_one_session_gets_half_of_the_places(calls):
    """The others wait, and begin in the order in which they came."""
    await calls.start("a", 7)
    assert calls.begun == [("a", i) for i in range(4)]
    await calls.end("a", 2)
    assert calls.begun[4:] == [("a", 4)]
    await calls.end_all()
    assert calls.begun == [("a", i) for i in range(7)]
    assert calls.queue.waiting == 0


async def test_a_newcomer_begins_at_once_beside_a_session_with_many(calls):
    """Whatever hangs in the other one's calls."""
    await calls.start("a", 50)
    await calls.start("b", 1)
    await calls.start("c", 1)
    assert calls.begun[4:] == [("b", 0), ("c", 0)]
    await calls.end_all()


async def test_sessions_take_turns():
    """With one place for all, one call of each session after the other, however many one has."""
    calls = Calls(SigningQueue(1, 100))
    await calls.start("a", 4)
    await calls.start("b", 2)
    await calls.start("c", 1)
    await calls.end_all()
    assert calls.begun == [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("a", 2), ("b", 1), ("a", 3)]


async def test_a_call_that_is_cancelled_leaves_at_once(calls):
    """It is counted no more, and its turn passes to the next one, even if it had just come."""
    await calls.start("a", 8)
    calls.tasks["a", 5].cancel()
    await calls.settle()
    assert calls.queue.waiting == 3
    calls.open.pop(("a", 0)).set()
    await asyncio.sleep(0)  # the place has been passed on to the next call, which has not run yet
    assert calls.queue.waiting == 2
    calls.tasks["a", 4].cancel()
    await calls.settle()
    assert calls.begun[4:] == [("a", 6)]
    await calls.end_all()
    await calls.start("a", 4, first=10)
    assert len(calls.open) == 4


def test_the_deadline_ends_the_wait():
    """On time, with an error that says how many others were waiting, and that repeating it is safe."""

    async def work(clock):
        calls = Calls(SigningQueue(2, 100))
        await calls.start("a", 3)
        await calls.start("a", 1, first=3, timeout=5.0)
        await calls.start("b", 2)
        before = clock()
        with pytest.raises(OverloadedError, match=r"5 s ran out .*; 3 other calls are waiting") as caught:
            await calls.tasks["a", 3]
        assert clock() - before == pytest.approx(5.0, abs=0.001)
        assert isinstance(caught.value, DeadlineExceededError)
        assert (caught.value.waiting, caught.value.retryable) == (3, True)
        await calls.end_all()
        assert ("a", 3) not in calls.begun

    run_in_virtual_time(work)


def test_a_place_that_is_free_as_the_deadline_ends_goes_to_the_next():
    """Nobody is left out by it, and no place is lost."""

    async def work(clock):
        calls = Calls(SigningQueue(1, 100))
        await calls.start("a", 1)
        asyncio.get_running_loop().call_later(4.0, calls.open.pop(("a", 0)).set)
        await calls.start("a", 1, first=1, timeout=5.0)
        await calls.start("a", 1, first=2)
        clock.advance(6.0)  # the loop is blocked: both happen in one turn
        with pytest.raises(OverloadedError):
            await calls.tasks["a", 1]
        await calls.settle()
        assert calls.begun == [("a", 0), ("a", 2)]
        await calls.end_all()
        await calls.start("a", 1, first=3)
        assert len(calls.open) == 1
        await calls.end_all()

    run_in_virtual_time(work)


async def test_a_full_queue_refuses_at_once():
    """So that callers who never stop do not fill the memory."""
    calls = Calls(SigningQueue(1, 2))
    await calls.start("a", 3)
    with pytest.raises(OverloadedError, match="full"):
        with await calls.queue.place("b", Deadline(60.0)):
            pass
    await calls.end_all()


async def test_a_call_that_comes_again_is_the_next_of_its_session(calls):
    """It has waited before."""
    await calls.start("a", 6)
    again = asyncio.create_task(calls._call("a", "again", 60.0, is_again=True))
    await calls.settle()
    await calls.end("a", 0)
    await calls.end("a", 1)
    assert calls.begun[4:] == [("a", "again"), ("a", 4)]
    await calls.end_all()
    await again


async def test_a_failure_frees_the_place(calls):
    """As a success does."""
    for _ in range(20):
        with pytest.raises(ValueError, match="no"):
            with await calls.queue.place("a", Deadline(60.0)):
                raise ValueError("no")


async def test_a_session_that_nodes_have_no_room_for_gets_fewer_places(calls):
    """One less for each call that was refused, down to one; more again with each success; the others are not concerned."""
    await calls.start("a", 30)
    for _ in range(6):
        calls.queue.slow_down("a")
    await calls.end("a", 0)
    await calls.end("a", 1)
    assert set(calls.open) == {("a", 2), ("a", 3)}
    await calls.start("b", 3)
    await calls.end("a", 2)
    assert set(calls.open) == {("a", 3), ("a", 4), ("b", 0), ("b", 1), ("b", 2)}
    await calls.end_all()
    assert len(calls.begun) == 33
    await calls.start("a", 10, first=30)
    assert len(calls.open) == 4
    await calls.end_all()

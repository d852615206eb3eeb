"""Deadlines and the owning of tasks."""

from __future__ import annotations

import asyncio
import time

import pytest

from dan_async.deadline import Deadline, cancel_and_wait, carry_through
from dan_async.errors import DeadlineExceededError, NodeTimeoutError
from tests.helpers import assert_runs_under


class Time:
    """A clock that moves when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_deadline_runs_down() -> None:
    """What is left shrinks and stops at nothing."""
    time = Time()
    deadline = Deadline(10, clock=time)
    assert (deadline.remaining(), deadline.is_over) == (10, False)
    assert deadline.cap(3) == 3
    assert deadline.cap(None) == 10
    time.now += 8
    assert deadline.cap(3) == 2
    time.now += 8
    assert (deadline.remaining(), deadline.is_over) == (0, True)
    error = deadline.error("waiting", phase="keygen")
    assert isinstance(error, DeadlineExceededError)
    assert "10 s ran out while waiting" in str(error)
    assert error.phase == "keygen"


def test_no_deadline() -> None:
    """None never runs out."""
    deadline = Deadline(None)
    assert deadline.remaining() is None
    assert not deadline.is_over
    assert deadline.cap(4) == 4
    with deadline.paused():
        pass
    assert deadline.cap(None) is None


def test_a_paused_deadline_stands_still() -> None:
    """Time that a person takes does not count."""
    time = Time()
    deadline = Deadline(10, clock=time)
    with deadline.paused():
        time.now += 1000
    assert deadline.remaining() == 10


def test_a_deadline_that_began_before() -> None:
    """Time that has passed when it is made counts."""
    time = Time()
    assert Deadline(10, began=time() - 4, clock=time).remaining() == 6


# --- enforced ---------------------------------------------------------------------------------------------------------


async def hang_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_an_enforced_deadline_cuts_what_hangs() -> None:
    """Whatever the body waits for, it ends soon after the deadline, and the error says what was being done."""
    async with assert_runs_under(2):
        with pytest.raises(DeadlineExceededError, match=r"ran out while hanging") as caught:
            async with Deadline(0.01).enforced("hanging", request_id="0x01"):
                await hang_for_ever()
    assert caught.value.request_id == "0x01"


async def test_a_busy_loop_cuts_nobody_off_unheard() -> None:
    """Who notices the end himself comes first, also if the loop was held for longer than the slack."""
    deadline = Deadline(0.02)

    async def wait_and_say() -> None:
        try:
            async with asyncio.timeout(deadline.remaining()):
                await hang_for_ever()
        except TimeoutError:
            await asyncio.sleep(0)  # puts its things away
            raise NodeTimeoutError("what hung") from None

    with pytest.raises(NodeTimeoutError, match="what hung"):
        async with deadline.enforced("working"):
            asyncio.get_running_loop().call_soon(time.sleep, 2 * Deadline.SLACK_S)
            await wait_and_say()


async def test_an_enforced_deadline_leaves_the_rest_alone() -> None:
    """What ends in time ends as it does without."""
    async with Deadline(10).enforced("working"):
        await asyncio.sleep(0)
    async with Deadline(None).enforced("working"):
        await asyncio.sleep(0)


@pytest.mark.parametrize("error", [NodeTimeoutError("late"), TimeoutError(), ZeroDivisionError()])
async def test_errors_pass_an_enforced_deadline(error: BaseException) -> None:
    """Timeouts of others are not taken for its own."""
    with pytest.raises(type(error)) as caught:
        async with Deadline(10).enforced("working"):
            raise error
    assert caught.value is error


async def test_cancellation_passes_an_enforced_deadline() -> None:
    """Whoever cancels gets CancelledError, not a deadline's."""
    deadline = Deadline(10)

    async def work() -> None:
        async with deadline.enforced("working"):
            await hang_for_ever()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with deadline.paused():  # it is over, and can be paused all the same
        pass


async def test_a_paused_deadline_does_not_cut() -> None:
    """While a person is waited for nothing is cut off; afterwards the rest of the time counts."""
    time = Time()
    deadline = Deadline(0.05, clock=time)
    async with assert_runs_under(2):
        with pytest.raises(DeadlineExceededError):
            async with deadline.enforced("hanging"):
                with deadline.paused():
                    time.now += 1000
                    await asyncio.sleep(0.3)
                assert deadline.remaining() == pytest.approx(0.05)
                await hang_for_ever()


async def test_who_looks_at_the_deadline_speaks_first() -> None:
    """A step that keeps the deadline itself says more than the cut does."""
    deadline = Deadline(0.01)
    with pytest.raises(DeadlineExceededError, match="looking"):
        async with deadline.enforced("hanging"):
            try:
                async with asyncio.timeout(deadline.remaining()):
                    await hang_for_ever()
            except TimeoutError:
                raise deadline.error("looking") from None


# --- owning tasks -----------------------------------------------------------------------------------------------------


async def test_cancel_and_wait_sees_every_task_end() -> None:
    """Cleanup in the tasks has run when it returns; finished and failed ones are fine."""
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(1)

    async def broken() -> None:
        raise ZeroDivisionError

    tasks = [asyncio.create_task(c) for c in (slow(), slow(), broken(), asyncio.sleep(0))]
    await asyncio.sleep(0)
    await cancel_and_wait(tasks)
    assert ended == [1, 1]
    assert all(task.done() for task in tasks)


async def test_cancel_and_wait_goes_on_when_cancelled_itself() -> None:
    """A cancelled caller still waits for the tasks, and stays cancelled."""
    ended = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            ended.append(1)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    owner = asyncio.create_task(cancel_and_wait([task]))
    await asyncio.sleep(0)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert ended == [1]


async def test_a_step_that_is_carried_through_has_its_own_ending() -> None:
    """Its result is returned, its error is raised."""

    async def fail() -> None:
        raise KeyError("of the step")

    assert await carry_through(asyncio.sleep(0, result=7)) == 7
    with pytest.raises(KeyError, match="of the step"):
        await carry_through(fail())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_step_is_carried_through_although_its_caller_is_cancelled(fails: bool) -> None:
    """Cancelled twice, the caller still waits for the end of the step, and stays cancelled."""
    may_end, ended = asyncio.Event(), []

    async def step() -> None:
        await may_end.wait()
        ended.append(1)
        if fails:
            raise KeyError("nobody hears of it")

    caller = asyncio.create_task(carry_through(step()))
    for _ in range(2):
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == [1]

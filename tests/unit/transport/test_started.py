"""Coroutines that run in their caller's task until they have to wait."""

import asyncio
import gc

import pytest

from dan_async.transport.socket import Started


async def test_one_that_waits_for_nothing_is_done_at_once():
    async def call():
        return 5

    started = Started(call())
    assert started.is_done
    assert started.result == 5
    assert started.run_on()
    assert await started == 5


async def test_an_error_before_the_first_wait_is_raised_at_once():
    async def call():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Started(call())


async def test_the_rest_runs_when_it_is_awaited():
    waiter = asyncio.get_running_loop().create_future()

    async def call():
        await asyncio.sleep(0)
        return await waiter, asyncio.current_task()

    started = Started(call())
    assert not started.is_done
    asyncio.get_running_loop().call_soon(waiter.set_result, 7)
    assert await started == (7, asyncio.current_task())


async def test_it_runs_on_without_a_turn_of_the_loop_once_its_wait_is_over():
    loop = asyncio.get_running_loop()
    waiters = [loop.create_future() for _ in range(3)]

    async def call():
        return [await waiter for waiter in waiters]

    started = Started(call())
    assert not started.run_on()
    waiters[0].set_result(1)
    waiters[1].set_result(2)
    assert not started.run_on()
    waiters[2].set_result(3)
    assert started.run_on()
    assert started.result == [1, 2, 3]


async def test_errors_of_what_it_waits_for_are_its_own_to_handle():
    waiter = asyncio.get_running_loop().create_future()

    async def call():
        try:
            await waiter
        except OSError:
            return "handled"

    started = Started(call())
    waiter.set_exception(OSError())
    assert await started == "handled"


async def test_cancellation_reaches_it_and_goes_on():
    seen = []

    async def call():
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    async def wait():
        await Started(call())

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cleaned up"]


async def test_a_time_limit_inside_it_holds():
    async def call():
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await Started(call())


async def test_one_that_is_given_up_cleans_up_and_complains_of_nothing():
    loop, seen, complaints = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    async def call(waiter):
        try:
            await waiter
        finally:
            seen.append("cleaned up")

    lost, open_still = loop.create_future(), loop.create_future()
    for waiter in (lost, open_still):
        started = Started(call(waiter))
        if waiter is lost:
            waiter.set_exception(OSError())
        started.close()
        started.close()
    assert open_still.cancelled()
    assert seen == ["cleaned up"] * 2
    del started, waiter, lost, open_still
    gc.collect()
    assert complaints == []

"""The tools the other tests rely on do notice what they are there to notice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest

from tests.helpers import (
    CuttableProxy,
    ManualClock,
    assert_runs_under,
    cancelled_at,
    no_leaks,
    stall_detector,
)
from tests.servers import raw_server


async def test_no_leaks_passes_when_everything_is_closed():
    """A task that ends and a socket that is closed are no leaks."""
    async with no_leaks():
        task = asyncio.create_task(asyncio.sleep(0.01))
        socket.socket().close()
    assert task.done()


async def test_no_leaks_notices_a_task():
    """A task that goes on is named."""
    task = asyncio.create_task(asyncio.sleep(0))
    with pytest.raises(AssertionError, match="the forgotten one"):
        async with no_leaks(grace_s=0.01):
            task = asyncio.create_task(asyncio.sleep(60), name="the forgotten one")
    task.cancel()


async def test_no_leaks_notices_a_socket():
    """A socket that stays open is named with its port."""
    listening = None
    with pytest.raises(AssertionError, match="listening on"):
        async with no_leaks(grace_s=0.01):
            listening = socket.create_server(("127.0.0.1", 0))
    listening.close()


async def test_stall_detector_notices_a_blocking_sleep():
    """A coroutine that sleeps without awaiting is found, with the line that did it."""
    with pytest.raises(AssertionError, match=r"time\.sleep\(0\.3\)"):
        async with stall_detector(0.1):
            await asyncio.sleep(0)
            time.sleep(0.3)
            await asyncio.sleep(0)


async def test_stall_detector_lets_waiting_pass():
    """Waiting without holding the loop is fine."""
    async with stall_detector(0.5) as report:
        await asyncio.sleep(0.8)
    assert report.worst_s < 0.5


async def test_assert_runs_under_cuts_off_what_hangs(monkeypatch):
    """A block that never ends fails after the given time and some room."""
    monkeypatch.setattr(assert_runs_under, "ROOM_S", 0.02)
    with pytest.raises(AssertionError, match="still running"):
        async with assert_runs_under(0.02):
            await asyncio.Event().wait()


def test_assert_runs_under_notices_what_is_slow():
    """A block that takes too long fails."""
    with pytest.raises(AssertionError, match="more than"), assert_runs_under(0.001):
        time.sleep(0.01)


async def test_cancelled_at_reaches_every_await():
    """The coroutine is cancelled at its first, second and third wait, and then ends by itself."""
    seen = []

    async def three_waits():
        for number in (1, 2, 3):
            seen.append(number)
            await asyncio.sleep(0)

    assert [await cancelled_at(step, three_waits()) for step in (1, 2, 3, 4)] == [True, True, True, False]
    assert seen == [1, 1, 2, 1, 2, 3, 1, 2, 3]


async def test_cancelled_at_notices_a_swallowed_cancellation():
    """A coroutine that goes on after its cancellation fails the test."""

    async def stubborn():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)

    with pytest.raises(AssertionError, match="swallowed"):
        await cancelled_at(1, stubborn())


async def test_proxy_forwards_counts_and_cuts():
    """Bytes go through and are counted; a cut ends both sides."""

    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)

    async with no_leaks(), raw_server(echo) as port, CuttableProxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        assert (proxy.bytes_to_server, proxy.bytes_to_client) == (5, 5)
        proxy.cut_after(2)
        writer.write(b"world")
        assert await reader.read() == b"wo"
        writer.close()
        await writer.wait_closed()


async def test_proxy_stalls_and_resumes():
    """Nothing goes through a stalled proxy, and nothing is lost."""

    async def echo(reader, writer):
        while data := await reader.read(100):
            writer.write(data)

    async with raw_server(echo) as port, CuttableProxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.stall()
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        proxy.resume()
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_manual_clock_moves_only_when_told():
    """Time stands still until advanced; its sleep advances it at once."""
    clock = ManualClock(100.0)
    assert clock() == clock() == 100.0
    clock.advance(-1)
    await clock.sleep(3)
    assert clock() == 102.0

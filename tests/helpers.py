"""
Tools shared by the tests.

- ``CuttableProxy``: a TCP proxy that cuts, stalls or trickles on command.
- ``ManualClock``: time that moves only when told to.
- ``run_in_virtual_time``: a whole event loop on such a clock.
- ``loop_in_a_thread``: a running event loop for tests that are not asynchronous.
- ``assert_runs_under``: bounds how long a block takes.
- ``no_leaks``: no task and no socket is left that was not there before.
- ``stall_detector``: nothing holds the event loop.
- ``cancelled_at``: cancels a coroutine at its k-th await.
- ``no_byte_more``: the operating system refuses every write to a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import selectors
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar
from unittest import mock

T = TypeVar("T")


class ManualClock:
    """A clock for ``clock=``: stands still until moved."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move by *seconds*; negative ones turn it back."""
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        """Stand in for ``asyncio.sleep``: the time passes at once."""
        self.advance(seconds)
        await asyncio.sleep(0)


Do: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


@contextlib.contextmanager
def loop_in_a_thread(*, limit_s: float = 30) -> Iterator[Do]:
    """Run an event loop in a thread of its own; yields a function that runs something there, and waits for its end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(limit_s)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def run_in_virtual_time(work: Callable[[ManualClock], Coroutine[Any, Any, T]]) -> T:
    """
    Run a coroutine on an event loop whose clock jumps from one timer to the next: exact times, and no waiting.

    ``time.monotonic`` shows the same clock while it runs. Timers only: a wait for anything else fails at once.
    """
    clock = ManualClock(1000.0)

    class Jumping(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            ready = super().select(0)
            assert ready or timeout is not None, "nothing can ever happen: no timer is set"
            if not ready and timeout:
                clock.advance(timeout)
            return ready

    with mock.patch("time.monotonic", clock):
        loop = asyncio.SelectorEventLoop(Jumping())
        try:
            return loop.run_until_complete(work(clock))
        finally:
            loop.close()


class assert_runs_under:  # noqa: N801 - reads as a statement
    """
    Fail if the block takes longer than *seconds*. With ``async with``, a block that hangs is cut off as well.

    Time in which the machine gave the processor to others does not count (see ``stall_detector``), so that a block which
    hangs is cut off somewhat later.
    """

    #: How much later, in seconds.
    ROOM_S = 15.0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.elapsed = 0.0

    def __enter__(self) -> Self:
        self._start = time.monotonic() - _queued_s()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.elapsed = time.monotonic() - _queued_s() - self._start
        if kind is None:
            assert self.elapsed <= self.seconds, f"took {self.elapsed:.3f} s, more than {self.seconds:g} s"

    async def __aenter__(self) -> Self:
        self.__enter__()
        self._limit = asyncio.timeout(self.seconds + self.ROOM_S)
        await self._limit.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            raise AssertionError(f"still running after {self.seconds:g} s") from timeout
        self.__exit__(kind, error, trace)


def _queued_s() -> float:
    """Seconds for which this thread has waited for a processor."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


# --- leaks ------------------------------------------------------------------------------------------------------------


def open_sockets() -> set[str]:
    """Give this process's sockets, as descriptor and inode."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                found.add(f"{descriptor.name}/{target[8:-1]}")
    return found


def describe_sockets(sockets: set[str]) -> list[str]:
    """Say for each socket what it is connected to, or listens on."""
    addresses = {}
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                local, remote = (int(fields[i].rpartition(":")[2], 16) for i in (1, 2))
                addresses[fields[9]] = f"port {local} to {remote}" if remote else f"listening on {local}"
    pairs = [socket.split("/") for socket in sorted(sockets)]
    return [f"fd {descriptor}, {addresses.get(inode, 'no address')}" for descriptor, inode in pairs]


def _describe_task(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=3)
    where = "; ".join(f"{f.f_code.co_qualname} at line {f.f_lineno}" for f in frames)
    return f"task {task.get_name()!r} ({where})"


@contextlib.contextmanager
def no_byte_more() -> Iterator[None]:
    """Have the operating system refuse every write to a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.asynccontextmanager
async def no_leaks(*, grace_s: float = 1.0) -> AsyncIterator[None]:
    """
    Assert that the block leaves no asyncio task and no open socket behind that was not there at its start.

    Closing takes the event loop a few rounds, so what is left gets *grace_s* seconds to end, and a hundred looks on a
    machine that is too busy to give them in that time. Linux only (it looks into /proc). An error of the block is
    passed on without a check.
    """
    tasks_before = asyncio.all_tasks()
    sockets_before = open_sockets()
    yield
    end = time.monotonic() + grace_s
    for look in itertools.count():
        tasks = [task for task in asyncio.all_tasks() - tasks_before if not task.done()]
        sockets = open_sockets() - sockets_before
        if not tasks and not sockets:
            return
        if time.monotonic() > end and look >= 100:
            left = [*map(_describe_task, tasks), *describe_sockets(sockets)]
            raise AssertionError(f"{len(left)} left behind: " + "; ".join(left[:10]))
        await asyncio.sleep(0.005)


# --- stalls -----------------------------------------------------------------------------------------------------------


class StallReport:
    """What ``stall_detector`` saw: the longest time between two turns of the loop, and the stack at that time."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self.stack = ""


@contextlib.asynccontextmanager
async def stall_detector(longest_s: float) -> AsyncIterator[StallReport]:
    """
    Assert that nothing in the block holds the event loop for longer than *longest_s* seconds.

    Time in which the thread was ready and the machine gave the processor to others does not count (Linux tells). Another
    thread looks on, so that the error can show where the loop was held.
    """
    loop = asyncio.get_running_loop()
    loop_thread = threading.get_ident()
    report = StallReport()
    last_turn = time.monotonic()
    last_queued = _queued_s()
    is_over = threading.Event()

    def turn() -> None:
        nonlocal last_turn, last_queued, handle
        now, queued = time.monotonic(), _queued_s()
        report.worst_s = max(report.worst_s, now - last_turn - (queued - last_queued))
        last_turn, last_queued = now, queued
        handle = loop.call_later(longest_s / 10, turn)

    def watch() -> None:
        while not is_over.wait(longest_s / 4):
            frame = sys._current_frames().get(loop_thread)
            if frame is not None and time.monotonic() - last_turn > longest_s and not report.stack:
                report.stack = "".join(traceback.format_stack(frame, limit=8))

    handle = loop.call_soon(turn)
    thread = threading.Thread(target=watch, name="stall detector", daemon=True)
    thread.start()
    try:
        yield report
        turn()
    finally:
        handle.cancel()
        is_over.set()
        thread.join()
    assert report.worst_s <= longest_s, f"the event loop was held for {report.worst_s:.3f} s\n{report.stack}"


# --- cancellation -----------------------------------------------------------------------------------------------------


class _CancelAt:
    """Runs a coroutine, and cancels the task that awaits it at the step-th point where it really waits."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], step: int) -> None:
        self._coroutine = coroutine
        self._step = step

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._coroutine.__await__()
        resume, value = inner.send, None
        step = 0
        while True:
            try:
                waits_for = resume(value)
            except StopIteration as stop:
                return stop.value
            step += 1
            if step == self._step:
                asyncio.current_task().cancel()
            try:
                value = yield waits_for
                resume = inner.send
            except BaseException as error:
                value = error
                resume = inner.throw


async def cancelled_at(step: int, coroutine: Coroutine[Any, Any, Any]) -> bool:
    """
    Run a coroutine in a task of its own and cancel it at its *step*-th wait (from 1).

    To cancel at every await, call it with 1, 2, 3 … until it gives False.

    Returns:
        True if it was cancelled; False if it came to its end in fewer waits.

    Raises:
        AssertionError: It was cancelled and went on as if nothing had happened.
        Exception: What it raised by itself.
    """
    reached = False

    async def run() -> None:
        nonlocal reached
        guarded = _CancelAt(coroutine, step)
        await guarded

    task = asyncio.create_task(run(), name=f"cancelled at {step}")
    await asyncio.wait([task])
    if task.cancelled():
        return True
    reached = task.cancelling() > 0
    error = task.exception()
    if error is not None:
        raise error
    assert not reached, f"the cancellation at wait {step} was swallowed"
    return False


# --- proxy ------------------------------------------------------------------------------------------------------------


class CuttableProxy:
    """
    A TCP proxy on loopback whose connections can be cut, stalled or slowed on command.

    Args:
        port: Where to forward to.
        host: Where to forward to.

    Use as an async context manager; then ``port`` is where it listens.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._may_flow = asyncio.Event()
        self._may_flow.set()
        self._byte_interval_s: float | None = None
        self._cut_after: int | None = None
        self._silenced = 0
        self.refuses = False
        self.port = 0
        self.accepted = 0
        self.bytes_to_server = 0
        self.bytes_to_client = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await let_accepted_connections_begin()
        self.cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def open_connections(self) -> int:
        """How many connections are being forwarded."""
        return len(self._tasks)

    def cut(self) -> None:
        """Break every connection at once, on both sides, without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()

    def cut_after(self, count: int) -> None:
        """Break each connection after *count* more bytes have gone to the client."""
        self._cut_after = self.bytes_to_client + count

    def stall(self) -> None:
        """Stop forwarding, in both directions; connections stay open."""
        self._may_flow.clear()

    def silence(self) -> None:
        """Lose all that is sent over the connections that there are, in both directions; new ones work."""
        self._silenced = self.accepted

    def resume(self) -> None:
        """Forward again, at full speed."""
        self._byte_interval_s = None
        self._may_flow.set()

    def trickle(self, interval_s: float) -> None:
        """Forward to the client one byte every *interval_s* seconds."""
        self._byte_interval_s = interval_s

    def refuse(self) -> None:
        """Close new connections as soon as they are made."""
        self.refuses = True

    def accept(self) -> None:
        """Take new connections again."""
        self.refuses = False

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self.refuses:
                return
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the proxy ends every connection quietly: what its two sides see is what is tested
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.accepted
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers.add(server_writer)
        pumps = [
            asyncio.create_task(self._pump(reader, server_writer, number, is_to_client=False)),
            asyncio.create_task(self._pump(server_reader, writer, number, is_to_client=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._writers.discard(server_writer)
            # Whatever the one side sent last still reaches the other.
            for side in (server_writer, writer):
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(0.2):
                        await side.drain()
            server_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, *, is_to_client: bool
    ) -> None:
        while data := await reader.read(65536):
            if number <= self._silenced:
                continue
            is_slow = is_to_client and self._byte_interval_s is not None
            pieces = [data[i : i + 1] for i in range(len(data))] if is_slow else [data]
            for piece in pieces:
                if is_to_client and self._byte_interval_s is not None:
                    await asyncio.sleep(self._byte_interval_s)
                await self._may_flow.wait()
                await self._pass_on(piece, writer, is_to_client=is_to_client)

    async def _pass_on(self, piece: bytes, writer: asyncio.StreamWriter, *, is_to_client: bool) -> None:
        if is_to_client and self._cut_after is not None:
            piece = piece[: self._cut_after - self.bytes_to_client]
        writer.write(piece)
        await writer.drain()
        if not is_to_client:
            self.bytes_to_server += len(piece)
            return
        self.bytes_to_client += len(piece)
        if self._cut_after is not None and self.bytes_to_client >= self._cut_after:
            self._cut_after = None
            self.cut()


async def let_accepted_connections_begin() -> None:
    """Give the handlers of connections that were just accepted the rounds they need to show up."""
    for _ in range(5):
        await asyncio.sleep(0)


async def wait_until(condition: Any, *, timeout_s: float = 20.0) -> None:
    """Wait until ``condition()`` is true; fail after *timeout_s* seconds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not become true in time"
        await asyncio.sleep(0.002)


async def error_of(awaitable: Awaitable[Any]) -> BaseException | None:
    """Await and give the exception that came, or None."""
    try:
        await awaitable
    except Exception as error:
        return error
    return None

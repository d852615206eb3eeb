"""Steps spread over the turns of an event loop: counted turns, and a clock that moves only with the work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async import DanClient, LocalWallet
from dan_async.config import Timeouts
from dan_async.deadline import Deadline
from dan_async.errors import OverloadedError
from dan_async.network import AuthModule, KeygenReport, KeygenRequest
from dan_async.turns import BUDGET_S, Turns
from tests.fake_nodes import FakeNetwork
from tests.helpers import ManualClock, no_leaks

WALLET = LocalWallet("0x" + "00" * 31 + "01")

#: A fourth of the budget, and a little more than what is set aside for what follows from a step.
STEP_S = BUDGET_S / 4


class Work:
    """Steps that take STEP_S each, and in which turn of the loop each was taken."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.time = ManualClock()
        self.turns = Turns(clock=self.clock, now=self.time)
        self.turn = 0
        self.steps: list[tuple[int, str]] = []

    def step(self, name: str) -> None:
        self.steps.append((self.turn, name))
        self.clock.advance(STEP_S)

    async def new(self, name: str, timeout_s: float | None = None) -> None:
        assert await self.turns.begin(timeout_s)
        self.step(name)

    async def under_way(self, name: str) -> None:
        await self.turns.go_on()
        self.step(name)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the loop's turns inside the block."""
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal handle
            self.turn += 1
            handle = loop.call_soon(count)

        handle = loop.call_soon(count)
        try:
            yield
        finally:
            handle.cancel()

    async def run(self, *calls: Awaitable[None]) -> list[str]:
        """Run all at once, and return the steps in their order."""
        with self.counted():
            await asyncio.gather(*calls)
        return [name for _, name in self.steps]

    @property
    def most_in_a_turn(self) -> int:
        turns = [turn for turn, _ in self.steps]
        return max(turns.count(turn) for turn in turns)


async def test_a_turn_has_no_more_steps_than_its_budget_takes() -> None:
    """Forty calls at once take many turns, at most four steps in each, in the order of the calls."""
    work = Work()
    names = [str(number) for number in range(40)]
    assert await work.run(*(work.new(name) for name in names)) == names
    assert work.most_in_a_turn <= 4
    assert work.turn >= 10


async def test_the_budget_is_used() -> None:
    """Forty calls take no more than some turns beyond the ten that they need: no time is given away."""
    work = Work()
    await work.run(*(work.new(str(number)) for number in range(40)))
    assert work.turn <= 20


async def test_work_under_way_goes_first() -> None:
    """Steps of work under way that come last are taken before calls that wait, and in their own order."""
    work = Work()
    under_way = [f"under way {number}" for number in range(6)]
    found = await work.run(
        *(work.new(f"new {number}") for number in range(20)), *(work.under_way(name) for name in under_way)
    )
    assert [name for name in found if name in under_way] == under_way
    assert found.index(under_way[-1]) < 12
    assert [name for name in found if name not in under_way] == [f"new {number}" for number in range(20)]


async def test_nobody_overtakes_those_who_wait() -> None:
    """While steps wait, one that comes later is taken later, however many there are."""
    work = Work()

    async def later(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await work.under_way(name)

    early = [str(number) for number in range(30)]
    found = await work.run(*(work.under_way(name) for name in early), later("later"))
    assert found == [*early, "later"]


async def test_a_step_longer_than_the_budget_delays_the_next_and_stops_nothing() -> None:
    """One step a turn is always taken, also where the host's own work takes all of the time."""
    work = Work()

    async def slow(name: str) -> None:
        await work.new(name)
        work.clock.advance(10 * BUDGET_S)

    names = [str(number) for number in range(10)]
    assert await work.run(*map(slow, names)) == names
    assert work.most_in_a_turn == 1


async def test_alone_a_step_waits_for_nothing() -> None:
    """Without others, steps within the budget take no turn of the loop."""
    work = Work()
    with work.counted():
        for number in range(3):
            await work.under_way(str(number))
            await work.new(str(number))
            work.clock.now -= 2 * STEP_S
    assert work.turn == 0


@asynccontextmanager
async def _no_time_left(work: Work) -> AsyncIterator[None]:
    """Work under way uses up every turn."""
    stop = asyncio.Event()

    async def hog() -> None:
        while not stop.is_set():
            await work.turns.go_on()
            work.clock.advance(BUDGET_S)

    hogs = [asyncio.create_task(hog()) for _ in range(3)]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*hogs)


async def _some_turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_wait_ends_with_its_time() -> None:
    """A call whose time is over before its turn gets its answer then, wherever it stands, and the others their turn."""
    work = Work()
    async with _no_time_left(work):
        calls = [asyncio.create_task(work.turns.begin(timeout_s)) for timeout_s in (9, None, 3, 5, 1, 9)]
        await _some_turns()
        assert work.turns.waiting == 6
        calls[3].cancel()
        for passed_s, over in ((0.9, []), (0.2, [4]), (1.5, [4]), (0.5, [2, 4]), (4, [2, 4])):
            work.time.advance(passed_s)
            await _some_turns()
            assert [number for number in (0, 1, 2, 4, 5) if calls[number].done()] == over
        assert work.turns.waiting == 3
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [result for result in results if isinstance(result, bool)] == [True, True, False, False, True]
    assert work.turns.waiting == 0


@pytest.mark.parametrize("turn", range(1, 5))
async def test_time_that_the_loop_was_blocked_counts(turn: int) -> None:
    """After a loop was blocked for longer than a call may wait, it does not begin, called up or not."""
    work = Work()
    begun: list[int] = []

    async def call(number: int) -> None:
        if await work.turns.begin(10):
            work.clock.advance(STEP_S)
            begun.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(40)]
    for _ in range(turn):
        await asyncio.sleep(0)
    before = list(begun)
    assert len(before) < 40
    work.time.advance(11)
    await asyncio.gather(*calls)
    assert begun == before
    assert work.turns.waiting == 0


@pytest.mark.parametrize("turn", range(6))
async def test_whoever_is_cancelled_keeps_nobody_waiting(turn: int) -> None:
    """Waiting calls that are cancelled, in whatever turn, leave no trace: all others come to their turn."""
    work = Work()
    async with no_leaks():
        calls = [asyncio.create_task(work.new(str(number))) for number in range(30)]
        for _ in range(turn):
            await asyncio.sleep(0)
        for call in calls[1::2]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(result is None for result in results[::2])
    assert work.turns.waiting == 0


async def test_work_that_was_given_up_keeps_no_call_waiting() -> None:
    """New calls come to their turn though work waited for its own, in the same turn of the loop, and was cancelled."""
    work = Work()
    tasks = [asyncio.create_task(work.under_way(str(number))) for number in range(7)]
    await asyncio.sleep(0)
    assert not tasks[4].done()
    tasks[5].cancel()
    tasks[6].cancel()
    await asyncio.wait(tasks)
    new = asyncio.create_task(work.new("new"))
    await _some_turns()
    assert new.done()


_ACTS = st.one_of(
    st.tuples(st.sampled_from(["new", "under way"]), st.sampled_from([0.0, 0.25, 1.0, 3.0])),
    st.tuples(st.just("cancel"), st.sets(st.integers(0, 9))),
    st.tuples(st.sampled_from(["time passes", "turn"]), st.none()),
)


@given(st.lists(_ACTS, max_size=40))
@settings(max_examples=300)
def test_everybody_comes_to_a_turn_and_nobody_leaves_a_trace(acts: list[tuple[str, Any]]) -> None:
    """Whatever comes, takes long, is cancelled or runs out of time: the rest go on, and in the end nobody has to wait."""

    async def play() -> None:
        work = Work()
        tasks: list[asyncio.Task[None]] = []

        async def call(kind: str, budgets: float) -> None:
            if kind == "under way":
                await work.turns.go_on()
            else:
                await work.turns.begin(5.0)
            work.clock.advance(budgets * BUDGET_S)

        for act, argument in acts:
            if act == "turn":
                await asyncio.sleep(0)
            elif act == "time passes":
                work.time.advance(6.0)
            elif act == "cancel":
                for number in argument & set(range(len(tasks))):
                    tasks[-1 - number].cancel()
            else:
                tasks.append(asyncio.create_task(call(act, argument)))
        for _ in range(3 * len(acts) + 5):
            await asyncio.sleep(0)
        assert all(task.done() for task in tasks)
        with work.counted():
            work.clock.advance(BUDGET_S)
            await _some_turns()
            turn = work.turn
            await work.under_way("last")
            await work.new("last")
        assert work.turn - turn <= 2

    asyncio.run(play())


async def test_a_loop_has_one_budget() -> None:
    """All clients of a loop share its turns; another loop has its own."""
    here = Turns.of_running_loop()
    assert Turns.of_running_loop() is here

    async def elsewhere() -> Turns:
        return Turns.of_running_loop()

    assert await asyncio.to_thread(asyncio.run, elsewhere()) is not here


# --- in a client ------------------------------------------------------------------------------------------------------


def _longest_row(log: list[str], kind: str) -> int:
    """The most of a kind without a turn's end between them."""
    rows = "".join("x" if entry == kind else " " for entry in log).split()
    return max(map(len, rows), default=0)


async def _turns_of(
    run: Callable[[DanClient], Awaitable[object]], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Return which steps a client took in which order: "begin", "turn"."""
    log: list[str] = []
    clock = ManualClock()
    turns = Turns(clock=clock)
    monkeypatch.setattr(Turns, "of_running_loop", lambda: turns)
    network = FakeNetwork(2, 3).network()
    check = network.check_keygen

    def begun(request: object) -> None:
        log.append("begin")
        clock.advance(STEP_S)
        check(request)

    monkeypatch.setattr(network, "check_keygen", begun)
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal handle
        log.append("turn")
        handle = loop.call_soon(turn)

    async with DanClient(network, timeouts=Timeouts(total_s=30)) as client:
        handle = loop.call_soon(turn)
        try:
            await run(client)
        finally:
            handle.cancel()
    return log


async def test_calls_at_once_begin_over_many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of thirty key generations at once no more begin in one turn than its budget takes, in a batch as well."""

    async def at_once(client: DanClient) -> None:
        calls = [client.generate_session_key(wallet=WALLET, chain_id=1) for _ in range(30)]
        assert len(await asyncio.gather(*calls)) == 30

    async def in_a_batch(client: DanClient) -> None:
        batch = client.generate_session_keys([{}] * 30, concurrency=30, wallet=WALLET, chain_id=1)
        assert [result.error async for result in batch] == [None] * 30

    for run in (at_once, in_a_batch):
        with monkeypatch.context() as patch:
            log = await _turns_of(run, patch)
        # Each call looks at its request twice.
        assert log.count("begin") == 60
        assert _longest_row(log, "begin") <= 8


async def test_a_call_whose_time_ends_before_its_turn_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, and the error says how many others wait."""

    async def never(_: Turns, timeout_s: float | None) -> bool:
        assert timeout_s == 3
        return False

    monkeypatch.setattr(Turns, "may_begin", lambda _: False)
    monkeypatch.setattr(Turns, "begin_later", never)
    fake = FakeNetwork(2, 3)
    async with DanClient(fake.network()) as client:
        with pytest.raises(OverloadedError, match=r"3 s ran out before this call's turn came"):
            await client.generate_session_key(wallet=WALLET, chain_id=1, timeout=3)
    assert fake.calls == []


async def test_the_wait_for_a_turn_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call's deadline begins before it waits for its turn."""
    ends: list[float] = []

    async def at_last(_: Turns, timeout_s: float) -> bool:
        ends.append(time.monotonic() + timeout_s)
        return True

    monkeypatch.setattr(Turns, "may_begin", lambda _: False)
    monkeypatch.setattr(Turns, "begin_later", at_last)
    network = FakeNetwork(2, 3).network()
    keygen = network.keygen

    async def timed(request: KeygenRequest, auth: AuthModule, *, deadline: Deadline) -> KeygenReport:
        ends.insert(0, time.monotonic() + (deadline.remaining() or 0))
        return await keygen(request, auth, deadline=deadline)

    monkeypatch.setattr(network, "keygen", timed)
    async with DanClient(network) as client:
        await client.generate_session_key(wallet=WALLET, chain_id=1)
    assert len(ends) == 2
    assert ends == sorted(ends)

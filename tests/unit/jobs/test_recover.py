"""Settling: beside others, under clocks that are wrong, and never twice."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import pytest
from attrs import evolve

from dan_async.config import Threshold
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import SessionPendingError, StoreUnavailableError
from dan_async.jobs.keeping import SessionKeeper, _machine
from dan_async.jobs.recover import make_once, recover, settle
from dan_async.network import KeygenReport, KeygenSettlement
from dan_async.storage import MemorySessionStore, StoredSession
from dan_async.types import MpcKeyId
from tests.helpers import ManualClock, assert_runs_under
from tests.stored import NOW, active, pending, session


class Network:
    """Says that there is no key, and lets somebody else be faster."""

    def __init__(self, meanwhile: Any) -> None:
        self._meanwhile = meanwhile

    async def settle_keygen(self, question: Any, *, deadline: Any) -> KeygenSettlement:
        await self._meanwhile()
        return KeygenSettlement(report=None, is_certain=True)


async def test_it_ends_in_time_however_many_records_there_are() -> None:
    """The nodes are silent; what was not looked at is not passed over in silence."""
    store = MemorySessionStore()
    for _ in range(80):
        await store.save(pending())
    keeper = SessionKeeper(store, ManualClock())
    async with assert_runs_under(2):
        report = await recover(Network(asyncio.Event().wait), keeper, min_age_s=0, timeout_s=1, record_s=0.3)
    assert 16 <= len(report.of("undecided")) == len(report.records) < 80
    assert sum("those after it" in record.problem for record in report.records) == 1


async def test_a_store_that_fails_everywhere_is_one_error() -> None:
    """Of the records that fail together the first one's is raised, and asyncio complains of none."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    class Failing(MemorySessionStore):
        async def delete(self, record_id: Any, *, expected: Any = None) -> bool:
            raise StoreUnavailableError("the disk is full")

    store = Failing()
    for _ in range(20):
        await store.save(pending())
    network = Settling(KeygenSettlement(report=None, is_certain=True))
    with pytest.raises(StoreUnavailableError):
        await recover(network, SessionKeeper(store, ManualClock()), min_age_s=0, timeout_s=1)
    gc.collect()
    assert not complaints


@pytest.mark.parametrize("others", ["found it", "dropped it", "called it failed", "let it expire"])
async def test_what_the_others_found_holds(others: str) -> None:
    """Nothing of theirs is overwritten or deleted."""
    store = MemorySessionStore(clock=ManualClock())
    record = pending()
    await store.save(record)
    made = session()
    after = {
        "found it": record.changed("active", now=NOW + 1, session=made),
        "called it failed": record.changed("failed", now=NOW + 1),
        "let it expire": record.changed("expired", now=NOW + 1),
    }.get(others)

    async def meanwhile() -> None:
        if after is None:
            await store.delete(record.record_id)
        else:
            await store.replace(after, expected="pending")

    found = await settle(Network(meanwhile), SessionKeeper(store, ManualClock()), record, timeout_s=1)
    expected = {"found it": "finished", "let it expire": "expired"}.get(others, "dropped")
    assert found.settlement == expected
    assert found.session == (made if others == "found it" else None)
    assert await store.get(record.record_id) == after


class Settling:
    """Says how each question ended, and counts the questions."""

    def __init__(self, settlement: KeygenSettlement) -> None:
        self.settlement = settlement
        self.asked: list[str] = []

    async def settle_keygen(self, question: Any, *, deadline: Any) -> KeygenSettlement:
        del deadline
        self.asked.append(question.request_id)
        return self.settlement


def found(record: StoredSession) -> KeygenSettlement:
    public_key = EphemeralKey.generate("secp256k1").public_key
    report = KeygenReport(
        public_key=public_key,
        key_id=MpcKeyId("ab" * 32),
        threshold=Threshold(2, 3),
        request_id=record.record_id,
    )
    return KeygenSettlement(report=report, is_certain=True)


def gateway() -> object:
    """A network that cannot be asked."""
    return object()


class TestClocks:
    """The local clock may be wrong: it decides nothing that the nodes can say, and nothing for good."""

    async def test_a_clock_that_jumped_ahead_loses_no_key(self) -> None:
        """The nodes are asked although the session's time is over by this clock."""
        clock, record = ManualClock(), pending()
        store = MemorySessionStore(clock=clock)
        await store.save(record)
        clock.advance(100_000)
        report = await recover(Settling(found(record)), SessionKeeper(store, clock), min_age_s=0, timeout_s=1)
        assert [r.settlement for r in report.records] == ["finished"]
        assert [r.state async for r in store.find()] == ["active"]

    @pytest.mark.parametrize("is_made", [True, False])
    async def test_what_was_called_expired_too_early_comes_back(self, is_made: bool) -> None:
        """Once the clock is right: a session as it was, a request by asking the nodes."""
        clock, session_there, asked_for = ManualClock(), active(), pending()
        store = MemorySessionStore(clock=clock)
        for record in (session_there, asked_for):
            await store.save(record)
        clock.advance(100_000)
        assert await store.mark_expired() == 2
        clock.advance(-100_000)
        nothing = KeygenSettlement(report=None, is_certain=True)
        network = Settling(found(asked_for) if is_made else nothing)
        report = await recover(network, SessionKeeper(store, clock), min_age_s=0, timeout_s=1)
        assert network.asked == [asked_for.record_id]
        assert {r.settlement for r in report.records} == {"finished", "finished" if is_made else "expired"}
        back = await store.get(session_there.record_id)
        assert back is not None
        assert (back.state, back.session) == ("active", session_there.session)

    async def test_over_a_gateway_it_is_pending_again(self) -> None:
        """Nobody can be asked, but nothing is called over before its time."""
        clock, record = ManualClock(), pending()
        store = MemorySessionStore(clock=clock)
        await store.save(record)
        clock.advance(100_000)
        keeper = SessionKeeper(store, clock)
        assert (await recover(gateway(), keeper, min_age_s=0, timeout_s=1)).records[0].settlement == "expired"
        clock.advance(-100_000)
        assert (await recover(gateway(), keeper, min_age_s=0, timeout_s=1)).records[
            0
        ].settlement == "undecided"
        assert [r.state async for r in store.find()] == ["pending"]

    async def test_a_clock_that_was_set_back_hides_nothing(self) -> None:
        """What was made in the future is not young, and not busy for longer than it was meant to be."""
        clock = ManualClock()
        store = MemorySessionStore(clock=clock)
        record = evolve(pending(), worker="another 1", busy_until=int(NOW * 1000) + 35_000)
        await store.save(record)
        clock.advance(-100_000)
        keeper = SessionKeeper(store, clock)
        report = await recover(Settling(found(record)), keeper, min_age_s=60, timeout_s=1)
        assert [r.settlement for r in report.records] == ["finished"]


class TestBusyRecords:
    """What a program is working on is left to it, for as long as it may take."""

    @pytest.mark.parametrize("worker", ["elsewhere pid:[1] 77", f"{_machine()} {os.getppid()}"])
    async def test_a_living_program_is_left_alone_until_its_time_is_over(self, worker: str) -> None:
        """On another machine, or on this one."""
        clock = ManualClock()
        store = MemorySessionStore(clock=clock)
        record = evolve(pending(), worker=worker, busy_until=int(NOW * 1000) + 35_000)
        await store.save(record)
        keeper, network = SessionKeeper(store, clock), Settling(found(record))
        assert (await recover(network, keeper, min_age_s=0, timeout_s=1)).records == ()
        assert network.asked == []
        clock.advance(35)
        assert len((await recover(network, keeper, min_age_s=0, timeout_s=1)).sessions) == 1

    async def test_a_program_that_was_killed_is_not_waited_for(self) -> None:
        """Its process is gone from this machine."""
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        clock = ManualClock()
        store = MemorySessionStore(clock=clock)
        record = evolve(pending(), worker=f"{_machine()} {process.pid}", busy_until=int(NOW * 1000) + 35_000)
        await store.save(record)
        report = await recover(Settling(found(record)), SessionKeeper(store, clock), min_age_s=0, timeout_s=1)
        assert len(report.sessions) == 1

    async def test_a_row_that_another_run_makes_is_waited_for(self) -> None:
        """It is a success of this run too, and nothing is made or settled here."""
        clock = ManualClock()
        store = MemorySessionStore(clock=clock)
        record = evolve(
            pending(reference="row 1"), worker="elsewhere 77", busy_until=int(NOW * 1000) + 35_000
        )
        await store.save(record)
        made = session()

        async def make() -> Any:
            raise AssertionError("a second key")

        async def others() -> None:
            await asyncio.sleep(0.1)
            await store.replace(record.changed("active", now=NOW + 1, session=made), expected="pending")

        network = Settling(found(record))
        call = make_once(network, SessionKeeper(store, clock), "row 1", make, retry_failed=False, settle_s=5)
        result, _ = await asyncio.gather(call, others())
        assert result == ("kept", made)
        assert network.asked == []

    async def test_a_row_that_stays_busy_is_pending(self) -> None:
        """The wait ends, with an error that says so."""
        clock = ManualClock()
        store = MemorySessionStore(clock=clock)
        await store.save(
            evolve(pending(reference="row 1"), worker="elsewhere 77", busy_until=int(NOW * 1000) + 35_000)
        )

        async def make() -> Any:
            raise AssertionError("a second key")

        with pytest.raises(SessionPendingError, match="another program"):
            await make_once(
                Settling(KeygenSettlement(report=None, is_certain=True)),
                SessionKeeper(store, clock),
                "row 1",
                make,
                retry_failed=True,
                settle_s=0.2,
            )

    async def test_a_row_whose_faster_maker_died_is_made_all_the_same(self) -> None:
        """It took the reference, and was killed before the nodes had heard of it."""
        clock, made = ManualClock(), session()
        store = MemorySessionStore(clock=clock)
        keeper, tried = SessionKeeper(store, clock), 0

        async def make() -> Any:
            nonlocal tried
            tried += 1
            if tried == 1:
                await store.save(pending(reference="row 1"))
            record = pending(reference="row 1")
            await store.save(record)
            await store.replace(record.changed("active", now=NOW, session=made), expected="pending")
            return made

        network = Settling(KeygenSettlement(report=None, is_certain=True))
        result = await make_once(network, keeper, "row 1", make, retry_failed=False, settle_s=1)
        assert (result, tried) == (("made", made), 2)

    async def test_a_row_that_failed_leaves_alone_who_tries_it_again(self) -> None:
        """Another batch has taken up the failed row at once, and is at work on it: nobody asks the nodes to settle that."""
        clock = ManualClock()
        store = MemorySessionStore(clock=clock)
        again = pending(reference="row 1", worker="elsewhere 7", busy_until=int(clock() * 1000) + 60_000)

        async def make() -> Any:
            await store.save(again)
            raise TimeoutError

        network = Settling(KeygenSettlement(report=None, is_certain=True))
        with pytest.raises(TimeoutError):
            await make_once(
                network, SessionKeeper(store, clock), "row 1", make, retry_failed=True, settle_s=1
            )
        assert network.asked == []
        assert await store.get(again.record_id) == again

    async def test_of_two_that_begin_at_once_one_makes_the_key(self) -> None:
        """The other one finds the reference taken, and gets the session."""
        clock, made = ManualClock(), session()
        store = MemorySessionStore(clock=clock)
        keeper = SessionKeeper(store, clock)

        async def make() -> Any:
            record = pending(reference="row 1")
            await asyncio.sleep(0.01)  # both have seen by now that there is none
            await store.save(record)
            await store.replace(record.changed("active", now=NOW, session=made), expected="pending")
            return made

        network = Settling(KeygenSettlement(report=None, is_certain=True))
        results = await asyncio.gather(
            *(make_once(network, keeper, "row 1", make, retry_failed=False, settle_s=1) for _ in range(2))
        )
        assert sorted(results, key=lambda result: result[0]) == [("kept", made), ("made", made)]

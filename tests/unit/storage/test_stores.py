"""What every store does: the same tests over memory, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from dan_async.errors import InvalidFieldError, RecordConflictError, StoreClockError
from dan_async.storage import SessionFilter, SessionStore, StoredSession
from tests.helpers import ManualClock
from tests.stored import ADA, BOB, NOW, active, pending, session


class TestSessionStore:
    """The contract of SessionStore."""

    async def test_it_is_one(self, store: SessionStore) -> None:
        """The Protocol has no method that the store lacks."""
        assert isinstance(store, SessionStore)

    async def test_what_was_saved_comes_back(self, store: SessionStore) -> None:
        """Every field, secrets included, is what it was."""
        for record in (active(reference="row 1"), pending(problem="no answer")):
            await store.save(record)
            assert await store.get(record.record_id) == record

    async def test_what_is_not_there_is_none(self, store: SessionStore) -> None:
        """Neither by id nor by reference."""
        assert await store.get("0x" + "00" * 32) is None
        assert await store.get_by_reference("nothing") is None

    async def test_a_reference_finds_its_record(self, store: SessionStore) -> None:
        """The caller's own name leads to the record."""
        record = active(reference="wallet 7")
        await store.save(active())
        await store.save(record)
        assert await store.get_by_reference("wallet 7") == record

    @pytest.mark.parametrize("taken", ["record_id", "reference"])
    async def test_an_id_or_reference_is_taken_once(self, store: SessionStore, taken: str) -> None:
        """The second record is refused, and the first one stays."""
        first = active(reference="row")
        await store.save(first)
        second = evolve(active(reference="other"), **{taken: getattr(first, taken)})
        with pytest.raises(RecordConflictError):
            await store.save(second)
        assert await store.get(first.record_id) == first

    async def test_concurrent_saves_under_one_reference_leave_one(self, store: SessionStore) -> None:
        """Of many that want the same name one gets it; the others do not disturb their neighbours."""
        rivals = [active(reference="row") for _ in range(10)]
        others = [active(reference=f"row {i}") for i in range(10)]
        results = await asyncio.gather(*map(store.save, rivals + others), return_exceptions=True)
        assert sum(result is None for result in results[:10]) == 1
        assert all(isinstance(result, RecordConflictError) for result in results[:10] if result is not None)
        assert results[10:] == [None] * 10
        assert len([record async for record in store.find()]) == 11

    async def test_find_looks_at_every_condition(self, store: SessionStore) -> None:
        """Owner, chain, state and expiry each narrow it down."""
        records = [
            active(at=NOW),
            active(at=NOW + 1, eoa_address=BOB),
            active(at=NOW + 2, chain_id=1),
            active(at=NOW + 3, expires_at=int(NOW) - 5),
            pending(at=NOW + 4),
        ]
        for record in records:
            await store.save(record)

        async def found(**conditions: object) -> list[int]:
            wanted = SessionFilter(**conditions)
            return [records.index(record) async for record in store.find(wanted)]

        assert await found() == [0, 1, 2, 3, 4]
        assert await found(owner=BOB.lower()) == [1]
        assert await found(owner=ADA, chain_id=80002) == [0, 3, 4]
        assert await found(state="pending") == [4]
        assert await found(state=("active", "pending"), chain_id=1) == [2]
        assert await found(expires_by=int(NOW)) == [3]
        assert await found(expires_after=int(NOW), state="active") == [0, 1, 2]

    async def test_pages_hold_everything_once(self, store: SessionStore) -> None:
        """Page by page, also where records share a millisecond, nothing is missing and nothing twice."""
        records = [active(at=NOW + i // 4) for i in range(11)]
        for record in records:
            await store.save(record)
        seen: list[StoredSession] = []
        after, pages = None, 0
        while pages == 0 or after is not None:
            page = await store.list_page(limit=3, after=after)
            seen += page.records
            after, pages = page.next, pages + 1
        assert pages == 4
        assert seen == sorted(records, key=lambda record: (record.created_at, record.record_id))

    async def test_a_page_stays_in_its_place_when_records_come_and_go(self, store: SessionStore) -> None:
        """What is saved or deleted before the cursor does not shift the next page."""
        records = [active(at=NOW + i) for i in range(6)]
        for record in records:
            await store.save(record)
        first = await store.list_page(limit=2)
        await store.delete(records[0].record_id)
        await store.save(active(at=NOW - 10))
        second = await store.list_page(limit=2, after=first.next)
        assert list(second.records) == records[2:4]

    @pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": 1001}, {"after": "7"}, {"after": "x.y"}])
    async def test_wrong_pages_are_refused(self, store: SessionStore, wrong: dict[str, object]) -> None:
        """A size out of range, or a cursor that is none."""
        with pytest.raises(InvalidFieldError):
            await store.list_page(**wrong)

    async def test_a_state_changes_if_it_is_the_expected_one(
        self, store: SessionStore, clock: ManualClock
    ) -> None:
        """Compare and set: the new state, and when."""
        record = active()
        await store.save(record)
        clock.advance(5)
        changed = await store.change_state(record.record_id, "revoked", expected="active")
        assert (changed.state, changed.updated_at) == ("revoked", record.updated_at + 5000)
        assert await store.get(record.record_id) == changed

    async def test_a_state_does_not_change_from_another_one(self, store: SessionStore) -> None:
        """The comparison fails, and nothing is set."""
        record = active()
        await store.save(record)
        for expected in ("pending", "revoked"):
            with pytest.raises(RecordConflictError, match="is active"):
                await store.change_state(record.record_id, "expired", expected=expected)
        with pytest.raises(RecordConflictError, match="not in the store"):
            await store.change_state("0x" + "00" * 32, "expired", expected="active")
        assert await store.get(record.record_id) == record

    async def test_a_revoked_session_cannot_become_active(self, store: SessionStore) -> None:
        """States follow each other in one direction."""
        record = active()
        await store.save(record)
        await store.change_state(record.record_id, "revoked", expected="active")
        with pytest.raises(RecordConflictError, match="cannot become active"):
            await store.change_state(record.record_id, "active", expected="revoked")

    async def test_one_of_many_concurrent_changes_wins(self, store: SessionStore) -> None:
        """Of ten that expect the same state, one finds it."""
        record = active()
        await store.save(record)
        changes = [store.change_state(record.record_id, "revoked", expected="active") for _ in range(10)]
        results = await asyncio.gather(*changes, return_exceptions=True)
        assert sum(isinstance(result, StoredSession) for result in results) == 1
        assert sum(isinstance(result, RecordConflictError) for result in results) == 9

    async def test_a_pending_record_becomes_a_session(self, store: SessionStore) -> None:
        """Replacing needs the expected state; a second time it is another one."""
        record = pending(reference="row")
        await store.save(record)
        done = record.changed("active", now=NOW + 1, session=session())
        await store.replace(done, expected="pending")
        assert await store.get_by_reference("row") == done
        with pytest.raises(RecordConflictError):
            await store.replace(done, expected="pending")

    async def test_a_deleted_record_is_gone(self, store: SessionStore) -> None:
        """And its reference is free again."""
        record = active(reference="row")
        await store.save(record)
        assert await store.delete(record.record_id)
        assert not await store.delete(record.record_id)
        assert await store.get_by_reference("row") is None
        await store.save(active(reference="row"))

    async def test_a_record_in_another_state_is_not_deleted(self, store: SessionStore) -> None:
        """Deleting can compare as well."""
        record = active()
        await store.save(record)
        assert not await store.delete(record.record_id, expected="pending")
        assert await store.get(record.record_id) == record
        assert await store.delete(record.record_id, expected="active")

    async def test_what_has_ended_is_marked(self, store: SessionStore, clock: ManualClock) -> None:
        """Active and pending records expire; what lives on does not."""
        ended = [active(expires_at=int(NOW) - 1), evolve(pending(), expires_at=int(NOW))]
        lives = active(expires_at=int(NOW) + 1)
        for record in (*ended, lives):
            await store.save(record)
        assert await store.mark_expired() == 2
        assert await store.mark_expired() == 0
        states = [record.state async for record in store.find()]
        assert sorted(states) == ["active", "expired", "expired"]
        assert await store.get(lives.record_id) == lives

    async def test_what_has_ended_is_purged(self, store: SessionStore, clock: ManualClock) -> None:
        """And only that; what ended recently can be kept."""
        lives = active(expires_at=int(NOW) + 1)
        for record in (active(expires_at=int(NOW) - 100), active(expires_at=int(NOW) - 1), lives):
            await store.save(record)
        assert await store.purge_expired(ended_for_s=50) == 1
        assert await store.purge_expired() == 1
        assert [record async for record in store.find()] == [lives]

    async def test_a_clock_set_back_is_noticed(self, store: SessionStore, clock: ManualClock) -> None:
        """Nothing is called expired or forgotten by a clock that is behind the newest record; saving goes on."""
        ended = active(expires_at=int(NOW) - 10_000)
        await store.save(ended)
        clock.advance(-3600)
        for call in (store.mark_expired, store.purge_expired):
            with pytest.raises(StoreClockError, match="3600 s behind"):
                await call()
        assert await store.get(ended.record_id) == ended
        later = active(at=clock())
        await store.save(later)
        changed = await store.change_state(ended.record_id, "revoked", expected="active")
        assert changed.updated_at == ended.updated_at
        assert await store.get(later.record_id) == later

    async def test_a_record_from_the_future_is_named_and_can_be_mended(
        self, store: SessionStore, clock: ManualClock
    ) -> None:
        """Whoever has set the clock right again is not to wait until it has caught up."""
        ended, ahead = active(expires_at=int(NOW) - 100), active(at=NOW + 31_536_000)
        await store.save(ended)
        await store.save(ahead)
        with pytest.raises(StoreClockError, match="with the updated_at of now") as caught:
            await store.purge_expired()
        assert caught.value.request_id == ahead.record_id
        mended = evolve(ahead, updated_at=int(NOW * 1000))
        await store.replace(mended, expected="active")
        assert await store.purge_expired() == 1
        assert [record async for record in store.find()] == [mended]

    async def test_closing_twice_is_fine(self, store: SessionStore) -> None:
        """Whoever closes need not know who else did."""
        await store.aclose()
        await store.aclose()

    @pytest.mark.parametrize("wrong", ["a\0b", "\ud800", "x" * 201, "", 7])
    async def test_references_that_not_every_store_can_keep(self, store: SessionStore, wrong: Any) -> None:
        """The same error on every store, also for looking one up."""
        with pytest.raises(InvalidFieldError, match="reference"):
            active(reference=wrong)
        with pytest.raises(InvalidFieldError, match="reference"):
            await store.get_by_reference(wrong)
        with pytest.raises(InvalidFieldError, match="record_id"):
            await store.get(wrong)

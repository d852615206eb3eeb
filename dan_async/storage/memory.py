"""A session store in memory: for tests, and for programs that keep nothing."""

from __future__ import annotations

import heapq
import time

from dan_async._values import check_instance, check_number, check_reference, setting
from dan_async.errors import RecordConflictError
from dan_async.storage.base import (
    Page,
    SessionFilter,
    SessionState,
    SessionStore,
    StoredSession,
    check_clock,
    check_state,
    conflict,
    cursor_after,
    ended_by,
    page_start,
)
from dan_async.types import Clock, RequestId, TimeSpan


class MemorySessionStore(SessionStore):
    """
    Keeps records for as long as the object lives.

    Args:
        clock: The wall clock, in Unix seconds.
    """

    def __init__(self, *, clock: Clock = time.time) -> None:
        self._clock = clock
        self._records: dict[RequestId, StoredSession] = {}
        self._by_reference: dict[str, RequestId] = {}

    def __repr__(self) -> str:
        return f"MemorySessionStore({len(self._records)} records)"

    async def save(self, record: StoredSession) -> None:
        check_instance("record", record, StoredSession)
        if record.record_id in self._records:
            raise RecordConflictError(
                "the store already has a record with that id", request_id=record.record_id
            )
        if record.reference is not None:
            if record.reference in self._by_reference:
                raise RecordConflictError(
                    "the store already has a record with that reference",
                    hint="Choose another reference",
                    request_id=record.record_id,
                )
            self._by_reference[record.reference] = record.record_id
        self._records[record.record_id] = record

    async def get(self, record_id: RequestId) -> StoredSession | None:
        return self._records.get(RequestId(check_reference("record_id", record_id)))

    async def get_by_reference(self, reference: str) -> StoredSession | None:
        record_id = self._by_reference.get(check_reference("reference", reference))
        return None if record_id is None else self._records[record_id]

    async def list_page(
        self, where: SessionFilter | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        start = page_start(limit, after)
        wanted = setting("where", where, SessionFilter)
        found = heapq.nsmallest(
            limit + 1,
            (r for r in self._records.values() if wanted.matches(r) and (start is None or _place(r) > start)),
            key=_place,
        )
        last = None if len(found) <= limit else cursor_after(found[limit - 1])
        return Page(records=tuple(found[:limit]), next=last)

    async def replace(self, record: StoredSession, *, expected: SessionState) -> None:
        check_instance("record", record, StoredSession)
        self._expect(record.record_id, expected).check_next(record.state)
        self._records[record.record_id] = record

    async def change_state(
        self, record_id: RequestId, state: SessionState, *, expected: SessionState
    ) -> StoredSession:
        changed = self._expect(record_id, expected).changed(state, now=self._clock())
        self._records[record_id] = changed
        return changed

    def _expect(self, record_id: RequestId, expected: SessionState) -> StoredSession:
        check_state("expected", expected)
        record = self._records.get(RequestId(check_reference("record_id", record_id)))
        if record is None or record.state != expected:
            raise conflict(record_id, expected, None if record is None else record.state)
        return record

    async def delete(self, record_id: RequestId, *, expected: SessionState | None = None) -> bool:
        record = self._records.get(RequestId(check_reference("record_id", record_id)))
        if record is None or (expected is not None and record.state != expected):
            return False
        self._remove(record)
        return True

    def _remove(self, record: StoredSession) -> None:
        del self._records[record.record_id]
        if record.reference is not None:
            del self._by_reference[record.reference]

    async def mark_expired(self) -> int:
        now = self._clock()
        self._check_clock(now)
        ended = list(filter(ended_by(now).matches, self._records.values()))
        for record in ended:
            self._records[record.record_id] = record.changed("expired", now=now)
        return len(ended)

    async def purge_expired(self, *, ended_for_s: TimeSpan = 0.0) -> int:
        ended_for_s = check_number("ended_for_s", ended_for_s)
        now = self._clock()
        self._check_clock(now)
        ended = [record for record in self._records.values() if record.expires_at <= now - ended_for_s]
        for record in ended:
            self._remove(record)
        return len(ended)

    def _check_clock(self, now: float) -> None:
        check_clock(now, max((record.updated_at for record in self._records.values()), default=None))

    async def aclose(self) -> None:
        """Do nothing: the records stay with the object."""


def _place(record: StoredSession) -> tuple[int, str]:
    return record.created_at, record.record_id

"""Session stores: their records, the searches in them, the interface and checks that all share, and one in memory."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, Protocol, Self, TypeAlias, get_args, runtime_checkable

from attrs import asdict, evolve, field, frozen

from dan_async._values import (
    MAX_PERMISSIONS_LENGTH,
    MAX_SAFE_INT,
    check_algorithm,
    check_instance,
    check_int,
    check_list,
    check_number,
    check_private_key_hex,
    check_reference,
    check_text,
    from_hex,
    mask_secret,
    optional,
    required,
    setting,
)
from dan_async.config import MAX_PARTIES, Threshold
from dan_async.crypto.address import parse_address
from dan_async.errors import DanError, InvalidFieldError, RecordConflictError, StoreClockError
from dan_async.protocols.fields import new_request_id
from dan_async.session import DanSessionKeyPayload
from dan_async.types import Address, Clock, KeyAlgorithm, RequestId, TimeSpan

_log = logging.getLogger(__name__)

#: waiting: for the owner's signature, so that nothing can have been made; pending: asked for, its outcome not known; active:
#: usable; expired: its time was over by the clock of whoever said so, which may have been wrong; failed: no key was made.
SessionState: TypeAlias = Literal["waiting", "pending", "active", "revoked", "expired", "failed"]
STATES: tuple[SessionState, ...] = get_args(SessionState)

#: Which state may follow which.
_NEXT: Mapping[SessionState, frozenset[SessionState]] = {
    "waiting": frozenset({"pending"}),
    "pending": frozenset({"pending", "active", "failed", "expired"}),
    "active": frozenset({"active", "revoked", "expired"}),
    "revoked": frozenset({"revoked"}),
    "expired": frozenset({"pending", "active"}),
    "failed": frozenset(),
}


#: Longest text of a grant, in characters.
_MOST_GRANT = 2**21


def check_state(name: str, value: object) -> SessionState:
    if not isinstance(value, str) or value not in STATES:
        raise InvalidFieldError(name, f"must be one of {', '.join(STATES)}")
    return value


@frozen(kw_only=True)
class KeygenIntent:
    """
    A request for a key, as far as it is needed to find out later how its key generation ended.

    Args:
        hex_eph_sk: The ephemeral private key: 64 hex digits. Secret; masked in repr.
        eph_id: Its name on the nodes.
        eph_alg: Its algorithm.
        owner_id: The owner who authorises: the EOA's address, or the passkey's credential id.
        threshold: t.
        parties_number: n.
        min_parties: The smallest n that was allowed, if any.
        permissions: The session's permissions as JSON text; None for no limits.
        key_label: The label that the network keeps with the key.
        min_holders: How many nodes were to acknowledge that they hold a share, if that was said.
        opened: The nodes that wait for the owner's signature, and their nonces, as the network writes them; None for a key
            that was not begun with ``begin_session_key``.
    """

    hex_eph_sk: str = field(repr=mask_secret, validator=required(check_private_key_hex))
    eph_id: str = field(validator=required(check_text, most=256))
    eph_alg: KeyAlgorithm = field(validator=required(check_algorithm))
    owner_id: str = field(validator=required(check_text))
    threshold: int = field()
    parties_number: int = field()
    min_parties: int | None = field(default=None, validator=optional(check_int, least=2, most=MAX_PARTIES))
    permissions: str | None = field(default=None, validator=optional(check_text, most=MAX_PERMISSIONS_LENGTH))
    key_label: str | None = field(default=None, validator=optional(check_text, most=256))
    min_holders: int | None = field(default=None, validator=optional(check_int, least=2, most=MAX_PARTIES))
    opened: str | None = field(default=None, repr=False, validator=optional(check_text, most=16 * 1024))

    def __attrs_post_init__(self) -> None:
        Threshold(self.threshold, self.parties_number)


@frozen(kw_only=True)
class StoredSession:
    """
    A record: the request for a key, and the session that came of it.

    Args:
        record_id: The id of the request that made it, under which the nodes know it; 0x and 64 hex digits.
        owner: The owner's address, EIP-55.
        chain_id: The chain it is meant for.
        state: Its state; docs/how-to/storage.md explains each.
        expires_at: When the ephemeral key ends, in Unix seconds.
        created_at: When the record was made, in Unix milliseconds.
        updated_at: When it was changed last, in Unix milliseconds.
        reference: The caller's own name for it, unique within the store; at most 200 characters. Not encrypted.
        intent: The request; None for a session that was made elsewhere.
        session: The session; None until there is one.
        problem: Why it failed, or why its outcome is not known; of a revoked one, which nodes have not confirmed that, empty
            if all have. Never a secret.
        worker: The process that works on a pending record; empty if none does.
        busy_until: When that process will have given it up at the latest, in Unix milliseconds; of a waiting record, until
            when the nodes wait for its owner.
        grant: The leaf of an account's tree on a chain that the record stands for, as ``dan_async.userops`` writes it;
            empty for all other records. Such a record has no session if the leaf's key is kept elsewhere.
    """

    record_id: RequestId = field(converter=RequestId)
    owner: Address = field(converter=Address, validator=required(parse_address))
    chain_id: int = field(validator=required(check_int, least=1, most=MAX_SAFE_INT))
    state: SessionState = field()
    expires_at: int = field(validator=required(check_int, least=0, most=MAX_SAFE_INT))
    created_at: int = field(validator=required(check_int, least=0, most=MAX_SAFE_INT))
    updated_at: int = field(validator=required(check_int, least=0, most=MAX_SAFE_INT))
    reference: str | None = field(default=None, validator=optional(check_reference))
    intent: KeygenIntent | None = None
    session: DanSessionKeyPayload | None = None
    problem: str = field(default="", validator=required(check_text, least=0, most=2000))
    worker: str = field(default="", validator=required(check_text, least=0, most=200))
    busy_until: int = field(default=0, validator=required(check_int, least=0, most=MAX_SAFE_INT))
    grant: str = field(default="", repr=False, validator=required(check_text, least=0, most=_MOST_GRANT))

    def __attrs_post_init__(self) -> None:
        from_hex(self.record_id, field="record_id", length=32, prefix=True)
        check_state("state", self.state)
        if self.session is None and not self.grant and self.state in ("active", "revoked"):
            raise InvalidFieldError("session", f"is missing, and the record is {self.state}")
        if self.state in ("waiting", "pending") and self.intent is None:
            raise InvalidFieldError("intent", f"is missing, and the record is {self.state}")

    @classmethod
    def of(
        cls,
        session: DanSessionKeyPayload,
        *,
        now: float,
        record_id: RequestId | None = None,
        reference: str | None = None,
    ) -> Self:
        """
        Return the record of a session that was made elsewhere.

        Args:
            session: The session; its *expires_at* must be known.
            now: The time, in Unix seconds.
            record_id: Its name in the store; a random one if None.
            reference: The caller's own name for it.

        Raises:
            InvalidFieldError: The session does not say when it ends.
        """
        if session.expires_at is None:
            raise InvalidFieldError("expires_at", "is not known, so the session cannot be kept")
        moment = int(now * 1000)
        return cls(
            record_id=record_id or new_request_id(),
            owner=session.eoa_address,
            chain_id=session.chain_id,
            state="active",
            expires_at=session.expires_at,
            created_at=moment,
            updated_at=moment,
            reference=reference,
            session=session,
        )

    def check_next(self, state: SessionState) -> None:
        """
        Check that a state may follow this one.

        Args:
            state: The state that is to follow.

        Raises:
            RecordConflictError: It may not.
        """
        check_state("state", state)
        if state not in _NEXT[self.state]:
            raise RecordConflictError(
                f"the record is {self.state}, and cannot become {state}", request_id=self.record_id
            )

    def changed(
        self,
        state: SessionState,
        *,
        now: float,
        session: DanSessionKeyPayload | None = None,
        problem: str | None = None,
    ) -> Self:
        """
        Return the record in another state, with nobody at work on it.

        Args:
            state: The state that follows.
            now: The time, in Unix seconds.
            session: The session, if that is new.
            problem: The problem to note, if that is new.

        Raises:
            RecordConflictError: The one state does not follow the other.
        """
        self.check_next(state)
        return evolve(
            self,
            state=state,
            # Never earlier than before, so that a clock that was set back shows.
            updated_at=max(int(now * 1000), self.updated_at),
            session=session or self.session,
            problem=self.problem if problem is None else problem,
            worker="",
            busy_until=0,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON members, secrets included."""
        found = asdict(self, recurse=False)
        if self.intent is not None:
            found["intent"] = asdict(self.intent, filter=lambda _, value: value is not None)
        found["session"] = None if self.session is None else self.session.to_dict(extended=True)
        if not self.grant:  # nor what else is not there: as earlier versions of the package read it
            del found["grant"]
        return found

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """
        Read the result of ``to_dict``.

        Args:
            value: What ``to_dict`` returned.

        Raises:
            InvalidFieldError: It has another form.
        """
        try:
            found = dict(value)
            if found["intent"] is not None:
                found["intent"] = KeygenIntent(**found["intent"])
            if found["session"] is not None:
                found["session"] = DanSessionKeyPayload.from_dict(found["session"])
            return cls(**found)
        except DanError:
            raise
        except (KeyError, TypeError, ValueError):
            raise InvalidFieldError("record", "has other members than this version knows") from None


def _states(value: object) -> tuple[SessionState, ...]:
    given = (value,) if isinstance(value, str) else check_list("state", value)
    return tuple(check_state("state", state) for state in given)


@frozen(kw_only=True)
class SessionFilter:
    """
    Which records to find; every condition that is set must hold.

    Args:
        owner: The owner's address.
        chain_id: The chain.
        state: One state or several; any if empty.
        expires_after: Only those that end later than this, in Unix seconds.
        expires_by: Only those that have ended at this time, in Unix seconds.
    """

    owner: Address | str | None = field(default=None)
    chain_id: int | None = field(default=None, validator=optional(check_int, least=1, most=MAX_SAFE_INT))
    state: tuple[SessionState, ...] = field(default=(), converter=_states)
    expires_after: int | None = field(default=None, validator=optional(check_int, least=0, most=MAX_SAFE_INT))
    expires_by: int | None = field(default=None, validator=optional(check_int, least=0, most=MAX_SAFE_INT))

    def __attrs_post_init__(self) -> None:
        if self.owner is not None:  # records hold the EIP-55 form
            object.__setattr__(self, "owner", parse_address("owner", self.owner))

    def matches(self, record: StoredSession) -> bool:
        """
        Return whether a record meets every condition.

        Args:
            record: The record.
        """
        return (
            (self.owner is None or record.owner == self.owner)
            and (self.chain_id is None or record.chain_id == self.chain_id)
            and (not self.state or record.state in self.state)
            and (self.expires_after is None or record.expires_at > self.expires_after)
            and (self.expires_by is None or record.expires_at <= self.expires_by)
        )


@frozen(kw_only=True)
class Page:
    """
    Some records, oldest first.

    Args:
        records: The records.
        next: Where the next page begins, for *after*; None after the last one.
        unreadable: The ids of records that match, and are encrypted with a key that is not known here.
    """

    records: tuple[StoredSession, ...]
    next: str | None = None
    unreadable: tuple[RequestId, ...] = ()


@runtime_checkable
class SessionStore(Protocol):
    """
    Keeps records of sessions.

    Once a method has returned, its change is kept. Every method may raise a subclass of ``StoreError``. A class of your own
    may be derived from this one, which then has ``find``, or just have the methods.
    """

    async def save(self, record: StoredSession) -> None:
        """
        Keep a new record.

        Args:
            record: The record.

        Raises:
            RecordConflictError: Its id or its reference is taken.
        """

    async def get(self, record_id: RequestId) -> StoredSession | None:
        """
        Return a record, or None if there is none of that id.

        Args:
            record_id: The record's id: the request id of its key generation.
        """

    async def get_by_reference(self, reference: str) -> StoredSession | None:
        """
        Return the record with that reference, or None.

        Args:
            reference: The caller's own name for the session.
        """

    async def find(self, where: SessionFilter | None = None) -> AsyncIterator[StoredSession]:
        """
        Yield the records that match, oldest first, read a page at a time.

        Changes made meanwhile may be seen or not; nothing is seen twice. Records that are encrypted with a key that is not
        known here are passed over, with a warning in the log.

        Args:
            where: What a record must meet; all records if not given.
        """
        page = await self.list_page(where)
        while True:
            if page.unreadable:
                count, example = len(page.unreadable), page.unreadable[0]
                _log.warning(
                    "%d records are encrypted with a key that is not known here: %s …", count, example
                )
            for record in page.records:
                yield record
            if page.next is None:
                return
            page = await self.list_page(where, after=page.next)

    async def list_page(
        self, where: SessionFilter | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """
        Return one page of the records that match, oldest first.

        Args:
            where: Which ones; all if None.
            limit: How many at most, 1 to 1000.
            after: ``Page.next`` of the page before.

        Raises:
            InvalidFieldError: *limit* or *after* is wrong.
        """

    async def replace(self, record: StoredSession, *, expected: SessionState) -> None:
        """
        Put a record in the place of the one with its id, if that is in the expected state: compare and set.

        Args:
            record: The new record.
            expected: The state that the present one must have.

        Raises:
            RecordConflictError: There is none, it is in another state, or the new state does not follow.
        """

    async def change_state(
        self, record_id: RequestId, state: SessionState, *, expected: SessionState
    ) -> StoredSession:
        """
        Change a record's state, if it is the expected one: compare and set.

        Args:
            record_id: The record's id: the request id of its key generation.
            state: The new state.
            expected: The state that it must have.

        Returns:
            The record as it is now.

        Raises:
            RecordConflictError: There is none, it is in another state, or the new state does not follow.
        """

    async def delete(self, record_id: RequestId, *, expected: SessionState | None = None) -> bool:
        """
        Return whether a record was deleted: one in the expected state, or in any if none is given.

        Args:
            record_id: The record's id: the request id of its key generation.
            expected: The state that it must have; any if not given.
        """

    async def mark_expired(self) -> int:
        """
        Return how many records were marked as expired: every one whose key has ended.

        Raises:
            StoreClockError: The clock is behind the newest record; nothing was changed.
        """

    async def purge_expired(self, *, ended_for_s: TimeSpan = 0.0) -> int:
        """
        Return how many records were deleted: every one whose key has ended, whatever its state.

        An expired session can be rotated and then used again; a deleted one cannot.

        Args:
            ended_for_s: Only those that have ended for so many seconds.

        Raises:
            StoreClockError: The clock is behind the newest record; nothing was deleted.
        """

    async def aclose(self) -> None:
        """Close files and connections. May be called twice."""


async def find_record(store: SessionStore, name: str) -> StoredSession | None:
    """Return the record of an id or a reference."""
    is_id = name.startswith("0x") and len(name) == 66
    found = await store.get(RequestId(name.lower())) if is_id else None
    return found or await store.get_by_reference(name)


def cursor_after(record: Any) -> str:
    """Return the cursor that ``page_start`` reads: time and id of a page's last record."""
    return f"{record.created_at}.{record.record_id}"


def page_start(limit: object, after: str | None) -> tuple[int, str] | None:
    """Check where a page begins and how long it is. Return the time and the id of the record before it."""
    check_int("limit", limit, least=1, most=1000)
    if after is None:
        return None
    moment, point, record_id = after.partition(".") if isinstance(after, str) else ("", "", "")
    if not point or not (moment.isascii() and moment.isdigit()) or len(moment) > 16:
        raise InvalidFieldError("after", "is not where a page ended", hint="Pass on Page.next as it is")
    return int(moment), record_id


def ended_by(now: float) -> SessionFilter:
    """Return the filter of records to be marked as expired; *now* is in Unix seconds."""
    return SessionFilter(state=("pending", "active"), expires_by=max(0, int(now)))


def conflict(record_id: str, expected: SessionState, found: str | None) -> RecordConflictError:
    said = "is not in the store" if found is None else f"is {found}"
    return RecordConflictError(f"the record {said}, expected was {expected}", request_id=record_id)


def taken(record_id: str | None = None) -> RecordConflictError:
    problem = "the store already has a record with that id or reference"
    return RecordConflictError(problem, hint="Choose another reference", request_id=record_id)


#: How far the clocks of processes that share a store may be apart, in milliseconds.
_CLOCK_TOLERANCE_MS = 60_000


def check_clock(now: float, newest_id: str, newest_ms: int) -> None:
    """Refuse to call anything expired by a clock that is behind the newest record; *now* is in Unix seconds."""
    if now * 1000 + _CLOCK_TOLERANCE_MS < newest_ms:
        behind_s = newest_ms / 1000 - now
        raise StoreClockError(
            f"the clock is {behind_s:.0f} s behind the newest record, so nothing can be called expired",
            hint="Set the clock. If it is right, it was wrong when that record was written: replace the record by itself"
            " with the updated_at of now, or delete it",
            request_id=newest_id,
        )


# --- a store in memory ---------------------------------------------------------------------------------------------------


class MemorySessionStore(SessionStore):
    """
    A store for tests, and for programs that keep nothing: it keeps records for as long as the object lives.

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
        if record.record_id in self._records or record.reference in self._by_reference:
            raise taken(record.record_id)
        if record.reference is not None:
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
        for newest in heapq.nlargest(1, self._records.values(), key=lambda record: record.updated_at):
            check_clock(now, newest.record_id, newest.updated_at)

    async def aclose(self) -> None:
        """Do nothing: the records stay with the object."""


def _place(record: StoredSession) -> tuple[int, str]:
    return record.created_at, record.record_id

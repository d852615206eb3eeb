"""What a session store does, whatever it keeps its records in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from attrs import field, frozen

from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int, optional
from dan_async.storage.record import SessionState, StoredSession, check_state
from dan_async.types import Address, RequestId

__all__ = ["Page", "SessionFilter", "SessionStore", "check_limit", "decode_cursor", "encode_cursor"]

#: Most records that one page holds.
MOST_PER_PAGE = 1000


def _states(value: object) -> tuple[SessionState, ...]:
    given = (value,) if isinstance(value, str) else tuple(value)  # type: ignore[arg-type]  # checked one by one
    return tuple(check_state("state", state) for state in given)


@frozen(kw_only=True)
class SessionFilter:
    """
    Which records are meant; every given condition must hold.

    Args:
        owner: The owner's address.
        chain_id: The chain.
        state: One state or several; any if empty.
        expires_after: Only what ends later than this, in Unix seconds.
        expires_by: Only what has ended at this time, in Unix seconds.
    """

    owner: Address | str | None = field(default=None)
    chain_id: int | None = field(default=None, validator=optional(check_int, least=1, most=2**53 - 1))
    state: tuple[SessionState, ...] = field(default=(), converter=_states)
    expires_after: int | None = field(default=None, validator=optional(check_int, least=0, most=2**53 - 1))
    expires_by: int | None = field(default=None, validator=optional(check_int, least=0, most=2**53 - 1))

    def __attrs_post_init__(self) -> None:
        if self.owner is not None:  # records hold the EIP-55 form
            object.__setattr__(self, "owner", parse_address("owner", self.owner))

    def matches(self, record: StoredSession) -> bool:
        """Whether a record is meant."""
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
    """

    records: tuple[StoredSession, ...]
    next: str | None = None


@runtime_checkable
class SessionStore(Protocol):
    """
    Keeps records of sessions.

    What a method has returned from is kept. Everything may raise ``StoreError``, whose subclasses say what is wrong.
    """

    async def save(self, record: StoredSession) -> None:
        """
        Keep a new record.

        Raises:
            RecordConflictError: Its id or its reference is taken.
        """
        ...

    async def get(self, record_id: RequestId) -> StoredSession | None:
        """Give a record, or None if there is none of that id."""
        ...

    async def get_by_reference(self, reference: str) -> StoredSession | None:
        """Give the record with that reference, or None."""
        ...

    def find(self, where: SessionFilter | None = None) -> AsyncIterator[StoredSession]:
        """
        Go through the records that are meant, oldest first, a page at a time.

        What is saved or changed meanwhile may be seen or not; nothing is seen twice.
        """
        ...

    async def list_page(
        self, where: SessionFilter | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        """
        Give one page of the records that are meant, oldest first.

        Args:
            where: Which ones; all if None.
            limit: How many at most, 1 to 1000.
            after: ``Page.next`` of the page before.

        Raises:
            InvalidFieldError: *limit* or *after* is wrong.
        """
        ...

    async def replace(self, record: StoredSession, *, expected: SessionState) -> None:
        """
        Put a record in the place of the one with its id, if that is in the expected state: compare and set.

        Raises:
            RecordConflictError: There is none, it is in another state, or the new state does not follow.
        """
        ...

    async def change_state(
        self, record_id: RequestId, state: SessionState, *, expected: SessionState
    ) -> StoredSession:
        """
        Change a record's state, if it is the expected one: compare and set.

        Returns:
            The record as it is now.

        Raises:
            RecordConflictError: There is none, it is in another state, or the new state does not follow.
        """
        ...

    async def delete(self, record_id: RequestId, *, expected: SessionState | None = None) -> bool:
        """Forget a record; only if it is in the expected state, if one is given. Says whether it was there."""
        ...

    async def mark_expired(self) -> int:
        """
        Change the state of everything that has ended to expired; says how many those were.

        Raises:
            StoreClockError: The clock is behind what is stored; nothing was changed.
        """
        ...

    async def purge_expired(self, *, ended_for_s: float = 0.0) -> int:
        """
        Forget everything that has ended, whatever its state; says how many those were.

        Args:
            ended_for_s: Only what has ended for so many seconds.

        Raises:
            StoreClockError: The clock is behind what is stored; nothing was forgotten.
        """
        ...

    async def aclose(self) -> None:
        """Let go of files and connections. May be called twice."""
        ...


def check_limit(limit: object) -> int:
    """Check the size of a page."""
    return check_int("limit", limit, least=1, most=MOST_PER_PAGE)


def encode_cursor(record: StoredSession) -> str:
    """Say where the page after a record begins."""
    return f"{record.created_at}.{record.record_id}"


def decode_cursor(after: str | None) -> tuple[int, str] | None:
    """
    Read what ``encode_cursor`` gave.

    Raises:
        InvalidFieldError: It is not that.
    """
    if after is None:
        return None
    moment, point, record_id = after.partition(".") if isinstance(after, str) else ("", "", "")
    if not point or not (moment.isascii() and moment.isdigit()) or len(moment) > 16:
        raise InvalidFieldError("after", "is not where a page ended", hint="Pass on Page.next as it is")
    return int(moment), record_id

"""
A session store in a database: SQLite in one file, or PostgreSQL. Needs the extra ``storage``.

Records are kept as encrypted bytes: AES-256-GCM, with the record's id, its owner and the key's id as associated data. Every
column that stands in the clear for searching also stands in the encrypted body, and the two are compared when the record is
opened. So whoever can write to the database can delete a record, or put an older form of it back, but cannot change one, nor
put one in the place of another.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeVar

from attrs import asdict, define, field, fields, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dan_async._values import check_instance, check_number, check_reference, check_seconds, setting
from dan_async.deadline import OneLoop, cancel_and_wait, carry_through
from dan_async.errors import (
    ClientClosedError,
    InvalidFieldError,
    RecordConflictError,
    StoreError,
    StoreKeyError,
    StoreTamperedError,
    StoreUnavailableError,
    require_extra,
)
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
    taken,
)
from dan_async.storage.keys import KeySource, StoreKey
from dan_async.types import Clock, RequestId, TimeSpan

for _module in ("sqlalchemy", "alembic", "greenlet"):
    require_extra(_module, extra="storage", purpose="A session store in a database")

import sqlalchemy as sa  # noqa: E402 - only after it is known to be there
from sqlalchemy.dialects.postgresql import insert as postgresql_insert  # noqa: E402 - same
from sqlalchemy.dialects.sqlite import insert as sqlite_insert  # noqa: E402 - same
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine  # noqa: E402 - same

from dan_async.storage.database import (  # noqa: E402 - same
    HEAD,
    READS_ONLY,
    Database,
    bring_up_to_date,
    closed,
    found_revision,
    make_file,
    parse_url,
    sessions_table,
    translated,
)

__all__ = ["SQLAlchemyStore"]

T = TypeVar("T")

#: How many writes share a commit at most.
_MOST_TOGETHER = 256

#: How many commits run at the same time at most, and after how many seconds without an answer the next one begins.
_MOST_AT_ONCE = 4
_STUCK_S = 1.0
#: The record that was changed last.
_NEWEST = sa.select(sessions_table).order_by(sessions_table.c.updated_at.desc()).limit(1)

#: How often a change is tried when the record keeps its state and is written by others meanwhile.
_TRIES = 5

#: How many records are encrypted anew before others have their turn on the event loop.
_SEALED_AT_A_TURN = 16

_LONGEST_WAIT_S = 3600.0


class SQLAlchemyStore(SessionStore):
    """
    Keeps encrypted records in a database.

    Making one does no I/O; it opens itself when it is first used, and brings an older schema up to date. Use it as an async
    context manager, or call ``aclose()``. One store serves any number of concurrent calls on its event loop; several
    processes may use one database.

    Args:
        url: ``sqlite:///file.db``, ``sqlite:////absolute/file.db`` or ``postgresql://user:password@host/database``.
        keys: The encryption keys.
        migrate: Whether an older schema, or none, may be brought up to date.
        lock_wait_s: How long to wait for somebody else's lock, in seconds.
        answer_wait_s: How long to wait for the database otherwise, in seconds, before the connection counts as dead.
        clock: The wall clock, in Unix seconds.

    Raises:
        InvalidFieldError: The URL is not one of these, or *keys* is no source of keys.
        MissingExtraError: The extra is not installed.
    """

    def __init__(
        self,
        url: str,
        keys: KeySource,
        *,
        migrate: bool = True,
        lock_wait_s: TimeSpan = 5.0,
        answer_wait_s: TimeSpan = 10.0,
        clock: Clock = time.time,
    ) -> None:
        self._url = parse_url(url)
        if not isinstance(keys, KeySource):
            raise InvalidFieldError(
                "keys", "is not a source of keys", hint='For example keys_from_file("keys.key")'
            )
        lock_wait_s = check_seconds("lock_wait_s", lock_wait_s, most=_LONGEST_WAIT_S)
        answer_wait_s = check_seconds("answer_wait_s", answer_wait_s, most=_LONGEST_WAIT_S)
        self._database = Database(self._url, lock_wait_s=lock_wait_s, answer_wait_s=answer_wait_s)
        self._answer_wait_s = answer_wait_s
        insert = sqlite_insert if self._url.drivername.startswith("sqlite") else postgresql_insert
        self._insert = insert(sessions_table).on_conflict_do_nothing()
        self._sealer = Sealer(keys)
        self._may_migrate = migrate
        self._clock = clock
        self._writer = GroupWriter(self._database)
        self._opening = asyncio.Lock()
        self._loop = OneLoop("store")
        self._is_open = False
        self._is_closed = False

    def __repr__(self) -> str:
        return f"SQLAlchemyStore({self._url.render_as_string(hide_password=True)!r})"

    @property
    def engine(self) -> AsyncEngine:
        """SQLAlchemy's engine, for its events."""
        return self._database.engine

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def open(self) -> None:
        """
        Connect, bring the schema up to date, and check that the key is the right one. May be called twice.

        Raises:
            StoreUnavailableError: The database cannot be reached or opened.
            StoreCorruptedError: The file is damaged, or is no database.
            StoreSchemaError: The schema is newer than this package, or older and must not be changed.
            StoreKeyError: The newest record was encrypted with another key.
            ClientClosedError: The store was closed.
        """
        if self._is_closed:
            raise closed()
        self._loop.check()
        if self._is_open:
            return
        async with self._opening:
            if self._is_open:
                return
            if self._url.drivername.startswith("sqlite"):
                with translated():
                    await asyncio.to_thread(make_file, self._url)
            if not await self._database.use(self._is_up_to_date):
                await self._database.use(self._bring_up_to_date)
            rows = await self._fetch(_NEWEST)
            # A record that was changed says nothing against the key; whoever reads the record gets the error.
            with suppress(StoreTamperedError):
                for sealed in map(_sealed, rows):
                    self._sealer.last_used = sealed.key_id
                    await self._sealer.open(sealed)
            await self._sealer.current_key_id()
            self._is_open = True

    async def _is_up_to_date(self, plain: AsyncConnection) -> bool:
        """Reading waits for no other program that writes."""
        connection = await plain.execution_options(**{READS_ONLY: True})
        return await connection.run_sync(found_revision) == HEAD

    async def _bring_up_to_date(self, connection: AsyncConnection) -> None:
        async with connection.begin():
            await connection.run_sync(bring_up_to_date, allowed=self._may_migrate)

    async def aclose(self) -> None:
        """Finish the writes that wait, and close every connection. May be called twice."""
        if self._is_closed:
            return
        self._loop.check()
        self._is_closed = True
        try:
            await self._writer.aclose(self._answer_wait_s)
        finally:
            await carry_through(self._database.aclose())

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _fetch(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        async def fetch(plain: AsyncConnection) -> list[sa.Row[Any]]:
            connection = await plain.execution_options(**{READS_ONLY: True})
            return list((await connection.execute(query)).all())

        return await self._database.use(fetch)

    async def _first(self, query: sa.Select[Any]) -> StoredSession | None:
        await self.open()
        rows = await self._fetch(query)
        return await self._sealer.open(_sealed(rows[0])) if rows else None

    async def get(self, record_id: RequestId) -> StoredSession | None:
        check_reference("record_id", record_id)
        return await self._first(sa.select(sessions_table).where(sessions_table.c.record_id == record_id))

    async def get_by_reference(self, reference: str) -> StoredSession | None:
        check_reference("reference", reference)
        return await self._first(sa.select(sessions_table).where(sessions_table.c.reference == reference))

    async def list_page(
        self, where: SessionFilter | None = None, *, limit: int = 100, after: str | None = None
    ) -> Page:
        start = page_start(limit, after)
        query = sa.select(sessions_table).where(*_conditions(setting("where", where, SessionFilter)))
        if start is not None:
            query = query.where(
                sa.tuple_(sessions_table.c.created_at, sessions_table.c.record_id) > sa.tuple_(*start)
            )
        await self.open()
        rows = await self._fetch(
            query.order_by(sessions_table.c.created_at, sessions_table.c.record_id).limit(limit + 1)
        )
        records, unreadable = [], []
        for row in rows[:limit]:
            try:
                records.append(await self._sealer.open(_sealed(row)))
            except StoreKeyError as error:
                if error.retryable:
                    raise  # the key service is down
                unreadable.append(row.record_id)
        last = None if len(rows) <= limit else cursor_after(rows[limit - 1])
        return Page(records=tuple(records), next=last, unreadable=tuple(unreadable))

    # --- writing ------------------------------------------------------------------------------------------------------

    async def save(self, record: StoredSession) -> None:
        check_instance("record", record, StoredSession)
        await self.open()
        values = {**asdict(await self._sealer.seal(record)), "version": 1}

        def write(connection: sa.Connection) -> None:
            if connection.execute(self._insert, values).rowcount == 0 and not _is_written(connection, values):
                raise taken(record.record_id)

        await self._writer.run(write)

    async def replace(self, record: StoredSession, *, expected: SessionState) -> None:
        check_instance("record", record, StoredSession)
        await self._change(record.record_id, expected, lambda _: record)

    async def change_state(
        self, record_id: RequestId, state: SessionState, *, expected: SessionState
    ) -> StoredSession:
        return await self._change(record_id, expected, lambda known: known.changed(state, now=self._clock()))

    async def _change(
        self, record_id: RequestId, expected: SessionState, change: Callable[[StoredSession], StoredSession]
    ) -> StoredSession:
        check_reference("record_id", record_id)
        check_state("expected", expected)
        await self.open()
        for _ in range(_TRIES):
            rows = await self._fetch(sa.select(sessions_table).where(sessions_table.c.record_id == record_id))
            if not rows or rows[0].state != expected:
                raise conflict(record_id, expected, rows[0].state if rows else None)
            known = await self._sealer.open(_sealed(rows[0]))
            record = change(known)
            known.check_next(record.state)
            if await self._update(record, rows[0].version):
                return record
        raise RecordConflictError("others keep changing the record", request_id=record_id)

    async def _update(self, record: StoredSession, version: int) -> bool:
        """Write a record if it is still the version that was read."""
        values = asdict(await self._sealer.seal(record))
        change = _change_of(values, version)
        return await self._writer.run(
            lambda connection: (
                connection.execute(_UPDATE, change).rowcount == 1 or _is_written(connection, values)
            )
        )

    async def delete(self, record_id: RequestId, *, expected: SessionState | None = None) -> bool:
        check_reference("record_id", record_id)
        await self.open()
        delete = sa.delete(sessions_table).where(sessions_table.c.record_id == record_id)
        if expected is not None:
            delete = delete.where(sessions_table.c.state == expected)
        found = False

        def write(connection: sa.Connection) -> bool:
            nonlocal found  # a repetition that finds nothing more may follow a commit whose answer was lost
            found = connection.execute(delete).rowcount == 1 or found
            return found

        return await self._writer.run(write)

    async def mark_expired(self) -> int:
        await self._check_clock()
        count = 0
        async for record in self.find(ended_by(self._clock())):
            try:
                await self.change_state(record.record_id, "expired", expected=record.state)
                count += 1
            except RecordConflictError:
                continue  # somebody else changed it meanwhile
        return count

    async def purge_expired(self, *, ended_for_s: TimeSpan = 0.0) -> int:
        ended_for_s = check_number("ended_for_s", ended_for_s)
        await self._check_clock()
        delete = sa.delete(sessions_table).where(
            sessions_table.c.expires_at <= int(self._clock() - ended_for_s)
        )
        gone: set[str] = set()  # also those of a commit whose answer was lost

        def write(connection: sa.Connection) -> int:
            gone.update(connection.execute(delete.returning(sessions_table.c.record_id)).scalars())
            return len(gone)

        return await self._writer.run(write)

    async def _check_clock(self) -> None:
        await self.open()
        rows = await self._fetch(_NEWEST)
        with suppress(StoreTamperedError):  # one that was changed says nothing of the clock
            for newest in map(_sealed, rows):
                check_clock(self._clock(), newest.record_id, newest.updated_at)

    async def rotate_keys(self) -> int:
        """
        Return how many records were encrypted anew: every one that was not under the current key. The store may be in use.

        Safe to stop and to repeat. The older keys are needed until it has come to its end.

        Raises:
            StoreKeyError: A record's key is not known.
            StoreTamperedError: A record was changed by other hands; the others before it are done.
        """
        await self.open()
        current = await self._sealer.current_key_id()
        count, last = 0, ""
        while True:
            rows = await self._fetch(
                sa.select(sessions_table)
                .where(sessions_table.c.key_id != current, sessions_table.c.record_id > last)
                .order_by(sessions_table.c.record_id)
                .limit(_MOST_TOGETHER)
            )
            if not rows:
                return count
            changes = []
            for place, row in enumerate(rows):
                if place % _SEALED_AT_A_TURN == 0:
                    await asyncio.sleep(0)
                changes.append(_change_of(asdict(await self._sealer.renew(_sealed(row))), row.version))
            # One that was changed meanwhile is under the current key already.
            count += await self._writer.run(partial(_write_changes, changes))
            last = rows[-1].record_id


def _conditions(where: SessionFilter) -> list[sa.ColumnElement[bool]]:
    found: list[sa.ColumnElement[bool]] = []
    if where.owner is not None:
        found.append(sessions_table.c.owner == where.owner)
    if where.chain_id is not None:
        found.append(sessions_table.c.chain_id == where.chain_id)
    if where.state:
        found.append(sessions_table.c.state.in_(where.state))
    if where.expires_after is not None:
        found.append(sessions_table.c.expires_at > where.expires_after)
    if where.expires_by is not None:
        found.append(sessions_table.c.expires_at <= where.expires_by)
    return found


#: The types of a row's values, which SQLite leaves to whoever writes them.
_KINDS = {
    column.name: (column.type.python_type, type(None)) if column.nullable else (column.type.python_type,)
    for column in sessions_table.c
}


def _sealed(row: sa.Row[Any]) -> SealedRecord:
    sealed = SealedRecord(**{column.name: getattr(row, column.name) for column in fields(SealedRecord)})
    if not all(isinstance(getattr(row, name), kinds) for name, kinds in _KINDS.items()):
        raise _tampered(sealed)
    return sealed


#: Writes a record if it is still the version that was read. Made once: building it costs more than encrypting a record.
_UPDATE = sa.update(sessions_table).where(
    sessions_table.c.record_id == sa.bindparam("known_id"),
    sessions_table.c.version == sa.bindparam("known_version"),
)


def _change_of(values: dict[str, Any], version: int) -> dict[str, Any]:
    return {**values, "version": version + 1, "known_id": values["record_id"], "known_version": version}


def _write_changes(changes: Sequence[dict[str, Any]], connection: sa.Connection) -> int:
    """Write all of these that are still the version that was read; return how many are in the store as they were sealed."""
    connection.execute(_UPDATE, changes)
    wanted = {change["record_id"]: change["body"] for change in changes}
    rows = connection.execute(
        sa.select(sessions_table.c.record_id, sessions_table.c.body).where(
            sessions_table.c.record_id.in_(wanted)
        )
    )
    return sum(wanted[record_id] == body for record_id, body in rows)


def _is_written(connection: sa.Connection, values: Mapping[str, Any]) -> bool:
    """Whether a record is in the store as it was sealed by this very call: no two are sealed alike."""
    body = sa.select(sessions_table.c.body).where(sessions_table.c.record_id == values["record_id"])
    return bool(connection.execute(body).scalar_one_or_none() == values["body"])


@define
class _Write:
    work: Callable[[sa.Connection], Any]
    done: asyncio.Future[Any]
    result: Any = field(default=None)
    error: Exception | None = field(default=None)


class GroupWriter:
    """
    Commits writes together that wait at the same time.

    A commit waits for the disk. Writes that arrive while one is under way are committed together by the next, so that a
    hundred concurrent callers cost about as many commits as two. Each returns when its own write is durable, and no sooner.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Others are not held up for long by a commit that gets no answer; one file has one writer in any case.
        self._most_at_once = 1 if database.engine.dialect.name == "sqlite" else _MOST_AT_ONCE
        self._waiting: deque[_Write] = deque()
        self._groups: dict[asyncio.Task[None], list[_Write]] = {}  # being committed
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def run(self, work: Callable[[sa.Connection], T]) -> T:
        """
        Return the result of *work* once it is durable.

        *work* must change nothing when it raises a ``StoreError``, and be harmless to repeat: it is called again if another
        write of its group failed, or the answer to its commit was lost. If the caller is cancelled meanwhile, it may be
        written or not.
        """
        if self._is_closed:
            raise closed()
        write = _Write(work, asyncio.get_running_loop().create_future())
        self._waiting.append(write)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work_off(), name="session store writer")
            self._task.add_done_callback(self._ended)
        result: T = await write.done
        return result

    async def aclose(self, timeout_s: float | None = None) -> None:
        """Finish the writes that wait, for so long, and take no more."""
        self._is_closed = True
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=timeout_s)
            await cancel_and_wait([*late, *self._groups])

    async def _work_off(self) -> None:
        while self._waiting or self._groups:
            if self._waiting and len(self._groups) < self._most_at_once:
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]
                task = asyncio.create_task(self._commit_group(group), name="session store commit")
                self._groups[task] = group
                task.add_done_callback(self._ended)
            await asyncio.wait(self._groups, timeout=_STUCK_S, return_when=asyncio.FIRST_COMPLETED)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for ever when a task was cancelled or failed."""
        left = self._groups.pop(task, [])
        if not task.cancelled() and task.exception() is None:
            return
        if task is self._task:
            left = [*self._waiting]
            self._waiting.clear()
        for write in left:
            if not write.done.done():
                write.done.set_exception(ClientClosedError("the store was stopped while it was writing"))

    async def _commit_group(self, group: list[_Write]) -> None:
        try:
            await self._commit(group)
        except Exception as error:  # noqa: BLE001 - it is raised to the caller whose write it was
            if len(group) > 1 and not isinstance(error, StoreUnavailableError):
                # One of them may be to blame: each gets a transaction of its own.
                for write in group:
                    await self._commit_group([write])
                return
            for write in group:
                write.error = error
        for write in group:
            if write.done.done():  # the caller was cancelled
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.result)

    async def _commit(self, group: list[_Write]) -> None:
        def run_all(connection: sa.Connection) -> None:
            for write in group:
                write.error = write.result = None
                try:
                    write.result = write.work(connection)
                except StoreError as error:
                    write.error = error

        async def commit(connection: AsyncConnection) -> None:
            async with connection.begin():
                await connection.run_sync(run_all)

        await self._database.use(commit)


# --- records as encrypted bytes ---------------------------------------------------------------------------------------


_VERSION = b"\x01"
_CHECK_LENGTH = 8
_NONCE_LENGTH = 12
_HEAD_LENGTH = 1 + _CHECK_LENGTH + _NONCE_LENGTH


@frozen(kw_only=True)
class SealedRecord:
    """A record as it is kept: columns in the clear, and the encrypted body."""

    record_id: str
    owner: str
    chain_id: int
    state: str
    expires_at: int
    created_at: int
    updated_at: int
    reference: str | None
    key_id: str
    body: bytes = field(repr=False)


#: Columns that both a record and its sealed form have.
_CLEAR = tuple(column.name for column in fields(SealedRecord) if column.name not in ("key_id", "body"))


class Sealer:
    """Encrypts and decrypts records with the keys of a source."""

    def __init__(self, keys: KeySource) -> None:
        self._keys = keys
        #: The id of the store's last key, if there is one.
        self.last_used: str | None = None

    async def current_key_id(self) -> str:
        return (await self._keys.current(self.last_used)).id

    async def seal(self, record: StoredSession) -> SealedRecord:
        text = json.dumps(record.to_dict(), separators=(",", ":")).encode()
        return await self._encrypt(text, _columns(record))

    async def open(self, sealed: SealedRecord) -> StoredSession:
        """Decrypt a record and compare it with its columns."""
        text = await self._decrypt(sealed)
        try:
            record = StoredSession.from_dict(json.loads(text))
        except (InvalidFieldError, ValueError):
            # The tag is right, so we wrote this: another version did.
            raise StoreTamperedError(
                "a record cannot be read by this version of the package",
                hint="Upgrade dan-async",
                request_id=sealed.record_id,
            ) from None
        if _columns(record) != _columns(sealed):
            raise _tampered(sealed)
        return record

    async def renew(self, sealed: SealedRecord) -> SealedRecord:
        """Encrypt a record under the current key, as it is; its columns are compared as by ``open``."""
        text = await self._decrypt(sealed)
        values, columns = json.loads(text), _columns(sealed)
        if {name: values.get(name) for name in columns} != columns:
            raise _tampered(sealed)
        return await self._encrypt(text, columns)

    async def _encrypt(self, text: bytes, columns: dict[str, Any]) -> SealedRecord:
        key = await self._keys.current(self.last_used)
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        associated = _associated(columns["record_id"], columns["owner"], key.id)
        body = _VERSION + _check_of(key) + nonce + AESGCM(key.secret).encrypt(nonce, text, associated)
        return SealedRecord(**columns, key_id=key.id, body=body)

    async def _decrypt(self, sealed: SealedRecord) -> bytes:
        key = await self._keys.by_id(sealed.key_id)
        if key is None:
            raise StoreKeyError(
                "the key that a record was encrypted with is not known",
                hint="Give the key or passphrase that the store was made with; after a change of it, earlier ones too",
                request_id=sealed.record_id,
            )
        head = sealed.body[:_HEAD_LENGTH]
        if len(head) < _HEAD_LENGTH or not head.startswith(_VERSION):
            raise _tampered(sealed)
        if not hmac.compare_digest(head[1 : 1 + _CHECK_LENGTH], _check_of(key)):
            raise StoreKeyError(
                "the key is not the one that a record was encrypted with, or the record was changed",
                hint="Give the key that the store was used with",
                request_id=sealed.record_id,
            )
        associated = _associated(sealed.record_id, sealed.owner, sealed.key_id)
        try:
            return AESGCM(key.secret).decrypt(
                head[1 + _CHECK_LENGTH :], sealed.body[_HEAD_LENGTH:], associated
            )
        except InvalidTag:
            raise _tampered(sealed) from None


def _associated(record_id: str, owner: str, key_id: str) -> bytes:
    parts = (b"dan-async session 1", record_id.encode(), owner.encode(), key_id.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _check_of(key: StoreKey) -> bytes:
    """Return a few bytes that tell a wrong key from a changed record, and nothing else about the key."""
    return hmac.new(key.secret, b"dan-async store key check", hashlib.sha256).digest()[:_CHECK_LENGTH]


def _columns(record: StoredSession | SealedRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _CLEAR}


def _tampered(sealed: SealedRecord) -> StoreTamperedError:
    return StoreTamperedError(
        "a record is not what was stored: it was changed, or put in another one's place",
        hint="It was not returned. Find out who can write to the store, and restore the record from a backup",
        request_id=sealed.record_id,
    )

"""``dan-async sessions``: the sessions in a store, looked at, moved, rotated, revoked and settled; secrets masked."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import evolve, frozen

from dan_async._values import MAX_LIFETIME_S, MAX_SAFE_INT
from dan_async.cli.options import (
    JsonOption,
    NetworkOptions,
    OwnerOptions,
    RevealOption,
    StoreOptions,
    TimeoutOption,
    choose_timeouts,
    option,
    record_of,
    record_of_session,
    spread,
    whole_number,
)
from dan_async.cli.screen import (
    FAILED,
    ReportedCode,
    Stopped,
    clean,
    console,
    for_option,
    log_lines,
    moment,
    note,
    progress,
    result,
    run_until_signal,
)
from dan_async.cli.session_file import masked, read_entries, reserve, session_in
from dan_async.errors import ConfigurationError, InvalidFieldError, RecordConflictError
from dan_async.session import DanSessionKeyPayload
from dan_async.storage.base import STATES, SessionFilter, SessionState, StoredSession
from dan_async.types import RequestId

if TYPE_CHECKING:
    from dan_async.client import DanClient
    from dan_async.jobs.recover import RecoveryReport
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
    from dan_async.wallets.base import Wallet

sessions = typer.Typer(rich_markup_mode="rich", add_completion=False)

RecordArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The record's id, or its reference.", show_default=False)
]


@frozen(kw_only=True)
class FilterOptions:
    """Which sessions."""

    owner: str | None = option("ADDRESS", "Only sessions of this owner.")
    chain_id: int | None = option("ID", "Only sessions on this chain.", parser=whole_number(1, MAX_SAFE_INT))
    state: list[str] | None = option(
        "STATE", f"Only sessions in this state: {', '.join(STATES)}. Repeat it for more states."
    )

    def choose(self, *usual: SessionState) -> SessionFilter:
        """Check them; *usual* are the states if none is named."""
        try:
            return SessionFilter(owner=self.owner, chain_id=self.chain_id, state=self.state or usual)
        except InvalidFieldError as error:
            raise for_option(error, f"--{error.field.replace('_', '-')}") from None


@sessions.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    """List, show, import, export, rotate, revoke, recover and purge the sessions in a store."""
    if context.invoked_subcommand is None:
        raise ConfigurationError(
            "no command is named",
            hint="Use list, show, import, export, rotate, revoke, recover or purge; dan-async sessions --help explains them",
        )


@sessions.command("list")
@spread
def list_sessions(
    *,
    store: StoreOptions,
    which: FilterOptions,
    limit: Annotated[
        int, typer.Option(parser=whole_number(1, 1000), metavar="N", help="Show at most N.")
    ] = 100,
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", help="Continue after the page that ended with this cursor."),
    ] = None,
    as_json: JsonOption = False,
    reveal: RevealOption = False,
) -> None:
    """List sessions, oldest first. Secrets are masked."""
    where = which.choose()
    page = _with_store(store, lambda s: s.list_page(where, limit=limit, after=after))
    if as_json:
        members = [_as_members(record, reveal=reveal) for record in page.records]
        result(json.dumps({"sessions": members, "next": page.next, "unreadable": list(page.unreadable)}))
        return
    if page.records:
        result(_as_text(page.records))
    else:
        note("There are no such sessions.")
    for record_id in page.unreadable:
        note(f"Record {record_id} is encrypted with a key that is not given")
    if page.next is not None:
        note(f"There are more: --after {page.next}")


@sessions.command("show")
@spread
def show_session(
    record: RecordArgument, *, store: StoreOptions, as_json: JsonOption = False, reveal: RevealOption = False
) -> None:
    """Show one session."""
    found = _with_store(store, lambda opened: record_of(opened, record, option="ID"))
    members = _as_members(found, reveal=reveal)
    if as_json:
        result(json.dumps(members))
        return
    shown = members | {f"session.{name}": value for name, value in (members.pop("session") or {}).items()}
    width = max(map(len, shown)) + 2
    for name, value in shown.items():
        if name != "session" and value not in (None, ""):
            result(clean(name.ljust(width) + str(value)))


@sessions.command("export")
@spread
def export_sessions(
    record: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The record's id or reference; by default all that match."),
    ] = None,
    *,
    store: StoreOptions,
    which: FilterOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write to a file that only you can read, instead of standard output."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --output replace an existing file.")] = False,
    reveal: RevealOption = False,
) -> None:
    """Write sessions as JSON lines, as sign takes them. Without --reveal the ephemeral private keys are masked."""
    where = which.choose("active")

    async def collect(opened: SQLAlchemyStore) -> list[str]:
        if record is None:
            found = [one async for one in opened.find(where)]
        else:
            found = [await record_of(opened, record, option="ID")]
        every = [one.session.to_dict(extended=True) for one in found if one.session is not None]
        return [json.dumps(fields if reveal else masked(fields)) for fields in every]

    with ExitStack() as stack:
        write = None if output is None else stack.enter_context(reserve(output, force=force, is_stored=True))
        lines = _with_store(store, collect)
        if write is None:
            for line in lines:
                result(line)
        else:
            write("".join(line + "\n" for line in lines))
            note(f"Sessions written to {output}: {len(lines)}.")
    if not reveal:
        note("The ephemeral private keys are masked; --reveal exports them.")


@sessions.command("revoke")
@spread
def revoke_session(
    record: RecordArgument,
    *,
    store: StoreOptions,
    network: NetworkOptions,
    owner: OwnerOptions,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Revoke a session: the nodes refuse its ephemeral key from now on, and the store marks it. The owner's wallet signs.

    A node that was not there goes on accepting the key. Exit code 1 says so: run
    the command again until every node has confirmed.
    """

    async def revoke(dan: DanClient, found: StoredSession, wallet: Wallet) -> StoredSession:
        return await dan.revoke_stored_session(found.record_id, wallet=wallet)

    done = _with_network(store, network, timeout, record, revoke, owner=owner)
    if as_json:
        result(json.dumps(_as_members(done, reveal=False) | {"isComplete": not done.problem}))
    else:
        result(f"{done.record_id} {done.state}")
    if done.problem:
        note(
            f"The session is revoked, but {clean(done.problem)}. Run the command again until every node has confirmed"
        )
        raise typer.Exit(ReportedCode(FAILED))


@sessions.command("rotate")
@spread
def rotate_session(
    record: RecordArgument,
    *,
    store: StoreOptions,
    network: NetworkOptions,
    owner: OwnerOptions,
    duration: Annotated[
        int,
        typer.Option(
            parser=whole_number(1, MAX_LIFETIME_S),
            metavar="SECONDS",
            help="How long the new ephemeral key lives; at most 31536000 (365 days).",
        ),
    ] = 3600,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Replace a session's ephemeral key: same address, longer life. The owner's wallet signs.

    The old one works until it expires, and has a record of its own until then,
    which sessions revoke takes.
    """

    async def rotate(
        dan: DanClient, found: StoredSession, wallet: Wallet
    ) -> tuple[StoredSession, RequestId | None]:
        done = await dan.rotate_stored_session(found.record_id, wallet=wallet, duration=duration)
        old = None if found.session is None else await record_of_session(dan.store, found.session)
        return done, old

    done, old = _with_network(store, network, timeout, record, rotate, owner=owner)
    if as_json:
        result(json.dumps(_as_members(done, reveal=False) | {"oldId": old}))
        return
    result(f"{done.record_id} {done.state} until {moment(done.expires_at)}")
    if old is not None:
        note(f"The old ephemeral key works until it expires, unless you revoke its record:\n{old}")


@sessions.command("recover")
@spread
def recover_sessions(
    record: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="The record's id or reference; by default all that are pending."),
    ] = None,
    *,
    store: StoreOptions,
    network: NetworkOptions,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """
    Ask the nodes whether keys were made that a crash or an error left pending. No wallet is asked.

    A record is finished (its session can be used), dropped (no key was made),
    expired or undecided. Exit codes: 0 all are settled, 1 some are undecided.
    """

    async def recover(dan: DanClient, found: StoredSession | None, _: None) -> RecoveryReport:
        return await dan.recover(record_id=None if found is None else found.record_id)

    report = _with_network(store, network, timeout, record, recover)
    if as_json:
        names = ("reference", "settlement", "problem")
        settled = [
            {"id": one.record_id, **{name: getattr(one, name) for name in names}} for one in report.records
        ]
        result(json.dumps({"settled": settled}))
    for one in () if as_json else report.records:
        result(clean(f"{one.record_id} {one.settlement} {one.reference or ''} {one.problem}".rstrip()))
    if not report.records:
        note("Nothing is pending.")
    if report.of("undecided"):
        raise typer.Exit(ReportedCode(FAILED))


@sessions.command("import")
@spread
def import_sessions(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Sessions, as keygen --output, sessions export or sessions show --json wrote them; - for standard input.",
        ),
    ],
    *,
    store: StoreOptions,
    reference: Annotated[
        str | None, typer.Option(metavar="NAME", help="Your own name for the session, if there is only one.")
    ] = None,
    expires_at: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(0, MAX_SAFE_INT),
            metavar="TIME",
            help="The expiry of sessions that do not have one, in Unix seconds.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put sessions into a store, which is created if necessary. Sessions that it already has are left alone."""
    # A record that is pending, or has failed, has no session.
    entries = [
        one for one in read_entries("FILE", source) if not isinstance(one, dict) or one.get("session", one)
    ]
    if reference is not None and len(entries) != 1:
        raise ConfigurationError(f"--reference is for one session, and there are {len(entries)}")
    records = [_imported(entry, reference, expires_at) for entry in entries]

    async def save(opened: SQLAlchemyStore) -> list[str]:
        saved: list[str] = []
        for record in records:
            try:
                await opened.save(record)
            except RecordConflictError:
                if await opened.get(record.record_id) is None:
                    raise  # another record has its reference
                continue
            saved.append(record.record_id)
        return saved

    saved = _with_store(store, save, may_make=True)
    known = [record.record_id for record in records if record.record_id not in saved]
    if as_json:
        result(json.dumps({"imported": saved, "known": known}))
        return
    for record_id in saved:
        result(record_id)
    note(f"{len(saved)} imported, {len(known)} in the store already")


def _imported(entry: Any, reference: str | None, expires_at: int | None) -> StoredSession:
    """Make the record of an entry; one that was a record keeps its id, reference and state."""
    session = session_in("FILE", entry, DanSessionKeyPayload)
    if session.expires_at is None:
        session = evolve(session, expires_at=expires_at)
    # The same session again has the same id.
    name = f"{session.mpc_key_id} {session.eph_id or session.session_key_eoa}"
    record_id = RequestId("0x" + hashlib.sha256(name.encode()).hexdigest())
    was = entry if "session" in entry else {}
    try:
        record = StoredSession.of(
            session,
            now=time.time(),
            record_id=was.get("id", record_id),
            reference=reference or was.get("reference"),
        )
        return evolve(record, state=was.get("state", "active"), problem=was.get("problem") or "")
    except InvalidFieldError as error:
        hint = "--expires-at TIME says when it ends" if error.field == "expires_at" else error.hint
        raise ConfigurationError(f"FILE: {error.message}", hint=hint) from None


@sessions.command("purge")
@spread
def purge_sessions(
    *,
    store: StoreOptions,
    ended_for: Annotated[
        int,
        typer.Option(
            parser=whole_number(0, 2**40),
            metavar="SECONDS",
            help="Only sessions that expired at least this long ago.",
        ),
    ] = 0,
    mark_only: Annotated[
        bool, typer.Option("--mark-only", help="Delete nothing; only mark as expired what has.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """
    Delete expired sessions. A revoked one is kept until it would have expired.

    A deleted session cannot be rotated any more: its key can never be used again.
    """

    async def purge(opened: SQLAlchemyStore) -> int:
        if mark_only:
            return await opened.mark_expired()
        return await opened.purge_expired(ended_for_s=float(ended_for))

    count = _with_store(store, purge)
    done = "marked" if mark_only else "purged"
    result(json.dumps({done: count}) if as_json else f"{count} {done}")


def _with_store(
    store: StoreOptions, work: Callable[[SQLAlchemyStore], Awaitable[Any]], *, may_make: bool = False
) -> Any:
    open_store = store.choose(may_make=may_make)

    async def run() -> Any:
        async with open_store() as opened:
            return await work(opened)

    with log_lines(held_back=False):
        return run_until_signal(run())


def _with_network(
    store: StoreOptions,
    network: NetworkOptions,
    timeout: float | None,
    record: str | None,
    work: Callable[[DanClient, Any, Any], Awaitable[Any]],
    *,
    owner: OwnerOptions | None = None,
) -> Any:
    """Run something with a client of the network and the store, the record that is named, and the owner's wallet."""
    chosen, timeouts = network.choose(), choose_timeouts(timeout)
    open_wallet = nullcontext if owner is None else owner.choose()

    async def ask(opened: SQLAlchemyStore) -> Any:
        found = None if record is None else await record_of(opened, record, option="ID")
        async with open_wallet() as wallet, chosen.client(timeouts, opened) as dan:
            return await work(dan, found, wallet)

    try:
        with progress(f"Asking {chosen.describe()} …"):
            return _with_store(store, ask)
    except Stopped as stop:
        note("interrupted: some nodes may have carried it out. Run the command again")
        raise typer.Exit(ReportedCode(stop.exit_code)) from None


def _as_members(record: StoredSession, *, reveal: bool) -> dict[str, Any]:
    """Return a record's JSON members, in camelCase as in the payload."""
    session = None if record.session is None else record.session.to_dict(extended=True)
    intent = record.intent
    return {
        "id": record.record_id,
        "reference": record.reference,
        "state": record.state,
        "owner": record.owner,
        "chainId": record.chain_id,
        "createdAt": record.created_at // 1000,
        "updatedAt": record.updated_at // 1000,
        "expiresAt": record.expires_at,
        "permissions": None if intent is None else intent.permissions,
        "keyLabel": None if intent is None else intent.key_label,
        "problem": record.problem,
        "session": session if session is None or reveal else masked(session),
    }


def _as_text(records: Iterable[StoredSession]) -> str:
    """Return a line for each record, or several where the terminal is too narrow for that; nothing is ever cut."""
    titles = ("State", "Session key", "Owner", "Chain", "Expires", "Reference", "Id")
    rows = [
        (
            record.state,
            "" if record.session is None else record.session.session_key_eoa,
            record.owner,
            str(record.chain_id),
            moment(record.expires_at),
            clean(record.reference or ""),
            record.record_id,
        )
        for record in records
    ]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    screen = console()
    if screen.is_terminal and sum(widths) + 2 * len(widths) > screen.width:
        blocks = [zip(titles, row, strict=True) for row in rows]
        return "\n\n".join(
            "\n".join(f"{title:13}{text}" for title, text in block if text) for block in blocks
        )
    lines = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in (titles, *rows))
    return "\n".join("  ".join(line).rstrip() for line in lines)

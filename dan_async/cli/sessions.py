"""``dan-async sessions``: list, show, export, revoke and purge the sessions in a store; secrets masked unless asked for."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dan_async._values import MAX_SAFE_INT
from dan_async.cli.choices import choose_network, choose_store, choose_wallet
from dan_async.cli.options import (
    ApiVersionOption,
    GatewayOption,
    JsonOption,
    NetworkOption,
    NodeOption,
    PrivateKeyFileOption,
    RevealOption,
    RevisionOption,
    StoreKeyFileOption,
    StoreOption,
    TimeoutOption,
    WalletRpcOption,
    choose_timeouts,
    whole_number,
)
from dan_async.cli.screen import for_option, note, result
from dan_async.cli.session_file import masked, reserve
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.storage.base import STATES, SessionFilter, StoredSession

if TYPE_CHECKING:
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

#: The last second of the year 9999, after which datetime knows none.
_END_OF_TIME = 253_402_300_799

sessions = typer.Typer(rich_markup_mode="rich")

OwnerOption = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Only sessions of this owner.")]

ChainOption = Annotated[
    int | None,
    typer.Option(parser=whole_number(1, MAX_SAFE_INT), metavar="ID", help="Only sessions on this chain."),
]

StateOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STATE", help=f"Only sessions in this state: {', '.join(STATES)}. Repeat it for more states."
    ),
]

RecordArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The record's id, or its reference.", show_default=False)
]


@sessions.callback(invoke_without_command=True)
def _main(context: typer.Context) -> None:
    """List, show, export, revoke and purge the sessions in a store."""
    if context.invoked_subcommand is None:
        raise ConfigurationError(
            "no command is named",
            hint="Use list, show, export, revoke or purge; dan-async sessions --help explains them",
        )


@sessions.command("list")
def list_sessions(
    *,
    store: StoreOption,
    store_key_file: StoreKeyFileOption = None,
    owner: OwnerOption = None,
    chain_id: ChainOption = None,
    state: StateOption = None,
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
    where = _filter(owner, chain_id, state)
    page = _with_store(store, store_key_file, lambda s: s.list_page(where, limit=limit, after=after))
    if as_json:
        members = [_as_members(record, reveal=reveal) for record in page.records]
        result(json.dumps({"sessions": members, "next": page.next, "unreadable": list(page.unreadable)}))
        return
    for line in _as_lines(page.records):
        result(line)
    for record_id in page.unreadable:
        note(f"Record {record_id} is encrypted with a key that is not given")
    if page.next is not None:
        note(f"There are more: --after {page.next}")


@sessions.command("show")
def show_session(
    record: RecordArgument,
    *,
    store: StoreOption,
    store_key_file: StoreKeyFileOption = None,
    as_json: JsonOption = False,
    reveal: RevealOption = False,
) -> None:
    """Show one session."""
    found = _with_store(store, store_key_file, lambda s: _one(s, record))
    members = _as_members(found, reveal=reveal)
    if as_json:
        result(json.dumps(members))
        return
    width = max(map(len, members)) + 2
    for name, value in members.items():
        if isinstance(value, dict):
            for inner, detail in value.items():
                result(f"{name}.{inner}".ljust(width + 20) + str(detail))
        elif value not in (None, ""):
            result(name.ljust(width + 20) + str(value))


@sessions.command("export")
def export_sessions(
    *,
    store: StoreOption,
    store_key_file: StoreKeyFileOption = None,
    owner: OwnerOption = None,
    chain_id: ChainOption = None,
    state: StateOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write to a file that only you can read, instead of standard output."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --output replace an existing file.")] = False,
    as_json: JsonOption = True,
    reveal: RevealOption = False,
) -> None:
    """Write sessions as JSON lines, as sign_message takes them. Without --reveal the ephemeral private keys are masked."""
    del as_json  # there is no other form
    where = _filter(owner, chain_id, state or ["active"])

    async def collect(opened: SQLAlchemyStore) -> list[str]:
        lines = []
        async for record in opened.find(where):
            if record.session is not None:
                fields = record.session.to_dict(extended=True)
                lines.append(json.dumps(fields if reveal else masked(fields)))
        return lines

    with ExitStack() as stack:
        write = None if output is None else stack.enter_context(reserve(output, force=force))
        lines = _with_store(store, store_key_file, collect)
        if write is None:
            for line in lines:
                result(line)
        else:
            write("".join(line + "\n" for line in lines))
            note(f"{len(lines)} sessions were written to {output}.")
    if not reveal:
        note("The ephemeral private keys are masked; --reveal exports them.")


@sessions.command("revoke")
def revoke_session(
    record: RecordArgument,
    *,
    store: StoreOption,
    store_key_file: StoreKeyFileOption = None,
    network: NetworkOption = None,
    node: NodeOption = None,
    gateway: GatewayOption = None,
    revision: RevisionOption = None,
    api_version: ApiVersionOption = None,
    private_key_file: PrivateKeyFileOption = None,
    wallet_rpc: WalletRpcOption = None,
    timeout: TimeoutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a session: the nodes refuse its ephemeral key from now on, and the store marks it. The owner's wallet signs."""
    from dan_async.client import DanClient

    chosen = choose_network(
        network=network, nodes=node or [], gateway=gateway, revision=revision, api_version=api_version
    )
    open_wallet = choose_wallet(
        private_key_file=private_key_file, rpc_url=wallet_rpc, throwaway_allowed=False
    )
    timeouts = choose_timeouts(timeout)

    async def revoke(opened: SQLAlchemyStore) -> StoredSession:
        found = await _one(opened, record)
        async with (
            open_wallet() as wallet,
            DanClient(chosen.open(timeouts), store=opened, timeouts=timeouts) as dan,
        ):
            return await dan.revoke_stored_session(found.record_id, wallet=wallet)

    done = _with_store(store, store_key_file, revoke)
    if as_json:
        result(json.dumps(_as_members(done, reveal=False)))
    else:
        result(f"{done.record_id} {done.state}")


@sessions.command("purge")
def purge_sessions(
    *,
    store: StoreOption,
    store_key_file: StoreKeyFileOption = None,
    ended_for: Annotated[
        int,
        typer.Option(
            parser=whole_number(0, 2**40),
            metavar="SECONDS",
            help="Only sessions that ended at least this long ago.",
        ),
    ] = 0,
    mark_only: Annotated[
        bool,
        typer.Option("--mark-only", help="Delete nothing; only mark sessions that have ended as expired."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete sessions that have ended."""

    async def purge(opened: SQLAlchemyStore) -> int:
        if mark_only:
            return await opened.mark_expired()
        return await opened.purge_expired(ended_for_s=float(ended_for))

    count = _with_store(store, store_key_file, purge)
    done = "marked" if mark_only else "purged"
    result(json.dumps({done: count}) if as_json else f"{count} {done}")


def _with_store(url: str, key_file: Path | None, work: Callable[[SQLAlchemyStore], Awaitable[Any]]) -> Any:
    open_store = choose_store(url, option="--store", key_file=key_file, may_make=False)

    async def run() -> Any:
        async with open_store() as store:
            return await work(store)

    return asyncio.run(run())


def _filter(owner: str | None, chain_id: int | None, state: list[str] | None) -> SessionFilter:
    try:
        return SessionFilter(owner=owner, chain_id=chain_id, state=state or ())
    except InvalidFieldError as error:
        raise for_option(error, f"--{error.field.replace('_', '-')}") from None


async def _one(store: SQLAlchemyStore, name: str) -> StoredSession:
    is_id = name.startswith("0x") and len(name) == 66
    found = await store.get(name.lower()) if is_id else None  # type: ignore[arg-type]  # a lookup finds nothing under any other text
    found = found or await store.get_by_reference(name)
    if found is None:
        raise ConfigurationError("there is no record of that id or reference")
    return found


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


def _as_lines(records: Iterable[StoredSession]) -> list[str]:
    """Return a table as wide as the terminal, or elsewhere as wide as it needs to be."""
    table = Table(box=None, pad_edge=False)
    for title in ("State", "Session key", "Owner", "Chain", "Expires", "Reference", "Id"):
        table.add_column(title, overflow="fold" if title in ("Reference", "Id") else "ellipsis")
    for record in records:
        moment = datetime.fromtimestamp(min(record.expires_at, _END_OF_TIME), tz=UTC)
        table.add_row(
            record.state,
            "" if record.session is None else record.session.session_key_eoa,
            record.owner,
            str(record.chain_id),
            moment.strftime("%Y-%m-%d %H:%M:%S"),
            record.reference or "",
            record.record_id,
        )
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, markup=False, width=300)
    with console.capture() as text:
        console.print(table)
    return [line.rstrip() for line in text.get().rstrip("\n").split("\n")]

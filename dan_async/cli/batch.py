"""
``dan-async batch``: many session keys from a file, into a store; can be killed at any moment and started again.

The rows (JSON lines, CSV, or a list of wallets) are read one by one in a thread. Each has a reference that stays the same
when the input is read again, also when rows before it came or went: its own id, or a hash of its parameters and of the
number of equal rows before it.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, cast, get_args

import typer
from attrs import define, field, frozen
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dan_async._json import is_too_deep
from dan_async._values import MAX_LIFETIME_S, MAX_SAFE_INT, camel_case, shown_name
from dan_async.batch import in_a_thread
from dan_async.cli.options import (
    DEVNET_CHAIN_ID,
    PRIVATE_KEY_VARIABLE,
    STORE_VARIABLE,
    JsonOption,
    KeygenNetworkOptions,
    NetworkChoice,
    StoreOpener,
    StoreOptions,
    TimeoutOption,
    WalletOpener,
    WalletOptions,
    any_number,
    choose_timeouts,
    option,
    read_permissions,
    whole_number,
)
from dan_async.cli.screen import (
    FAILED,
    ReportedCode,
    Stopped,
    clean,
    console,
    log_lines,
    note,
    reason_for,
    result,
    run_until_signal,
)
from dan_async.config import Timeouts, TransportOptions
from dan_async.crypto.address import parse_address
from dan_async.errors import (
    ConfigurationError,
    DanError,
    InvalidFieldError,
    RecordConflictError,
    SessionPendingError,
    StoreError,
)
from dan_async.wallets.base import Wallet
from dan_async.wallets.local_key import LocalWallet

if TYPE_CHECKING:
    from dan_async.batch import ItemResult
    from dan_async.transport.rpc import Transport

_THROWAWAY = "Rows without a wallet belong to a throwaway owner, made for this run and then forgotten."
_LINE_EVERY_S = 5.0
_SHOWN_FAILURES = 10
_MOST_FAILURES = 100


@frozen(kw_only=True)
class OutOptions(StoreOptions):
    """A store that may be new."""

    naming = "--out"

    store: str | None = option(
        "URL",
        f"The store: sqlite:///keys.db or postgresql://user@host/database. Or set {STORE_VARIABLE}.",
        *("--out", "--store"),
    )
    store_key_file: Path | None = option(
        "FILE",
        "A file with the store's encryption key. Or set DAN_ASYNC_STORE_KEY, or DAN_ASYNC_STORE_PASSPHRASE. "
        "Default: the SQLite file's name with .key appended, created with the store.",
    )


@frozen(kw_only=True)
class RowOptions:
    """The rows' form, and what rows have that do not say otherwise."""

    form: str | None = option(
        "FORMAT", "jsonl, csv or wallets; by default recognised by the file's name.", "--format"
    )
    chain_id: int | None = option(
        "ID",
        f"The chain of rows without a chainId; by default {DEVNET_CHAIN_ID} with --devnet.",
        parser=whole_number(1, MAX_SAFE_INT),
    )
    duration: int | None = option(
        "SECONDS",
        "How long sessions live, for rows without a duration of their own; 3600 by default.",
        parser=whole_number(1, MAX_LIFETIME_S),
    )
    permissions: str | None = option(
        "JSON|@FILE", "What sessions may sign, for rows without permissions of their own."
    )


@frozen(kw_only=True)
class RunOptions:
    """How the rows are worked on."""

    concurrency: int = option("N", "Work on N rows at a time.", parser=whole_number(1, 100_000), default=16)
    rate: float | None = option("N", "Begin at most N rows per second.", parser=any_number)
    limit: int | None = option("N", "Only the first N rows.", parser=whole_number(1, 2**53))
    retry_failed: bool = option(
        None, "Try failed rows of earlier runs again.", "--retry-failed", default=False
    )
    dry_run: bool = option(
        None,
        "Read the rows and the store, and report what a run would do; nothing is sent or stored.",
        "--dry-run",
        default=False,
    )


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="The rows: JSON lines, CSV, or a list of private keys or addresses; - for standard input.",
        ),
    ],
    *,
    out: OutOptions,
    rows: RowOptions,
    network: KeygenNetworkOptions,
    wallet: WalletOptions,
    timeout: TimeoutOption = None,
    run: RunOptions,
    as_json: JsonOption = False,
) -> None:
    """
    Make a session key for each row, into an encrypted store. You may stop or kill it at any moment, and run it again.

    A row that has its key is skipped, and one that was in progress is first
    settled with the nodes: no row gets a second key. A row has the fields id,
    privateKey (or address, with --wallet-rpc), chainId, duration, threshold,
    partiesNumber, minParties, permissions, keyLabel and ephAlg, all of them optional;
    with an id it stays the same row when its other fields change.

    Standard output gets a summary at the end, or a report with --json. Exit codes:
    0 every row has its key, 1 some have none, 2 the input is wrong, 130
    interrupted.

    Try it: dan-async devnet --write net.toml in one terminal, and in another
    dan-async batch wallets.txt --network net.toml --chain-id 80002 --out
    sqlite:///keys.db makes a key for each line.
    """
    chosen = network.choose()
    # A dry run makes no store.
    prefix, _, file = out.url.partition(":///")
    is_missing = prefix.startswith("sqlite") and not Path(file).exists()
    store = None if run.dry_run and is_missing else out.choose(may_make=not run.dry_run)
    wallets = RowWallets.choose(wallet, throwaway=_THROWAWAY if chosen.is_devnet else "")
    common: dict[str, Any] = {
        "threshold": chosen.threshold.t,
        "parties_number": chosen.threshold.n,
        "chain_id": chosen.chain_id if rows.chain_id is None else rows.chain_id,
        "duration": rows.duration,
        "permissions": read_permissions(rows.permissions),
    }
    form = _check_format(rows.form, source)
    pace = {"concurrency": run.concurrency, "rate_limit": run.rate, "retry_failed": run.retry_failed}
    job = _Batch(
        source=_Source(name=source, form=form, limit=run.limit),
        network=chosen,
        store=store,
        wallets=wallets,
        common={name: value for name, value in common.items() if value is not None},
        timeouts=choose_timeouts(timeout),
        options=pace,
        is_dry_run=run.dry_run,
        as_json=as_json,
    )
    if form == "wallets" and common["chain_id"] is None:
        raise ConfigurationError(
            "--chain-id is needed for a list of wallets", hint="For example: --chain-id 137"
        )
    code = job.run()
    if code is not None:
        raise typer.Exit(ReportedCode(code))


def _check_format(form: str | None, source: str) -> InputFormat:
    if form is not None:
        if form not in get_args(InputFormat):
            raise InvalidFieldError("--format", f"must be one of {', '.join(get_args(InputFormat))}")
        return cast("InputFormat", form)
    if source == "-":
        raise ConfigurationError(
            "--format is needed with standard input", hint="--format jsonl, csv or wallets"
        )
    return guess_format(source)


@frozen(kw_only=True)
class _Source:
    """Where the rows are."""

    name: str
    form: InputFormat
    limit: int | None

    def open(self) -> IO[str]:
        if self.name == "-":
            if sys.stdin is None:
                raise ConfigurationError("there is no standard input")
            return sys.stdin
        try:
            return Path(self.name).open(encoding="utf-8-sig", newline="" if self.form == "csv" else None)
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the input cannot be read: {reason_for(error)}") from None

    def count(self) -> int | None:
        """Return the number of rows, for the time that is left; None if it is not known beforehand."""
        if self.name == "-":
            return self.limit
        skips = "#" if self.form == "wallets" else "\0"
        try:
            with self.open() as file:
                lines = sum(1 for line in file if line.strip() and not line.startswith(skips))
        except UnicodeDecodeError:
            raise ConfigurationError("the input is not UTF-8 text") from None
        rows = max(0, lines - (self.form == "csv"))
        return rows if self.limit is None else min(rows, self.limit)

    def rows(self) -> Iterator[BatchRow]:
        with nullcontext(self.open()) if self.name == "-" else self.open() as file:
            try:
                yield from itertools.islice(read_rows(file, self.form), self.limit)
            except UnicodeDecodeError:
                raise ConfigurationError("the input is not UTF-8 text") from None


@frozen(kw_only=True)
class _Batch:
    """One run of the command."""

    source: _Source
    network: NetworkChoice
    store: StoreOpener | None
    wallets: RowWallets
    common: dict[str, Any]
    timeouts: Timeouts
    options: dict[str, Any]
    is_dry_run: bool
    as_json: bool

    def run(self) -> int | None:
        """Run it and print the report; return the exit code, or None if all is well."""
        count = _BatchCount(total=self.source.count())
        stopped_by: Stopped | None = None
        try:
            with log_lines(held_back=True), _shown(count) as show:
                run_until_signal(self._look(count, show) if self.is_dry_run else self._make(count, show))
        except Stopped as stop:
            stopped_by = stop
        except StoreError:
            self._print(count, is_interrupted=True)
            raise
        self._print(count, is_interrupted=stopped_by is not None)
        if stopped_by is not None:
            note("interrupted: run the same command again to go on")
            return stopped_by.exit_code
        return FAILED if count.without_key else None

    def _print(self, count: _BatchCount, *, is_interrupted: bool) -> None:
        if self.as_json:
            report = count.report(is_interrupted=is_interrupted, is_dry_run=self.is_dry_run)
            result(json.dumps(report))
        else:
            result(count.summary(is_dry_run=self.is_dry_run))

    async def _make(self, count: _BatchCount, show: Callable[[], None]) -> None:
        assert self.store is not None
        under_way: dict[str, BatchRow] = {}
        rows = in_a_thread(self.source.rows)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(aclosing(rows))
            # An input that is refused is refused by its first row, and no store is made for it.
            first = await anext(rows, None)
            if first is None:
                return
            if self.network.is_devnet:
                note("The devnet stops with this command: the keys in the store can sign nothing after it.")
            store = await stack.enter_async_context(self.store())
            await stack.enter_async_context(self.wallets)
            dan = await stack.enter_async_context(self.network.client(self.timeouts, store))
            usable = self._usable(first, rows, count, show)
            run = dan.generate_session_keys(
                self._requests(usable, under_way), resume=True, **self.options, **self.common
            )
            await stack.enter_async_context(run)
            async for item in run:
                count.add(item, under_way.pop(item.request["reference"]))
                show()

    async def _requests(
        self, rows: AsyncIterator[BatchRow], under_way: dict[str, BatchRow]
    ) -> AsyncIterator[dict[str, Any]]:
        async for row in rows:
            under_way[row.reference] = row
            yield {**row.parameters, "wallet": self.wallets.of(row), "reference": row.reference}

    async def _usable(
        self,
        first: BatchRow | None,
        rest: AsyncIterator[BatchRow],
        count: _BatchCount,
        show: Callable[[], None],
    ) -> AsyncIterator[BatchRow]:
        row = first
        while row is not None:
            problem = row.problem or self.wallets.problem_with(row)
            if not {"chain_id"} & {*row.parameters, *self.common}:
                problem = problem or "the row has no chainId, and --chain-id is not given"
            if problem:
                count.add_failure(row, "InvalidRow", problem)
                show()
            else:
                yield row
            row = await anext(rest, None)

    async def _look(self, count: _BatchCount, show: Callable[[], None]) -> None:
        """Count the outcomes that a run would have; nothing is sent or stored."""
        async with AsyncExitStack() as stack:
            rows = await stack.enter_async_context(aclosing(in_a_thread(self.source.rows)))
            store = None if self.store is None else await stack.enter_async_context(self.store())
            async for row in self._usable(await anext(rows, None), rows, count, show):
                record = None if store is None else await store.get_by_reference(row.reference)
                state = None if record is None else record.state
                if state in {"active", "revoked", "expired"}:
                    count.ends["kept"] += 1
                elif state == "pending":
                    count.ends["unsettled"] += 1
                elif state == "failed" and not self.options["retry_failed"]:
                    count.add_failure(row, "SessionFailedError", "it failed before")
                else:
                    count.ends["to be made"] += 1
                show()


# --- progress and report ----------------------------------------------------------------------------------------------


@define
class _BatchCount:
    """How many rows have come to which end so far."""

    total: int | None = None
    #: By the status of a result; rows without a key are failed or unsettled, and those of a dry run to be made.
    ends: Counter[str] = field(factory=Counter)
    failures: list[dict[str, Any]] = field(factory=list)
    started: float = field(factory=time.monotonic)

    @property
    def done(self) -> int:
        return self.ends.total()

    @property
    def without_key(self) -> int:
        return self.ends["failed"] + self.ends["unsettled"]

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    @property
    def rate(self) -> float:
        """Rows per second, without those that had their key before."""
        return (self.done - self.ends["kept"]) / max(self.elapsed_s, 1e-9)

    def add(self, item: ItemResult, row: BatchRow) -> None:
        """Count the result of a row; an error of the store is raised, since no further row could be stored either."""
        error = item.error
        if isinstance(error, StoreError) and not isinstance(error, RecordConflictError):
            raise error
        if error is None:
            self.ends[item.status] += 1
            return
        text = problem_in(error) if isinstance(error, DanError) else "an unforeseen error"
        is_settled = not isinstance(error, SessionPendingError)
        self.add_failure(row, type(error).__name__, text, is_settled=is_settled)

    def add_failure(self, row: BatchRow, kind: str, text: str, *, is_settled: bool = True) -> None:
        """Count a row that has no key; the report shows only so many, since an input may be endless."""
        self.ends["failed" if is_settled else "unsettled"] += 1
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append({"row": row.number, "id": row.row_id, "error": kind, "problem": text})

    def line(self) -> str:
        """Return it as one line of text."""
        of = "" if self.total is None else f" of {self.total}"
        parts = [f"{self.done}{of} rows", f"{self.ends['failed']} failed", f"{self.rate:.1f} per second"]
        if self.ends["unsettled"]:
            parts.insert(2, f"{self.ends['unsettled']} unsettled")
        if self.total is not None and self.rate > 0 and self.done < self.total:
            left_s = int((self.total - self.done) / self.rate)
            parts.append(f"{left_s // 60}:{left_s % 60:02} left")
        return ", ".join(parts)

    def summary(self, *, is_dry_run: bool) -> str:
        """Return what is printed at the end, for a person."""
        names = ("to be made", "kept") if is_dry_run else ("made", "kept", "settled")
        shown = [name for name in (*names, "failed", "unsettled") if self.ends[name] or name == names[0]]
        parts = [f"{self.ends[name]} {name}" for name in shown]
        lines = [f"{self.done} row{'s' * (self.done != 1)}: {', '.join(parts)}"]
        for failure in sorted(self.failures, key=lambda one: one["row"])[:_SHOWN_FAILURES]:
            name = "" if failure["id"] is None else f" (id {failure['id']})"
            lines.append(f"  row {failure['row']}{name}: {failure['problem']}")
        if (more := self.without_key - _SHOWN_FAILURES) > 0:
            lines.append(f"  and {more} more; --json lists up to {_MOST_FAILURES}")
        return clean("\n".join(lines))

    def report(self, *, is_interrupted: bool, is_dry_run: bool) -> dict[str, Any]:
        """Return the report that is printed at the end, for a program."""
        return {
            "rows": self.done,
            **({"toMake": self.ends["to be made"]} if is_dry_run else {}),
            **{name: self.ends[name] for name in ("made", "kept", "settled", "failed", "unsettled")},
            "seconds": round(self.elapsed_s, 3),
            "perSecond": round(self.rate, 3),
            "interrupted": is_interrupted,
            "dryRun": is_dry_run,
            "failures": self.failures,
            "moreFailures": self.without_key - len(self.failures),
        }


@contextmanager
def _shown(count: _BatchCount) -> Iterator[Callable[[], None]]:
    """Yield what shows a count on standard error: a bar on a terminal, or a line every few seconds elsewhere."""
    screen = console(stderr=True)
    if not screen.is_terminal or screen.is_dumb_terminal:
        next_line = time.monotonic() + _LINE_EVERY_S

        def show_line() -> None:
            nonlocal next_line
            if time.monotonic() >= next_line:
                next_line = time.monotonic() + _LINE_EVERY_S
                note(count.line())

        yield show_line
        note(count.line())
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task("rows", total=count.total)

        def show_bar() -> None:
            text = f"{count.rate:.1f}/s, {count.ends['failed']} failed"
            bar.update(task, completed=count.done, description=text)

        yield show_bar
        show_bar()


# --- the rows ---------------------------------------------------------------------------------------------------------

InputFormat: TypeAlias = Literal["jsonl", "csv", "wallets"]

#: By the ending of the file's name.
_FORMATS: Mapping[str, InputFormat] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "csv": "csv",
    **dict.fromkeys(("txt", "keys", "wallets"), "wallets"),
}

_NUMBERS = ("chain_id", "duration", "threshold", "parties_number", "min_parties", "min_holders")

#: A row's fields, as they are shown -> parameters of generate_session_key.
_PARAMETERS = {camel_case(name): name for name in (*_NUMBERS, "permissions", "key_label", "eph_alg")}

COLUMNS = ("id", "privateKey", "address", *_PARAMETERS)

#: What a row may call its fields, in plain letters -> as they are shown.
_NAMES = {name.lower(): name for name in COLUMNS} | {
    "owner": "address",
    "parties": "partiesNumber",
    "label": "keyLabel",
}
_LONGEST_LINE = 256 * 1024

#: How deeply a row may be nested: permissions lie deeper than the rest.
_MAX_DEPTH = 64

#: How long a connection to a JSON-RPC wallet may take to open.
_CONNECT_S = 10.0


@frozen(kw_only=True)
class BatchRow:
    """One row; *number* is its place in the input, from 1, and *problem* says why it cannot be used, if so."""

    number: int
    row_id: str | None = None
    reference: str = ""
    parameters: Mapping[str, Any] = field(factory=dict, repr=False)
    wallet: LocalWallet | None = None
    address: str | None = None
    problem: str = ""


def guess_format(name: str) -> InputFormat:
    """Recognise the format by a file's name."""
    form = _FORMATS.get(name.lower().rpartition(".")[2])
    if form is None:
        raise ConfigurationError(
            "the input's name does not show its format", hint="Use --format jsonl, csv or wallets"
        )
    return form


def read_rows(file: IO[str], form: InputFormat) -> Iterator[BatchRow]:
    """Yield rows, one after the other, also those that cannot be used; only a wrong header of a CSV is an error."""
    found = {"jsonl": _json_lines, "csv": _csv_rows, "wallets": _wallets}[form](file)
    seen: dict[bytes, int] = {}
    for number, fields in enumerate(found, 1):
        if isinstance(fields, str):
            yield BatchRow(number=number, problem=fields)
            continue
        try:
            yield _row(number, fields, seen)
        except DanError as error:
            row_id = fields.get("id")
            shown_id = str(row_id)[:150] if isinstance(row_id, str | int) else None
            yield BatchRow(number=number, row_id=shown_id, problem=problem_in(error))


def problem_in(error: DanError) -> str:
    """Return an error's message, with the name that a row has for the field."""
    if not isinstance(error, InvalidFieldError):
        return error.message
    return f"{_NAMES.get(_plain(error.field), error.field)} {error.problem}"


def _lines(file: IO[str]) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE + 1):
        yield line


def _json_lines(file: IO[str]) -> Iterator[Mapping[str, Any] | str]:
    for line in _lines(file):
        if not line.strip():
            continue
        if is_too_deep(line, _MAX_DEPTH):
            yield "the line is nested too deeply"
            continue
        try:
            value = json.loads(line)
        except ValueError:
            yield "the line is not JSON"
            continue
        yield value if isinstance(value, dict) else "the line is not a JSON object"


def _csv_rows(file: IO[str]) -> Iterator[Mapping[str, Any] | str]:
    reader = csv.reader(_lines(file), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error:
        header = []
    unknown = [name for name in header if _plain(name) not in _NAMES]
    if not header or len(unknown) == len(header):
        raise ConfigurationError(
            "the first line of the CSV does not name the columns",
            hint="For example: id,privateKey,chainId,duration",
        )
    if unknown:
        name = shown_name(unknown[0], otherwise="one of them")
        raise ConfigurationError(
            f"the first line of the CSV names a column that no row has: {name}",
            hint=f"Columns: {', '.join(COLUMNS)}",
        )
    while True:
        try:
            cells = next(reader, None)
        except csv.Error:
            yield "the line is not CSV"
            continue
        if cells is None:
            return
        if not cells:
            continue
        if len(cells) != len(header):
            yield f"the line has {len(cells)} columns, and the first one names {len(header)}"
            continue
        yield {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}


def _wallets(file: IO[str]) -> Iterator[Mapping[str, Any] | str]:
    for line in _lines(file):
        text = line.strip()
        if text and not text.startswith("#"):
            is_address = len(text.removeprefix("0x")) == 40
            yield {"address" if is_address else "privateKey": text}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _row(number: int, fields: Mapping[str, Any], seen: dict[bytes, int]) -> BatchRow:
    values: dict[str, Any] = {}
    for name, value in fields.items():
        shown = _NAMES.get(_plain(name))
        if shown is None:
            raise InvalidFieldError(shown_name(name, otherwise="a field"), "is not a field of a row")
        if value is not None:
            values[shown] = value
    wallet = LocalWallet(values.pop("privateKey")) if "privateKey" in values else None
    address = values.pop("address", None)
    if address is not None:
        address = parse_address("address", address)
        if wallet is not None and wallet.address != address:
            raise InvalidFieldError("address", "is not the private key's")
    row_id = values.pop("id", None)
    if row_id is not None:
        row_id = str(row_id)
        if not 1 <= len(row_id) <= 150 or not row_id.isprintable():
            raise InvalidFieldError("id", "must be 1 to 150 printable characters")
    parameters = {_PARAMETERS[name]: value for name, value in values.items()}
    for name in parameters.keys() & _NUMBERS:
        parameters[name] = _number(name, parameters[name])
    owner = wallet.address if wallet is not None else address
    return BatchRow(
        number=number,
        row_id=row_id,
        reference=_reference(row_id, owner, parameters, seen),
        parameters=parameters,
        wallet=wallet,
        address=owner,
    )


def _number(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 16:
        return int(value)
    raise InvalidFieldError(name, "must be a whole number")


def _reference(
    row_id: str | None, owner: str | None, parameters: Mapping[str, Any], seen: dict[bytes, int]
) -> str:
    content = ["id", row_id] if row_id is not None else ["row", owner, parameters]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    # Half of it is enough to tell rows apart, and a long input has many rows to remember.
    before = seen[digest[:16]] = seen.get(digest[:16], 0) + 1
    if row_id is not None:
        if before > 1:
            raise InvalidFieldError("id", "occurs twice in the input")
        return f"batch:id:{row_id}"
    return f"batch:{digest[:16].hex()}:{before}"


# --- the wallets ------------------------------------------------------------------------------------------------------


class RowWallets:
    """
    The wallets of a batch: a row's own key, its account at a JSON-RPC wallet, or one wallet for all.

    Entering opens those that the rows share.
    """

    def __init__(self, opener: WalletOpener | None, rpc_url: str | None) -> None:
        self._opener = opener
        self._rpc_url = rpc_url
        self._stack = AsyncExitStack()
        self._shared: Wallet | None = None
        self._transport: Transport | None = None

    @classmethod
    def choose(cls, options: WalletOptions, *, throwaway: str = "") -> Self:
        """Check the options; but there need not be a wallet, since rows may have keys."""
        is_named = options != WalletOptions() or PRIVATE_KEY_VARIABLE in os.environ
        opener = options.choose(throwaway=throwaway) if is_named or throwaway else None
        return cls(opener, options.wallet_rpc)

    async def __aenter__(self) -> Self:
        if self._rpc_url is not None:
            from dan_async.transport.http import HttpTransport

            self._transport = HttpTransport(
                self._rpc_url, options=TransportOptions(), connect_timeout_s=_CONNECT_S
            )
            self._stack.push_async_callback(self._transport.aclose)
        elif self._opener is not None:
            self._shared = await self._stack.enter_async_context(self._opener())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def problem_with(self, row: BatchRow) -> str:
        """Return the reason why nobody can authorise a row; an empty text if somebody can."""
        if row.wallet is not None:
            return ""
        if self._rpc_url is not None:
            return "" if row.address is not None else "the row names no address for the JSON-RPC wallet"
        if self._opener is None:
            return "the row has no privateKey, and no wallet is named for all rows"
        if row.address is not None and self._shared is not None and row.address != self._shared.address:
            return "the row's address is not the wallet's"
        return ""

    def of(self, row: BatchRow) -> Wallet:
        """Return the wallet of a row with which there is no problem."""
        if row.wallet is not None:
            return row.wallet
        if self._transport is not None and row.address is not None:
            from dan_async.wallets.json_rpc_wallet import JsonRpcWallet

            return JsonRpcWallet(self._transport, address=row.address)
        assert self._shared is not None
        return self._shared

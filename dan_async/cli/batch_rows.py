"""
The rows of a batch: JSON lines, CSV, or a list of wallets, read one by one in a thread; and the wallet of each.

Each row has a reference that stays the same when the input is read again, also when rows before it came or went: its own id,
or a hash of its parameters and of the number of equal rows before it.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import IO, TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar

from attrs import field, frozen

from dan_async._json import is_too_deep
from dan_async._values import shown_name
from dan_async.cli.choices import PRIVATE_KEY_VARIABLE, WalletOpener
from dan_async.cli.options import WalletOptions
from dan_async.cli.screen import problem_of
from dan_async.config import TransportOptions
from dan_async.crypto.address import parse_address
from dan_async.errors import ConfigurationError, DanError, InvalidFieldError
from dan_async.wallets.base import Wallet
from dan_async.wallets.local_key import LocalWallet

if TYPE_CHECKING:
    from dan_async.transport.rpc import Transport

T = TypeVar("T")

InputFormat: TypeAlias = Literal["jsonl", "csv", "wallets"]

#: By the ending of the file's name.
_FORMATS: Mapping[str, InputFormat] = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "csv": "csv",
    **dict.fromkeys(("txt", "keys", "wallets"), "wallets"),
}

#: Names of a row's fields, in camelCase or not -> parameters of generate_session_key.
_PARAMETERS = {
    "chainid": "chain_id",
    "duration": "duration",
    "threshold": "threshold",
    "partiesnumber": "parties_number",
    "parties": "parties_number",
    "minparties": "min_parties",
    "minholders": "min_holders",
    "permissions": "permissions",
    "keylabel": "key_label",
    "label": "key_label",
    "ephalg": "eph_alg",
}

#: The names of a row's fields as they are shown.
COLUMNS = (
    "id",
    "privateKey",
    "address",
    "chainId",
    "duration",
    "threshold",
    "partiesNumber",
    "minParties",
    "minHolders",
    "permissions",
    "keyLabel",
    "ephAlg",
)
_NUMBERS = frozenset({"chain_id", "duration", "threshold", "parties_number", "min_parties", "min_holders"})
_LONGEST_LINE = 256 * 1024

#: How deeply a row may be nested: permissions lie deeper than the rest.
_MAX_DEPTH = 64

#: How many rows the thread reads ahead of their consumer.
_AHEAD = 16

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
    names = {name.lower(): name for name in COLUMNS}
    return f"{names.get(_plain(error.field), error.field)} {problem_of(error)}"


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
    unknown = [name for name in header if _plain(name) not in _KNOWN]
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


_KNOWN = frozenset({"id", "privatekey", "address", "owner", *_PARAMETERS})


def _row(number: int, fields: Mapping[str, Any], seen: dict[bytes, int]) -> BatchRow:
    values: dict[str, Any] = {}
    for name, value in fields.items():
        plain = _plain(name)
        if plain not in _KNOWN:
            raise InvalidFieldError(shown_name(name, otherwise="a field"), "is not a field of a row")
        if value is None:
            continue
        values["address" if plain == "owner" else plain] = value
    wallet = LocalWallet(values.pop("privatekey")) if "privatekey" in values else None
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
    for name in _NUMBERS & parameters.keys():
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
            raise InvalidFieldError("id", "stands twice in the input")
        return f"batch:id:{row_id}"
    return f"batch:{digest[:16].hex()}:{before}"


# --- reading in a thread ----------------------------------------------------------------------------------------------


async def in_a_thread(make: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
    """Iterate in a thread over something that blocks, so that a slow pipe does not hold the event loop."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[str, T | Exception | None]] = asyncio.Queue()
    may_read = threading.Semaphore(_AHEAD)
    is_over = threading.Event()

    def put(kind: str, value: T | Exception | None) -> bool:
        """Hand something over when the reader is not too far ahead; return whether anybody takes it."""
        may_read.acquire()
        if is_over.is_set():
            return False
        try:
            loop.call_soon_threadsafe(queue.put_nowait, (kind, value))
        except RuntimeError:  # the loop is closed
            return False
        return True

    def read() -> None:
        try:
            for item in make():
                if not put("item", item):
                    return
        except Exception as error:  # noqa: BLE001 - it is raised where the items are taken
            put("error", error)
        else:
            put("end", None)

    # A daemon: nothing can wake a thread that waits for somebody to type.
    threading.Thread(target=read, name="batch rows", daemon=True).start()
    try:
        while True:
            kind, value = await queue.get()
            may_read.release()
            if kind == "end":
                return
            if isinstance(value, Exception) and kind == "error":
                raise value
            yield value  # type: ignore[misc]  # of kind "item" it is one
    finally:
        is_over.set()
        may_read.release()  # wakes the thread, so that it sees that it is over


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

"""Options that several commands have in common, in the same words, and the parsers of their values."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dan_async._values import MAX_PERMISSIONS_LENGTH
from dan_async.cli.choices import PRIVATE_KEY_VARIABLE
from dan_async.cli.screen import for_option, read_text
from dan_async.config import MAX_PARTIES, Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.network_file import NETWORK_VARIABLE

_DIGITS = re.compile(r"[+-]?[0-9]{1,18}\Z", re.ASCII)

#: Bytes of a file of permissions; the nodes take 64 Ki characters.
_LONGEST_PERMISSIONS = 4 * MAX_PERMISSIONS_LENGTH


def whole_number(least: int, most: int) -> Callable[[str | int], int]:
    """Return a parser of whole numbers within bounds: digits and nothing else, so 1.0 is none, nor a misplaced key."""

    def parse(value: str | int) -> int:
        # An option's default passes through here as well.
        if isinstance(value, str) and not _DIGITS.match(value):
            raise typer.BadParameter("must be a whole number")
        number = int(value)
        if not least <= number <= most:
            raise typer.BadParameter(f"must be from {least} to {most}")
        return number

    return parse


NETWORK_PANEL = "Network: exactly one"
WALLET_PANEL = "The owner's wallet"
_STORE = "The store"

DevnetOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="T-of-N",
        help="Start N nodes on loopback, any T of which can sign: 3-of-5. They stop with this command. Not for custody.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

NetworkOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME",
        help=f"A network file, or the name of one in the configuration folder. Or set {NETWORK_VARIABLE}.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

NodeOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL=OPERATOR",
        help="A node and the address of its identity key: wss://node.example/v1/rpc=0x... (ws:// to loopback only). "
        "Repeat it for each node.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

GatewayOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A wallet-provider gateway, with its version: wss://gateway.example/v1 (ws:// to loopback only).",
        rich_help_panel=NETWORK_PANEL,
    ),
]

RevisionOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="REVISION",
        help="With --gateway: the revision it speaks: 1 or 0.3, detected if not given, or 0.1, which must be named.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

ApiVersionOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="VERSION",
        help="With --gateway: v2 for one frame without a challenge, which can be replayed; v1 if not given.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

ThresholdOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(2, MAX_PARTIES),
        metavar="T",
        help="How many nodes must sign together, but with --devnet; a majority if not given.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

PartiesOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(2, MAX_PARTIES),
        metavar="N",
        help="How many nodes hold a share, but with --devnet; all if not given, and 5 behind a gateway.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Give up on a key or a signature after this long, 30 seconds if not given. Time that a person takes at a "
        "wallet does not count.",
    ),
]

PrivateKeyFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"A file with the owner's private key in hex; - for standard input. Or set {PRIVATE_KEY_VARIABLE}.",
        rich_help_panel=WALLET_PANEL,
    ),
]

WalletRpcOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A JSON-RPC wallet that supports eth_signTypedData_v4, for example http://127.0.0.1:8545.",
        rich_help_panel=WALLET_PANEL,
    ),
]

StoreOption: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="DAN_ASYNC_STORE",
        metavar="URL",
        help="The store: sqlite:///keys.db or postgresql://user@host/database. Or set DAN_ASYNC_STORE.",
        rich_help_panel=_STORE,
    ),
]

StoreKeyFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with the store's encryption key. Or set DAN_ASYNC_STORE_KEY, or DAN_ASYNC_STORE_PASSPHRASE. "
        "If none is named: the SQLite file's name with .key appended.",
        rich_help_panel=_STORE,
    ),
]

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]

RevealOption: TypeAlias = Annotated[
    bool, typer.Option("--reveal", help="Show ephemeral private keys where they would be masked.")
]


def read_permissions(option: str | None) -> str | None:
    """Return the JSON text of ``--permissions`` or of its ``@FILE``, unchanged: the nodes keep it letter for letter."""
    if option is None:
        return None
    from dan_async.permissions.rules import parse_permissions, permissions_text

    text = option
    if option.startswith("@"):
        path = Path(option[1:])
        text = read_text("--permissions", path, most_bytes=_LONGEST_PERMISSIONS, may_be_stdin=False).strip()
    try:
        parse_permissions(text)
        return permissions_text(text)
    except InvalidFieldError as error:
        raise ConfigurationError(
            f"--permissions: {error.message}", hint=error.hint or "Give JSON text, or @ and a file name"
        ) from None


def choose_timeouts(seconds: float | None) -> Timeouts:
    """Return the limits of a job that may take so many seconds in all; the usual ones if no number was typed."""
    try:
        return Timeouts() if seconds is None else Timeouts(total_s=seconds)
    except InvalidFieldError as error:
        raise for_option(error, "--timeout") from None

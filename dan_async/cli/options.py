"""
Options that several commands have in common, in the same words.

``--permissions``: JSON text, or @ and the name of a file that holds it.

``--timeout``: the limits of a job from one number.

Whole numbers as options: digits and nothing else, so that 1.0 or a key in the wrong place is no number.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dan_async.cli.choices import ENVIRONMENT_VARIABLE
from dan_async.cli.screen import mask_keys
from dan_async.config import MAX_PARTIES, Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.permissions.rules import permissions_text

_DIGITS = re.compile(r"[+-]?[0-9]{1,18}\Z", re.ASCII)


def whole_number(least: int, most: int) -> Callable[[str | int], int]:
    """
    Make a parser of whole numbers within bounds.

    Args:
        least: The smallest one allowed.
        most: The largest.
    """

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
        help="With --gateway: the revision it speaks, 0.1, 0.3 or 1; found out if not given.",
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
        help="With --node and --gateway: how many nodes must sign together; 3 if not given.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

PartiesOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        parser=whole_number(2, MAX_PARTIES),
        metavar="N",
        help="With --node and --gateway: how many nodes hold a share; 5 if not given, or all if fewer are named.",
        rich_help_panel=NETWORK_PANEL,
    ),
]

TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Give up after so long; 30 seconds for each key if not given."),
]

PrivateKeyFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"A file with the owner's private key in hex; - for standard input. Or set {ENVIRONMENT_VARIABLE}.",
        rich_help_panel=WALLET_PANEL,
    ),
]

WalletRpcOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="A JSON-RPC wallet that knows eth_signTypedData_v4, for example http://127.0.0.1:8545.",
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
        "If none is named: the SQLite file's name with .key behind it.",
        rich_help_panel=_STORE,
    ),
]

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]

RevealOption: TypeAlias = Annotated[
    bool, typer.Option("--reveal", help="Show ephemeral private keys where they would be masked.")
]

_LONGEST = 64 * 1024


def read_permissions(option: str | None) -> str | None:
    """
    Give the JSON text that the option names, unchanged: the nodes keep it letter for letter.

    Raises:
        ConfigurationError: The file cannot be read, or the text is not a JSON object or list.
    """
    if option is None:
        return None
    text = _read(option[1:]) if option.startswith("@") else option
    try:
        return permissions_text(text)
    except InvalidFieldError as error:
        problem = error.message.removeprefix(error.field + " ")
        raise ConfigurationError(
            f"--permissions {problem}", hint="Give JSON text, or @ and a file name"
        ) from None


def _read(name: str) -> str:
    shown = mask_keys(name) or "an empty name"
    try:
        with Path(name).open("rb") as file:
            data = file.read(4 * _LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise ConfigurationError(f"--permissions: cannot read {shown}: {reason}") from None
    if len(data) > 4 * _LONGEST:
        raise ConfigurationError(f"--permissions: {shown} is longer than {_LONGEST} characters")
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"--permissions: {shown} is not UTF-8 text") from None


def choose_timeouts(seconds: float | None) -> Timeouts:
    """
    Give the limits of a job that may take so long in all; the usual ones if nothing was typed.

    Args:
        seconds: What was typed, greater than 0.

    Raises:
        InvalidFieldError: It cannot be a time limit; the error names the option.
    """
    if seconds is None:
        return Timeouts()
    try:
        return Timeouts(total_s=seconds)
    except InvalidFieldError as error:
        raise InvalidFieldError("--timeout", error.message.removeprefix(error.field + " ")) from None

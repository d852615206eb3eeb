"""Options that several commands have in common, in the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dan_async.cli.wallet_choice import ENVIRONMENT_VARIABLE
from dan_async.cli.whole_number import whole_number
from dan_async.config import MAX_PARTIES

__all__ = [
    "NETWORK_PANEL",
    "WALLET_PANEL",
    "ApiVersionOption",
    "DevnetOption",
    "GatewayOption",
    "JsonOption",
    "NodeOption",
    "PartiesOption",
    "PrivateKeyFileOption",
    "RevealOption",
    "RevisionOption",
    "StoreKeyFileOption",
    "StoreOption",
    "ThresholdOption",
    "TimeoutOption",
    "WalletRpcOption",
]

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

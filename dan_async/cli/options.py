"""Options that several commands have in common, in the same words, and the parsers of their values."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer
from attrs import asdict, field, fields, frozen, has

from dan_async._values import MAX_PERMISSIONS_LENGTH
from dan_async.cli.choices import (
    PRIVATE_KEY_VARIABLE,
    STORE_VARIABLE,
    NetworkChoice,
    StoreOpener,
    WalletOpener,
    choose_network,
    choose_store,
    choose_wallet,
)
from dan_async.cli.screen import VerboseOption, for_option, read_text, verbosity
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


# --- groups of options ------------------------------------------------------------------------------------------------


NETWORK_PANEL = "Network: exactly one"
_WALLET = "The owner's wallet"
_STORE = "The store"


def option(panel: str, metavar: str | None, text: str, *names: str, **more: Any) -> Any:
    """Declare an option of a group, which is None if it is not given."""
    declared = typer.Option(*names, metavar=metavar, help=text, rich_help_panel=panel, **more)
    return field(default=None, metadata={"option": declared})


@frozen(kw_only=True)
class NetworkOptions:
    """A network that runs elsewhere: nodes or a gateway."""

    network: str | None = option(
        NETWORK_PANEL,
        "FILE|NAME",
        f"A network file, or the name of one in the configuration folder. Or set {NETWORK_VARIABLE}.",
    )
    node: list[str] | None = option(
        NETWORK_PANEL,
        "URL=OPERATOR",
        "A node and the address of its identity key: wss://node.example/v1/rpc=0x... (ws:// to loopback only). "
        "Repeat it for each node.",
    )
    gateway: str | None = option(
        NETWORK_PANEL,
        "URL",
        "A wallet-provider gateway, with its version: wss://gateway.example/v1 (ws:// to loopback only).",
    )
    revision: str | None = option(
        NETWORK_PANEL,
        "REVISION",
        "With --gateway: the revision it speaks: 1 or 0.3, detected if not given, or 0.1, which must be named.",
    )
    api_version: str | None = option(
        NETWORK_PANEL,
        "VERSION",
        "With --gateway: v2 for one frame without a challenge, which can be replayed; v1 if not given.",
    )

    def choose(self) -> NetworkChoice:
        """Check them; see ``choose_network``."""
        given = asdict(self)
        return choose_network(nodes=given.pop("node") or [], **given)


@frozen(kw_only=True)
class KeygenNetworkOptions(NetworkOptions):
    """A network on which keys are made, which may be a devnet of the command's own."""

    devnet: str | None = option(
        NETWORK_PANEL,
        "T-of-N",
        "Start N nodes on loopback, any T of which can sign: 3-of-5. They stop with this command, and their keys are "
        "lost with them. Not for custody.",
    )
    threshold: int | None = option(
        NETWORK_PANEL,
        "T",
        "How many nodes must sign together, but with --devnet; a majority if not given.",
        parser=whole_number(2, MAX_PARTIES),
    )
    parties: int | None = option(
        NETWORK_PANEL,
        "N",
        "How many nodes hold a share, but with --devnet; all if not given, and 5 behind a gateway.",
        parser=whole_number(2, MAX_PARTIES),
    )

    def choose(self) -> NetworkChoice:
        """Check them; see ``choose_network``."""
        given = asdict(self)
        return choose_network(nodes=given.pop("node") or [], has_devnet=True, **given)


@frozen(kw_only=True)
class WalletOptions:
    """The wallet of the owner, or of several."""

    private_key_file: Path | None = option(
        _WALLET,
        "FILE",
        f"A file with the owner's private key in hex; - for standard input. Or set {PRIVATE_KEY_VARIABLE}.",
    )
    wallet_rpc: str | None = option(
        _WALLET,
        "URL",
        "A JSON-RPC wallet that supports eth_signTypedData_v4, for example http://127.0.0.1:8545.",
    )

    def choose(self, *, throwaway: str = "") -> WalletOpener:
        """Check them; see ``choose_wallet``."""
        given = asdict(self)
        return choose_wallet(
            private_key_file=given["private_key_file"],
            rpc_url=given["wallet_rpc"],
            rpc_address=given.get("wallet_address"),
            throwaway=throwaway,
        )


@frozen(kw_only=True)
class OwnerOptions(WalletOptions):
    """The one owner's wallet."""

    wallet_address: str | None = option(
        _WALLET, "ADDRESS", "Which of the JSON-RPC wallet's accounts; its first one if not given."
    )


@frozen(kw_only=True)
class StoreOptions:
    """A store that is there already."""

    store: str | None = option(
        _STORE,
        "URL",
        f"The store: sqlite:///keys.db or postgresql://user@host/database. Or set {STORE_VARIABLE}.",
    )
    store_key_file: Path | None = option(
        _STORE,
        "FILE",
        "A file with the store's encryption key. Or set DAN_ASYNC_STORE_KEY, or DAN_ASYNC_STORE_PASSPHRASE. "
        "If none is named: the SQLite file's name with .key appended.",
    )

    @property
    def is_named(self) -> bool:
        """Whether an option or the environment names a store."""
        return bool(self.store or os.environ.get(STORE_VARIABLE))

    def choose(self, *, may_make: bool = False) -> StoreOpener:
        """Check them; see ``choose_store``."""
        url = self.store or os.environ.get(STORE_VARIABLE)
        if not url:
            raise ConfigurationError("no store is named", hint=f"Use --store URL, or set {STORE_VARIABLE}")
        name = "--store" if self.store else STORE_VARIABLE
        return choose_store(url, option=name, key_file=self.store_key_file, may_make=may_make)


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """
    Return a command as Typer takes it: the options of its groups in place of each group, and one for the client's log.

    Line breaks within its help go, for a terminal may be narrower or wider than the source.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups = {name: one.annotation for name, one in own.items() if has(one.annotation)}
    shown: list[inspect.Parameter] = []
    for name, parameter in own.items():
        if name not in groups:
            shown.append(parameter)
            continue
        hints = get_type_hints(groups[name])
        for part in fields(groups[name]):
            kind: Any = Annotated[hints[part.name], part.metadata["option"]]
            shown.append(parameter.replace(name=part.name, default=part.default, annotation=kind))
    shown.append(
        inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VerboseOption)
    )

    def call(*args: Any, verbose: bool, **values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{part.name: values.pop(part.name) for part in fields(group)})
        with verbosity(on=verbose):
            command(*args, **values)

    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]  # what inspect reads of any callable
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    call.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return call


# --- options of several commands --------------------------------------------------------------------------------------


TimeoutOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Give up on a key or a signature after this long, 30 seconds if not given. Time that a person takes at a "
        "wallet does not count.",
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

"""
Options that several commands have in common, in the same words, and the parsers of their values.

The network, the store and the wallet that they name are checked here, and opened later.
"""

from __future__ import annotations

import codecs
import inspect
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, get_type_hints

import typer
from attrs import asdict, field, fields, frozen, has

from dan_async._values import MAX_PERMISSIONS_LENGTH
from dan_async.cli.screen import (
    NetworkFileError,
    VerboseOption,
    event_listener,
    for_option,
    mask_keys,
    note,
    read_file,
    read_text,
    verbosity,
)
from dan_async.cli.session_file import write_new
from dan_async.config import DEFAULT_THRESHOLD, MAX_PARTIES, NodeEndpoint, Threshold, Timeouts, check_url
from dan_async.crypto.address import parse_address
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.network_file import NETWORK_VARIABLE, NetworkFile, find_network_file
from dan_async.opening import make_network
from dan_async.storage.base import SessionFilter, find_record
from dan_async.storage.keys import (
    STORE_KEY_VARIABLE,
    KeySource,
    PassphraseKeys,
    StoreKey,
    keys_from_environment,
    keys_from_file,
)
from dan_async.types import RequestId
from dan_async.wallets.base import Wallet
from dan_async.wallets.json_rpc_wallet import JsonRpcWallet
from dan_async.wallets.local_key import LocalWallet

if TYPE_CHECKING:
    from dan_async.client import DanClient
    from dan_async.network import Network, NetworkSource
    from dan_async.session import DanSessionKeyPayload
    from dan_async.storage.base import SessionStore, StoredSession
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

#: Polygon Amoy, a test network: on a devnet the chain id is only a label in the payload.
DEVNET_CHAIN_ID = 80002

#: Holds the owner's private key.
PRIVATE_KEY_VARIABLE = "DAN_ASYNC_PRIVATE_KEY"

#: Names the store where no option does.
STORE_VARIABLE = "DAN_ASYNC_STORE"

_STORE_PASSPHRASE = "DAN_ASYNC_STORE_PASSPHRASE"  # noqa: S105 - the variable's name

#: Enough for a key in hex, and little of anything else that the path may point to.
_LONGEST_KEY_FILE = 4096


# --- the network ------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class NetworkChoice:
    """A network that was named and checked: that of a network file or of options like one, or else a devnet of our own."""

    threshold: Threshold
    file: NetworkFile | None = None
    #: The option that named it.
    option: str = "--devnet"

    @property
    def is_devnet(self) -> bool:
        """Whether the nodes are our own."""
        return self.file is None

    @property
    def chain_id(self) -> int | None:
        """The chain that its sessions are for unless an option says otherwise; None if nothing does."""
        if self.file is None:
            return DEVNET_CHAIN_ID
        return None if self.file.chain is None else self.file.chain.id

    def choose_chain(self, named: int | None) -> int:
        """Return the chain that an option names, or else the usual one."""
        chain_id = self.chain_id if named is None else named
        if chain_id is None:
            raise ConfigurationError(
                f"--chain-id is needed with {self.option}",
                hint="For example --chain-id 137, or [chain] in a network file",
            )
        return chain_id

    def describe(self) -> str:
        """Name it in a few words, for the progress line."""
        if self.file is None:
            return f"{self.threshold.n} nodes on loopback"
        return "the gateway" if self.file.gateway is not None else f"{len(self.file.nodes)} nodes"

    def client(self, timeouts: Timeouts, store: SessionStore | None = None) -> DanClient:
        """Make a client of it, which starts and stops it; with --verbose, each of its events is a log line."""
        from dan_async.client import DanClient

        network: Network | NetworkSource
        if self.file is None:
            from dan_async.devnet.cluster import Devnet

            network = Devnet(self.threshold.t, self.threshold.n)
        else:
            network = make_network(self.file, timeouts=timeouts, threshold=self.threshold)
        return DanClient(network, timeouts=timeouts, store=store, on_event=event_listener())


def _choose_network(given: KeygenNetworkOptions, *, has_devnet: bool) -> NetworkChoice:
    """Check the options, one of which names a network, or else the environment does; a devnet's t and n are in its name."""
    nodes = given.node or []
    naming = {
        "--network": given.network,
        "--devnet": given.devnet,
        "--node": given.node,
        "--gateway": given.gateway,
    }
    named = [option for option, value in naming.items() if value not in (None, [])]
    if len(named) > 1:
        raise ConfigurationError(f"{' and '.join(named)} both name a network", hint="Give one of them")
    if given.gateway is None and (given.revision is not None or given.api_version is not None):
        raise ConfigurationError(
            "--revision and --api-version are for --gateway", hint="Leave them out, or name the gateway"
        )
    if given.devnet is not None:
        if given.threshold is not None or given.parties is not None:
            raise ConfigurationError(
                "--threshold and --parties are for --node, --gateway and --network",
                hint="--devnet T-of-N sets both: --devnet 3-of-5",
            )
        return NetworkChoice(threshold=_parse_threshold(given.devnet))
    if given.gateway is not None:
        version = given.api_version or "v1"
        file = NetworkFile(
            gateway=check_gateway(given.gateway, given.revision, version),
            revision=given.revision,
            api_version=version,
        )
    elif nodes:
        endpoints = tuple(parse_node(text, place) for place, text in enumerate(nodes, start=1))
        try:
            file = NetworkFile(nodes=endpoints)
        except InvalidFieldError as error:
            raise for_option(error, "--node") from None
        if len(nodes) == 1:
            raise ConfigurationError(
                "--node is given only once, but at least two nodes must work together",
                hint="Repeat --node for each node",
            )
    elif given.network is not None or os.environ.get(NETWORK_VARIABLE):
        named = ["--network" if given.network is not None else NETWORK_VARIABLE]
        name = os.environ[NETWORK_VARIABLE] if given.network is None else given.network
        file = _read_network(name, named[0])
    else:
        raise ConfigurationError(
            "no network is named",
            hint=f"Use {'--devnet 3-of-5, ' * has_devnet}--network FILE, --node URL=OPERATOR once for each node,"
            " or --gateway URL",
        )
    usual = file.threshold or (Threshold.of_pool(len(file.nodes)) if file.nodes else DEFAULT_THRESHOLD)
    agreed = check_threshold(given.threshold, given.parties, usual=usual, parties_option="--parties")
    if file.nodes and agreed.n > len(file.nodes):
        raise ConfigurationError(
            f"--parties asks for {agreed.n} nodes, but {len(file.nodes)} are named"
            if given.parties is not None
            else f"{named[0]}: {agreed} asks for more than the {len(file.nodes)} nodes that are named",
            hint="Name more nodes, or ask for fewer",
        )
    return NetworkChoice(threshold=agreed, file=file, option=named[0])


def _read_network(name: str, option: str) -> NetworkFile:
    """Read the network file that an option or the environment names, or that the user's folder has under that name."""
    if "://" in name:  # DanClient.connect takes it
        raise ConfigurationError(
            f"{option} must be a network file, or the name of one",
            hint="For others use --gateway URL, --node URL=OPERATOR, or where keys are made --devnet T-of-N",
        )
    where = option
    try:
        path = find_network_file(name)
        file = NetworkFile.read(path)
        if file.gateway is not None:
            from dan_async.gateway.network import check_gateway_revision, check_gateway_url

            where = f"{option}: {path}"
            check_gateway_revision(file.revision, file.api_version)
            check_gateway_url("url", file.gateway, file.api_version)
    except ConfigurationError as error:
        raise NetworkFileError(f"{where}: {error.message}", hint=error.hint) from None
    return file


def check_threshold(
    threshold: int | None, parties: int | None, *, usual: Threshold = DEFAULT_THRESHOLD, parties_option: str
) -> Threshold:
    """Check t and n that come from options of their own, beside the usual ones."""
    try:
        return usual.changed(threshold, parties)
    except InvalidFieldError as error:
        option = parties_option if error.field == "parties_number" else "--threshold"
        problem = error.problem.replace("parties_number", parties_option)
        raise InvalidFieldError(option, problem, hint=error.hint) from None


def _parse_threshold(text: str) -> Threshold:
    try:
        return Threshold.parse(text)
    except InvalidFieldError as error:
        if "form" in error.message:
            raise ConfigurationError("--devnet must have the form T-of-N", hint=error.hint) from None
        problem = error.message.replace("threshold", "T").replace("parties_number", "N")
        raise ConfigurationError(f"--devnet: {problem}", hint=error.hint) from None


def parse_node(text: str, place: int) -> NodeEndpoint:
    """Read the value of the --node that stands at *place*, from 1: ``URL=OPERATOR``."""
    try:
        return NodeEndpoint.of(text)
    except ConfigurationError as error:
        which = f"--node number {place}" if place > 1 else "--node"
        raise ConfigurationError(
            f"{which}: {error.message.removeprefix('node ')}",
            hint=error.hint
            or "For example: wss://node.example/v1/rpc=0x..., with the operator's address after the =",
        ) from None


def check_gateway(url: str, revision: str | None, api_version: str) -> str:
    """Check --gateway, --revision and --api-version, and whether they go together; return the URL."""
    from dan_async.gateway.network import check_gateway_revision, check_gateway_url

    try:
        check_gateway_revision(revision, api_version)
        return check_gateway_url("--gateway", url, api_version)
    except InvalidFieldError as error:
        option = {"revision": "--revision", "api_version": "--api-version"}.get(error.field, error.field)
        problem = error.problem.replace("api_version", "--api-version")
        hint = error.hint.replace("api_version", "--api-version")
        raise InvalidFieldError(option, problem, hint=hint) from None


# --- the store --------------------------------------------------------------------------------------------------------


#: Makes the chosen store; whoever calls closes it.
StoreOpener: TypeAlias = Callable[[], "SQLAlchemyStore"]


def _choose_keys(
    key_file: Path | None, file: Path | None, option: str, *, may_make: bool
) -> KeySource | None:
    """Return the store's keys; None if a key is to be made together with the store."""
    if key_file is not None:
        return keys_from_file(key_file)
    if os.environ.get(STORE_KEY_VARIABLE):
        return keys_from_environment(STORE_KEY_VARIABLE)
    if os.environ.get(_STORE_PASSPHRASE):
        try:
            return PassphraseKeys(os.environ[_STORE_PASSPHRASE])
        except InvalidFieldError as error:
            raise for_option(error, _STORE_PASSPHRASE) from None
    hint = f"Use --store-key-file FILE, or set {STORE_KEY_VARIABLE} or {_STORE_PASSPHRASE}"
    if file is None:
        raise ConfigurationError(f"{option}: there is no key for the store", hint=hint)
    beside = _key_beside(file)
    if beside.exists():
        return keys_from_file(beside)
    if file.exists() or not may_make:
        raise ConfigurationError(f"{option}: there is no key for {file}, nor a file {beside}", hint=hint)
    if not beside.absolute().parent.is_dir():
        raise ConfigurationError(f"{option}: there is no folder {file.parent}")
    return None


def _key_beside(file: Path) -> Path:
    return file.with_name(file.name + ".key")


def _make_key(beside: Path) -> KeySource:
    try:
        write_new(beside, StoreKey.generate().to_text() + "\n", what="the store's key")
    except ConfigurationError:
        if not beside.exists():
            raise
        # Another program, which began to use the same new store, was faster.
    else:
        note(
            f"The store's key was made and written to {beside}: keep it, and keep it apart from backups of the store."
        )
    return keys_from_file(beside)


async def record_of(store: SessionStore, name: str, *, option: str) -> StoredSession:
    """Return the record of an id or a reference."""
    found = await find_record(store, name)
    if found is None:
        raise ConfigurationError(
            f"{option}: there is no record of that id or reference", hint="dan-async sessions list shows them"
        )
    return found


async def record_of_session(store: SessionStore, session: DanSessionKeyPayload) -> RequestId | None:
    """Return the id of a session's record."""
    end = session.expires_at or 0
    where = SessionFilter(owner=session.eoa_address, expires_after=end - 1, expires_by=end)
    async for record in store.find(where):
        if record.session == session:
            return record.record_id
    return None


# --- the wallet -------------------------------------------------------------------------------------------------------

#: Opens the chosen wallet; leaving the context closes it.
WalletOpener: TypeAlias = Callable[[], AbstractAsyncContextManager[Wallet]]


def _rpc_wallet(url: str, address: str | None) -> WalletOpener:
    check_url("--wallet-rpc", url, schemes=("https", "http"))
    checked = None if address is None else parse_address("--wallet-address", address)

    @asynccontextmanager
    async def open_wallet() -> AsyncIterator[Wallet]:
        async with await JsonRpcWallet.connect(url, address=checked) as wallet:
            yield wallet

    return open_wallet


def _local_wallet(private_key: str, *, source: str) -> WalletOpener:
    try:
        wallet = LocalWallet(private_key)
    except InvalidFieldError as error:
        raise ConfigurationError(
            f"{source}: the key {error.problem}",
            hint="A private key is 64 hex digits, with or without 0x",
        ) from None
    return lambda: nullcontext(wallet)


def _read_key_file(path: Path) -> str:
    data, mode = read_file("--private-key-file", path, most_bytes=_LONGEST_KEY_FILE)
    shown = mask_keys(str(path))
    if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        note(f"warning: other users of this machine may read {shown}; chmod 600 keeps it to you")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"--private-key-file: {shown} does not hold a private key in hex") from None


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


def any_number(value: str | float) -> float:
    """Parse a number; whoever uses it checks its bounds."""
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter("must be a number") from None


# --- groups of options ------------------------------------------------------------------------------------------------


def option(metavar: str | None, text: str, *names: str, default: Any = None, **more: Any) -> Any:
    """Declare an option of a group, in the panel of the group."""
    declare = partial(typer.Option, *names, metavar=metavar, help=text, **more)
    return field(default=default, metadata={"option": declare})


@frozen(kw_only=True)
class NetworkOptions:
    """A network that runs elsewhere: nodes or a gateway."""

    panel: ClassVar[str] = "Network: exactly one"

    network: str | None = option(
        "FILE|NAME",
        f"A network file, or the name of one in the configuration folder. Or set {NETWORK_VARIABLE}.",
    )
    node: list[str] | None = option(
        "URL=OPERATOR",
        "A node and the address of its identity key: wss://node.example/v1/rpc=0x... (ws:// to loopback only). "
        "Repeat it for each node.",
    )
    gateway: str | None = option(
        "URL",
        "A wallet-provider gateway, with its version: wss://gateway.example/v1 (ws:// to loopback only).",
    )
    revision: str | None = option(
        "REVISION", "With --gateway: its revision, 1, 0.3 or 0.1. 1 and 0.3 are detected; 0.1 must be named."
    )
    api_version: str | None = option(
        "VERSION",
        "With --gateway: v1 (the default), or v2: one frame without a challenge, which can be replayed.",
    )

    def choose(self) -> NetworkChoice:
        """Check them; one must name a network, or else the environment does."""
        return _choose_network(KeygenNetworkOptions(**asdict(self)), has_devnet=False)


@frozen(kw_only=True)
class KeygenNetworkOptions(NetworkOptions):
    """A network on which keys are made, which may be a devnet of the command's own."""

    devnet: str | None = option(
        "T-of-N",
        "Start N nodes on loopback, any T of which can sign: 3-of-5. They stop with this command, and their keys are "
        "lost with them. Not for custody.",
    )
    threshold: int | None = option(
        "T",
        "How many nodes must sign together; a majority by default. Not with --devnet.",
        parser=whole_number(2, MAX_PARTIES),
    )
    parties: int | None = option(
        "N",
        "How many nodes hold a share; by default all, or 5 behind a gateway. Not with --devnet.",
        parser=whole_number(2, MAX_PARTIES),
    )

    def choose(self) -> NetworkChoice:
        """Check them; as in ``NetworkOptions``."""
        return _choose_network(self, has_devnet=True)


@frozen(kw_only=True)
class WalletOptions:
    """The wallet of the owner, or of several."""

    panel: ClassVar[str] = "The owner's wallet"

    private_key_file: Path | None = option(
        "FILE",
        f"A file with the owner's private key in hex; - for standard input. Or set {PRIVATE_KEY_VARIABLE}.",
    )
    wallet_rpc: str | None = option(
        "URL", "A JSON-RPC wallet that supports eth_signTypedData_v4, for example http://127.0.0.1:8545."
    )

    def choose(self, *, throwaway: str = "") -> WalletOpener:
        """
        Choose the wallet that authorises; an option wins over the environment, and both over a throwaway key.

        *throwaway* is what is noted when such a key is made; without it, none is. Keys are read and checked at once, and no
        error repeats one; nothing is sent before the wallet is opened.
        """
        key_file, rpc_url = self.private_key_file, self.wallet_rpc
        address = asdict(self).get("wallet_address")
        if key_file is not None and rpc_url is not None:
            raise ConfigurationError(
                "--private-key-file and --wallet-rpc both name a wallet", hint="Give one of them"
            )
        if address is not None and rpc_url is None:
            raise ConfigurationError(
                "--wallet-address needs --wallet-rpc URL", hint="A private key has one address only"
            )
        if rpc_url is not None:
            return _rpc_wallet(rpc_url, address)
        if key_file is not None:
            return _local_wallet(_read_key_file(key_file), source="--private-key-file")
        if PRIVATE_KEY_VARIABLE in os.environ:
            return _local_wallet(os.environ[PRIVATE_KEY_VARIABLE].strip(), source=PRIVATE_KEY_VARIABLE)
        if not throwaway:
            raise ConfigurationError(
                "no wallet is named",
                hint=f"Use --private-key-file FILE, the environment variable {PRIVATE_KEY_VARIABLE}, or --wallet-rpc URL",
            )

        def open_throwaway() -> AbstractAsyncContextManager[Wallet]:
            note(throwaway)
            return nullcontext(LocalWallet(secrets.token_hex(32)))

        return open_throwaway


@frozen(kw_only=True)
class OwnerOptions(WalletOptions):
    """The one owner's wallet."""

    wallet_address: str | None = option(
        "ADDRESS", "The JSON-RPC wallet's account to use; its first one by default."
    )


@frozen(kw_only=True)
class StoreOptions:
    """A store that is there already."""

    panel: ClassVar[str] = "The store"
    #: The option that names it.
    naming: ClassVar[str] = "--store"

    store: str | None = option(
        "URL", f"The store: sqlite:///keys.db or postgresql://user@host/database. Or set {STORE_VARIABLE}."
    )
    store_key_file: Path | None = option(
        "FILE",
        "A file with the store's encryption key. Or set DAN_ASYNC_STORE_KEY, or DAN_ASYNC_STORE_PASSPHRASE. "
        "Default: the SQLite file's name with .key appended.",
    )

    @property
    def url(self) -> str:
        """The store that the option or the environment names, if one does."""
        return self.store or os.environ.get(STORE_VARIABLE, "")

    def choose(self, *, may_make: bool = False) -> StoreOpener:
        """
        Check the URL and find its key.

        *may_make* allows a new SQLite file, with a key file beside it: both are made when the store is opened, not here.
        """
        from dan_async.storage.sqlalchemy_store import SQLAlchemyStore  # noqa: I001 - first, as it checks for the extra
        from dan_async.storage.database import parse_url

        url, option = self.url, self.naming if self.store else STORE_VARIABLE
        if not url:
            hint = f"Use {self.naming} URL, or set {STORE_VARIABLE}"
            raise ConfigurationError("no store is named", hint=hint)
        try:
            parsed = parse_url(url)
        except InvalidFieldError as error:
            raise for_option(error, option) from None
        if parsed.database == ":memory:":
            raise ConfigurationError(
                f"{option}: a store in memory ends with this command", hint="Name a file"
            )
        file = Path(parsed.database or "") if parsed.drivername.startswith("sqlite") else None
        if not may_make and file is not None and not file.exists():
            raise ConfigurationError(f"{option}: there is no store {file}")
        keys = _choose_keys(self.store_key_file, file, option, may_make=may_make)
        return lambda: SQLAlchemyStore(url, keys or _make_key(_key_beside(file or Path())))


@frozen(kw_only=True)
class DevnetOptions:
    """A devnet that runs until it is stopped."""

    nodes: int = option(
        "N", "How many nodes to run, 2 to 20.", parser=whole_number(2, MAX_PARTIES), default=5
    )
    threshold: int | None = option(
        "T",
        "How many of them must sign together unless a client says otherwise, 2 to N; a majority by default.",
        parser=whole_number(2, MAX_PARTIES),
    )
    storage: Path | None = option(
        "DIR",
        "Keep identities and shares, and with dev the chain's state, in this folder, so that a later run still has "
        "them; in memory by default.",
    )
    port: int | None = option(
        "PORT",
        "The gateway's port; the nodes' follow, and with dev those of Anvil and Alto. Free ones by default; with "
        "--storage gateway and nodes keep those of the previous run.",
        parser=whole_number(1, 65_535 - MAX_PARTIES - 2),
    )
    write: Path | None = option(
        "FILE", "Write a network file when all listen, for --network FILE; it is replaced."
    )
    owner_key: Path | None = option(
        "FILE",
        "Write a new private key to FILE, unless it is there, for --private-key-file FILE. For tests only.",
    )
    as_json: bool = option(
        None,
        "Print one JSON object on one line when all listen: threshold, parties, nodes (url and operator of each), "
        "gateway, and the chain if there is one.",
        "--json",
        default=False,
    )

    def choose(self) -> Threshold:
        """Check them; return how many nodes there are, and how many of them must sign."""
        if self.storage is not None and self.storage.exists() and not self.storage.is_dir():
            raise ConfigurationError(f"--storage: {mask_keys(str(self.storage))} is not a folder")
        return check_threshold(self.threshold, self.nodes, parties_option="--nodes")


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """
    Return a command as Typer takes it: the options of its groups in place of each group, and one for the client's log.

    The default of a parameter that is a group has the defaults of its options, where they are not the group's own.
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
        usual = groups[name]() if parameter.default is parameter.empty else parameter.default
        for part in fields(groups[name]):
            declared = part.metadata["option"](rich_help_panel=getattr(groups[name], "panel", None))
            kind: Any = Annotated[hints[part.name], declared]
            shown.append(
                parameter.replace(name=part.name, default=getattr(usual, part.name), annotation=kind)
            )
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
        parser=any_number,
        metavar="SECONDS",
        help="Give up on a key or a signature after this long; 30 seconds by default. A person's time at a wallet does not "
        "count.",
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
        usual = "Give JSON text, or @ and a file name" if error.field == "permissions" else ""
        raise ConfigurationError(f"--permissions: {error.message}", hint=error.hint or usual) from None


def choose_timeouts(seconds: float | None) -> Timeouts:
    """Return the limits of a job that may take so many seconds in all; the usual ones if no number was typed."""
    try:
        return Timeouts() if seconds is None else Timeouts(total_s=seconds)
    except InvalidFieldError as error:
        raise for_option(error, "--timeout") from None

"""
Which network makes the key: a devnet of our own, nodes that run elsewhere, or a gateway in front of some.

Which store, and which key opens it.

Which wallet authorises: a key file, the environment, a JSON-RPC wallet, or a throwaway key on a devnet.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from dan_async.cli.screen import mask_keys, note
from dan_async.config import DEFAULT_THRESHOLD, NodeEndpoint, Threshold, Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError, require_extra
from dan_async.storage.keys import KeySource, PassphraseKeys, StoreKey, keys_from_environment, keys_from_file
from dan_async.wallets.base import Wallet

if TYPE_CHECKING:
    from dan_async.network import Network, NetworkSource
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

#: Polygon Amoy, a test network: on a devnet the chain id is only a label in the payload.
DEVNET_CHAIN_ID = 80002


@frozen(kw_only=True)
class GatewayChoice:
    """
    A gateway that was named and checked.

    Args:
        url: Its URL, version segment included.
        revision: Its revision, if it was named.
        api_version: ``v1`` or ``v2``.
    """

    url: str
    revision: str | None
    api_version: str


@frozen(kw_only=True)
class NetworkChoice:
    """
    A network that was named and checked, and not yet opened.

    Args:
        threshold: t and n of the key to make.
        nodes: The nodes to talk to; none for a devnet, which starts its own.
        gateway: The gateway to talk to instead.
    """

    threshold: Threshold
    nodes: tuple[NodeEndpoint, ...] = ()
    gateway: GatewayChoice | None = None

    @property
    def is_devnet(self) -> bool:
        """Whether the nodes are our own."""
        return not self.nodes and self.gateway is None

    def describe(self) -> str:
        """Say what is being waited for."""
        if self.gateway is not None:
            return "the gateway"
        return f"{self.threshold.n} nodes on loopback" if self.is_devnet else f"{len(self.nodes)} nodes"

    def open(self, timeouts: Timeouts) -> Network | NetworkSource:
        """Make what a client takes; the client starts and stops it."""
        if self.is_devnet:
            from dan_async.devnet.cluster import Devnet

            return Devnet(self.threshold.t, self.threshold.n)
        if self.gateway is not None:
            from dan_async.gateway.network import GatewayNetwork

            return GatewayNetwork(
                self.gateway.url,
                revision=self.gateway.revision,
                api_version=self.gateway.api_version,
                timeouts=timeouts,
            )
        from dan_async.nodes.network import NodeNetwork

        return NodeNetwork(self.nodes, timeouts=timeouts)


def choose_network(
    *,
    devnet: str | None,
    nodes: Sequence[str],
    threshold: int | None,
    parties: int | None,
    gateway: str | None = None,
    revision: str | None = None,
    api_version: str | None = None,
) -> NetworkChoice:
    """
    Check what the options name.

    Args:
        devnet: ``T-of-N``.
        nodes: ``URL=OPERATOR`` each.
        threshold: t, for nodes and for a gateway.
        parties: n, for nodes and for a gateway.
        gateway: A gateway's URL.
        revision: The gateway's revision, if it is not to be found out.
        api_version: The form of the gateway's exchange; ``v1`` if None.

    Raises:
        ConfigurationError: Not exactly one network is named, or it is malformed.
    """
    named = [
        option
        for option, is_given in (
            ("--devnet", devnet is not None),
            ("--node", bool(nodes)),
            ("--gateway", gateway is not None),
        )
        if is_given
    ]
    if len(named) > 1:
        raise ConfigurationError(f"{' and '.join(named)} both name a network", hint="Give one of them")
    if gateway is None and (revision is not None or api_version is not None):
        raise ConfigurationError(
            "--revision and --api-version are for --gateway", hint="Leave them out, or name the gateway"
        )
    if devnet is not None:
        if threshold is not None or parties is not None:
            raise ConfigurationError(
                "--threshold and --parties are for --node and --gateway",
                hint="--devnet T-of-N says both: --devnet 3-of-5",
            )
        return NetworkChoice(threshold=_parse_threshold(devnet))
    if gateway is not None:
        chosen = check_gateway(gateway, revision, api_version or "v1")
        return NetworkChoice(threshold=_usual_threshold(threshold, parties), gateway=chosen)
    if not nodes:
        raise ConfigurationError(
            "no network is named",
            hint="Use --devnet 3-of-5, --node URL=OPERATOR once for each node, or --gateway URL",
        )
    endpoints = tuple(parse_node(text, place) for place, text in enumerate(nodes, start=1))
    return NetworkChoice(threshold=_threshold_for(endpoints, threshold, parties), nodes=endpoints)


def check_threshold(threshold: int, parties: int, *, parties_option: str) -> Threshold:
    """
    Check t and n that come from options of their own.

    Raises:
        InvalidFieldError: One is out of range; the error names the option.
    """
    try:
        return Threshold(threshold, parties)
    except InvalidFieldError as error:
        option = parties_option if error.field == "parties_number" else "--threshold"
        problem = error.message.removeprefix(error.field + " ").replace("parties_number", parties_option)
        raise InvalidFieldError(option, problem, hint=error.hint) from None


def _usual_threshold(
    threshold: int | None, parties: int | None, most: int = DEFAULT_THRESHOLD.n
) -> Threshold:
    n = min(DEFAULT_THRESHOLD.n, most) if parties is None else parties
    t = DEFAULT_THRESHOLD.t if threshold is None else threshold
    return check_threshold(t, n, parties_option="--parties")


def _threshold_for(
    endpoints: tuple[NodeEndpoint, ...], threshold: int | None, parties: int | None
) -> Threshold:
    agreed = _usual_threshold(threshold, parties, len(endpoints))
    if agreed.n > len(endpoints):
        raise ConfigurationError(
            f"--parties asks for {agreed.n} nodes, and {len(endpoints)} are named",
            hint="Repeat --node for each node, or ask for fewer",
        )
    return agreed


def _parse_threshold(text: str) -> Threshold:
    try:
        return Threshold.parse(text)
    except InvalidFieldError as error:
        if "form" in error.message:
            raise ConfigurationError("--devnet must have the form T-of-N", hint=error.hint) from None
        problem = error.message.replace("threshold", "T").replace("parties_number", "N")
        raise ConfigurationError(f"--devnet: {problem}", hint=error.hint) from None


def parse_node(text: str, place: int) -> NodeEndpoint:
    """
    Read the value of --node.

    Args:
        text: ``URL=OPERATOR``.
        place: Which --node it is, from 1, for the error.

    Raises:
        ConfigurationError: It is malformed.
    """
    try:
        return NodeEndpoint.of(text)
    except ConfigurationError as error:
        which = f"--node number {place}" if place > 1 else "--node"
        raise ConfigurationError(
            f"{which}: {error.message}",
            hint=error.hint
            or "For example: wss://node.example/v1/rpc=0x..., with the operator's address after the =",
        ) from None


def check_gateway(url: str, revision: str | None, api_version: str) -> GatewayChoice:
    """
    Check what --gateway, --revision and --api-version say.

    Raises:
        InvalidFieldError: One is malformed, or they do not go together; the error names the option.
    """
    from dan_async.gateway.network import check_gateway_revision, check_gateway_url

    try:
        check_gateway_revision(revision, api_version)
        checked = check_gateway_url("--gateway", url, api_version)
    except InvalidFieldError as error:
        option = {"revision": "--revision", "api_version": "--api-version"}.get(error.field, error.field)
        problem = error.message.removeprefix(error.field + " ").replace("api_version", "--api-version")
        hint = error.hint.replace("api_version", "--api-version")
        raise InvalidFieldError(option, problem, hint=hint) from None
    return GatewayChoice(url=checked, revision=revision, api_version=api_version)


_KEY = "DAN_ASYNC_STORE_KEY"

_PASSPHRASE = "DAN_ASYNC_STORE_PASSPHRASE"  # noqa: S105 - the variable's name


class StoreChoice:
    """
    A store that was named and checked, and not yet opened.

    Args:
        url: Its URL.
        keys: Its keys.
        file: The SQLite file, if it is one.
    """

    def __init__(self, url: str, keys: KeySource, file: Path | None) -> None:
        self._url = url
        self._keys = keys
        self._file = file

    @property
    def may_exist(self) -> bool:
        """Whether there may be something in it."""
        return self._file is None or self._file.exists()

    def open(self) -> SQLAlchemyStore:
        """Make the store; whoever calls closes it."""
        from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

        return SQLAlchemyStore(self._url, self._keys)


def choose_store(
    url: str, *, option: str, key_file: Path | None, environment: Mapping[str, str], may_make: bool
) -> StoreChoice:
    """
    Check what the options name.

    Args:
        url: The store's URL.
        option: The option that named it, for errors.
        key_file: A file with its key.
        environment: The environment variables.
        may_make: Whether a store that is not there may be made, with a key file beside it.

    Raises:
        ConfigurationError: The URL is wrong, or there is no key.
    """
    require_extra("sqlalchemy", extra="storage", purpose="A session store in a database")
    from dan_async.storage.database import parse_url

    try:
        parsed = parse_url(url)
    except InvalidFieldError as error:
        problem = error.message.removeprefix(error.field + " ")
        raise InvalidFieldError(option, problem, hint=error.hint) from None
    is_file = parsed.drivername.startswith("sqlite")
    file = Path(parsed.database or "") if is_file else None
    if not may_make and file is not None and not file.exists():
        raise ConfigurationError(f"{option}: there is no store {file}")
    return StoreChoice(url, _choose_keys(key_file, environment, file, option, may_make=may_make), file)


def _choose_keys(
    key_file: Path | None, environment: Mapping[str, str], file: Path | None, option: str, *, may_make: bool
) -> KeySource:
    if key_file is not None:
        return keys_from_file(key_file)
    if environment.get(_KEY):
        return keys_from_environment(_KEY, environment=environment)
    if environment.get(_PASSPHRASE):
        return PassphraseKeys(environment[_PASSPHRASE])
    hint = f"Use --store-key-file FILE, or set {_KEY} or {_PASSPHRASE}"
    if file is None:
        raise ConfigurationError(f"{option}: there is no key for the store", hint=hint)
    beside = file.with_name(file.name + ".key")
    if beside.exists():
        return keys_from_file(beside)
    if file.exists() or not may_make:
        raise ConfigurationError(f"{option}: there is no key for {file}, nor a file {beside}", hint=hint)
    _make_key(beside)
    note(
        f"The store's key was made and written to {beside}: keep it, and keep it apart from backups of the store."
    )
    return keys_from_file(beside)


def _make_key(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(StoreKey.generate().to_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"the store's key cannot be written to {path}: {error.strerror}") from None


ENVIRONMENT_VARIABLE = "DAN_ASYNC_PRIVATE_KEY"

#: Opens the chosen wallet; leaving the context closes it.
WalletOpener: TypeAlias = Callable[[], AbstractAsyncContextManager[Wallet]]

_LONGEST_KEY_FILE = 4096

_CHOICES = (
    f"Use --private-key-file FILE, the environment variable {ENVIRONMENT_VARIABLE}, or --wallet-rpc URL"
)


def choose_wallet(
    *,
    private_key_file: Path | None,
    rpc_url: str | None,
    rpc_address: str | None,
    environment: Mapping[str, str],
    throwaway_allowed: bool,
) -> WalletOpener:
    """
    Choose the wallet; an option wins over the environment, and anything named wins over a throwaway key.

    Args:
        private_key_file: A file with a private key in hex; ``-`` for standard input.
        rpc_url: A JSON-RPC wallet.
        rpc_address: Which of its accounts.
        environment: The environment variables.
        throwaway_allowed: Whether a fresh key may be made when nothing is named: on a devnet only.

    Returns:
        Opens the wallet. Keys have been read and checked already; nothing has been sent.

    Raises:
        ConfigurationError: Two wallets are named, or none where one is needed, or a key is malformed. No key is repeated.
    """
    if private_key_file is not None and rpc_url is not None:
        raise ConfigurationError(
            "--private-key-file and --wallet-rpc both name a wallet", hint="Give one of them"
        )
    if rpc_address is not None and rpc_url is None:
        raise ConfigurationError(
            "--wallet-address needs --wallet-rpc URL", hint="A private key has one address only"
        )
    if rpc_url is not None:
        return _rpc_wallet(rpc_url, rpc_address)
    if private_key_file is not None:
        return _local_wallet(_read_key_file(private_key_file), source="--private-key-file")
    if ENVIRONMENT_VARIABLE in environment:
        return _local_wallet(environment[ENVIRONMENT_VARIABLE].strip(), source=ENVIRONMENT_VARIABLE)
    if not throwaway_allowed:
        raise ConfigurationError("no wallet is named", hint=_CHOICES)
    note("No wallet was named: the owner is a throwaway key, made for this one session and then forgotten.")
    return _local_wallet(secrets.token_hex(32), source="the throwaway key")


def _local_wallet(private_key: str, *, source: str) -> WalletOpener:
    from dan_async.wallets.local_key import LocalWallet

    try:
        wallet = LocalWallet(private_key)
    except InvalidFieldError as error:
        raise ConfigurationError(
            f"{source}: {error.message}", hint="A private key is 64 hex digits, with or without 0x"
        ) from None

    @asynccontextmanager
    async def open_wallet() -> AsyncIterator[Wallet]:
        yield wallet

    return open_wallet


def _rpc_wallet(url: str, address: str | None) -> WalletOpener:
    from dan_async.config import check_url
    from dan_async.crypto.address import parse_address
    from dan_async.wallets.json_rpc_wallet import JsonRpcWallet

    check_url("--wallet-rpc", url, schemes=("https", "http"))
    checked = None if address is None else parse_address("--wallet-address", address)

    @asynccontextmanager
    async def open_wallet() -> AsyncIterator[Wallet]:
        async with await JsonRpcWallet.connect(url, address=checked) as wallet:
            yield wallet

    return open_wallet


def _read_key_file(path: Path) -> str:
    """Read at most a few kilobytes: a key, not whatever else the path may point to."""
    shown = mask_keys(str(path))
    try:
        if str(path) == "-":
            # Python leaves sys.stdin at None where the process was started without a standard input.
            data = sys.stdin.buffer.read(_LONGEST_KEY_FILE + 1) if sys.stdin else b""
        else:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(_LONGEST_KEY_FILE + 1)
            if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH) and os.name == "posix":
                note(f"warning: other users of this machine may read {shown}; chmod 600 keeps it to you")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise ConfigurationError(f"--private-key-file: cannot read {shown}: {reason}") from None
    if len(data) > _LONGEST_KEY_FILE:
        raise ConfigurationError(f"--private-key-file: {shown} is too long to be a private key in hex")
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"--private-key-file: {shown} does not hold a private key in hex") from None

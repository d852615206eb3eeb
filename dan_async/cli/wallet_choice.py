"""Which wallet authorises: a key file, the environment, a JSON-RPC wallet, or a throwaway key on a devnet."""

from __future__ import annotations

import os
import secrets
import stat
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

from dan_async.cli.screen import mask_keys, note
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.wallets.base import Wallet

__all__ = ["ENVIRONMENT_VARIABLE", "WalletOpener", "choose_wallet"]

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

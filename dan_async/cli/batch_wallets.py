"""Who authorises each row of a batch: the row's own key, its account at a JSON-RPC wallet, or one wallet for all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from dan_async.cli.wallet_choice import ENVIRONMENT_VARIABLE, WalletOpener, choose_wallet
from dan_async.config import TransportOptions
from dan_async.wallets.base import Wallet

if TYPE_CHECKING:
    from dan_async.cli.batch_rows import BatchRow
    from dan_async.transport.base import Transport

__all__ = ["RowWallets"]

_CONNECT_S = 10.0


class RowWallets:
    """
    The wallets of a batch. Entering opens what the rows share.

    Args:
        opener: Opens the wallet of rows that have none of their own, if there is one.
        rpc_url: The JSON-RPC wallet, if that is where the rows' addresses are.
    """

    def __init__(self, opener: WalletOpener | None, rpc_url: str | None) -> None:
        self._opener = opener
        self._rpc_url = rpc_url
        self._stack = AsyncExitStack()
        self._shared: Wallet | None = None
        self._transport: Transport | None = None

    @classmethod
    def choose(
        cls,
        *,
        private_key_file: Path | None,
        rpc_url: str | None,
        environment: Mapping[str, str],
        throwaway_allowed: bool,
    ) -> Self:
        """
        Check what the options name; see ``choose_wallet``. Unlike there, there need not be a wallet: rows may have keys.

        Raises:
            ConfigurationError: Two wallets are named, or a key is malformed.
        """
        is_named = private_key_file is not None or rpc_url is not None or ENVIRONMENT_VARIABLE in environment
        opener = None
        if is_named or throwaway_allowed:
            opener = choose_wallet(
                private_key_file=private_key_file,
                rpc_url=rpc_url,
                rpc_address=None,
                environment=environment,
                throwaway_allowed=throwaway_allowed,
            )
        return cls(opener, rpc_url)

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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def problem_with(self, row: BatchRow) -> str:
        """Say why nobody can authorise a row; nothing if somebody can."""
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
        """Give the wallet of a row with which there is no problem."""
        if row.wallet is not None:
            return row.wallet
        if self._transport is not None and row.address is not None:
            from dan_async.wallets.json_rpc_wallet import JsonRpcWallet

            return JsonRpcWallet(self._transport, address=row.address)
        assert self._shared is not None
        return self._shared

"""``dan-async mcp``: sessions as an agent's tools, over standard input and output."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from attrs import frozen

from dan_async._values import MAX_LIFETIME_S, MAX_SAFE_INT
from dan_async.cli.options import (
    PRIVATE_KEY_VARIABLE,
    KeygenNetworkOptions,
    OwnerOptions,
    StoreOptions,
    TimeoutOption,
    choose_timeouts,
    option,
    read_permissions,
    record_of,
    whole_number,
)
from dan_async.cli.screen import Stopped, log_lines, note, run_until_signal
from dan_async.config import Timeouts, check_url
from dan_async.errors import ConfigurationError, require_extra
from dan_async.network_file import ChainEndpoints

if TYPE_CHECKING:
    from dan_async.mcp import OpenAccount

#: Their names -> the kinds of account.
_ACCOUNTS = {"simple-v0.6": "v0.6.0", "simple-v0.7": "v0.7.0", "biconomy-v2": None}


@frozen(kw_only=True)
class AgentStoreOptions(StoreOptions):
    """A store, and its sessions that the agent may use."""

    session: list[str] | None = option(
        "ID",
        "A session of the store that the agent may use, by id or reference, besides those that it makes. Repeat it "
        "for more; all by default.",
    )


@frozen(kw_only=True)
class MakingOptions:
    """The sessions that the agent makes."""

    panel: ClassVar[str] = "Sessions that the agent makes"

    chain_id: int | None = option(
        "ID",
        "Their chain; by default the network file's, or 80002 with --devnet.",
        parser=whole_number(1, MAX_SAFE_INT),
    )
    permissions: str | None = option(
        "JSON|@FILE",
        "What they may sign: JSON text, or @ and the name of a file with it; no limits by default.",
    )
    max_duration: int = option(
        "SECONDS", "How long they may live at most.", parser=whole_number(1, MAX_LIFETIME_S), default=3600
    )


@frozen(kw_only=True)
class OperationOptions:
    """The user operations that the agent sends."""

    panel: ClassVar[str] = "User operations"

    bundler_url: str | None = option("URL", "A bundler; by default the network file's.")
    rpc_url: str | None = option("URL", "A node of the chain; by default the network file's.")
    account: str = option(
        "KIND",
        f"The kind of account that a session's key owns: {', '.join(_ACCOUNTS)}.",
        default="simple-v0.7",
    )
    cost_limit: int = option(
        "WEI",
        "The maximum that the gas of one operation may cost.",
        parser=whole_number(1, 10**18 - 1),
        default=10**17,
    )

    def choose(self, chain: ChainEndpoints | None, timeouts: Timeouts) -> OpenAccount | None:
        """Check them, beside the network file's; None if they name no services."""
        bundler_url, rpc_url = self.bundler_url, self.rpc_url
        if chain is not None:
            bundler_url, rpc_url = bundler_url or chain.bundler_url, rpc_url or chain.rpc_url
        if not (self.bundler_url or self.rpc_url or (bundler_url and rpc_url)):
            return None
        for name, url in (("--bundler-url", bundler_url), ("--rpc-url", rpc_url)):
            if url is None:
                raise ConfigurationError(
                    f"{name} is missing", hint="User operations need a bundler and a node of the chain"
                )
            check_url(name, url, schemes=("https", "http"))
        if self.account not in _ACCOUNTS:
            raise ConfigurationError(f"--account must be one of {', '.join(_ACCOUNTS)}")
        from dan_async.userops import BiconomyV2, SimpleAccount, create_smart_account_client

        version: Any = _ACCOUNTS[self.account]
        kind = BiconomyV2() if version is None else SimpleAccount(version)

        async def open_account(signer: Any) -> Any:
            return await create_smart_account_client(
                signer=signer,
                bundler_url=bundler_url or "",
                rpc_url=rpc_url,
                account=kind,
                cost_limit=self.cost_limit,
                timeouts=timeouts,
            )

        return open_account


def mcp(
    *,
    network: KeygenNetworkOptions,
    store: AgentStoreOptions,
    wallet: OwnerOptions,
    making: MakingOptions,
    operations: OperationOptions,
    concurrency: Annotated[
        int, typer.Option(parser=whole_number(1, 1000), metavar="N", help="Calls in progress at a time.")
    ] = 8,
    timeout: TimeoutOption = None,
) -> None:
    """
    Serve a store's sessions to an agent as tools, over the Model Context Protocol on standard input and output.

    The agent sees no key. Without a wallet it makes no sessions, and without a
    bundler it sends no user operations. Log lines go to standard error. The
    command ends, with exit code 0, when standard input is closed or on Ctrl-C.
    """
    require_extra("mcp_types", extra="mcp", purpose="dan-async mcp")
    chosen = network.choose()
    may_make = bool(wallet.private_key_file or wallet.wallet_rpc or os.environ.get(PRIVATE_KEY_VARIABLE))
    if str(wallet.private_key_file) == "-":
        raise ConfigurationError(
            "--private-key-file: standard input belongs to the agent", hint="Name a file"
        )
    if not may_make and (making.permissions is not None or making.chain_id is not None):
        raise ConfigurationError(
            "--permissions and --chain-id are for sessions that the agent makes",
            hint=f"Name the wallet that authorises them: --private-key-file FILE, or {PRIVATE_KEY_VARIABLE}",
        )
    chain_id = chosen.choose_chain(making.chain_id) if may_make else None
    limits = read_permissions(making.permissions)
    open_wallet = wallet.choose() if may_make else None
    open_store = store.choose(may_make=may_make)
    timeouts = choose_timeouts(timeout)
    open_account = operations.choose(None if chosen.file is None else chosen.file.chain, timeouts)

    async def serve() -> None:
        from dan_async.mcp import SessionTools

        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(open_store())
            for name in store.session or ():
                await record_of(opened, name, option="--session")
            dan = await stack.enter_async_context(chosen.client(timeouts, opened))
            owner = None if open_wallet is None else await stack.enter_async_context(open_wallet())
            tools = SessionTools(
                dan,
                wallet=owner,
                chain_id=chain_id,
                permissions=limits,
                max_duration=making.max_duration,
                sessions=store.session,
                open_account=open_account,
                concurrency=concurrency,
            )
            await stack.enter_async_context(tools)
            if owner is not None and limits is None:
                note("warning: sessions that the agent makes have no limits; --permissions sets them")
            note(f"serving {chosen.describe()} on standard input and output")
            await tools.serve_stdio()

    with log_lines(held_back=False), suppress(Stopped):
        run_until_signal(serve())
    note("stopped")

"""``dan-async keygen``: one session key, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from dan_async._values import MAX_LIFETIME_S, MAX_SAFE_INT
from dan_async.cli.choices import (
    DEVNET_CHAIN_ID,
    PRIVATE_KEY_VARIABLE,
    NetworkChoice,
    WalletOpener,
    choose_network,
    choose_wallet,
)
from dan_async.cli.options import (
    WALLET_PANEL,
    ApiVersionOption,
    DevnetOption,
    GatewayOption,
    NetworkOption,
    NodeOption,
    PartiesOption,
    RevisionOption,
    ThresholdOption,
    TimeoutOption,
    WalletRpcOption,
    choose_timeouts,
    read_permissions,
    whole_number,
)
from dan_async.cli.screen import Progress, for_option, log_lines, note, progress, result, run_until_signal
from dan_async.cli.session_file import as_table, masked, reserve
from dan_async.config import MAX_PARTIES, Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.session import DanSessionKeyPayload
from dan_async.types import TypedData
from dan_async.wallets.base import Wallet

_SESSION = "The session"
_OUTPUT = "Output"

#: The client's names of parameters, so that an error names the option that was typed.
_OPTIONS = {
    "api_version": "--api-version",
    "chain_id": "--chain-id",
    "duration": "--duration",
    "eoa_address": "--wallet-address",
    "min_holders": "--min-holders",
    "nodes": "--node",
    "parties_number": "--parties",
    "permissions": "--permissions",
    "revision": "--revision",
    "threshold": "--threshold",
}


def keygen(
    *,
    devnet: DevnetOption = None,
    network: NetworkOption = None,
    node: NodeOption = None,
    gateway: GatewayOption = None,
    revision: RevisionOption = None,
    api_version: ApiVersionOption = None,
    private_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A file with the owner's private key in hex; - for standard input. Or set {PRIVATE_KEY_VARIABLE}. "
            "With --devnet, a throwaway key is made if no wallet is named.",
            rich_help_panel=WALLET_PANEL,
        ),
    ] = None,
    wallet_rpc: WalletRpcOption = None,
    wallet_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Which of the JSON-RPC wallet's accounts; its first one if not given.",
            rich_help_panel=WALLET_PANEL,
        ),
    ] = None,
    chain_id: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, MAX_SAFE_INT),
            metavar="ID",
            help=f"The chain the session is meant for. Needed with --node and --gateway; with --devnet it is "
            f"{DEVNET_CHAIN_ID} (Polygon Amoy) if not given.",
            rich_help_panel=_SESSION,
        ),
    ] = None,
    duration: Annotated[
        int,
        typer.Option(
            parser=whole_number(1, MAX_LIFETIME_S),
            metavar="SECONDS",
            help="How long the session lives; at most 31536000 (365 days).",
            rich_help_panel=_SESSION,
        ),
    ] = 3600,
    permissions: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE",
            help="What the session may sign: JSON text, or @ and the name of a file that holds it; no limits if not given.",
            rich_help_panel=_SESSION,
        ),
    ] = None,
    threshold: ThresholdOption = None,
    parties: PartiesOption = None,
    min_holders: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(2, MAX_PARTIES),
            metavar="N",
            help="How many nodes must acknowledge that they hold a share; as many as must sign, if not given.",
            rich_help_panel=_SESSION,
        ),
    ] = None,
    timeout: TimeoutOption = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the session as one JSON object on standard output, ephemeral private key included.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write that JSON object to a file that only you can read (mode 0600). Standard output then masks the "
            "ephemeral private key.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Let --output replace an existing file.", rich_help_panel=_OUTPUT)
    ] = False,
    reveal: Annotated[
        bool,
        typer.Option(
            "--reveal",
            help="Show the ephemeral private key where it would be masked.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
) -> None:
    """
    Make a session key: t-of-n nodes generate a distributed key that the owner's wallet authorises with one signature.

    Standard output carries the result and nothing else. Exit codes: 0 done, 1 the
    network or the wallet failed, 2 the input is wrong and nothing was sent, 130
    interrupted.

    Try it with nothing else installed: dan-async keygen --devnet 3-of-5 --json
    """
    if force and output is None:
        raise ConfigurationError("--force is for --output FILE", hint="Leave it out, or name the file")
    chosen = choose_network(
        network=network,
        has_devnet=True,
        devnet=devnet,
        nodes=node or [],
        threshold=threshold,
        parties=parties,
        gateway=gateway,
        revision=revision,
        api_version=api_version,
    )
    if chain_id is None and not chosen.is_devnet:
        raise ConfigurationError(
            f"--chain-id is needed with {chosen.option}", hint="For example: --chain-id 137"
        )
    parameters = {
        "chain_id": DEVNET_CHAIN_ID if chain_id is None else chain_id,
        "duration": duration,
        "permissions": read_permissions(permissions),
        "threshold": chosen.threshold.t,
        "parties_number": chosen.threshold.n,
        "min_holders": min_holders,
    }
    timeouts = choose_timeouts(timeout)
    with ExitStack() as stack:
        write = stack.enter_context(reserve(output, force=force)) if output is not None else None
        open_wallet = choose_wallet(
            private_key_file=private_key_file,
            rpc_url=wallet_rpc,
            rpc_address=wallet_address,
            throwaway_allowed=chosen.is_devnet,
        )
        if chosen.is_devnet:
            note(
                "The devnet stops with this command, and its key with it: dan-async devnet runs one that stays."
            )
        session = _make(chosen, open_wallet, parameters, timeouts)
        _show(session, write=write, output=output, as_json=as_json, reveal=reveal)


def _make(
    network: NetworkChoice, open_wallet: WalletOpener, parameters: dict[str, Any], timeouts: Timeouts
) -> DanSessionKeyPayload:
    async def job() -> DanSessionKeyPayload:
        from dan_async.client import DanClient

        async with open_wallet() as wallet, DanClient(network.open(timeouts), timeouts=timeouts) as dan:
            status.step(f"Asking {network.describe()} for a key …")
            return await dan.generate_session_key(wallet=_ReportingWallet(wallet, status), **parameters)

    with log_lines(held_back=True) as warnings, progress(f"Reaching {network.describe()} …") as status:
        try:
            session = run_until_signal(job())
        except InvalidFieldError as error:
            raise for_option(error, _OPTIONS.get(error.field, error.field)) from error
    warnings.show()
    return session


class _ReportingWallet:
    """Another wallet, whose turn is shown on the progress line."""

    def __init__(self, wallet: Wallet, status: Progress) -> None:
        self._wallet = wallet
        self._status = status

    @property
    def address(self) -> str:
        return self._wallet.address

    @property
    def interactive(self) -> bool:
        return self._wallet.interactive

    async def sign_typed_data(self, typed_data: TypedData) -> str:
        self._status.step("Waiting for the owner's wallet to sign …")
        signature = await self._wallet.sign_typed_data(typed_data)
        self._status.step("The nodes generate the key together …")
        return signature


def _show(
    session: DanSessionKeyPayload,
    *,
    write: Callable[[str], None] | None,
    output: Path | None,
    as_json: bool,
    reveal: bool,
) -> None:
    fields = session.to_dict()
    if write is not None:
        write(json.dumps(fields) + "\n")
        note(f"The session was written to {output}; whoever reads that file can use the session.")
    # Standard output shows everything if that is where the result is to go, else all but the secret.
    in_full = reveal or (as_json and write is None)
    if as_json:
        result(json.dumps(fields if in_full else masked(fields)))
    else:
        as_table(session, reveal=in_full, kept=write is not None)

"""``dan-async keygen``: one session key, from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any, ClassVar

import typer
from attrs import asdict, frozen

from dan_async._values import MAX_LIFETIME_S, MAX_SAFE_INT
from dan_async.cli.options import (
    DEVNET_CHAIN_ID,
    KeygenNetworkOptions,
    NetworkChoice,
    OwnerOptions,
    RevealOption,
    StoreOpener,
    StoreOptions,
    TimeoutOption,
    WalletOpener,
    choose_timeouts,
    option,
    read_permissions,
    record_of_session,
    whole_number,
)
from dan_async.cli.screen import (
    ReportedCode,
    Stopped,
    for_option,
    forget_output,
    log_lines,
    note,
    progress,
    result,
    run_until_signal,
)
from dan_async.cli.session_file import as_table, masked, reserve
from dan_async.config import MAX_PARTIES, Timeouts
from dan_async.errors import ConfigurationError, DanError, InvalidFieldError
from dan_async.session import DanSessionKeyPayload
from dan_async.types import RequestId, TypedData
from dan_async.wallets.base import CallbackWallet, Wallet

_THROWAWAY = (
    "No wallet was named: the owner is a throwaway key, made for this one session and then forgotten."
)
_UNDECIDED = "dan-async sessions recover finds out whether the key was made"

_SAME = ("api_version", "chain_id", "duration", "min_holders", "min_parties", "permissions", "reference")

#: The client's names of parameters, so that an error names the option that was typed.
_OPTIONS = {name: f"--{name.replace('_', '-')}" for name in (*_SAME, "revision", "threshold")} | {
    "eoa_address": "--wallet-address",
    "nodes": "--node",
    "parties_number": "--parties",
}


@frozen(kw_only=True)
class SessionOptions:
    """The session that is to be made."""

    panel: ClassVar[str] = "The session"

    chain_id: int | None = option(
        "ID",
        "The chain that the session is for. Required with --node, --gateway, and a network file without a chain; "
        f"with --devnet {DEVNET_CHAIN_ID} (Polygon Amoy) by default.",
        parser=whole_number(1, MAX_SAFE_INT),
    )
    duration: int = option(
        "SECONDS",
        "How long the session lives; at most 31536000 (365 days).",
        parser=whole_number(1, MAX_LIFETIME_S),
        default=3600,
    )
    permissions: str | None = option(
        "JSON|@FILE",
        "What the session may sign: JSON text, or @ and the name of a file with it; no limits by default.",
    )
    min_parties: int | None = option(
        "N",
        "Accept a key that only N nodes hold if others are missing; by default all --parties.",
        parser=whole_number(2, MAX_PARTIES),
    )
    min_holders: int | None = option(
        "N",
        "How many nodes must acknowledge that they hold a share; by default as many as must sign.",
        parser=whole_number(2, MAX_PARTIES),
    )


@frozen(kw_only=True)
class KeepingOptions(StoreOptions):
    """A store that may be new, and the session's name in it."""

    reference: str | None = option("NAME", "Your own name for the session in the store.")


@frozen(kw_only=True)
class OutputOptions:
    """Where the session goes."""

    panel: ClassVar[str] = "Output"

    as_json: bool = option(
        None,
        "Print the session as one JSON object on standard output, ephemeral private key included.",
        "--json",
        default=False,
    )
    output: Path | None = option(
        "FILE",
        "Write the session as JSON, with every field, to a file that only you can read (mode 0600). "
        "With it or --store, standard output masks the ephemeral private key.",
    )
    force: bool = option(None, "Let --output replace an existing file.", "--force", default=False)


def keygen(
    *,
    network: KeygenNetworkOptions,
    wallet: OwnerOptions,
    wanted: SessionOptions,
    timeout: TimeoutOption = None,
    store: KeepingOptions,
    out: OutputOptions,
    reveal: RevealOption = False,
) -> None:
    """
    Make a session key: t-of-n nodes generate a distributed key that the owner's wallet authorises with one signature.

    Standard output carries the result and nothing else. Exit codes: 0 done, 1 the
    network or the wallet failed, 2 the input is wrong and nothing was sent, 130
    interrupted.

    Try it with nothing else installed: dan-async keygen --devnet 3-of-5 --json
    """
    if out.force and out.output is None:
        raise ConfigurationError("--force is for --output FILE", hint="Leave it out, or name the file")
    chosen = network.choose()
    parameters = asdict(wanted) | {
        "chain_id": chosen.choose_chain(wanted.chain_id),
        "permissions": read_permissions(wanted.permissions),
        "threshold": chosen.threshold.t,
        "parties_number": chosen.threshold.n,
        "reference": store.reference,
    }
    if store.reference is not None and not store.url:
        raise ConfigurationError("--reference is for --store URL", hint="Leave it out, or name the store")
    timeouts = choose_timeouts(timeout)
    with ExitStack() as stack:
        write = None
        if out.output is not None:
            write = stack.enter_context(reserve(out.output, force=out.force, is_stored=bool(store.url)))
        open_wallet = wallet.choose(throwaway=_THROWAWAY if chosen.is_devnet else "")
        open_store = store.choose(may_make=True) if store.url else None
        if chosen.is_devnet:
            note(
                "The devnet stops with this command, and its key with it: dan-async devnet runs one that stays."
            )
        session, record_id = _make(chosen, open_wallet, open_store, parameters, timeouts)
        if record_id is not None:
            note(f"The session is in the store, as {store.reference or record_id}.")
        _show(session, out, write=write, reveal=reveal, is_kept=record_id is not None)


def _make(
    network: NetworkChoice,
    open_wallet: WalletOpener,
    open_store: StoreOpener | None,
    parameters: dict[str, Any],
    timeouts: Timeouts,
) -> tuple[DanSessionKeyPayload, str | None]:
    """Make the session; return it with the id of its record in the store, if there is one."""

    async def job() -> tuple[DanSessionKeyPayload, str | None]:
        async with AsyncExitStack() as stack:
            wallet = await stack.enter_async_context(open_wallet())
            store = None if open_store is None else await stack.enter_async_context(open_store())
            dan = await stack.enter_async_context(network.client(timeouts, store))
            show(f"Asking {network.describe()} for a key …")
            try:
                session = await dan.generate_session_key(wallet=_reporting(wallet, show), **parameters)
            except DanError as error:
                asked = RequestId(error.request_id or "")
                left = await store.get(asked) if store is not None and asked else None
                if left is not None and left.state == "pending":
                    note(_UNDECIDED)
                raise
            return session, None if store is None else await record_of_session(store, session)

    with log_lines(held_back=True) as warnings, progress(f"Reaching {network.describe()} …") as show:
        try:
            found = run_until_signal(job())
        except InvalidFieldError as error:
            raise for_option(error, _OPTIONS.get(error.field, error.field)) from error
        except Stopped as stop:
            if open_store is None:
                raise
            note(f"interrupted: {_UNDECIDED}")
            raise typer.Exit(ReportedCode(stop.exit_code)) from None
    warnings.show()
    return found


def _reporting(wallet: Wallet, show: Callable[[str], object]) -> Wallet:
    """Return the wallet with its turn shown on the progress line."""

    async def sign(typed_data: TypedData) -> str:
        show("Waiting for the owner's wallet to sign …")
        signature = await wallet.sign_typed_data(typed_data)
        show("The nodes generate the key together …")
        return signature

    return CallbackWallet(wallet.address, sign, interactive=wallet.interactive)


def _show(
    session: DanSessionKeyPayload,
    out: OutputOptions,
    *,
    write: Callable[[str], None] | None,
    reveal: bool,
    is_kept: bool,
) -> None:
    if write is not None:
        write(json.dumps(session.to_dict(extended=True)) + "\n")
        note(f"The session was written to {out.output}; whoever reads that file can use the session.")
        is_kept = True
    # Standard output shows everything if that is where the result is to go, else all but the secret.
    in_full = reveal or (out.as_json and not is_kept)
    try:
        if out.as_json:
            fields = session.to_dict()  # the seven fields of the TypeScript clients
            result(json.dumps(fields if in_full else masked(fields)))
        else:
            as_table(session, reveal=in_full, kept=is_kept)
    except BrokenPipeError:
        if is_kept:
            raise
        forget_output()
        raise DanError(
            "the session was made, but standard output is closed", hint="It is lost. Run the command again"
        ) from None

"""``dan-async sign``: one signature by a session's key, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer
from attrs import evolve

from dan_async.cli.common_options import (
    ApiVersionOption,
    GatewayOption,
    NodeOption,
    RevisionOption,
)
from dan_async.cli.exit_codes import INTERRUPTED, TERMINATED
from dan_async.cli.log_lines import log_lines
from dan_async.cli.message_choice import MessageChoice, choose_message, read_session
from dan_async.cli.network_choice import NetworkChoice, choose_network
from dan_async.cli.screen import progress, result
from dan_async.cli.signals import run_until_signal
from dan_async.cli.timeout_choice import choose_timeouts
from dan_async.config import Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.models.session import DanModuleInfo
from dan_async.types import KeyAlgorithm

__all__ = ["sign"]

_MESSAGE = "What to sign: exactly one"


def sign(
    *,
    session: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The session, as dan-async keygen --output wrote it; - for standard input.",
        ),
    ],
    message: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="A personal message (EIP-191).", rich_help_panel=_MESSAGE),
    ] = None,
    typed_data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Typed data (EIP-712): a JSON file with types, primaryType, domain and message.",
            rich_help_panel=_MESSAGE,
        ),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(
            metavar="HEX",
            help="32 bytes, signed as they are. They may be anything.",
            rich_help_panel=_MESSAGE,
        ),
    ] = None,
    user_op: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A user operation (ERC-4337): a JSON file with userOperation, entryPointVersion, entryPointAddress and "
            "chainId.",
            rich_help_panel=_MESSAGE,
        ),
    ] = None,
    node: NodeOption = None,
    gateway: GatewayOption = None,
    revision: RevisionOption = None,
    api_version: ApiVersionOption = None,
    eph_alg: Annotated[
        str | None,
        typer.Option(
            metavar="ALGORITHM",
            help="The ephemeral key's algorithm, secp256k1 or ed25519, if the session does not say and it is not the "
            "network's usual one.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Give up after so long; 30 seconds if not given."),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object: signature, address and requestType."),
    ] = False,
) -> None:
    """
    Have t of the nodes sign a message with a session's key. The session's ephemeral key authorises it; no wallet is asked.

    Standard output carries the signature and nothing else. Exit codes: 0 done, 1 the network failed or refused, 2 the input
    is wrong and nothing was sent, 130 interrupted.
    """
    wanted = choose_message(message=message, typed_data=typed_data, digest=digest, user_op=user_op)
    if node and len(node) == 1:
        raise ConfigurationError("--node must be repeated: at least two nodes sign together")
    network = choose_network(
        devnet=None,
        nodes=node or [],
        threshold=2 if node else None,
        parties=len(node) if node else None,
        gateway=gateway,
        revision=revision,
        api_version=api_version,
    )
    info = read_session(session)
    if eph_alg is not None:
        try:
            info = evolve(info, eph_alg=cast("KeyAlgorithm", eph_alg))
        except InvalidFieldError:
            raise ConfigurationError("--eph-alg must be secp256k1 or ed25519") from None
    signature = _sign(network, info, wanted, choose_timeouts(timeout))
    if as_json:
        fields = {
            "signature": signature,
            "address": info.session_key_eoa,
            "requestType": wanted.request_type,
        }
        result(json.dumps(fields))
    else:
        result(signature)


def _sign(network: NetworkChoice, info: DanModuleInfo, wanted: MessageChoice, timeouts: Timeouts) -> str:
    from dan_async.client import DanClient

    made: list[str] = []

    async def job() -> None:
        async with DanClient(network.open(timeouts), timeouts=timeouts) as dan:
            made.append(await dan.sign_message(wanted.message, info, request_type=wanted.request_type))

    with log_lines(held_back=True) as warnings, progress(f"Asking {network.describe()} to sign …"):
        try:
            stopped_by = run_until_signal(job())
        except InvalidFieldError as error:
            problem = error.message.removeprefix(error.field + " ")
            field = wanted.option if error.field == "message" else f"{wanted.option}: {error.field}"
            raise InvalidFieldError(field, problem, hint=error.hint) from error
    if stopped_by is not None:
        raise typer.Exit(INTERRUPTED if stopped_by.name == "SIGINT" else TERMINATED)
    warnings.show()
    return made[0]

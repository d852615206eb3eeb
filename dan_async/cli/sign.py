"""``dan-async sign``: one signature by a session's key, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer
from attrs import evolve, frozen

from dan_async._json import is_too_deep
from dan_async.cli.choices import NetworkChoice, choose_network
from dan_async.cli.options import (
    ApiVersionOption,
    GatewayOption,
    NetworkOption,
    NodeOption,
    RevisionOption,
    TimeoutOption,
    choose_timeouts,
)
from dan_async.cli.screen import for_option, log_lines, progress, read_text, result, run_until_signal
from dan_async.config import Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.session import DanModuleInfo
from dan_async.types import KeyAlgorithm

_MESSAGE = "What to sign: exactly one"

_REQUEST_TYPES = {
    "--message": "EIP191",
    "--typed-data": "EIP712",
    "--digest": "rawBytes",
    "--user-op": "accountAbstractionTx",
}

#: Longest file that is read.
_MOST_BYTES = 4 * 1024 * 1024

#: How deeply a session file may be nested.
_MAX_DEPTH = 64


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
            help="32 bytes, signed as they are. They may stand for anything: be sure of their origin.",
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
    network: NetworkOption = None,
    node: NodeOption = None,
    gateway: GatewayOption = None,
    revision: RevisionOption = None,
    api_version: ApiVersionOption = None,
    eph_alg: Annotated[
        str | None,
        typer.Option(
            metavar="ALGORITHM",
            help="The ephemeral key's algorithm, secp256k1 or ed25519, if the session does not name it and it is not "
            "the network's usual one.",
        ),
    ] = None,
    timeout: TimeoutOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object: signature, address and requestType."),
    ] = False,
) -> None:
    """
    Have t of the nodes sign a message with a session's key. The session's ephemeral key authorises it; no wallet is asked.

    Standard output carries the signature and nothing else. Exit codes: 0 done, 1
    the network failed or refused, 2 the input is wrong and nothing was sent, 130
    interrupted.
    """
    wanted = _choose_message(message=message, typed_data=typed_data, digest=digest, user_op=user_op)
    chosen = choose_network(
        network=network,
        nodes=node or [],
        gateway=gateway,
        revision=revision,
        api_version=api_version,
    )
    info = _read_session(session)
    if eph_alg is not None:
        try:
            info = evolve(info, eph_alg=cast("KeyAlgorithm", eph_alg))
        except InvalidFieldError:
            raise ConfigurationError("--eph-alg must be secp256k1 or ed25519") from None
    signature = _sign(chosen, info, wanted, choose_timeouts(timeout))
    if as_json:
        address, kind = info.session_key_eoa, wanted.request_type
        result(json.dumps({"signature": signature, "address": address, "requestType": kind}))
    else:
        result(signature)


@frozen(kw_only=True)
class _Message:
    """A message as ``sign_message`` takes it, its type, and the option that named it."""

    content: str
    request_type: str
    option: str


def _choose_message(
    *, message: str | None, typed_data: Path | None, digest: str | None, user_op: Path | None
) -> _Message:
    """Check that exactly one option says what to sign, and read its file if it names one."""
    given = {"--message": message, "--typed-data": typed_data, "--digest": digest, "--user-op": user_op}
    named = {option: value for option, value in given.items() if value is not None}
    if len(named) != 1:
        problem = f"{' and '.join(named)} both say" if named else "nothing says"
        raise ConfigurationError(
            f"{problem} what to sign", hint="Give one of --message, --typed-data, --digest, --user-op"
        )
    option, value = named.popitem()
    content = read_text(option, value, most_bytes=_MOST_BYTES) if isinstance(value, Path) else value
    return _Message(content=content, request_type=_REQUEST_TYPES[option], option=option)


def _read_session(path: Path) -> DanModuleInfo:
    """Read a session file, as ``dan-async keygen --output`` writes it; no error repeats its content."""
    text = read_text("--session", path, most_bytes=_MOST_BYTES)
    try:
        if is_too_deep(text, _MAX_DEPTH):
            raise ValueError("nested too deeply")
        found = json.loads(text)
    except ValueError:
        raise ConfigurationError(
            "--session is not a JSON file", hint="dan-async keygen --output writes one"
        ) from None
    try:
        return DanModuleInfo.from_dict(found)
    except InvalidFieldError as error:
        raise ConfigurationError(f"--session: {error.message}", hint=error.hint) from None


def _sign(network: NetworkChoice, info: DanModuleInfo, wanted: _Message, timeouts: Timeouts) -> str:
    from dan_async.client import DanClient

    async def job() -> str:
        async with DanClient(network.open(timeouts), timeouts=timeouts) as dan:
            return await dan.sign_message(wanted.content, info, request_type=wanted.request_type)

    with log_lines(held_back=True) as warnings, progress(f"Asking {network.describe()} to sign …"):
        try:
            signature = run_until_signal(job())
        except InvalidFieldError as error:
            option = wanted.option if error.field == "message" else f"{wanted.option}: {error.field}"
            raise for_option(error, option) from error
    warnings.show()
    return signature

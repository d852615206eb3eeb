"""
``dan-async sign``: one signature by a session's key, from the command line.

What is to be signed: exactly one of the command's options says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from attrs import evolve, frozen

from dan_async._json import is_too_deep
from dan_async.cli.choices import NetworkChoice, choose_network
from dan_async.cli.options import ApiVersionOption, GatewayOption, NodeOption, RevisionOption, choose_timeouts
from dan_async.cli.screen import INTERRUPTED, TERMINATED, log_lines, progress, result, run_until_signal
from dan_async.config import Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.session import DanModuleInfo
from dan_async.types import KeyAlgorithm

#: Longest file that is read.
_MOST_BYTES = 4 * 1024 * 1024

#: How deeply a session file may be nested.
_MAX_DEPTH = 64


@frozen(kw_only=True)
class MessageChoice:
    """
    A message and what it is.

    Args:
        message: As ``sign_message`` takes it.
        request_type: Its type.
        option: The option that named it.
    """

    message: Any
    request_type: str
    option: str


def choose_message(
    *, message: str | None, typed_data: Path | None, digest: str | None, user_op: Path | None
) -> MessageChoice:
    """
    Read what the options name.

    Args:
        message: Text.
        typed_data: A file with EIP-712 typed data as JSON.
        digest: 32 bytes in hex.
        user_op: A file with a user operation, its entry point and its chain as JSON.

    Raises:
        ConfigurationError: Not exactly one is named, or a file cannot be read.
    """
    given = {
        "--message": message,
        "--typed-data": typed_data,
        "--digest": digest,
        "--user-op": user_op,
    }
    named = [option for option, value in given.items() if value is not None]
    if len(named) != 1:
        problem = f"{' and '.join(named)} both say" if named else "nothing says"
        raise ConfigurationError(
            f"{problem} what to sign", hint="Give one of --message, --typed-data, --digest, --user-op"
        )
    if message is not None:
        return MessageChoice(message=message, request_type="EIP191", option=named[0])
    if digest is not None:
        return MessageChoice(message=digest, request_type="rawBytes", option=named[0])
    path, kind = (typed_data, "EIP712") if typed_data is not None else (user_op, "accountAbstractionTx")
    assert path is not None
    return MessageChoice(message=_read_text(named[0], path), request_type=kind, option=named[0])


def read_session(path: Path) -> DanModuleInfo:
    """
    Read a session file, as ``dan-async keygen --output`` writes it.

    Args:
        path: The file; ``-`` for standard input.

    Raises:
        ConfigurationError: It cannot be read, or holds no session. Its content is not repeated.
    """
    text = _read_text("--session", path)
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


def _read_text(option: str, path: Path) -> str:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise ConfigurationError(f"{option}: the file cannot be read: {reason}") from None
    if len(data) > _MOST_BYTES:
        raise ConfigurationError(f"{option} names a file that is too long")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{option}: the file is not UTF-8 text") from None


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

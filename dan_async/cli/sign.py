"""``dan-async sign``: one signature by a session's key, from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

import typer
from attrs import asdict, evolve, frozen

from dan_async._values import MAX_SAFE_INT
from dan_async.cli.options import (
    NetworkChoice,
    NetworkOptions,
    StoreOpener,
    StoreOptions,
    TimeoutOption,
    choose_timeouts,
    option,
    record_of,
    whole_number,
)
from dan_async.cli.screen import (
    for_option,
    log_lines,
    mask_keys,
    progress,
    read_text,
    result,
    run_until_signal,
)
from dan_async.cli.session_file import read_entries, session_in
from dan_async.config import Timeouts
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.session import DanModuleInfo
from dan_async.types import KeyAlgorithm

_REQUEST_TYPES = {
    "--message": "EIP191",
    "--typed-data": "EIP712",
    "--digest": "rawBytes",
    "--user-op": "accountAbstractionTx",
}

#: Longest message that is read.
_MOST_BYTES = 4 * 1024 * 1024


@frozen(kw_only=True)
class MessageOptions:
    """The message to sign."""

    panel: ClassVar[str] = "What to sign: exactly one"

    message: str | None = option(
        "TEXT",
        "A personal message (EIP-191); - for standard input, signed as it is, with its last line break if it has one.",
    )
    typed_data: Path | None = option(
        "FILE", "Typed data (EIP-712): a JSON file with types, primaryType, domain and message."
    )
    digest: str | None = option(
        "HEX", "32 bytes, signed as they are. They may stand for anything: be sure of their origin."
    )
    user_op: Path | None = option(
        "FILE",
        "A user operation (ERC-4337): a JSON file with userOperation, entryPointVersion, entryPointAddress and chainId.",
    )


@frozen(kw_only=True)
class SigningOptions:
    """Further options of the message and the session."""

    chain_id: int | None = option(
        "ID",
        "The chain that the message may be for, if it is not the session's; 0 for typed data of every chain.",
        parser=whole_number(0, MAX_SAFE_INT),
    )
    entry_point: str | None = option(
        "ADDRESS", "The user operation's entry point, if it is not a well-known one."
    )
    eph_alg: str | None = option(
        "ALGORITHM",
        "The ephemeral key's algorithm, secp256k1 or ed25519, if the session does not name it and it is not the "
        "network's usual one.",
    )


def sign(
    *,
    session: Annotated[
        str,
        typer.Option(
            metavar="FILE|ID",
            help="The session: a file, as keygen --output, keygen --json or sessions export wrote it; - for standard "
            "input; or, with a store, the id or reference of its record.",
        ),
    ],
    message: MessageOptions,
    more: SigningOptions,
    network: NetworkOptions,
    store: StoreOptions,
    timeout: TimeoutOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: signature, address and requestType.")
    ] = False,
) -> None:
    """
    Have t of the nodes sign a message with a session's key. The session's ephemeral key authorises it; no wallet is asked.

    Standard output carries the signature and nothing else. Exit codes: 0 done, 1
    the network failed or refused, 2 the input is wrong and nothing was sent, 130
    interrupted.
    """
    wanted = _choose_message(message)
    chosen = network.choose()
    is_file = session == "-" or Path(session).is_file()
    if store.store is not None or (store.url and not is_file):
        info = run_until_signal(_stored_session(store.choose(), session))
    else:
        info = _read_session(session)
    if more.eph_alg is not None:
        try:
            info = evolve(info, eph_alg=cast("KeyAlgorithm", more.eph_alg))
        except InvalidFieldError:
            raise ConfigurationError("--eph-alg must be secp256k1 or ed25519") from None
    named = {"chain_id": more.chain_id, "entry_point": more.entry_point}
    signature = _sign(chosen, info, wanted, choose_timeouts(timeout), named)
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


def _choose_message(options: MessageOptions) -> _Message:
    """Check that exactly one option says what to sign, and read its file if it names one."""
    given = {f"--{name.replace('_', '-')}": value for name, value in asdict(options).items()}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) != 1:
        problem = f"{' and '.join(named)} both say" if named else "nothing says"
        raise ConfigurationError(
            f"{problem} what to sign", hint="Give one of --message, --typed-data, --digest, --user-op"
        )
    name, value = named.popitem()
    is_read = isinstance(value, Path) or (name == "--message" and value == "-")
    encoding = "utf-8" if name == "--message" else "utf-8-sig"  # a message is signed as it is
    content = (
        read_text(name, Path(value), most_bytes=_MOST_BYTES, encoding=encoding) if is_read else str(value)
    )
    return _Message(content=content, request_type=_REQUEST_TYPES[name], option=name)


def _read_session(name: str) -> DanModuleInfo:
    if name != "-" and not Path(name).exists():
        raise ConfigurationError(
            f"--session: there is no file {mask_keys(name)}",
            hint="For the id or reference of a record, name the --store",
        )
    entries = read_entries("--session", Path(name))
    if len(entries) != 1:
        raise ConfigurationError(
            f"--session has {len(entries)} sessions",
            hint="One signs; dan-async sessions import keeps them all",
        )
    return session_in("--session", entries[0], DanModuleInfo)


async def _stored_session(open_store: StoreOpener, name: str) -> DanModuleInfo:
    async with open_store() as store:
        record = await record_of(store, name, option="--session")
    if record.state != "active" or record.session is None:
        raise ConfigurationError(
            f"--session: the session is {record.state}, not active",
            hint="dan-async sessions recover settles it"
            if record.state == "pending"
            else "dan-async keygen makes a new one",
        )
    return record.session


def _sign(
    network: NetworkChoice, info: DanModuleInfo, wanted: _Message, timeouts: Timeouts, named: dict[str, Any]
) -> str:
    async def job() -> str:
        async with network.client(timeouts) as dan:
            return await dan.sign_message(wanted.content, info, request_type=wanted.request_type, **named)

    with log_lines(held_back=True) as warnings, progress(f"Asking {network.describe()} to sign …"):
        try:
            signature = run_until_signal(job())
        except InvalidFieldError as error:
            member = error.field.removeprefix("message").removeprefix(".")
            option = "--session" if member == "eph_alg" else wanted.option
            raise for_option(error, f"{option}: {member}" if member else option) from error
    warnings.show()
    return signature

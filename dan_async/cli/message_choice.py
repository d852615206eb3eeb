"""What is to be signed: exactly one of the command's options says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from attrs import frozen

from dan_async._json_depth import is_too_deep
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.models.session import DanModuleInfo

__all__ = ["MessageChoice", "choose_message", "read_session"]

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

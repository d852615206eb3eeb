"""One session, shown to its user; files of it and of other secrets, whole or not at all, readable by their owner alone."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from rich.text import Text

from dan_async._json import is_too_deep
from dan_async.cli.screen import console, mask_keys, moment, note, read_text, reason_for, result
from dan_async.errors import ConfigurationError, DanError, InvalidFieldError
from dan_async.session import DanModuleInfo, DanSessionKeyPayload

_SECRET = "hexEphSKWithout0x"  # noqa: S105 - the field's name, not its value
_MASK = "***"

#: The place that is kept on the disk for a new session, in bytes.
_LONGEST_SESSION = 4096

#: Longest file of sessions, in bytes, and how deeply it may be nested.
_MOST_BYTES = 64 * 1024 * 1024
_MAX_DEPTH = 64

S = TypeVar("S", bound=DanModuleInfo)


def read_entries(option: str, path: Path) -> list[Mapping[str, Any]]:
    """
    Read the sessions in a file, in any form that a command prints or writes; no error repeats its content.

    Each is a session's fields, or a record's, which have them as ``session``.
    """
    text = read_text(option, path, most_bytes=_MOST_BYTES)
    try:
        if is_too_deep(text, _MAX_DEPTH):
            raise ValueError("nested too deeply")
        try:
            found = [json.loads(text)]
        except ValueError:
            found = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        raise ConfigurationError(
            f"{option} is not a JSON file", hint="dan-async keygen --output writes one"
        ) from None
    entries: list[Mapping[str, Any]] = []
    for one in found:
        is_list = isinstance(one, dict) and isinstance(one.get("sessions"), list)
        entries += one["sessions"] if is_list else [one]
    return entries


def session_in(option: str, entry: Mapping[str, Any], kind: type[S]) -> S:
    """Return the session of an entry."""
    fields = entry["session"] if isinstance(entry, dict) and "session" in entry else entry
    if isinstance(fields, dict) and fields.get(_SECRET) == _MASK:
        raise ConfigurationError(f"{option}: the ephemeral private key is masked", hint="--reveal writes it")
    try:
        return kind.from_dict(fields)
    except InvalidFieldError as error:
        raise ConfigurationError(f"{option}: {error.message}", hint=error.hint) from None


@contextmanager
def reserve(path: Path, *, force: bool = False, is_stored: bool = False) -> Iterator[Callable[[str], None]]:
    """
    Reserve a file for a secret before a network or a wallet is asked for anything, so that a wrong path costs no session.

    The context's function writes the text to a temporary file of mode 0600 beside the target, and moves it into place in one
    step. Until then the target is untouched, and whatever happens the temporary file goes away. Its error says whether the
    session is lost with it: not if it *is_stored*.
    """
    shown = mask_keys(str(path))
    target = _resolve(path, shown)
    if not force and target.exists():
        raise ConfigurationError(
            f"--output: {shown} already exists", hint="Choose another name, or replace it with --force"
        )
    try:
        # mkstemp makes the file with mode 0600 whatever the umask, and never follows or reuses an existing one.
        descriptor, name = tempfile.mkstemp(prefix=".dan-async-", dir=target.parent)
        temporary = Path(name)
        try:
            os.write(descriptor, b" " * _LONGEST_SESSION)  # a full disk is found out now
        except OSError:
            temporary.unlink()
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(
            f"--output: cannot write in the folder of {shown}: {error.strerror}",
            hint="Name a folder that exists and that you may write to",
        ) from error

    def write(text: str) -> None:
        try:
            _write(temporary, text, target, force=force)
        except OSError as error:
            left = "It is in the store" if is_stored else "It was made, and is lost"
            again = "dan-async sessions export" if is_stored else "the command again"
            raise DanError(
                f"the session could not be written to {shown}: {error.strerror}",
                hint=f"{left}. Remove the cause and run {again}",
            ) from error

    try:
        yield write
    finally:
        temporary.unlink(missing_ok=True)


def _resolve(path: Path, shown: str) -> Path:
    """Follow symbolic links to where the bytes will be, and refuse devices, pipes and folders."""
    if str(path) == "-":
        raise ConfigurationError("--output needs a file name", hint="Use --json to write to standard output")
    target = path
    try:
        target = path.resolve()
        mode = target.stat().st_mode
    except FileNotFoundError:  # also of the folder that this process was started in
        return target
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"--output: cannot use {shown}: {reason_for(error)}") from error
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"--output: {shown} is not a regular file")
    return target


def write_new(path: Path, text: str, *, what: str) -> None:
    """Write a secret to a new file that only its owner can read: whoever finds the file finds all of it."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".dan-async-", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            _write(temporary, text, path, force=False)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{what} cannot be written to {path}: {error.strerror}") from None


def _write(temporary: Path, text: str, target: Path, *, force: bool) -> None:
    with temporary.open("r+", encoding="utf-8") as file:
        file.write(text)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    if force:
        temporary.replace(target)
    else:
        _place(temporary, target)
    _sync_folder(target.parent)


def _place(temporary: Path, target: Path) -> None:
    """Move the file to its name if that is still free."""
    try:
        os.link(temporary, target)  # unlike a rename, a link fails if the name has been taken meanwhile
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: look, then rename
        if target.exists():
            raise
        temporary.replace(target)


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable, where the system lets a folder be opened for that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def masked(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a session's fields with the ephemeral private key masked, in the same order."""
    return fields | {_SECRET: _MASK}


def as_table(session: DanSessionKeyPayload, *, reveal: bool, kept: bool) -> None:
    """Print a table on standard output; if the secret is neither shown nor *kept* in a file, note that it is lost."""
    rows = {
        "Session key address": session.session_key_eoa,
        "MPC key id": session.mpc_key_id,
        "Ephemeral private key": session.hex_eph_sk_without_0x if reveal else _MASK,
        "Threshold": f"{session.threshold}-of-{session.parties_number}",
        "Owner": session.eoa_address,
        "Chain id": str(session.chain_id),
    }
    if session.expires_at is not None:
        rows["Expires"] = moment(session.expires_at)
    width = max(map(len, rows)) + 2
    screen = console()
    with screen.capture() as table:
        for label, value in rows.items():
            screen.print(
                Text(label.ljust(width), style="bold") + Text(value, style="not bold"), soft_wrap=True
            )
    result(table.get().rstrip("\n"))
    if not reveal and not kept:
        note(
            "The ephemeral private key is masked and kept nowhere: --output FILE or --json keeps the session."
        )

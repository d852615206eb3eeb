"""Which store, and which key opens it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dan_async.cli.screen import note
from dan_async.errors import ConfigurationError, InvalidFieldError, require_extra
from dan_async.storage.keys import (
    KeySource,
    PassphraseKeys,
    StoreKey,
    keys_from_environment,
    keys_from_file,
)

if TYPE_CHECKING:
    from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

__all__ = ["StoreChoice", "choose_store"]

_KEY = "DAN_ASYNC_STORE_KEY"
_PASSPHRASE = "DAN_ASYNC_STORE_PASSPHRASE"  # noqa: S105 - the variable's name


class StoreChoice:
    """
    A store that was named and checked, and not yet opened.

    Args:
        url: Its URL.
        keys: Its keys.
        file: The SQLite file, if it is one.
    """

    def __init__(self, url: str, keys: KeySource, file: Path | None) -> None:
        self._url = url
        self._keys = keys
        self._file = file

    @property
    def may_exist(self) -> bool:
        """Whether there may be something in it."""
        return self._file is None or self._file.exists()

    def open(self) -> SQLAlchemyStore:
        """Make the store; whoever calls closes it."""
        from dan_async.storage.sqlalchemy_store import SQLAlchemyStore

        return SQLAlchemyStore(self._url, self._keys)


def choose_store(
    url: str, *, option: str, key_file: Path | None, environment: Mapping[str, str], may_make: bool
) -> StoreChoice:
    """
    Check what the options name.

    Args:
        url: The store's URL.
        option: The option that named it, for errors.
        key_file: A file with its key.
        environment: The environment variables.
        may_make: Whether a store that is not there may be made, with a key file beside it.

    Raises:
        ConfigurationError: The URL is wrong, or there is no key.
    """
    require_extra("sqlalchemy", extra="storage", purpose="A session store in a database")
    from dan_async.storage.database_url import parse_url

    try:
        parsed = parse_url(url)
    except InvalidFieldError as error:
        problem = error.message.removeprefix(error.field + " ")
        raise InvalidFieldError(option, problem, hint=error.hint) from None
    is_file = parsed.drivername.startswith("sqlite")
    file = Path(parsed.database or "") if is_file else None
    if not may_make and file is not None and not file.exists():
        raise ConfigurationError(f"{option}: there is no store {file}")
    return StoreChoice(url, _choose_keys(key_file, environment, file, option, may_make=may_make), file)


def _choose_keys(
    key_file: Path | None, environment: Mapping[str, str], file: Path | None, option: str, *, may_make: bool
) -> KeySource:
    if key_file is not None:
        return keys_from_file(key_file)
    if environment.get(_KEY):
        return keys_from_environment(_KEY, environment=environment)
    if environment.get(_PASSPHRASE):
        return PassphraseKeys(environment[_PASSPHRASE])
    hint = f"Use --store-key-file FILE, or set {_KEY} or {_PASSPHRASE}"
    if file is None:
        raise ConfigurationError(f"{option}: there is no key for the store", hint=hint)
    beside = file.with_name(file.name + ".key")
    if beside.exists():
        return keys_from_file(beside)
    if file.exists() or not may_make:
        raise ConfigurationError(f"{option}: there is no key for {file}, nor a file {beside}", hint=hint)
    _make_key(beside)
    note(
        f"The store's key was made and written to {beside}: keep it, and keep it apart from backups of the store."
    )
    return keys_from_file(beside)


def _make_key(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(StoreKey.generate().to_text() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"the store's key cannot be written to {path}: {error.strerror}") from None

"""
Where a node keeps what must survive a restart: key shares and finished requests, and apart from these, its bans.

A record is a name and some bytes. On disk all are rows of one SQLite file of mode 0600, each AES-256-GCM under a key derived
from the node's identity, with the record's own name as associated data, so that rows cannot be swapped. A record is flushed
before ``put`` returns; a crash leaves the old one or the new one, never half of either.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dan_async._json import dump, load
from dan_async.errors import DanError, InvalidFieldError
from dan_async.protocols.fields import decode, to_json

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two nodes apart there
    fcntl = None  # type: ignore[assignment]  # the module is missing on purpose

_MAGIC = b"dan-devnet record 1\n"
_NONCE_LENGTH = 12
_NAME = re.compile(r"[0-9A-Za-z_-]{1,80}\Z")


class ShareStoreError(DanError):
    """A record or the store's folder is not usable."""


def read_all(store: ShareStore, kind: str) -> Iterator[bytes]:
    """Read the records of a kind, which their names begin with: ``pair``, ``passkey``, or nothing for a key. Blocks."""
    for name in store.names():
        data = store.get(name) if name.rpartition("-")[0] == kind else None
        if data is not None:
            yield data


class StoredRecord:
    """The content of a record: an attrs class whose fields declare their members, as ``protocols.fields`` has it."""

    __slots__ = ()

    KIND: ClassVar[str]
    VERSION: ClassVar[int]

    def encode(self) -> bytes:
        """Write the record. The bytes may hold secrets."""
        return dump({"version": self.VERSION, **to_json(self)}).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read a record with exactly these members and its version."""
        try:
            found = load(data)
            if not isinstance(found, dict):
                raise InvalidFieldError(cls.KIND, "must be a JSON object")
            version = found.pop("version", None)
            if version != cls.VERSION:
                raise ShareStoreError(
                    f"the record of a {cls.KIND} is of version {version}, not {cls.VERSION}"
                )
            return decode(cls, found, cls.KIND)
        except ShareStoreError:
            raise
        except DanError as error:
            raise ShareStoreError(f"the record of a {cls.KIND} is malformed: {error.message}") from error


class MemoryShareStore:
    """Keeps records for as long as the object lives, also while the node that uses it is stopped."""

    def __init__(self) -> None:
        self._records: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        self._records[_checked(name)] = data

    def put_all(self, records: Mapping[str, bytes]) -> None:
        for name, data in records.items():
            self.put(name, data)

    def get(self, name: str) -> bytes | None:
        return self._records.get(_checked(name))

    def names(self) -> list[str]:
        return sorted(self._records)

    def close(self) -> None:
        """Do nothing: the records stay."""


class DiskShareStore:
    """Keeps records encrypted under a 32-byte key, in a folder that only one process may use; from any thread."""

    def __init__(self, folder: Path, key: bytes) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._cipher = AESGCM(key)
        self._lock: int | None = _lock(folder)
        self._turn = threading.Lock()
        file = folder / "records.db"
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite makes the files beside it alike
        self._rows = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        try:
            with self._using() as rows:
                # Exclusive, so that no memory is shared with others; FULL, so that a commit outlives a power cut.
                for setting in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                    rows.execute(f"PRAGMA {setting}")
                rows.execute(
                    "CREATE TABLE IF NOT EXISTS records (name TEXT PRIMARY KEY, sealed BLOB NOT NULL)"
                )
                for old in folder.glob("*.record"):  # each was a file once, with the same content
                    rows.execute("INSERT OR IGNORE INTO records VALUES (?, ?)", (old.stem, old.read_bytes()))
                    old.unlink()
            _flush_folder(folder)
        except BaseException:
            self.close()
            raise

    def put(self, name: str, data: bytes) -> None:
        """Encrypt a record and write it durably."""
        self.put_all({name: data})

    def put_all(self, records: Mapping[str, bytes]) -> None:
        """Encrypt records and write all of them durably, or none."""
        sealed = [(name, self._seal(name, data)) for name, data in records.items()]
        with self._using() as rows:
            rows.execute("BEGIN")
            try:
                rows.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", sealed)
                rows.execute("COMMIT")
            except BaseException:
                if rows.in_transaction:
                    rows.execute("ROLLBACK")
                raise

    def _seal(self, name: str, data: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        return _MAGIC + nonce + self._cipher.encrypt(nonce, data, _MAGIC + _checked(name).encode())

    def get(self, name: str) -> bytes | None:
        """Read and decrypt a record; one that was changed, or belongs to another name or node, is an error."""
        with self._using() as rows:
            found = rows.execute("SELECT sealed FROM records WHERE name = ?", (_checked(name),)).fetchone()
        if found is None:
            return None
        sealed, head = found[0], len(_MAGIC) + _NONCE_LENGTH
        try:
            if not isinstance(sealed, bytes) or not sealed.startswith(_MAGIC) or len(sealed) < head:
                raise InvalidTag
            return self._cipher.decrypt(sealed[len(_MAGIC) : head], sealed[head:], _MAGIC + name.encode())
        except InvalidTag:
            raise ShareStoreError(
                f"the record {name} cannot be decrypted",
                hint="It was changed, or belongs to another node; restore records.db from a backup",
            ) from None

    def names(self) -> list[str]:
        with self._using() as rows:
            return [name for (name,) in rows.execute("SELECT name FROM records ORDER BY name")]

    def close(self) -> None:
        """Let go of the folder. May be called twice."""
        with self._turn:
            self._rows.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._turn:
                yield self._rows
        except sqlite3.Error as error:
            raise ShareStoreError(f"the records in {self._folder} cannot be used: {error}") from error


#: Keeps records, and replaces one of the same name. Its methods may block: call them off the event loop.
ShareStore: TypeAlias = MemoryShareStore | DiskShareStore


class BanList:
    """
    The operators that a node never signs with again, apart from all that a ban is about: a file each, or in memory.

    A file is written before there is anything to be banned for; emptying it is the ban. That needs no space, so a full disk
    does not prevent it, and damage errs on the same side.
    """

    _PLACE = b"not banned; once this file is empty, it is a ban\n"

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._banned: dict[str, bool] = {}

    def load(self) -> None:
        """Read what is stored. Blocks. A ban that the disk has not taken stays."""
        for path in [] if self._folder is None else self._folder.glob("0x*"):
            self._banned[path.name] = self._banned.get(path.name, False) or path.read_bytes() != self._PLACE

    def find(self, operator: str) -> bool | None:
        """Return whether an operator is banned; None if there is no place for a ban of it yet."""
        return self._banned.get(operator.lower())

    def reserve(self, operator: str) -> None:
        """Make the place for a ban of an operator, durably, unless there is one. Blocks."""
        name = operator.lower()
        if name not in self._banned:
            if self._folder is not None:
                if not self._folder.exists():
                    self._folder.mkdir(mode=0o700)
                    _flush_folder(self._folder.parent)
                replace_file(self._folder / name, self._PLACE)
            self._banned[name] = False

    def ban(self, operator: str) -> None:
        """Ban an operator: durable when this returns, and for this process even if it fails. Blocks."""
        name = operator.lower()
        self._banned[name] = True
        if self._folder is not None:
            descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _flush_folder(self._folder)


def replace_file(target: Path, content: bytes) -> None:
    """Write a file of mode 0600 so that a crash leaves the old content or the new, never a part."""
    fresh = target.with_name(f"{target.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    # Without this the new name may be lost in a power cut although its content is safe.
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(folder: Path) -> int | None:
    if fcntl is None:
        return None
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ShareStoreError(
            f"the folder {folder} is in use by another node",
            hint="Stop the node that runs there, or give each a folder of its own",
        ) from None
    return descriptor


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise ShareStoreError("a record's name is 1 to 80 letters, digits, '-' and '_'")
    return name

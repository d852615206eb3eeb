"""
Where a store's encryption keys come from: a file, the environment, a passphrase, or a key management service.

Each key has an id, which is stored beside the data it encrypted. A source has one current key, for new records, and may
know older ones, for the records before: so keys can be rotated while the store is in use.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from attrs import field, frozen

from dan_async._values import check_instance, check_list, check_mapping, check_text, in_seconds, mask_secret
from dan_async.errors import ConfigurationError, InvalidFieldError, StoreKeyError
from dan_async.types import TimeSpan

_KEY_LENGTH = 32
_KEY_ID = re.compile(r"[0-9A-Za-z:_./@-]{1,160}\Z")
#: The id of a key from a passphrase: costs, salt and check of the key.
_SCRYPT_ID = re.compile(r"scrypt:\d{1,7}:\d{1,2}:\d{1,2}:[0-9a-f]{32}:[0-9a-f]{16}\Z")
_COSTS = frozenset(2**power for power in range(10, 21))

STORE_KEY_VARIABLE = "DAN_ASYNC_STORE_KEY"
_LONGEST_FILE = 64 * 1024


@frozen
class StoreKey:
    """
    An AES-256 key.

    Args:
        id: Its name, 1 to 160 letters, digits and ``: _ . / @ -``; stored in the clear.
        secret: Its 32 bytes; masked in repr.
    """

    id: str = field()
    secret: bytes = field(repr=mask_secret)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.id, str) or not _KEY_ID.match(self.id):
            raise InvalidFieldError("key id", "must be 1 to 160 letters, digits and : _ . / @ -")
        if not isinstance(self.secret, bytes) or len(self.secret) != _KEY_LENGTH:
            raise InvalidFieldError("store key", f"must be {_KEY_LENGTH} bytes")

    @classmethod
    def generate(cls, key_id: str | None = None) -> StoreKey:
        """
        Return a new key from the operating system's randomness.

        Args:
            key_id: A name for it; derived from the key if not given.
        """
        secret = secrets.token_bytes(_KEY_LENGTH)
        return cls(key_id or _derived_id(secret), secret)

    @classmethod
    def parse(cls, text: str) -> StoreKey:
        """
        Return the key of ``ID:64 hex digits``, or of 64 hex digits alone, whose id is then derived from them.

        Args:
            text: The text, as ``to_text`` returns it.

        Raises:
            InvalidFieldError: It is not that. It is not repeated.
        """
        key_id, _, digits = text.strip().rpartition(":")
        try:
            secret = bytes.fromhex(digits)
        except ValueError:
            secret = b""
        if len(secret) != _KEY_LENGTH or 2 * len(secret) != len(digits):
            raise InvalidFieldError("store key", "must be 64 hex digits, or an id, a colon and 64 hex digits")
        return cls(key_id or _derived_id(secret), secret)

    def to_text(self) -> str:
        """Return the text that ``parse`` reads. It holds the key itself."""
        return f"{self.id}:{self.secret.hex()}"


def _derived_id(secret: bytes) -> str:
    return hmac.new(secret, b"dan-async store key id", hashlib.sha256).hexdigest()[:16]


@runtime_checkable
class KeySource(Protocol):
    """Knows a store's encryption keys."""

    async def current(self, known: str | None) -> StoreKey:
        """
        Return the key for new records.

        Args:
            known: The id of the key that the store used last, if any.

        Raises:
            StoreKeyError: There is none.
        """

    async def by_id(self, key_id: str) -> StoreKey | None:
        """
        Return the key of that id, or None if it is not known.

        Args:
            key_id: The id that a record names.
        """


class FixedKeys(KeySource):
    """
    Keys that are known from the start.

    Args:
        keys: The current one first, then older ones.

    Raises:
        InvalidFieldError: There is none, or an id is given twice.
    """

    def __init__(self, keys: Iterable[StoreKey]) -> None:
        given = [check_instance("keys", key, StoreKey) for key in check_list("keys", keys)]
        if not given:
            raise InvalidFieldError("keys", "must hold at least one key")
        self._keys = {key.id: key for key in given}
        if len(self._keys) != len(given):
            raise InvalidFieldError("keys", "name an id twice")
        self._current = given[0]

    def __repr__(self) -> str:
        return f"FixedKeys(current={self._current.id!r}, older={len(self._keys) - 1})"

    async def current(self, known: str | None) -> StoreKey:
        del known
        return self._current

    async def by_id(self, key_id: str) -> StoreKey | None:
        return self._keys.get(key_id)


def keys_from_file(path: str | Path) -> FixedKeys:
    """
    Return the keys in a file: one on each line, ``ID:64 hex digits`` or the digits alone, the current one first.

    Args:
        path: The file; other users must not be able to read it.

    Raises:
        ConfigurationError: It cannot be read, is open to others, or holds something else.
    """
    file = Path(check_text("path", str(path) if isinstance(path, Path) else path, most=4096))
    try:
        with file.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(_LONGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"the store key file {file} cannot be read: {reason}") from None
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise ConfigurationError(
            f"other users of this machine may use the store key file {file}",
            hint="Keep it to yourself: chmod 600",
        )
    return _parse(data, f"the store key file {file}")


def keys_from_environment(
    name: str = STORE_KEY_VARIABLE, *, environment: Mapping[str, str] | None = None
) -> FixedKeys:
    """
    Return the keys in an environment variable: as in a file, separated by white space or commas.

    Args:
        name: The variable.
        environment: Where to look, instead of the process's own variables.

    Raises:
        ConfigurationError: It is not set, or holds something else.
    """
    check_text("name", name)
    places = os.environ if environment is None else check_mapping("environment", environment)
    value = places.get(name)
    if not value:
        raise ConfigurationError(
            f"the environment variable {name} is not set", hint="It holds the store's key"
        )
    return _parse(value.encode(errors="replace"), f"the environment variable {name}")


def _parse(data: bytes, where: str) -> FixedKeys:
    try:
        words = [word for word in re.split(r"[\s,]+", data.decode("ascii")) if word]
        return FixedKeys(StoreKey.parse(word) for word in words)
    except (InvalidFieldError, UnicodeDecodeError) as error:
        problem = error.message if isinstance(error, InvalidFieldError) else "it is not text"
        raise ConfigurationError(
            f"{where} does not hold a store key: {problem}",
            hint='Make one: python3 -c "import secrets; print(secrets.token_hex(32))"',
        ) from None


class PassphraseKeys(KeySource):
    """
    Keys that are derived from a passphrase with scrypt (RFC 7914).

    Costs, salt and a check of the derived key stand in the key's id, so that the passphrase is all that has to be kept and
    a wrong one is found out at once.

    Args:
        passphrase: At least 8 characters.
        older: Earlier passphrases, for records written under them.
        cost: scrypt's N, a power of two from 2**10 to 2**20; block size 8, parallelism 1.

    Raises:
        InvalidFieldError: A passphrase is too short, or the cost is not such a number.
    """

    def __init__(self, passphrase: str, *, older: Iterable[str] = (), cost: int = 2**17) -> None:
        self._passphrases = (passphrase, *check_list("older", older))
        if any(not isinstance(text, str) or len(text) < 8 for text in self._passphrases):
            raise InvalidFieldError("passphrase", "must have at least 8 characters")
        if not isinstance(cost, int) or cost not in _COSTS:
            raise InvalidFieldError("cost", "must be a power of two from 2**10 to 2**20")
        self._cost = cost
        self._found: dict[str, tuple[int, StoreKey]] = {}  # with the place of the passphrase
        self._current: StoreKey | None = None
        # Not an asyncio.Lock: several stores may have these keys, and each runs on the event loop of its own thread.
        self._deriving = threading.Lock()

    def __repr__(self) -> str:
        return "PassphraseKeys('***')"

    async def current(self, known: str | None) -> StoreKey:
        """
        Return the key of the salt that the store used last, or of a new one.

        Raises:
            StoreKeyError: The store was used with a passphrase that is not given here.
        """
        if self._current is not None:
            return self._current
        return await asyncio.to_thread(self._choose, known)

    def _choose(self, known: str | None) -> StoreKey:
        with self._deriving:
            key = self._current or self._last_used(known) or self._make_key()
            self._current = key
            return key

    def _last_used(self, known: str | None) -> StoreKey | None:
        if known is None or not _SCRYPT_ID.match(known):
            return None
        place, key = self._find(known)
        if key is None:
            raise StoreKeyError(
                "the passphrase is not the one with which the store was last used",
                hint="To change it, give the earlier one as well",
            )
        return key if place == 0 else None  # that of an earlier passphrase is for reading

    def _make_key(self) -> StoreKey:
        key = _scrypt(self._passphrases[0], f"scrypt:{self._cost}:8:1:{secrets.token_hex(16)}")
        self._found[key.id] = 0, key
        return key

    async def by_id(self, key_id: str) -> StoreKey | None:
        """Return the key of that id, if one of the passphrases makes it."""
        if not _SCRYPT_ID.match(key_id):
            return None
        if key_id in self._found:
            return self._found[key_id][1]
        return await asyncio.to_thread(self._derive, key_id)

    def _derive(self, key_id: str) -> StoreKey | None:
        with self._deriving:
            return self._find(key_id)[1]

    def _find(self, key_id: str) -> tuple[int, StoreKey | None]:
        """Return the key of an id, and the place of the passphrase that makes it."""
        if key_id in self._found:
            return self._found[key_id]
        for place, passphrase in enumerate(self._passphrases):
            key = _scrypt(passphrase, key_id.rpartition(":")[0])
            if key.id == key_id:
                self._found[key_id] = place, key
                return place, key
        return 0, None


def _scrypt(passphrase: str, head: str) -> StoreKey:
    cost, block, parallel, salt = head.removeprefix("scrypt:").split(":")
    if int(cost) not in _COSTS or block != "8" or parallel != "1":
        # The id stands in the clear: whoever can write to the store must not choose how long this takes.
        raise StoreKeyError("the key's id names costs of scrypt that this version does not use")
    secret = hashlib.scrypt(
        passphrase.encode(),
        salt=bytes.fromhex(salt),
        n=int(cost),
        r=8,
        p=1,
        maxmem=2048 * int(cost) + 2**20,
        dklen=_KEY_LENGTH,
    )
    return StoreKey(f"{head}:{_derived_id(secret)}", secret)


class CallbackKeys(KeySource):
    """
    Keys from somewhere else, such as a key management service.

    Args:
        fetch: Returns the key of an id, or with None the current one; returns None for an id that it does not know. If it
            fails, the store's call fails with a ``StoreKeyError``, whose cause is its own exception.
        keep_s: How many seconds a key is kept in memory before *fetch* is asked again; 0 to ask every time.
        clock: A monotonic clock.
    """

    def __init__(
        self,
        fetch: Callable[[str | None], Awaitable[StoreKey | None]],
        *,
        keep_s: TimeSpan = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._keep_s = in_seconds(keep_s)
        self._clock = clock
        self._kept: dict[str | None, tuple[float, StoreKey]] = {}

    def __repr__(self) -> str:
        return f"CallbackKeys({len(self._kept)} kept)"

    async def current(self, known: str | None) -> StoreKey:
        del known
        key = await self._ask(None)
        if key is None:
            raise StoreKeyError("the key service returned no current key")
        return key

    async def by_id(self, key_id: str) -> StoreKey | None:
        return await self._ask(key_id)

    async def _ask(self, key_id: str | None) -> StoreKey | None:
        kept = self._kept.get(key_id)
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        try:
            key = await self._fetch(key_id)
        except Exception as error:
            raise StoreKeyError(
                f"the key service failed with {type(error).__name__}",
                hint="Its own exception is the cause of this one",
                retryable=True,
            ) from error
        if key is None:
            return None
        if not isinstance(key, StoreKey) or (key_id is not None and key.id != key_id):
            raise StoreKeyError("the key service returned something other than the requested key")
        for name in {key_id, key.id}:
            self._kept[name] = (self._clock() + self._keep_s, key)
        return key

"""
Records as encrypted bytes: AES-256-GCM, with the record's id, its owner and the key's id as associated data.

Every column that stands in the clear for searching also stands in the encrypted body, and the two are compared when the
record is opened. So whoever can write to the database can delete a record, or put an older form of it back, but cannot
change one, nor put one in the place of another.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from typing import Any

from attrs import field, fields, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dan_async.errors import InvalidFieldError, StoreKeyError, StoreTamperedError
from dan_async.storage.base import StoredSession
from dan_async.storage.keys import KeySource, StoreKey

_VERSION = b"\x01"
_CHECK_LENGTH = 8
_NONCE_LENGTH = 12
_HEAD_LENGTH = 1 + _CHECK_LENGTH + _NONCE_LENGTH


@frozen(kw_only=True)
class SealedRecord:
    """A record as it is kept: columns in the clear, and the encrypted body."""

    record_id: str
    owner: str
    chain_id: int
    state: str
    expires_at: int
    created_at: int
    updated_at: int
    reference: str | None
    key_id: str
    body: bytes = field(repr=False)


#: Columns that both a record and its sealed form have.
_CLEAR = tuple(column.name for column in fields(SealedRecord) if column.name not in ("key_id", "body"))


class Sealer:
    """Encrypts and decrypts records with the keys of a source."""

    def __init__(self, keys: KeySource) -> None:
        self._keys = keys
        self._known: str | None = None

    def start_from(self, key_id: str | None) -> None:
        self._known = key_id

    async def current_key_id(self) -> str:
        return (await self._keys.current(self._known)).id

    async def seal(self, record: StoredSession) -> SealedRecord:
        text = json.dumps(record.to_dict(), separators=(",", ":")).encode()
        return await self._encrypt(text, _columns(record))

    async def open(self, sealed: SealedRecord) -> StoredSession:
        """Decrypt a record and compare it with its columns."""
        text = await self._decrypt(sealed)
        try:
            record = StoredSession.from_dict(json.loads(text))
        except (InvalidFieldError, ValueError):
            # The tag is right, so we wrote this: another version did.
            raise StoreTamperedError(
                "a record cannot be read by this version of the package",
                hint="Upgrade dan-async",
                request_id=sealed.record_id,
            ) from None
        if _columns(record) != _columns(sealed):
            raise _tampered(sealed)
        return record

    async def renew(self, sealed: SealedRecord) -> SealedRecord:
        """Encrypt a record under the current key, as it is; its columns are compared as by ``open``."""
        text = await self._decrypt(sealed)
        values, columns = json.loads(text), _columns(sealed)
        if {name: values.get(name) for name in columns} != columns:
            raise _tampered(sealed)
        return await self._encrypt(text, columns)

    async def _encrypt(self, text: bytes, columns: dict[str, Any]) -> SealedRecord:
        key = await self._keys.current(self._known)
        nonce = secrets.token_bytes(_NONCE_LENGTH)
        associated = _associated(columns["record_id"], columns["owner"], key.id)
        body = _VERSION + _check_of(key) + nonce + AESGCM(key.secret).encrypt(nonce, text, associated)
        return SealedRecord(**columns, key_id=key.id, body=body)

    async def _decrypt(self, sealed: SealedRecord) -> bytes:
        key = await self._keys.by_id(sealed.key_id)
        if key is None:
            raise StoreKeyError(
                "the key that a record was encrypted with is not known",
                hint="Give the key or passphrase that the store was used with; old ones until all is rotated",
                request_id=sealed.record_id,
            )
        head = sealed.body[:_HEAD_LENGTH]
        if len(head) < _HEAD_LENGTH or not head.startswith(_VERSION):
            raise _tampered(sealed)
        if not hmac.compare_digest(head[1 : 1 + _CHECK_LENGTH], _check_of(key)):
            raise StoreKeyError(
                "the key is not the one that a record was encrypted with, or the record was changed",
                hint="Give the key that the store was used with",
                request_id=sealed.record_id,
            )
        associated = _associated(sealed.record_id, sealed.owner, sealed.key_id)
        try:
            return AESGCM(key.secret).decrypt(
                head[1 + _CHECK_LENGTH :], sealed.body[_HEAD_LENGTH:], associated
            )
        except InvalidTag:
            raise _tampered(sealed) from None


def _associated(record_id: str, owner: str, key_id: str) -> bytes:
    parts = (b"dan-async session 1", record_id.encode(), owner.encode(), key_id.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _check_of(key: StoreKey) -> bytes:
    """Return a few bytes that tell a wrong key from a changed record, and nothing else about the key."""
    return hmac.new(key.secret, b"dan-async store key check", hashlib.sha256).digest()[:_CHECK_LENGTH]


def _columns(record: StoredSession | SealedRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _CLEAR}


def _tampered(sealed: SealedRecord) -> StoreTamperedError:
    return StoreTamperedError(
        "a record is not what was stored: it was changed, or put in another one's place",
        hint="It is withheld. Find out who may write to the store, and restore the record from a backup",
        request_id=sealed.record_id,
    )

"""The passkeys that a node knows: public key, where it was made, and how often it has signed."""

from __future__ import annotations

import hashlib
import threading

from attrs import evolve, field, frozen

from dan_async._hex import from_hex, to_hex
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.devnet.share_store import ShareStore, ShareStoreError
from dan_async.errors import DanError, NodeCode
from dan_async.models._fields import check_int, check_text, required
from dan_async.types import Json
from dan_async.wire.json_text import dump, load
from dan_async.wire.members import members
from dan_async.wire.node_passkeys import (
    PasskeyReceipt,
    decode_passkey_receipt,
    encode_passkey_receipt,
)

__all__ = ["RECORD_PREFIX", "PasskeyRecord", "PasskeyRegistry"]

#: Names of passkey records in the node's store begin with this.
RECORD_PREFIX = "passkey-"

#: Anyone may register a passkey, so there is an end to it.
_MOST_PASSKEYS = 10_000

_VERSION = 1
_MEMBERS = ("version", "content", "receipt", "publicKey", "signCount", "rpId", "origin")


@frozen(kw_only=True)
class PasskeyRecord:
    """
    One registered passkey.

    Args:
        content: Hash of the request that registered it.
        receipt: What the node answered.
        public_key: The credential's public key, in COSE form.
        sign_count: The authenticator's counter when it signed last; 0 if it does not count.
        rp_id: The relying party it belongs to.
        origin: The page that made it, the only one it may sign on.
    """

    content: bytes
    receipt: PasskeyReceipt
    public_key: bytes
    sign_count: int = field(validator=required(check_int, least=0, most=2**32 - 1))
    rp_id: str = field(validator=required(check_text, most=255))
    origin: str = field(validator=required(check_text))

    @property
    def credential_id(self) -> str:
        """Its credential id, base64url."""
        return self.receipt.credential_id

    @property
    def name(self) -> str:
        """Its name in the node's store."""
        return RECORD_PREFIX + hashlib.sha256(self.credential_id.encode()).hexdigest()

    def encode(self) -> bytes:
        """Write the record."""
        value: Json = {
            "version": _VERSION,
            "content": to_hex(self.content),
            "receipt": encode_passkey_receipt(self.receipt),
            "publicKey": to_hex(self.public_key),
            "signCount": self.sign_count,
            "rpId": self.rp_id,
            "origin": self.origin,
        }
        return dump(value).encode()

    @classmethod
    def decode(cls, data: bytes) -> PasskeyRecord:
        """
        Read a record.

        Raises:
            ShareStoreError: It is not one of this version.
        """
        try:
            found = members(load(data), "passkey", _MEMBERS)
            if found["version"] != _VERSION:
                raise ShareStoreError(f"the passkey record is not of version {_VERSION}")
            return cls(
                content=from_hex(found["content"], field="content", length=32, prefix=True),
                receipt=decode_passkey_receipt(found["receipt"]),
                public_key=from_hex(found["publicKey"], field="publicKey", prefix=True),
                sign_count=found["signCount"],
                rp_id=found["rpId"],
                origin=found["origin"],
            )
        except ShareStoreError:
            raise
        except DanError as error:
            raise ShareStoreError(f"a passkey record is malformed: {error.message}") from error


class PasskeyRegistry:
    """
    A node's passkeys, in memory for quick answers and in the store for the next start.

    Args:
        store: Where they are kept.
        most: How many there may be.
    """

    def __init__(self, store: ShareStore, *, most: int = _MOST_PASSKEYS) -> None:
        self._store = store
        self._most = most
        self._records: dict[str, PasskeyRecord] = {}
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return len(self._records)

    def load(self) -> None:
        """
        Read everything from the store. Blocks.

        Raises:
            ShareStoreError: A record cannot be read.
        """
        for name in self._store.names():
            data = self._store.get(name) if name.startswith(RECORD_PREFIX) else None
            if data is not None:
                record = PasskeyRecord.decode(data)
                self._records[record.credential_id] = record

    def find(self, credential_id: str) -> PasskeyRecord | None:
        """Give the passkey of that id."""
        return self._records.get(credential_id)

    def add(self, record: PasskeyRecord) -> None:
        """
        Take in a new passkey; ``save`` it before anyone is told.

        Raises:
            RefusalError: ``REQUEST_CONFLICT`` if the id is taken (WebAuthn 7.1 step 26), ``UNSUPPORTED`` if there are too
                many.
        """
        if record.credential_id in self._records:
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the passkey is registered already")
        if len(self._records) >= self._most:
            raise RefusalError(NodeCode.UNSUPPORTED, "this node takes no more passkeys")
        self._records[record.credential_id] = record

    def count(self, credential_id: str, sign_count: int) -> None:
        """Note a passkey's counter, in memory at once; ``save`` it before anyone is told of what was signed."""
        self._records[credential_id] = evolve(self._records[credential_id], sign_count=sign_count)

    def save(self, credential_id: str) -> None:
        """Write a passkey as it is now, durably. Blocks; may be called from any thread."""
        with self._writing:  # so that an older counter is never written over a newer one
            record = self._records.get(credential_id)
            if record is not None:
                self._store.put(record.name, record.encode())

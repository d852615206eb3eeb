"""What a node keeps of a finished key generation, and the bytes it is kept as."""

from __future__ import annotations

from attrs import field, frozen

from dan_async._hex import from_hex, to_hex
from dan_async.devnet.ephemeral_registry import (
    EphemeralRegistry,
    decode_claim_record,
    encode_claim_record,
)
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.pair_store import PAIR_PREFIX
from dan_async.devnet.passkey_registry import RECORD_PREFIX
from dan_async.devnet.share_store import ShareStore, ShareStoreError
from dan_async.errors import DanError
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.models.claim import EphemeralClaim
from dan_async.types import MpcKeyId, RequestId
from dan_async.wire.json_text import dump, load
from dan_async.wire.members import members
from dan_async.wire.node_1 import decode_acknowledgement, encode_acknowledgement

__all__ = ["KeyRecord", "KeyRing"]

_VERSION = 1
_MEMBERS = (
    *("version", "content", "acknowledgement", "share", "ownerId", "claim"),
    *("permissions", "ephemeralKeys"),
)


@frozen(kw_only=True)
class KeyRecord:
    """
    A finished key generation.

    Args:
        content: Hash of the request, by which the same request is told from another under its id.
        acknowledgement: What the node answered, and answers again to the same request.
        share: The node's share of the key.
        owner_id: Who owns the key: an address, or ``passkey:`` and a credential id.
        claim: The ephemeral key that the owner vouched for.
        permissions: What the key may sign, as JSON text; None for no limits.
        ephemeral_keys: Which ephemeral keys may use it.
    """

    content: bytes
    acknowledgement: Acknowledgement
    share: KeyShare = field(repr=False)
    owner_id: str
    claim: EphemeralClaim
    permissions: str | None
    ephemeral_keys: EphemeralRegistry = field(factory=EphemeralRegistry)

    def encode(self) -> bytes:
        """Write the record. The bytes hold the secret share."""
        text = dump(
            {
                "version": _VERSION,
                "content": to_hex(self.content),
                "acknowledgement": encode_acknowledgement(self.acknowledgement),
                "share": self.share.to_dict(),
                "ownerId": self.owner_id,
                "claim": encode_claim_record(self.claim),
                "permissions": self.permissions,
                "ephemeralKeys": self.ephemeral_keys.to_json(),
            }
        )
        return text.encode()

    @classmethod
    def decode(cls, data: bytes) -> KeyRecord:
        """
        Read a record.

        Raises:
            ShareStoreError: It is not one of this version.
        """
        try:
            found = members(load(data), "record", _MEMBERS)
            if found["version"] != _VERSION:
                raise ShareStoreError(f"the record is of version {found['version']}, not {_VERSION}")
            return cls(
                content=from_hex(found["content"], field="content", length=32, prefix=True),
                acknowledgement=decode_acknowledgement(found["acknowledgement"]),
                share=KeyShare.from_dict(found["share"]),
                owner_id=found["ownerId"],
                claim=decode_claim_record(found["claim"]),
                permissions=found["permissions"],
                ephemeral_keys=EphemeralRegistry.from_json(found["ephemeralKeys"]),
            )
        except ShareStoreError:
            raise
        except DanError as error:
            raise ShareStoreError(f"a record is malformed: {error.message}") from error


class KeyRing:
    """
    A node's finished key generations, in memory for quick answers and in the store for the next start.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: ShareStore) -> None:
        self._store = store
        self._by_request: dict[RequestId, KeyRecord] = {}
        self._by_key: dict[MpcKeyId, KeyRecord] = {}

    def __len__(self) -> int:
        return len(self._by_request)

    def load(self) -> None:
        """
        Read everything from the store. Blocks.

        Raises:
            ShareStoreError: A record cannot be read; a node does not start without what it is known to hold.
        """
        for name in self._store.names():
            data = None if name.startswith((RECORD_PREFIX, PAIR_PREFIX)) else self._store.get(name)
            if data is not None:
                self._remember(KeyRecord.decode(data))

    def add(self, record: KeyRecord) -> None:
        """Keep a record, durably before anyone can be told of it. Blocks."""
        self._store.put(record.acknowledgement.request_id.removeprefix("0x"), record.encode())
        self._remember(record)

    def replace(self, record: KeyRecord) -> None:
        """Keep a changed record in the place of the old one, durably. Blocks."""
        self.add(record)

    def by_request(self, request_id: RequestId) -> KeyRecord | None:
        """Find what a request came to."""
        return self._by_request.get(request_id)

    def by_key(self, key_id: MpcKeyId) -> KeyRecord | None:
        """Find a key."""
        return self._by_key.get(key_id)

    def _remember(self, record: KeyRecord) -> None:
        self._by_request[record.acknowledgement.request_id] = record
        self._by_key[record.acknowledgement.key_id] = record

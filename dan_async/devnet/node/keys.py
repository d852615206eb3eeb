"""The keys that a node holds shares of: its record of each, and which ephemeral keys may use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from dan_async._json import dump
from dan_async._values import from_hex, to_hex
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.node.rpc import RefusalError
from dan_async.devnet.share_store import ShareStore, decode_record, read_all
from dan_async.errors import NodeCode
from dan_async.protocols.fields import members, to_json
from dan_async.protocols.node_claims import Acknowledgement, ChangeReceipt
from dan_async.protocols.setups import EphemeralClaim
from dan_async.types import Json, MpcKeyId, RequestId

#: Most ephemeral keys, and changes of them, that a node remembers for one key.
_MOST_KEYS = 256
_MOST_CHANGES = 1024

_CLAIM_MEMBERS = ("ephId", "ephPK", "expiry", "signAlg")


@frozen(kw_only=True)
class RegisteredKey:
    """One ephemeral key: what the owner vouched for last, and whether the owner took it back."""

    claim: EphemeralClaim
    is_revoked: bool = False


@frozen(kw_only=True)
class AppliedChange:
    """A change that was made: the hash of its request, and the receipt that was given for it."""

    content: bytes
    receipt: ChangeReceipt


@frozen
class EphemeralRegistry:
    """The ephemeral keys of one key. A change makes a new registry, which is stored before anyone hears of it."""

    keys: tuple[RegisteredKey, ...] = ()
    changes: tuple[AppliedChange, ...] = ()

    def find(self, eph_id: str) -> RegisteredKey | None:
        return next((key for key in self.keys if key.claim.eph_id == eph_id), None)

    def check_usable(self, eph_id: str, eph_pk: bytes, now: float) -> RegisteredKey:
        """Return an ephemeral key that may use the key now."""
        found = self.find(eph_id)
        if found is None or found.claim.eph_pk != eph_pk:
            reason, problem = "unknown", "is not registered for this key"
        elif found.is_revoked:
            reason, problem = "revoked", "was revoked"
        elif found.claim.expiry <= now:
            reason, problem = "expired", "has expired"
        else:
            return found
        raise RefusalError(
            NodeCode.EPHEMERAL_KEY_REFUSED, f"the ephemeral key {problem}", data={"reason": reason}
        )

    def repeated(self, request_id: RequestId, content: bytes) -> ChangeReceipt | None:
        """Return the receipt of a change that was made before, as long as nothing later undid it."""
        done = next(
            (change for change in self.changes if change.receipt.claims.request_id == request_id), None
        )
        if done is None:
            return None
        if done.content != content:
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the request id is known with other content")
        eph_id = done.receipt.claims.eph_id
        last = [change for change in self.changes if change.receipt.claims.eph_id == eph_id][-1]
        if last is not done:
            raise RefusalError(
                NodeCode.REQUEST_CONFLICT, "a later change of the same ephemeral key superseded it"
            )
        return done.receipt

    def changed(self, claim: EphemeralClaim, content: bytes, receipt: ChangeReceipt) -> EphemeralRegistry:
        """Make a change. A key revoked before it was added is remembered: an addition still under way comes too late."""
        known = self.find(claim.eph_id)
        if known is not None and known.claim.eph_pk != claim.eph_pk:
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the ephemeral id belongs to another public key")
        others = tuple(key for key in self.keys if key.claim.eph_id != claim.eph_id)
        if len(others) >= _MOST_KEYS or len(self.changes) >= _MOST_CHANGES:
            raise RefusalError(NodeCode.UNSUPPORTED, "the key has had too many ephemeral keys")
        made = RegisteredKey(claim=claim, is_revoked=receipt.claims.operation == "revokeEphemeralKey")
        return evolve(
            self,
            keys=(*others, made),
            changes=(*self.changes, AppliedChange(content=content, receipt=receipt)),
        )

    def to_json(self) -> Json:
        return {
            "keys": [{"claim": encode_claim_record(k.claim), "revoked": k.is_revoked} for k in self.keys],
            "changes": [{"content": to_hex(c.content), "receipt": to_json(c.receipt)} for c in self.changes],
        }

    @classmethod
    def from_json(cls, value: Json) -> EphemeralRegistry:
        found = members(value, "ephemeralKeys", ("keys", "changes"))
        keys = [members(entry, "key", ("claim", "revoked")) for entry in found["keys"]]
        changes = [members(entry, "change", ("content", "receipt")) for entry in found["changes"]]
        return cls(
            keys=tuple(
                RegisteredKey(claim=decode_claim_record(key["claim"]), is_revoked=bool(key["revoked"]))
                for key in keys
            ),
            changes=tuple(
                AppliedChange(
                    content=from_hex(change["content"], field="content", length=32, prefix=True),
                    receipt=ChangeReceipt.read_whole(change["receipt"]),
                )
                for change in changes
            ),
        )


def encode_claim_record(claim: EphemeralClaim) -> Json:
    return {
        "ephId": claim.eph_id,
        "ephPK": to_hex(claim.eph_pk),
        "expiry": claim.expiry,
        "signAlg": claim.sign_alg,
    }


def decode_claim_record(value: Json) -> EphemeralClaim:
    found = members(value, "claim", _CLAIM_MEMBERS)
    return EphemeralClaim(
        eph_id=found["ephId"],
        eph_pk=from_hex(found["ephPK"], field="ephPK", prefix=True),
        expiry=found["expiry"],
        sign_alg=found["signAlg"],
    )


_VERSION = 2
_MEMBERS = ("content", "acknowledgement", "share", "ownerId", "claim", "permissions", "ephemeralKeys")


@frozen(kw_only=True)
class KeyRecord:
    """A finished key generation. The same request gets the same acknowledgement again."""

    #: Hash of the request, which tells it from another under its id.
    content: bytes
    acknowledgement: Acknowledgement
    share: KeyShare = field(repr=False)
    #: An address, or ``passkey:`` and a credential id.
    owner_id: str
    #: The ephemeral key that the owner vouched for.
    claim: EphemeralClaim
    #: JSON text; None for no limits.
    permissions: str | None
    #: The ephemeral keys that may use the key.
    ephemeral_keys: EphemeralRegistry = field(factory=EphemeralRegistry)

    def encode(self) -> bytes:
        """Write the record. The bytes hold the secret share."""
        text = dump(
            {
                "version": _VERSION,
                "content": to_hex(self.content),
                "acknowledgement": to_json(self.acknowledgement),
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
        return decode_record(data, "key", _VERSION, _MEMBERS, cls._read)

    @classmethod
    def _read(cls, found: Mapping[str, Any]) -> KeyRecord:
        return cls(
            content=from_hex(found["content"], field="content", length=32, prefix=True),
            acknowledgement=Acknowledgement.read_whole(found["acknowledgement"]),
            share=KeyShare.from_dict(found["share"]),
            owner_id=found["ownerId"],
            claim=decode_claim_record(found["claim"]),
            permissions=found["permissions"],
            ephemeral_keys=EphemeralRegistry.from_json(found["ephemeralKeys"]),
        )


class KeyRing:
    """A node's finished key generations, in memory for quick answers and in the store for the next start."""

    def __init__(self, store: ShareStore) -> None:
        self._store = store
        self._by_request: dict[RequestId, KeyRecord] = {}
        self._by_key: dict[MpcKeyId, KeyRecord] = {}

    def __len__(self) -> int:
        return len(self._by_request)

    def load(self) -> None:
        for data in read_all(self._store, ""):
            self._remember(KeyRecord.decode(data))

    def put(self, record: KeyRecord) -> None:
        """Keep a record in the place of an earlier one, durably before it can be found. Blocks."""
        self._store.put(record.acknowledgement.request_id.removeprefix("0x"), record.encode())
        self._remember(record)

    def by_request(self, request_id: RequestId) -> KeyRecord | None:
        return self._by_request.get(request_id)

    def by_key(self, key_id: MpcKeyId) -> KeyRecord | None:
        return self._by_key.get(key_id)

    def get(self, key_id: MpcKeyId) -> KeyRecord:
        """Return a key's record, or refuse the request."""
        record = self._by_key.get(key_id)
        if record is None:
            raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key")
        return record

    def _remember(self, record: KeyRecord) -> None:
        self._by_request[record.acknowledgement.request_id] = record
        self._by_key[record.acknowledgement.key_id] = record

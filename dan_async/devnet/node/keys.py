"""The keys that a node holds shares of: its record of each, and which ephemeral keys may use it."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from attrs import evolve, field, frozen

from dan_async._json import dump
from dan_async.devnet.mpc.dkg import KeyShare, read_share
from dan_async.devnet.node.rpc import RefusalError
from dan_async.devnet.share_store import ShareStore, StoredRecord, read_all
from dan_async.errors import NodeCode
from dan_async.protocols.fields import CHECKED_BY_CLASS, HASH, Form, encode, list_of, nested, wire
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import Acknowledgement, ChangeReceipt, SignedClaims
from dan_async.protocols.setups import EphemeralClaim
from dan_async.types import MpcKeyId, RequestId

S = TypeVar("S", bound=SignedClaims[Any])

#: Most ephemeral keys that a node remembers for one key, and additions; beside these, each may be revoked.
_MOST_KEYS = 256
_MOST_ADDITIONS = 1024


def signed(kind: type[S]) -> Form[S]:
    """The form of claims that are read together with their signature."""
    return Form(lambda _, value: kind.read_whole(value), encode)


#: As its owner signs it in revision 1.
_CLAIM = Form(lambda _, value: REVISION_1.decode_claim(dump(value)), REVISION_1.encode_claim)
_SHARE = Form(read_share, encode)

#: The node wrote it and sealed it, so nobody else can have changed it.
_AS_STORED: Form[Any] = Form(lambda _, value: value)


@frozen(kw_only=True)
class RegisteredKey:
    """One ephemeral key: what the owner vouched for last, and whether the owner took it back."""

    claim: Annotated[EphemeralClaim, wire("claim", _CLAIM)]
    is_revoked: Annotated[bool, wire("revoked", CHECKED_BY_CLASS)] = field(default=False, converter=bool)


@frozen(kw_only=True)
class AppliedChange:
    """A change that was made: the hash of its request, and the receipt that was given for it."""

    content: Annotated[bytes, wire("content", HASH)]
    receipt: Annotated[ChangeReceipt, wire("receipt", signed(ChangeReceipt))]

    @property
    def eph_id(self) -> str:
        return self.receipt.claims.eph_id

    @property
    def is_revocation(self) -> bool:
        return self.receipt.claims.operation == "revokeEphemeralKey"


@frozen
class EphemeralRegistry:
    """
    The ephemeral keys of one key. A change makes a new registry, which is stored before anyone hears of it.

    None is ever forgotten, and one that was revoked stays so. So no revocation need be refused: beside each key there is
    room for it, and an ephemeral key that is unknown to a full registry can never get into it.
    """

    keys: Annotated[
        tuple[RegisteredKey, ...], wire("keys", list_of(nested(RegisteredKey), 0, _MOST_KEYS))
    ] = ()
    changes: Annotated[
        tuple[AppliedChange, ...],
        wire("changes", list_of(nested(AppliedChange), 0, _MOST_ADDITIONS + _MOST_KEYS)),
    ] = ()

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
        if [change for change in self.changes if change.eph_id == done.eph_id][-1] is not done:
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
        is_full = len(others) >= _MOST_KEYS
        change = AppliedChange(content=content, receipt=receipt)
        changes = tuple(c for c in self.changes if not (c.is_revocation and c.eph_id == claim.eph_id))
        if change.is_revocation and is_full:
            return self
        if not change.is_revocation:
            if known is not None and known.is_revoked:
                raise RefusalError(
                    NodeCode.REQUEST_CONFLICT, "the ephemeral key was revoked, which is for good"
                )
            if is_full or sum(not c.is_revocation for c in changes) >= _MOST_ADDITIONS:
                raise RefusalError(NodeCode.UNSUPPORTED, "the key has had too many ephemeral keys")
        made = RegisteredKey(claim=claim, is_revoked=change.is_revocation)
        return evolve(self, keys=(*others, made), changes=(*changes, change))


@frozen(kw_only=True)
class KeyRecord(StoredRecord):
    """A finished key generation. The same request gets the same acknowledgement again."""

    KIND = "key"
    VERSION = 3

    #: Hash of the request, which tells it from another under its id.
    content: Annotated[bytes, wire("content", HASH)]
    acknowledgement: Annotated[Acknowledgement, wire("acknowledgement", signed(Acknowledgement))]
    share: Annotated[KeyShare, wire("share", _SHARE)] = field(repr=False)
    #: An address, or ``passkey:`` and a credential id.
    owner_id: Annotated[str, wire("ownerId", _AS_STORED)]
    #: The ephemeral key that the owner vouched for.
    claim: Annotated[EphemeralClaim, wire("claim", _CLAIM)]
    #: JSON text; None for no limits.
    permissions: Annotated[str | None, wire("permissions", _AS_STORED)]
    #: The ephemeral keys that may use the key.
    ephemeral_keys: Annotated[EphemeralRegistry, wire("ephemeralKeys", nested(EphemeralRegistry))] = field(
        factory=EphemeralRegistry
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

    def put(self, *records: KeyRecord) -> None:
        """Keep records, each in the place of an earlier one, durably before they can be found. Blocks."""
        named = {r.acknowledgement.request_id.removeprefix("0x"): r.encode() for r in records}
        self._store.put_all(named)
        for record in records:
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

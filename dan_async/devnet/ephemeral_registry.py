"""Which ephemeral keys may use a key: what the owner added, until it expires or is revoked."""

from __future__ import annotations

from attrs import evolve, frozen

from dan_async._hex import from_hex, to_hex
from dan_async.devnet.rpc_errors import RefusalError
from dan_async.errors import NodeCode
from dan_async.models.claim import EphemeralClaim
from dan_async.models.ephemeral_key_change import ChangeReceipt
from dan_async.types import Json, RequestId
from dan_async.wire.members import members
from dan_async.wire.node_receipts import decode_receipt, encode_receipt

__all__ = [
    "AppliedChange",
    "EphemeralRegistry",
    "RegisteredKey",
    "decode_claim_record",
    "encode_claim_record",
]

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
    """
    The ephemeral keys of one key. Immutable: a change gives a new registry, which is stored before anyone hears of it.

    Args:
        keys: The ephemeral keys, each id once.
        changes: The changes that were made, oldest first.
    """

    keys: tuple[RegisteredKey, ...] = ()
    changes: tuple[AppliedChange, ...] = ()

    def find(self, eph_id: str) -> RegisteredKey | None:
        """Give the ephemeral key of that name."""
        return next((key for key in self.keys if key.claim.eph_id == eph_id), None)

    def check_usable(self, eph_id: str, eph_pk: bytes, now: float) -> RegisteredKey:
        """
        Give an ephemeral key that may use the key now.

        Raises:
            RefusalError: ``EPHEMERAL_KEY_REFUSED``: it is unknown, revoked or expired; ``data.reason`` says which.
        """
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
        """
        Give the receipt of a change that was made before, as long as nothing later undid it.

        Raises:
            RefusalError: ``REQUEST_CONFLICT``: the id is known with other content, or the change was superseded.
        """
        done = next((change for change in self.changes if change.receipt.request_id == request_id), None)
        if done is None:
            return None
        if done.content != content:
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the request id is known with other content")
        last = [change for change in self.changes if change.receipt.eph_id == done.receipt.eph_id][-1]
        if last is not done:
            raise RefusalError(
                NodeCode.REQUEST_CONFLICT, "a later change of the same ephemeral key superseded it"
            )
        return done.receipt

    def changed(self, claim: EphemeralClaim, content: bytes, receipt: ChangeReceipt) -> EphemeralRegistry:
        """
        Make a change.

        A revoked key that was never added is remembered all the same, so that an addition still under way comes too late.

        Raises:
            RefusalError: ``REQUEST_CONFLICT`` if the name belongs to another public key, ``UNSUPPORTED`` if the key has
                had too many.
        """
        known = self.find(claim.eph_id)
        if known is not None and known.claim.eph_pk != claim.eph_pk:
            raise RefusalError(NodeCode.REQUEST_CONFLICT, "the ephemeral id belongs to another public key")
        others = tuple(key for key in self.keys if key.claim.eph_id != claim.eph_id)
        if len(others) >= _MOST_KEYS or len(self.changes) >= _MOST_CHANGES:
            raise RefusalError(NodeCode.UNSUPPORTED, "the key has had too many ephemeral keys")
        made = RegisteredKey(claim=claim, is_revoked=receipt.operation == "revokeEphemeralKey")
        return evolve(
            self,
            keys=(*others, made),
            changes=(*self.changes, AppliedChange(content=content, receipt=receipt)),
        )

    def to_json(self) -> Json:
        """Give the registry as JSON members."""
        return {
            "keys": [{"claim": encode_claim_record(k.claim), "revoked": k.is_revoked} for k in self.keys],
            "changes": [
                {"content": to_hex(c.content), "receipt": encode_receipt(c.receipt)} for c in self.changes
            ],
        }

    @classmethod
    def from_json(cls, value: Json) -> EphemeralRegistry:
        """
        Read what ``to_json`` gave.

        Raises:
            DanError: It is not that.
        """
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
                    receipt=decode_receipt(change["receipt"]),
                )
                for change in changes
            ),
        )


def encode_claim_record(claim: EphemeralClaim) -> Json:
    """Give a claim as JSON members."""
    return {
        "ephId": claim.eph_id,
        "ephPK": to_hex(claim.eph_pk),
        "expiry": claim.expiry,
        "signAlg": claim.sign_alg,
    }


def decode_claim_record(value: Json) -> EphemeralClaim:
    """
    Read what ``encode_claim_record`` gave.

    Raises:
        InvalidFieldError: It is not that.
    """
    found = members(value, "claim", _CLAIM_MEMBERS)
    return EphemeralClaim(
        eph_id=found["ephId"],
        eph_pk=from_hex(found["ephPK"], field="ephPK", prefix=True),
        expiry=found["expiry"],
        sign_alg=found["signAlg"],
    )

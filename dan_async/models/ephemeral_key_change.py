"""Adding an ephemeral key to a key, or revoking one."""

from __future__ import annotations

from typing import Literal

from attrs import field, frozen

from dan_async.models._fields import check_text, required
from dan_async.models.claim import EphemeralClaim
from dan_async.models.threshold import Threshold
from dan_async.types import MpcKeyId, OperatorAddress, RequestId


@frozen(kw_only=True)
class EphemeralKeyChange:
    """
    One change, independent of the network that carries it out.

    Args:
        request_id: Names it on every node; the same over all attempts.
        action: What to do.
        key_id: The key it is about.
        owner_id: Whose key it is: the EOA's address, or the passkey's credential id.
        claim: The ephemeral key that is added or revoked.
        threshold: t and n of the key, if known.
    """

    request_id: RequestId
    action: Literal["add", "revoke"]
    key_id: MpcKeyId = field(validator=required(check_text, most=256))
    owner_id: str = field(validator=required(check_text))
    claim: EphemeralClaim
    threshold: Threshold | None = None


@frozen(kw_only=True)
class ChangeReceipt:
    """
    A node's signed statement that it has made the change (docs/node-protocol.md, "Receipt").

    Args:
        request_id: The request it answers.
        operation: ``addEphemeralKey`` or ``revokeEphemeralKey``.
        operator: The node that says so.
        key_id: The key.
        eph_id: The ephemeral key's name.
        threshold: t and n of the key.
        signature: The operator's 65-byte signature over the hash of all of the above.
    """

    request_id: RequestId
    operation: str
    operator: OperatorAddress
    key_id: MpcKeyId
    eph_id: str
    threshold: Threshold
    signature: bytes


@frozen(kw_only=True)
class EphemeralKeyReport:
    """
    A finished change.

    Args:
        request_id: The request it answers.
        confirmed_by: The operators that signed for it; empty for a gateway, which does not say.
        failures: What the other nodes answered, one line each.
    """

    request_id: RequestId
    confirmed_by: tuple[OperatorAddress, ...] = ()
    failures: tuple[str, ...] = ()

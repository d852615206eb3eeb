"""Asking for a key, and what came of it."""

from __future__ import annotations

from attrs import field, frozen

from dan_async.models._fields import check_int, check_text, optional, required
from dan_async.models.claim import EphemeralClaim
from dan_async.models.outcome import NodeOutcome
from dan_async.models.threshold import Threshold
from dan_async.types import MpcKeyId, RequestId


@frozen(kw_only=True)
class KeygenRequest:
    """
    One key generation, independent of the network that runs it.

    Args:
        request_id: Names it on every node; the same over all attempts.
        owner_id: Who owns the key: the EOA's address, or the passkey's credential id.
        threshold: t and n.
        claim: The ephemeral key the owner vouches for.
        permissions: JSON text that limits what the key may sign, or None for no limits.
        key_label: A label the network may keep with the key.
        min_parties: The smallest number of parties to accept, t to n; n if None.
    """

    request_id: RequestId
    owner_id: str = field(validator=required(check_text))
    threshold: Threshold
    claim: EphemeralClaim
    permissions: str | None = field(default=None, validator=optional(check_text, most=64 * 1024))
    key_label: str | None = field(default=None, validator=optional(check_text, most=256))
    min_parties: int | None = None

    def __attrs_post_init__(self) -> None:
        if self.min_parties is not None:
            check_int("min_parties", self.min_parties, least=self.threshold.t, most=self.threshold.n)


@frozen(kw_only=True)
class KeygenReport:
    """
    A finished key generation.

    Args:
        request_id: The request it answers.
        key_id: The MPC key id.
        public_key: The distributed public key: 33 bytes, compressed.
        threshold: t and n as they came to be; n is smaller than asked only if ``min_parties`` allowed it.
        outcomes: What every node that was asked answered; empty for a gateway, which does not say.
    """

    request_id: RequestId
    key_id: MpcKeyId
    public_key: bytes
    threshold: Threshold
    outcomes: tuple[NodeOutcome, ...] = ()

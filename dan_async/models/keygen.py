"""Asking for a key, and what came of it."""

from __future__ import annotations

from typing import Any

from attrs import field, frozen

from dan_async.errors import NodeOutcome
from dan_async.models._fields import check_int, check_text, optional, required
from dan_async.models.acknowledgement import Acknowledgement
from dan_async.models.claim import EphemeralClaim
from dan_async.models.threshold import Threshold
from dan_async.types import MpcKeyId, OperatorAddress, RequestId


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
        allow_resign: Whether a person may be asked to sign again when key generation failed after the first signature.
    """

    request_id: RequestId
    owner_id: str = field(validator=required(check_text))
    threshold: Threshold
    claim: EphemeralClaim
    permissions: str | None = field(default=None, validator=optional(check_text, most=64 * 1024))
    key_label: str | None = field(default=None, validator=optional(check_text, most=256))
    min_parties: int | None = None
    allow_resign: bool = False

    def __attrs_post_init__(self) -> None:
        if self.min_parties is not None:
            check_int("min_parties", self.min_parties, least=self.threshold.t, most=self.threshold.n)


@frozen(kw_only=True)
class KeygenTimings:
    """
    Where the time of a key generation went, in seconds.

    Args:
        challenge_s: Until enough nodes were ready.
        wallet_s: Until the owner had signed.
        keygen_s: From sending the authorised request to the verdict: the key generation itself and its acknowledgements.
        total_s: Everything, earlier rounds that were given up included.
    """

    challenge_s: float = 0.0
    wallet_s: float = 0.0
    keygen_s: float = 0.0
    total_s: float = 0.0


@frozen(kw_only=True)
class KeygenReport:
    """
    A finished key generation.

    Args:
        request_id: The request it answers.
        key_id: The MPC key id.
        public_key: The distributed public key: 33 bytes, compressed.
        threshold: t and n as they came to be; n is smaller than asked only if ``min_parties`` allowed it.
        outcomes: What every participant answered; empty for a gateway, which does not say. One that had not answered yet
            when the verdict was clear has neither acknowledgement nor error: as a rule it holds a share as well.
        replaced: What became of the nodes that were asked and do not take part: too late, or failed, at the challenge or
            in a round that was given up.
        culprits: Whom most of the other nodes blamed for rounds that were given up.
        restarts: How many rounds were given up after the owner had signed.
        timings: Where the time went.
    """

    request_id: RequestId
    key_id: MpcKeyId
    public_key: bytes
    threshold: Threshold
    outcomes: tuple[NodeOutcome[Acknowledgement], ...] = ()
    replaced: tuple[NodeOutcome[Any], ...] = ()
    culprits: tuple[OperatorAddress, ...] = ()
    restarts: int = 0
    timings: KeygenTimings = KeygenTimings()

    @property
    def holders(self) -> tuple[OperatorAddress, ...]:
        """The operators that acknowledged: each is known to hold a share."""
        return tuple(outcome.operator for outcome in self.outcomes if outcome.is_success)

    def describe(self) -> str:
        """Several lines for a log or a screen; nothing in them is secret."""
        timings = self.timings
        steps = f"challenge {timings.challenge_s:.2f} s, wallet {timings.wallet_s:.2f} s, keygen {timings.keygen_s:.2f} s"
        lines = [
            f"key {self.key_id}: {self.threshold}, {len(self.holders)} nodes acknowledged, {self.restarts} restarts",
            f"  {timings.total_s:.2f} s: {steps}",
        ]
        lines += [f"  blamed by most of the others: node {culprit}" for culprit in self.culprits]
        lines += [f"  {outcome.describe()}" for outcome in self.outcomes]
        lines += [f"  replaced: {outcome.describe()}" for outcome in self.replaced]
        return "\n".join(lines)

"""A node's signed statement that it holds a share of the key."""

from __future__ import annotations

from attrs import frozen

from dan_async.models.threshold import Threshold
from dan_async.types import MpcKeyId, OperatorAddress, RequestId


@frozen(kw_only=True)
class Acknowledgement:
    """
    What a node says after key generation (docs/node-protocol.md, "Acknowledgement").

    Args:
        request_id: The request it answers.
        operator: The node that says so.
        party_index: Its index, 1 to n: its place among the participants.
        key_id: The key's id, a hash that the client computes again.
        public_key: The distributed public key, 33 bytes.
        public_shares: Every participant's public share, 33 bytes each, in the order of the participants.
        threshold: t and n.
        participants: The operators of all parties, ascending.
        transcript_hash: Hash over the whole key generation, equal on every honest node.
        signature: The operator's 65-byte signature (r, s, v) over the hash of all of the above.
    """

    request_id: RequestId
    operator: OperatorAddress
    party_index: int
    key_id: MpcKeyId
    public_key: bytes
    public_shares: tuple[bytes, ...]
    threshold: Threshold
    participants: tuple[OperatorAddress, ...]
    transcript_hash: bytes
    signature: bytes

    @property
    def public_share(self) -> bytes:
        """The node's own public share."""
        return self.public_shares[self.party_index - 1]

    @property
    def summary(self) -> str:
        """What it says, in a few words."""
        return f"acknowledged key {self.key_id[:8]}…"

    @property
    def claims(self) -> tuple[object, ...]:
        """The fields on which agreeing nodes agree: everything but who says it."""
        return (
            self.request_id,
            self.key_id,
            self.public_key,
            self.public_shares,
            self.threshold,
            self.participants,
            self.transcript_hash,
        )

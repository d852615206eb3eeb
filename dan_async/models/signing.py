"""What a node gives for a signature: a presignature that it made with others, and later its share of the signature."""

from __future__ import annotations

from attrs import field, frozen

from dan_async.types import MpcKeyId, OperatorAddress, RequestId


@frozen(kw_only=True)
class PresignatureOffer:
    """
    What a signer says of a presignature (docs/node-protocol.md, "dan_presign"). Honest signers say the same.

    Args:
        presignature_id: 32 bytes by which its signers know it, bound to the nonce point.
        nonce_point: R, 33 bytes.
        public_key: The key that it is for, 33 bytes.
        expires_at: When the nodes throw it away, in Unix seconds.
    """

    presignature_id: bytes
    nonce_point: bytes
    public_key: bytes
    expires_at: int


@frozen(kw_only=True)
class SignatureShare:
    """
    One signer's part of one signature: s = Σw / Σu over all signers.

    Args:
        presignature_id: The presignature that it spent, 32 bytes.
        nonce_point: R, 33 bytes.
        digest: What it signed, 32 bytes.
        u: Its share of the denominator, from 0 to the group order - 1.
        w: Its share of the numerator, likewise.
    """

    presignature_id: bytes
    nonce_point: bytes
    digest: bytes
    u: int = field(repr=False)
    w: int = field(repr=False)


@frozen(kw_only=True)
class SignatureShares:
    """
    A node's signed answer to a signing request (docs/node-protocol.md, "Signature shares").

    Args:
        request_id: The request that it answers.
        operator: The node that says so.
        party_index: Its place among the key's participants, 1 to n.
        key_id: The key.
        public_key: The key itself, 33 bytes.
        shares: One for each message, in their order.
        signature: The operator's 65-byte signature over the hash of all of the above.
    """

    request_id: RequestId
    operator: OperatorAddress
    party_index: int
    key_id: MpcKeyId
    public_key: bytes
    shares: tuple[SignatureShare, ...]
    signature: bytes

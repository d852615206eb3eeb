"""
Shares of a signature into the signature (docs/node-protocol.md, "Putting the shares together").

Follows the last step of DKLs23 (ePrint 2023/765, Protocol 3.6): s = Σw / Σu. Pure, and nothing leaves here that does not
recover to the key: a wrong share spoils the signature, and nothing shows whose it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import HALF_ORDER, ORDER
from dan_async.crypto.signature import recover_public_key
from dan_async.errors import AcknowledgementError, DanError, SignatureCheckError
from dan_async.protocols.node import SignatureShare, SignatureShares
from dan_async.types import Address, MpcKeyId, OperatorAddress, RequestId


@frozen(kw_only=True)
class ExpectedShares:
    """The request, key, digests and presignatures that every signer's answer must be about."""

    request_id: RequestId
    key_id: MpcKeyId
    digests: tuple[bytes, ...]
    presignature_ids: tuple[bytes, ...] | None  # one for each digest; None if the nodes choose
    address: Address | None  # None if it is not known beforehand

    def check(self, operator: OperatorAddress, shares: SignatureShares) -> None:
        """Check one signer's answer by itself. Whether its numbers are right shows only when all are put together."""
        problem = self._problem(operator, shares)
        if problem:
            raise AcknowledgementError(
                f"the signature share does not count: {problem}",
                hint="The node is faulty or dishonest; tell its operator",
                node=operator,
                request_id=self.request_id,
            )

    def _problem(self, operator: OperatorAddress, shares: SignatureShares) -> str:
        claims = shares.claims
        if (claims.request_id, claims.key_id) != (self.request_id, self.key_id):
            return "it is for another request or key"
        if tuple([share.digest for share in claims.shares]) != self.digests:
            return "it is for another message"
        spent = tuple([share.presignature_id for share in claims.shares])
        if self.presignature_ids is not None and spent != self.presignature_ids:
            return "it is from another presignature"
        if self.address is not None and _address_of(claims.public_key) != self.address:
            return "it is of another public key"
        if shares.operator != operator or shares.signer(self.request_id) != operator:
            return "it is not signed by the node's operator"
        return ""


def join_shares(answers: Sequence[SignatureShares]) -> tuple[bytes, ...]:
    """
    Put the answers of all t signers together, each of which ``ExpectedShares.check`` has passed.

    For each message 65 bytes r, s (low), v (27 or 28), which recover to the key; else it is a SignatureCheckError.
    """
    facts = {(answer.claims.public_key, len(answer.claims.shares)) for answer in answers}
    if len(facts) != 1 or len({answer.party_index for answer in answers}) != len(answers):
        raise _spoilt()
    public_key = answers[0].claims.public_key
    rows = zip(*[answer.claims.shares for answer in answers], strict=True)
    return tuple([combine_shares(row, public_key=public_key) for row in rows])


def combine_shares(shares: Sequence[SignatureShare], *, public_key: bytes) -> bytes:
    """Make one signature, 65 bytes r, s, v, of every signer's share; raise a SignatureCheckError if they make none."""
    first = shares[0]
    if len({(share.presignature_id, share.nonce_point, share.digest) for share in shares}) != 1:
        raise _spoilt()
    denominator = sum([share.u for share in shares]) % ORDER
    if not denominator:
        raise _spoilt()
    s = sum([share.w for share in shares]) * pow(denominator, -1, ORDER) % ORDER
    odd = first.nonce_point[0] & 1
    if s > HALF_ORDER:  # -s belongs to -R, whose y has the other parity
        s, odd = ORDER - s, odd ^ 1
    signature = first.nonce_point[1:] + s.to_bytes(32, "big") + bytes((27 + odd,))
    try:
        holds = recover_public_key(first.digest, signature) == public_key
    except DanError:
        holds = False
    if not holds:
        raise _spoilt()
    return signature


def _spoilt() -> SignatureCheckError:
    return SignatureCheckError(
        "the nodes' shares make no signature of the key",
        hint="At least one of these nodes is faulty or dishonest; others may do better",
        phase="signing",
    )


def _address_of(public_key: bytes) -> str | None:
    try:
        return public_key_to_address(public_key)
    except DanError:
        return None

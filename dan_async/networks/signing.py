"""What is asked of a network that is to sign, the same for both networks."""

from __future__ import annotations

from attrs import field, frozen

from dan_async._hex import to_hex
from dan_async.crypto.signature import parse_signature, recover_address
from dan_async.errors import DanError, InvalidFieldError, SignatureCheckError
from dan_async.models._fields import check_int, check_seconds, check_text, required
from dan_async.models.claim import EphemeralClaim
from dan_async.types import Address, Hex, MpcKeyId
from dan_async.wire.sign_request import SignRequest

__all__ = ["SigningOptions", "SigningOrder"]

#: Most presignatures that are kept for one key and set of signers: Groth and Shoup (EUROCRYPT 2022, section 6) show what
#: many at a time cost in security margin.
MAX_STOCK = 8


@frozen(kw_only=True)
class SigningOptions:
    """
    How a ``NodeNetwork`` signs.

    Args:
        stock: How many presignatures to have made ahead for a session that signs again and again, so that a signature is
            one round trip: 0 (never) to 8. The first signature of a session fetches none ahead.
        stock_s: Seconds for which a presignature is kept; the nodes keep it 60 seconds as a rule.

    Raises:
        InvalidFieldError: A value is out of range.
    """

    stock: int = field(default=2, validator=required(check_int, least=0, most=MAX_STOCK))
    stock_s: float = field(default=45.0, validator=required(check_seconds, most=300.0))


@frozen(kw_only=True)
class SigningOrder:
    """
    Messages that one session has signed, with one key.

    Args:
        key_id: The key.
        address: Its address, to which every signature must recover.
        t: How many nodes must sign.
        claim: The ephemeral key that asks, and its expiry as far as it is known.
        owner_id: The owner's address, which gateway revision 0.1 names.
        requests: The messages.
        digests: What gets signed of each, 32 bytes.
    """

    key_id: MpcKeyId = field(validator=required(check_text, most=256))
    address: Address
    t: int
    claim: EphemeralClaim
    owner_id: str | None
    requests: tuple[SignRequest, ...]
    digests: tuple[bytes, ...]

    def __attrs_post_init__(self) -> None:
        if not self.requests or len(self.requests) != len(self.digests):
            raise InvalidFieldError("requests", "must be at least one, each with its digest")

    def check(self, signatures: tuple[bytes, ...]) -> tuple[Hex, ...]:
        """
        Check that every signature recovers to the key's address over its digest.

        Returns:
            The signatures as 0x hex, r, s and v, with low s.

        Raises:
            SignatureCheckError: One does not; none is given then.
        """
        if len(signatures) != len(self.digests):
            raise _mismatch(self.address)
        found = []
        for signature, digest in zip(signatures, self.digests, strict=True):
            try:
                low = parse_signature(signature)
                holds = recover_address(digest, low) == self.address
            except DanError:
                raise _mismatch(self.address) from None
            if not holds:
                raise _mismatch(self.address)
            found.append(to_hex(low))
        return tuple(found)


def _mismatch(address: Address) -> SignatureCheckError:
    return SignatureCheckError(
        f"the network's signature does not recover to the session's address {address}; it is withheld",
        hint="The network signed with another key or another message. Suspect the gateway or the nodes",
        phase="signing",
    )

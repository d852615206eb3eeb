"""What the owner vouches for: this ephemeral key, until that time."""

from __future__ import annotations

from attrs import field, frozen

from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_algorithm, check_int, check_text, required
from dan_async.types import KeyAlgorithm

_KEY_LENGTHS = {"ed25519": (32,), "secp256k1": (65,)}


@frozen(kw_only=True)
class EphemeralClaim:
    """
    The ephemeral claim: metadata tag 2 of every setup, and the credentials of every authentication.

    Args:
        eph_id: The name under which the nodes register the ephemeral key.
        eph_pk: The public key: 32 bytes for ed25519, 65 bytes uncompressed for secp256k1.
        expiry: When it ends, in Unix seconds.
        sign_alg: Its algorithm. Only revision 1 puts it on the wire; before, it is ed25519.

    Raises:
        InvalidFieldError: A field is out of range.
    """

    eph_id: str = field(validator=required(check_text, most=256))
    eph_pk: bytes = field()
    expiry: int = field(validator=required(check_int, least=0, most=2**53 - 1))
    sign_alg: KeyAlgorithm = field(validator=required(check_algorithm))

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.eph_pk, bytes) or len(self.eph_pk) not in _KEY_LENGTHS[self.sign_alg]:
            raise InvalidFieldError("eph_pk", f"is not a public key for {self.sign_alg}")
        if self.sign_alg == "secp256k1" and self.eph_pk[0] != 4:
            raise InvalidFieldError("eph_pk", "must be uncompressed: 65 bytes that begin with 04")

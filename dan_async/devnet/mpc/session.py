"""What all parties of one key generation agree on beforehand, and who signed what in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import field, frozen

from dan_async._hex import from_hex
from dan_async.crypto.address import parse_address
from dan_async.crypto.signature import parse_signature, recover_address
from dan_async.devnet.mpc.hashing import tagged_hash, u32
from dan_async.errors import InvalidFieldError
from dan_async.models.threshold import Threshold
from dan_async.types import OperatorAddress

SESSION_ID_BYTES = 32


def _check_session_id(_: Any, __: Any, value: Any) -> None:
    if not isinstance(value, bytes) or len(value) != SESSION_ID_BYTES:
        raise InvalidFieldError("session_id", f"must be {SESSION_ID_BYTES} bytes")


def _checksummed(identities: Iterable[str]) -> tuple[OperatorAddress, ...]:
    return tuple(OperatorAddress(parse_address("identities", identity)) for identity in identities)


@frozen(kw_only=True)
class Session:
    """
    What all parties of one key generation agree on beforehand.

    Args:
        session_id: 32 bytes, never used twice.
        threshold: t and n.
        identities: The addresses of the parties' identity keys, in the order of their indices 1 to n.

    Raises:
        InvalidFieldError: The session id is not 32 bytes, an identity is no address or appears twice, or there are not
            exactly n of them.
    """

    session_id: bytes = field(validator=_check_session_id)
    threshold: Threshold
    identities: tuple[OperatorAddress, ...] = field(converter=_checksummed)
    #: H("dan-dkg/1 context", session id, t, n, each identity): in every hash, proof and signature of the session.
    context: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if len(self.identities) != self.threshold.n:
            raise InvalidFieldError("identities", f"must be {self.threshold.n}, one for each party")
        if len(set(self.identities)) != len(self.identities):
            raise InvalidFieldError("identities", "must differ from each other")
        raw = (from_hex(identity, field="identities") for identity in self.identities)
        context = tagged_hash(
            "dan-dkg/1 context", self.session_id, u32(self.threshold.t), u32(self.threshold.n), *raw
        )
        object.__setattr__(self, "context", context)

    def is_signed_by(self, index: int, digest: bytes, signature: bytes) -> bool:
        """
        Tell whether a party signed a digest.

        Args:
            index: The party's index; nobody has signed for an index outside of 1 to n.
            digest: 32 bytes.
            signature: 65 bytes. Only the canonical form (low s, v 27 or 28) counts, so that a signature has one form.
        """
        if not 1 <= index <= self.threshold.n:
            return False
        try:
            canonical = parse_signature(signature)
            signer = OperatorAddress(recover_address(digest, canonical))
        except InvalidFieldError:
            return False
        return signature == canonical and signer == self.identities[index - 1]

"""A party's kept share of the key. Public shares are checked in ``dkg``, and by clients in nodes/acknowledgements.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from dan_async._values import check_int, from_hex, to_hex
from dan_async.config import MAX_PARTIES, Threshold
from dan_async.crypto.curve import ORDER, base_multiply, decode, encode
from dan_async.crypto.hashes import DIGEST_BYTES
from dan_async.devnet.mpc.field import scalar_from_bytes, scalar_to_bytes
from dan_async.devnet.mpc.framing import check_members
from dan_async.errors import InvalidFieldError

_MEMBERS = ("index", "t", "n", "secretShare", "publicKey", "publicShares", "transcriptHash")


@frozen(kw_only=True)
class KeyShare:
    """A party's share of a distributed key, and its public side."""

    #: 1 to n.
    index: int = field()
    threshold: Threshold
    #: x_i = f(index), a share of the private key f(0).
    secret_share: int = field(repr=lambda _: "***")
    #: f(0)·G, and f(i)·G of every party in the order of indices; 33 bytes each.
    public_key: bytes
    public_shares: tuple[bytes, ...]
    #: All parties signed it at the end of key generation.
    transcript_hash: bytes

    def __attrs_post_init__(self) -> None:
        check_int("index", self.index, least=1, most=self.threshold.n)
        if not 0 < self.secret_share < ORDER:
            raise InvalidFieldError("secretShare", "must be from 1 to the group order - 1")
        if len(self.public_shares) != self.threshold.n:
            raise InvalidFieldError("publicShares", "must be one for each party")
        if len(self.transcript_hash) != DIGEST_BYTES:
            raise InvalidFieldError("transcriptHash", f"must hold {DIGEST_BYTES} bytes")

    @property
    def public_share(self) -> bytes:
        return self.public_shares[self.index - 1]

    def to_dict(self) -> dict[str, Any]:
        """Return the share as JSON members. They hold the secret: encrypt them before they touch a disk."""
        return {
            "index": self.index,
            "t": self.threshold.t,
            "n": self.threshold.n,
            "secretShare": to_hex(scalar_to_bytes(self.secret_share)),
            "publicKey": to_hex(self.public_key),
            "publicShares": [to_hex(share) for share in self.public_shares],
            "transcriptHash": to_hex(self.transcript_hash),
        }

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> KeyShare:
        """Read a share back, strictly: points on the curve, and the secret share that belongs to the public one."""
        check_members(members, "key share", _MEMBERS)
        public_shares = members["publicShares"]
        if not isinstance(public_shares, list) or len(public_shares) > MAX_PARTIES:
            raise InvalidFieldError("publicShares", f"must be a list of at most {MAX_PARTIES} entries")
        share = cls(
            index=members["index"],
            threshold=Threshold(members["t"], members["n"]),
            secret_share=scalar_from_bytes(
                "secretShare", from_hex(members["secretShare"], field="secretShare")
            ),
            public_key=_point(members["publicKey"], "publicKey"),
            public_shares=tuple(_point(entry, "publicShares") for entry in public_shares),
            transcript_hash=from_hex(members["transcriptHash"], field="transcriptHash", length=DIGEST_BYTES),
        )
        if encode(base_multiply(share.secret_share)) != share.public_share:
            raise InvalidFieldError("secretShare", "does not belong to the party's public share")
        return share


def _point(text: object, name: str) -> bytes:
    return encode(decode(from_hex(text, field=name), field=name))

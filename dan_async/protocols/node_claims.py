"""
dan-node/1: signed claims (docs/node-protocol.md), by which nodes acknowledge keys and confirm changes.

A node writes its claims as one text and signs that very text. Nodes that agree write the same text, so a client compares
texts, reads one of them, and believes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, ClassVar, Generic, Self, TypeVar, cast

from attrs import evolve, field, frozen

from dan_async.config import MAX_PARTIES, Threshold
from dan_async.crypto.hashes import tagged_hash, u32
from dan_async.crypto.signature import recover_address
from dan_async.errors import DanError, InvalidFieldError
from dan_async.protocols.fields import (
    ADDRESS,
    HASH,
    KEY_ID,
    POINT,
    REQUEST_ID,
    SIGNATURE,
    decode_canonical,
    encode,
    list_of,
    nested,
    number,
    operators,
    string,
    wire,
)
from dan_async.protocols.node import MOST_RESTARTS, SETTLE_KEYGEN, Result, malformed, raw
from dan_async.types import Json, MpcKeyId, OperatorAddress, RequestId

#: Longest text of claims, in characters.
_MOST_CLAIMS = 256 * 1024


@frozen(kw_only=True)
class Claims:
    """The statement of a node; nodes that agree write the same text of it."""

    request_id: Annotated[RequestId, wire("requestId", REQUEST_ID)]


C = TypeVar("C", bound=Claims)


@frozen(kw_only=True)
class SignedClaims(Result, Generic[C]):
    """
    Claims as their one text, signed by a node's operator.

    Its signature is over the text as it came, so it can be checked before the text is read, and texts can be compared.
    """

    #: The class of the claims, C.
    CLAIMS: ClassVar[type[Claims]]
    #: Names the kind of claims, in the hash that the operator signs.
    TAG: ClassVar[str]

    text: Annotated[str, wire("claims", string(_MOST_CLAIMS))] = field(repr=False)
    operator: Annotated[OperatorAddress, wire("operator", ADDRESS)]
    #: The node's place among the participants of the request, 1 to n; of the key, for signatures.
    party_index: Annotated[int, wire("partyIndex", number(1, MAX_PARTIES))]
    #: 65 bytes over ``digest``.
    signature: Annotated[bytes, wire("signature", SIGNATURE)]

    @cached_property
    def claims(self) -> C:
        """The claims, read when they are first asked for; ``NodeProtocolError`` if they are malformed."""
        try:
            return cast("C", decode_canonical(self.CLAIMS, self.text, "claims"))
        except InvalidFieldError as error:
            raise malformed(self.TITLE, error) from error

    @classmethod
    def read_whole(cls, value: Json) -> Self:
        """Read it together with its claims; see ``read``."""
        found = cls.read(value)
        _ = found.claims  # raises if they are malformed
        return found

    @classmethod
    def make(
        cls,
        claims: Claims,
        *,
        operator: OperatorAddress,
        party_index: int,
        sign: Callable[[bytes], bytes],
    ) -> Self:
        """Write claims and have the operator sign them."""
        unsigned = cls(text=encode(claims), operator=operator, party_index=party_index, signature=b"")
        return evolve(unsigned, signature=sign(unsigned.digest(claims.request_id)))

    def share_claims(self, other: Self) -> None:
        """Spare this one reading its text: *other* has the very same, and has read it."""
        assert self.text == other.text
        object.__setattr__(self, "claims", other.claims)  # as cached_property does

    def digest(self, request_id: RequestId) -> bytes:
        """H(tag, request id, operator, party index, the claims' text): signed by the operator."""
        return tagged_hash(
            self.TAG, raw(request_id), raw(self.operator), u32(self.party_index), self.text.encode()
        )

    def signer(self, request_id: RequestId) -> str | None:
        """Return the address that signed this for a request; None if the signature is malformed."""
        try:
            return recover_address(self.digest(request_id), self.signature)
        except DanError:
            return None

    def problem(self, *, request_id: RequestId, operator: OperatorAddress, party_index: int | None) -> str:
        """Return why this is not that node's word on that request; empty if it is."""
        if self.operator != operator:
            return f"it speaks for another operator, {self.operator}"
        if self.party_index != party_index:
            return f"it claims index {self.party_index}, which is not the node's"
        signer = self.signer(request_id)
        if signer is None:
            return "its signature is malformed"
        return "" if signer == operator else "it is not signed by the node's operator"


@frozen(kw_only=True)
class KeyClaims(Claims):
    """Claims about a key that t of n nodes hold."""

    key_id: Annotated[MpcKeyId, wire("keyId", KEY_ID)]
    t: Annotated[int, wire("t", number(2, MAX_PARTIES))]
    n: Annotated[int, wire("n", number(2, MAX_PARTIES))]

    def __attrs_post_init__(self) -> None:
        _ = self.threshold  # raises if t is more than n

    @property
    def threshold(self) -> Threshold:
        return Threshold(self.t, self.n)


@frozen(kw_only=True)
class KeygenClaims(KeyClaims):
    """A key as the nodes that made it describe it."""

    public_key: Annotated[bytes, wire("publicKey", POINT)]
    #: Every participant's public share, in the order of the participants.
    public_shares: Annotated[tuple[bytes, ...], wire("publicShares", list_of(POINT, 1, MAX_PARTIES))]
    participants: Annotated[tuple[OperatorAddress, ...], wire("participants", operators(1, MAX_PARTIES))]
    #: Hash over the whole key generation, equal on every honest node.
    transcript_hash: Annotated[bytes, wire("transcriptHash", HASH)]

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if len(self.public_shares) != len(self.participants):
            raise InvalidFieldError("publicShares", "must be one for each participant")


@frozen(kw_only=True)
class Acknowledgement(SignedClaims[KeygenClaims]):
    """
    A node's signed statement that it holds a share of a key: the result of ``dan_keygen``.

    The properties of the key read the claims, and raise ``NodeProtocolError`` if those are malformed. An acknowledgement
    that a key generation reports was checked.
    """

    TITLE = "the acknowledgement"
    TAG = "dan-node/1 acknowledgement"
    CLAIMS = KeygenClaims

    @property
    def summary(self) -> str:
        """Its statement, in a few words."""
        return f"acknowledged key {self.claims.key_id[:8]}…"

    @property
    def request_id(self) -> RequestId:
        return self.claims.request_id

    @property
    def key_id(self) -> MpcKeyId:
        """The key's id, a hash that the client computes again."""
        return self.claims.key_id

    @property
    def public_key(self) -> bytes:
        """The distributed public key, 33 bytes."""
        return self.claims.public_key

    @property
    def public_shares(self) -> tuple[bytes, ...]:
        return self.claims.public_shares

    @property
    def public_share(self) -> bytes:
        """The node's own public share."""
        if self.party_index > len(self.public_shares):
            raise malformed(self.TITLE, InvalidFieldError("partyIndex", "is more than n"))
        return self.claims.public_shares[self.party_index - 1]

    @property
    def threshold(self) -> Threshold:
        return self.claims.threshold

    @property
    def participants(self) -> tuple[OperatorAddress, ...]:
        return self.claims.participants

    @property
    def transcript_hash(self) -> bytes:
        return self.claims.transcript_hash


@frozen(kw_only=True)
class Settlement(Result):
    """Result of ``dan_settle_keygen``: at most one acknowledgement for each id."""

    TITLE = f"the result of {SETTLE_KEYGEN}"

    acknowledgements: Annotated[
        tuple[Acknowledgement, ...],
        wire("acknowledgements", list_of(nested(Acknowledgement), 0, MOST_RESTARTS + 1)),
    ]

    @classmethod
    def read(cls, value: Json) -> Self:
        """Read it, and the claims of each acknowledgement; see ``Result.read``."""
        found = super().read(value)
        for acknowledgement in found.acknowledgements:
            _ = acknowledgement.claims  # raises if they are malformed
        return found


@frozen(kw_only=True)
class ChangeClaims(KeyClaims):
    """An ephemeral key that was added to a key, or revoked."""

    operation: Annotated[str, wire("operation", string(32))]
    eph_id: Annotated[str, wire("ephId", string(256))]


@frozen(kw_only=True)
class ChangeReceipt(SignedClaims[ChangeClaims]):
    """A node's signed statement that it has added or revoked an ephemeral key."""

    TITLE = "the receipt"
    TAG = "dan-node/1 receipt"
    CLAIMS = ChangeClaims


@frozen(kw_only=True)
class PasskeyClaims(Claims):
    """A passkey that was registered (docs/passkeys.md, "On the nodes")."""

    credential_id: Annotated[str, wire("credentialId", string(1400))]


@frozen(kw_only=True)
class PasskeyReceipt(SignedClaims[PasskeyClaims]):
    """A node's signed statement that it knows a passkey from now on."""

    TITLE = "the receipt"
    TAG = "dan-node/1 passkey receipt"
    CLAIMS = PasskeyClaims

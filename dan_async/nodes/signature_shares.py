"""
Shares of a signature into the signature (docs/reference/node-protocol.md, "Putting the shares together").

Follows the last step of DKLs23 (ePrint 2023/765, Protocol 3.6): s = Σw / Σu. Pure, and nothing leaves here that does not
recover to the key. Where the shares make no signature, each is checked by its commitments: at least one node is a liar, or
two contradict each other, one of which is.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from operator import attrgetter

from attrs import field, frozen

from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import (
    HALF_ORDER,
    ORDER,
    Point,
    add,
    base_multiply,
    decode,
    negate,
    weighted_sum,
)
from dan_async.crypto.signature import recover_public_key
from dan_async.errors import AcknowledgementError, DanError, InvalidFieldError, SignatureCheckError
from dan_async.nodes.blame import Conflict, disagreeing
from dan_async.protocols.node import (
    PresignatureOffer,
    SignatureClaims,
    SignatureShare,
    SignatureShares,
    commitments_hash,
    nonce_shift,
    proof_challenge,
    shift_nonce,
)
from dan_async.types import Address, MpcKeyId, OperatorAddress, RequestId

#: Of a signer's commitments: a point, and the proof that follows all of them.
_POINT_BYTES, _PROOF_BYTES = 33, 64

#: What each signer offered of one presignature.
Offers = Mapping[OperatorAddress, PresignatureOffer]

#: What honest signers say alike, of a presignature and of a share.
_OFFERED = attrgetter("presignature_id", "nonce_point", "public_key")
_SHARED = attrgetter("presignature_id", "nonce_point", "digest")

_DIGEST, _INDEX = attrgetter("digest"), attrgetter("party_index")

#: P and Q of one signer for each other.
_Terms = dict[OperatorAddress, tuple[Point, Point]]


class SpoiltSharesError(SignatureCheckError):
    """
    The nodes' shares make no signature, or their presignature is none.

    ``liars`` are those whose own words prove it, ``disputes`` the pairs of which one lies. No honest node is a liar, and
    unless none of the signers is honest there is a liar or a dispute.
    """

    def __init__(self, liars: Collection[OperatorAddress] = (), disputes: Iterable[Conflict] = ()) -> None:
        super().__init__(
            "the nodes' shares make no signature of the key",
            hint="At least one of these nodes is faulty or dishonest; others may do better",
            phase="signing",
        )
        self.liars = tuple(liars)
        self.disputes = set(disputes)

    def failures(self, request_id: RequestId) -> dict[OperatorAddress, DanError]:
        """Return the failure of each liar."""
        return {
            liar: _uncounted(liar, "it does not fit the node's own commitments", request_id)
            for liar in self.liars
        }


def check_offers(offers: Offers) -> None:
    """Raise a SpoiltSharesError if the signers do not offer one presignature: honest ones do."""
    _refuse_disputes(dict(zip(offers, map(_OFFERED, offers.values()), strict=True)))


@frozen(kw_only=True, eq=False, repr=False)
class ExpectedShares:
    """The request, key, digests and presignatures that every signer's answer must be about."""

    request_id: RequestId
    key_id: MpcKeyId
    digests: tuple[bytes, ...]
    presignatures: tuple[Offers, ...] | None  # one for each digest; None if the nodes choose
    address: Address | None  # None if it is not known beforehand
    _keys: set[bytes] = field(factory=set, init=False)  # public keys of that address

    def prepare(self) -> None:
        """Do while the nodes sign what need not wait for their answers. It may be left out."""
        for digest, offers in zip(self.digests, self.presignatures or (), strict=False):
            offer, signers = next(iter(offers.values())), tuple(sorted(offers, key=str.lower))
            _shifted_nonce(offer.presignature_id, offer.nonce_point, offer.public_key, digest, signers)
            self._is_of_key(offer.public_key)

    def check(self, operator: OperatorAddress, shares: SignatureShares) -> None:
        """Check one signer's answer by itself. Whether its numbers are right shows only when all are put together."""
        problem = self._problem(operator, shares)
        if problem:
            raise _uncounted(operator, problem, self.request_id)

    def _problem(self, operator: OperatorAddress, shares: SignatureShares) -> str:
        claims = shares.claims
        if (claims.request_id, claims.key_id) != (self.request_id, self.key_id):
            return "it is for another request or key"
        if tuple(map(_DIGEST, claims.shares)) != self.digests:
            return "it is for another message"
        for share, offers in zip(claims.shares, self.presignatures or (), strict=False):
            offer = offers[operator]
            if (share.presignature_id, share.nonce_point) != (offer.presignature_id, offer.nonce_point):
                return "it is from another presignature"
            if commitments_hash(share.presignature_id, share.commitments) != offer.commitment:
                return "its commitments are not those that the node made beforehand"
        if not self._is_of_key(claims.public_key):
            return "it is of another public key"
        if shares.operator != operator or shares.signer(self.request_id) != operator:
            return "it is not signed by the node's operator"
        return ""

    def _is_of_key(self, public_key: bytes) -> bool:
        if self.address is None or public_key in self._keys:
            return True
        is_right = _address_of(public_key) == self.address
        if is_right:
            self._keys.add(public_key)
        return is_right


def join_shares(answers: Sequence[SignatureShares]) -> tuple[bytes, ...]:
    """
    Put the answers of all t signers together, each of which ``ExpectedShares.check`` has passed.

    For each message 65 bytes r, s (low), v (27 or 28), which recover to the key; else it is a SpoiltSharesError.
    """
    found = {answer.operator: answer for answer in answers}
    _refuse_disputes({operator: _facts(answer.claims) for operator, answer in found.items()})
    if len(set(map(_INDEX, answers))) != len(answers):
        places = [
            (a.operator, b.operator) for a, b in combinations(answers, 2) if a.party_index == b.party_index
        ]
        raise SpoiltSharesError(disputes=map(frozenset, places))
    public_key = answers[0].claims.public_key
    return tuple(
        [
            combine_shares(
                {operator: answer.claims.shares[place] for operator, answer in found.items()},
                public_key=public_key,
            )
            for place in range(len(answers[0].claims.shares))
        ]
    )


def combine_shares(shares: Mapping[OperatorAddress, SignatureShare], *, public_key: bytes) -> bytes:
    """Make one signature, 65 bytes r, s, v, of every signer's share; raise a SpoiltSharesError if they make none."""
    whole = _Whole.of(shares, public_key)
    signature = whole.signature()
    if signature is None:
        raise whole.explain()
    return signature


@frozen(kw_only=True, eq=False, repr=False)
class _Whole:
    """The shares of one signature, of all t signers in ascending order, and its nonce."""

    shares: Mapping[OperatorAddress, SignatureShare]
    public_key: bytes
    shift: int
    #: R', None if it is none.
    nonce_point: bytes | None

    @classmethod
    def of(cls, shares: Mapping[OperatorAddress, SignatureShare], public_key: bytes) -> _Whole:
        signers = tuple(sorted(shares, key=str.lower))
        first = shares[signers[0]]
        shift, nonce_point = _shifted_nonce(
            first.presignature_id, first.nonce_point, public_key, first.digest, signers
        )
        return cls(
            shares={signer: shares[signer] for signer in signers},
            public_key=public_key,
            shift=shift,
            nonce_point=nonce_point,
        )

    @property
    def first(self) -> SignatureShare:
        return next(iter(self.shares.values()))

    def signature(self) -> bytes | None:
        numerator = denominator = 0
        for share in self.shares.values():
            numerator += share.w
            denominator += share.u
        if self.nonce_point is None or not denominator % ORDER:
            return None
        s = numerator * pow(denominator, -1, ORDER) % ORDER
        odd = self.nonce_point[0] & 1
        if s > HALF_ORDER:  # -s belongs to -R', whose y has the other parity
            s, odd = ORDER - s, odd ^ 1
        signature = self.nonce_point[1:] + s.to_bytes(32, "big") + bytes((27 + odd,))
        try:
            holds = recover_public_key(self.first.digest, signature) == self.public_key
        except DanError:
            holds = False
        return signature if holds else None

    # --- who is wrong, where there is no signature ----------------------------------------------------------------------

    def explain(self) -> SpoiltSharesError:
        """Find the liars and the disputes."""
        if self.nonce_point is None:
            return SpoiltSharesError()
        found = {signer: self._check(signer, share) for signer, share in self.shares.items()}
        terms = {signer: said for signer, said in found.items() if said is not None}
        return SpoiltSharesError(
            [signer for signer in found if signer not in terms],
            [
                frozenset((one, other))
                for one, other in combinations(terms, 2)
                if tuple(map(negate, terms[one][other])) != terms[other][one]
            ],
        )

    def _check(self, signer: OperatorAddress, share: SignatureShare) -> _Terms | None:
        """Return P and Q for each other signer; None if the share or the proof does not fit the commitments."""
        encoded, proof = share.commitments[:-_PROOF_BYTES], share.commitments[-_PROOF_BYTES:]
        others = [other for other in self.shares if other != signer]
        if len(encoded) != _POINT_BYTES * (3 + 2 * len(others)):
            return None
        try:
            points = [decode(encoded[at : at + _POINT_BYTES]) for at in range(0, len(encoded), _POINT_BYTES)]
            if not self._fits(share, points) or not self._is_proven(share, points, proof):
                return None
        except InvalidFieldError:
            return None
        return dict(zip(others, zip(points[3::2], points[4::2], strict=True), strict=True))

    def _fits(self, share: SignatureShare, points: Sequence[Point]) -> bool:
        """Return whether u·G = U + δ·Φ and w·G = h·Φ + r·V."""
        assert self.nonce_point is not None
        mask, u, v = points[:3]
        digest, r = (int.from_bytes(part, "big") for part in (share.digest, self.nonce_point[1:]))
        claims = (
            (share.u, weighted_sum([(1, u), (self.shift, mask)])),
            (share.w, weighted_sum([(digest, mask), (r, v)])),
        )
        return all(number and point and base_multiply(number) == point for number, point in claims)

    def _is_proven(self, share: SignatureShare, points: Sequence[Point], proof: bytes) -> bool:
        """Return whether the proof holds: Φ, U - ΣP and V - ΣQ are the same multiple of G, R and Y."""
        challenge, response = (int.from_bytes(part, "big") for part in (proof[:32], proof[32:]))
        statements = (
            (base_multiply(1), points[0]),
            (decode(share.nonce_point), add([points[1], *map(negate, points[3::2])])),
            (decode(self.public_key), add([points[2], *map(negate, points[4::2])])),
        )
        announcements = []
        for base, multiple in statements:
            point = multiple and weighted_sum([(response, base), (-challenge, multiple)])
            if point is None:
                return False
            announcements.append(point)
        return proof[:32] == proof_challenge(
            presignature_id=share.presignature_id,
            public_key=self.public_key,
            nonce_point=share.nonce_point,
            points=share.commitments[:-_PROOF_BYTES],
            announcements=announcements,
        )


@lru_cache(maxsize=128)  # of a call, worked out while its nodes sign
def _shifted_nonce(
    presignature_id: bytes,
    nonce_point: bytes,
    public_key: bytes,
    digest: bytes,
    signers: tuple[OperatorAddress, ...],
) -> tuple[int, bytes | None]:
    """Return δ and R', the latter None if it is none."""
    shift = nonce_shift(
        presignature_id=presignature_id, public_key=public_key, digest=digest, signers=signers
    )
    try:
        return shift, shift_nonce(nonce_point, shift)
    except InvalidFieldError:
        return shift, None


def _facts(claims: SignatureClaims) -> Hashable:
    return claims.public_key, tuple(map(_SHARED, claims.shares))


def _refuse_disputes(facts: Mapping[OperatorAddress, Hashable]) -> None:
    groups: dict[Hashable, list[OperatorAddress]] = {}
    for operator, fact in facts.items():
        groups.setdefault(fact, []).append(operator)
    if len(groups) > 1:
        raise SpoiltSharesError(disputes=disagreeing(groups.values()))


def _uncounted(operator: OperatorAddress, problem: str, request_id: RequestId) -> AcknowledgementError:
    return AcknowledgementError(
        f"the signature share does not count: {problem}",
        hint="The node is faulty or dishonest; tell its operator",
        node=operator,
        request_id=request_id,
    )


def _address_of(public_key: bytes) -> str | None:
    try:
        return public_key_to_address(public_key)
    except DanError:
        return None

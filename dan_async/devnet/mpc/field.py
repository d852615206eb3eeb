"""
Scalars modulo the order of secp256k1, and polynomials over them (Shamir, "How to share a secret", CACM 1979).

Python's integers do not compute in constant time. Nodes of the devnet that could time each other to the nanosecond could
learn about scalars that way; the devnet is for development and says so.

Feldman's commitments: a polynomial's coefficients in the exponent.

P. Feldman, "A practical scheme for non-interactive verifiable secret sharing", FOCS 1987, section 4. Whoever holds
``F_k = f_k·G`` for every coefficient can check that a share is ``f(i)``. The commitments bind unconditionally and show
``f(0)·G``, which is what a public key is for.

Proof of possession: a Schnorr proof of knowledge of a discrete logarithm.

C. P. Schnorr, "Efficient signature generation by smart cards", J. Cryptology 4 (1991), section 2, made non-interactive
with the Fiat-Shamir transform. In key generation it is what stops a rogue key: a party whose contribution is computed
from the others' (``-ΣF_j + d·G``) does not know its logarithm and cannot give the proof (Ristenpart and Yilek,
EUROCRYPT 2007, section 4). Sound in the random-oracle model under the discrete-logarithm assumption, by rewinding.

Shares of zero: random numbers, one at each party, that add up to 0.

The functionality of DKLs23 (ePrint 2023/765, section 3, Functionality 3.4), from a seed that each pair of parties has in
common: one of the two adds a hash of it, the other takes it away. With two honest parties in the group, each of their
shares is uniform to everybody else, in the random-oracle model. Used to make the parties' shares of the key fresh in each
signature; no interaction, so nothing to check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen

from dan_async.crypto.curve import ORDER, Point, add, base_multiply, decode, encode, multiply
from dan_async.crypto.hashes import tagged_hash
from dan_async.errors import InvalidFieldError


def hash_to_scalar(tag: str, *parts: bytes) -> int:
    """
    Give H(tag, part, …) as a scalar.

    The group order lies within 2^129 of 2^256, so that reducing 256 bits is 2^-127 close to uniform.
    """
    return int.from_bytes(tagged_hash(tag, *parts), "big") % ORDER


#: Gives that many random bytes.
Entropy = Callable[[int], bytes]

SCALAR_BYTES = 32

#: Drawn for each random scalar: 128 bits more than the order has, so that the remainder is 2^-128 close to uniform.
_WIDE_BYTES = 48


def random_scalar(entropy: Entropy) -> int:
    """Draw a scalar uniformly from 1 to ORDER - 1."""
    return int.from_bytes(entropy(_WIDE_BYTES), "big") % (ORDER - 1) + 1


def scalar_to_bytes(scalar: int) -> bytes:
    """Give a scalar as 32 bytes, big-endian."""
    return scalar.to_bytes(SCALAR_BYTES, "big")


def scalar_from_bytes(field_name: str, data: bytes) -> int:
    """
    Read a scalar from 32 bytes.

    Args:
        field_name: Its name, for the error.
        data: The bytes, big-endian.

    Raises:
        InvalidFieldError: It is not 32 bytes long, or not below the group order: each scalar has one encoding.
    """
    if len(data) != SCALAR_BYTES:
        raise InvalidFieldError(field_name, f"must hold {SCALAR_BYTES} bytes, not {len(data)}")
    scalar = int.from_bytes(data, "big")
    if scalar >= ORDER:
        raise InvalidFieldError(field_name, "must be below the group order")
    return scalar


@frozen(repr=False)
class Polynomial:
    """
    A polynomial over the scalars; its coefficients are secret and its repr does not show them.

    Args:
        coefficients: From the constant term upwards.
    """

    coefficients: tuple[int, ...] = field()

    def __repr__(self) -> str:
        return f"Polynomial(degree={self.degree}, coefficients=***)"

    @classmethod
    def random(cls, degree: int, entropy: Entropy) -> Polynomial:
        """Draw a polynomial of exactly that degree, with no coefficient zero (a commitment to zero has no encoding)."""
        return cls(tuple(random_scalar(entropy) for _ in range(degree + 1)))

    @property
    def degree(self) -> int:
        """The degree."""
        return len(self.coefficients) - 1

    def evaluate(self, at: int) -> int:
        """Give the value at a point, by Horner's rule."""
        value = 0
        for coefficient in reversed(self.coefficients):
            value = (value * at + coefficient) % ORDER
        return value


#: The commitments to one polynomial, constant term first.
CommitmentVector = tuple[Point, ...]


def commit(polynomial: Polynomial) -> CommitmentVector:
    """Commit to every coefficient, constant term first."""
    return tuple(base_multiply(coefficient) for coefficient in polynomial.coefficients)


def evaluate_in_exponent(commitments: Sequence[Point], at: int) -> Point | None:
    """
    Give ``f(at)·G`` from the commitments to f, by Horner's rule: every multiplication is by the small number ``at``.

    Args:
        commitments: Constant term first.
        at: A party index, 1 or more.

    Returns:
        The point; None for the point at infinity.
    """
    value: Point | None = commitments[-1]
    for commitment in reversed(commitments[:-1]):
        value = (
            add([multiply(value, at) if at > 1 else value, commitment]) if value is not None else commitment
        )
    return value


def share_matches(commitments: Sequence[Point], index: int, share: int) -> bool:
    """Tell whether ``share`` is the committed polynomial's value at ``index``: share·G = Σ index^k·F_k."""
    return share != 0 and base_multiply(share) == evaluate_in_exponent(commitments, index)


def add_commitments(vectors: Sequence[CommitmentVector]) -> CommitmentVector | None:
    """
    Commit to the sum of polynomials of one degree.

    Returns:
        The sums, constant term first; None if one of them is the point at infinity.
    """
    sums = [add(column) for column in zip(*vectors, strict=True)]
    found = tuple(point for point in sums if point is not None)
    return found if len(found) == len(sums) else None


POINT_BYTES = 33

PROOF_BYTES = POINT_BYTES + 32

_TAG = "dan-dkg/1 proof of possession"


def _challenge(context: bytes, public: Point, nonce_point: bytes) -> int:
    return hash_to_scalar(_TAG, context, encode(public), nonce_point)


def prove(secret: int, public: Point, *, context: bytes, entropy: Entropy) -> bytes:
    """
    Prove knowledge of ``secret``.

    Args:
        secret: The discrete logarithm of ``public``.
        public: ``secret·G``.
        context: What the proof is bound to; it holds in no other context.
        entropy: Source of the nonce.

    Returns:
        65 bytes: the nonce point, compressed, then the response.
    """
    nonce = random_scalar(entropy)
    nonce_point = encode(base_multiply(nonce))
    response = (nonce + _challenge(context, public, nonce_point) * secret) % ORDER
    return nonce_point + scalar_to_bytes(response)


def is_valid_proof(proof: bytes, public: Point, *, context: bytes) -> bool:
    """
    Check a proof of knowledge of the discrete logarithm of ``public``: s·G = R + c·P.

    Args:
        proof: 65 bytes, as ``prove`` gives.
        public: The point.
        context: What the proof must be bound to.

    Returns:
        Whether it holds. Malformed proofs do not.
    """
    try:
        nonce_point = decode(proof[:POINT_BYTES])
        response = scalar_from_bytes("response", proof[POINT_BYTES:])
    except InvalidFieldError:
        return False
    challenge = _challenge(context, public, proof[:POINT_BYTES])
    expected = add([nonce_point, multiply(public, challenge)])
    return response != 0 and expected is not None and base_multiply(response) == expected


def zero_share(index: int, seeds: Mapping[int, bytes], context: bytes) -> int:
    """
    Give this party's share.

    Args:
        index: This party's index.
        seeds: The seed in common with each of the other parties of the group, and with nobody else.
        context: What names the group and the occasion; the same at all of them.
    """
    share = 0
    for other, seed in seeds.items():
        term = hash_to_scalar("dan-ecdsa/1 zero share", context, seed)
        share += term if index < other else -term
    return share % ORDER

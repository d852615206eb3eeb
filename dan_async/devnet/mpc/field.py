"""
Scalars modulo the order of secp256k1, and the building blocks made of scalars and points.

* Polynomials that share a secret: A. Shamir, "How to share a secret", CACM 22 (1979).
* Commitments to their coefficients, ``F_k = f_k·G``: P. Feldman, "A practical scheme for non-interactive verifiable secret
  sharing", FOCS 1987, section 4. Anybody can check a share; they bind unconditionally, and show the public key.
* Proofs of possession: C. P. Schnorr, "Efficient signature generation by smart cards", J. Cryptology 4 (1991), section 2,
  with Fiat-Shamir. They stop a rogue key, computed from the others' (Ristenpart and Yilek, EUROCRYPT 2007, section 4).
  Sound in the random-oracle model under the discrete-logarithm assumption, by rewinding.
* Shares of zero: DKLs23 (ePrint 2023/765), section 3, Functionality 3.4, from a seed that each pair of parties has in
  common. With two honest parties, each of their shares is uniform to everybody else, in the random-oracle model.

Python's integers do not compute in constant time: nodes that could time each other to the nanosecond could learn about
scalars that way. The devnet is for development and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from dan_async.crypto.curve import ORDER, Point, add, base_multiply, decode, encode, multiply
from dan_async.crypto.hashes import tagged_hash
from dan_async.devnet.mpc.framing import POINT_BYTES, SCALAR_BYTES
from dan_async.errors import InvalidFieldError

#: Returns that many random bytes.
Entropy = Callable[[int], bytes]

#: Drawn for each random scalar: 128 bits more than the order has, so that the remainder is 2^-128 close to uniform.
_WIDE_BYTES = 48

#: A proof's length: the nonce point, compressed, then the response.
PROOF_BYTES = POINT_BYTES + SCALAR_BYTES

#: The commitments to one polynomial, constant term first.
CommitmentVector = tuple[Point, ...]


# --- scalars ----------------------------------------------------------------------------------------------------------


def random_scalar(entropy: Entropy) -> int:
    """Draw a scalar uniformly from 1 to ORDER - 1."""
    return int.from_bytes(entropy(_WIDE_BYTES), "big") % (ORDER - 1) + 1


def scalar_to_bytes(scalar: int) -> bytes:
    return scalar.to_bytes(SCALAR_BYTES, "big")


def scalar_from_bytes(name: str, data: bytes) -> int:
    """Read a scalar; raise InvalidFieldError unless it is the one encoding of one: 32 bytes, below the order."""
    if len(data) != SCALAR_BYTES:
        raise InvalidFieldError(name, f"must hold {SCALAR_BYTES} bytes, not {len(data)}")
    scalar = int.from_bytes(data, "big")
    if scalar >= ORDER:
        raise InvalidFieldError(name, "must be below the group order")
    return scalar


def hash_to_scalar(tag: str, *parts: bytes) -> int:
    """Return H(tag, part, …) as a scalar: the order lies within 2^129 of 2^256, so it is 2^-127 close to uniform."""
    return int.from_bytes(tagged_hash(tag, *parts), "big") % ORDER


# --- polynomials and commitments to them ------------------------------------------------------------------------------


@frozen(repr=False)
class Polynomial:
    """A polynomial over the scalars, constant term first; its coefficients are secret."""

    coefficients: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Polynomial(degree={self.degree}, coefficients=***)"

    @classmethod
    def random(cls, degree: int, entropy: Entropy) -> Polynomial:
        """Draw a polynomial of exactly that degree, with no coefficient zero (a commitment to zero has no encoding)."""
        return cls(tuple(random_scalar(entropy) for _ in range(degree + 1)))

    @property
    def degree(self) -> int:
        return len(self.coefficients) - 1

    def evaluate(self, at: int) -> int:
        value = 0
        for coefficient in reversed(self.coefficients):
            value = (value * at + coefficient) % ORDER
        return value


def commit(polynomial: Polynomial) -> CommitmentVector:
    return tuple(base_multiply(coefficient) for coefficient in polynomial.coefficients)


def evaluate_in_exponent(commitments: Sequence[Point], at: int) -> Point | None:
    """Return ``f(at)·G`` by Horner's rule, None for infinity; ``at`` is small, which makes each multiplication quick."""
    value: Point | None = commitments[-1]
    for commitment in reversed(commitments[:-1]):
        value = (
            add([multiply(value, at) if at > 1 else value, commitment]) if value is not None else commitment
        )
    return value


def share_matches(commitments: Sequence[Point], index: int, share: int) -> bool:
    """Return whether the share is the committed polynomial's value at an index: share·G = Σ index^k·F_k."""
    expected = evaluate_in_exponent(commitments, index)
    return share != 0 and expected is not None and base_multiply(share) == expected


def add_commitments(vectors: Sequence[CommitmentVector]) -> CommitmentVector | None:
    """Commit to the sum of polynomials of one degree; None if one of the sums is the point at infinity."""
    sums = [add(column) for column in zip(*vectors, strict=True)]
    found = tuple(point for point in sums if point is not None)
    return found if len(found) == len(sums) else None


# --- proofs of possession ---------------------------------------------------------------------------------------------


def _challenge(context: bytes, public: Point, nonce_point: bytes) -> int:
    return hash_to_scalar("dan-dkg/1 proof of possession", context, encode(public), nonce_point)


def prove(secret: int, public: Point, *, context: bytes, entropy: Entropy) -> bytes:
    """Prove knowledge of the discrete logarithm of ``public``; the proof holds in no other context."""
    nonce = random_scalar(entropy)
    nonce_point = encode(base_multiply(nonce))
    response = (nonce + _challenge(context, public, nonce_point) * secret) % ORDER
    return nonce_point + scalar_to_bytes(response)


def is_valid_proof(proof: bytes, public: Point, *, context: bytes) -> bool:
    """Return whether a proof holds, s·G = R + c·P; a malformed one does not."""
    try:
        nonce_point = decode(proof[:POINT_BYTES])
        response = scalar_from_bytes("response", proof[POINT_BYTES:])
    except InvalidFieldError:
        return False
    challenge = _challenge(context, public, proof[:POINT_BYTES])
    expected = add([nonce_point, multiply(public, challenge)])
    return response != 0 and expected is not None and base_multiply(response) == expected


# --- shares of zero ---------------------------------------------------------------------------------------------------


def zero_shares(index: int, seeds: Mapping[int, bytes], context: bytes) -> dict[int, int]:
    """Return the parts whose sum is this party's share of zero, by the party that has the same with the other sign."""
    terms = {other: hash_to_scalar("dan-ecdsa/1 zero share", context, seed) for other, seed in seeds.items()}
    return {other: (term if index < other else -term) % ORDER for other, term in terms.items()}

"""
Proof of possession: a Schnorr proof of knowledge of a discrete logarithm.

C. P. Schnorr, "Efficient signature generation by smart cards", J. Cryptology 4 (1991), section 2, made non-interactive
with the Fiat-Shamir transform. In key generation it is what stops a rogue key: a party whose contribution is computed
from the others' (``-ΣF_j + d·G``) does not know its logarithm and cannot give the proof (Ristenpart and Yilek,
EUROCRYPT 2007, section 4). Sound in the random-oracle model under the discrete-logarithm assumption, by rewinding.
"""

from __future__ import annotations

from dan_async.crypto.point import ORDER, Point, add, base_multiply, decode, encode, multiply
from dan_async.devnet.mpc.field import Entropy, random_scalar, scalar_from_bytes, scalar_to_bytes
from dan_async.devnet.mpc.hashing import hash_to_scalar
from dan_async.errors import InvalidFieldError

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

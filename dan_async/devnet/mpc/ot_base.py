"""
Base oblivious transfer: 128 transfers of random 16-byte seeds, one of each two, once for each direction of a pair.

"Verified simplest OT" of DKLs18 (ePrint 2018/499, section VI.A and Protocol 7): the "simplest OT" of Chou and Orlandi
(LATINCRYPT 2015, section 3) with what it lacked. The sender proves that it knows its key (Schnorr); every pad is hashed
with session, position, key and the receiver's point; and a challenge, response and opening make each side show that it
computed its pads, so that a simulator can tell the receiver's choices.

Adversary: static, malicious, either side, in the random-oracle model under the computational Diffie-Hellman assumption.
A malicious sender may guess choice bits: a right guess goes unnoticed, a wrong one aborts. The functionality with this
selective failure is enough for the extension (DKLs18, section VI.B), since the choices of an aborted run are thrown away.

Four messages to and fro, each for all 128 transfers: ``start``, ``choose``, ``challenge``, ``respond``, ``open``,
``finish``. Multiplications of libsecp256k1 by points other than G do not take constant time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from dan_async.crypto.point import Point, add, base_multiply, decode, encode, multiply, negate
from dan_async.devnet.mpc.field import Entropy, random_scalar
from dan_async.devnet.mpc.hashing import tagged_hash
from dan_async.devnet.mpc.pair_abort import PairAbort, PairReason
from dan_async.devnet.mpc.schnorr import POINT_BYTES, PROOF_BYTES, is_valid_proof, prove
from dan_async.errors import InvalidFieldError

#: Transfers in one run: the computational security parameter, λc.
TRANSFERS = 128

SEED_BYTES = 16
_HASH_BYTES = 32

#: Lengths of the messages.
START_BYTES = POINT_BYTES + PROOF_BYTES
CHOICE_BYTES = TRANSFERS * POINT_BYTES
CHALLENGE_BYTES = TRANSFERS * _HASH_BYTES
RESPONSE_BYTES = TRANSFERS * _HASH_BYTES
OPENING_BYTES = 2 * TRANSFERS * _HASH_BYTES


class _Hashes:
    """The hashes of one run, bound to its session, to the sender's key and to the position of a transfer."""

    def __init__(self, context: bytes, sender_key: bytes) -> None:
        self._prefix = tagged_hash("dan-ecdsa/1 ot", context, sender_key)

    def _hash(self, kind: bytes, position: int, data: bytes) -> bytes:
        # All parts before the last have fixed lengths, so that no two inputs run together.
        return hashlib.sha256(self._prefix + kind + position.to_bytes(2, "big") + data).digest()

    def pad(self, position: int, choice: bytes, shared: Point) -> bytes:
        """Give the pad: H(receiver's point, shared point)."""
        return self._hash(b"p", position, choice + encode(shared))

    def once(self, position: int, pad: bytes) -> bytes:
        """Give H(pad), which is revealed at the end."""
        return self._hash(b"1", position, pad)

    def twice(self, position: int, once: bytes) -> bytes:
        """Give H(H(pad)), which the challenge is made of."""
        return self._hash(b"2", position, once)

    def seed(self, position: int, pad: bytes) -> bytes:
        """What the transfer is for; independent of all that is revealed."""
        return self._hash(b"s", position, pad)[:SEED_BYTES]


def _proof_context(context: bytes) -> bytes:
    return tagged_hash("dan-ecdsa/1 ot proof", context)


def _split(message: bytes, length: int, part: int) -> list[bytes]:
    if not isinstance(message, bytes) or len(message) != length:
        raise PairAbort(PairReason.MALFORMED_MESSAGE)
    return [message[i : i + part] for i in range(0, length, part)]


def _point(data: bytes) -> Point:
    try:
        return decode(data)
    except InvalidFieldError:
        raise PairAbort(PairReason.MALFORMED_MESSAGE) from None


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


class OtBaseSender:
    """
    The side that ends with both seeds of each transfer.

    Args:
        context: 32 bytes that name session, pair and direction.
        entropy: Source of randomness.
    """

    def __init__(self, context: bytes, entropy: Entropy) -> None:
        self._context, self._entropy = context, entropy
        self._secret = random_scalar(entropy)
        self._key = base_multiply(self._secret)
        self._hashes = _Hashes(context, encode(self._key))
        self._pads: list[tuple[bytes, bytes]] = []
        self._expected: list[bytes] = []
        self._openings: list[bytes] = []

    def start(self) -> bytes:
        """Give the key A = a·G and the proof that a is known."""
        proof = prove(self._secret, self._key, context=_proof_context(self._context), entropy=self._entropy)
        return encode(self._key) + proof

    def challenge(self, choices: bytes) -> bytes:
        """
        Compute both pads of each transfer, H(a·B) and H(a·(B - A)), and challenge the receiver to know one of them.

        Args:
            choices: The receiver's points B.

        Returns:
            H(H(pad 0)) xor H(H(pad 1)) of each transfer.

        Raises:
            PairAbort: The points are malformed.
        """
        challenges = []
        minus_shared_key = negate(multiply(self._key, self._secret))
        for position, choice in enumerate(_split(choices, CHOICE_BYTES, POINT_BYTES)):
            shared = multiply(_point(choice), self._secret)
            other = add([shared, minus_shared_key])
            if other is None:  # B = A: the other pad would be known to everybody
                raise PairAbort(PairReason.MALFORMED_MESSAGE)
            pads = self._hashes.pad(position, choice, shared), self._hashes.pad(position, choice, other)
            once = [self._hashes.once(position, pad) for pad in pads]
            twice = [self._hashes.twice(position, value) for value in once]
            self._pads.append(pads)
            self._openings += once
            self._expected.append(twice[0])
            challenges.append(_xor(*twice))
        return b"".join(challenges)

    def open(self, responses: bytes) -> bytes:
        """
        Check that the receiver knows its pads, and show that the challenge was made of the very pads in use.

        Args:
            responses: H(H(pad 0)) of each transfer, which the receiver can compute from either pad and the challenge.

        Returns:
            H(pad 0) and H(pad 1) of each transfer.

        Raises:
            PairAbort: A response is wrong.
        """
        if _split(responses, RESPONSE_BYTES, _HASH_BYTES) != self._expected:
            raise PairAbort(PairReason.OT_RESPONSE)
        return b"".join(self._openings)

    def seeds(self) -> tuple[tuple[bytes, bytes], ...]:
        """Give both seeds of each transfer; only after ``open``."""
        return tuple(
            (self._hashes.seed(position, zero), self._hashes.seed(position, one))
            for position, (zero, one) in enumerate(self._pads)
        )


class OtBaseReceiver:
    """
    The side that ends with one seed of each transfer, without the sender's knowing which.

    Args:
        context: As the sender's.
        choices: 128 bits: bit i chooses in transfer i.
        entropy: Source of randomness.
    """

    def __init__(self, context: bytes, choices: int, entropy: Entropy) -> None:
        self._context, self._entropy = context, entropy
        self._choices = choices
        self._hashes = _Hashes(context, b"")
        self._pads: list[bytes] = []
        self._challenges: list[bytes] = []

    def _bits(self) -> Iterator[tuple[int, int]]:
        return ((position, self._choices >> position & 1) for position in range(TRANSFERS))

    def choose(self, start: bytes) -> bytes:
        """
        Choose: B = b·G + c·A in each transfer, and compute the pad H(b·A).

        Args:
            start: The sender's key and proof.

        Returns:
            The points B.

        Raises:
            PairAbort: The key is malformed, or its proof does not hold.
        """
        _split(start, START_BYTES, START_BYTES)
        key = _point(start[:POINT_BYTES])
        if not is_valid_proof(start[POINT_BYTES:], key, context=_proof_context(self._context)):
            raise PairAbort(PairReason.OT_PROOF)
        self._hashes = _Hashes(self._context, start[:POINT_BYTES])
        points = []
        for position, bit in self._bits():
            secret = random_scalar(self._entropy)
            zero = base_multiply(secret)
            one = add([zero, key])
            if one is None:  # b = -a: never by chance
                raise PairAbort(PairReason.MALFORMED_MESSAGE)
            point = encode((zero, one)[bit])  # both are computed, whichever is sent
            self._pads.append(self._hashes.pad(position, point, multiply(key, secret)))
            points.append(point)
        return b"".join(points)

    def respond(self, challenges: bytes) -> bytes:
        """
        Answer the challenge: H(H(pad)) xor c·challenge, which is H(H(pad 0)) either way.

        Raises:
            PairAbort: The challenge is malformed.
        """
        self._challenges = _split(challenges, CHALLENGE_BYTES, _HASH_BYTES)
        responses = []
        for position, bit in self._bits():
            twice = self._hashes.twice(position, self._hashes.once(position, self._pads[position]))
            responses.append((twice, _xor(twice, self._challenges[position]))[bit])
        return b"".join(responses)

    def finish(self, openings: bytes) -> tuple[bytes, ...]:
        """
        Check that the challenge was made of H(pad 0) and H(pad 1), one of them being this side's own.

        Args:
            openings: H(pad 0) and H(pad 1) of each transfer.

        Returns:
            The chosen seed of each transfer.

        Raises:
            PairAbort: The openings do not fit.
        """
        opened = _split(openings, OPENING_BYTES, _HASH_BYTES)
        fits = True
        for position, bit in self._bits():
            pair: Sequence[bytes] = opened[2 * position : 2 * position + 2]
            fits &= pair[bit] == self._hashes.once(position, self._pads[position])
            twice = [self._hashes.twice(position, value) for value in pair]
            fits &= _xor(*twice) == self._challenges[position]
        if not fits:
            raise PairAbort(PairReason.OT_OPENING)
        return tuple(self._hashes.seed(position, pad) for position, pad in enumerate(self._pads))

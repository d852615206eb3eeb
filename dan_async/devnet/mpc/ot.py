"""
Oblivious transfer: 128 base transfers for each direction of a pair, once; from them 416 transfers for each multiplication.

**Base transfers** give 128 random seeds of 16 bytes, one of each two: "verified simplest OT" of DKLs18 (ePrint
2018/499, section VI.A and Protocol 7), which makes the "simplest OT" of Chou and Orlandi (LATINCRYPT 2015, section 3)
complete: the sender proves that it knows its key (Schnorr), and a challenge, response and opening make each side show
that it computed its pads. Adversary: static, malicious, either side, in the random-oracle model under the computational
Diffie-Hellman assumption. A malicious sender may guess choice bits: a right guess goes unnoticed, a wrong one aborts.
That is enough for the extension (DKLs18, section VI.B), since the choices of an aborted run are thrown away.
Multiplications of libsecp256k1 by points other than G do not take constant time.

**The extension** makes transfers of random strings from the seeds by symmetric cryptography: KOS (Keller, Orsini,
Scholl, ePrint 2015/546) in its corrected version, Fig. 10, whose consistency check is that of SoftSpokenOT (Roy, ePrint
2022/192, sections 3 and 4, here with k = 1), made non-interactive (Fiat-Shamir; DKLs23, ePrint 2023/765, section 5);
hence the field of 208 = λc + λs bits. Adversary: static, malicious, either side, in the random-oracle model. A malicious
receiver that passes the check has been consistent but for a few rows, and has guessed as many bits of the sender's Δ; it
fails with probability 1/2 for each. A failed check therefore ends the pair for good (``PairAbort.ban``). Both sides put a
fresh nonce into what they hash, in case a session id is used twice. The extension's receiver was the sender of the base
transfers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import shake_128, shake_256
from typing import Annotated, TypeVar

from attrs import field, frozen

from dan_async._values import mask_secret
from dan_async.crypto.curve import Point, add, base_multiply, decode, encode, multiply, negate
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.devnet.mpc.aborts import PairAbort, Reason
from dan_async.devnet.mpc.field import PROOF_BYTES, Entropy, is_valid_proof, prove, random_scalar
from dan_async.devnet.mpc.framing import NONCE_BYTES, POINT_BYTES, Digest, Nonce, Record, fixed
from dan_async.errors import InvalidFieldError

R = TypeVar("R", bound=Record)

#: Base transfers in one run, and rows of the extension's matrix: the computational security parameter, λc.
TRANSFERS = 128

SEED_BYTES = 16

#: Lengths of the messages of the base transfers.
START_BYTES = POINT_BYTES + PROOF_BYTES
CHOICE_BYTES = TRANSFERS * POINT_BYTES
CHALLENGE_BYTES = TRANSFERS * DIGEST_BYTES
RESPONSE_BYTES = TRANSFERS * DIGEST_BYTES
OPENING_BYTES = 2 * TRANSFERS * DIGEST_BYTES

#: Transfers in one run of the extension: κ + 2·λs, as the vector OLE needs them. 208 more choices are random and mask what
#: the check shows of the others; the last 16 bits of a row only fill it up.
BATCH = 416
ROW_BITS = 640
ROW_BYTES = ROW_BITS // 8

#: Bits of the check's field, λc + λs: its two elements come from a hash (Fiat-Shamir), so that a cheat may try 2^128 of
#: them. One given row that deviates from the others then passes with 2^-80, any of the 128 rows with 2^-73.
BLOCK_BITS = 208

#: X^208 + X^9 + X^3 + X + 1 is irreducible, so X^208 = X^9 + X^3 + X + 1.
REDUCTION = (0, 1, 3, 9)

_BLOCK_BYTES = BLOCK_BITS // 8
_MATRIX_BYTES = TRANSFERS * ROW_BYTES
_COLUMN_BYTES = TRANSFERS // 8
_WINDOW = 4

#: Length of the extension's message.
EXTENSION_BYTES = NONCE_BYTES + _MATRIX_BYTES + _BLOCK_BYTES + DIGEST_BYTES


def unpack(kind: type[R], data: bytes) -> R:
    """Read a record from the other party; a malformed one aborts without a ban."""
    try:
        return kind.unpack(data)
    except InvalidFieldError:
        raise PairAbort(Reason.MALFORMED_MESSAGE) from None


# --- base transfers ---------------------------------------------------------------------------------------------------


class _Hashes:
    """The hashes of one run, bound to its session, to the sender's key and to the position of a transfer."""

    def __init__(self, context: bytes, sender_key: bytes) -> None:
        self._prefix = tagged_hash("dan-ecdsa/1 ot", context, sender_key)

    def _hash(self, kind: bytes, position: int, data: bytes) -> bytes:
        # All parts before the last have fixed lengths, so that no two inputs run together.
        return hashlib.sha256(self._prefix + kind + position.to_bytes(2, "big") + data).digest()

    def pad(self, position: int, choice: bytes, shared: Point) -> bytes:
        return self._hash(b"p", position, choice + encode(shared))

    def once(self, position: int, pad: bytes) -> bytes:
        """Return H(pad), which is revealed at the end."""
        return self._hash(b"1", position, pad)

    def twice(self, position: int, once: bytes) -> bytes:
        """Return H(H(pad)), which the challenge is made of."""
        return self._hash(b"2", position, once)

    def seed(self, position: int, pad: bytes) -> bytes:
        """Return the seed that the transfer is for; it is independent of all that is revealed."""
        return self._hash(b"s", position, pad)[:SEED_BYTES]


def _proof_context(context: bytes) -> bytes:
    return tagged_hash("dan-ecdsa/1 ot proof", context)


def _split(message: bytes, length: int, part: int) -> list[bytes]:
    if not isinstance(message, bytes) or len(message) != length:
        raise PairAbort(Reason.MALFORMED_MESSAGE)
    return [message[i : i + part] for i in range(0, length, part)]


def _point(data: bytes) -> Point:
    try:
        return decode(data)
    except InvalidFieldError:
        raise PairAbort(Reason.MALFORMED_MESSAGE) from None


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


class OtBaseSender:
    """The side that ends with both seeds of each transfer; the context names session, pair and direction in 32 bytes."""

    def __init__(self, context: bytes, entropy: Entropy) -> None:
        self._context, self._entropy = context, entropy
        self._secret = random_scalar(entropy)
        self._key = base_multiply(self._secret)
        self._hashes = _Hashes(context, encode(self._key))
        self._pads: list[tuple[bytes, bytes]] = []
        self._expected: list[bytes] = []
        self._openings: list[bytes] = []

    def start(self) -> bytes:
        """Return the key A = a·G and the proof that a is known."""
        proof = prove(self._secret, self._key, context=_proof_context(self._context), entropy=self._entropy)
        return encode(self._key) + proof

    def challenge(self, choices: bytes) -> bytes:
        """Compute both pads, H(a·B) and H(a·(B - A)); the challenge is H(H(pad 0)) xor H(H(pad 1)) of each transfer."""
        challenges = []
        minus_shared_key = negate(multiply(self._key, self._secret))
        for position, choice in enumerate(_split(choices, CHOICE_BYTES, POINT_BYTES)):
            shared = multiply(_point(choice), self._secret)
            other = add([shared, minus_shared_key])
            if other is None:  # B = A: the other pad would be known to everybody
                raise PairAbort(Reason.MALFORMED_MESSAGE)
            pads = self._hashes.pad(position, choice, shared), self._hashes.pad(position, choice, other)
            once = [self._hashes.once(position, pad) for pad in pads]
            twice = [self._hashes.twice(position, value) for value in once]
            self._pads.append(pads)
            self._openings += once
            self._expected.append(twice[0])
            challenges.append(_xor(*twice))
        return b"".join(challenges)

    def open(self, responses: bytes) -> bytes:
        """Check that a response is H(H(pad 0)), as either pad gives it; answer H(pad 0) and H(pad 1) of each transfer."""
        if _split(responses, RESPONSE_BYTES, DIGEST_BYTES) != self._expected:
            raise PairAbort(Reason.OT_RESPONSE)
        return b"".join(self._openings)

    def seeds(self) -> tuple[tuple[bytes, bytes], ...]:
        """Return both seeds of each transfer; only after ``open``."""
        return tuple(
            (self._hashes.seed(position, zero), self._hashes.seed(position, one))
            for position, (zero, one) in enumerate(self._pads)
        )


class OtBaseReceiver:
    """The side that ends with one seed of each transfer; bit i of the 128 choices says which one of transfer i."""

    def __init__(self, context: bytes, choices: int, entropy: Entropy) -> None:
        self._context, self._entropy = context, entropy
        self._choices = choices
        self._hashes = _Hashes(context, b"")
        self._pads: list[bytes] = []
        self._challenges: list[bytes] = []

    def _bits(self) -> Iterator[tuple[int, int]]:
        return ((position, self._choices >> position & 1) for position in range(TRANSFERS))

    def choose(self, start: bytes) -> bytes:
        """Check the sender's proof, and choose: B = b·G + c·A in each transfer, whose pad is H(b·A)."""
        _split(start, START_BYTES, START_BYTES)
        key = _point(start[:POINT_BYTES])
        if not is_valid_proof(start[POINT_BYTES:], key, context=_proof_context(self._context)):
            raise PairAbort(Reason.OT_PROOF)
        self._hashes = _Hashes(self._context, start[:POINT_BYTES])
        points = []
        for position, bit in self._bits():
            secret = random_scalar(self._entropy)
            zero = base_multiply(secret)
            one = add([zero, key])
            if one is None:  # b = -a: never by chance
                raise PairAbort(Reason.MALFORMED_MESSAGE)
            point = encode((zero, one)[bit])  # both are computed, whichever is sent
            self._pads.append(self._hashes.pad(position, point, multiply(key, secret)))
            points.append(point)
        return b"".join(points)

    def respond(self, challenges: bytes) -> bytes:
        """Answer the challenge: H(H(pad)) xor c·challenge, which is H(H(pad 0)) either way."""
        self._challenges = _split(challenges, CHALLENGE_BYTES, DIGEST_BYTES)
        responses = []
        for position, bit in self._bits():
            twice = self._hashes.twice(position, self._hashes.once(position, self._pads[position]))
            responses.append((twice, _xor(twice, self._challenges[position]))[bit])
        return b"".join(responses)

    def finish(self, openings: bytes) -> tuple[bytes, ...]:
        """Check that the challenge was made of the opened hashes, one of each two known here; return the seeds."""
        opened = _split(openings, OPENING_BYTES, DIGEST_BYTES)
        fits = True
        for position, bit in self._bits():
            pair: Sequence[bytes] = opened[2 * position : 2 * position + 2]
            fits &= pair[bit] == self._hashes.once(position, self._pads[position])
            twice = [self._hashes.twice(position, value) for value in pair]
            fits &= _xor(*twice) == self._challenges[position]
        if not fits:
            raise PairAbort(Reason.OT_OPENING)
        return tuple(self._hashes.seed(position, pad) for position, pad in enumerate(self._pads))


# --- bit matrices -----------------------------------------------------------------------------------------------------
#
# A matrix of 128 rows is one large integer, so that each step works on all rows at once: row i is bits 640·i to
# 640·i + 639, bit j of a row is column j.


def repeat_row(row: int) -> int:
    return int.from_bytes(row.to_bytes(ROW_BYTES, "little") * TRANSFERS, "little")


def select_rows(selection: int) -> int:
    """Return the matrix with ones in row i where bit i is set, and zeros elsewhere."""
    rows = (b"\xff" if selection >> i & 1 else b"\0" for i in range(TRANSFERS))
    return int.from_bytes(b"".join(row * ROW_BYTES for row in rows), "little")


@cache
def _stages() -> tuple[tuple[int, int], ...]:
    """Return shift and mask of each round of swaps; a mask has the even rows and odd columns, in steps of 1 to 64."""
    stages = []
    for step in (1, 2, 4, 8, 16, 32, 64):
        columns = sum(1 << column for column in range(ROW_BITS) if column & step)
        mask = sum(columns << ROW_BITS * row for row in range(TRANSFERS) if not row & step)
        stages.append(((ROW_BITS - 1) * step, mask))
    return tuple(stages)


#: After all swaps, column j is in row j mod 128, within the block of 128 columns that it was in.
_COLUMN_STARTS = [ROW_BYTES * (j % TRANSFERS) + _COLUMN_BYTES * (j // TRANSFERS) for j in range(ROW_BITS)]


def transpose(matrix: int, columns: int) -> list[bytes]:
    """Return the first columns, 16 bytes each, by swapping ever larger blocks (Hacker's Delight, section 7-3)."""
    for shift, mask in _stages():
        swapped = (matrix >> shift ^ matrix) & mask
        matrix ^= swapped | swapped << shift
    data = matrix.to_bytes(_MATRIX_BYTES, "little")
    return [data[start : start + _COLUMN_BYTES] for start in _COLUMN_STARTS[:columns]]


# --- linear hashing over GF(2^208), for the consistency check ---------------------------------------------------------

_BLOCK = repeat_row((1 << BLOCK_BITS) - 1)


def _reduce(product: int) -> int:
    """Bring every row below degree 208, from at most 2·208 - 2. The second fold takes what the first leaves above."""
    for _ in range(2):
        high = product >> BLOCK_BITS & _BLOCK
        product &= _BLOCK
        for power in REDUCTION:
            product ^= high << power
    return product


def hash_rows(matrix: int, first: int, second: int) -> int:
    """Return each row's hash, 208 bits: first·block1 + second·block2 + block3, its first 624 bits in blocks of 208."""
    tables = []
    for block in (matrix & _BLOCK, matrix >> BLOCK_BITS & _BLOCK):
        multiples = [0]
        for power in range(_WINDOW):
            multiples += [multiple ^ block << power for multiple in multiples]
        tables.append(multiples)
    product = 0
    for power in reversed(
        range(0, BLOCK_BITS, _WINDOW)
    ):  # Horner's rule in X^4, for both products and all rows together
        product = product << _WINDOW ^ tables[0][first >> power & 15] ^ tables[1][second >> power & 15]
    return _reduce(product) ^ (matrix >> 2 * BLOCK_BITS & _BLOCK)


# --- the extension ----------------------------------------------------------------------------------------------------


@frozen
class ReceiverSeeds:
    """The receiver's side of the extension: both seeds of each base transfer."""

    pairs: tuple[tuple[bytes, bytes], ...] = field(repr=mask_secret)


@frozen
class SenderSeeds:
    """The sender's side of the extension: its choices in the base transfers, Δ, and the seeds it chose."""

    delta: int = field(repr=mask_secret)
    chosen: tuple[bytes, ...] = field(repr=mask_secret)


@frozen(repr=False)
class _Extension(Record):
    """The receiver's message: the masked matrix, the check's x, and a hash of the check's t."""

    nonce: Nonce
    matrix: Annotated[bytes, fixed(_MATRIX_BYTES)]
    check: Annotated[bytes, fixed(_BLOCK_BYTES)]
    digest: Digest


def _stretch(seeds: Iterable[bytes], salt: bytes) -> int:
    return int.from_bytes(b"".join(shake_128(seed + salt).digest(ROW_BYTES) for seed in seeds), "little")


def _salt(context: bytes, nonce: bytes) -> bytes:
    return tagged_hash("dan-ecdsa/1 ot extension", context, nonce)


def _elements(salt: bytes, matrix: bytes) -> tuple[int, int]:
    """Hash the matrix to the check's two field elements."""
    data = shake_256(tagged_hash("dan-ecdsa/1 ot extension check", salt, matrix)).digest(2 * _BLOCK_BYTES)
    return int.from_bytes(data[:_BLOCK_BYTES], "little"), int.from_bytes(data[_BLOCK_BYTES:], "little")


def _digest(salt: bytes, hashes: int) -> bytes:
    return tagged_hash("dan-ecdsa/1 ot extension rows", salt, hashes.to_bytes(_MATRIX_BYTES, "little"))


def extend(seeds: ReceiverSeeds, context: bytes, choices: int, entropy: Entropy) -> tuple[bytes, list[bytes]]:
    """Act as the receiver, bit j of whose 416 choices is for transfer j; return the message, and t_j of each, 16 bytes."""
    nonce = entropy(NONCE_BYTES)
    salt = _salt(context, nonce)
    padded = choices | int.from_bytes(entropy((ROW_BITS - BATCH) // 8), "little") << BATCH
    rows = _stretch((zero for zero, _ in seeds.pairs), salt)
    sent = rows ^ _stretch((one for _, one in seeds.pairs), salt) ^ repeat_row(padded)
    matrix = sent.to_bytes(_MATRIX_BYTES, "little")
    elements = _elements(salt, matrix)
    check = hash_rows(padded, *elements).to_bytes(_BLOCK_BYTES, "little")
    message = _Extension(nonce, matrix, check, _digest(salt, hash_rows(rows, *elements)))
    return message.pack(), transpose(rows, BATCH)


def accept(seeds: SenderSeeds, context: bytes, data: bytes) -> tuple[list[bytes], list[bytes]]:
    """Act as the sender: check the message, and return q_j and q_j xor Δ of each transfer. A failed check bans."""
    message = unpack(_Extension, data)
    salt = _salt(context, message.nonce)
    selected = select_rows(seeds.delta)
    rows = _stretch(seeds.chosen, salt) ^ int.from_bytes(message.matrix, "little") & selected
    # The receiver's t_i must be the hash of our row i, less x where Δ_i is set.
    check = int.from_bytes(message.check, "little")
    hashes = hash_rows(rows, *_elements(salt, message.matrix)) ^ repeat_row(check) & selected
    if _digest(salt, hashes) != message.digest:
        raise PairAbort(Reason.OT_EXTENSION_CHECK, ban=True)
    return transpose(rows, BATCH), transpose(rows ^ selected, BATCH)

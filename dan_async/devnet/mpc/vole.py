"""
Random vector OLE: a product of two secrets, one at each party, split into a sum of one number at each.

The receiver gets a random χ; the sender puts in a_1 and a_2 and ends with c_1 and c_2, the receiver with d_1 and d_2, such
that c_k + d_k = a_k·χ modulo the group order, and neither learns more.

DKLs23 (ePrint 2023/765), section 5.1, Protocol 5.2, from oblivious-transfer extension. χ is the inner product of 416 random
choice bits with a public random gadget vector: 2·λs bits more than χ has, so that χ stays uniform when a few of the bits
are guessed. In transfer j the sender offers z_j and z_j + a. A random third input â goes along, and η = â + θ_1·a_1 +
θ_2·a_2 is opened and checked against every transfer: with inconsistent inputs the check fails, unless the sender has
guessed the choice bits concerned. One such row is enough (the paper's ⌈λc/κ⌉ is 1). The θ are a hash that covers the
sender's message (Fiat-Shamir), which fixes its inputs before they are known.

Adversary: static, malicious, either side, in the random-oracle model. A failed check may have shown the sender a choice
bit, so it bans the pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import shake_128, shake_256
from operator import mul
from struct import iter_unpack
from typing import Annotated

from attrs import frozen

from dan_async.crypto.curve import ORDER
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.devnet.mpc.aborts import PairAbort, Reason
from dan_async.devnet.mpc.field import Entropy, hash_to_scalar, random_scalar, scalar_to_bytes
from dan_async.devnet.mpc.framing import (
    NONCE_BYTES,
    SCALAR_BYTES,
    Digest,
    EncodedScalar,
    Nonce,
    Record,
    fixed,
)
from dan_async.devnet.mpc.ot import BATCH, ReceiverSeeds, SenderSeeds, accept, extend, unpack

#: Numbers that the sender puts in.
INPUTS = 2

#: Numbers in each transfer: the inputs and the check row.
_WIDTH = INPUTS + 1

_CORRECTION_BYTES = _WIDTH * BATCH * SCALAR_BYTES

#: Length of the sender's message.
REPLY_BYTES = NONCE_BYTES + _CORRECTION_BYTES + SCALAR_BYTES + DIGEST_BYTES

_POSITIONS = tuple(position.to_bytes(2, "big") for position in range(BATCH))

#: The numbers of one input, or of the check row, in all transfers.
_Row = list[int]


@frozen(repr=False)
class _Reply(Record):
    """The sender's message: corrections, η, and a hash of the check's expected values."""

    nonce: Nonce
    corrections: Annotated[bytes, fixed(_CORRECTION_BYTES)]
    eta: EncodedScalar
    digest: Digest


# What follows is most of the time of a presignature: hence ``map``, and ``to_bytes`` where ``scalar_to_bytes`` would do.


def _scalars(data: bytes, width: int = 1) -> list[_Row]:
    """Read numbers that stand in groups of so many: a row for each place in the group."""
    groups = iter_unpack(f"{SCALAR_BYTES}s" * width, data)
    return [list(map(int.from_bytes, row)) for row in zip(*groups, strict=True)]


def _pack(values: Iterable[int]) -> bytes:
    return b"".join([(value % ORDER).to_bytes(SCALAR_BYTES, "big") for value in values])


@lru_cache(maxsize=128)
def gadget_vector(context: bytes) -> tuple[int, ...]:
    """Return the public gadget vector, 416 uniform scalars of nobody's choosing: both had a hand in the context."""
    seed = tagged_hash("dan-ecdsa/1 gadget", context)
    (row,) = _scalars(shake_256(seed).digest(BATCH * SCALAR_BYTES))
    return tuple(scalar % ORDER for scalar in row)


def _masks(salt: bytes, strings: Sequence[bytes]) -> list[_Row]:
    """Hash the strings to ``_WIDTH`` numbers of 256 bits each; modulo the order they are 2^-127 close to uniform."""
    length = _WIDTH * SCALAR_BYTES
    data = b"".join(
        [
            shake_128(salt + position + string).digest(length)
            for position, string in zip(_POSITIONS, strings, strict=True)
        ]
    )
    return _scalars(data, _WIDTH)


def _salt(context: bytes, message: bytes, nonce: bytes) -> bytes:
    """Bind the masks to everything said so far, and to the sender's nonce: no mask is ever used twice."""
    return tagged_hash("dan-ecdsa/1 vole", context, message, nonce)


def _thetas(salt: bytes, corrections: bytes) -> list[int]:
    return [hash_to_scalar("dan-ecdsa/1 vole check", salt, corrections, bytes((k,))) for k in range(INPUTS)]


def _combine(rows: Sequence[_Row], thetas: Sequence[int]) -> list[int]:
    one, two, check = rows
    first, second = thetas
    return [w + first * u + second * v for u, v, w in zip(one, two, check, strict=True)]


def _check_hash(salt: bytes, combined: Sequence[int]) -> bytes:
    return tagged_hash("dan-ecdsa/1 vole check rows", salt, _pack(combined))


def _inner_product(gadget: Sequence[int], row: _Row) -> int:
    total: int = sum(map(mul, gadget, row))
    return total % ORDER


class VoleReceiver:
    """The side that gets χ, in ``chi``; ``message`` is for the sender. The context names session, pair and direction."""

    def __init__(
        self, seeds: ReceiverSeeds, *, gadget_context: bytes, context: bytes, entropy: Entropy
    ) -> None:
        choices = int.from_bytes(entropy(BATCH // 8), "big")
        self._context = context
        self._gadget = gadget_vector(gadget_context)
        self._bits = [choices >> position & 1 for position in range(BATCH)]
        self.chi = _inner_product(self._gadget, self._bits)
        self.message, self._strings = extend(seeds, context, choices, entropy)

    def finish(self, reply: bytes) -> tuple[int, ...]:
        """Check the sender's message and return d_1 and d_2; if the check fails, the abort bans the pair."""
        message = unpack(_Reply, reply)
        eta, (values,) = int.from_bytes(message.eta, "big"), _scalars(message.corrections)
        if max(eta, *values) >= ORDER:
            raise PairAbort(Reason.MALFORMED_MESSAGE)
        salt = _salt(self._context, self.message, message.nonce)
        rows = [
            [
                mask + value * bit
                for mask, value, bit in zip(masks, values[k * BATCH :], self._bits, strict=False)
            ]
            for k, masks in enumerate(_masks(salt, self._strings))
        ]
        combined = _combine(rows, _thetas(salt, message.corrections))
        checked = [value - bit * eta for value, bit in zip(combined, self._bits, strict=True)]
        if _check_hash(salt, checked) != message.digest:
            raise PairAbort(Reason.VOLE_CHECK, ban=True)
        return tuple(_inner_product(self._gadget, row) for row in rows[:INPUTS])


def send(
    seeds: SenderSeeds,
    inputs: tuple[int, int],
    message: bytes,
    *,
    gadget_context: bytes,
    context: bytes,
    entropy: Entropy,
) -> tuple[bytes, tuple[int, ...]]:
    """Act as the sender, with a_1 and a_2: return the message, and c_1 and c_2. A failed check bans the pair."""
    zeros, ones = accept(seeds, context, message)
    nonce = entropy(NONCE_BYTES)
    salt = _salt(context, message, nonce)
    rows = _masks(salt, zeros)
    row_inputs = (*inputs, random_scalar(entropy))
    corrections = b"".join(
        [
            _pack([zero - one + value for zero, one in zip(zero_row, one_row, strict=True)])
            for zero_row, one_row, value in zip(rows, _masks(salt, ones), row_inputs, strict=True)
        ]
    )
    thetas = _thetas(salt, corrections)
    eta = (row_inputs[INPUTS] + sum(map(mul, thetas, inputs))) % ORDER
    reply = _Reply(nonce, corrections, scalar_to_bytes(eta), _check_hash(salt, _combine(rows, thetas)))
    gadget = gadget_vector(gadget_context)
    return reply.pack(), tuple(-_inner_product(gadget, row) % ORDER for row in rows[:INPUTS])

"""
Oblivious-transfer extension: 416 transfers of random strings from 128 base transfers and symmetric cryptography.

KOS (Keller, Orsini, Scholl, ePrint 2015/546) in its corrected version, Fig. 10, whose consistency check is that of
SoftSpokenOT (Roy, ePrint 2022/192, sections 3 and 4, here with k = 1). The check's random elements are a hash of what they
check (Fiat-Shamir; DKLs23, ePrint 2023/765, section 5), hence the field of 208 = λc + λs bits. The receiver sends a hash of
the values t that the check compares, instead of the values.

Adversary: static, malicious, either side, in the random-oracle model. A malicious receiver that passes the check has been
consistent but for a few rows, and has guessed as many bits of the sender's Δ as there are such rows; it fails with
probability 1/2 for each. A failed check therefore ends the pair for good (``PairAbort.ban``). Both sides put a fresh nonce
into what they hash, so that a session id that is used twice by mistake does no harm.

The roles are those of the extension: its receiver was the sender of the base transfers.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import shake_128, shake_256

from attrs import field, frozen

from dan_async.devnet.mpc.binary_field import BLOCK_BITS, hash_rows
from dan_async.devnet.mpc.bit_matrix import ROW_BITS, ROW_BYTES, repeat_row, select_rows, transpose
from dan_async.devnet.mpc.field import Entropy
from dan_async.devnet.mpc.hashing import DIGEST_BYTES, tagged_hash
from dan_async.devnet.mpc.ot_base import TRANSFERS
from dan_async.devnet.mpc.pair_abort import PairAbort, PairReason

#: Transfers in one run: κ + 2·λs, as the vector OLE needs them. 208 more choices are random and mask what the check shows
#: of the others; the last 16 bits of a row only fill it up.
BATCH = 416

_BLOCK_BYTES = BLOCK_BITS // 8
_NONCE_BYTES = 32
_MATRIX_BYTES = TRANSFERS * ROW_BYTES

#: Length of the receiver's message: nonce, matrix, the check's x, and a hash of the check's t.
EXTENSION_BYTES = _NONCE_BYTES + _MATRIX_BYTES + _BLOCK_BYTES + DIGEST_BYTES


def _masked(_: object) -> str:
    return "***"


@frozen
class ReceiverSeeds:
    """What the extension's receiver keeps: both seeds of each base transfer."""

    pairs: tuple[tuple[bytes, bytes], ...] = field(repr=_masked)


@frozen
class SenderSeeds:
    """What the extension's sender keeps: its choices in the base transfers, Δ, and the seeds it chose."""

    delta: int = field(repr=_masked)
    chosen: tuple[bytes, ...] = field(repr=_masked)


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
    """
    Act as the receiver, in one message.

    Args:
        seeds: From the base transfers.
        context: 32 bytes that name session, pair and direction.
        choices: 416 bits: bit j chooses in transfer j.
        entropy: Source of randomness.

    Returns:
        The message for the sender, and t_j of each transfer, 16 bytes: the sender's q_j is t_j xor c_j·Δ.
    """
    nonce = entropy(_NONCE_BYTES)
    salt = _salt(context, nonce)
    padded = choices | int.from_bytes(entropy((ROW_BITS - BATCH) // 8), "little") << BATCH
    rows = _stretch((zero for zero, _ in seeds.pairs), salt)
    sent = rows ^ _stretch((one for _, one in seeds.pairs), salt) ^ repeat_row(padded)
    matrix = sent.to_bytes(_MATRIX_BYTES, "little")
    elements = _elements(salt, matrix)
    check = hash_rows(padded, *elements).to_bytes(_BLOCK_BYTES, "little")
    return nonce + matrix + check + _digest(salt, hash_rows(rows, *elements)), transpose(rows, BATCH)


def accept(seeds: SenderSeeds, context: bytes, message: bytes) -> tuple[list[bytes], list[bytes]]:
    """
    Act as the sender: check the receiver's message.

    Args:
        seeds: From the base transfers.
        context: As the receiver's.
        message: The receiver's message.

    Returns:
        q_j of each transfer, 16 bytes, and q_j xor Δ of each. The receiver's t_j is the first where it chose 0, the second
        where it chose 1; it can compute nothing about the other, once they are hashed.

    Raises:
        PairAbort: The message is malformed, or its consistency check fails; then the pair is banned.
    """
    if not isinstance(message, bytes) or len(message) != EXTENSION_BYTES:
        raise PairAbort(PairReason.MALFORMED_MESSAGE)
    nonce, rest = message[:_NONCE_BYTES], message[_NONCE_BYTES:]
    matrix, rest = rest[:_MATRIX_BYTES], rest[_MATRIX_BYTES:]
    check, digest = int.from_bytes(rest[:_BLOCK_BYTES], "little"), rest[_BLOCK_BYTES:]
    salt = _salt(context, nonce)
    selected = select_rows(seeds.delta)
    rows = _stretch(seeds.chosen, salt) ^ int.from_bytes(matrix, "little") & selected
    # The receiver's t_i must be the hash of our row i, less x where Δ_i is set.
    hashes = hash_rows(rows, *_elements(salt, matrix)) ^ repeat_row(check) & selected
    if _digest(salt, hashes) != digest:
        raise PairAbort(PairReason.OT_EXTENSION_CHECK, ban=True)
    return transpose(rows, BATCH), transpose(rows ^ selected, BATCH)

"""
Threshold ECDSA in three rounds: t signers, any t of the n, from the shares that key generation left.

DKLs23 (Doerner, Kondi, Lee, shelat, "Threshold ECDSA in three rounds", ePrint 2023/765), Protocol 3.6. With λ_i the Lagrange
coefficient of signer i, ζ_i its share of zero and a_i = λ_i·x_i + ζ_i (so that a = Σa_i is the key): signer i draws a nonce
r_i and a mask φ_i, and multiplies r_i and a_i with every other signer's random χ (``vole``). What comes out are shares u_i
of r·φ and v_i of a·φ, for r = Σr_i and φ = Σφ_i. With w_i = h·φ_i + R_x·v_i, s = Σw_i / Σu_i = (h + R_x·a)/r. Nobody ever
holds the key, the nonce, or the mask.

Adversary: static, malicious, up to t - 1 of the n parties, in the random-oracle model under the computational
Diffie-Hellman assumption; security with abort, not robustness. The checks that the multiplied numbers are those behind
R_i and A_i (here ``Γ``) name the culprit, as do those of the extension and the vector OLE, whose failure bans it. Key
shares that do not add up, and a signature that does not verify, name one only where there is one other signer.

Two things go beyond the paper: A_i is committed to along with R_i, and round 2 carries a hash of all commitments, so that
nobody opens different values to different signers unnoticed. Which t parties sign is fixed from the start.

Rounds 1 and 2 need no digest; what they leave is a ``Presignature``. Steps compute for milliseconds for each other signer
and belong in an executor.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TypeVar

from dan_async.crypto.interpolation import lagrange_coefficients
from dan_async.crypto.point import ORDER, Point, add, base_multiply, decode, encode, multiply
from dan_async.devnet.mpc.abort import ProtocolStateError
from dan_async.devnet.mpc.field import Entropy, random_scalar, scalar_from_bytes, scalar_to_bytes
from dan_async.devnet.mpc.hashing import tagged_hash, u32
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.mpc.pair_abort import PairAbort
from dan_async.devnet.mpc.pair_state import PairState, refuse_banned
from dan_async.devnet.mpc.presignature import Presignature, from_all_others
from dan_async.devnet.mpc.signing_abort import SigningAbort, SigningReason
from dan_async.devnet.mpc.signing_messages import NONCE_BYTES, CommitMessage, Envelope, MultiplyMessage
from dan_async.devnet.mpc.vole import VoleReceiver, send
from dan_async.devnet.mpc.zero_sharing import zero_share
from dan_async.errors import InvalidFieldError

__all__ = ["SigningParty"]

SESSION_ID_BYTES = 32

_T = TypeVar("_T")


class _Step(Enum):
    COMMIT = "commit"
    MULTIPLY = "multiply"
    PRESIGN = "presign"
    OVER = "over"


class SigningParty:
    """
    One signer of one signature: ``commit``, ``multiply``, ``presign``, each once and in that order.

    Mappings of messages go from a signer's index to what it sent to this one, and hold the other signers only. What did not
    arrive in time is left out; the party then aborts and names the silent ones. After an abort the object has dropped its
    secrets and takes no further step.

    Args:
        session_id: 32 bytes that all signers know and that no other signature ever had.
        share: This party's share of the key.
        signers: The indices of exactly t parties, this one among them.
        pairs: The set-up with each of the other signers.
        entropy: Source of randomness, for tests.

    Raises:
        InvalidFieldError: The session id is not 32 bytes, the signers are not t different parties with this one among
            them, or a set-up is missing.
        SigningAbort: A pair is banned.
    """

    def __init__(
        self,
        *,
        session_id: bytes,
        share: KeyShare,
        signers: Sequence[int],
        pairs: Mapping[int, PairState],
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        if not isinstance(session_id, bytes) or len(session_id) != SESSION_ID_BYTES:
            raise InvalidFieldError("session_id", f"must be {SESSION_ID_BYTES} bytes")
        self._signers = tuple(sorted(signers))
        if len(self._signers) != share.threshold.t or len(set(self._signers)) != len(self._signers):
            raise InvalidFieldError("signers", f"must be {share.threshold.t} different parties")
        if share.index not in self._signers or not all(1 <= i <= share.threshold.n for i in self._signers):
            raise InvalidFieldError("signers", "must be parties of the key, this one among them")
        self._others = tuple(i for i in self._signers if i != share.index)
        if any(i not in pairs for i in self._others):
            raise InvalidFieldError("pairs", "must have the set-up with each other signer")
        self._pairs = {i: pairs[i] for i in self._others}
        refuse_banned(self._pairs)
        self._share, self._index, self._entropy = share, share.index, entropy
        self._context = tagged_hash(
            "dan-ecdsa/1 signing",
            session_id,
            share.public_key,
            share.transcript_hash,
            *map(u32, self._signers),
        )
        self._step = _Step.COMMIT
        self._nonce = self._mask = self._key = 0
        self._opening = b""
        self._commitments: dict[int, bytes] = {}
        self._receivers: dict[int, VoleReceiver] = {}
        self._sent: dict[int, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"SigningParty(index={self._index}, signers={self._signers}, step={self._step.value!r})"

    def commit(self) -> dict[int, bytes]:
        """
        Round 1: draw nonce and mask, commit to R_i and A_i, start the multiplications as receiver.

        Returns:
            One message for each other signer.

        Raises:
            SigningAbort: A pair was banned in the meantime.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.COMMIT, then=_Step.MULTIPLY):
            self._nonce, self._mask = random_scalar(self._entropy), random_scalar(self._entropy)
            coefficient = lagrange_coefficients(self._signers)[self._signers.index(self._index)]
            zero = zero_share(
                self._index, {i: pair.common_seed for i, pair in self._pairs.items()}, self._context
            )
            self._key = (coefficient * self._share.secret_share + zero) % ORDER
            points = encode(base_multiply(self._nonce)) + encode(base_multiply(self._key))
            self._opening = self._entropy(NONCE_BYTES) + points
            commitment = self._commitment(self._index, self._opening)
            self._commitments[self._index] = commitment
            messages = {}
            for other, pair in self._pairs.items():
                receiver = VoleReceiver(
                    pair.receiver,
                    gadget_context=pair.gadget_context(receiving=True),
                    context=self._pair_context(pair, receiver=self._index),
                    entropy=self._entropy,
                )
                self._receivers[other] = receiver
                messages[other] = CommitMessage(
                    setup_id=pair.setup_id, commitment=commitment, vole=receiver.message
                ).encode(Envelope(self._context, self._index, other))
            return messages

    def multiply(self, messages: Mapping[int, bytes]) -> dict[int, bytes]:
        """
        Round 2: put nonce and key share into the others' multiplications, and open the commitment.

        Args:
            messages: The other signers' messages of round 1.

        Returns:
            One message for each other signer.

        Raises:
            SigningAbort: A message is missing or malformed or of another set-up, a check of the extension fails (with
                ``ban``), or a pair was banned in the meantime.
            InvalidFieldError: The mapping has a key that is no other signer's index.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.MULTIPLY, then=_Step.PRESIGN):
            received = from_all_others(self._index, self._signers, messages)
            replies = self._for_each_other(lambda other: self._send_to(other, received[other]))
            echo, psi = self._commitments_hash(), {}
            for other, receiver in self._receivers.items():
                psi[other] = scalar_to_bytes((self._mask - receiver.chi) % ORDER)
            nonce, nonce_point, key_point = self._split_opening(self._opening)
            return {
                other: MultiplyMessage(
                    echo=echo,
                    nonce=nonce,
                    nonce_point=nonce_point,
                    key_point=key_point,
                    gamma_u=encode(base_multiply(self._sent[other][0])),
                    gamma_v=encode(base_multiply(self._sent[other][1])),
                    psi=psi[other],
                    vole=reply,
                ).encode(Envelope(self._context, self._index, other))
                for other, reply in replies.items()
            }

    def presign(self, messages: Mapping[int, bytes]) -> Presignature:
        """
        Check everything that was opened and multiplied, and put the presignature together.

        Args:
            messages: The other signers' messages of round 2.

        Raises:
            SigningAbort: A message is missing or malformed, a check fails (with ``ban`` if it was the vector OLE's), or
                a pair was banned in the meantime.
            InvalidFieldError: The mapping has a key that is no other signer's index.
            ProtocolStateError: This is not the next step.
        """
        with self._round(_Step.PRESIGN, then=_Step.OVER):
            received = from_all_others(self._index, self._signers, messages)
            opened = self._for_each_other(lambda other: self._open(other, received[other]))
            # Before any check that bans, and blaming nobody: after a restart, a reply may answer this party's earlier self.
            if any(message.echo != self._commitments_hash() for message, _, _ in opened.values()):
                raise SigningAbort(SigningReason.EQUIVOCATION)
            products = self._for_each_other(lambda other: self._receive_from(other, *opened[other]))
            key_points = [key_point for _, _, key_point in opened.values()]
            total = add([base_multiply(self._key), *key_points])
            if total is None or encode(total) != self._share.public_key:
                raise SigningAbort(SigningReason.PUBLIC_KEY_CHECK, self._only_other())
            nonce_point = add([base_multiply(self._nonce), *(point for _, point, _ in opened.values())])
            if nonce_point is None or not 0 < int.from_bytes(encode(nonce_point)[1:], "big") < ORDER:
                raise SigningAbort(SigningReason.DEGENERATE_NONCE)
            mask = self._mask + sum(psi for psi, _, _ in products.values())
            u = self._nonce * mask + sum(self._sent[i][0] + product[1] for i, product in products.items())
            v = self._key * mask + sum(self._sent[i][1] + product[2] for i, product in products.items())
            presignature = Presignature(
                context=self._context,
                index=self._index,
                signers=self._signers,
                public_key=self._share.public_key,
                nonce_point=encode(nonce_point),
                mask=self._mask,
                u=u % ORDER,
                v=v % ORDER,
                pairs=self._pairs,
            )
            self._forget()
            return presignature

    # --- inside -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _round(self, step: _Step, *, then: _Step) -> Iterator[None]:
        if self._step is not step:
            raise ProtocolStateError(
                f"Signing was asked for {step.value!r}, but its next step is {self._step.value!r}",
                hint="Each step is taken once and in order; a new signature needs a new party and a new session id",
                phase="signing",
            )
        self._step = _Step.OVER
        try:
            refuse_banned(self._pairs)  # another session may have banned one since
            yield
        except BaseException:
            self._forget()
            raise
        self._step = then

    def _forget(self) -> None:
        self._nonce = self._mask = self._key = 0
        self._opening = b""
        self._receivers = {}
        self._sent = {}

    def _for_each_other(self, task: Callable[[int], _T]) -> dict[int, _T]:
        """Do something with each other signer, and go on after a fault, so that everybody who is to be banned is."""
        done: dict[int, _T] = {}
        faults: dict[int, tuple[str, bool]] = {}
        for other in self._others:
            try:
                done[other] = task(other)
            except PairAbort as error:
                self._pairs[other].banned |= error.ban
                faults[other] = (error.reason, error.ban)
            except SigningAbort as error:
                faults[other] = (error.reason, error.ban)
        for ban in (True, False):
            culprits = [other for other, fault in faults.items() if fault[1] is ban]
            if culprits:
                raise SigningAbort(faults[culprits[0]][0], culprits, ban=ban)
        return done

    def _only_other(self) -> tuple[int, ...]:
        """Where nobody can be named, somebody can if there is one other signer: this party knows that it is honest."""
        return self._others if len(self._others) == 1 else ()

    def _pair_context(self, pair: PairState, *, receiver: int) -> bytes:
        return tagged_hash("dan-ecdsa/1 signing pair", self._context, pair.setup_id, u32(receiver))

    def _commitment(self, index: int, opening: bytes) -> bytes:
        return tagged_hash("dan-ecdsa/1 nonce commitment", self._context, u32(index), opening)

    def _commitments_hash(self) -> bytes:
        parts = (self._commitments[i] for i in self._signers)
        return tagged_hash("dan-ecdsa/1 commitments", self._context, *parts)

    @staticmethod
    def _split_opening(opening: bytes) -> tuple[bytes, bytes, bytes]:
        points = opening[NONCE_BYTES:]
        return opening[:NONCE_BYTES], points[: len(points) // 2], points[len(points) // 2 :]

    def _send_to(self, other: int, data: bytes) -> bytes:
        message = CommitMessage.decode(data, Envelope(self._context, other, self._index))
        pair = self._pairs[other]
        if message.setup_id != pair.setup_id:
            # An honest mistake, in what is stored or was not: it must not look like a failed check.
            raise SigningAbort(SigningReason.SETUP_MISMATCH, (other,))
        self._commitments[other] = message.commitment
        reply, self._sent[other] = send(
            pair.sender,
            (self._nonce, self._key),
            message.vole,
            gadget_context=pair.gadget_context(receiving=False),
            context=self._pair_context(pair, receiver=other),
            entropy=self._entropy,
        )
        return reply

    def _open(self, other: int, data: bytes) -> tuple[MultiplyMessage, Point, Point]:
        message = MultiplyMessage.decode(data, Envelope(self._context, other, self._index))
        opening = message.nonce + message.nonce_point + message.key_point
        if self._commitment(other, opening) != self._commitments[other]:
            raise SigningAbort(SigningReason.COMMITMENT_MISMATCH, (other,))
        return message, _point(other, message.nonce_point), _point(other, message.key_point)

    def _receive_from(
        self, other: int, message: MultiplyMessage, nonce_point: Point, key_point: Point
    ) -> tuple[int, int, int]:
        """Finish one multiplication and check that what went into it is what the other signer committed to."""
        receiver = self._receivers[other]
        products = receiver.finish(message.vole)
        checks = (
            (nonce_point, message.gamma_u, products[0], SigningReason.NONCE_CHECK),
            (key_point, message.gamma_v, products[1], SigningReason.KEY_CHECK),
        )
        for point, gamma, product, reason in checks:
            # χ·R - Γ = d·G, as χ·R = Γ + d·G
            if add([_point(other, gamma), base_multiply(product)]) != multiply(point, receiver.chi):
                raise SigningAbort(reason, (other,))
        try:
            psi = scalar_from_bytes("psi", message.psi)
        except InvalidFieldError:
            raise SigningAbort(SigningReason.MALFORMED_MESSAGE, (other,)) from None
        return psi, products[0], products[1]


def _point(other: int, data: bytes) -> Point:
    try:
        return decode(data)
    except InvalidFieldError:
        raise SigningAbort(SigningReason.INVALID_POINT, (other,)) from None

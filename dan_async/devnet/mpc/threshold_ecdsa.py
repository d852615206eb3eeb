"""
Threshold ECDSA in three rounds: t signers, any t of the n, from the shares that key generation left.

DKLs23 (Doerner, Kondi, Lee, shelat, "Threshold ECDSA in three rounds", ePrint 2023/765), Protocol 3.6. With λ_i the Lagrange
coefficient of signer i, ζ_i its share of zero and a_i = λ_i·x_i + ζ_i (so that a = Σa_i is the key): signer i draws a nonce
r_i and a mask φ_i, and multiplies r_i and a_i with every other signer's random χ (``vole``). The results are shares u_i
of r·φ and v_i of a·φ, for r = Σr_i and φ = Σφ_i. With w_i = h·φ_i + R_x·v_i, s = Σw_i / Σu_i = (h + R_x·a)/r. Nobody ever
holds the key, the nonce, or the mask.

Adversary: static, malicious, up to t - 1 of the n parties, in the random-oracle model under the computational
Diffie-Hellman assumption; security with abort, not robustness. The checks that the multiplied numbers are those behind
R_i and A_i (here ``Γ``) name the culprit, as do those of the extension and the vector OLE, whose failure bans it. Key
shares that do not add up name one only where there is one other signer. The client puts the shares of s together, and
checks the signature (``nodes.signature_shares``).

Two things go beyond the paper: A_i is committed to along with R_i, and round 2 carries a hash of all commitments, so that
nobody opens different values to different signers unnoticed. Which t parties sign is fixed from the start.

Rounds 1 and 2 need no digest; they leave a ``Presignature``, which fixes the nonce before the digest is known. That
costs ECDSA some security margin, which matters for signers of a great many presignatures at a time (Groth and Shoup,
EUROCRYPT 2022, section 6): keep few in stock. Used for two digests, one presignature gives the key away. So it signs once,
and has no form in which it could be stored: it does not outlive the process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, NoReturn, TypeVar

from attrs import define, frozen

from dan_async.crypto.curve import (
    ORDER,
    Point,
    add,
    base_multiply,
    decode,
    encode,
    lagrange_coefficients,
    multiply,
)
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.devnet.mpc.aborts import (
    PairAbort,
    ProtocolStateError,
    SigningAbort,
    SigningReason,
    Stepwise,
    step,
)
from dan_async.devnet.mpc.field import Entropy, random_scalar, scalar_from_bytes, scalar_to_bytes, zero_share
from dan_async.devnet.mpc.framing import (
    NONCE_BYTES,
    POINT_BYTES,
    Digest,
    EncodedPoint,
    EncodedScalar,
    Message,
    Nonce,
    check_session_id,
    fixed,
)
from dan_async.devnet.mpc.key_share import KeyShare
from dan_async.devnet.mpc.ot import EXTENSION_BYTES
from dan_async.devnet.mpc.pairwise_setup import PairState, refuse_banned
from dan_async.devnet.mpc.vole import REPLY_BYTES, VoleReceiver, send
from dan_async.errors import InvalidFieldError

T = TypeVar("T")
M = TypeVar("M", bound=Message)

#: As recipient: all other signers.
ALL = 0


# --- messages ---------------------------------------------------------------------------------------------------------


@frozen(kw_only=True, repr=False)
class CommitMessage(Message):
    """Round 1, to each: a commitment to R and A, and the start of the multiplication in which the sender receives."""

    KIND = 17

    setup_id: Digest
    commitment: Digest
    vole: Annotated[bytes, fixed(EXTENSION_BYTES)]


@frozen(kw_only=True, repr=False)
class MultiplyMessage(Message):
    """Round 2, to each: the opening, the sender's half of a multiplication, and the points to check it by."""

    KIND = 18

    #: Hash of all commitments.
    echo: Digest
    nonce: Nonce
    nonce_point: EncodedPoint
    key_point: EncodedPoint
    gamma_u: EncodedPoint
    gamma_v: EncodedPoint
    psi: EncodedScalar
    vole: Annotated[bytes, fixed(REPLY_BYTES)]

    def __repr__(self) -> str:
        return "MultiplyMessage(***)"


@frozen(kw_only=True)
class SignMessage(Message):
    """Round 3, the same for all: the sender's shares of numerator and denominator of s."""

    KIND = 19

    digest: Digest
    u: EncodedScalar
    w: EncodedScalar


@frozen
class Envelope:
    """The header of a message: the session's context, and the indices of sender and recipient."""

    context: bytes
    sender: int
    recipient: int = ALL

    def seal(self, message: Message) -> bytes:
        return message.encode(self._prefix)

    def open(self, kind: type[M], data: bytes) -> M:
        """Read a message; malformed, or with another header, it aborts and names its sender."""
        # One that is not even meant for this session and recipient must not get as far as the checks whose failure bans.
        try:
            return kind.decode(data, self._prefix)
        except InvalidFieldError:
            raise SigningAbort(SigningReason.MALFORMED_MESSAGE, (self.sender,)) from None

    @property
    def _prefix(self) -> bytes:
        return self.context + bytes((self.sender, self.recipient))


def from_all_others(index: int, signers: tuple[int, ...], messages: Mapping[int, bytes]) -> dict[int, bytes]:
    """Take one message of every other signer; abort, naming the silent ones, if some are missing."""
    others = [signer for signer in signers if signer != index]
    if any(sender not in others for sender in messages):
        raise InvalidFieldError("messages", "must be keyed by the other signers' indices")
    missing = [signer for signer in others if signer not in messages]
    if missing:
        raise SigningAbort(SigningReason.MISSING_MESSAGE, missing)
    return {signer: messages[signer] for signer in others}


# --- rounds 1 and 2 ---------------------------------------------------------------------------------------------------


class SigningParty(Stepwise):
    """
    One signer of one signature.

    Mappings of messages are as for ``DkgParty``. No two signatures have one session id; the signers are exactly t parties,
    and there is a set-up with each of the others.
    """

    PROTOCOL = "Signing"
    PHASE = "signing"
    STEPS = ("commit", "multiply", "presign")
    HINT = "a new signature needs a new party and a new session id"

    def __init__(
        self,
        *,
        session_id: bytes,
        share: KeyShare,
        signers: Sequence[int],
        pairs: Mapping[int, PairState],
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        check_session_id(session_id)
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
            *self._signers,
        )
        self._nonce = self._mask = self._key = 0
        self._opening = b""
        self._commitments: dict[int, bytes] = {}
        self._receivers: dict[int, VoleReceiver] = {}
        self._sent: dict[int, tuple[int, ...]] = {}

    def __repr__(self) -> str:
        return f"SigningParty(index={self._index}, signers={self._signers}, step={self.next_step!r})"

    @step
    def commit(self) -> dict[int, bytes]:
        """Round 1: draw nonce and mask, commit to R_i and A_i, start the multiplications as receiver."""
        refuse_banned(self._pairs)  # here and below: another session may have banned one since
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
            messages[other] = Envelope(self._context, self._index, other).seal(
                CommitMessage(setup_id=pair.setup_id, commitment=commitment, vole=receiver.message)
            )
        return messages

    @step
    def multiply(self, messages: Mapping[int, bytes]) -> dict[int, bytes]:
        """Round 2: put nonce and key share into the others' multiplications, and open the commitment."""
        refuse_banned(self._pairs)
        received = from_all_others(self._index, self._signers, messages)
        replies = self._for_each_other(lambda other: self._send_to(other, received[other]))
        echo, psi = self._commitments_hash(), {}
        for other, receiver in self._receivers.items():
            psi[other] = scalar_to_bytes((self._mask - receiver.chi) % ORDER)
        nonce, points = self._opening[:NONCE_BYTES], self._opening[NONCE_BYTES:]
        return {
            other: Envelope(self._context, self._index, other).seal(
                MultiplyMessage(
                    echo=echo,
                    nonce=nonce,
                    nonce_point=points[:POINT_BYTES],
                    key_point=points[POINT_BYTES:],
                    gamma_u=encode(base_multiply(self._sent[other][0])),
                    gamma_v=encode(base_multiply(self._sent[other][1])),
                    psi=psi[other],
                    vole=reply,
                )
            )
            for other, reply in replies.items()
        }

    @step
    def presign(self, messages: Mapping[int, bytes]) -> Presignature:
        """Check everything that was opened and multiplied, and put the presignature together."""
        refuse_banned(self._pairs)
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
            id=self._context,
            index=self._index,
            signers=self._signers,
            public_key=self._share.public_key,
            nonce_point=encode(nonce_point),
            secrets=[(self._mask, u % ORDER, v % ORDER)],
            pairs=self._pairs,
        )
        self._forget()
        return presignature

    def _forget(self) -> None:
        self._nonce = self._mask = self._key = 0
        self._opening = b""
        self._receivers = {}
        self._sent = {}

    def _for_each_other(self, task: Callable[[int], T]) -> dict[int, T]:
        """Run a task for each other signer, and go on after a fault, so that no ban is missed."""
        done: dict[int, T] = {}
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
        return tagged_hash("dan-ecdsa/1 signing pair", self._context, pair.setup_id, receiver)

    def _commitment(self, index: int, opening: bytes) -> bytes:
        return tagged_hash("dan-ecdsa/1 nonce commitment", self._context, index, opening)

    def _commitments_hash(self) -> bytes:
        parts = (self._commitments[i] for i in self._signers)
        return tagged_hash("dan-ecdsa/1 commitments", self._context, *parts)

    def _send_to(self, other: int, data: bytes) -> bytes:
        message = Envelope(self._context, other, self._index).open(CommitMessage, data)
        pair = self._pairs[other]
        if message.setup_id != pair.setup_id:
            # An honest mistake, of a store that has lost or kept too much: it must not look like a failed check.
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
        message = Envelope(self._context, other, self._index).open(MultiplyMessage, data)
        opening = message.nonce + message.nonce_point + message.key_point
        if self._commitment(other, opening) != self._commitments[other]:
            raise SigningAbort(SigningReason.COMMITMENT_MISMATCH, (other,))
        return message, _point(other, message.nonce_point), _point(other, message.key_point)

    def _receive_from(
        self, other: int, message: MultiplyMessage, nonce_point: Point, key_point: Point
    ) -> tuple[int, int, int]:
        """Finish one multiplication and check that its inputs are those that the other signer committed to."""
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


# --- round 3 ----------------------------------------------------------------------------------------------------------


@define(kw_only=True, eq=False, repr=False)
class Presignature:
    """One signer's half-made signature: its shares of φ (``mask``), of r·φ (``u``) and of a·φ (``v``)."""

    #: 32 bytes that all of its signers know it by.
    id: bytes
    signers: tuple[int, ...]
    public_key: bytes
    #: R, 33 bytes.
    nonce_point: bytes
    _index: int
    #: mask, u and v, until it is spent.
    _secrets: list[tuple[int, int, int]]
    _pairs: Mapping[int, PairState]

    def __repr__(self) -> str:
        return f"Presignature(id={self.id.hex()[:16]}, index={self._index}, spent={self.is_spent})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a presignature signs once, so it can be neither copied nor pickled")

    @property
    def is_spent(self) -> bool:
        return not self._secrets

    def discard(self) -> None:
        self._secrets.clear()

    def sign(self, digest: bytes) -> bytes:
        """Round 3: return the message for every other signer. Works once, for one digest, which the caller allows."""
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise InvalidFieldError("digest", f"must be {DIGEST_BYTES} bytes")
        refuse_banned(self._pairs)
        try:
            mask, u, v = self._secrets.pop()  # one atomic step: of two threads, one gets them
        except IndexError:
            raise ProtocolStateError(
                "This presignature is spent", hint="Make a new one for each signature"
            ) from None
        r = int.from_bytes(self.nonce_point[1:], "big")
        w = (int.from_bytes(digest, "big") * mask + r * v) % ORDER
        message = SignMessage(digest=digest, u=scalar_to_bytes(u), w=scalar_to_bytes(w))
        return Envelope(self.id, self._index).seal(message)

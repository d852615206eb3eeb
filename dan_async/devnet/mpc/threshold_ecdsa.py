"""
Threshold ECDSA in three rounds: t signers, any t of the n, from the shares that key generation left.

DKLs23 (Doerner, Kondi, Lee, shelat, "Threshold ECDSA in three rounds", ePrint 2023/765), Protocol 3.6. With λ_i the Lagrange
coefficient of signer i, ζ_i its share of zero and a_i = λ_i·x_i + ζ_i (so that a = Σa_i is the key): signer i draws a nonce
r_i and a mask φ_i, and multiplies r_i and a_i with every other signer's random χ (``vole``). The results are shares u_i
of r·φ and v_i of a·φ, for r = Σr_i and φ = Σφ_i. When the digest h is known, the nonce becomes r' = r + δ, for a public δ
that is a hash of it (``protocols.node.nonce_shift``). With u'_i = u_i + δ·φ_i and w_i = h·φ_i + R'_x·v_i,
s = Σw_i / Σu'_i = (h + R'_x·a)/r'. Nobody ever holds the key, the nonce, or the mask.

Adversary: static, malicious, up to t - 1 of the n parties, in the random-oracle model under the computational
Diffie-Hellman assumption; security with abort, not robustness. The checks that the multiplied numbers are those behind
R_i and A_i (here ``Γ``) name the culprit, as do those of the extension and the vector OLE, whose failure bans it. The
client puts the shares of s together, and checks the signature (``nodes.signature_shares``).

Five things go beyond the paper. A_i is committed to along with R_i, operators sign their commitments, and round 2 carries
all of them: nobody opens different values to different signers unnoticed, and two commitments that one has signed show who
it was. ζ_i is a sum of parts that two signers have in common, each of which round 2 has as a point: where the key shares do
not add up, they show a signer whose A_i is wrong, or to its partner that it does not say what both know. Which t parties
sign is fixed from the start. Presignatures are re-randomised (Groth and Shoup, EUROCRYPT 2022, section 6): R is known before
the digest is, and a digest chosen by R would cost ECDSA much of its security margin. And each signer publishes commitments,
by which anyone can tell whose share is wrong. These and the points of ζ_i are our own addition, and heuristic: DKLs23's
proof does not cover them.

The commitments of signer i are Φ_i = φ_i·G, U_i = u_i·G and V_i = v_i·G, and for each other signer j the points

    P_ij = ψ_ji·R_i - ψ_ij·R_j + Γu_ij - Γu_ji    and    Q_ij = ψ_ji·A_i - ψ_ij·A_j + Γv_ij - Γv_ji

of round 2, where ψ_ij and Γ_ij are what i sent to j, Γu for R_i and Γv for A_i. As c_ij + d_ji = r_i·χ_ji and ψ_ij = φ_i -
χ_ij, U_i - Σ_j P_ij is φ_i·R and V_i - Σ_j Q_ij is φ_i·Y, for the key Y = a·G. A proof of equal logarithms (D. Chaum and T.
P. Pedersen, CRYPTO '92, section 3.2, with Fiat-Shamir) shows that both are the φ_i of Φ_i. And P_ij = -P_ji, Q_ij = -Q_ji,
since both sides know all of it. So where the proofs and these equations hold, ΣU_i = φ·R and ΣV_i = φ·Y; and where each
u'_i·G = U_i + δ·Φ_i and w_i·G = h·Φ_i + R'_x·V_i besides, the shares make the signature. A wrong share, or a wrong proof, is
that signer's own contradiction; where P_ij and -P_ji differ, one of the two lies. An honest signer contradicts neither
itself nor another honest one. The points show φ·R and φ·Y, and so, with Σu', multiples of G by r'^-1 and a·r'^-1: nothing
that is known to be of use to anybody, but more than a signature shows.

Rounds 1 and 2 need no digest; they leave a ``Presignature``. Used for two digests, one presignature gives the key away. So
it signs once, and has no form in which it could be stored: it does not outlive the process.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Annotated, NoReturn, TypeVar

from attrs import define, field, frozen

from dan_async.crypto.curve import (
    ORDER,
    Point,
    add,
    base_multiply,
    decode,
    encode,
    lagrange_coefficients,
    multiply,
    negate,
)
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.crypto.signature import signer_of
from dan_async.devnet.mpc.aborts import (
    PairAbort,
    ProtocolAbort,
    ProtocolStateError,
    Reason,
    SigningAbort,
    Stepwise,
    from_all_others,
    step,
)
from dan_async.devnet.mpc.dkg import KeyShare
from dan_async.devnet.mpc.field import Entropy, random_scalar, scalar_from_bytes, scalar_to_bytes, zero_shares
from dan_async.devnet.mpc.framing import (
    NONCE_BYTES,
    POINT_BYTES,
    SIGNATURE_BYTES,
    Digest,
    EncodedPoint,
    EncodedScalar,
    Message,
    Nonce,
    Signature,
    check_session_id,
    counted,
    fixed,
)
from dan_async.devnet.mpc.ot import EXTENSION_BYTES
from dan_async.devnet.mpc.pairwise_setup import PairState, refuse_banned
from dan_async.devnet.mpc.vole import REPLY_BYTES, VoleReceiver, send
from dan_async.errors import InvalidFieldError
from dan_async.protocols.node import nonce_shift, presignature_id, proof_challenge, shift_nonce
from dan_async.types import OperatorAddress

T = TypeVar("T")
M = TypeVar("M", bound=Message)


# --- messages ---------------------------------------------------------------------------------------------------------


@frozen(kw_only=True, repr=False)
class CommitMessage(Message):
    """Round 1, to each: a commitment to R and A, and the start of the multiplication in which the sender receives."""

    KIND = 17

    setup_id: Digest
    commitment: Digest
    #: The sender's operator's, over the commitment.
    signature: Signature
    vole: Annotated[bytes, fixed(EXTENSION_BYTES)]


@frozen(kw_only=True, repr=False)
class MultiplyMessage(Message):
    """Round 2, to each: the opening, the sender's half of a multiplication, and the points to check it by."""

    KIND = 18

    #: Every signer's commitment and signature, ascending, as the sender has got them.
    commitments: Annotated[tuple[bytes, ...], counted(DIGEST_BYTES + SIGNATURE_BYTES)]
    #: The parts of the sender's share of zero as points, one for each other signer, ascending.
    zeros: Annotated[tuple[bytes, ...], counted(POINT_BYTES)]
    nonce: Nonce
    nonce_point: EncodedPoint
    key_point: EncodedPoint
    gamma_u: EncodedPoint
    gamma_v: EncodedPoint
    psi: EncodedScalar
    vole: Annotated[bytes, fixed(REPLY_BYTES)]

    def __repr__(self) -> str:
        return "MultiplyMessage(***)"


@frozen
class Envelope:
    """The header of a message: the session's context, and the indices of sender and recipient."""

    context: bytes
    sender: int
    recipient: int

    def seal(self, message: Message) -> bytes:
        return message.encode(self._prefix)

    def open(self, kind: type[M], data: bytes) -> M:
        """Read a message; malformed, or with another header, it aborts and names its sender."""
        # One that is not even meant for this session and recipient must not get as far as the checks whose failure bans.
        try:
            return kind.decode(data, self._prefix)
        except InvalidFieldError:
            raise SigningAbort(Reason.MALFORMED_MESSAGE, (self.sender,)) from None

    @property
    def _prefix(self) -> bytes:
        return self.context + bytes((self.sender, self.recipient))


# --- rounds 1 and 2 ---------------------------------------------------------------------------------------------------


class SigningParty(Stepwise):
    """
    One signer of one signature.

    Mappings of messages are as for ``DkgParty``. No two signatures have one session id; the signers are exactly t parties,
    and there is a set-up with each of the others. *operators* are those of all parties of the key, in order; *sign* signs a
    digest as this party's.
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
        operators: Sequence[OperatorAddress],
        sign: Callable[[bytes], bytes],
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
        self._operators = {i: operators[i - 1] for i in self._signers}
        self._sign = sign
        self._context = tagged_hash(
            "dan-ecdsa/1 signing", session_id, share.public_key, share.transcript_hash, *self._signers
        )
        self._nonce = self._mask = self._key = 0
        self._opening = b""
        self._zeros: dict[int, int] = {}
        #: With signatures.
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
        seeds = {i: pair.common_seed for i, pair in self._pairs.items()}
        self._zeros = zero_shares(self._index, seeds, self._context)
        coefficient = lagrange_coefficients(self._signers)[self._signers.index(self._index)]
        self._key = (coefficient * self._share.secret_share + sum(self._zeros.values())) % ORDER
        points = encode(base_multiply(self._nonce)) + encode(base_multiply(self._key))
        self._opening = self._entropy(NONCE_BYTES) + points
        commitment = self._commitment(self._index, self._opening)
        signature = self._sign(self._signed(self._index, commitment))
        self._commitments[self._index] = commitment + signature
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
                CommitMessage(
                    setup_id=pair.setup_id, commitment=commitment, signature=signature, vole=receiver.message
                )
            )
        return messages

    @step
    def multiply(self, messages: Mapping[int, bytes]) -> dict[int, bytes]:
        """Round 2: put nonce and key share into the others' multiplications, and open the commitment."""
        refuse_banned(self._pairs)
        received = from_all_others(self._others, "messages", messages, SigningAbort)
        replies = self._for_each_other(lambda other: self._send_to(other, received[other]))
        commitments = tuple(self._commitments[i] for i in self._signers)
        zeros = tuple(encode(base_multiply(self._zeros[i])) for i in self._others)
        nonce, points = self._opening[:NONCE_BYTES], self._opening[NONCE_BYTES:]
        return {
            other: Envelope(self._context, self._index, other).seal(
                MultiplyMessage(
                    commitments=commitments,
                    zeros=zeros,
                    nonce=nonce,
                    nonce_point=points[:POINT_BYTES],
                    key_point=points[POINT_BYTES:],
                    gamma_u=encode(base_multiply(self._sent[other][0])),
                    gamma_v=encode(base_multiply(self._sent[other][1])),
                    psi=scalar_to_bytes((self._mask - self._receivers[other].chi) % ORDER),
                    vole=reply,
                )
            )
            for other, reply in replies.items()
        }

    @step
    def presign(self, messages: Mapping[int, bytes]) -> Presignature:
        """Check everything that was opened and multiplied, and put the presignature together."""
        refuse_banned(self._pairs)
        received = from_all_others(self._others, "messages", messages, SigningAbort)
        opened = self._for_each_other(lambda other: self._open(other, received[other]))
        self._compare({other: message.commitments for other, (message, _, _) in opened.items()})
        products = self._for_each_other(lambda other: self._receive_from(other, *opened[other]))
        total = add([base_multiply(self._key), *(product.points[1] for product in products.values())])
        if total is None or encode(total) != self._share.public_key:
            points = {other: key_point for other, (_, _, key_point) in opened.items()}
            zeros = {other: message.zeros for other, (message, _, _) in opened.items()}
            culprits = self._wrong_key_shares(points, zeros)
            aborter = None if culprits else self._contradicted(zeros)
            raise SigningAbort(Reason.PUBLIC_KEY_CHECK, culprits, aborter=aborter)
        nonce_point = add([base_multiply(self._nonce), *(product.points[0] for product in products.values())])
        mask = self._mask + sum(product.psi for product in products.values())
        u, v = (
            (number * mask + sum(self._sent[i][k] + product.parts[k] for i, product in products.items()))
            % ORDER
            for k, number in enumerate((self._nonce, self._key))
        )
        if nonce_point is None or not u or not v:
            raise SigningAbort(Reason.DEGENERATE_NONCE)
        presignature = Presignature(
            id=self._context,
            signers=self._signers,
            operators=tuple(self._operators.values()),
            public_key=self._share.public_key,
            nonce_point=encode(nonce_point),
            commitments=self._commit_to(u, v, products, (nonce_point, total)),
            secrets=[(self._mask, u, v)],
            pairs=self._pairs,
        )
        self._forget()
        return presignature

    def _forget(self) -> None:
        self._nonce = self._mask = self._key = 0
        self._opening = b""
        self._zeros = {}
        self._receivers = {}
        self._sent = {}

    def _for_each_other(self, task: Callable[[int], T]) -> dict[int, T]:
        """Run a task for each other signer, and go on after a fault, so that no ban is missed."""
        done: dict[int, T] = {}
        faults: dict[int, ProtocolAbort] = {}
        for other in self._others:
            try:
                done[other] = task(other)
            except (PairAbort, SigningAbort) as error:
                self._pairs[other].ban.is_set |= error.ban
                faults[other] = error
        for ban in (True, False):
            culprits = [other for other, fault in faults.items() if fault.ban is ban]
            if culprits:
                raise SigningAbort(faults[culprits[0]].reason, culprits, ban=ban)
        return done

    def _compare(self, lists: Mapping[int, tuple[bytes, ...]]) -> None:
        """Check that all signers have got the same commitments; a signature shows who committed to two, or made one up."""
        culprits, differ = set(), False
        for other, entries in lists.items():
            if len(entries) != len(self._signers):
                raise SigningAbort(Reason.MALFORMED_MESSAGE, (other,))
            for signer, entry in zip(self._signers, entries, strict=True):
                if entry == self._commitments[signer]:
                    continue
                is_signed = self._is_signed(signer, entry)
                if not is_signed or entry[:DIGEST_BYTES] != self._commitments[signer][:DIGEST_BYTES]:
                    differ = True
                    culprits.add(signer if is_signed else other)
        if differ:
            # This party's own signature is its earlier self's, before a restart: that is nobody's fault.
            raise SigningAbort(Reason.EQUIVOCATION, sorted(culprits - {self._index}))

    def _is_signed(self, signer: int, entry: bytes) -> bool:
        digest, signature = self._signed(signer, entry[:DIGEST_BYTES]), entry[DIGEST_BYTES:]
        return signer_of(digest, signature) == self._operators[signer]

    def _wrong_key_shares(
        self, points: Mapping[int, Point], zeros: Mapping[int, tuple[bytes, ...]]
    ) -> list[int]:
        """
        Return the signers whose A is not λ·X and their parts of the share of zero, or whose part is not minus this party's.

        Two others whose parts for each other do not cancel out know themselves which of them lies: see ``_contradicted``.
        """
        culprits = []
        coefficients = lagrange_coefficients(self._signers)
        for other, encoded in zeros.items():
            partners = [i for i in self._signers if i != other]
            coefficient = coefficients[self._signers.index(other)]
            share = multiply(decode(self._share.public_shares[other - 1]), coefficient)
            try:
                total = add([share, *map(decode, encoded)])
            except InvalidFieldError:
                total = None
            mine = encode(base_multiply(-self._zeros[other]))
            if (
                len(encoded) != len(partners)
                or encoded[partners.index(self._index)] != mine
                or total is None
                or total != points[other]
            ):
                culprits.append(other)
        return culprits

    def _contradicted(self, zeros: Mapping[int, tuple[bytes, ...]]) -> int | None:
        """Return one of two others whose parts for each other do not cancel out: if it does not lie, it says who does."""

        def part(of: int, towards: int) -> Point:
            return decode(zeros[of][[i for i in self._signers if i != of].index(towards)])

        pairs = combinations(self._others, 2)
        return next((a for a, b in pairs if part(a, b) != negate(part(b, a))), None)

    def _pair_context(self, pair: PairState, *, receiver: int) -> bytes:
        return tagged_hash("dan-ecdsa/1 signing pair", self._context, pair.setup_id, receiver)

    def _commitment(self, index: int, opening: bytes) -> bytes:
        return tagged_hash("dan-ecdsa/1 nonce commitment", self._context, index, opening)

    def _signed(self, index: int, commitment: bytes) -> bytes:
        """Return what the operator signs of a commitment."""
        return tagged_hash("dan-ecdsa/1 signed commitment", self._context, index, commitment)

    def _commit_to(
        self, u: int, v: int, products: Mapping[int, _Product], bases: tuple[Point, Point]
    ) -> bytes:
        """Put the commitments together; the bases of the proof are R and Y, besides G."""
        found = [base_multiply(number) for number in (self._mask, u, v)]
        for other in self._others:
            product = products[other]
            for k, own in enumerate((self._nonce, self._key)):
                # As Γ_ij = c·G and Γ_ji = χ·R_j - d·G, P_ij is (ψ_ji·r_i + c + d)·G - φ_i·R_j; Q_ij likewise.
                known = (product.psi * own + self._sent[other][k] + product.parts[k]) % ORDER
                term = known and add([base_multiply(known), multiply(product.points[k], -self._mask)])
                if not term:
                    raise SigningAbort(Reason.DEGENERATE_NONCE)
                found.append(term)
        points = b"".join(map(encode, found))
        nonce, public_key, nonce_point = random_scalar(self._entropy), encode(bases[1]), encode(bases[0])
        challenge = proof_challenge(
            presignature_id=presignature_id(self._context, nonce_point),
            public_key=public_key,
            nonce_point=nonce_point,
            points=points,
            announcements=[base_multiply(nonce), *(multiply(base, nonce) for base in bases)],
        )
        response = (nonce + int.from_bytes(challenge, "big") * self._mask) % ORDER
        return points + challenge + scalar_to_bytes(response)

    def _send_to(self, other: int, data: bytes) -> bytes:
        message = Envelope(self._context, other, self._index).open(CommitMessage, data)
        pair = self._pairs[other]
        if message.setup_id != pair.setup_id:
            # An honest mistake, of a store that has lost or kept too much: it must not look like a failed check.
            raise SigningAbort(Reason.SETUP_MISMATCH, (other,))
        self._commitments[other] = message.commitment + message.signature
        if not self._is_signed(other, self._commitments[other]):
            raise SigningAbort(Reason.MALFORMED_MESSAGE, (other,))
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
        if self._commitment(other, opening) != self._commitments[other][:DIGEST_BYTES]:
            raise SigningAbort(Reason.COMMITMENT_MISMATCH, (other,))
        return message, _point(other, message.nonce_point), _point(other, message.key_point)

    def _receive_from(
        self, other: int, message: MultiplyMessage, nonce_point: Point, key_point: Point
    ) -> _Product:
        """Finish one multiplication and check that its inputs are those that the other signer committed to."""
        receiver = self._receivers[other]
        products = receiver.finish(message.vole)
        checks = (
            (nonce_point, message.gamma_u, products[0], Reason.NONCE_CHECK),
            (key_point, message.gamma_v, products[1], Reason.KEY_CHECK),
        )
        for point, gamma, product, reason in checks:
            # χ·R - Γ = d·G, as χ·R = Γ + d·G
            total = add([_point(other, gamma), base_multiply(product)])
            if total is None or total != multiply(point, receiver.chi):
                raise SigningAbort(reason, (other,))
        try:
            psi = scalar_from_bytes("psi", message.psi)
        except InvalidFieldError:
            raise SigningAbort(Reason.MALFORMED_MESSAGE, (other,)) from None
        return _Product(psi=psi, parts=products, points=(nonce_point, key_point))


@frozen(kw_only=True, repr=False)
class _Product:
    """The result of one multiplication in which this party received: ψ, d_u and d_v, and the other's R and A."""

    psi: int
    parts: tuple[int, ...]
    points: tuple[Point, Point]


def _point(other: int, data: bytes) -> Point:
    try:
        return decode(data)
    except InvalidFieldError:
        raise SigningAbort(Reason.INVALID_POINT, (other,)) from None


# --- round 3 ----------------------------------------------------------------------------------------------------------


@define(kw_only=True, eq=False, repr=False)
class Presignature:
    """One signer's half-made signature: its shares of φ (``mask``), of r·φ (``u``) and of a·φ (``v``)."""

    #: 32 bytes that all of its signers know it by.
    id: bytes
    signers: tuple[int, ...]
    operators: tuple[OperatorAddress, ...]  # theirs
    public_key: bytes
    #: R, 33 bytes.
    nonce_point: bytes
    commitments: bytes
    #: mask, u and v, until it is spent.
    _secrets: list[tuple[int, int, int]]
    _pairs: Mapping[int, PairState]
    #: The 32 bytes of its id on the wire, which binds it to R.
    name: bytes = field(init=False)

    @name.default
    def _bound_id(self) -> bytes:
        return presignature_id(self.id, self.nonce_point)

    def __repr__(self) -> str:
        return f"Presignature(id={self.id.hex()[:16]}, signers={self.signers}, spent={self.is_spent})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a presignature signs once, so it can be neither copied nor pickled")

    @property
    def is_spent(self) -> bool:
        return not self._secrets

    def discard(self) -> None:
        self._secrets.clear()

    def sign(self, digest: bytes) -> tuple[int, int]:
        """Round 3: return u' and w. Works once, for one digest, which the caller allows."""
        if not isinstance(digest, bytes) or len(digest) != DIGEST_BYTES:
            raise InvalidFieldError("digest", f"must be {DIGEST_BYTES} bytes")
        refuse_banned(self._pairs)
        try:
            mask, u, v = self._secrets.pop()  # one atomic step: of two threads, one gets them
        except IndexError:
            raise ProtocolStateError(
                "This presignature is spent", hint="Make a new one for each signature"
            ) from None
        shift = nonce_shift(
            presignature_id=self.name, public_key=self.public_key, digest=digest, signers=self.operators
        )
        shifted = shift_nonce(self.nonce_point, shift)
        if shifted is None:
            raise SigningAbort(Reason.DEGENERATE_NONCE)
        w = int.from_bytes(digest, "big") * mask + int.from_bytes(shifted[1:], "big") * v
        return (u + shift * mask) % ORDER, w % ORDER

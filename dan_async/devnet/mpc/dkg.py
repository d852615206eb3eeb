"""
Key generation, t of n, without a dealer.

The protocol is Pedersen's (T. Pedersen, "A threshold cryptosystem without a trusted party", EUROCRYPT 1991, section 3):
every party deals a random polynomial of degree t - 1 with Feldman's commitments (``field``), and the key is the sum of
all constant terms. Three things are added to it:

* a proof of possession by every dealer (Schnorr, in ``field``), which keeps rogue keys out;
* a commit round: everybody is bound to a hash of the contribution before seeing anyone else's, and any fault ends the
  session, so that a rushing adversary cannot bias the key by contributing last or by having its own contribution
  disqualified (Gennaro, Jarecki, Krawczyk and Rabin, J. Cryptology 20, 2007, section 3);
* an echo round (Goldwasser and Lindell, "Secure computation without agreement", DISC 2002): everybody signs a hash of
  all that was broadcast, and the key counts only with all n signatures over the same hash. So plain links will do for a
  broadcast channel. The n signatures are a certificate (the idea is ChillDKG's, bip-frost-dkg): a party that lacks some
  echoes takes it from anybody, however late, and so all honest parties finish as soon as one has and passes it on.

Security: a static, malicious, rushing adversary that controls up to t - 1 of the parties learns nothing about the key
beyond the public key, in the random-oracle model under the discrete-logarithm assumption. It gives security with abort
and no more: a single party can stop the session, also after it has seen the key that would come of it, and bias the key
by doing so over and over; every such attempt is seen. One honest party may finish before another, which then waits for
the certificate.

Several keys may be made at once (``count``): every party deals one polynomial for each, all of them under one
commitment, one signature and one echo. Each key is made as if alone; a fault in one of them ends the session for all.

A wrong share is answered by a signed complaint (Pedersen, section 4.1). Every check of a dealer's messages depends only
on bytes that the dealer has signed or committed to, so that a third party comes to the same verdict.

Everything that is signed is bound to the session's context: a signature holds for one session, sender and recipient.
Links between parties must be authenticated, and those for shares encrypted. ``verify`` above all computes for
milliseconds and belongs in an executor.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, TypeVar

from attrs import define, evolve, field, frozen

from dan_async._values import check_int, from_hex, mask_secret
from dan_async.config import MAX_PARTIES, Threshold
from dan_async.crypto.address import parse_address
from dan_async.crypto.curve import ORDER, base_multiply, decode, encode
from dan_async.crypto.hashes import DIGEST_BYTES, tagged_hash
from dan_async.crypto.signature import parse_signature, signer_of
from dan_async.devnet.mpc.aborts import DkgAbort, Reason, Stepwise, from_all_others, step
from dan_async.devnet.mpc.field import (
    PROOF_BYTES,
    CommitmentVector,
    Entropy,
    Polynomial,
    add_commitments,
    commit,
    evaluate_in_exponent,
    is_valid_proof,
    prove,
    scalar_from_bytes,
    scalar_to_bytes,
    share_matches,
)
from dan_async.devnet.mpc.framing import (
    NONCE_BYTES,
    POINT_BYTES,
    SCALAR_BYTES,
    SIGNATURE_BYTES,
    Digest,
    Index,
    Message,
    Nonce,
    Signature,
    check_session_id,
    counted,
    join_parts,
    sized,
    split_parts,
    up_to_last,
)
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import HASH, Form, list_of, number, scalar, wire, write_hex
from dan_async.protocols.fields import decode as read_message
from dan_async.types import Json, OperatorAddress

#: Most keys that one session makes: the points of all of them are counted in one byte.
MOST_KEYS = 16


# --- the session ------------------------------------------------------------------------------------------------------


def _checksummed(identities: Iterable[str]) -> tuple[OperatorAddress, ...]:
    return tuple(OperatorAddress(parse_address("identities", identity)) for identity in identities)


@frozen(kw_only=True)
class Session:
    """A session id that is never used twice, t and n, the addresses of parties 1 to n, and how many keys are made."""

    session_id: bytes
    threshold: Threshold
    identities: tuple[OperatorAddress, ...] = field(converter=_checksummed)
    count: int = 1
    #: H("dan-dkg/1 context", session id, t, n, each identity): in every hash, proof and signature of the session. With
    #: several keys their number is in it too.
    context: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        check_session_id(self.session_id)
        check_int("count", self.count, least=1, most=min(MOST_KEYS, 255 // self.threshold.t))
        if len(self.identities) != self.threshold.n:
            raise InvalidFieldError("identities", f"must be {self.threshold.n}, one for each party")
        if len(set(self.identities)) != len(self.identities):
            raise InvalidFieldError("identities", "must differ from each other")
        raw = (from_hex(identity, field="identities") for identity in self.identities)
        tag = "dan-dkg/1 context" if self.count == 1 else f"dan-dkg/1 context of {self.count} keys"
        context = tagged_hash(tag, self.session_id, self.threshold.t, self.threshold.n, *raw)
        object.__setattr__(self, "context", context)

    def is_signed_by(self, index: int, digest: bytes, signature: bytes) -> bool:
        """Return whether a party signed a digest, in the one canonical form (low s, v 27 or 28) that counts."""
        if not 1 <= index <= self.threshold.n:
            return False
        is_theirs = signer_of(digest, signature) == self.identities[index - 1]
        return is_theirs and signature == parse_signature(signature)


# --- messages ---------------------------------------------------------------------------------------------------------


def _check_whole(name: str, parts: bytes, size: int) -> None:
    """Check that bytes are one part for each key: of how many keys is for the protocol to check."""
    if not parts or len(parts) % size:
        raise InvalidFieldError(name, "is too short or too long")


@frozen(kw_only=True)
class CommitmentMessage(Message):
    """Round 1, to everybody: a hash commitment to the opening that follows."""

    KIND = 1

    sender: Index
    commitment: Digest


@frozen(kw_only=True)
class OpeningMessage(Message):
    """Round 2, to everybody: key after key Feldman commitments, of any number, and a proof of possession of the first."""

    KIND = 2

    sender: Index
    points: Annotated[tuple[bytes, ...], counted(POINT_BYTES)]
    proofs: Annotated[bytes, up_to_last(NONCE_BYTES)]
    nonce: Nonce

    def __attrs_post_init__(self) -> None:
        _check_whole("opening", self.proofs, PROOF_BYTES)


@frozen(kw_only=True, repr=False)
class ShareMessage(Message):
    """Round 2, to one party only: its share of each key, signed with the commitment, so that a wrong one can be shown."""

    KIND = 3

    sender: Index
    recipient: Index
    share: Annotated[bytes, up_to_last(DIGEST_BYTES + SIGNATURE_BYTES)]
    commitment: Digest
    signature: Signature = b""

    def __attrs_post_init__(self) -> None:
        _check_whole("share", self.share, SCALAR_BYTES)

    def __repr__(self) -> str:
        return f"ShareMessage(sender={self.sender}, recipient={self.recipient}, share=***)"

    def digest(self, context: bytes) -> bytes:
        return tagged_hash(
            "dan-dkg/1 share", context, self.sender, self.recipient, self.share, self.commitment
        )


@frozen(kw_only=True)
class EchoMessage(Message):
    """Round 3, to everybody: the hash of all that was broadcast, signed."""

    KIND = 4

    sender: Index
    transcript_hash: Digest
    signature: Signature = b""

    def digest(self, context: bytes) -> bytes:
        return tagged_hash("dan-dkg/1 echo", context, self.transcript_hash)


@frozen(kw_only=True, repr=False)
class ComplaintMessage(Message):
    """A share that does not fit its dealer's commitments, shown to others: its key generation has failed anyway."""

    KIND = 5

    sender: Index
    share_message: Annotated[bytes, sized()]
    opening: Annotated[bytes, up_to_last(SIGNATURE_BYTES)]
    signature: Signature = b""

    def __repr__(self) -> str:
        return f"ComplaintMessage(sender={self.sender}, share_message=***)"

    def digest(self, context: bytes) -> bytes:
        return tagged_hash("dan-dkg/1 complaint", context, self.sender, self.share_message, self.opening)


Signed = TypeVar("Signed", ShareMessage, EchoMessage, ComplaintMessage)


def sign_message(message: Signed, context: bytes, sign: Callable[[bytes], bytes]) -> Signed:
    return evolve(message, signature=sign(message.digest(context)))


def is_signed(message: Signed, session: Session) -> bool:
    return session.is_signed_by(message.sender, message.digest(session.context), message.signature)


def opening_commitment(opening: bytes) -> bytes:
    return tagged_hash("dan-dkg/1 commitment", opening)


def transcript_hash(context: bytes, commitments: Mapping[int, bytes], openings: Mapping[int, bytes]) -> bytes:
    parts = [part for index in sorted(openings) for part in (commitments[index], openings[index])]
    return tagged_hash("dan-dkg/1 transcript", context, *parts)


# --- the share that a party keeps -------------------------------------------------------------------------------------


def _read_point(name: str, value: Json) -> bytes:
    return encode(decode(from_hex(value, field=name), field=name))


_POINT = Form(_read_point, write_hex)


@frozen(kw_only=True)
class KeyShare:
    """A party's share of a distributed key, and its public side. As JSON it holds the secret."""

    #: 1 to n.
    index: Annotated[int, wire("index", number(1, MAX_PARTIES))]
    t: Annotated[int, wire("t", number(2, MAX_PARTIES))]
    n: Annotated[int, wire("n", number(2, MAX_PARTIES))]
    #: x_i = f(index), a share of the private key f(0).
    secret_share: Annotated[int, wire("secretShare", scalar(ORDER))] = field(repr=mask_secret)
    #: f(0)·G, and f(i)·G of every party in the order of indices; 33 bytes each.
    public_key: Annotated[bytes, wire("publicKey", _POINT)]
    public_shares: Annotated[tuple[bytes, ...], wire("publicShares", list_of(_POINT, 0, MAX_PARTIES))]
    #: All parties signed it at the end of key generation.
    transcript_hash: Annotated[bytes, wire("transcriptHash", HASH)]

    def __attrs_post_init__(self) -> None:
        check_int("index", self.index, least=1, most=self.threshold.n)
        if not 0 < self.secret_share < ORDER:
            raise InvalidFieldError("secretShare", "must be from 1 to the group order - 1")
        if len(self.public_shares) != self.n:
            raise InvalidFieldError("publicShares", "must be one for each party")
        if len(self.transcript_hash) != DIGEST_BYTES:
            raise InvalidFieldError("transcriptHash", f"must hold {DIGEST_BYTES} bytes")

    @property
    def threshold(self) -> Threshold:
        return Threshold(self.t, self.n)

    @property
    def public_share(self) -> bytes:
        return self.public_shares[self.index - 1]


def read_share(name: str, value: Json) -> KeyShare:
    """Read a share back, whose secret must belong to its party's public share."""
    share = read_message(KeyShare, value, name)
    if encode(base_multiply(share.secret_share)) != share.public_share:
        raise InvalidFieldError("secretShare", "does not belong to the party's public share")
    return share


# --- one dealer -------------------------------------------------------------------------------------------------------


@define
class DealingError(Exception):
    """A dealer broke the protocol; provably, if the dealer's own signature shows it to others."""

    reason: Reason
    provable: bool = field(kw_only=True)


def proof_context(session: Session, dealer: int, points: tuple[bytes, ...]) -> bytes:
    """Bind a proof of possession to the session, the dealer's index and the whole commitment vector."""
    return tagged_hash("dan-dkg/1 proof context", session.context, dealer, *points)


def check_dealing(
    session: Session, *, dealer: int, recipient: int, opening: bytes, share: bytes
) -> tuple[list[CommitmentVector], list[int]]:
    """Check an opening that the dealer committed to, and shares that it signed; return of each key commitments and share."""
    try:
        message = OpeningMessage.decode(opening, session.context)
    except InvalidFieldError:
        raise DealingError(Reason.MALFORMED_MESSAGE, provable=True) from None
    if message.sender != dealer:
        raise DealingError(Reason.MALFORMED_MESSAGE, provable=True)
    t, count = session.threshold.t, session.count
    if len(message.points) != count * t:
        raise DealingError(Reason.VECTOR_LENGTH, provable=True)
    if len(message.proofs) != count * PROOF_BYTES:
        raise DealingError(Reason.PROOF_OF_POSSESSION, provable=True)
    if len(share) != count * SCALAR_BYTES:
        raise DealingError(Reason.WRONG_SHARE, provable=True)
    try:
        points = [decode(point) for point in message.points]
    except InvalidFieldError:
        raise DealingError(Reason.INVALID_POINT, provable=True) from None
    context = proof_context(session, dealer, message.points)
    vectors = [tuple(points[at : at + t]) for at in range(0, count * t, t)]
    for vector, proof in zip(vectors, _parts(message.proofs, PROOF_BYTES), strict=True):
        if not is_valid_proof(proof, vector[0], context=context):
            raise DealingError(Reason.PROOF_OF_POSSESSION, provable=True)
    try:
        values = [scalar_from_bytes("share", part) for part in _parts(share, SCALAR_BYTES)]
    except InvalidFieldError:
        raise DealingError(Reason.WRONG_SHARE, provable=True) from None
    if not all(
        share_matches(vector, recipient, value) for vector, value in zip(vectors, values, strict=True)
    ):
        raise DealingError(Reason.WRONG_SHARE, provable=True)
    return vectors, values


def _parts(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


# --- complaints -------------------------------------------------------------------------------------------------------


def make_complaint(
    session: Session, *, index: int, share_message: bytes, opening: bytes, sign: Callable[[bytes], bytes]
) -> bytes:
    """Write a complaint about a share, from the share message and its dealer's opening message as they were received."""
    complaint = ComplaintMessage(sender=index, share_message=share_message, opening=opening)
    return sign_message(complaint, session.context, sign).encode(session.context)


def check_complaint(complaint: bytes, session: Session) -> int | None:
    """
    Find the culprit from the complaint alone: the dealer, if what it signed is really wrong, else who complained.

    None if the complaint is malformed, of another session, or not signed by the party in whose name it speaks: that is the
    fault of the party that handed it over.
    """
    try:
        message = ComplaintMessage.decode(complaint, session.context)
    except InvalidFieldError:
        return None
    if not is_signed(message, session):
        return None
    try:
        share = ShareMessage.decode(message.share_message, session.context)
    except InvalidFieldError:
        return message.sender
    if share.recipient != message.sender or not is_signed(share, session):
        return message.sender
    if opening_commitment(message.opening) != share.commitment:
        return message.sender
    try:
        check_dealing(
            session,
            dealer=share.sender,
            recipient=share.recipient,
            opening=message.opening,
            share=share.share,
        )
    except DealingError:
        return share.sender
    return message.sender


# --- one party --------------------------------------------------------------------------------------------------------


@frozen
class DkgOpening:
    """A party's messages of round 2: the same broadcast to all, and to each other party its share, for its eyes only."""

    broadcast: bytes
    shares: Mapping[int, bytes] = field(repr=mask_secret)


class DkgParty(Stepwise):
    """
    One party of one key generation, or of the generation of several keys at once.

    Mappings go from a party's index to its message, and hold the other parties only. A message that did not come in time
    is left out; the party then aborts and names the silent ones. No two key generations have one session id; ``sign``
    signs a 32-byte digest with this party's identity key.
    """

    PROTOCOL = "Key generation"
    PHASE = "keygen"
    STEPS = ("commit", "open", "verify", "finish")
    HINT = "a new key needs a new party and a new session id"

    def __init__(
        self,
        session: Session,
        index: int,
        sign: Callable[[bytes], bytes],
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        self._session = session
        self._index = check_int("index", index, least=1, most=session.threshold.n)
        self._sign = sign
        self._entropy = entropy
        #: Of each key, as all that follows.
        self._polynomials: tuple[Polynomial, ...] = ()
        self._vectors: tuple[CommitmentVector, ...] = ()
        self._opening = b""
        self._commitments: dict[int, bytes] = {}
        self._echo = b""
        self._transcript_hash = b""
        self._result: tuple[KeyShare, ...] = ()
        #: All parties' signatures of the transcript, in their order, once the share is released.
        self.certificate = b""

    def __repr__(self) -> str:
        return f"DkgParty(index={self._index}, threshold={self._session.threshold}, step={self.next_step!r})"

    @step
    def commit(self) -> bytes:
        """Round 1: draw the polynomials; commit to their commitments and proofs of possession, towards everybody."""
        session = self._session
        degree = session.threshold.t - 1
        self._polynomials = tuple(Polynomial.random(degree, self._entropy) for _ in range(session.count))
        self._vectors = tuple(map(commit, self._polynomials))
        points = tuple(encode(point) for vector in self._vectors for point in vector)
        context = proof_context(session, self._index, points)
        proofs = [
            prove(polynomial.coefficients[0], vector[0], context=context, entropy=self._entropy)
            for polynomial, vector in zip(self._polynomials, self._vectors, strict=True)
        ]
        opening = OpeningMessage(
            sender=self._index, points=points, proofs=b"".join(proofs), nonce=self._entropy(NONCE_BYTES)
        )
        self._opening = opening.encode(session.context)
        commitment = opening_commitment(self._opening)
        self._commitments[self._index] = commitment
        return CommitmentMessage(sender=self._index, commitment=commitment).encode(session.context)

    @step
    def open(self, commitments: Mapping[int, bytes]) -> DkgOpening:
        """Round 2: open the commitment and hand out the shares. Only now, with everybody else's commitment at hand."""
        received = self._from_all_others("commitments", commitments)
        faults: list[int] = []
        for sender, data in received.items():
            try:
                message = CommitmentMessage.decode(data, self._session.context)
            except InvalidFieldError:
                faults.append(sender)
                continue
            if message.sender != sender:
                faults.append(sender)
            self._commitments[sender] = message.commitment
        if faults:
            raise DkgAbort(Reason.MALFORMED_MESSAGE, faults)
        shares = {recipient: self._share_message(recipient) for recipient in received}
        if not is_signed(next(iter(shares.values())), self._session):
            raise InvalidFieldError("sign", "must sign with the identity key of this party")
        return DkgOpening(
            broadcast=self._opening,
            shares={recipient: share.encode(self._session.context) for recipient, share in shares.items()},
        )

    @step
    def verify(self, openings: Mapping[int, bytes], shares: Mapping[int, bytes]) -> bytes:
        """Round 3: check every opening and share, derive the keys, and sign the transcript. The expensive step."""
        received = self._from_all_others("openings", openings)
        received_shares = self._from_all_others("shares", shares)
        faults: dict[int, DealingError] = {}
        dealings: list[tuple[Sequence[CommitmentVector], list[int]]] = [
            (self._vectors, [polynomial.evaluate(self._index) for polynomial in self._polynomials])
        ]
        for dealer, opening in received.items():
            try:
                dealings.append(self._check_dealer(dealer, opening, received_shares[dealer]))
            except DealingError as error:
                faults[dealer] = error
        if faults:
            raise self._blame(faults, received, received_shares)
        received[self._index] = self._opening
        self._transcript_hash = transcript_hash(self._session.context, self._commitments, received)
        self._result = tuple(
            self._derive(
                [vectors[key] for vectors, _ in dealings], sum(shares[key] for _, shares in dealings)
            )
            for key in range(self._session.count)
        )
        echo = EchoMessage(sender=self._index, transcript_hash=self._transcript_hash)
        self._echo = sign_message(echo, self._session.context, self._sign).encode(self._session.context)
        return self._echo

    def finish(self, echoes: Mapping[int, bytes]) -> tuple[KeyShare, ...]:
        """
        Check that all parties signed the same transcript, and release the share of each key.

        Echoes may come through anybody. The one step whose failure is not the party's end: it keeps the shares, for
        ``certify``.
        """
        self._begin("finish")
        try:
            signatures = self._agreeing(echoes)
        except DkgAbort:
            self._taken = self.STEPS.index("finish")
            raise
        return self._release(signatures)

    def certify(self, certificate: bytes) -> tuple[KeyShare, ...] | None:
        """Release the shares for a certificate, whoever brings it; None if it is none of this transcript."""
        self._begin("finish")
        session, parts = self._session, _parts(certificate, SIGNATURE_BYTES)
        digest = EchoMessage.decode(self._echo, session.context).digest(session.context)
        is_whole = len(parts) == session.threshold.n
        if is_whole and all(session.is_signed_by(i, digest, part) for i, part in enumerate(parts, 1)):
            return self._release(parts)
        self._taken = self.STEPS.index("finish")
        return None

    def _agreeing(self, echoes: Mapping[int, bytes]) -> list[bytes]:
        """Return all parties' signatures of this party's transcript."""
        received = self._from_all_others("echoes", echoes)
        signatures: dict[int, bytes] = {}
        malformed: list[int] = []
        unsigned: list[int] = []
        differing = False
        for sender, data in received.items():
            try:
                echo = EchoMessage.decode(data, self._session.context)
            except InvalidFieldError:
                malformed.append(sender)
                continue
            if echo.sender != sender or not is_signed(echo, self._session):
                unsigned.append(sender)
            signatures[sender] = echo.signature
            differing |= echo.transcript_hash != self._transcript_hash
        if malformed:
            raise DkgAbort(Reason.MALFORMED_MESSAGE, malformed)
        if unsigned:
            raise DkgAbort(Reason.ECHO_SIGNATURE, unsigned)
        if differing:
            raise DkgAbort(Reason.EQUIVOCATION, echoes={**received, self._index: self._echo})
        signatures[self._index] = EchoMessage.decode(self._echo, self._session.context).signature
        return [signatures[index] for index in sorted(signatures)]

    def _release(self, signatures: Sequence[bytes]) -> tuple[KeyShare, ...]:
        result = self._result
        self.certificate = b"".join(signatures)
        self._forget()
        return result

    def _forget(self) -> None:
        self._polynomials = ()
        self._result = ()

    def _from_all_others(self, name: str, messages: Mapping[int, bytes]) -> dict[int, bytes]:
        others = [i for i in range(1, self._session.threshold.n + 1) if i != self._index]
        return from_all_others(others, name, messages, DkgAbort)

    def _share_message(self, recipient: int) -> ShareMessage:
        message = ShareMessage(
            sender=self._index,
            recipient=recipient,
            share=b"".join(
                scalar_to_bytes(polynomial.evaluate(recipient)) for polynomial in self._polynomials
            ),
            commitment=self._commitments[self._index],
        )
        return sign_message(message, self._session.context, self._sign)

    def _check_dealer(
        self, dealer: int, opening: bytes, share_data: bytes
    ) -> tuple[Sequence[CommitmentVector], list[int]]:
        if not isinstance(opening, bytes) or opening_commitment(opening) != self._commitments[dealer]:
            raise DealingError(Reason.COMMITMENT_MISMATCH, provable=False)
        try:
            share = ShareMessage.decode(share_data, self._session.context)
        except InvalidFieldError:
            raise DealingError(Reason.MALFORMED_MESSAGE, provable=False) from None
        if share.sender != dealer or share.recipient != self._index:
            raise DealingError(Reason.MALFORMED_MESSAGE, provable=False)
        if not is_signed(share, self._session):
            raise DealingError(Reason.SHARE_SIGNATURE, provable=False)
        if share.commitment != self._commitments[dealer]:
            raise DealingError(Reason.SHARE_COMMITMENT, provable=False)
        return check_dealing(
            self._session, dealer=dealer, recipient=self._index, opening=opening, share=share.share
        )

    def _blame(
        self, faults: Mapping[int, DealingError], openings: Mapping[int, bytes], shares: Mapping[int, bytes]
    ) -> DkgAbort:
        # The first provable fault is the one to report: it comes with a complaint that convinces the others.
        first = next((dealer for dealer in sorted(faults) if faults[dealer].provable), min(faults))
        complaint = None
        if faults[first].provable:
            complaint = make_complaint(
                self._session,
                index=self._index,
                share_message=shares[first],
                opening=openings[first],
                sign=self._sign,
            )
        return DkgAbort(faults[first].reason, tuple(faults), complaint=complaint)

    def _derive(self, vectors: list[CommitmentVector], secret_share: int) -> KeyShare:
        """Add up all dealings: key Σ F_j,0, public shares from the summed commitments (once, not once per dealer)."""
        summed = add_commitments(vectors)
        points = (
            [evaluate_in_exponent(summed, i + 1) for i in range(self._session.threshold.n)] if summed else []
        )
        public_shares = tuple(encode(point) for point in points if point is not None)
        if summed is None or len(public_shares) != self._session.threshold.n:
            # Infinity among the sums: possible only with probability 2^-256 times a few hundred.
            raise DkgAbort(Reason.DEGENERATE_KEY)
        return KeyShare(
            index=self._index,
            t=self._session.threshold.t,
            n=self._session.threshold.n,
            secret_share=secret_share % ORDER,
            public_key=encode(summed[0]),
            public_shares=public_shares,
            transcript_hash=self._transcript_hash,
        )


# --- proofs of equivocation -------------------------------------------------------------------------------------------
#
# ``DkgParty`` notices equivocation when the signed transcript hashes differ, and cannot tell the liar from them. Here
# every party signs its commitment of round 1, and sends all commitments that it has got along with its echo: two that one
# party signed in one session are a proof against it. (The echo broadcast of Goldwasser and Lindell, "Secure multi-party
# computation without agreement", J. Cryptology 18, 2005, plus signatures, which name the cheat.) The signature of a share
# covers the commitment as well, so that an opening to which its dealer had not committed is proven in the same way; a
# message of round 2 without such a signature proves no more than silence. Security: however many parties are malicious,
# none can make another look guilty without forging its signature. No proof shows anything that is secret in a session
# which has not failed.

#: First byte of a proof of equivocation; complaints begin with another.
_PROOF = b"\xe0"


@frozen
class _Signed:
    """A commitment message and its sender's signature."""

    message: bytes
    signature: bytes

    def is_signed(self, session: Session, index: int) -> bool:
        return session.is_signed_by(index, _digest(session, self.message), self.signature)

    def encode(self) -> bytes:
        return join_parts((self.message, self.signature))

    @classmethod
    def decode(cls, body: bytes) -> _Signed:
        return cls(*split_parts(body, 2))


def _digest(session: Session, message: bytes) -> bytes:
    return tagged_hash("dan-devnet commitment", session.context, message)


def check_evidence(session: Session, evidence: bytes) -> int | None:
    """Return the culprit that a complaint proves, or two commitments with one signer; None if they prove nothing."""
    if evidence[:1] != _PROOF:
        return check_complaint(evidence, session)
    try:
        one, other = (_commitment(session, part) for part in split_parts(evidence[1:], 2))
    except (InvalidFieldError, ProtocolError):
        return None
    return one[0] if one[0] == other[0] and one[1] != other[1] else None


def _commitment(session: Session, data: bytes) -> tuple[int, bytes]:
    """Return who signed a commitment in a message of round 1, or along with a share, and the commitment."""
    with suppress(InvalidFieldError):
        share = ShareMessage.decode(data, session.context)
        if is_signed(share, session):
            return share.sender, share.commitment
    signed = _Signed.decode(data)
    message = CommitmentMessage.decode(signed.message, session.context)
    if not signed.is_signed(session, message.sender):
        raise InvalidFieldError("commitment", "is not signed by its sender")
    return message.sender, message.commitment


class ProvingParty:
    """A ``DkgParty`` that can prove who equivocates: the bodies that its steps take and return sign and show commitments."""

    def __init__(self, session: Session, index: int, sign: Callable[[bytes], bytes]) -> None:
        self.dkg = DkgParty(session, index, sign)
        self._session, self._index, self._sign = session, index, sign
        #: Everybody's signed commitment, as this party has got it.
        self._book: dict[int, _Signed] = {}
        self._echo = b""

    def commit(self) -> bytes:
        message = self.dkg.commit()
        signature = self._sign(_digest(self._session, message))
        self._book[self._index] = _Signed(message, signature)
        return self._book[self._index].encode()

    def open(self, bodies: Mapping[int, bytes]) -> dict[int, bytes]:
        """Take in the others' commitments; return the opening for each of them, with its share."""
        signed = {index: _Signed(*parts) for index, parts in self._split(bodies, 2).items()}
        bad = [index for index, entry in signed.items() if not entry.is_signed(self._session, index)]
        if bad:
            raise DkgAbort(Reason.MALFORMED_MESSAGE, bad)
        self._book.update(signed)
        opening = self.dkg.open({index: entry.message for index, entry in signed.items()})
        return {index: join_parts((opening.broadcast, share)) for index, share in opening.shares.items()}

    def verify(self, bodies: Mapping[int, bytes]) -> bytes:
        """Check all openings and shares; of an opening that its dealer signed and had not committed to, find the proof."""
        parts = self._split(bodies, 2)
        shares = {index: share for index, (_, share) in parts.items()}
        try:
            self._echo = self.dkg.verify({index: opening for index, (opening, _) in parts.items()}, shares)
        except DkgAbort as abort:
            if abort.complaint is None:
                proofs = (self._proof(dealer, shares[dealer]) for dealer in abort.culprits)
                abort.complaint = next(filter(None, proofs), None)
            raise
        return join_parts((self._echo, *(self._book[index].encode() for index in self._indices)))

    def finish(self, bodies: Mapping[int, bytes]) -> tuple[KeyShare, ...]:
        """Release the shares; if parties have got different commitments, find the culprit."""
        parts = self._split(bodies, 1 + self._session.threshold.n)
        echoes = {index: echo for index, (echo, *_) in parts.items()}
        try:
            return self.dkg.finish(echoes)
        except DkgAbort as abort:
            if abort.reason != Reason.EQUIVOCATION:
                raise
            culprits, proof = self._judge(echoes, {index: book for index, (_, *book) in parts.items()})
            raise DkgAbort(
                Reason.EQUIVOCATION, tuple(culprits), complaint=proof, echoes=abort.echoes
            ) from abort

    def _split(self, bodies: Mapping[int, bytes], count: int) -> dict[int, list[bytes]]:
        parts, bad = {}, []
        for index, body in bodies.items():
            try:
                parts[index] = split_parts(body, count)
            except ProtocolError:
                bad.append(index)
        if bad:
            raise DkgAbort(Reason.MALFORMED_MESSAGE, bad)
        return parts

    @property
    def _indices(self) -> range:
        return range(1, self._session.threshold.n + 1)

    def _judge(
        self, echoes: Mapping[int, bytes], books: Mapping[int, list[bytes]]
    ) -> tuple[set[int], bytes | None]:
        # A party that signed two commitments is to blame, and that is proven. So is, as far as this party knows itself, one
        # that passes on a commitment that nobody signed, and one that has the same commitments and yet signs another
        # transcript: the openings follow from the commitments.
        culprits: set[int] = set()
        proof: bytes | None = None
        expected = EchoMessage.decode(self._echo, self._session.context).transcript_hash
        for sender, book in books.items():
            differing = [i for i, body in zip(self._indices, book, strict=True) if not self._has(i, body)]
            for dealer in differing:
                found = self._proof(dealer, book[dealer - 1])
                culprits.add(sender if found is None else dealer)
                proof = proof or found
            echo = EchoMessage.decode(echoes[sender], self._session.context)
            if not differing and echo.transcript_hash != expected:
                culprits.add(sender)
        return culprits - {self._index}, proof

    def _has(self, dealer: int, body: bytes) -> bool:
        try:
            return _Signed.decode(body).message == self._book[dealer].message
        except ProtocolError:
            return False

    def _proof(self, dealer: int, body: bytes) -> bytes | None:
        proof = _PROOF + join_parts((self._book[dealer].encode(), body))
        return proof if check_evidence(self._session, proof) == dealer else None

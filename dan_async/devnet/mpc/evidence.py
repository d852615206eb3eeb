"""
Proofs of equivocation: signed commitments, passed on with the echoes.

``dkg`` notices equivocation when the signed transcript hashes differ, and cannot tell the liar from them. Here every
party signs its commitment of round 1, and sends all commitments that it has got along with its echo: two that one party
signed in one session are a proof against it. (The echo broadcast of Goldwasser and Lindell, "Secure multi-party
computation without agreement", J. Cryptology 18, 2005, plus signatures, which name the cheat.) The signature of a share
covers the commitment as well, so that an opening to which its dealer had not committed is proven in the same way; a message
of round 2 without such a signature proves no more than silence. Security: however many parties are malicious, none can make
another look guilty without forging its signature. No proof shows anything that is secret in a session which has not failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from attrs import frozen

from dan_async.crypto.hashes import tagged_hash
from dan_async.devnet.mpc.aborts import DkgAbort, Reason
from dan_async.devnet.mpc.dkg import (
    CommitmentMessage,
    DkgParty,
    EchoMessage,
    KeyShare,
    Session,
    ShareMessage,
    check_complaint,
    is_signed,
)
from dan_async.devnet.mpc.framing import join_parts, split_parts
from dan_async.errors import InvalidFieldError, ProtocolError

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


def sign_commitment(session: Session, message: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    return _Signed(message, sign(_digest(session, message))).encode()


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


class CommitmentBook:
    """The signed commitments of one session, as one party has got them."""

    def __init__(self, session: Session, index: int) -> None:
        self._session = session
        self._index = index
        self._entries: dict[int, _Signed] = {}

    def read(self, own: bytes, bodies: Mapping[int, bytes]) -> dict[int, bytes]:
        """Take in the bodies of round 1, this party's and the others'; return the others' commitment messages."""
        bad = []
        for index, body in {**bodies, self._index: own}.items():
            try:
                signed = _Signed.decode(body)
            except ProtocolError:
                bad.append(index)
                continue
            if not signed.is_signed(self._session, index):
                bad.append(index)
            self._entries[index] = signed
        if bad:
            raise DkgAbort(Reason.MALFORMED_MESSAGE, bad)
        return {index: self._entries[index].message for index in bodies}

    def verify(self, party: DkgParty, openings: Mapping[int, bytes], shares: Mapping[int, bytes]) -> bytes:
        """Take round 3's step; of an opening that its dealer signed and had not committed to, find the proof."""
        try:
            return party.verify(openings, shares)
        except DkgAbort as abort:
            if abort.complaint is None:
                proofs = (self._proof(dealer, shares[dealer]) for dealer in abort.culprits)
                abort.complaint = next(filter(None, proofs), None)
            raise

    def echo(self, echo: bytes) -> bytes:
        return join_parts((echo, *(self._entries[index].encode() for index in self._indices)))

    def finish(self, party: DkgParty, own_echo: bytes, bodies: Mapping[int, bytes]) -> tuple[KeyShare, ...]:
        """Take the last step of a key generation; if parties have got different commitments, find the culprit."""
        echoes: dict[int, bytes] = {}
        books: dict[int, list[bytes]] = {}
        bad = []
        for index, body in bodies.items():
            try:
                echoes[index], *books[index] = split_parts(body, 1 + self._session.threshold.n)
            except ProtocolError:
                bad.append(index)
        if bad:
            raise DkgAbort(Reason.MALFORMED_MESSAGE, bad)
        try:
            return party.finish(echoes)
        except DkgAbort as abort:
            if abort.reason != Reason.EQUIVOCATION:
                raise
            culprits, proof = self._judge(own_echo, echoes, books)
            raise DkgAbort(
                Reason.EQUIVOCATION, tuple(culprits), complaint=proof, echoes=abort.echoes
            ) from abort

    @property
    def _indices(self) -> range:
        return range(1, self._session.threshold.n + 1)

    def _judge(
        self, own_echo: bytes, echoes: Mapping[int, bytes], books: Mapping[int, list[bytes]]
    ) -> tuple[set[int], bytes | None]:
        # A party that signed two commitments is to blame, and that is proven. So is, as far as this party knows itself, one
        # that passes on a commitment that nobody signed, and one that has the same commitments and yet signs another
        # transcript: the openings follow from the commitments.
        culprits: set[int] = set()
        proof: bytes | None = None
        expected = EchoMessage.decode(own_echo, self._session.context).transcript_hash
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
            return _Signed.decode(body).message == self._entries[dealer].message
        except ProtocolError:
            return False

    def _proof(self, dealer: int, body: bytes) -> bytes | None:
        proof = _PROOF + join_parts((self._entries[dealer].encode(), body))
        return proof if check_evidence(self._session, proof) == dealer else None

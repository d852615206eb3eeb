"""A whole key generation in one place, for tests: honest parties, and hand-made messages of dishonest ones."""

from __future__ import annotations

import itertools
import secrets

from coincurve import PrivateKey

from dan_async.config import Threshold
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import base_multiply, encode
from dan_async.crypto.signature import sign_digest
from dan_async.devnet.mpc.dkg import (
    CommitmentMessage,
    DkgParty,
    OpeningMessage,
    Session,
    ShareMessage,
    opening_commitment,
    proof_context,
    sign_message,
)
from dan_async.devnet.mpc.field import Polynomial, prove, scalar_to_bytes


class Group:
    """n parties; ``commitments``, ``openings``, ``shares`` and ``echoes`` hold what was sent and may be changed by a test."""

    def __init__(self, t=2, n=3, *, session_id=None, keys=None, count=1):
        self.threshold = Threshold(t, n)
        self.keys = keys or [PrivateKey() for _ in range(n)]
        self.identities = tuple(public_key_to_address(key.public_key.format()) for key in self.keys)
        self.session_id = session_id or secrets.token_bytes(32)
        self.count = count
        self.session = Session(
            session_id=self.session_id, threshold=self.threshold, identities=self.identities, count=count
        )
        self.parties = {i: self.party(i) for i in range(1, n + 1)}
        self.commitments = {}
        self.openings = {}
        self.shares = {}
        self.echoes = {}

    def party(self, number, **changes):
        agreed = {
            name: changes.pop(name, getattr(self, name))
            for name in ("session_id", "threshold", "identities", "count")
        }
        arguments = {"index": number, "sign": self.signer(number)}
        return DkgParty(Session(**agreed), **arguments | changes)

    def signer(self, index):
        return lambda digest: sign_digest(self.keys[index - 1], digest)

    @property
    def description(self):
        """The arguments of check_complaint besides the complaint."""
        return {"session_id": self.session_id, "threshold": self.threshold, "identities": self.identities}

    def commit(self):
        self.commitments = {i: party.commit() for i, party in self.parties.items()}
        return self

    def open(self):
        for i, party in self.parties.items():
            opening = party.open(others(i, self.commitments))
            self.openings[i] = opening.broadcast
            for recipient, share in opening.shares.items():
                self.shares[recipient, i] = share
        return self

    def shares_for(self, recipient):
        return {sender: share for (to, sender), share in self.shares.items() if to == recipient}

    def verify_one(self, index):
        return self.parties[index].verify(others(index, self.openings), self.shares_for(index))

    def verify(self):
        self.echoes = {i: self.verify_one(i) for i in self.parties}
        return self

    def finish_one(self, index):
        (share,) = self.parties[index].finish(others(index, self.echoes))
        return share

    def finish(self):
        return {i: self.finish_one(i) for i in self.parties}

    def run(self):
        return self.commit().open().verify().finish()

    def replace_dealer(self, dealer, **deviations):
        """Let ``dealer`` be played by hand-made messages from round 1 on; the others run honestly up to round 2."""
        forged = Dealing(self, dealer, **deviations)
        self.parties.pop(dealer)
        self.commit()
        self.commitments[dealer] = forged.commitment_message
        self.open()
        self.openings[dealer] = forged.opening
        for recipient in self.parties:
            self.shares[recipient, dealer] = forged.share_message(recipient)
        return forged


class Dealing:
    """One dealer's messages, made by hand so that each part can be wrong while everything else is right."""

    def __init__(
        self,
        group,
        dealer,
        *,
        degree=None,
        coefficients=None,
        points=None,
        proof=None,
        sender=None,
        share_offset=0,
        wrong_for=None,
        share_bytes=None,
        tail=b"",
    ):
        self.group, self.dealer = group, dealer
        self.share_offset, self.wrong_for, self.share_bytes = share_offset, wrong_for, share_bytes
        session = group.session
        degree = group.threshold.t - 1 if degree is None else degree
        drawn = Polynomial.random(degree, secrets.token_bytes)
        self.polynomial = Polynomial(coefficients) if coefficients else drawn
        honest_points = tuple(encode(base_multiply(c)) for c in self.polynomial.coefficients)
        self.points = honest_points if points is None else points
        self.proof = proof or prove(
            self.polynomial.coefficients[0],
            base_multiply(self.polynomial.coefficients[0]),
            context=proof_context(session, dealer, self.points),
            entropy=secrets.token_bytes,
        )
        message = OpeningMessage(
            sender=sender or dealer, points=self.points, proofs=self.proof, nonce=secrets.token_bytes(32)
        )
        self.opening = message.encode(session.context) + tail
        self.commitment = opening_commitment(self.opening)

    @property
    def commitment_message(self):
        return CommitmentMessage(sender=self.dealer, commitment=self.commitment).encode(
            self.group.session.context
        )

    def share_message(self, recipient, **changes):
        value = self.polynomial.evaluate(recipient)
        if self.wrong_for in (None, recipient):
            value += self.share_offset
        parts = {
            "sender": self.dealer,
            "recipient": recipient,
            "share": self.share_bytes or scalar_to_bytes(value),
            "commitment": self.commitment,
        } | changes
        context = self.group.session.context
        return sign_message(ShareMessage(**parts), context, self.group.signer(self.dealer)).encode(context)


def others(index, messages):
    return {sender: message for sender, message in messages.items() if sender != index}


def source(*scalars):
    """Entropy from which exactly these scalars are drawn first; what follows is arbitrary."""
    drawn = itertools.chain(
        ((s - 1).to_bytes(48, "big") for s in scalars), itertools.repeat(bytes(47) + b"\x05")
    )
    return lambda length: next(drawn)[-length:]

"""Signers for tests: pairs with a set-up dealt in one place (quick), or one made by the protocol, and whole signatures."""

from __future__ import annotations

import itertools
import secrets

from dan_async.crypto.curve import HALF_ORDER, ORDER
from dan_async.crypto.signature import recover_public_key
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.mpc.aborts import SigningAbort
from dan_async.devnet.mpc.field import scalar_to_bytes
from dan_async.devnet.mpc.ot import TRANSFERS, ReceiverSeeds, SenderSeeds
from dan_async.devnet.mpc.pairwise_setup import PairSetup, PairState
from dan_async.devnet.mpc.threshold_ecdsa import SigningParty
from dan_async.errors import InvalidFieldError
from dan_async.protocols.node import nonce_shift, shift_nonce

#: The reason of the abort of ``assemble``, which does what a client does.
INVALID_SIGNATURE = "the signature does not verify"

#: An identity for each party, whichever the key.
IDENTITIES = sorted(
    (NodeIdentity(bytes((number,)) * 32) for number in range(1, 21)), key=lambda node: node.operator.lower()
)
OPERATORS = tuple(identity.operator for identity in IDENTITIES)


def dealt_seeds():
    """What base transfers in one direction would leave at the extension's receiver and sender."""
    pairs = tuple((secrets.token_bytes(16), secrets.token_bytes(16)) for _ in range(TRANSFERS))
    delta = secrets.randbits(TRANSFERS)
    return ReceiverSeeds(pairs), SenderSeeds(
        delta, tuple(seeds[delta >> i & 1] for i, seeds in enumerate(pairs))
    )


def dealt_pair():
    """Both sides of a set-up, as the protocol would leave it."""
    (to_first, from_second), (to_second, from_first) = dealt_seeds(), dealt_seeds()
    common = {"context": secrets.token_bytes(32), "common_seed": secrets.token_bytes(32)}
    return (
        PairState(is_first=True, receiver=to_first, sender=from_first, **common),
        PairState(is_first=False, receiver=to_second, sender=from_second, **common),
    )


def run_setup(first, second):
    """Run the protocol between two PairSetup objects."""
    messages = first.start(), second.start()
    for step in ("choose", "challenge", "respond", "open"):
        messages = getattr(first, step)(messages[1]), getattr(second, step)(messages[0])
    return first.finish(messages[1]), second.finish(messages[0])


def made_pair(own, peer):
    """Both sides of a set-up between two addresses, made by the protocol."""
    session_id = secrets.token_bytes(32)
    return run_setup(
        PairSetup(session_id=session_id, own=own, peer=peer),
        PairSetup(session_id=session_id, own=peer, peer=own),
    )


def all_pairs(indices, make=lambda i, j: dealt_pair()):
    """Index to index to state, for every two parties."""
    pairs = {i: {} for i in indices}
    for i, j in itertools.combinations(indices, 2):
        pairs[i][j], pairs[j][i] = make(i, j)
    return pairs


def deliver(sent):
    """From what each party sends to each other, to what each receives from each other."""
    return {i: {j: messages[i] for j, messages in sent.items() if i in messages} for i in sent}


def others(index, messages):
    return {i: message for i, message in messages.items() if i != index}


class Signing:
    """The signers of one signature; ``commits``, ``multiplies`` hold what is delivered and may be changed by a test."""

    def __init__(self, shares, pairs, signers, *, session_id=None):
        self.session_id = session_id or secrets.token_bytes(32)
        self.signers = tuple(signers)
        self.public_key = shares[self.signers[0]].public_key
        self.parties = {
            i: SigningParty(
                session_id=self.session_id,
                share=shares[i],
                signers=self.signers,
                operators=OPERATORS,
                sign=IDENTITIES[i - 1].sign,
                pairs=pairs[i],
            )
            for i in self.signers
        }
        self.commits = {}
        self.multiplies = {}

    def commit(self):
        self.commits = deliver({i: party.commit() for i, party in self.parties.items()})
        return self

    def multiply(self):
        self.multiplies = deliver({i: party.multiply(self.commits[i]) for i, party in self.parties.items()})
        return self

    def presign(self):
        return {i: party.presign(self.multiplies[i]) for i, party in self.parties.items()}

    def run(self, digest):
        return finish(self.commit().multiply().presign(), digest)


def finish(presignatures, digest):
    """The last round: the shares, put together."""
    return combine(presignatures, digest, {i: p.sign(digest) for i, p in presignatures.items()})


def combine(presignatures, digest, shares):
    """The signature of these shares, checked; see ``assemble``."""
    presignature = next(iter(presignatures.values()))
    return assemble(
        public_key=presignature.public_key,
        nonce_point=shifted(presignature, digest),
        digest=digest,
        shares=shares,
    )


def shifted(presignature, digest):
    """R' of a presignature and a digest."""
    shift = nonce_shift(
        presignature_id=presignature.name,
        public_key=presignature.public_key,
        digest=digest,
        signers=presignature.operators,
    )
    return shift_nonce(presignature.nonce_point, shift)


def assemble(*, public_key, nonce_point, digest, shares):
    """s = Σw / Σu, made low, as 65 bytes r, s, v that recover to the key; else an abort."""
    denominator = sum(u for u, _ in shares.values()) % ORDER
    numerator = sum(w for _, w in shares.values()) % ORDER
    if not denominator:
        raise SigningAbort(INVALID_SIGNATURE)
    s = numerator * pow(denominator, -1, ORDER) % ORDER
    odd = nonce_point[0] & 1
    if s > HALF_ORDER:  # -s belongs to -R, whose y has the other parity
        s, odd = ORDER - s, odd ^ 1
    signature = nonce_point[1:] + scalar_to_bytes(s) + bytes((27 + odd,))
    try:
        recovered = recover_public_key(digest, signature)
    except InvalidFieldError:
        raise SigningAbort(INVALID_SIGNATURE) from None
    if recovered != public_key:
        raise SigningAbort(INVALID_SIGNATURE)
    return signature

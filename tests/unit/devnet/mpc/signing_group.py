"""Signers for tests: pairs with a set-up dealt in one place (quick), or one made by the protocol, and whole signatures."""

from __future__ import annotations

import itertools
import secrets

from dan_async.devnet.mpc.ot import TRANSFERS, ReceiverSeeds, SenderSeeds
from dan_async.devnet.mpc.pairwise_setup import PairSetup, PairState
from dan_async.devnet.mpc.threshold_ecdsa import SigningParty


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
            i: SigningParty(session_id=self.session_id, share=shares[i], signers=self.signers, pairs=pairs[i])
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
    """The last round; every signer must come to the same signature."""
    messages = {i: presignature.sign(digest) for i, presignature in presignatures.items()}
    signatures = {p.combine(others(i, messages)) for i, p in presignatures.items()}
    (signature,) = signatures
    return signature

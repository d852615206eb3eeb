"""
Measure the devnet's cryptography by itself: ``python -m benchmarks.signing`` (about half a minute), or with ``--quick``.

CPU time over all parties, one after the other in this process, without network, node or disk: a key generation, the
set-ups of all pairs, and signatures by t signers who take turns. What a signature costs before its message is known
(presignature) and after (share at each signer, combination at the client) is told apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field, frozen

from benchmarks.measure import commit_facts, platform_facts, say
from dan_async.config import Threshold
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.mpc.dkg import DkgParty, KeyShare, Session
from dan_async.devnet.mpc.pairwise_setup import PairSetup, PairState
from dan_async.devnet.mpc.threshold_ecdsa import Presignature, SigningParty
from dan_async.devnet.node.signing import make_share
from dan_async.nodes.signature_shares import combine_shares

__all__ = ["AIMS", "Group", "main", "measure"]

FORMAT = 1

#: What the project aims at, in ms of CPU over all parties: a signature, and key generation with all set-ups.
AIMS: Mapping[tuple[int, int], tuple[float, float]] = {(2, 3): (60.0, 500.0), (3, 5): (150.0, 1500.0)}

T = TypeVar("T")


@frozen
class Effort:
    """How much is measured."""

    keygens: int
    signatures: int


QUICK = Effort(keygens=1, signatures=12)
FULL = Effort(keygens=5, signatures=200)


@define
class Timer:
    """CPU times in ms, by what was done."""

    times: dict[str, list[float]] = field(factory=dict)

    def run(self, name: str, work: Callable[[], T]) -> T:
        start = time.process_time()
        result = work()
        self.times.setdefault(name, []).append(1000 * (time.process_time() - start))
        return result

    def median(self, name: str) -> float:
        return statistics.median(self.times[name])


class Group:
    """
    The parties of one key.

    Args:
        threshold: t and n.
    """

    def __init__(self, threshold: Threshold) -> None:
        self.threshold = threshold
        self.identities = sorted(
            (NodeIdentity.generate() for _ in range(threshold.n)), key=lambda node: node.operator.lower()
        )
        self.shares: dict[int, KeyShare] = {}
        self.pairs: dict[int, dict[int, PairState]] = {i: {} for i in self.indices}

    @property
    def indices(self) -> range:
        """1 to n."""
        return range(1, self.threshold.n + 1)

    def generate_key(self) -> None:
        """Run a key generation among all parties."""
        agreed = Session(
            session_id=secrets.token_bytes(32),
            threshold=self.threshold,
            identities=tuple(identity.operator for identity in self.identities),
        )
        parties = {i: DkgParty(agreed, i, self.identities[i - 1].sign) for i in self.indices}
        commitments = {i: party.commit() for i, party in parties.items()}
        openings = {i: party.open(_others(i, commitments)) for i, party in parties.items()}
        broadcasts = {i: opening.broadcast for i, opening in openings.items()}
        echoes = {}
        for i, party in parties.items():
            received = {j: opening.shares[i] for j, opening in openings.items() if j != i}
            echoes[i] = party.verify(_others(i, broadcasts), received)
        self.shares = {i: party.finish(_others(i, echoes))[0] for i, party in parties.items()}

    def set_up(self, one: int, other: int) -> None:
        """Run the set-up of a pair."""
        session_id = secrets.token_bytes(32)
        first, second = (self.identities[i - 1].operator for i in (one, other))
        sides = (
            PairSetup(session_id=session_id, own=first, peer=second),
            PairSetup(session_id=session_id, own=second, peer=first),
        )
        messages = [side.start() for side in sides]
        for step in ("choose", "challenge", "respond", "open"):
            messages = [
                getattr(side, step)(message) for side, message in zip(sides, reversed(messages), strict=True)
            ]
        self.pairs[one][other] = sides[0].finish(messages[1])
        self.pairs[other][one] = sides[1].finish(messages[0])

    def presign(self, signers: Sequence[int]) -> tuple[dict[int, Presignature], int]:
        """Make a presignature; also gives how many bytes one signer sent to one other."""
        session_id = secrets.token_bytes(32)
        parties = {
            i: SigningParty(
                session_id=session_id,
                share=self.shares[i],
                signers=signers,
                operators=[identity.operator for identity in self.identities],
                sign=self.identities[i - 1].sign,
                pairs=self.pairs[i],
            )
            for i in signers
        }
        commits = {i: party.commit() for i, party in parties.items()}
        multiplies = {i: party.multiply(_received(i, commits)) for i, party in parties.items()}
        one, other = signers[:2]
        sent = len(commits[one][other]) + len(multiplies[one][other])
        return {i: party.presign(_received(i, multiplies)) for i, party in parties.items()}, sent


def _others(index: int, messages: Mapping[int, T]) -> dict[int, T]:
    return {i: message for i, message in messages.items() if i != index}


def _received(index: int, sent: Mapping[int, Mapping[int, bytes]]) -> dict[int, bytes]:
    return {i: messages[index] for i, messages in sent.items() if i != index}


def measure(threshold: Threshold, effort: Effort) -> dict[str, Any]:
    """Give the CPU times in ms for these t and n, over all parties."""
    timer = Timer()
    for _ in range(effort.keygens):
        group = Group(threshold)
        timer.run("keygen", group.generate_key)
        timer.run(
            "set-ups",
            lambda group=group: [group.set_up(*p) for p in itertools.combinations(group.indices, 2)],
        )
    sets = itertools.cycle(itertools.combinations(group.indices, threshold.t))
    sent = 0
    for _ in range(effort.signatures):
        signers, digest = next(sets), secrets.token_bytes(32)
        presignatures, sent = timer.run("presignature", lambda signers=signers: group.presign(signers))
        shares = timer.run(
            "shares",
            lambda made=presignatures, digest=digest: {
                made[i].operators[place]: make_share(made[i], digest) for place, i in enumerate(sorted(made))
            },
        )
        public_key = group.shares[signers[0]].public_key
        timer.run(
            "combination",
            lambda shares=shares, public_key=public_key: combine_shares(shares, public_key=public_key),
        )
    medians = {name: timer.median(name) for name in timer.times}
    return {
        "t": threshold.t,
        "n": threshold.n,
        "ms": medians,
        "signature_ms": sum(medians[name] for name in ("presignature", "shares", "combination")),
        "key_ms": medians["keygen"] + medians["set-ups"],
        "bytes_to_each_other_signer": sent,
    }


def report(results: Sequence[Mapping[str, Any]]) -> str:
    """Give the results as a Markdown table."""
    lines = [
        "| | keygen | set-ups of all pairs | both | aim | presignature | shares | combination | signature | aim |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for result in results:
        ms, t, n = result["ms"], result["t"], result["n"]
        signature_aim, key_aim = AIMS.get((t, n), (None, None))
        cells = (
            f"{ms['keygen']:.0f}",
            f"{ms['set-ups']:.0f}",
            f"{result['key_ms']:.0f}",
            "" if key_aim is None else f"{key_aim:.0f}",
            f"{ms['presignature']:.1f}",
            f"{ms['shares']:.2f}",
            f"{ms['combination']:.2f}",
            f"{result['signature_ms']:.1f}",
            "" if signature_aim is None else f"{signature_aim:.0f}",
        )
        lines.append(f"| {t}-of-{n} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of half a minute")
    parser.add_argument("--output", type=Path, help="write the results there as JSON")
    options = parser.parse_args(arguments)
    effort = QUICK if options.quick else FULL
    results = [measure(Threshold(t, n), effort) for t, n in AIMS]
    say(report(results))
    if options.output is not None:
        facts = {"format": FORMAT, "commit": commit_facts(), "platform": platform_facts()}
        options.output.write_text(json.dumps({**facts, "signing": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()

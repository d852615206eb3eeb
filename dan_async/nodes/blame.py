"""
What follows when nodes blame each other for a key generation that failed: culprits, and disputes. Pure.

What most of the others say of a node is taken for true. Where one word stands against another, the two are in dispute: an
honest node blames only those that were silent towards it, or sent it something wrong, or gave up without a reason. So one of
each pair is faulty, and a set without any such pair loses no round to a dishonest node that does not show it anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from itertools import combinations

from attrs import frozen

from dan_async.errors import NodeCode, NodeRefusedError, QuorumError
from dan_async.types import OperatorAddress

#: Two nodes that never take part together again.
Pair = frozenset[OperatorAddress]


@frozen
class Blame:
    """The nodes at fault, and the pairs of which one is."""

    culprits: AbstractSet[OperatorAddress]
    disputes: AbstractSet[Pair]

    @property
    def suspects(self) -> frozenset[OperatorAddress]:
        """All of them, for the calls that follow."""
        return frozenset(self.culprits).union(*self.disputes)


def judge(error: QuorumError) -> Blame:
    """Judge by each node's refusal: whom it names, or else who gave up first as far as it knows."""
    refusals = {
        outcome.operator: outcome.error
        for outcome in error.outcomes
        if isinstance(outcome.error, NodeRefusedError) and outcome.error.code == NodeCode.KEYGEN_FAILED
    }
    named = {by: {OperatorAddress(it) for it in refusal.culprits} - {by} for by, refusal in refusals.items()}
    gave_up = {
        by: OperatorAddress(refusal.aborted_by)
        for by, refusal in refusals.items()
        if not named[by] and refusal.aborted_by not in {None, by}
    }

    answered = {outcome.operator for outcome in error.outcomes if outcome.is_success} | refusals.keys()

    def is_culprit(accused: OperatorAddress) -> bool:
        by = [refusal for operator, refusal in refusals.items() if accused in named[operator]]
        # It gave up, and says because of whom: that the others then had nothing from it is no fault of its own.
        is_witness = bool(named.get(accused)) and all(refusal.aborted_by == accused for refusal in by)
        return 2 * len(by) > len(answered - {accused}) and not is_witness

    culprits = {it for it in map(OperatorAddress, error.culprits) if is_culprit(it)}
    disputes = {frozenset((by, it)) for by, accused in named.items() for it in accused}
    for by, it in gave_up.items():
        is_passed_on = bool(named.get(it)) or gave_up.get(it, by) != by
        if not is_passed_on:
            disputes.add(frozenset((by, it)))
    if not culprits and not disputes:  # they all say that it was another, in a circle
        disputes = {frozenset(pair) for pair in gave_up.items()}
    return Blame(culprits, {pair for pair in disputes if not pair & culprits})


def sit_out(disputes: AbstractSet[Pair], most: int) -> AbstractSet[OperatorAddress] | None:
    """Return at most so many nodes without whom nobody is in dispute: all, or as few as will do; None if it takes more."""
    suspects = Counter(operator for pair in disputes for operator in pair)
    if len(suspects) <= most:
        return suspects.keys()
    ranked = [operator for operator, _ in suspects.most_common()]
    for count in range(1, most + 1):
        for chosen in combinations(ranked, count):
            if all(pair & set(chosen) for pair in disputes):
                return set(chosen)
    return None

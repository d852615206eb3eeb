"""
Blame when nodes fail together: which of them may be at fault, and which may take part next. Pure.

In key generation, a node that most of the others blame is at fault. If only one node blames another, the two are in dispute:
an honest node blames only nodes that sent it nothing, sent it something wrong, or gave up without a reason, so one of the
two is faulty. The next round leaves out at least one of them, so each failed round shows a faulty node or a new dispute.

In signing, no node's word about another is believed. A set of signers that fails leaves *conflicts*: groups of signers of
which at least one is at fault. An accuser and the accused are a conflict; a node whose own answer is wrong is one by itself;
if nothing more is known, the whole set is one. No later set contains a whole conflict. Honest nodes that reach each other
have no conflict among themselves, so any t of them may always be tried. A node in dispute with more than f = n - t others
is in no set any more, so f dishonest nodes can cause at most f · (f + 1) disputes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations
from typing import TypeAlias

from attrs import define, field, frozen

from dan_async.errors import DanError, NodeCode, NodeRefusedError, QuorumError
from dan_async.types import OperatorAddress

#: Nodes of which one at least is at fault.
Conflict: TypeAlias = frozenset[OperatorAddress]

#: A conflict of two nodes, which never take part in a key generation together again.
Pair: TypeAlias = frozenset[OperatorAddress]

#: Steps of one search for the next set: a fraction of a millisecond each. There are more than a thousand only where twenty
#: nodes do everything to make it hard.
_MOST_STEPS = 5_000


# --- key generation ---------------------------------------------------------------------------------------------------


@frozen(eq=False, repr=False)
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
    # Others have nothing to do with it: a node that names them would only have more of the pool left out.
    asked = {outcome.operator for outcome in error.outcomes}
    named = {by: asked.intersection(refusal.culprits) - {by} for by, refusal in refusals.items()}
    gave_up = {
        by: OperatorAddress(refusal.aborted_by)
        for by, refusal in refusals.items()
        if not named[by] and refusal.aborted_by in asked - {by}
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
    suspects = frozenset[OperatorAddress]().union(*disputes)
    if len(suspects) <= most:
        return suspects
    covers = (_cover(disputes, count) for count in range(1, most + 1))
    return next((found for found in covers if found is not None), None)


def _cover(disputes: Collection[Pair], most: int) -> set[OperatorAddress] | None:
    """Return at most so many nodes of which one is in each pair; None if there are none."""
    if not disputes:
        return set()
    ((worst, count),) = Counter(operator for pair in disputes for operator in pair).most_common(1)
    if len(disputes) > most * count:
        return None
    opponents = {operator for pair in disputes if worst in pair for operator in pair} - {worst}
    for out in ({worst}, opponents):  # without the worst, it takes all that are in dispute with it
        rest = [pair for pair in disputes if not pair & out]
        found = _cover(rest, most - len(out)) if len(out) <= most else None
        if found is not None:
            return out | found
    return None


# --- signing: what a failure shows ------------------------------------------------------------------------------------


def accused_by(error: DanError, signers: Collection[OperatorAddress]) -> set[OperatorAddress]:
    """Return the signers that a node blames by what it has seen itself."""
    if not isinstance(error, NodeRefusedError) or error.code != NodeCode.SIGNING_FAILED:
        return set()
    return {OperatorAddress(culprit) for culprit in error.culprits}.intersection(signers)


def aborter_in(error: DanError, signers: Collection[OperatorAddress]) -> OperatorAddress | None:
    """Return the signer that gave up first, of which a node says no more than that."""
    if not isinstance(error, NodeRefusedError) or error.code != NodeCode.SIGNING_FAILED:
        return None
    aborter = OperatorAddress(error.aborted_by or "")
    return aborter if aborter in signers and not accused_by(error, signers) else None


def find_reasonless(
    failures: Mapping[OperatorAddress, DanError], signers: Collection[OperatorAddress]
) -> set[OperatorAddress]:
    """Return the nodes that refuse because of the set, and name nobody in it: something is wrong with it, or they lie."""
    codes = {operator: getattr(error, "code", None) for operator, error in failures.items()}
    found = {
        operator
        for operator, error in failures.items()
        if codes[operator] == NodeCode.SIGNING_FAILED
        and not accused_by(error, signers)
        and aborter_in(error, signers) in (None, operator)
    }
    if NodeCode.UNKNOWN_KEY not in codes.values():  # which is what the others may mean
        found |= {operator for operator, code in codes.items() if code == NodeCode.WRONG_PARTICIPANTS}
    return found


def find_conflicts(
    failures: Mapping[OperatorAddress, DanError], signers: Collection[OperatorAddress]
) -> set[Conflict]:
    """
    Return the conflicts that the refusals of a set's signers leave; failures of a node by itself are not among them.

    A node that calls another silent, or says that it gave up, is right if that one blames others itself: it was kept waiting
    by them. Otherwise one of the two lies; or one of a circle, if each of several says so of the next.
    """
    found: set[Conflict] = {frozenset(signers)} if find_reasonless(failures, signers) else set()
    accused = {operator: accused_by(error, signers) for operator, error in failures.items()}
    disputes, passed_on = set[Conflict](), set[OperatorAddress]()
    for operator, culprits in accused.items():
        for culprit in culprits:
            is_silence = getattr(failures[operator], "evidence", "") == "silence"
            if is_silence and culprit != operator and accused.get(culprit):
                passed_on |= {operator, culprit}
            else:
                disputes.add(frozenset((operator, culprit)))
    found |= disputes or ({frozenset(passed_on)} if passed_on else set())
    aborters: dict[OperatorAddress, OperatorAddress] = {}
    for operator, error in failures.items():
        aborter = aborter_in(error, signers)
        if aborter not in (None, operator):
            aborters[operator] = aborter
    for operator in aborters:
        path = [operator]
        while path[-1] in aborters and aborters[path[-1]] not in path:
            path.append(aborters[path[-1]])
        if path[-1] in aborters:
            found.add(frozenset(path[path.index(aborters[path[-1]]) :]))
        elif path[-1] not in failures:
            found.add(frozenset(path[-2:]))
    return found


def disagreeing(groups: Iterable[Collection[OperatorAddress]]) -> set[Conflict]:
    """Return the disputes between nodes that say different things, of which honest ones say the same."""
    return {
        frozenset((one, other))
        for some, others in combinations(list(groups), 2)
        for one in some
        for other in others
    }


# --- signing: the next set --------------------------------------------------------------------------------------------


def most_tries(t: int, n: int) -> int:
    """Return how many sets may have to be tried among n nodes of which t are honest."""
    others = n - t
    return 2 * others * (others + 1)  # disputes, and as many that leave only wider conflicts, or are late


def choose_signers(
    ranked: Sequence[OperatorAddress], t: int, conflicts: Collection[Conflict]
) -> tuple[OperatorAddress, ...] | None:
    """Return t nodes that no conflict is among, the first such set in the order of *ranked*; None if there is none."""
    places = {operator: place for place, operator in enumerate(ranked)}
    masks = [
        sum(1 << places[operator] for operator in conflict)
        for conflict in sorted(conflicts, key=len)
        if conflict <= places.keys()
    ]
    found = _Search(t, masks).extend(0, (1 << len(places)) - 1)
    return None if found is None else tuple([op for op, place in places.items() if found >> place & 1])


@define(eq=False, repr=False)
class _Search:
    """A depth-first search; sets of nodes are bit masks, in which the best node has the lowest bit."""

    t: int
    conflicts: Sequence[int]
    steps: int = field(default=0, init=False)

    def extend(self, chosen: int, candidates: int) -> int | None:
        """Return the first set that has all the chosen and some of the candidates, of which none conflicts with them."""
        while chosen.bit_count() < self.t:
            self.steps += 1
            candidates, most = self._narrow(chosen, candidates)
            if self.steps > _MOST_STEPS or chosen.bit_count() + most < self.t:
                return None
            best = candidates & -candidates
            candidates ^= best
            found = self.extend(chosen | best, candidates)
            if found is not None:
                return found
        return chosen

    def _narrow(self, chosen: int, candidates: int) -> tuple[int, int]:
        """Return the candidates that fit the chosen, and how many of them may be in one set at most."""
        open_ = []
        for conflict in self.conflicts:
            rest = conflict & ~chosen
            if not rest & ~candidates:
                if rest & (rest - 1):
                    open_.append(rest)
                else:
                    candidates &= ~rest
        most, used = candidates.bit_count(), ~candidates
        for rest in open_:  # of each, one is not in the set
            if not rest & used:
                used |= rest
                most -= 1
        return candidates, most

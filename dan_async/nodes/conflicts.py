"""
Who may be at fault when a set of signers fails, and which set may be tried next. Pure.

No node's word about another is believed. A failed set leaves *conflicts*: groups of its signers of which one at least is at
fault. An accuser and whom it accuses are one, a node whose own answer is bad is one by itself, a whole set is one where
nothing says more; and no later set has all nodes of a conflict. Honest nodes that reach each other are in none among
themselves, so that any t of them may always be tried. A node in dispute with more than f = n - t others is in no set any
more: so f dishonest nodes are found out after f · (f + 1) disputes at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TypeAlias

from attrs import define, field

from dan_async.errors import DanError, NodeCode, NodeRefusedError
from dan_async.types import OperatorAddress

#: Nodes of which one at least is at fault.
Conflict: TypeAlias = frozenset[OperatorAddress]

#: Steps of one search for the next set: a fraction of a millisecond each. There are more than a thousand only where twenty
#: nodes do everything to make it hard.
_MOST_STEPS = 5_000


# --- what a failure shows ---------------------------------------------------------------------------------------------


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

    A node that says that another gave up is right if that one gives a reason of its own. Otherwise one of the two lies; or
    one of a circle, if each of several says that the next gave up first.
    """
    found: set[Conflict] = {frozenset(signers)} if find_reasonless(failures, signers) else set()
    aborters: dict[OperatorAddress, OperatorAddress] = {}
    for operator, error in failures.items():
        accused = accused_by(error, signers)
        aborter = aborter_in(error, signers)
        found |= {frozenset((operator, culprit)) for culprit in accused}
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


# --- the next set -----------------------------------------------------------------------------------------------------


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


@define
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

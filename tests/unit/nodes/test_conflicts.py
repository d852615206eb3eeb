"""Conflicts among signers: what a failed set shows, and the sets that may still be tried."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from dan_async.errors import NodeCode, NodeRefusedError, NodeTimeoutError
from dan_async.nodes.blame import choose_signers, disagreeing, find_conflicts, find_reasonless

A, B, C, D = signers = ("0xa", "0xb", "0xc", "0xd")


def failed(*culprits, by=None, code=NodeCode.SIGNING_FAILED, evidence=""):
    return NodeRefusedError("no", code=code, culprits=culprits, aborted_by=by, evidence=evidence)


def silent(*culprits):
    return failed(*culprits, evidence="silence")


def conflicts(**failures):
    """The conflicts as texts: each node's last letter."""
    found = find_conflicts({f"0x{name}": error for name, error in failures.items()}, signers)
    return {"".join(sorted(operator[-1] for operator in conflict)) for conflict in found}


def test_an_accuser_and_whom_it_accuses_are_in_dispute():
    """Whoever is right: one of the two is at fault. Nodes that are no signers are not."""
    assert conflicts(a=failed(B, C, "0xe")) == {"ab", "ac"}
    assert conflicts(a=failed(B, by=C), b=failed(A)) == {"ab"}


def test_a_silent_node_that_was_kept_waiting_is_not_in_dispute():
    """Those who kept it waiting are, with it; of a circle one lies. What is worse than silence has no such excuse."""
    assert conflicts(a=silent(B), b=silent(C)) == {"bc"}
    assert conflicts(a=silent(B, D), b=silent(C), c=silent(D)) == {"ad", "cd"}
    assert conflicts(a=silent(B), b=silent(A)) == {"ab"}
    assert conflicts(a=silent(B), b=silent(C), c=silent(A)) == {"abc"}
    assert conflicts(a=failed(B, evidence="proof"), b=silent(C)) == {"ab", "bc"}
    assert conflicts(a=silent(B), b=failed(by=A)) == {"ab"}
    assert conflicts(a=silent(A)) == {"a"}


def test_a_node_that_names_itself_is_one_by_itself():
    """It knows."""
    assert conflicts(a=failed(A)) == {"a"}


def test_who_gave_up_first_is_explained_by_its_own_reason():
    """Then nothing is left between the two, along a chain as well."""
    assert conflicts(a=failed(by=B), c=failed(by=B), b=failed(D)) == {"bd"}
    assert conflicts(a=failed(by=B), b=failed(by=C), c=failed(D)) == {"cd"}
    assert conflicts(a=failed(by=B), b=NodeTimeoutError("late")) == set()


def test_who_gave_up_first_and_says_nothing_is_in_dispute_with_who_says_so():
    """Or gave an answer as if nothing had been."""
    assert conflicts(a=failed(by=B), c=failed(by=B)) == {"ab", "bc"}
    assert conflicts(a=failed(by=B), b=failed(by=C)) == {"bc"}


def test_one_of_a_circle_lies():
    """Of two, or of more: not all of them can have been told by the next one."""
    assert conflicts(a=failed(by=B), b=failed(by=A), c=failed(by=A)) == {"ab"}
    assert conflicts(a=failed(by=B), b=failed(by=C), c=failed(by=A), d=failed(by=A)) == {"abc"}


def test_without_a_reason_the_whole_set_is_suspect():
    """And the node that says so a little more; a set with a node that has no share needs no other reason."""
    failures = {A: failed(), B: failed(by=A)}
    assert find_conflicts(failures, signers) == {frozenset(signers)}
    assert find_reasonless(failures, signers) == {A}
    assert find_reasonless({A: failed(by=A), B: failed(C)}, signers) == {A}
    wrong = failed(code=NodeCode.WRONG_PARTICIPANTS)
    assert find_reasonless({A: wrong}, signers) == {A}
    assert find_reasonless({A: wrong, B: failed(code=NodeCode.UNKNOWN_KEY)}, signers) == set()


def test_those_who_say_different_things_are_in_dispute():
    """Each with each of the others."""
    assert disagreeing([[A, B], [C]]) == {frozenset((A, C)), frozenset((B, C))}
    assert disagreeing([signers]) == set()


@given(
    size=st.integers(1, 8),
    t=st.integers(1, 8),
    groups=st.lists(st.frozensets(st.integers(0, 8), min_size=1, max_size=4), max_size=20),
)
def test_the_first_set_without_a_conflict_is_found(size, t, groups):
    """As a look at all sets in order finds it; none only if there is none."""
    ranked = [f"0x{number}" for number in range(size)]
    found = {frozenset(f"0x{number}" for number in group) for group in groups}
    expected = next(
        (names for names in combinations(ranked, t) if not any(group <= set(names) for group in found)), None
    )
    assert choose_signers(ranked, t, found) == expected


def test_one_set_of_twenty_is_found_among_all_possible_disputes():
    """Eleven honest nodes, and nine that are in dispute with everybody."""
    ranked = [f"0x{number:02}" for number in range(20)]
    liars, honest = ranked[::2][:9], [name for name in ranked if name not in ranked[::2][:9]]
    found = {frozenset(pair) for pair in combinations(ranked, 2) if set(pair) & set(liars)}
    assert choose_signers(ranked, 11, found) == tuple(honest)

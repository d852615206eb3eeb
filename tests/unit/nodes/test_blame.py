"""Who is at fault, and who is in dispute, by what nodes say of each other."""

from __future__ import annotations

import time
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dan_async.errors import NodeCode, NodeOutcome, NodeRefusedError, NodeTimeoutError, QuorumError
from dan_async.nodes.blame import judge, sit_out
from dan_async.types import OperatorAddress

A, B, C, D, E = NODES = [OperatorAddress(f"0x{letter * 40}") for letter in "abcde"]


def says(*culprits: OperatorAddress, by: OperatorAddress | None = None) -> NodeRefusedError:
    return NodeRefusedError("failed", code=NodeCode.KEYGEN_FAILED, culprits=culprits, aborted_by=by)


def judged(**said: Any) -> tuple[set[OperatorAddress], set[frozenset[OperatorAddress]]]:
    """Judge what nodes A to E say; one of whom nothing is said here has acknowledged."""
    outcomes: list[NodeOutcome[Any]] = [
        NodeOutcome(operator=operator, error=said.get(name), answer=None if name in said else "acknowledged")
        for name, operator in zip("ABCDE", NODES, strict=True)
    ]
    blame = judge(QuorumError("no key", threshold=3, outcomes=outcomes))
    return set(blame.culprits), set(blame.disputes)


def pairs(*found: tuple[OperatorAddress, OperatorAddress]) -> set[frozenset[OperatorAddress]]:
    return {frozenset(pair) for pair in found}


def test_whom_most_of_the_others_blame_is_a_culprit() -> None:
    """Nobody is in dispute with a culprit, whatever it says."""
    assert judged(A=says(E), B=says(E), C=says(E, by=A), D=says(E), E=says(A)) == ({E}, set())


def test_one_word_against_another_is_a_dispute() -> None:
    """Only A got something bad from E; the others know that A gave up, and E as well."""
    by_a = {name: says(by=A) for name in "BCDE"}
    assert judged(A=says(E), **by_a) == (set(), pairs((A, E)))


def test_those_that_acknowledged_blame_nobody() -> None:
    """The only one that refuses is not most of the others."""
    assert judged(A=says(E)) == (set(), pairs((A, E)))
    assert judged(A=says(E), B=says(E)) == (set(), pairs((A, E), (B, E)))
    assert judged(A=says(E), B=says(E), C=says(E)) == ({E}, set())


def test_a_witness_is_no_culprit() -> None:
    """A gave up because of E, so the others had nothing from A in the next round: that is no fault of A's."""
    by_a = {name: says(A, by=A) for name in "BCDE"}
    assert judged(A=says(E), **by_a) == (set(), pairs((A, E), (A, B), (A, C), (A, D)))


def test_who_gives_up_without_a_reason_is_in_dispute_with_all() -> None:
    """So it sits the next round out, as the one whom all the pairs have in common."""
    reasonless = {name: says(by=E) for name in "ABCD"}
    for error in (says(), None):
        said = reasonless if error is None else {**reasonless, "E": error}  # it may even have acknowledged
        culprits, disputes = judged(**said)
        assert (culprits, disputes) == (set(), pairs(*((other, E) for other in (A, B, C, D))))
        assert sit_out(disputes, 1) == {E}


def test_who_passes_an_abort_on_is_in_no_dispute() -> None:
    """E told B only, and B the others: C and D heard of it from B, which says why."""
    said = {"A": says(by=B), "B": says(by=E), "C": says(by=B), "D": says(by=C), "E": says(by=B)}
    assert judged(**said) == (set(), pairs((B, E)))


def test_a_circle_of_words_is_a_dispute_of_all_in_it() -> None:
    """One of them lies, and the next round shows more."""
    said = {"A": says(by=B), "B": says(by=C), "C": says(by=A), "D": says(by=A)}
    assert judged(**said, E=NodeTimeoutError("silent")) == (set(), pairs((A, B), (B, C), (C, A), (D, A)))


def test_other_refusals_and_a_nodes_word_against_itself_say_nothing() -> None:
    """Only of a failed key generation do nodes know more than they can be asked."""
    busy = NodeRefusedError("busy", code=NodeCode.UNAVAILABLE, culprits=(A,))
    assert judged(A=says(A), B=busy, C=says(by=C), D=says(), E=busy) == (set(), set())


def test_only_those_that_take_part_are_believed_to_be_at_fault() -> None:
    """A node that names others would have honest spares sit out, or hide among names that it made up."""
    stranger = OperatorAddress(f"0x{'f' * 40}")
    assert judged(A=says(stranger), B=says(by=stranger), C=says(E, stranger)) == (set(), pairs((C, E)))


@pytest.mark.parametrize(
    ("disputes", "most", "expected"),
    [
        (set(), 0, set()),
        (pairs((A, B)), 0, None),
        (pairs((A, B)), 2, {A, B}),
        (pairs((A, E), (B, E)), 1, {E}),
        (pairs((A, E), (B, E)), 2, {E}),
        (pairs((A, E), (B, E)), 3, {A, B, E}),
        (pairs((A, B), (C, D)), 1, None),
    ],
)
def test_who_sits_out(disputes: Any, most: int, expected: Any) -> None:
    """All that are in dispute, if there are enough others; else as few as will do."""
    assert sit_out(disputes, most) == expected


def test_who_sits_out_is_found_quickly_however_many_liars_there_are() -> None:
    """Nine of twenty nodes blame as many others as they can: to try out all sets of them took seconds."""
    others = [OperatorAddress(f"0x{number:040x}") for number in range(180)]
    liars = [OperatorAddress(f"0x{number:040x}") for number in range(1000, 1009)]
    started = time.process_time()
    for disputes in (
        {frozenset((liar, other)) for liar in liars for other in others[:11]},
        {frozenset((liar, other)) for place, liar in enumerate(liars) for other in others[place::9]},
    ):
        assert sit_out(disputes, 9) == set(liars)
        assert sit_out(disputes, 8) is None
    assert time.process_time() - started < 0.1


@given(st.sets(st.sampled_from(list(combinations(range(8), 2))), max_size=10), st.integers(0, 8))
def test_who_sits_out_is_the_smallest_set_that_will_do(edges: set[tuple[int, int]], most: int) -> None:
    """No pair is left together; and if no set that small will do, that is said."""
    nodes = [OperatorAddress(f"0x{number:040x}") for number in range(8)]
    disputes = {frozenset((nodes[one], nodes[other])) for one, other in edges}
    enough = [
        set(chosen)
        for count in range(9)
        for chosen in combinations(nodes, count)
        if all(pair & set(chosen) for pair in disputes)
    ]
    found = sit_out(disputes, most)
    if found is None:
        assert len(enough[0]) > most
    else:
        assert len(found) <= most
        assert all(pair & found for pair in disputes)
        suspects = set().union(*disputes)
        assert found == suspects or len(found) == len(enough[0])

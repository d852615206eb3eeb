"""What the nodes' answers mean for a key generation that was cut off."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.config import Threshold
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import NodeOutcome, NodeTimeoutError
from dan_async.network import KeygenQuestion
from dan_async.nodes.keygen import settlement_of
from dan_async.protocols.node import restarted_request_id
from tests.fake_nodes import OWNER, REQUEST_ID, DealtKey, identities

NODES = identities(5)


def question(t: int = 3, n: int = 5, min_parties: int | None = None) -> KeygenQuestion:
    return KeygenQuestion(
        request_id=REQUEST_ID,
        owner_id=OWNER,
        threshold=Threshold(t, n),
        min_parties=min_parties,
        ephemeral_key=EphemeralKey.generate(),
    )


def silent(*operators: str) -> list[NodeOutcome]:
    return [NodeOutcome(operator=o, error=NodeTimeoutError("no answer", node=o)) for o in operators]


@settings(max_examples=60)
@given(said=st.lists(st.sampled_from(["holds", "nothing", "silent"]), min_size=5, max_size=5))
def test_the_verdict_follows_the_counts(said: list[str]) -> None:
    """With t nodes that hold the key there is one; it is dropped only if fewer than t can hold it; else it stays open."""
    key = DealtKey(3, NODES)
    answers = {
        node.operator: (key.acknowledgement(index),) if what == "holds" else ()
        for index, (node, what) in enumerate(zip(NODES, said, strict=True), 1)
        if what != "silent"
    }
    failures = silent(*(node.operator for node, what in zip(NODES, said, strict=True) if what == "silent"))
    found = settlement_of(question(), answers, failures)
    holds, unknown = said.count("holds"), said.count("silent")
    if holds >= 3:
        assert found.report is not None
        assert found.report.key_id == key.key_id_of(key.public_key)
        assert found.is_certain
    else:
        assert found.report is None
        assert found.is_certain is (holds + unknown < 3)


def test_a_new_start_counts() -> None:
    """A key that was made under the id of a new start is found, whatever became of the first."""
    restarted = DealtKey(3, NODES[:5], request_id=restarted_request_id(REQUEST_ID, 2))
    first = DealtKey(3, NODES)
    answers = {
        node.operator: (first.acknowledgement(i), restarted.acknowledgement(i))
        if i == 1
        else (restarted.acknowledgement(i),)
        for i, node in enumerate(NODES, 1)
    }
    found = settlement_of(question(), answers, [])
    assert found.report is not None
    assert found.report.public_key == restarted.public_key
    assert found.report.request_id == restarted.request_id


def test_fewer_parties_count_if_that_was_allowed() -> None:
    """And only then."""
    key = DealtKey(3, NODES[:4])
    answers = {node.operator: (key.acknowledgement(i),) for i, node in enumerate(NODES[:4], 1)}
    allowed = settlement_of(question(min_parties=4), answers, [])
    assert allowed.report is not None
    assert allowed.report.threshold == Threshold(3, 4)
    assert settlement_of(question(), answers, []).report is None


@pytest.mark.parametrize("wrong", ["request_id", "owner_id", "t"])
def test_another_key_is_not_taken_for_this_one(wrong: str) -> None:
    """Acknowledgements of another request, of another owner's key or for another threshold make no session."""
    other = {
        "request_id": DealtKey(3, NODES, request_id="0x" + "cd" * 32),
        "owner_id": DealtKey(3, NODES, owner_id="0x" + "11" * 20),
        "t": DealtKey(2, NODES),
    }[wrong]
    answers = {node.operator: (other.acknowledgement(i),) for i, node in enumerate(NODES, 1)}
    assert settlement_of(question(), answers, []).report is None


def test_a_forged_acknowledgement_does_not_count() -> None:
    """Two honest nodes and one that signs something else are not three."""
    key, forged = DealtKey(3, NODES), DealtKey(3, NODES)
    answers = {node.operator: (key.acknowledgement(i),) for i, node in enumerate(NODES[:2], 1)}
    answers[NODES[2].operator] = (forged.acknowledgement(1),)
    found = settlement_of(question(), answers, [])
    assert found.report is None


def test_liars_who_deny_a_key_do_not_drop_it_alone() -> None:
    """With t - 1 nodes that keep quiet about their share and one that is down, the record stays open."""
    key = DealtKey(3, NODES)
    answers = {node.operator: (key.acknowledgement(i),) for i, node in enumerate(NODES[:2], 1)}
    answers |= {node.operator: () for node in NODES[2:4]}
    assert settlement_of(question(), answers, silent(NODES[4].operator)).is_certain is False

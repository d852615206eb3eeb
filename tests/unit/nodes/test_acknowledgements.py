"""The tally: each check alone, and the verdict as a function of the set."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.config import Threshold
from dan_async.crypto import curve
from dan_async.errors import AcknowledgementError, QuorumError
from dan_async.nodes.acknowledgements import KeygenTally
from dan_async.protocols import node as node_1
from dan_async.protocols.fields import decode_canonical
from dan_async.types import RequestId
from tests.fake_nodes import DealtKey, Identity, altered, identities, resigned, scalar


def tally_for(key: DealtKey) -> KeygenTally:
    return KeygenTally(
        request_id=key.request_id,
        threshold=key.threshold,
        participants=key.participants,
        owner_id=key.owner_id,
    )


@pytest.fixture(scope="module")
def key() -> DealtKey:
    return DealtKey(3, identities(5))


def refused(key: DealtKey, index: int, ack: object, reason: str) -> None:
    tally = tally_for(key)
    with pytest.raises(AcknowledgementError, match=reason) as caught:
        tally.record(key.participants[index - 1], ack)
    assert caught.value.node == key.participants[index - 1]
    assert not tally.winners
    for other in range(1, 6):
        if other != index:
            tally.record(key.participants[other - 1], key.acknowledgement(other))
    assert tally.verdict().public_key == key.public_key


def test_t_agreeing_nodes_decide(key: DealtKey) -> None:
    """Exactly t nodes that agree suffice, and their claims are the verdict."""
    tally = tally_for(key)
    for index in (1, 3, 5):
        assert not tally.is_won
        tally.record(key.participants[index - 1], key.acknowledgement(index))
    assert tally.is_won
    assert tally.verdict().key_id == key.key_id_of(key.public_key)


def test_one_text_is_read_once(key: DealtKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many nodes send it: also by whoever looks at what each of them said."""
    read: list[str] = []

    def counted(kind: Any, text: str, name: str) -> Any:
        read.append(text)
        return decode_canonical(kind, text, name)

    monkeypatch.setattr(node_1, "decode_canonical", counted)
    tally = tally_for(key)
    acks = [key.acknowledgement(index) for index in range(1, 6)]
    read.clear()
    for ack in acks:
        tally.record(ack.operator, ack)
    assert {ack.summary for ack in acks} == {tally.verdict().summary}
    assert read == [acks[0].text]


def test_a_text_in_another_form_does_not_count(key: DealtKey) -> None:
    """Though it says the same, and the operator signed it."""
    ack = key.acknowledgement(2)
    spaced = evolve(ack, text=ack.text.replace(",", ", "))
    forged = resigned(spaced, key.nodes[1], key.request_id)
    refused(key, 2, forged, "claims are not in their canonical form")


@pytest.mark.parametrize("text", ["", "{}", "[]", "null"])
def test_what_is_no_text_of_claims_does_not_count(key: DealtKey, text: str) -> None:
    """Nor does it stop the others."""
    ack = evolve(key.acknowledgement(4), text=text)
    refused(key, 4, resigned(ack, key.nodes[3], key.request_id), "the acknowledgement is malformed")


def test_one_fewer_does_not(key: DealtKey) -> None:
    """t - 1 agreeing nodes are no quorum."""
    tally = tally_for(key)
    for index in (2, 4):
        tally.record(key.participants[index - 1], key.acknowledgement(index))
    assert not tally.is_won
    with pytest.raises(QuorumError, match="2 of 5 nodes agree on a key, 3 are needed"):
        tally.verdict()


def test_wrong_operator_signature(key: DealtKey) -> None:
    """Signed by somebody else: does not count."""
    ack = key.acknowledgement(2)
    forged = resigned(ack, Identity())
    refused(key, 2, forged, "not signed by the node's operator")


def test_signature_over_other_content(key: DealtKey) -> None:
    """Signed by the operator, over another transcript: does not count."""
    changed = altered(key.acknowledgement(2), transcript_hash=secrets.token_bytes(32))
    refused(key, 2, changed, "not signed by the node's operator")


def test_malformed_signature(key: DealtKey) -> None:
    """65 bytes that are no signature: does not count, and no other error escapes."""
    refused(key, 2, evolve(key.acknowledgement(2), signature=bytes(65)), "signature is malformed")


def test_unpinned_operator(key: DealtKey) -> None:
    """A node that answers for an operator that was not asked: does not count."""
    outsider = Identity()
    ack = evolve(key.acknowledgement(2), operator=outsider.operator)
    refused(key, 2, resigned(ack, outsider), "speaks for another operator")


def test_an_acknowledgement_of_a_neighbour(key: DealtKey) -> None:
    """A node that repeats what another one signed: does not count."""
    refused(key, 2, key.acknowledgement(3), "speaks for another operator")


def test_key_id_not_recomputable(key: DealtKey) -> None:
    """A key id that is not the hash of the key: does not count."""
    refused(key, 4, key.acknowledgement(4, key_id="ff" * 32), "key id is not the hash")


def test_public_shares_that_do_not_make_the_key(key: DealtKey) -> None:
    """One foreign public share among five: the interpolation check sees it, wherever it stands."""
    for place in range(5):
        shares = list(key.public_shares)
        shares[place] = curve.encode(curve.base_multiply(scalar()))
        refused(key, 1, key.acknowledgement(1, public_shares=tuple(shares)), "do not make the public key")


def test_a_substituted_public_key(key: DealtKey) -> None:
    """Another public key, with a key id that fits it: the shares give it away."""
    other = curve.encode(curve.base_multiply(scalar()))
    ack = key.acknowledgement(1, public_key=other, key_id=key.key_id_of(other))
    refused(key, 1, ack, "do not make the public key")


def test_t_liars_with_shares_that_do_not_fit_make_no_key() -> None:
    """Even t nodes that agree are not believed when the public shares do not make the public key."""
    key = DealtKey(2, identities(3))
    shares = (key.public_shares[1], key.public_shares[0], key.public_shares[2])
    tally = tally_for(key)
    for index in (1, 2, 3):
        with pytest.raises(AcknowledgementError, match="do not make"):
            tally.record(key.participants[index - 1], key.acknowledgement(index, public_shares=shares))
    assert tally.is_lost


def test_a_share_off_the_curve(key: DealtKey) -> None:
    """33 bytes that are no point: does not count."""
    shares = (b"\x02" + b"\xff" * 32, *key.public_shares[1:])
    refused(key, 1, key.acknowledgement(1, public_shares=shares), "not a point of the curve")


def test_two_nodes_claiming_one_index(key: DealtKey) -> None:
    """A node that claims the index of another: does not count."""
    refused(key, 2, key.acknowledgement(2, party_index=1), "claims index 1, which is not the node's")


def test_replayed_acknowledgement_of_another_request(key: DealtKey) -> None:
    """A perfectly signed acknowledgement of another request: does not count."""
    other = DealtKey(3, key.nodes, request_id=RequestId("0x" + "cd" * 32))
    refused(key, 5, other.acknowledgement(5), "answers another request")


def test_threshold_downgrade(key: DealtKey) -> None:
    """An acknowledgement for a smaller t: does not count."""
    refused(key, 5, key.acknowledgement(5, threshold=Threshold(2, 5)), "it is for 2-of-5, not for 3-of-5")


def test_other_participants(key: DealtKey) -> None:
    """An acknowledgement that names another set of parties: does not count."""
    others = tuple(sorted((*key.participants[:4], Identity().operator), key=str.lower))
    refused(key, 1, key.acknowledgement(1, participants=others), "names other participants")


def test_a_node_counts_once(key: DealtKey) -> None:
    """The same node's second answer does not make a second vote."""
    tally = tally_for(key)
    tally.record(key.participants[0], key.acknowledgement(1))
    for _ in range(3):
        with pytest.raises(AcknowledgementError, match="already answered"):
            tally.record(key.participants[0], key.acknowledgement(1))
    assert not tally.is_won


def test_lost_as_soon_as_t_is_out_of_reach(key: DealtKey) -> None:
    """n - t + 1 failures are enough to know."""
    tally = tally_for(key)
    for operator in key.participants[:2]:
        tally.record_failure(operator)
        assert not tally.is_lost
    tally.record_failure(key.participants[2])
    assert tally.is_lost


def test_two_winners_are_a_conflict() -> None:
    """Two groups of t nodes vouching for different keys is an error, not a race."""
    nodes = identities(4)
    one, two = DealtKey(2, nodes), DealtKey(2, nodes)
    tally = tally_for(one)
    for index, key in ((1, one), (2, one), (3, two), (4, two)):
        tally.record(key.participants[index - 1], key.acknowledgement(index))
    with pytest.raises(QuorumError, match="2 groups of 2 nodes") as caught:
        tally.verdict()
    assert not caught.value.retryable


@pytest.mark.parametrize("liars", range(4))
def test_byzantine_minority(liars: int) -> None:
    """n=5, t=3: up to n - t liars change nothing; with t liars there is no result."""
    nodes = identities(5)
    honest = DealtKey(3, nodes)
    tally = tally_for(honest)
    for index in range(1, 6):
        lie = DealtKey(3, nodes) if index <= liars else honest
        tally.record(honest.participants[index - 1], lie.acknowledgement(index))
    if liars <= 2:
        assert tally.verdict().public_key == honest.public_key
    else:
        with pytest.raises(QuorumError):
            tally.verdict()


_NODES = identities(5)
_KEYS = [DealtKey(3, _NODES), DealtKey(3, _NODES)]
_ACKS = {(k, i): _KEYS[k].acknowledgement(i) for k, i in itertools.product((0, 1), range(1, 6))}


@settings(max_examples=60)
@given(
    events=st.lists(st.sampled_from([0, 1, None]), min_size=5, max_size=5),
    order=st.permutations(range(5)),
)
def test_the_verdict_ignores_the_order(events: list[int | None], order: list[int]) -> None:
    """The same answers in another order give the same verdict, and t of them are needed in any order."""

    def verdict(sequence: list[int]) -> object:
        tally = tally_for(_KEYS[0])
        for place in sequence:
            event, operator = events[place], _KEYS[0].participants[place]
            if event is None:
                tally.record_failure(operator)
            else:
                tally.record(operator, _ACKS[event, place + 1])
        try:
            return tally.verdict().public_key
        except QuorumError as error:
            return error.message

    assert verdict(list(range(5))) == verdict(order)
    for choice in (0, 1):
        assert (verdict(order) == _KEYS[choice].public_key) == (events.count(choice) >= 3)

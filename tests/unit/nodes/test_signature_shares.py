"""Shares into signatures: what counts, what is refused, and that nothing wrong ever comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto import curve
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.signature import recover_public_key
from dan_async.errors import AcknowledgementError, SignatureCheckError
from dan_async.nodes.signature_shares import (
    ExpectedShares,
    SpoiltSharesError,
    check_offers,
    combine_shares,
    join_shares,
)
from dan_async.protocols import node as node_1
from tests.fake_nodes import altered, scalar
from tests.fake_signing import FakePresignature

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "node_1.json").read_text())
ANSWERS = [node_1.SignatureShares.read_whole(vector["result"]) for vector in VECTORS["signatureShares"]]
KEY = ANSWERS[0].claims.public_key
OPERATORS = tuple(answer.operator for answer in ANSWERS)


OFFERS = {
    operator: node_1.PresignatureOffer.read(offer)
    for operator, offer in zip(OPERATORS, VECTORS["presign"]["results"], strict=True)
}


def offers(**changes):
    return {operator: evolve(offer, **changes) for operator, offer in OFFERS.items()}


def expected(**changes):
    whole = {
        "request_id": ANSWERS[0].claims.request_id,
        "key_id": ANSWERS[0].claims.key_id,
        "digests": (ANSWERS[0].claims.shares[0].digest,),
        "presignatures": (OFFERS,),
        "address": public_key_to_address(KEY),
    }
    return ExpectedShares(**{**whole, **changes})


# --- one answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ANSWERS)
def test_right_answers_count(answer):
    """With what is known of them beforehand, or without."""
    expected().check(answer.operator, answer)
    expected(presignatures=None, address=None).check(answer.operator, answer)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"request_id": "0x" + "00" * 32}, "another request"),
        ({"key_id": "00" * 32}, "another request or key"),
        ({"digests": (bytes(32),)}, "another message"),
        ({"digests": ()}, "another message"),
        ({"presignatures": (offers(presignature_id=bytes(32)),)}, "another presignature"),
        ({"presignatures": (offers(nonce_point=KEY),)}, "another presignature"),
        ({"presignatures": (offers(commitment=bytes(32)),)}, "not those that the node made beforehand"),
        ({"address": "0x" + "11" * 20}, "another public key"),
    ],
)
def test_answers_about_something_else_do_not_count(changes, problem):
    """The error names the node and what is wrong."""
    with pytest.raises(AcknowledgementError, match=problem) as caught:
        expected(**changes).check(OPERATORS[0], ANSWERS[0])
    assert caught.value.node == OPERATORS[0]


@pytest.mark.parametrize(
    "answer",
    [
        altered(ANSWERS[0], signature=ANSWERS[1].signature),
        altered(ANSWERS[0], signature=bytes(65)),
        altered(ANSWERS[0], party_index=3),
        altered(ANSWERS[0], shares=(evolve(ANSWERS[0].claims.shares[0], u=1),)),
        altered(ANSWERS[0], shares=(evolve(ANSWERS[0].claims.shares[0], w=1),)),
        altered(ANSWERS[0], shares=(evolve(ANSWERS[0].claims.shares[0], nonce_point=KEY),)),
        ANSWERS[1],
    ],
    ids=["another's", "none", "index", "u", "w", "R", "another node's answer"],
)
def test_answers_that_the_operator_did_not_sign_do_not_count(answer):
    """Whatever was changed."""
    with pytest.raises(AcknowledgementError, match="not signed"):
        expected(presignatures=None).check(OPERATORS[0], answer)


def test_a_public_key_that_is_no_point_does_not_count():
    """It has no address."""
    with pytest.raises(AcknowledgementError, match="public key"):
        expected().check(OPERATORS[0], altered(ANSWERS[0], public_key=bytes(33)))


def test_what_can_be_done_before_the_answers_decides_nothing():
    """Right answers count after it, and offers with points that are none raise nothing yet."""
    right = expected()
    right.prepare()
    for answer in ANSWERS:
        right.check(answer.operator, answer)
    wrong = expected(presignatures=(offers(nonce_point=bytes(33), public_key=bytes(33)),))
    wrong.prepare()
    with pytest.raises(AcknowledgementError, match="another presignature"):
        wrong.check(OPERATORS[0], ANSWERS[0])


# --- all of them ------------------------------------------------------------------------------------------------------


def test_the_vector_makes_its_signature():
    """With an s that had to be made low."""
    assert join_shares(ANSWERS) == (bytes.fromhex(VECTORS["combined"]["signature"][2:]),)


def names(count):
    return tuple(f"0x{number:040x}" for number in range(1, count + 1))


def deal(count, secret=None):
    """A presignature that so many signers share."""
    return FakePresignature(names(count), secret or scalar())


def sign(made, digest, changes=None):
    """Every signer's share, some of them changed."""
    shares = {signer: made.share(signer, digest) for signer in made.signers}
    return shares | {signer: evolve(shares[signer], **change) for signer, change in (changes or {}).items()}


@settings(max_examples=30)
@given(st.integers(2, 5), st.binary(min_size=32, max_size=32))
def test_any_number_of_signers_make_a_low_signature_that_recovers(signers, digest):
    """In any order of the shares; its nonce is another than the presignature's."""
    made = deal(signers)
    shares = sign(made, digest)
    signature = combine_shares(shares, public_key=made.public_key)
    backwards = dict(reversed(shares.items()))
    assert signature == combine_shares(backwards, public_key=made.public_key)
    assert recover_public_key(digest, signature) == made.public_key
    assert int.from_bytes(signature[32:64], "big") <= curve.ORDER // 2
    assert signature[64] in {27, 28}
    assert signature[:32] != made.nonce_point[1:]


def spoilt(shares, public_key):
    """The error that wrong shares end in."""
    with pytest.raises(SpoiltSharesError) as caught:
        combine_shares(shares, public_key=public_key)
    return caught.value


def test_too_few_shares_make_nothing():
    """One of two."""
    with pytest.raises(SignatureCheckError):
        join_shares(ANSWERS[:1])


# --- who is wrong -----------------------------------------------------------------------------------------------------

DIGEST = bytes(range(32))


def replaced(made, signer, at, new):
    """Commitments with other bytes at a place."""
    whole = made.share(signer, DIGEST).commitments
    return {"commitments": whole[:at] + new + whole[at + len(new) :]}


def flipped(made, signer, at):
    """Commitments with one byte of the proof changed, counted from the end."""
    whole = made.share(signer, DIGEST).commitments
    return {"commitments": whole[:at] + bytes((whole[at] ^ 1,)) + whole[len(whole) + at + 1 :]}


def balanced(made, signer):
    """A point U that δ·Φ takes to infinity."""
    share = made.share(signer, DIGEST)
    shift = node_1.nonce_shift(
        presignature_id=made.id, public_key=made.public_key, digest=DIGEST, signers=made.signers
    )
    mask = curve.decode(share.commitments[:33])
    return replaced(made, signer, 33, curve.encode(curve.multiply(mask, -shift)))


LIES = {
    "u": lambda made, signer: {"u": made.share(signer, DIGEST).u ^ 1},
    "w": lambda made, signer: {"w": made.share(signer, DIGEST).w ^ 1},
    "no u": lambda made, signer: {"u": 0},
    "no w": lambda made, signer: {"w": 0},
    "another message's": lambda made, signer: {
        name: getattr(made.share(signer, bytes(32)), name) for name in ("u", "w")
    },
    "Φ": lambda made, signer: replaced(made, signer, 0, KEY),
    "U": lambda made, signer: replaced(made, signer, 33, KEY),
    "U that cancels out": balanced,
    "V": lambda made, signer: replaced(made, signer, 66, KEY),
    "P": lambda made, signer: replaced(made, signer, 99, KEY),
    "Q": lambda made, signer: replaced(made, signer, 132, KEY),
    "no point": lambda made, signer: replaced(made, signer, 99, bytes(33)),
    "a byte too few": lambda made, signer: {"commitments": made.share(signer, DIGEST).commitments[:-1]},
    "nothing": lambda *_: {"commitments": b""},
    "challenge": lambda made, signer: flipped(made, signer, -64),
    "response": lambda made, signer: flipped(made, signer, -1),
}
#: These do no harm by themselves: the numbers are right.
HARMLESS = LIES.keys() - {"u", "w", "no u", "no w", "another message's"}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_has_a_name_at_once(lie):
    """One of three, together with a wrong share where it spoils nothing; the honest ones are not named."""
    made = deal(3)
    liar = made.signers[1]
    change = LIES[lie](made, liar)
    if lie in HARMLESS:
        assert combine_shares(sign(made, DIGEST, {liar: change}), public_key=made.public_key)
        change |= LIES["u"](made, liar)
    error = spoilt(sign(made, DIGEST, {liar: change}), made.public_key)
    assert error.liars == (liar,)
    assert not error.disputes
    (failure,) = error.failures(ANSWERS[0].claims.request_id).values()
    assert failure.node == liar


def test_all_but_one_of_seven_lie_and_are_named_at_once():
    """t - 1 liars at 7-of-13 in one set: every one of them, and nobody else."""
    made = deal(7)
    liars = made.signers[1:]
    lies = ["u", "w", "another message's", "no u", "no w", "u"]
    changes = {liar: LIES[lie](made, liar) for liar, lie in zip(liars, lies, strict=True)}
    error = spoilt(sign(made, DIGEST, changes), made.public_key)
    assert error.liars == liars
    assert not error.disputes


@pytest.mark.parametrize("which", [0, 1, 2], ids=["φ", "u", "v"])
def test_a_number_that_was_wrong_from_the_start_is_named(which):
    """Commitments, proof and share fit one another: only the others' part of the presignature does not fit them."""
    made = deal(3)
    liar = made.signers[2]
    numbers = list(made.numbers[liar])
    numbers[which] = (numbers[which] + 1) % curve.ORDER
    made.numbers[liar] = tuple(numbers)
    error = spoilt(sign(made, DIGEST), made.public_key)
    assert (error.liars, error.disputes) == ((liar,), set())


def test_a_wrong_number_that_is_put_on_a_signer_that_does_not_exist_is_named():
    """Commitments that are more than there are signers would balance it."""
    made = deal(3)
    liar = made.signers[0]
    mask, u, v = made.numbers[liar]
    made.numbers[liar], made.surplus[liar] = (mask, u + 5, v + 7), (5, 7)
    error = spoilt(sign(made, DIGEST), made.public_key)
    assert (error.liars, error.disputes) == ((liar,), set())


@pytest.mark.parametrize("which", [1, 2], ids=["u", "v"])
def test_a_wrong_number_that_is_put_on_another_is_a_dispute_between_the_two(which):
    """The liar's own words fit one another; it says that it exchanged other messages with the second than that one says."""
    made = deal(3)
    _, honest, liar = made.signers
    numbers, terms = list(made.numbers[liar]), list(made.terms[liar][honest])
    numbers[which] += 5
    terms[which - 1] += 5
    made.numbers[liar], made.terms[liar][honest] = tuple(numbers), tuple(terms)
    error = spoilt(sign(made, DIGEST), made.public_key)
    assert (error.liars, error.disputes) == ((), {frozenset((honest, liar))})


def test_a_node_that_repeats_another_is_in_dispute_with_everybody():
    """What it says is true, but not of itself."""
    made = deal(3)
    one, liar, two = made.signers
    error = spoilt(sign(made, DIGEST) | {liar: made.share(one, DIGEST)}, made.public_key)
    assert (error.liars, error.disputes) == ((), {frozenset((one, liar)), frozenset((liar, two))})


def test_a_liar_and_a_dispute_are_both_found():
    """And the liar's disputes are of no interest any more."""
    made = deal(4)
    first, honest, liar, other = made.signers
    mask, u, v = made.numbers[liar]
    terms_u, terms_v = made.terms[liar][honest]
    made.numbers[liar], made.terms[liar][honest] = (mask, u + 5, v), (terms_u + 5, terms_v)
    terms = made.terms[other][first]
    made.terms[other][first] = terms[0] + 1, terms[1]
    error = spoilt(sign(made, DIGEST), made.public_key)
    assert (error.liars, error.disputes) == ((other,), {frozenset((honest, liar))})


@settings(max_examples=30)
@given(st.integers(2, 6), st.sets(st.integers(1, 5)), st.binary(min_size=32, max_size=32))
def test_the_honest_are_never_named(signers, liars, digest):
    """Whoever lies."""
    made = deal(signers)
    guilty = [signer for place, signer in enumerate(made.signers) if place in liars]
    changes = {
        signer: {"w": (made.share(signer, digest).w + place) % curve.ORDER}
        for place, signer in enumerate(guilty, 1)
    }
    shares = sign(made, digest, changes)
    if guilty:
        assert spoilt(shares, made.public_key).liars == tuple(guilty)
    else:
        assert combine_shares(shares, public_key=made.public_key)


SHIFT = node_1.nonce_shift(
    presignature_id=ANSWERS[0].claims.shares[0].presignature_id,
    public_key=KEY,
    digest=ANSWERS[0].claims.shares[0].digest,
    signers=OPERATORS,
)


@pytest.mark.parametrize(
    "nonce_point",
    [bytes(33), b"\x02" + b"\xff" * 32, curve.encode(curve.base_multiply(-SHIFT))],
    ids=["nothing", "no point", "-δ·G"],
)
def test_a_nonce_point_that_is_none_spoils_it(nonce_point):
    """Though all agree on it, which no honest node does: nobody is named."""
    shares = {answer.operator: evolve(answer.claims.shares[0], nonce_point=nonce_point) for answer in ANSWERS}
    error = spoilt(shares, KEY)
    assert (error.liars, error.disputes) == ((), set())


def share(**changes):
    return evolve(ANSWERS[0].claims.shares[0], **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"public_key": ANSWERS[0].claims.shares[0].nonce_point},
        {"shares": ANSWERS[0].claims.shares * 2},
        {"party_index": ANSWERS[1].party_index},
        {"shares": (share(digest=bytes(32)),)},
        {"shares": (share(presignature_id=bytes(32)),)},
        {"shares": (share(nonce_point=KEY),)},
    ],
    ids=["public key", "number", "index", "digest", "presignature", "R"],
)
def test_answers_that_do_not_belong_together_are_a_dispute(changes):
    """All speak of one key, as many messages, one presignature, and places of their own."""
    with pytest.raises(SpoiltSharesError) as caught:
        join_shares([ANSWERS[1], altered(ANSWERS[0], **changes)])
    assert caught.value.disputes == {frozenset(OPERATORS)}


@pytest.mark.parametrize("name", ["presignature_id", "nonce_point", "public_key"])
def test_offers_that_differ_are_a_dispute(name):
    """Of the one that differs with each of the others; commitments and ends are everybody's own."""
    made = deal(3)
    offers = {signer: made.offer(signer, expires_at=place) for place, signer in enumerate(made.signers)}
    check_offers(offers)
    one, two, odd = made.signers
    offers[odd] = evolve(offers[odd], **{name: bytes(33)})
    with pytest.raises(SpoiltSharesError) as caught:
        check_offers(offers)
    assert (caught.value.liars, caught.value.disputes) == ((), {frozenset((one, odd)), frozenset((two, odd))})

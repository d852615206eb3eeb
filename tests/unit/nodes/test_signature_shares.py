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
from dan_async.nodes.signature_shares import ExpectedShares, combine_shares, join_shares
from dan_async.protocols import node as node_1
from tests.fake_nodes import altered, scalar
from tests.fake_signing import FakePresignature

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "node_1.json").read_text())
ANSWERS = [node_1.SignatureShares.read_whole(vector["result"]) for vector in VECTORS["signatureShares"]]
KEY = ANSWERS[0].claims.public_key
OPERATORS = tuple(answer.operator for answer in ANSWERS)


def expected(**changes):
    whole = {
        "request_id": ANSWERS[0].claims.request_id,
        "key_id": ANSWERS[0].claims.key_id,
        "digests": (ANSWERS[0].claims.shares[0].digest,),
        "presignature_ids": (ANSWERS[0].claims.shares[0].presignature_id,),
        "address": public_key_to_address(KEY),
    }
    return ExpectedShares(**{**whole, **changes})


# --- one answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ANSWERS)
def test_right_answers_count(answer):
    """With what is known of them beforehand, or without."""
    expected().check(answer.operator, answer)
    expected(presignature_ids=None, address=None).check(answer.operator, answer)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"request_id": "0x" + "00" * 32}, "another request"),
        ({"key_id": "00" * 32}, "another request or key"),
        ({"digests": (bytes(32),)}, "another message"),
        ({"digests": ()}, "another message"),
        ({"presignature_ids": (bytes(32),)}, "another presignature"),
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
        expected().check(OPERATORS[0], answer)


def test_a_public_key_that_is_no_point_does_not_count():
    """It has no address."""
    with pytest.raises(AcknowledgementError, match="public key"):
        expected().check(OPERATORS[0], altered(ANSWERS[0], public_key=bytes(33)))


# --- all of them ------------------------------------------------------------------------------------------------------


def test_the_vector_makes_its_signature():
    """With an s that had to be made low."""
    assert join_shares(ANSWERS) == (bytes.fromhex(VECTORS["combined"]["signature"][2:]),)


@settings(max_examples=30)
@given(st.integers(2, 5), st.binary(min_size=32, max_size=32))
def test_any_number_of_signers_make_a_low_signature_that_recovers(signers, digest):
    """In any order of the shares."""
    secret = scalar()
    public_key = curve.encode(curve.base_multiply(secret))
    made = FakePresignature(tuple(f"0x{i:040x}" for i in range(signers)))
    shares = [made.shares(operator, digest, secret) for operator in made.signers]
    signature = combine_shares(shares, public_key=public_key)
    assert signature == combine_shares(shares[::-1], public_key=public_key)
    assert recover_public_key(digest, signature) == public_key
    assert int.from_bytes(signature[32:64], "big") <= curve.ORDER // 2
    assert signature[64] in {27, 28}


def share(**changes):
    return evolve(ANSWERS[0].claims.shares[0], **changes)


@pytest.mark.parametrize(
    "wrong",
    [
        share(u=share().u ^ 1),
        share(w=share().w ^ 1),
        share(u=0, w=0),
        share(u=-ANSWERS[1].claims.shares[0].u % curve.ORDER),
        share(digest=bytes(32)),
        share(presignature_id=bytes(32)),
        share(nonce_point=KEY),
    ],
    ids=["u", "w", "nothing", "u that cancels out", "digest", "presignature", "R"],
)
def test_a_wrong_share_spoils_it(wrong):
    """Nothing comes out."""
    with pytest.raises(SignatureCheckError):
        combine_shares([wrong, ANSWERS[1].claims.shares[0]], public_key=KEY)


@pytest.mark.parametrize("nonce_point", [bytes(33), b"\x02" + b"\xff" * 32])
def test_a_nonce_point_that_is_none_spoils_it(nonce_point):
    """Though all agree on it."""
    shares = [evolve(answer.claims.shares[0], nonce_point=nonce_point) for answer in ANSWERS]
    with pytest.raises(SignatureCheckError):
        combine_shares(shares, public_key=KEY)


def test_too_few_shares_make_nothing():
    """One of two."""
    with pytest.raises(SignatureCheckError):
        join_shares(ANSWERS[:1])


@pytest.mark.parametrize(
    "wrong",
    [
        altered(ANSWERS[0], public_key=ANSWERS[0].claims.shares[0].nonce_point),
        altered(ANSWERS[0], shares=ANSWERS[0].claims.shares * 2),
        altered(ANSWERS[0], party_index=ANSWERS[1].party_index),
    ],
    ids=["public key", "number", "index"],
)
def test_answers_that_do_not_belong_together_make_nothing(wrong):
    """All speak of one key, as many messages, and places of their own."""
    with pytest.raises(SignatureCheckError):
        join_shares([wrong, ANSWERS[1]])

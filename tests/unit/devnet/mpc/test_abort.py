"""Complaints, as a third party judges them."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.config import Threshold
from dan_async.devnet.mpc.aborts import DkgAbort
from dan_async.devnet.mpc.dkg import Session, check_complaint, make_complaint
from dan_async.errors import InvalidFieldError
from tests.unit.devnet.mpc.dkg_group import Group

DEALER, COMPLAINER = 3, 1


@pytest.fixture(scope="module")
def guilty():
    """A group, the guilty dealer's hand-made messages, and the honest complaint about it."""
    group = Group(2, 3)
    dealing = group.replace_dealer(DEALER, share_offset=1)
    with pytest.raises(DkgAbort) as caught:
        group.verify_one(COMPLAINER)
    return group, dealing, caught.value.complaint


def complain(group, share_message, opening, *, index=COMPLAINER, signer=None):
    return make_complaint(
        group.session,
        index=index,
        share_message=share_message,
        opening=opening,
        sign=group.signer(signer or index),
    )


def test_a_true_complaint_blames_the_dealer(guilty):
    """The share is wrong and signed."""
    group, _, complaint = guilty
    assert check_complaint(complaint, group.session) == DEALER


def test_a_complaint_about_a_right_share_blames_the_complainer():
    """Everything in it is the dealer's own, and right."""
    group = Group(2, 3).commit().open()
    complaint = complain(group, group.shares[COMPLAINER, DEALER], group.openings[DEALER])
    assert check_complaint(complaint, group.session) == COMPLAINER


def test_a_complaint_about_a_share_that_the_dealer_did_not_sign_blames_the_complainer(guilty):
    """The complainer has changed the share and could not sign it."""
    group, dealing, _ = guilty
    forged = bytearray(dealing.share_message(COMPLAINER))
    forged[40] ^= 1
    assert check_complaint(complain(group, bytes(forged), dealing.opening), group.session) == COMPLAINER


def test_a_complaint_with_another_opening_blames_the_complainer(guilty):
    """The dealer signed the commitment along with the share; no other opening fits it."""
    group, dealing, _ = guilty
    other = Group(2, 3, keys=group.keys, session_id=group.session_id).commit().open().openings[DEALER]
    complaint = complain(group, dealing.share_message(COMPLAINER), other)
    assert check_complaint(complaint, group.session) == COMPLAINER


def test_a_complaint_about_somebody_elses_share_blames_the_complainer(guilty):
    """A party can complain about its own share only."""
    group, dealing, _ = guilty
    complaint = complain(group, dealing.share_message(2), dealing.opening)
    assert check_complaint(complaint, group.session) == COMPLAINER


def test_a_complaint_that_quotes_no_share_blames_the_complainer(guilty):
    """Its author has signed it all the same."""
    group, dealing, _ = guilty
    complaint = complain(group, bytes(164), dealing.opening)
    assert check_complaint(complaint, group.session) == COMPLAINER


def test_a_complaint_in_another_partys_name_blames_nobody(guilty):
    """Otherwise the dealer could bring an innocent party into disrepute."""
    group, _, _ = guilty
    honest = Group(2, 3, keys=group.keys, session_id=group.session_id).commit().open()
    complaint = complain(honest, honest.shares[2, DEALER], honest.openings[DEALER], index=2, signer=DEALER)
    assert check_complaint(complaint, group.session) is None


def test_a_complaint_of_another_session_blames_nobody(guilty):
    """Neither another session id, nor another threshold, nor other parties."""
    group, _, complaint = guilty
    assert (
        check_complaint(complaint, Session(**group.description | {"session_id": secrets.token_bytes(32)}))
        is None
    )
    assert check_complaint(complaint, Session(**group.description | {"threshold": Threshold(3, 3)})) is None
    assert (
        check_complaint(complaint, Session(**group.description | {"identities": group.identities[::-1]}))
        is None
    )


@pytest.mark.parametrize("complaint", [b"", bytes(300), b"\x05" * 34, None])
def test_garbage_blames_nobody(guilty, complaint):
    """And raises nothing."""
    group, _, _ = guilty
    assert check_complaint(complaint, group.session) is None


def test_arguments_that_describe_no_session_are_refused(guilty):
    """That is the caller's mistake, not anybody's guilt."""
    group, _, complaint = guilty
    with pytest.raises(InvalidFieldError):
        check_complaint(complaint, Session(**group.description | {"session_id": b"short"}))


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_a_complaint_with_one_bit_changed_blames_nobody(guilty, bit):
    """The whole of it is signed, so that nobody can be framed on the way."""
    group, _, complaint = guilty
    changed = bytearray(complaint)
    bit %= len(changed) * 8
    changed[bit // 8] ^= 1 << bit % 8
    assert check_complaint(bytes(changed), group.session) is None


@settings(max_examples=40)
@given(st.data())
def test_no_complaint_about_an_honest_dealer_blames_it(data):
    """Whatever the complainer puts together from the messages it got, or changes in them."""
    group = HONEST
    parts = []
    for message in (group.shares[COMPLAINER, DEALER], group.openings[DEALER]):
        chosen = data.draw(st.sampled_from([message, *group.shares.values(), *group.openings.values()]))
        changed = bytearray(chosen if len(chosen) == len(message) else message)
        for bit in data.draw(st.lists(st.integers(0, len(changed) * 8 - 1), max_size=2)):
            changed[bit // 8] ^= 1 << bit % 8
        parts.append(bytes(changed))
    assert check_complaint(complain(group, *parts), group.session) == COMPLAINER


HONEST = Group(2, 3).commit().open()

"""Key generation with dishonest parties: every check, and whom it blames."""

import pickle
import secrets

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER, add, base_multiply, decode, encode, negate
from dan_async.devnet.mpc.aborts import DkgAbort, ProtocolStateError, Reason
from dan_async.devnet.mpc.dkg import (
    CommitmentMessage,
    EchoMessage,
    OpeningMessage,
    check_complaint,
    is_signed,
    sign_message,
)
from tests.unit.devnet.mpc.dkg_group import Group, others, source

STEPS = ["commitments", "openings", "shares", "echoes"]


def abort_of(call):
    with pytest.raises(DkgAbort) as caught:
        call()
    return caught.value


def expect(group, call, reason, culprits):
    """The call aborts for that reason; what is provable is provable to a third party, who blames the same one."""
    abort = abort_of(call)
    assert (abort.reason, abort.culprits) == (reason, culprits)
    assert abort.phase == "keygen"
    return abort


def expect_provable(group, call, reason, culprit):
    abort = expect(group, call, reason, (culprit,))
    assert check_complaint(abort.complaint, group.session) == culprit


# --- openings ---------------------------------------------------------------------------------------------------------


def test_an_opening_that_does_not_match_its_commitment():
    """A dealer who chooses anew after it has seen the others' openings."""
    group = Group()
    group.commit().open()
    other = Group(keys=group.keys, session_id=group.session_id).commit()
    group.openings[3] = other.parties[3].open(others(3, other.commitments)).broadcast
    abort = expect(group, lambda: group.verify_one(1), Reason.COMMITMENT_MISMATCH, (3,))
    assert abort.complaint is None


def test_a_commitment_vector_that_is_too_short():
    """Degree t - 2 would let fewer parties hold the key."""
    group = Group(3, 4)
    group.replace_dealer(2, degree=1)
    expect_provable(group, lambda: group.verify_one(1), Reason.VECTOR_LENGTH, 2)


def test_a_commitment_vector_that_is_too_long():
    """Degree t would make a key that t parties cannot use."""
    group = Group(2, 3)
    group.replace_dealer(2, degree=2)
    expect_provable(group, lambda: group.verify_one(1), Reason.VECTOR_LENGTH, 2)


def test_an_empty_commitment_vector():
    """No exception but the abort."""
    group = Group(2, 3)
    group.replace_dealer(2, points=(), proof=bytes(65))
    expect_provable(group, lambda: group.verify_one(1), Reason.VECTOR_LENGTH, 2)


@pytest.mark.parametrize(
    "bad", [bytes(33), b"\x02" + b"\xff" * 32, b"\x04" + bytes(range(32)), b"\x00" * 32 + b"\x01"], ids=repr
)
def test_a_point_that_is_not_on_the_curve_or_infinity(bad):
    """At either place of the vector: zeros, x beyond the field, a wrong first byte."""
    for place in (0, 1):
        group = Group(2, 3)
        good = encode(base_multiply(5))
        points = tuple(bad if i == place else good for i in range(2))
        group.replace_dealer(2, points=points, proof=bytes(65))
        expect_provable(group, lambda group=group: group.verify_one(1), Reason.INVALID_POINT, 2)


def test_a_proof_of_possession_that_does_not_hold():
    """Everything else about the dealing is right."""
    group = Group()
    group.replace_dealer(2, proof=encode(base_multiply(5)) + bytes(31) + b"\x07")
    expect_provable(group, lambda: group.verify_one(1), Reason.PROOF_OF_POSSESSION, 2)


def test_a_proof_of_possession_from_another_session():
    """Same dealer, same polynomial, other session: the proof is bound to the session."""
    earlier = Group()
    old = earlier.replace_dealer(2)
    group = Group(keys=earlier.keys)
    group.replace_dealer(2, coefficients=old.polynomial.coefficients, proof=old.proof)
    expect_provable(group, lambda: group.verify_one(1), Reason.PROOF_OF_POSSESSION, 2)


def test_a_proof_of_possession_made_for_another_party():
    """The same polynomial, proved under another index: it would let a party repeat what it saw."""
    group = Group()
    theirs = Group(keys=group.keys, session_id=group.session_id).replace_dealer(3)
    group.replace_dealer(2, coefficients=theirs.polynomial.coefficients, proof=theirs.proof)
    expect_provable(group, lambda: group.verify_one(1), Reason.PROOF_OF_POSSESSION, 2)


def test_a_proof_of_possession_covers_the_whole_vector():
    """Other commitments behind the same first one need another proof."""
    group = Group()
    first = Group(keys=group.keys, session_id=group.session_id).replace_dealer(2, coefficients=(5, 6))
    group.replace_dealer(2, coefficients=(5, 7), proof=first.proof)
    expect_provable(group, lambda: group.verify_one(1), Reason.PROOF_OF_POSSESSION, 2)


def test_a_rogue_key_is_refused():
    """A first commitment computed from the others', so that the key would be the rogue's own."""
    group = Group(2, 3).commit().open()
    context = group.session.context
    honest = [OpeningMessage.decode(group.openings[i], context).points[0] for i in (1, 2)]
    mine = 12345
    rogue = add([base_multiply(mine), *(negate(decode(point)) for point in honest)])
    attack = Group(2, 3, keys=group.keys, session_id=group.session_id)
    attack.replace_dealer(3, points=(encode(rogue), encode(base_multiply(5))))
    expect_provable(attack, lambda: attack.verify_one(1), Reason.PROOF_OF_POSSESSION, 3)


def test_a_copied_contribution_is_refused():
    """Commitment and opening of another party, repeated as one's own: the index in them is the other's."""
    group = Group().commit()
    stolen = CommitmentMessage.decode(group.commitments[2], group.session.context).commitment
    group.commitments[3] = CommitmentMessage(sender=3, commitment=stolen).encode(group.session.context)
    group.parties.pop(3)
    group.open()
    group.openings[3] = group.openings[2]
    forged = Group(keys=group.keys, session_id=group.session_id)
    dealing = forged.replace_dealer(3)
    group.shares[1, 3] = dealing.share_message(1, commitment=stolen)
    expect_provable(group, lambda: group.verify_one(1), Reason.MALFORMED_MESSAGE, 3)


def test_an_opening_in_the_name_of_another_index():
    """Committed to and signed, but it says that it is party 1's."""
    group = Group()
    group.replace_dealer(3, sender=1)
    expect_provable(group, lambda: group.verify_one(2), Reason.MALFORMED_MESSAGE, 3)


def test_a_malformed_opening_that_was_committed_to():
    """Bytes after its end: its dealer has signed for them."""
    group = Group()
    group.replace_dealer(3, tail=b"\0")
    expect_provable(group, lambda: group.verify_one(2), Reason.MALFORMED_MESSAGE, 3)


# --- shares -----------------------------------------------------------------------------------------------------------


def test_a_wrong_share_is_blamed_on_its_dealer_provably():
    """Only the party that got it aborts; everybody else is convinced by its complaint."""
    group = Group(3, 5)
    group.replace_dealer(4, share_offset=1, wrong_for=2)
    expect_provable(group, lambda: group.verify_one(2), Reason.WRONG_SHARE, 4)
    for index in (1, 3, 5):
        assert group.verify_one(index)


def test_a_share_that_is_not_below_the_order():
    """Not reduced but refused, and provable like any wrong one."""
    group = Group()
    group.replace_dealer(2, share_bytes=ORDER.to_bytes(32, "big"))
    expect_provable(group, lambda: group.verify_one(1), Reason.WRONG_SHARE, 2)


def test_a_share_of_zero_is_refused():
    """A dealer whose polynomial has a root at the recipient's index: its commitments allow it, zero times G has no encoding."""
    group = Group()
    dealing = group.replace_dealer(2, coefficients=(ORDER - 3, 3))
    assert dealing.polynomial.evaluate(1) == 0
    expect_provable(group, lambda: group.verify_one(1), Reason.WRONG_SHARE, 2)


def test_a_share_signed_by_somebody_else():
    """Nothing can be proved, but the link says who sent it."""
    group = Group()
    forged = group.replace_dealer(2)
    impostor = Group(keys=group.keys, session_id=group.session_id)
    impostor.keys = [group.keys[0], group.keys[2], group.keys[1]]
    forged.group = impostor
    group.shares[1, 2] = forged.share_message(1)
    abort = expect(group, lambda: group.verify_one(1), Reason.SHARE_SIGNATURE, (2,))
    assert abort.complaint is None


def test_a_share_that_belongs_to_another_commitment():
    """Signed, but for another dealing: it would make the complaint worthless."""
    group = Group()
    forged = group.replace_dealer(2)
    group.shares[1, 2] = forged.share_message(1, commitment=secrets.token_bytes(32))
    abort = expect(group, lambda: group.verify_one(1), Reason.SHARE_COMMITMENT, (2,))
    assert abort.complaint is None


def test_a_share_meant_for_another_party():
    """Swapped between recipients."""
    group = Group(2, 3).commit().open()
    group.shares[1, 2], group.shares[3, 2] = group.shares[3, 2], group.shares[1, 2]
    expect(group, lambda: group.verify_one(1), Reason.MALFORMED_MESSAGE, (2,))
    expect(group, lambda: group.verify_one(3), Reason.MALFORMED_MESSAGE, (2,))


def test_a_share_in_the_name_of_another_sender():
    """Party 3 forwards what party 2 sent, as if it were its own."""
    group = Group(2, 3).commit().open()
    group.shares[1, 3] = group.shares[1, 2]
    expect(group, lambda: group.verify_one(1), Reason.MALFORMED_MESSAGE, (3,))


def test_all_wrong_dealers_are_named_and_a_provable_one_comes_with_proof():
    """Two at once: one whose guilt shows only here, one whose guilt shows to all."""
    group = Group(2, 4)
    group.replace_dealer(4, share_offset=9)
    group.openings[2] = group.openings[3]
    abort = expect(group, lambda: group.verify_one(1), Reason.WRONG_SHARE, (2, 4))
    assert check_complaint(abort.complaint, group.session) == 4


# --- echoes -----------------------------------------------------------------------------------------------------------


def test_an_echo_signed_by_somebody_else():
    """By a key that is not the sender's."""
    group = Group().commit().open().verify()
    honest = EchoMessage.decode(group.echoes[2], group.session.context)
    group.echoes[2] = sign_message(honest, group.session.context, group.signer(3)).encode(
        group.session.context
    )
    expect(group, lambda: group.finish_one(1), Reason.ECHO_SIGNATURE, (2,))


def test_an_echo_of_another_party():
    """Forwarded as one's own: the signature is right, but it is not the sender's."""
    group = Group().commit().open().verify()
    group.echoes[2] = group.echoes[3]
    expect(group, lambda: group.finish_one(1), Reason.ECHO_SIGNATURE, (2,))


def test_a_party_that_only_counts_its_own_signature():
    """A missing signature over the hash is not made up for by the right hash."""
    group = Group().commit().open().verify()
    honest = EchoMessage.decode(group.echoes[2], group.session.context)
    group.echoes[2] = EchoMessage(
        sender=2, transcript_hash=honest.transcript_hash, signature=bytes(65)
    ).encode(group.session.context)
    expect(group, lambda: group.finish_one(3), Reason.ECHO_SIGNATURE, (2,))


@pytest.mark.parametrize("spoil", ["missing", "unsigned", "of another transcript"])
def test_a_certificate_makes_up_for_an_echo(spoil):
    """The dishonest party 3 keeps its echo from party 1, or sends it a bad one; party 2 has all of them, and passes them on."""
    group = Group(2, 3).commit().open().verify()
    share, context = group.finish_one(2), group.session.context
    echo = EchoMessage.decode(group.echoes[3], context)
    if spoil == "missing":
        del group.echoes[3]
    elif spoil == "unsigned":
        group.echoes[3] = evolve(echo, signature=bytes(65)).encode(context)
    else:
        other = evolve(echo, transcript_hash=bytes(32))
        group.echoes[3] = sign_message(other, context, group.signer(3)).encode(context)
    party = group.parties[1]
    abort_of(lambda: group.finish_one(1))
    certificate = group.parties[2].certificate
    assert len(certificate) == 3 * 65
    swapped = certificate[65:130] + certificate[:65] + certificate[130:]
    unsigned = certificate[:-65] + group.parties[2].certificate[:65]
    for false in (b"", certificate[:-1], certificate + certificate[:65], swapped, unsigned, bytes(195)):
        assert party.certify(false) is None
    assert [s.public_key for s in party.certify(certificate)] == [share.public_key]
    with pytest.raises(ProtocolStateError):
        party.certify(certificate)


def test_a_certificate_of_another_session_is_none():
    """Nor of another transcript: each signature covers both."""
    group = Group(2, 3).commit().open().verify()
    other = Group(2, 3, keys=group.keys).commit().open().verify()
    other.finish_one(1)
    assert group.parties[1].certify(other.parties[1].certificate) is None
    assert group.finish_one(1)


def test_no_certificate_comes_before_its_turn():
    """A party that has not checked the shares has nothing to release."""
    group = Group(2, 3).commit().open()
    with pytest.raises(ProtocolStateError):
        group.parties[1].certify(bytes(195))


def test_equivocation_is_seen_by_everybody():
    """A dealer that shows one honest polynomial to party 1 and another to party 2. Every check passes; the echoes differ."""
    group = Group(2, 3)
    group.parties.pop(3)
    to_one = Group(2, 3, keys=group.keys, session_id=group.session_id).replace_dealer(3)
    to_two = Group(2, 3, keys=group.keys, session_id=group.session_id).replace_dealer(3)
    group.commit()
    for index, dealing in ((1, to_one), (2, to_two)):
        opening = group.parties[index].open(
            {**others(index, group.commitments), 3: dealing.commitment_message}
        )
        group.openings[index] = opening.broadcast
        group.shares.update({(to, index): share for to, share in opening.shares.items()})
    for index, dealing in ((1, to_one), (2, to_two)):
        openings = {**others(index, group.openings), 3: dealing.opening}
        shares = {**group.shares_for(index), 3: dealing.share_message(index)}
        group.echoes[index] = group.parties[index].verify(openings, shares)
    for index in (1, 2):  # party 3 echoes to each what it wants to hear
        heard = EchoMessage.decode(group.echoes[index], group.session.context).transcript_hash
        agreeing = sign_message(
            EchoMessage(sender=3, transcript_hash=heard), group.session.context, group.signer(3)
        ).encode(group.session.context)
        echoes = {**others(index, group.echoes), 3: agreeing}
        abort = expect(group, lambda i=index, e=echoes: group.parties[i].finish(e), Reason.EQUIVOCATION, ())
        assert set(abort.echoes) == {1, 2, 3}
        found = [EchoMessage.decode(echo, group.session.context) for echo in abort.echoes.values()]
        assert all(is_signed(echo, group.session) for echo in found)
        assert len({echo.transcript_hash for echo in found}) == 2


# --- all rounds -------------------------------------------------------------------------------------------------------


def take(group, step):
    """Let party 1 take the step that reads those messages."""
    return {
        "commitments": lambda: group.parties[1].open(others(1, group.commitments)),
        "openings": lambda: group.verify_one(1),
        "shares": lambda: group.verify_one(1),
        "echoes": lambda: group.finish_one(1),
    }[step]


def up_to(step, t=2, n=3):
    """A group in which the messages of that step were sent and not yet read by party 1."""
    group = Group(t, n).commit()
    if step != "commitments":
        group.open()
    if step == "echoes":
        group.verify()
    return group


def slot(group, step, sender):
    """Where the message from that sender to party 1 is."""
    return (group.shares, (1, sender)) if step == "shares" else (getattr(group, step), sender)


@pytest.mark.parametrize("step", STEPS)
def test_missing_messages_name_the_silent_parties(step):
    """Both of them."""
    group = up_to(step, 2, 4)
    for sender in (2, 4):
        found, key = slot(group, step, sender)
        del found[key]
    expect(group, take(group, step), Reason.MISSING_MESSAGE, (2, 4))


REASONS = {
    "commitments": {Reason.MALFORMED_MESSAGE},
    "openings": {Reason.COMMITMENT_MISMATCH},
    "shares": {Reason.MALFORMED_MESSAGE},
    "echoes": {Reason.MALFORMED_MESSAGE},
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("change", ["truncated", "extended", "empty", "not bytes"])
def test_a_malformed_message_is_blamed_on_its_sender(step, change):
    """Without any other exception."""
    group = up_to(step)
    found, key = slot(group, step, 3)
    message = found[key]
    found[key] = {"truncated": message[:-1], "extended": message + b"\0", "empty": b"", "not bytes": None}[
        change
    ]
    expect(group, take(group, step), *REASONS[step], (3,))


@pytest.mark.parametrize("step", ["commitments", "openings", "shares"])
def test_messages_swapped_between_senders(step):
    """Party 2's as party 3's and the other way round."""
    group = up_to(step)
    found, key = slot(group, step, 2)
    _, other = slot(group, step, 3)
    found[key], found[other] = found[other], found[key]
    expect(group, take(group, step), *REASONS[step], (2, 3))


@pytest.mark.parametrize("step", STEPS)
def test_a_message_replayed_from_another_session(step):
    """Same parties, same round."""
    group = up_to(step)
    earlier = Group(2, 3, keys=group.keys)
    earlier.commit().open().verify()
    found, key = slot(group, step, 2)
    found[key] = slot(earlier, step, 2)[0][key]
    expect(group, take(group, step), *REASONS[step], (2,))


def test_a_whole_dealing_replayed_from_another_session():
    """Commitment, opening and share of an earlier session, all consistent with each other."""
    group = Group(2, 3)
    earlier = Group(2, 3, keys=group.keys).commit().open()
    group.commit()
    group.commitments[2] = earlier.commitments[2]
    expect(group, take(group, "commitments"), Reason.MALFORMED_MESSAGE, (2,))


def test_a_message_of_another_round():
    """The kind is part of the message."""
    group = up_to("echoes")
    group.echoes[2] = group.commitments[2]
    expect(group, take(group, "echoes"), Reason.MALFORMED_MESSAGE, (2,))


@settings(max_examples=120)
@given(st.sampled_from(STEPS), st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_a_flipped_bit_anywhere_ends_the_key_generation(step, bit, sender):
    """In any message of any round: party 1 aborts, in this step or at the latest when the key would be released."""
    group = up_to(step)
    found, key = slot(group, step, sender)
    changed = bytearray(found[key])
    bit %= len(changed) * 8
    changed[bit // 8] ^= 1 << bit % 8
    found[key] = bytes(changed)

    abort = abort_of((lambda: open_and_verify(group)) if step == "commitments" else take(group, step))
    assert abort.culprits in ((sender,), ())
    assert abort.culprits or (step == "echoes" and abort.reason == Reason.EQUIVOCATION)


def open_and_verify(group):
    group.open()
    group.verify_one(1)


@pytest.mark.parametrize(
    "coefficients",
    [
        {1: (11, 13), 2: (ORDER - 11, 13)},  # the sum is 26x: no public key
        {1: (11, 13), 2: (11, ORDER - 13)},  # the sum is 22: every party would hold the key itself
        {1: (1, 4), 2: (ORDER - 17, 4)},  # the sum is 8x - 16: party 2 would hold nothing
        {1: (1, 4), 2: (ORDER - 9, 4)},  # the sum is 8x - 8: party 1 itself would hold nothing
    ],
)
def test_contributions_that_cancel_out_are_refused(coefficients):
    """It takes knowing the other's randomness; the result would be no key, or no share."""
    group = Group(2, 2)
    for index, (a, b) in coefficients.items():
        group.parties[index] = group.party(index, entropy=source(a, b))
    group.commit().open()
    expect(group, lambda: group.verify_one(1), Reason.DEGENERATE_KEY, ())


def test_an_abort_survives_pickling():
    """It crosses process boundaries when nodes run as processes."""
    abort = DkgAbort(Reason.WRONG_SHARE, (3, 1), complaint=b"c", echoes={1: b"e"})
    copy = pickle.loads(pickle.dumps(abort))
    assert (copy.reason, copy.culprits, copy.complaint, copy.echoes) == (
        "wrong share",
        (1, 3),
        b"c",
        {1: b"e"},
    )
    assert str(copy) == str(abort)
    assert "wrong share by party 1, 3" in str(copy)

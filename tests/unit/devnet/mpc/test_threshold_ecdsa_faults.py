"""Threshold ECDSA with dishonest signers: every check, whom it blames, and whether it bans."""

import contextlib
import pickle
import secrets

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER, add, base_multiply, decode, encode
from dan_async.devnet.mpc.aborts import ProtocolStateError, Reason, SigningAbort
from dan_async.devnet.mpc.dkg import KeyShare
from dan_async.devnet.mpc.field import scalar_to_bytes
from dan_async.devnet.mpc.pairwise_setup import Ban
from dan_async.devnet.mpc.threshold_ecdsa import CommitMessage, Envelope, MultiplyMessage
from dan_async.devnet.node.signing import make_share
from dan_async.nodes.signature_shares import SpoiltSharesError, combine_shares
from tests.unit.devnet.mpc.dkg_group import Group
from tests.unit.devnet.mpc.signing_group import (
    IDENTITIES,
    INVALID_SIGNATURE,
    OPERATORS,
    Signing,
    all_pairs,
    dealt_pair,
    finish,
)

SIGNERS = (1, 2, 4)
SHARES = Group(3, 4).run()
BAD_POINT = b"\x02" + b"\xff" * 32


def fresh(signers=SIGNERS, shares=None):
    """A signing with set-ups of its own, since a test may get them banned."""
    return Signing(shares or SHARES, all_pairs(range(1, 5)), signers)


def expect(call, reason, culprits, *, ban=False, aborter=None):
    with pytest.raises(SigningAbort) as caught:
        call()
    abort = caught.value
    assert (abort.reason, abort.culprits, abort.ban, abort.aborter) == (reason, culprits, ban, aborter)
    assert abort.phase == "signing"


def change_commit(signing, sender, recipient, **changes):
    """Replace fields of a message of round 1; a function as value gets the old one."""
    envelope = Envelope(signing.parties[recipient]._context, sender, recipient)
    change(CommitMessage, signing.commits[recipient], envelope, changes)


def change_multiply(signing, sender, recipient, **changes):
    """Replace fields of a message of round 2."""
    envelope = Envelope(signing.parties[recipient]._context, sender, recipient)
    change(MultiplyMessage, signing.multiplies[recipient], envelope, changes)


def change(kind, mail, envelope, changes):
    message = envelope.open(kind, mail[envelope.sender])
    new = {
        name: value(getattr(message, name)) if callable(value) else value for name, value in changes.items()
    }
    mail[envelope.sender] = envelope.seal(evolve(message, **new))


def flipped(data, at=100):
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def multiply(signing, index=1):
    return lambda: signing.parties[index].multiply(signing.commits[index])


def presign(signing, index=1):
    return lambda: signing.parties[index].presign(signing.multiplies[index])


# --- round 1 ----------------------------------------------------------------------------------------------------------


def test_a_failed_extension_check_bans_the_pair_for_good():
    """The party aborts, and its set-up with the culprit never runs again."""
    signing = fresh()
    signing.commit()
    change_commit(signing, 2, 1, vole=flipped)
    pairs = signing.parties[1]._pairs
    expect(multiply(signing), Reason.OT_EXTENSION_CHECK, (2,), ban=True)
    assert (pairs[2].ban.is_set, pairs[4].ban.is_set) == (True, False)


def test_everybody_who_fails_the_extension_check_is_banned():
    """Not only the first."""
    signing = fresh()
    signing.commit()
    change_commit(signing, 2, 1, vole=flipped)
    change_commit(signing, 4, 1, vole=flipped)
    pairs = signing.parties[1]._pairs
    expect(multiply(signing), Reason.OT_EXTENSION_CHECK, (2, 4), ban=True)
    assert all(pair.ban.is_set for pair in pairs.values())


def test_a_ban_is_reported_before_a_lesser_fault():
    """One message is malformed, another fails the check."""
    signing = fresh()
    signing.commit()
    signing.commits[1][2] = b""
    change_commit(signing, 4, 1, vole=flipped)
    expect(multiply(signing), Reason.OT_EXTENSION_CHECK, (4,), ban=True)


def test_a_set_up_that_is_not_the_others_bans_nobody():
    """One side has lost or replaced its set-up: an honest mistake must not look like an attack."""
    pairs = all_pairs(range(1, 5))
    pairs[2][1] = dealt_pair()[1]
    signing = Signing(SHARES, pairs, SIGNERS).commit()
    expect(multiply(signing), Reason.SETUP_MISMATCH, (2,))
    expect(multiply(signing, 2), Reason.SETUP_MISMATCH, (1,))
    assert not pairs[1][2].ban.is_set


# --- round 2 ----------------------------------------------------------------------------------------------------------


def ready():
    signing = fresh()
    return signing.commit().multiply()


def test_a_failed_vector_ole_check_bans_the_pair():
    """A correction that the receiver has chosen is wrong, or the hash is."""
    signing = ready()
    change_multiply(signing, 4, 1, vole=lambda data: flipped(data, len(data) - 1))
    pairs = signing.parties[1]._pairs
    expect(presign(signing), Reason.VOLE_CHECK, (4,), ban=True)
    assert (pairs[2].ban.is_set, pairs[4].ban.is_set) == (False, True)


@pytest.mark.parametrize("name", ["nonce_point", "key_point"])
def test_an_opening_of_another_point(name):
    """Chosen after the others' were known."""
    signing = ready()
    change_multiply(signing, 2, 1, **{name: encode(base_multiply(5))})
    expect(presign(signing), Reason.COMMITMENT_MISMATCH, (2,))


def test_an_opening_with_another_nonce():
    """The commitment's own."""
    signing = ready()
    change_multiply(signing, 2, 1, nonce=bytes(32))
    expect(presign(signing), Reason.COMMITMENT_MISMATCH, (2,))


def recommit(signing, party, *, nonce=None, key=None):
    """Let a party commit to and open other points than those of the numbers that it multiplies."""
    points = [encode(base_multiply(nonce or party._nonce)), encode(base_multiply(key or party._key))]
    party._opening = party._opening[:32] + b"".join(points)
    announce(signing, party)


def announce(signing, party):
    """Let a party commit anew, to its opening as it is, towards everybody."""
    commitment = party._commitment(party._index, party._opening)
    signature = party._sign(party._signed(party._index, commitment))
    party._commitments[party._index] = commitment + signature
    for recipient in signing.commits:
        if recipient != party._index:
            change_commit(signing, party._index, recipient, commitment=commitment, signature=signature)


@pytest.mark.parametrize(("name", "reason"), [("nonce", Reason.NONCE_CHECK), ("key", Reason.KEY_CHECK)])
def test_a_number_other_than_the_one_committed_to(name, reason):
    """Committed and opened properly, but something else was multiplied: each recipient names the culprit."""
    signing = fresh()
    signing.commit()
    recommit(signing, signing.parties[2], **{name: 12345})
    signing.multiply()
    for index in (1, 4):
        expect(presign(signing, index), reason, (2,))


@pytest.mark.parametrize(("name", "reason"), [("gamma_u", Reason.NONCE_CHECK), ("gamma_v", Reason.KEY_CHECK)])
def test_a_wrong_gamma(name, reason):
    """The sender's half in the exponent."""
    signing = ready()
    change_multiply(signing, 2, 1, **{name: encode(base_multiply(5))})
    expect(presign(signing), reason, (2,))


def test_exchanged_gammas():
    """Each belongs to its own number."""
    signing = ready()
    message = Envelope(signing.parties[1]._context, 2, 1).open(MultiplyMessage, signing.multiplies[1][2])
    change_multiply(signing, 2, 1, gamma_u=message.gamma_v, gamma_v=message.gamma_u)
    expect(presign(signing), Reason.NONCE_CHECK, (2,))


@pytest.mark.parametrize("name", ["gamma_u", "gamma_v"])
def test_a_gamma_that_is_no_point(name):
    """Blamed on its sender."""
    signing = ready()
    change_multiply(signing, 2, 1, **{name: BAD_POINT})
    expect(presign(signing), Reason.INVALID_POINT, (2,))


@pytest.mark.parametrize("at", [32, 65])
def test_an_opened_point_that_is_no_point(at):
    """Committed to as well."""
    signing = fresh()
    signing.commit()
    party = signing.parties[2]
    party._opening = party._opening[:at] + BAD_POINT + party._opening[at + 33 :]
    announce(signing, party)
    signing.multiply()
    expect(presign(signing), Reason.INVALID_POINT, (2,))


def committed_twice(signing, sender, recipient):
    """Another commitment for one recipient, signed as the first is."""
    party = signing.parties[sender]
    commitment = bytes(32)
    signature = party._sign(party._signed(sender, commitment))
    change_commit(signing, sender, recipient, commitment=commitment, signature=signature)


def test_a_signer_with_two_commitments_is_named_by_everybody():
    """Both are signed by its operator. Nothing is signed."""
    signing = fresh()
    signing.commit()
    committed_twice(signing, 2, 1)
    signing.multiply()
    expect(presign(signing, 4), Reason.EQUIVOCATION, (2,))
    expect(presign(signing, 1), Reason.COMMITMENT_MISMATCH, (2,))


def test_a_signer_with_two_commitments_is_named_when_it_opens_each_to_its_own():
    """All openings fit: only the comparison shows it."""
    signing = fresh()
    signing.commit()
    party = signing.parties[2]
    first = party._opening
    second = party._opening = bytes(32) + first[32:]
    committed = party._commitment(2, second)
    signature = party._sign(party._signed(2, committed))
    change_commit(signing, 2, 1, commitment=committed, signature=signature)
    party._opening = first
    signing.multiply()
    change_multiply(
        signing,
        2,
        1,
        nonce=bytes(32),
        commitments=lambda old: (old[0], committed + signature, old[2]),
    )
    expect(presign(signing, 1), Reason.EQUIVOCATION, (2,))
    expect(presign(signing, 4), Reason.EQUIVOCATION, (2,))


@pytest.mark.parametrize(
    "change", [lambda _: bytes(97), lambda old: old[:32] + bytes(65), lambda old: bytes(32) + old[32:]]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_commitment_that_is_made_up_is_its_bringers(place, change):
    """Its signature is not that of whose it is said to be; neither of the receiver's own nor of another's."""
    signing = ready()
    change_multiply(
        signing, 2, 1, commitments=lambda old: (*old[:place], change(old[place]), *old[place + 1 :])
    )
    expect(presign(signing, 1), Reason.EQUIVOCATION, (2,))


def test_another_signature_of_the_same_commitment_is_nothing():
    """ECDSA has more than one."""
    signing = ready()
    high = ORDER - int.from_bytes(signing.parties[1]._commitments[4][64:96], "big")
    twin = signing.parties[1]._commitments[4][:64] + high.to_bytes(32, "big")
    parity = bytes((signing.parties[1]._commitments[4][96] ^ 7,))  # 27 and 28 differ in these bits
    change_multiply(signing, 2, 1, commitments=lambda old: (*old[:2], twin + parity))
    assert len(finish(signing.presign(), bytes(32))) == 65


def test_a_list_of_another_length_is_malformed():
    """One for each signer."""
    signing = ready()
    change_multiply(signing, 2, 1, commitments=lambda old: old[:2])
    expect(presign(signing, 1), Reason.MALFORMED_MESSAGE, (2,))


@pytest.mark.parametrize("signature", [bytes(65), IDENTITIES[0].sign(bytes(32))])
def test_a_commitment_that_its_operator_did_not_sign(signature):
    """Refused at once."""
    signing = fresh()
    signing.commit()
    change_commit(signing, 2, 1, signature=signature)
    expect(multiply(signing), Reason.MALFORMED_MESSAGE, (2,))


def altered(share, offset):
    """The share of a party that tells the others nothing, and signs with another number."""
    return KeyShare(
        index=share.index,
        t=share.t,
        n=share.n,
        secret_share=(share.secret_share + offset) % ORDER,
        public_key=share.public_key,
        public_shares=share.public_shares,
        transcript_hash=share.transcript_hash,
    )


def test_key_shares_that_do_not_add_up():
    """One signer multiplies and opens a share that is not its own: everybody names it."""
    signing = fresh(shares={**SHARES, 4: altered(SHARES[4], 1)})
    signing.commit().multiply()
    for index in (1, 2):
        expect(presign(signing, index), Reason.PUBLIC_KEY_CHECK, (4,))


def shifted_by(signing, liar, offset, **zeros):
    """Let a signer add to its key share, and say that it has a part of a share of zero that it has not."""
    party = signing.parties[liar]
    party._key = (party._key + offset) % ORDER
    recommit(signing, party)
    for other, shift in zeros.items():
        index = int(other.removeprefix("to"))
        party._zeros[index] = (party._zeros[index] + shift) % ORDER


def test_a_wrong_key_share_that_is_put_on_another_is_named_by_that_one():
    """The parts add up, but one is not what the two have in common; the third refers to one of them, who must know."""
    signing = fresh()
    signing.commit()
    shifted_by(signing, 4, 7, to1=7)
    signing.multiply()
    expect(presign(signing, 1), Reason.PUBLIC_KEY_CHECK, (4,))
    expect(presign(signing, 2), Reason.PUBLIC_KEY_CHECK, (), aborter=1)


def test_a_wrong_key_share_that_is_put_on_a_signer_that_does_not_exist_is_named():
    """One part more than there are signers would balance it."""
    signing = fresh()
    signing.commit()
    shifted_by(signing, 4, 7)
    signing.multiply()
    for index in (1, 2):
        more = encode(base_multiply(7))
        change_multiply(signing, 4, index, zeros=lambda old, more=more: (*old, more))
        expect(presign(signing, index), Reason.PUBLIC_KEY_CHECK, (4,))


@pytest.mark.parametrize("zeros", [(), (BAD_POINT,) * 2, (encode(base_multiply(1)),) * 3])
def test_parts_that_are_none_are_their_senders(zeros):
    """Where the key shares do not add up, for which they are there."""
    signing = fresh(shares={**SHARES, 4: altered(SHARES[4], 1)})
    signing.commit().multiply()
    change_multiply(signing, 2, 1, zeros=zeros)
    expect(presign(signing, 1), Reason.PUBLIC_KEY_CHECK, (2, 4))


def test_key_shares_that_do_not_add_up_between_two_signers_name_the_other():
    """This party knows that its own is right."""
    shares, pairs = Group(2, 2).run(), all_pairs((1, 2))
    signing = Signing({**shares, 2: altered(shares[2], 1)}, pairs, (1, 2)).commit().multiply()
    expect(presign(signing), Reason.PUBLIC_KEY_CHECK, (2,))


def test_key_shares_that_cancel_out():
    """Infinity is not the public key."""
    shares, pairs = Group(2, 2).run(), all_pairs((1, 2))
    key = sum(p._key for p in Signing(shares, pairs, (1, 2)).commit().parties.values())
    factor = 2 * pow(1, -1, ORDER)  # λ_1 of the signers 1 and 2
    offset = -key * pow(factor, -1, ORDER)
    signing = Signing({**shares, 1: altered(shares[1], offset)}, pairs, (1, 2)).commit().multiply()
    expect(presign(signing, 2), Reason.PUBLIC_KEY_CHECK, (1,))


def test_nonces_that_cancel_out():
    """Infinity has no x coordinate to sign with. It takes knowing the others' nonces."""
    signing = fresh()
    signing.commit()
    first, second, fourth = (signing.parties[i] for i in SIGNERS)
    fourth._nonce = -(first._nonce + second._nonce) % ORDER
    recommit(signing, fourth)
    signing.multiply()
    expect(presign(signing), Reason.DEGENERATE_NONCE, ())


def test_a_psi_that_is_not_reduced():
    """Numbers have one encoding."""
    signing = ready()
    change_multiply(signing, 2, 1, psi=ORDER.to_bytes(32, "big"))
    expect(presign(signing), Reason.MALFORMED_MESSAGE, (2,))


def test_a_wrong_psi_makes_no_signature():
    """The protocol has no check for it but the last one: nothing that does not verify is released."""
    signing = ready()
    change_multiply(signing, 2, 1, psi=scalar_to_bytes(5))
    presignatures = signing.presign()
    expect(lambda: finish(presignatures, bytes(32)), INVALID_SIGNATURE, ())


@pytest.mark.parametrize("is_covered_up", [False, True])
def test_a_wrong_psi_is_found_by_the_client(is_covered_up):
    """It makes a dispute with the one who was sent it; if the liar says in its commitments what it has sent, its own proof fails."""
    signing = ready()
    wrong = 5
    change_multiply(signing, 2, 1, psi=scalar_to_bytes(wrong))
    liar, victim = signing.parties[2], signing.parties[1]
    difference = liar._mask - liar._receivers[1].chi - wrong
    hidden = [difference * number % ORDER for number in (victim._nonce, victim._key)]
    made = signing.presign()
    if is_covered_up:
        for at, number in zip((3 * 33, 4 * 33), hidden, strict=True):
            before = made[2].commitments
            moved = add([decode(before[at : at + 33]), base_multiply(number)])
            made[2].commitments = before[:at] + encode(moved) + before[at + 33 :]
    found = {OPERATORS[i - 1]: make_share(p, bytes(32)) for i, p in made.items()}
    with pytest.raises(SpoiltSharesError) as caught:
        combine_shares(found, public_key=SHARES[1].public_key)
    expected = ((OPERATORS[1],), set()) if is_covered_up else ((), {frozenset(OPERATORS[:2])})
    assert (caught.value.liars, caught.value.disputes) == expected


# --- all rounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["commits", "multiplies"])
def test_missing_messages_name_the_silent_signers(step):
    """Both of them."""
    signing = ready() if step == "multiplies" else fresh().commit()
    getattr(signing, step)[1].clear()
    call = presign(signing) if step == "multiplies" else multiply(signing)
    expect(call, Reason.MISSING_MESSAGE, (2, 4))


@pytest.mark.parametrize("step", ["commits", "multiplies"])
@pytest.mark.parametrize(
    "how", ["cut", "of another session", "of another signer", "of another round", "not bytes"]
)
def test_a_foreign_or_malformed_message_is_blamed_on_its_sender(step, how):
    """And bans nobody: what is not even addressed to this session is not checked by it."""
    signing, other = fresh(), fresh()
    signing.commit()
    other.commit()
    if step == "multiplies":
        signing.multiply()
        other.multiply()
    mail = getattr(signing, step)[1]
    mail[2] = {
        "cut": mail[2][:-1],
        "of another session": getattr(other, step)[1][2],
        "of another signer": mail[4],
        "of another round": signing.commits[1][4] if step == "multiplies" else b"\x12" + mail[2][1:],
        "not bytes": None,
    }[how]
    pairs = signing.parties[1]._pairs
    call = presign(signing) if step == "multiplies" else multiply(signing)
    expect(call, Reason.MALFORMED_MESSAGE, (2,))
    assert not pairs[2].ban.is_set


@pytest.mark.parametrize("difference", ["key", "signers"])
def test_a_message_for_another_key_or_set_of_signers_is_refused(difference):
    """Both are part of the session's context, under one session id."""
    session_id = secrets.token_bytes(32)
    pairs = all_pairs(range(1, 5))
    signing = Signing(SHARES, pairs, SIGNERS, session_id=session_id).commit()
    shares = Group(3, 4).run() if difference == "key" else SHARES
    signers = SIGNERS if difference == "key" else (1, 2, 3)
    other = Signing(shares, pairs, signers, session_id=session_id).commit()
    signing.commits[1][2] = other.commits[1][2]
    expect(multiply(signing), Reason.MALFORMED_MESSAGE, (2,))


@pytest.mark.parametrize("step", ["commits", "multiplies"])
def test_a_message_swapped_between_recipients_bans_nobody(step):
    """What was sent to party 4, delivered to party 1: the header tells, before a check fails over it."""
    signing = ready() if step == "multiplies" else fresh().commit()
    mail = getattr(signing, step)
    mail[1][2] = mail[4][2]
    call = presign(signing) if step == "multiplies" else multiply(signing)
    expect(call, Reason.MALFORMED_MESSAGE, (2,))


def test_a_restart_between_the_rounds_bans_and_blames_nobody():
    """Party 1 comes back under the same session id and gets the reply to what it had sent before."""
    shares, pairs = TWO
    signing = Signing(shares, pairs, (1, 2))
    commits = {i: party.commit() for i, party in signing.parties.items()}
    reply = signing.parties[2].multiply({1: commits[1][2]})
    restarted = Signing(shares, pairs, (1, 2), session_id=signing.session_id).parties[1]
    restarted.commit()
    restarted.multiply({2: commits[2][1]})
    expect(lambda: restarted.presign({2: reply[1]}), Reason.EQUIVOCATION, ())
    assert not pairs[1][2].ban.is_set


@pytest.mark.parametrize("step", ["commit", "multiply", "presign"])
def test_a_ban_stops_sessions_that_are_under_way(step):
    """It was found in another session of the same pair."""
    signing = fresh()
    party = signing.parties[1]
    if step != "commit":
        signing.commit()
    if step == "presign":
        signing.multiply()
    party._pairs[2].ban.is_set = True
    calls = {"commit": party.commit, "multiply": multiply(signing), "presign": presign(signing)}
    expect(calls[step], Reason.BANNED, (2,), ban=True)


@settings(max_examples=25)
@given(st.sampled_from(["commits", "multiplies"]), st.integers(0, 10**6))
def test_a_flipped_bit_anywhere_ends_in_an_abort_or_does_no_harm(step, bit):
    """In any message of either round, header included: nobody gets a wrong signature, or another exception."""
    shares, pairs = TWO
    unbanned = {i: {j: evolve(p, ban=Ban()) for j, p in states.items()} for i, states in pairs.items()}
    signing = Signing(shares, unbanned, (1, 2))
    signing.commit()
    if step == "multiplies":
        signing.multiply()
    mail = getattr(signing, step)[1]
    changed = bytearray(mail[2])
    bit %= len(changed) * 8
    changed[bit // 8] ^= 1 << bit % 8
    mail[2] = bytes(changed)
    with contextlib.suppress(SigningAbort):  # as a rule: only some of a share of zero are not looked at
        finish((signing if step == "multiplies" else signing.multiply()).presign(), bytes(32))


TWO = Group(2, 2).run(), all_pairs((1, 2))


def test_a_party_that_has_aborted_takes_no_further_step():
    """And has dropped nonce, mask and key share."""
    signing = fresh().commit()
    party = signing.parties[1]
    good = dict(signing.commits[1])
    with pytest.raises(SigningAbort):
        party.multiply({})
    assert (party._nonce, party._mask, party._key, party._opening) == (0, 0, 0, b"")
    with pytest.raises(ProtocolStateError):
        party.multiply(good)


def test_after_an_abort_without_a_ban_the_same_signers_may_try_again():
    """With fresh randomness and the same set-ups."""
    shares, pairs = TWO
    signing = Signing(shares, pairs, (1, 2)).commit().multiply()
    change_multiply(signing, 2, 1, gamma_u=encode(base_multiply(5)))
    expect(presign(signing), Reason.NONCE_CHECK, (2,))
    assert len(Signing(shares, pairs, (1, 2)).run(bytes(32))) == 65


def test_an_abort_survives_pickling():
    """It crosses process boundaries when nodes run as processes."""
    abort = SigningAbort(Reason.VOLE_CHECK, (4, 2), ban=True)
    copy = pickle.loads(pickle.dumps(abort))
    assert (copy.reason, copy.culprits, copy.ban) == (Reason.VOLE_CHECK, (2, 4), True)
    assert "by party 2, 4" in str(copy)
    assert "Never" in str(copy)

"""Signed commitments: who told different parties different things, and who only says so."""

from __future__ import annotations

import pytest
from attrs import evolve

from dan_async.config import Threshold
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.mpc.aborts import DkgAbort, Reason
from dan_async.devnet.mpc.dkg import EchoMessage, ProvingParty, Session, check_evidence, sign_message
from dan_async.devnet.mpc.framing import join_parts, split_parts

IDENTITIES = sorted((NodeIdentity.from_hex(f"{n:064x}") for n in (1, 2, 3)), key=lambda i: i.operator.lower())
AGREED = Session(
    session_id=b"\x0c" * 32,
    threshold=Threshold(2, 3),
    identities=tuple(identity.operator for identity in IDENTITIES),
)


def party(index, session=AGREED, by=None):
    return ProvingParty(session, index, IDENTITIES[(by or index) - 1].sign)


def signed(index, session=AGREED, by=None):
    """A body of round 1, from a party with a polynomial of its own."""
    return party(index, session, by).commit()


def false_echo(index):
    """An echo of another transcript, properly signed."""
    echo = EchoMessage(sender=index, transcript_hash=b"\x01" * 32)
    return sign_message(echo, AGREED.context, IDENTITIES[index - 1].sign)


def others(bodies, index):
    return {i: body for i, body in bodies.items() if i != index}


class Run:
    """A key generation of three, up to the echoes, in which party 3 may have two faces."""

    def __init__(self, *, two_faced=False):
        self.parties = parties = {i: party(i) for i in (1, 2, 3)}
        face = party(3) if two_faced else parties[3]
        first = {i: p.commit() for i, p in parties.items()}
        other = face.commit() if two_faced else first[3]
        seen = {1: first, 2: {**first, 3: other}, 3: first}  # party 2 is the victim
        openings = {i: parties[i].open(others(seen[i], i)) for i in (1, 2, 3)}
        to_victim = face.open(others(seen[3], 3)) if two_faced else openings[3]
        self.echoes = {}
        for i in (1, 2, 3):
            sent = {j: to_victim if (i, j) == (2, 3) else openings[j] for j in (1, 2, 3) if j != i}
            self.echoes[i] = parties[i].verify({j: opening[i] for j, opening in sent.items()})

    def bodies(self):
        return dict(self.echoes)

    def with_echo(self, index, echo):
        """The body of a party with another echo, and the commitments that it has got."""
        return join_parts((echo, *split_parts(self.echoes[index], 4)[1:]))

    def finish(self, index, bodies):
        return self.parties[index].finish(others(bodies, index))

    def abort(self, index, bodies):
        with pytest.raises(DkgAbort) as caught:
            self.finish(index, bodies)
        return caught.value


def test_honest_parties_finish():
    """All with the same key."""
    run = Run()
    bodies = run.bodies()
    assert len({share.public_key for i in (1, 2, 3) for share in run.finish(i, bodies)}) == 1


def test_two_faces_are_shown_by_two_signatures():
    """Both honest parties name the one that has them, and can prove it to anybody."""
    run = Run(two_faced=True)
    bodies = run.bodies()
    for index in (1, 2):
        abort = run.abort(index, bodies)
        assert (abort.reason, abort.culprits) == (Reason.EQUIVOCATION, (3,))
        assert check_evidence(AGREED, abort.complaint) == 3


def test_who_passes_on_what_nobody_signed_is_blamed():
    """A party cannot make another look two-faced."""
    run = Run()
    bodies = run.bodies()
    _, one, _, three = split_parts(bodies[3], 4)
    false = false_echo(3)
    framed = signed(2, by=3)
    bodies[3] = join_parts((false.encode(AGREED.context), one, framed, three))
    abort = run.abort(1, bodies)
    assert (abort.reason, abort.culprits, abort.complaint) == (Reason.EQUIVOCATION, (3,), None)


def test_who_signs_another_transcript_of_the_same_commitments_is_blamed():
    """What was opened follows from what was committed to."""
    run = Run()
    bodies = run.bodies()
    false = false_echo(2)
    abort = run.abort(1, {**bodies, 2: run.with_echo(2, false.encode(AGREED.context))})
    assert (abort.reason, abort.culprits, abort.complaint) == (Reason.EQUIVOCATION, (2,), None)


def test_other_aborts_are_left_as_they_are():
    """A bad signature of an echo, for one."""
    run = Run()
    echo = EchoMessage.decode(split_parts(run.echoes[2], 4)[0], AGREED.context)
    unsigned = evolve(echo, signature=b"\x01" * 65).encode(AGREED.context)
    abort = run.abort(1, {**run.bodies(), 2: run.with_echo(2, unsigned)})
    assert (abort.reason, abort.culprits) == (Reason.ECHO_SIGNATURE, (2,))


@pytest.mark.parametrize("body", [b"garbage", join_parts((b"echo", b"one", b"two"))])
def test_echoes_without_a_book_are_blamed_on_their_sender(body):
    """There are as many entries as parties."""
    run = Run()
    abort = run.abort(1, {**run.bodies(), 2: body})
    assert (abort.reason, abort.culprits) == (Reason.MALFORMED_MESSAGE, (2,))


@pytest.mark.parametrize(
    "body",
    [b"garbage", signed(2, by=3), join_parts((b"message", b"no signature"))],
    ids=["garbage", "signed by another", "no signature"],
)
def test_a_commitment_that_is_not_signed_is_not_taken(body):
    """Nobody could be shown it later."""
    one = party(1)
    one.commit()
    with pytest.raises(DkgAbort) as caught:
        one.open({2: body, 3: signed(3)})
    assert caught.value.culprits == (2,)


def opened_otherwise(*, is_signed):
    """Party 3 opens something to party 1 that it has not committed to, and signs for it, or not; gives party 1's abort."""
    parties, face = {i: party(i) for i in (1, 2, 3)}, party(3)
    bodies = {i: p.commit() for i, p in parties.items()}
    face.commit()
    openings = {i: parties[i].open(others(bodies, i)) for i in (1, 2, 3)}
    other = face.open(others(bodies, 3))[1]
    if not is_signed:
        other = join_parts((split_parts(other, 2)[0], split_parts(openings[3][1], 2)[1]))
    with pytest.raises(DkgAbort) as caught:
        parties[1].verify({2: openings[2][1], 3: other})
    return caught.value


def test_an_opening_that_its_dealer_signed_is_proven():
    """Party 3 has signed two commitments, one in round 1 and one along with the share."""
    abort = opened_otherwise(is_signed=True)
    assert (abort.reason, abort.culprits) == (Reason.COMMITMENT_MISMATCH, (3,))
    assert check_evidence(AGREED, abort.complaint) == 3


def test_an_opening_that_nobody_signed_proves_nothing():
    """Whoever got it might have made it up: it is as good as silence."""
    abort = opened_otherwise(is_signed=False)
    assert (abort.reason, abort.culprits, abort.complaint) == (Reason.COMMITMENT_MISMATCH, (3,), None)


OTHER_SESSION = Session(session_id=b"\x0d" * 32, threshold=AGREED.threshold, identities=AGREED.identities)
SAME = signed(2)


@pytest.mark.parametrize(
    "pair",
    [
        (SAME, SAME),
        (signed(2), signed(3)),
        (signed(2), signed(2, by=3)),
        (signed(2), signed(2, session=OTHER_SESSION)),
        (signed(2),),
        (b"", b""),
    ],
    ids=["one twice", "of two parties", "one not signed", "of another session", "only one", "none"],
)
def test_what_proves_nothing(pair):
    """Two commitments are a proof only if they differ, and one party signed both in this session."""
    assert check_evidence(AGREED, b"\xe0" + join_parts(pair)) is None


def test_what_proves_it():
    """Whoever looks at it."""
    assert check_evidence(AGREED, b"\xe0" + join_parts((signed(2), signed(2)))) == 2

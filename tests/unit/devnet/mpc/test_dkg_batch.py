"""Several keys in one session: each a key of its own, and a fault in one of them shown as in a session of one key."""

from __future__ import annotations

import pytest
from attrs import evolve

from dan_async.config import Threshold
from dan_async.crypto.curve import base_multiply, decode, encode, points_fit_degree
from dan_async.devnet.mpc.aborts import DkgAbort, Reason
from dan_async.devnet.mpc.dkg import (
    OpeningMessage,
    Session,
    ShareMessage,
    check_complaint,
    opening_commitment,
    sign_message,
)
from dan_async.errors import InvalidFieldError
from tests.interpolation import interpolate_scalar
from tests.unit.devnet.mpc.dkg_group import Group, others


def finished(group):
    """Every party's shares, key by key."""
    group.commit().open().verify()
    return {i: party.finish(others(i, group.echoes)) for i, party in group.parties.items()}


@pytest.mark.parametrize(("t", "n", "count"), [(2, 2, 2), (2, 3, 5), (3, 5, 16), (11, 12, 2)])
def test_each_key_is_shared_by_a_polynomial_of_its_own(t, n, count):
    """Any t shares make its private key, its public shares fit, and no two keys or shares are the same."""
    shares = finished(Group(t, n, count=count))
    assert {len(of_party) for of_party in shares.values()} == {count}
    seen = set()
    for key in range(count):
        mine = {i: of_party[key] for i, of_party in shares.items()}
        assert len({share.public_key for share in mine.values()}) == 1
        secrets = {i: share.secret_share for i, share in list(mine.items())[-t:]}
        assert encode(base_multiply(interpolate_scalar(secrets))) == mine[1].public_key
        points = dict(enumerate(map(decode, (mine[1].public_key, *mine[1].public_shares))))
        assert points_fit_degree(points, t - 1)
        seen |= {mine[1].public_key, *mine[1].public_shares}
    assert len(seen) == count * (n + 1)


def test_several_keys_are_another_session_than_one():
    """So that no message or signature of one counts in the other."""
    one = Group(2, 3)
    several = Session(session_id=one.session_id, threshold=one.threshold, identities=one.identities, count=2)
    assert several.context != one.session.context


@pytest.mark.parametrize(("t", "count"), [(2, 0), (2, 17), (16, 16), (2, True)])
def test_the_number_of_keys_is_bounded(t, count):
    """At most 16, and their points must fit into one message."""
    identities = Group(t, t).identities
    with pytest.raises(InvalidFieldError, match="count"):
        Session(session_id=bytes(32), threshold=Threshold(t, t), identities=identities, count=count)


@pytest.mark.parametrize("key", [0, 1, 2])
def test_a_wrong_share_of_one_key_is_proven(key):
    """Whichever it is; the complaint names the dealer to a third party, and all keys of the session fail."""
    group = Group(2, 3, count=3).commit().open()
    context = group.session.context
    message = ShareMessage.decode(group.shares[1, 3], context)
    at = 32 * key + 31
    share = message.share[:at] + bytes((message.share[at] ^ 1,)) + message.share[at + 1 :]
    wrong = sign_message(evolve(message, share=share), context, group.signer(3))
    group.shares[1, 3] = wrong.encode(context)
    with pytest.raises(DkgAbort) as caught:
        group.verify_one(1)
    assert (caught.value.reason, caught.value.culprits) == (Reason.WRONG_SHARE, (3,))
    assert check_complaint(caught.value.complaint, group.session) == 3
    assert group.verify_one(2)


def dealt_again(group, **changes):
    """Let party 3 commit to a changed opening, and sign its shares along with it."""
    context = group.session.context
    opening = evolve(OpeningMessage.decode(group.openings[3], context), **changes).encode(context)
    group.openings[3] = opening
    commitment = opening_commitment(opening)
    for to in (1, 2):
        message = evolve(ShareMessage.decode(group.shares[to, 3], context), commitment=commitment)
        group.shares[to, 3] = sign_message(message, context, group.signer(3)).encode(context)
        group.parties[to]._commitments[3] = commitment


@pytest.mark.parametrize(
    "change", ["a proof less", "a proof more", "proofs swapped", "points of one key only", "a share less"]
)
def test_what_is_not_of_every_key_is_proven(change):
    """Proofs, points and shares are as many as the keys, each at its place."""
    group = Group(2, 3, count=2).commit().open()
    message = OpeningMessage.decode(group.openings[3], group.session.context)
    size = len(message.proofs) // 2
    changes = {
        "a proof less": {"proofs": message.proofs[:size]},
        "a proof more": {"proofs": message.proofs + message.proofs[:size]},
        "proofs swapped": {"proofs": message.proofs[size:] + message.proofs[:size]},
        "points of one key only": {"points": message.points[:2]},
        "a share less": {},
    }
    if change == "a share less":
        context = group.session.context
        for to in (1, 2):
            whole = ShareMessage.decode(group.shares[to, 3], context)
            part = sign_message(evolve(whole, share=whole.share[:32]), context, group.signer(3))
            group.shares[to, 3] = part.encode(context)
    else:
        dealt_again(group, **changes[change])
    with pytest.raises(DkgAbort) as caught:
        group.verify_one(1)
    assert caught.value.culprits == (3,)
    assert check_complaint(caught.value.complaint, group.session) == 3


def test_one_certificate_releases_all_shares():
    """Whoever brings it, once."""
    group = Group(2, 3, count=4).commit().open().verify()
    group.parties[2].finish(others(2, group.echoes))
    assert len(group.parties[1].certify(group.parties[2].certificate)) == 4

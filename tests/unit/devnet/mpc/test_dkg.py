"""Key generation among honest parties."""

import itertools
import secrets

import pytest
from coincurve import PrivateKey

from dan_async.config import Threshold
from dan_async.crypto.curve import ORDER, decode, points_fit_degree
from dan_async.devnet.mpc.aborts import DkgAbort, ProtocolStateError
from dan_async.devnet.mpc.dkg import DkgParty, ShareMessage
from dan_async.devnet.mpc.field import scalar_to_bytes
from dan_async.errors import InvalidFieldError
from tests.interpolation import interpolate_point, interpolate_scalar
from tests.unit.devnet.mpc.dkg_group import Group, others


def private_key(shares):
    """The private key that these shares interpolate to, as coincurve's public key of it."""
    return PrivateKey(scalar_to_bytes(interpolate_scalar(shares))).public_key.format()


@pytest.fixture(scope="module")
def three_of_five():
    group = Group(3, 5)
    return group, group.run()


@pytest.mark.parametrize(
    ("t", "n"), [*((t, t) for t in range(2, 12)), *((t, t + 1) for t in range(2, 10)), (2, 20), (11, 20)]
)
def test_t_shares_make_the_key_and_fewer_do_not(t, n):
    """t = 2 … 11, n up to 20, n = t included: sets of t interpolate to the private key of the public key, t - 1 do not."""
    shares = Group(t, n).run()
    secret = {i: share.secret_share for i, share in shares.items()}
    for indices in (range(1, t + 1), range(n - t + 1, n + 1)):
        assert private_key({i: secret[i] for i in indices}) == shares[1].public_key
        for left_out in (indices[0], indices[-1]):
            assert private_key({i: secret[i] for i in indices if i != left_out}) != shares[1].public_key


def test_every_set_of_t_of_five_makes_the_key(three_of_five):
    """All ten, and none of the ten pairs."""
    _, shares = three_of_five
    secret = {i: share.secret_share for i, share in shares.items()}
    for indices in itertools.combinations(range(1, 6), 3):
        assert private_key({i: secret[i] for i in indices}) == shares[1].public_key
    for indices in itertools.combinations(range(1, 6), 2):
        assert private_key({i: secret[i] for i in indices}) != shares[1].public_key


def test_all_parties_hold_the_same_public_view(three_of_five):
    """Public key, public shares, threshold and transcript hash."""
    _, shares = three_of_five
    views = {(s.public_key, s.public_shares, s.threshold, s.transcript_hash) for s in shares.values()}
    assert len(views) == 1
    assert [shares[i].index for i in shares] == [1, 2, 3, 4, 5]


def test_public_shares_are_those_of_the_secret_shares(three_of_five):
    """x_i·G, by coincurve."""
    _, shares = three_of_five
    for share in shares.values():
        own = PrivateKey(scalar_to_bytes(share.secret_share)).public_key.format()
        assert share.public_share == own == shares[1].public_shares[share.index - 1]


def test_public_shares_interpolate_to_the_public_key(three_of_five):
    """In the exponent, from t of them, and all of them lie on one polynomial of degree t - 1."""
    _, shares = three_of_five
    points = {i: decode(point) for i, point in enumerate(shares[1].public_shares, 1)}
    assert interpolate_point({i: points[i] for i in (2, 3, 5)}).format() == shares[1].public_key
    assert points_fit_degree({0: decode(shares[1].public_key), **points}, 2)
    assert not points_fit_degree({0: decode(shares[1].public_key), **points}, 1)


def test_two_key_generations_make_two_keys():
    """Also with the same parties and, by mistake, the same session id."""
    one = Group(2, 3)
    other = Group(2, 3, keys=one.keys, session_id=one.session_id)
    first, second = one.run()[1], other.run()[1]
    assert first.public_key != second.public_key
    assert first.transcript_hash != second.transcript_hash


def test_no_view_of_t_minus_one_parties_holds_the_key(three_of_five):
    """Everything that two of the parties sent, received or keep: no 32 bytes of it, nor their sum, are the private key."""
    group, shares = three_of_five
    key = scalar_to_bytes(interpolate_scalar({i: shares[i].secret_share for i in (1, 2, 3)}))
    for pair in itertools.combinations(range(1, 6), 2):
        seen = [*group.commitments.values(), *group.openings.values(), *group.echoes.values()]
        seen += [share for (to, by), share in group.shares.items() if to in pair or by in pair]
        seen += [scalar_to_bytes(shares[i].secret_share) for i in pair]
        assert all(key not in message for message in seen)
        assert sum(shares[i].secret_share for i in pair) % ORDER != int.from_bytes(key, "big")


def test_shares_are_in_no_broadcast(three_of_five):
    """What goes to one party goes to nobody else."""
    group, _ = three_of_five
    broadcasts = b"".join([*group.commitments.values(), *group.openings.values(), *group.echoes.values()])
    for message in group.shares.values():
        assert ShareMessage.decode(message, group.session.context).share not in broadcasts


def test_a_party_that_has_finished_keeps_no_secret(three_of_five):
    """Neither its polynomial nor its result: the share is the caller's now."""
    group, shares = three_of_five
    for index, party in group.parties.items():
        held = {name: getattr(party, name) for name in vars(party)}
        assert str(shares[index].secret_share) not in repr(held)
        assert not party._polynomials
        assert not party._result


def test_a_party_shows_no_secret():
    """In repr, at every step."""
    group = Group().commit()
    secret = group.parties[1]._polynomials[0].coefficients[0]
    assert repr(group.parties[1]) == "DkgParty(index=1, threshold=2-of-3, step='open')"
    opening = group.parties[1].open(others(1, group.commitments))
    assert opening.shares[2].hex() not in repr(opening)
    assert str(opening.shares[2]) not in repr(opening)
    assert str(secret) not in repr(vars(group.parties[1]))


def test_randomness_comes_from_the_given_source_only():
    """Same entropy, same messages."""

    def party(group):
        counter = itertools.count()
        return group.party(1, entropy=lambda length: (next(counter) + 1).to_bytes(length, "big"))

    group = Group()
    assert party(group).commit() == party(group).commit()


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 0},
        {"index": 4},
        {"index": True},
        {"session_id": b""},
        {"identities": ()},
        {"threshold": Threshold(2, 2)},
    ],
)
def test_wrong_arguments_are_refused(changes):
    """When the object is made."""
    with pytest.raises(InvalidFieldError):
        Group().party(1, **changes)


def test_signing_with_another_key_is_noticed_before_anything_is_sent():
    """Otherwise the others would blame this party."""
    group = Group()
    group.parties[1] = group.party(1, sign=group.signer(2))
    group.commit()
    with pytest.raises(InvalidFieldError, match="sign must sign with the identity key"):
        group.parties[1].open(others(1, group.commitments))


def calls(group):
    """Every step of party 1, with what it needs; messages that do not exist yet are empty."""
    party = group.parties[1]
    return {
        "commit": party.commit,
        "open": lambda: party.open(others(1, group.commitments)),
        "verify": lambda: party.verify(others(1, group.openings), group.shares_for(1)),
        "finish": lambda: party.finish(others(1, group.echoes)),
    }


@pytest.mark.parametrize("taken", range(5))
@pytest.mark.parametrize("step", ["commit", "open", "verify", "finish"])
def test_steps_are_taken_once_and_in_order(taken, step):
    """After each number of steps every other step is refused, and a refusal does no harm."""
    group = Group()
    order = ["commit", "open", "verify", "finish"]
    for name in order[:taken]:
        getattr(group, name)()
    if order[taken : taken + 1] == [step]:
        return
    with pytest.raises(ProtocolStateError) as caught:
        calls(group)[step]()
    assert isinstance(caught.value, RuntimeError)
    for name in order[taken:]:
        getattr(group, name)()


def test_a_party_that_has_aborted_takes_no_further_step():
    """And has dropped its polynomial."""
    group = Group().commit()
    party = group.parties[1]
    with pytest.raises(DkgAbort):
        party.open({})
    assert not party._polynomials
    for call in calls(group).values():
        with pytest.raises(ProtocolStateError):
            call()


def test_an_exception_from_outside_ends_the_party_too():
    """A signer that fails half-way must not leave an object that can be opened again with other commitments."""
    group = Group()

    def fail(digest):
        raise OSError("the key store is away")

    group.parties[1] = group.party(1, sign=fail)
    group.commit()
    with pytest.raises(OSError, match="away"):
        group.parties[1].open(others(1, group.commitments))
    with pytest.raises(ProtocolStateError):
        group.parties[1].open(others(1, group.commitments))


@pytest.mark.parametrize("key", [0, 1, 4, -1, "2"])
def test_a_mapping_with_a_foreign_key_is_refused(key):
    """Own index, or nobody's."""
    group = Group().commit()
    with pytest.raises(InvalidFieldError, match="other parties"):
        group.parties[1].open({**others(1, group.commitments), key: group.commitments[2]})


def test_the_default_source_of_randomness_is_the_operating_system():
    """Nothing that can be seeded."""
    assert DkgParty.__init__.__kwdefaults__ == {"entropy": secrets.token_bytes}

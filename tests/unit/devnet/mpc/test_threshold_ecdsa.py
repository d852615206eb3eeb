"""Threshold ECDSA among honest signers."""

import itertools
import secrets

import pytest
from attrs import evolve
from coincurve import PublicKey
from eth_account import Account

from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import ORDER, add, base_multiply, decode, encode, multiply, negate
from dan_async.devnet.mpc.aborts import ProtocolStateError, Reason, SigningAbort
from dan_async.devnet.mpc.field import scalar_to_bytes
from dan_async.devnet.mpc.threshold_ecdsa import SigningParty
from dan_async.devnet.node.signing import make_share
from dan_async.errors import InvalidFieldError
from dan_async.nodes.signature_shares import SpoiltSharesError, _Whole, combine_shares
from tests.interpolation import interpolate_scalar
from tests.unit.devnet.mpc.dkg_group import Group
from tests.unit.devnet.mpc.signing_group import (
    IDENTITIES,
    OPERATORS,
    Signing,
    all_pairs,
    combine,
    finish,
    made_pair,
)

DIGEST = bytes(range(32))


@pytest.fixture(scope="module")
def five():
    """A 3-of-5 key, and set-ups between all parties."""
    return Group(3, 5).run(), all_pairs(range(1, 6))


@pytest.fixture(scope="module")
def two():
    """A 2-of-2 key, and the set-up."""
    return Group(2, 2).run(), all_pairs((1, 2))


def check(signature, digest, public_key):
    """Two implementations of the verifier, and the form that contracts take."""
    assert (
        PublicKey.from_signature_and_message(
            signature[:64] + bytes((signature[64] - 27,)), digest, hasher=None
        ).format()
        == public_key
    )
    assert Account._recover_hash(digest, signature=signature) == public_key_to_address(public_key)
    assert 0 < int.from_bytes(signature[32:64], "big") <= ORDER // 2
    assert signature[64] in (27, 28)


def test_every_set_of_three_of_five_signs(five):
    """All ten; the signature is the key's, whoever signs."""
    shares, pairs = five
    for signers in itertools.combinations(range(1, 6), 3):
        signature = Signing(shares, pairs, signers).run(DIGEST)
        check(signature, DIGEST, shares[1].public_key)


@pytest.mark.parametrize(("t", "n"), [(2, 2), (2, 4), (4, 4), (5, 6)])
def test_other_thresholds_sign(t, n):
    """The first and the last t of the parties."""
    shares = Group(t, n).run()
    pairs = all_pairs(range(1, n + 1))
    for signers in {tuple(range(1, t + 1)), tuple(range(n - t + 1, n + 1))}:
        digest = secrets.token_bytes(32)
        check(Signing(shares, pairs, signers).run(digest), digest, shares[1].public_key)


def test_a_key_from_the_protocols_alone_signs():
    """Key generation, set-up of each pair and signing, with nothing dealt in one place; one set-up serves two keys."""
    group = Group(2, 3)
    pairs = all_pairs((1, 2, 3), lambda i, j: made_pair(group.identities[i - 1], group.identities[j - 1]))
    again = Group(2, 3, keys=group.keys)
    for shares in (group.run(), again.run()):
        for signers in ((1, 2), (3, 1), (2, 3)):
            check(Signing(shares, pairs, signers).run(DIGEST), DIGEST, shares[1].public_key)


@pytest.mark.parametrize("digest", [bytes(32), b"\xff" * 32, ORDER.to_bytes(32, "big")])
def test_any_digest_can_be_signed(two, digest):
    """Zero, and numbers from the group order upwards."""
    shares, pairs = two
    check(Signing(shares, pairs, (1, 2)).run(digest), digest, shares[1].public_key)


@pytest.fixture(scope="module")
def nonces_seen():
    return set()


@pytest.mark.long
@pytest.mark.parametrize("batch", range(2))
def test_a_hundred_signatures(two, nonces_seen, batch):
    """None invalid, none with high s, no nonce twice, both recovery ids about equally often."""
    shares, pairs = two
    before, odd = len(nonces_seen), 0
    for number in range(100):
        digest = bytes((batch, number)) * 16
        signature = Signing(shares, pairs, (1, 2)).run(digest)
        check(signature, digest, shares[1].public_key)
        nonces_seen.add(signature[:32])
        odd += signature[64] - 27
    assert len(nonces_seen) == before + 100
    assert 20 < odd < 80  # 50, give or take 6 standard deviations


def test_presignatures_are_made_before_the_digest_is_known(five):
    """Several in stock, used in any order."""
    shares, pairs = five
    stock = [Signing(shares, pairs, (2, 3, 5)).commit().multiply().presign() for _ in range(3)]
    for number in (2, 0, 1):
        digest = bytes((number,)) * 32
        check(finish(stock[number], digest), digest, shares[1].public_key)


def test_the_identities_of_the_paper(five):
    """Σa_i is the key, Σu_i = r·φ, Σv_i = key·φ, for the sums r and φ that no party knows."""
    shares, pairs = five
    signing = Signing(shares, pairs, (1, 2, 4)).commit().multiply()
    parties = signing.parties.values()
    key = interpolate_scalar({i: shares[i].secret_share for i in (1, 2, 4)})
    nonce = sum(party._nonce for party in parties)
    mask = sum(party._mask for party in parties)
    assert sum(party._key for party in parties) % ORDER == key
    presignatures = signing.presign()
    numbers = [p._secrets[0] for p in presignatures.values()]
    assert sum(m for m, _, _ in numbers) % ORDER == mask % ORDER
    assert sum(u for _, u, _ in numbers) % ORDER == nonce * mask % ORDER
    assert sum(v for _, _, v in numbers) % ORDER == key * mask % ORDER
    assert {p.nonce_point for p in presignatures.values()} == {encode(base_multiply(nonce))}


def test_the_commitments_are_the_numbers_as_points(five):
    """Φ, U and V; what two signers say of their exchange cancels out, and without it u and v are multiples of R and Y."""
    shares, pairs = five
    presignatures = Signing(shares, pairs, (1, 2, 4)).commit().multiply().presign()
    terms = {}
    for index, presignature in presignatures.items():
        mask, u, v = presignature._secrets[0]
        points = [decode(presignature.commitments[at : at + 33]) for at in range(0, 7 * 33, 33)]
        assert len(presignature.commitments) == 7 * 33 + 64
        assert points[:3] == [base_multiply(number) for number in (mask, u, v)]
        nonce_point, public_key = decode(presignature.nonce_point), decode(presignature.public_key)
        assert add([multiply(nonce_point, mask), *points[3::2]]) == points[1]
        assert add([multiply(public_key, mask), *points[4::2]]) == points[2]
        for place, other in enumerate(i for i in (1, 2, 4) if i != index):
            terms[index, other] = points[3 + 2 * place : 5 + 2 * place]
    assert all(terms[i, j] == [negate(point) for point in terms[j, i]] for i, j in terms)


def answers(presignatures, digest):
    """The share of each signer, by its operator."""
    return {OPERATORS[i - 1]: make_share(presignature, digest) for i, presignature in presignatures.items()}


def test_what_a_client_finds_among_honest_signers(five):
    """A signature; and asked all the same who is wrong, it names nobody."""
    shares, pairs = five
    found = answers(Signing(shares, pairs, (1, 3, 5)).commit().multiply().presign(), DIGEST)
    check(combine_shares(found, public_key=shares[1].public_key), DIGEST, shares[1].public_key)
    error = _Whole.of(found, shares[1].public_key).explain()
    assert (error.liars, error.disputes) == ((), set())


def test_a_client_names_a_signer_who_lies_about_its_share(five):
    """At once, and nobody else."""
    shares, pairs = five
    found = answers(Signing(shares, pairs, (1, 3, 5)).commit().multiply().presign(), DIGEST)
    liar = OPERATORS[2]
    found[liar] = evolve(found[liar], w=found[liar].w ^ 1)
    with pytest.raises(SpoiltSharesError) as caught:
        combine_shares(found, public_key=shares[1].public_key)
    assert (caught.value.liars, caught.value.disputes) == ((liar,), set())


def test_neither_key_nor_nonce_nor_shares_are_in_any_message(five):
    """Nor does any signer hold the key or the nonce, at any step."""
    shares, pairs = five
    signing = Signing(shares, pairs, (1, 3, 5)).commit().multiply()
    key = interpolate_scalar({i: shares[i].secret_share for i in (1, 3, 5)})
    nonce = sum(party._nonce for party in signing.parties.values()) % ORDER
    own = [number for party in signing.parties.values() for number in (party._nonce, party._mask, party._key)]
    for party in signing.parties.values():
        assert not {key, nonce} & {party._nonce, party._mask, party._key}
    presignatures = signing.presign()
    parts = {i: p.sign(DIGEST) for i, p in presignatures.items()}
    sent = b"".join(
        [m for step in (signing.commits, signing.multiplies) for mail in step.values() for m in mail.values()]
        + [scalar_to_bytes(number) for part in parts.values() for number in part]
        + [presignature.commitments for presignature in presignatures.values()]
    )
    secret = [key, nonce, *own, *(shares[i].secret_share for i in (1, 3, 5))]
    assert not [number for number in secret if scalar_to_bytes(number) in sent]


def test_a_signature_does_not_repeat_under_the_same_session_id(two):
    """By mistake: fresh nonces all the same."""
    shares, pairs = two
    session_id = secrets.token_bytes(32)
    signatures = {Signing(shares, pairs, (1, 2), session_id=session_id).run(DIGEST) for _ in range(3)}
    assert len({signature[:32] for signature in signatures}) == 3


def test_fewer_than_t_never_sign(five):
    """Not by asking; and t - 1 parties' numbers do not add up to a signature without the third's."""
    shares, pairs = five
    for signers in itertools.combinations(range(1, 6), 2):
        with pytest.raises(InvalidFieldError, match="3 different parties"):
            Signing(shares, pairs, signers)
    signing = Signing(shares, pairs, (1, 2, 3))
    presignatures = signing.commit().multiply().presign()
    shares = {i: presignatures[i].sign(DIGEST) for i in (1, 2)}
    with pytest.raises(SigningAbort, match="does not verify"):
        combine(presignatures, DIGEST, shares)


def test_wrong_shares_do_not_sign(five):
    """t parties of which one holds a share of another key."""
    shares, pairs = five
    other = Group(3, 5).run()
    mixed = {**shares, 3: other[3]}
    with pytest.raises(SigningAbort):
        Signing(mixed, pairs, (1, 2, 3)).run(DIGEST)


def arguments(five, **changes):
    shares, pairs = five
    return {
        "session_id": bytes(32),
        "share": shares[1],
        "signers": (1, 2, 3),
        "operators": OPERATORS,
        "sign": IDENTITIES[0].sign,
        "pairs": pairs[1],
    } | changes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session_id", b"short"),
        ("session_id", None),
        ("signers", (1, 2)),
        ("signers", (1, 2, 3, 4)),
        ("signers", (1, 2, 2)),
        ("signers", (2, 3, 4)),
        ("signers", (0, 1, 2)),
        ("signers", (1, 2, 6)),
        ("pairs", {}),
    ],
)
def test_wrong_arguments_are_refused(five, name, value):
    """The field is named."""
    with pytest.raises(InvalidFieldError, match=name):
        SigningParty(**arguments(five, **{name: value}))


def test_a_banned_pair_does_not_sign(five):
    """In no session, as soon as a party of it is among the signers."""
    shares, pairs = five
    pairs = {i: dict(states) for i, states in pairs.items()}
    fresh = all_pairs((1, 2))
    pairs[1][2] = fresh[1][2]
    pairs[1][2].ban.is_set = True
    with pytest.raises(SigningAbort) as caught:
        SigningParty(**arguments((shares, pairs)))
    assert (caught.value.reason, caught.value.culprits, caught.value.ban) == (Reason.BANNED, (2,), True)
    SigningParty(**arguments((shares, pairs), signers=(1, 3, 4)))


@pytest.mark.parametrize("taken", range(4))
@pytest.mark.parametrize("step", ["commit", "multiply", "presign"])
def test_steps_are_taken_once_and_in_order(two, taken, step):
    """Every other step is refused, and the refusal does no harm."""
    shares, pairs = two
    signing = Signing(shares, pairs, (1, 2))
    order = ["commit", "multiply", "presign"]
    for name in order[:taken]:
        presignatures = getattr(signing, name)()
    if order[taken : taken + 1] == [step]:
        return
    party = signing.parties[1]
    calls = {
        "commit": party.commit,
        "multiply": lambda: party.multiply(signing.commits.get(1, {})),
        "presign": lambda: party.presign(signing.multiplies.get(1, {})),
    }
    with pytest.raises(ProtocolStateError):
        calls[step]()
    for name in order[taken:]:
        presignatures = getattr(signing, name)()
    check(finish(presignatures, DIGEST), DIGEST, shares[1].public_key)


def test_a_party_that_is_done_keeps_no_secret(two):
    """Nonce, mask and key share are the presignature's, or gone."""
    shares, pairs = two
    signing = Signing(shares, pairs, (1, 2)).commit().multiply()
    signing.presign()
    for party in signing.parties.values():
        assert (party._nonce, party._mask, party._key) == (0, 0, 0)
        assert not party._receivers
        assert not party._sent


def test_a_party_shows_no_secret(two):
    """In repr."""
    shares, pairs = two
    signing = Signing(shares, pairs, (1, 2)).commit()
    assert repr(signing.parties[1]) == "SigningParty(index=1, signers=(1, 2), step='multiply')"


def test_messages_may_come_in_any_order_of_signers(five):
    """The order in which signers are given does not matter either."""
    shares, pairs = five
    signing = Signing(shares, pairs, (5, 2, 1)).commit()
    signing.commits = {i: dict(reversed(mail.items())) for i, mail in signing.commits.items()}
    signing.multiply()
    signing.multiplies = {i: dict(reversed(mail.items())) for i, mail in signing.multiplies.items()}
    presignatures = signing.presign()
    check(finish(presignatures, DIGEST), DIGEST, shares[1].public_key)

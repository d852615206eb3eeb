"""The last round of signing."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from attrs import evolve
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER, add, base_multiply, decode, encode, negate
from dan_async.crypto.signature import recover_public_key
from dan_async.devnet.mpc.aborts import ProtocolStateError, Reason, SigningAbort
from dan_async.devnet.mpc.pairwise_setup import Ban
from dan_async.devnet.mpc.threshold_ecdsa import Presignature
from dan_async.errors import InvalidFieldError
from dan_async.protocols.node import nonce_shift, shift_nonce
from tests.unit.devnet.mpc.signing_group import (
    INVALID_SIGNATURE,
    OPERATORS,
    all_pairs,
    assemble,
    combine,
    finish,
    shifted,
)


def is_x(number):
    try:
        decode(b"\x02" + number.to_bytes(32, "big"))
    except InvalidFieldError:
        return False
    return True


def fields_of(presignature):
    return {
        field.alias: getattr(presignature, field.name) for field in attrs.fields(Presignature) if field.init
    }


CONTEXT = bytes(range(32))
DIGEST = secrets.token_bytes(32)
PAIRS = all_pairs((1, 3))
PAIRS[4] = {}
#: The smallest x from the order upwards that is a point's.
LARGE_X = next(x for x in range(ORDER, ORDER + 100) if is_x(x))
scalars = st.integers(1, ORDER - 1)


def split(number, count):
    """Random numbers that add up to it."""
    parts = [secrets.randbelow(ORDER) for _ in range(count - 1)]
    return [*parts, (number - sum(parts)) % ORDER]


def presignatures(key=None, nonce=None, signers=(1, 3)):
    """What the rounds before would leave, made in one place from the key and the nonce."""
    key, nonce = key or secrets.randbelow(ORDER - 1) + 1, nonce or secrets.randbelow(ORDER - 1) + 1
    masks = [secrets.randbelow(ORDER) for _ in signers]
    mask = sum(masks)
    parts = zip(
        signers, masks, split(nonce * mask, len(signers)), split(key * mask, len(signers)), strict=True
    )
    public = {"public_key": encode(base_multiply(key)), "nonce_point": encode(base_multiply(nonce))}
    return {
        i: Presignature(
            id=CONTEXT,
            signers=signers,
            operators=tuple(OPERATORS[j - 1] for j in signers),
            commitments=b"",
            secrets=[(m, u, v)],
            pairs=PAIRS[i],
            **public,
        )
        for i, m, u, v in parts
    }


def abort_of(call):
    with pytest.raises(SigningAbort) as caught:
        call()
    return caught.value


@settings(max_examples=30)
@given(scalars, scalars, st.binary(min_size=32, max_size=32))
def test_the_signature_is_that_of_the_key(key, nonce, digest):
    """For any key, nonce and digest: coincurve recovers the key, s is low, r is that of R'."""
    both = presignatures(key, nonce)
    one = finish(both, digest)
    assert recover_public_key(digest, one) == encode(base_multiply(key))
    assert one[:32] == shifted(both[1], digest)[1:]
    assert int.from_bytes(one[32:64], "big") <= ORDER // 2
    assert one[64] in (27, 28)


def test_s_is_the_textbook_one_or_its_negative():
    """s = (h + r·key)/r', for the nonce r' that the digest makes of the presignature's; both recovery ids and signs occur."""
    seen = set()
    for nonce in range(1, 40):
        both = presignatures(12345, nonce)
        signature = finish(both, DIGEST)
        r = int.from_bytes(signature[:32], "big")
        shift = nonce_shift(
            presignature_id=both[1].name,
            public_key=both[1].public_key,
            digest=DIGEST,
            signers=both[1].operators,
        )
        s = (int.from_bytes(DIGEST, "big") + r * 12345) * pow(nonce + shift, -1, ORDER) % ORDER
        found = int.from_bytes(signature[32:64], "big")
        assert found in (s, ORDER - s)
        seen.add((found == s, signature[64]))
    assert seen == {(True, 27), (True, 28), (False, 27), (False, 28)}


@pytest.mark.parametrize("change", ["digest", "signers", "key", "presignature"])
def test_the_nonce_of_a_signature_depends_on_all_that_is_signed(change):
    """R is known before the digest; R' is not, and a share for one digest, key and set of signers is of no use to another."""
    one, other = presignatures(key=5, nonce=7), presignatures(key=6 if change == "key" else 5, nonce=7)
    digest = bytes(32) if change == "digest" else DIGEST
    values = {"signers": {"operators": OPERATORS[:2]}, "presignature": {"id": bytes(32)}}.get(change, {})
    other = {i: Presignature(**{**fields_of(p), **values}) for i, p in other.items()}
    assert one[1].nonce_point == other[1].nonce_point
    assert shifted(one[1], DIGEST) != shifted(other[1], digest)
    shares = {1: one[1].sign(DIGEST), 3: other[3].sign(digest)}
    for presignature, signed in ((one[1], DIGEST), (other[3], digest)):
        abort = abort_of(lambda p=presignature, d=signed: combine({1: p}, d, shares))
        assert abort.reason == INVALID_SIGNATURE


def test_a_signature_has_another_nonce_than_its_presignature():
    """And another for each digest, all of which a chooser of digests would have to know beforehand."""
    found = set()
    for number in range(20):
        both = presignatures(key=5, nonce=7)
        digest = bytes((number,)) * 32
        found.add(finish(both, digest)[:32])
    assert len(found) == 20
    assert both[1].nonce_point[1:] not in found


@pytest.mark.parametrize("number", [1, 2**255])
def test_a_nonce_that_no_signature_can_have_is_none(number):
    """Infinity, and an x coordinate that is no number below the order; one beside them is fine."""
    point = base_multiply(number)
    assert shift_nonce(encode(point), -number % ORDER) is None
    assert shift_nonce(encode(point), 0) == encode(point)
    large = decode(b"\x02" + LARGE_X.to_bytes(32, "big"))
    before = add([large, negate(point)])
    assert shift_nonce(encode(before), number) is None
    assert shift_nonce(encode(before), number + 1) is not None


def test_a_presignature_whose_nonce_becomes_none_is_spent_without_a_share():
    """It would take a hash that hits its own nonce."""
    values = fields_of(presignatures()[1])
    shift = nonce_shift(
        presignature_id=CONTEXT, public_key=values["public_key"], digest=DIGEST, signers=values["operators"]
    )
    presignature = Presignature(**{**values, "nonce_point": encode(base_multiply(-shift))})
    presignature.name = CONTEXT  # so that δ does not depend on R
    abort = abort_of(lambda: presignature.sign(DIGEST))
    assert (abort.reason, abort.culprits) == (Reason.DEGENERATE_NONCE, ())
    assert presignature.is_spent


def test_a_presignature_signs_once():
    """Two digests under one nonce would give the key away; the same digest again is refused as well."""
    presignature = presignatures()[1]
    presignature.sign(DIGEST)
    assert presignature.is_spent
    for digest in (DIGEST, bytes(32)):
        with pytest.raises(ProtocolStateError, match="spent"):
            presignature.sign(digest)


def test_of_many_threads_one_gets_to_sign():
    """It is spent in one atomic step."""
    presignature = presignatures()[1]

    def attempt(number):
        try:
            return presignature.sign(number.to_bytes(32, "big"))
        except ProtocolStateError:
            return None

    with ThreadPoolExecutor(8) as executor:
        results = [result for result in executor.map(attempt, range(64)) if result]
    assert len(results) == 1


def test_a_discarded_presignature_does_not_sign():
    """Nor does it keep its numbers."""
    presignature = presignatures()[1]
    assert not presignature.is_spent
    presignature.discard()
    assert presignature.is_spent
    assert not presignature._secrets
    with pytest.raises(ProtocolStateError, match="spent"):
        presignature.sign(DIGEST)


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(33), "0" * 32, None])
def test_a_wrong_digest_does_not_spend_it(digest):
    """32 bytes, or an error that costs nothing."""
    presignature = presignatures()[1]
    with pytest.raises(InvalidFieldError, match="digest"):
        presignature.sign(digest)
    assert not presignature.is_spent


@settings(max_examples=30)
@given(st.integers(0, 1), st.integers(0, 255))
def test_a_wrong_share_makes_no_signature(which, bit):
    """One bit of u or w: nothing is released that does not verify."""
    both = presignatures()
    shares = {i: list(p.sign(DIGEST)) for i, p in both.items()}
    shares[3][which] ^= 1 << bit
    abort = abort_of(lambda: combine(both, DIGEST, shares))
    assert abort.reason == INVALID_SIGNATURE


def test_a_presignature_with_somebody_banned_since_does_not_sign():
    """And is not spent by the attempt; it is of no more use, though."""
    presignature = presignatures()[1]
    presignature._pairs = {3: evolve(PAIRS[1][3], ban=Ban(is_set=True))}
    abort = abort_of(lambda: presignature.sign(DIGEST))
    assert (abort.reason, abort.culprits, abort.ban) == (Reason.BANNED, (3,), True)


@pytest.mark.parametrize(("u", "w"), [(0, 5), (5, 0)])
def test_parts_that_cancel_out_make_no_signature(u, w):
    """Neither division by zero nor s = 0."""
    key = PrivateKey().public_key.format()
    abort = abort_of(
        lambda: assemble(
            public_key=key,
            nonce_point=key,
            digest=DIGEST,
            shares={1: (7, 7), 2: ((u - 7) % ORDER, (w - 7) % ORDER)},
        )
    )
    assert abort.reason == INVALID_SIGNATURE


def test_parts_that_belong_to_no_key_make_no_signature():
    """An x coordinate that is on no point of the curve cannot be recovered from."""
    key = PrivateKey().public_key.format()
    nothing = b"\x02" + (5).to_bytes(32, "big")
    abort = abort_of(lambda: assemble(public_key=key, nonce_point=nothing, digest=DIGEST, shares={1: (7, 7)}))
    assert abort.reason == INVALID_SIGNATURE


def test_a_presignature_shows_its_id_and_no_number():
    """In repr; id and signers can be asked for."""
    presignature = presignatures()[1]
    mask, u, v = presignature._secrets[0]
    assert not any(str(number) in repr(presignature) for number in (mask, u, v))
    assert repr(presignature) == "Presignature(id=0001020304050607, signers=(1, 3), spent=False)"
    assert (presignature.id, presignature.signers) == (CONTEXT, (1, 3))


def test_a_presignature_cannot_be_pickled_into_a_second_one():
    """A copy could sign again."""
    import copy
    import pickle

    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="signs once"):
            attempt(presignatures()[1])

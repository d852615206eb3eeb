"""The last round of signing."""

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import evolve
from coincurve import PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto.curve import ORDER, base_multiply, encode
from dan_async.crypto.signature import recover_public_key
from dan_async.devnet.mpc.aborts import PairReason, ProtocolStateError, SigningAbort, SigningReason
from dan_async.devnet.mpc.field import scalar_to_bytes
from dan_async.devnet.mpc.pairwise_setup import Ban
from dan_async.devnet.mpc.threshold_ecdsa import Envelope, Presignature, SignMessage
from dan_async.errors import InvalidFieldError
from tests.unit.devnet.mpc.signing_group import all_pairs, assemble, combine

CONTEXT = bytes(range(32))
DIGEST = secrets.token_bytes(32)
PAIRS = all_pairs((1, 3))
PAIRS[4] = {}
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
        i: Presignature(id=CONTEXT, index=i, signers=signers, secrets=[(m, u, v)], pairs=PAIRS[i], **public)
        for i, m, u, v in parts
    }


def abort_of(call):
    with pytest.raises(SigningAbort) as caught:
        call()
    return caught.value


@settings(max_examples=30, deadline=None)
@given(scalars, scalars, st.binary(min_size=32, max_size=32))
def test_the_signature_is_that_of_the_key(key, nonce, digest):
    """For any key, nonce and digest: coincurve recovers the key, s is low, r is the nonce's, and all signers agree."""
    both = presignatures(key, nonce)
    messages = {i: p.sign(digest) for i, p in both.items()}
    one = combine(both[1], 1, messages[1], {3: messages[3]})
    other = combine(both[3], 3, messages[3], {1: messages[1]})
    assert one == other
    assert recover_public_key(digest, one) == encode(base_multiply(key))
    assert one[:32] == encode(base_multiply(nonce))[1:]
    assert int.from_bytes(one[32:64], "big") <= ORDER // 2
    assert one[64] in (27, 28)


def test_s_is_the_textbook_one_or_its_negative():
    """s = (h + r·key)/nonce; both recovery ids and both signs occur."""
    seen = set()
    for nonce in range(1, 40):
        both = presignatures(12345, nonce)
        signature = combine(both[1], 1, both[1].sign(DIGEST), {3: both[3].sign(DIGEST)})
        r = int.from_bytes(signature[:32], "big")
        s = (int.from_bytes(DIGEST, "big") + r * 12345) * pow(nonce, -1, ORDER) % ORDER
        found = int.from_bytes(signature[32:64], "big")
        assert found in (s, ORDER - s)
        seen.add((found == s, signature[64]))
    assert seen == {(True, 27), (True, 28), (False, 27), (False, 28)}


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


def test_a_missing_part_names_the_silent_signer():
    """Both of them."""
    three = presignatures(signers=(1, 3, 4))
    own = three[1].sign(DIGEST)
    abort = abort_of(lambda: combine(three[1], 1, own, {}))
    assert (abort.reason, abort.culprits) == (SigningReason.MISSING_MESSAGE, (3, 4))


@pytest.mark.parametrize("key", [0, 1, 2, "3"])
def test_a_part_of_nobody_is_refused(key):
    """Own index, or no signer's."""
    both = presignatures()
    own = both[1].sign(DIGEST)
    with pytest.raises(InvalidFieldError, match="other signers"):
        combine(both[1], 1, own, {3: both[3].sign(DIGEST), key: b""})


def test_a_part_for_another_digest():
    """The signers were not asked for the same thing."""
    both = presignatures()
    own = both[1].sign(DIGEST)
    abort = abort_of(lambda: combine(both[1], 1, own, {3: both[3].sign(bytes(32))}))
    assert (abort.reason, abort.culprits) == (SigningReason.DIGEST_MISMATCH, (3,))


@pytest.mark.parametrize("part", ["u", "w"])
def test_a_part_that_is_not_reduced(part):
    """Numbers have one encoding."""
    both = presignatures()
    own = both[1].sign(DIGEST)
    numbers = {"u": bytes(32), "w": bytes(32)} | {part: ORDER.to_bytes(32, "big")}
    message = Envelope(CONTEXT, 3).seal(SignMessage(digest=DIGEST, **numbers))
    abort = abort_of(lambda: combine(both[1], 1, own, {3: message}))
    assert (abort.reason, abort.culprits) == (SigningReason.MALFORMED_MESSAGE, (3,))


@settings(max_examples=30, deadline=None)
@given(st.integers(35 * 8, 35 * 8 + 96 * 8 - 1))
def test_a_wrong_part_makes_no_signature(bit):
    """One bit of digest, u or w: nothing is released that does not verify."""
    both = presignatures()
    own = both[1].sign(DIGEST)
    changed = bytearray(both[3].sign(DIGEST))
    changed[bit // 8] ^= 1 << bit % 8
    abort = abort_of(lambda: combine(both[1], 1, own, {3: bytes(changed)}))
    assert abort.reason in (
        SigningReason.DIGEST_MISMATCH,
        SigningReason.INVALID_SIGNATURE,
        SigningReason.MALFORMED_MESSAGE,
    )
    assert not abort.ban


@pytest.mark.parametrize(("signers", "culprits"), [((1, 3), (3,)), ((1, 3, 4), ())])
def test_a_wrong_part_can_be_blamed_on_somebody_only_between_two(signers, culprits):
    """A signer knows that it is not to blame itself; among three that leaves two."""
    presigned = presignatures(signers=signers)
    messages = {i: p.sign(DIGEST) for i, p in presigned.items()}
    wrong = Envelope(CONTEXT, 3).seal(
        SignMessage(digest=DIGEST, u=bytes(31) + b"\x05", w=bytes(31) + b"\x05")
    )
    abort = abort_of(
        lambda: combine(
            presigned[1], 1, messages[1], {i: m for i, m in (messages | {3: wrong}).items() if i != 1}
        )
    )
    assert (abort.reason, abort.culprits) == (SigningReason.INVALID_SIGNATURE, culprits)


def test_a_presignature_with_somebody_banned_since_does_not_sign():
    """And is not spent by the attempt; it is of no more use, though."""
    presignature = presignatures()[1]
    presignature._pairs = {3: evolve(PAIRS[1][3], ban=Ban(is_set=True))}
    abort = abort_of(lambda: presignature.sign(DIGEST))
    assert (abort.reason, abort.culprits, abort.ban) == (PairReason.BANNED, (3,), True)


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
    assert abort.reason == SigningReason.INVALID_SIGNATURE


def test_parts_that_belong_to_no_key_make_no_signature():
    """An x coordinate that is on no point of the curve cannot be recovered from."""
    key = PrivateKey().public_key.format()
    nothing = b"\x02" + (5).to_bytes(32, "big")
    abort = abort_of(lambda: assemble(public_key=key, nonce_point=nothing, digest=DIGEST, shares={1: (7, 7)}))
    assert abort.reason == SigningReason.INVALID_SIGNATURE


def test_a_presignature_shows_its_id_and_no_number():
    """In repr; id and signers can be asked for."""
    presignature = presignatures()[1]
    mask, u, v = presignature._secrets[0]
    assert not any(str(number) in repr(presignature) for number in (mask, u, v))
    assert repr(presignature) == "Presignature(id=0001020304050607, index=1, spent=False)"
    assert (presignature.id, presignature.signers) == (CONTEXT, (1, 3))


def test_a_presignature_cannot_be_pickled_into_a_second_one():
    """A copy could sign again."""
    import copy
    import pickle

    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="signs once"):
            attempt(presignatures()[1])


def test_numbers_in_a_message_are_32_bytes():
    """As the format says."""
    both = presignatures()
    message = Envelope(CONTEXT, 1).open(SignMessage, both[1].sign(DIGEST))
    assert message.digest == DIGEST
    assert message.u == scalar_to_bytes(int.from_bytes(message.u, "big"))

"""Ephemeral keys: made, known by their id, signing as the wire asks, and never shown."""

import base64
import copy
import os
import pickle
import random
from hashlib import sha256

import pytest
from coincurve import PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from dan_async.crypto import ephemeral_key
from dan_async.crypto.curve import ORDER
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import personal_message_digest, recover_public_key
from dan_async.errors import ClientClosedError, InvalidFieldError
from dan_async.protocols.fields import new_request_id
from tests.unit.crypto.vectors import CASES, SIGNGEN_CASES, name, signgen_bytes_and_signature

ALGORITHMS = ["secp256k1", "ed25519"]
SECRET = bytes(range(1, 33))


@pytest.fixture(params=ALGORITHMS)
def algorithm(request):
    """Each algorithm in turn."""
    return request.param


@pytest.fixture
def key(algorithm):
    """A key whose secret the test knows."""
    return EphemeralKey.from_hex(SECRET.hex(), algorithm)


def forms_of(secret):
    """How a secret may show up in a text."""
    number = int.from_bytes(secret, "big")
    return [
        secret.hex(),
        str(number),
        f"{number:x}",
        base64.b64encode(secret).decode(),
        repr(secret),
        repr(bytearray(secret))[10:-1],
    ]


def test_a_new_key_each_time(algorithm):
    """Two keys differ."""
    assert EphemeralKey.generate(algorithm).public_key != EphemeralKey.generate(algorithm).public_key


def test_randomness_is_not_that_of_the_random_module(algorithm):
    """Seeding Python's generator does not repeat a key."""
    random.seed(1)
    first = EphemeralKey.generate(algorithm).to_hex()
    random.seed(1)
    assert EphemeralKey.generate(algorithm).to_hex() != first


def test_a_fork_makes_other_keys(algorithm):
    """Parent and child of a fork do not make the same key."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # in the child: nothing of pytest may run on
        os.write(write, EphemeralKey.generate(algorithm).to_hex().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 64
    assert EphemeralKey.generate(algorithm).to_hex() != theirs


def test_request_ids_are_not_of_the_random_module_either():
    """Nor is any other id or nonce: all are of the secrets module."""
    random.seed(1)
    first = new_request_id()
    random.seed(1)
    assert new_request_id() != first


def test_a_draw_out_of_range_is_drawn_again(monkeypatch):
    """0 and numbers from q on are no private keys of secp256k1."""
    draws = iter([bytes(32), ORDER.to_bytes(32, "big"), SECRET])
    monkeypatch.setattr(ephemeral_key.secrets, "token_bytes", lambda _: next(draws))
    assert EphemeralKey.generate().to_hex() == SECRET.hex()


def test_the_usual_algorithm_is_secp256k1():
    """Nothing said means secp256k1."""
    assert EphemeralKey.generate().algorithm == "secp256k1"
    assert EphemeralKey.from_hex(SECRET.hex()).algorithm == "secp256k1"


def test_the_public_key_of_secp256k1_is_uncompressed():
    """65 bytes from 04, as the claim carries it."""
    expected = PrivateKey(SECRET).public_key.format(compressed=False)
    assert EphemeralKey.from_hex(SECRET.hex(), "secp256k1").public_key == expected


def test_the_public_key_of_ed25519_has_32_bytes():
    """As the claim carries it."""
    expected = Ed25519PrivateKey.from_private_bytes(SECRET).public_key().public_bytes_raw()
    assert EphemeralKey.from_hex(SECRET.hex(), "ed25519").public_key == expected


@pytest.mark.parametrize("case", [case for case in CASES if "eph_private_key" in case["inputs"]], ids=name)
def test_the_public_keys_of_the_wire_vectors(case):
    """Every recorded ephemeral key has the recorded public key."""
    key = EphemeralKey.from_hex(case["inputs"]["eph_private_key"], case["inputs"]["eph_alg"])
    assert "0x" + key.public_key.hex() == case["inputs"]["eph_public_key"]


@pytest.mark.parametrize("case", SIGNGEN_CASES, ids=name)
def test_the_signatures_of_the_wire_vectors(case):
    """Every recorded signgen is signed again, byte for byte."""
    key = EphemeralKey.from_hex(case["inputs"]["eph_private_key"], case["inputs"]["eph_alg"])
    data, signature = signgen_bytes_and_signature(case)
    assert key.sign_message(data) == signature


@given(st.binary(max_size=200))
def test_secp256k1_signs_a_personal_message(data):
    """The signature recovers to the key over the EIP-191 digest."""
    key = EphemeralKey.from_hex(SECRET.hex(), "secp256k1")
    expected = PrivateKey(SECRET).public_key.format()
    assert recover_public_key(personal_message_digest(data), key.sign_message(data)) == expected


@given(st.binary(max_size=200))
def test_ed25519_signs_the_bytes_themselves(data):
    """The plain signature over the bytes holds."""
    key = EphemeralKey.from_hex(SECRET.hex(), "ed25519")
    signature = key.sign_message(data)
    assert signature.startswith("0x")
    Ed25519PublicKey.from_public_bytes(key.public_key).verify(bytes.fromhex(signature[2:]), data)


@pytest.mark.parametrize("text", [SECRET.hex(), "0x" + SECRET.hex(), "0x" + SECRET.hex().upper()])
def test_to_hex_gives_what_from_hex_took(text, algorithm):
    """64 lower-case digits without 0x, as the payload carries them."""
    assert EphemeralKey.from_hex(text, algorithm).to_hex() == SECRET.hex()


@pytest.mark.parametrize("text", ["", "0x", "11" * 31, "11" * 33, "zz" * 32, "1" * 63, None, 5, SECRET])
def test_what_is_no_key_is_refused(text, algorithm):
    """The error names the field and does not repeat the text."""
    with pytest.raises(InvalidFieldError) as caught:
        EphemeralKey.from_hex(text, algorithm, field="eph_key")
    assert caught.value.field == "eph_key"
    assert not text or str(text) not in str(caught.value)


@pytest.mark.parametrize("number", [0, ORDER, 2**256 - 1])
def test_a_number_out_of_range_is_refused_for_secp256k1(number):
    """0 and numbers from q on are no private keys, and are not repeated."""
    text = f"{number:064x}"
    with pytest.raises(InvalidFieldError, match="is not a private key of secp256k1") as caught:
        EphemeralKey.from_hex(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize("algorithm", ["", "secp256r1", "Ed25519", None, 5, ["ed25519"]])
def test_another_algorithm_is_refused(algorithm):
    """There are two algorithms."""
    for call in (
        lambda: EphemeralKey.generate(algorithm),
        lambda: EphemeralKey.from_hex(SECRET.hex(), algorithm),
    ):
        with pytest.raises(InvalidFieldError) as caught:
            call()
        assert caught.value.field == "algorithm"


def test_the_default_id_is_derived_from_the_public_key(key, algorithm):
    """The first 16 bytes of SHA-256 over a prefix, the algorithm and the public key."""
    expected = sha256(b"dan ephemeral key" + algorithm.encode() + key.public_key).hexdigest()[:32]
    assert key.default_id == EphemeralKey.from_hex(SECRET.hex(), algorithm).default_id == expected


def test_the_algorithms_have_different_default_ids():
    """One secret under two algorithms is two keys."""
    assert len({EphemeralKey.from_hex(SECRET.hex(), algorithm).default_id for algorithm in ALGORITHMS}) == 2


@pytest.mark.parametrize(
    "show", [repr, str, format, "{0!r:>900}".format, "%s".__mod__, ascii, lambda key: str([key])]
)
def test_no_text_shows_the_secret(key, show):
    """repr, str, format and whatever prints a container say who it is, never what it is."""
    text = show(key)
    assert key.public_key.hex() in text
    assert "***" in text
    assert not any(form in text for form in forms_of(SECRET))


def test_vars_has_nothing_to_show(key):
    """There is no __dict__ for a logger or a debugger to dump."""
    with pytest.raises(TypeError):
        vars(key)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(key, protocol):
    """No cache, queue or process pool gets the secret."""
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        pickle.dumps(key, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_it_is_not_copied(key, duplicate):
    """A copy would outlive wipe()."""
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        duplicate(key)


def test_it_does_not_give_its_state(key):
    """The hook that serialisers use is closed too."""
    with pytest.raises(TypeError, match="does not give its state"):
        key.__getstate__()


def test_wiping_overwrites_the_buffer(key):
    """The bytes that held the key are zero afterwards."""
    buffer = key._secret
    assert buffer == SECRET
    key.wipe()
    assert buffer == bytes(32)


def test_it_is_made_ready_for_signing_once_and_until_it_is_wiped():
    """Making the library's key takes longer than a signature; ``wipe`` drops it."""
    key = EphemeralKey.generate()
    key.sign_message(b"one")
    ready = key._signing_key
    key.sign_message(b"another")
    assert ready is not None
    assert key._signing_key is ready
    key.wipe()
    assert key._signing_key is None


def test_a_wiped_key_cannot_be_used(key):
    """Neither for signing nor for showing."""
    key.wipe()
    with pytest.raises(ClientClosedError, match="was wiped"):
        key.sign_message(b"")
    with pytest.raises(ClientClosedError, match="was wiped"):
        key.to_hex()


def test_wiping_twice_is_fine(key):
    """wipe() may be called by every owner that thinks it is the last."""
    key.wipe()
    key.wipe()


def test_a_wiped_key_still_says_who_it_was(key):
    """The public side stays."""
    before = key.default_id, repr(key)
    key.wipe()
    assert (key.default_id, repr(key)) == before


def test_leaving_the_block_wipes(algorithm):
    """Also when it is left by an exception."""
    with pytest.raises(LookupError), EphemeralKey.generate(algorithm) as key:
        buffer = key._secret
        raise LookupError
    assert buffer == bytes(32)
    with pytest.raises(ClientClosedError):
        key.to_hex()

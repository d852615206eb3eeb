"""The form of challenges, in both directions."""

import hashlib

import pytest

from dan_async.errors import ChallengeError, InvalidFieldError
from dan_async.protocols.gateway import check_challenge, decode_challenge
from dan_async.protocols.gateway_1 import REVISION_1

GOOD = "ab" * 32
OTHER = "cd" * 32
BAD = [
    "",
    "0x" + GOOD,
    GOOD[:-1],
    GOOD + "0",
    GOOD + "\n",
    " " + GOOD,
    "g" * 64,
    "٣" * 64,
    GOOD * 10_000,
    None,
    b"",
    1,
]


def test_64_hex_digits_are_a_challenge():
    """In either case, and kept as they came: the signature covers the text."""
    assert decode_challenge(GOOD) == check_challenge(GOOD) == GOOD
    assert decode_challenge(GOOD.upper()) == GOOD.upper()


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_anything_else_is_not_read_as_one(bad):
    """The error says that nothing was signed, and shows little of what came."""
    with pytest.raises(ChallengeError, match="64 hex digits") as caught:
        decode_challenge(bad)
    assert "nothing was signed" in caught.value.hint
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_anything_else_is_not_sent_as_one(bad):
    """A server cannot give out, nor a client sign, another form."""
    with pytest.raises(InvalidFieldError, match="challenge must be 64 hex digits"):
        check_challenge(bad)


def test_object_gives_a_challenge_for_each_name_in_our_order():
    """The frame's order does not matter."""
    frame = f'{{"ed25519":"{OTHER}","secp256k1":"{GOOD}"}}'
    found = REVISION_1.decode_challenges("keygen", frame, ("secp256k1", "ed25519"))
    assert list(found.items()) == [("secp256k1", GOOD), ("ed25519", OTHER)]


@pytest.mark.parametrize(
    "frame",
    [
        GOOD,
        "{}",
        f'{{"ed25519":"{GOOD}"}}',
        f'{{"secp256k1":"{GOOD}","ed25519":"{OTHER}"}}',
        f'{{"secp256k1":"0x{GOOD}"}}',
        '{"secp256k1":1}',
        '{"secp256k1":null}',
        f'["{GOOD}"]',
        f'{{"secp256k1":"{GOOD}","secp256k1":"{OTHER}"}}',
        f'{{"secp256k1":"{GOOD}"',
        None,
        f'{{"secp256k1":"{GOOD}"}}'.encode(),
    ],
)
def test_object_of_another_form_is_refused(frame):
    """Missing and unknown names, other values, other types."""
    with pytest.raises(ChallengeError, match="for each of secp256k1"):
        REVISION_1.decode_challenges("keygen", frame, ("secp256k1",))


def test_equal_challenges_for_two_algorithms_are_refused():
    """One signature would do for both keys, since the typed data does not name the algorithm."""
    with pytest.raises(ChallengeError, match="same challenge"):
        REVISION_1.decode_challenges(
            "keygen", f'{{"secp256k1":"{GOOD}","ed25519":"{GOOD.upper()}"}}', ("secp256k1", "ed25519")
        )


def test_one_shot_challenge_is_the_double_hash_of_the_text():
    """SHA-256 twice, over the UTF-8 text, in hex without 0x."""
    text = '{"metadata":"€"}'
    assert (
        REVISION_1.oneshot_challenge(text)
        == hashlib.sha256(hashlib.sha256(text.encode()).digest()).hexdigest()
    )


@pytest.mark.parametrize("text", ["", "\ud800", None, b"{}"])
def test_one_shot_challenge_of_no_text_is_refused(text):
    """What is not text that UTF-8 can carry has no hash."""
    with pytest.raises(InvalidFieldError, match="setup"):
        REVISION_1.oneshot_challenge(text)

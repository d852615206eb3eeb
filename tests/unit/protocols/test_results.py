"""The grammar of result frames, read strictly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async.crypto import curve
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.fields import check_token
from dan_async.protocols.results import (
    KeygenResult,
    SigngenResult,
    decode_keygen_results,
    decode_signgen_results,
    decode_status,
    encode_keygen_results,
    encode_signgen_results,
)
from tests import strategies

KEY = "039e75ef3377c418b3521816c399363901259a4429c9826d0676a5515ef768fba9"
UNCOMPRESSED = curve.decode(bytes.fromhex(KEY)).format(compressed=False).hex()
OFF_CURVE = "02" + "00" * 31 + "05"  # 5**3 + 7 is no square
SIGN = "12" * 64


def keygen(frame, *, has_names=False):
    return decode_keygen_results(frame, has_names=has_names)


def signgen(frame, *, has_names=False):
    return decode_signgen_results(frame, has_names=has_names)


@pytest.mark.parametrize("text", [KEY, "0x" + KEY, KEY.upper(), UNCOMPRESSED, "0x" + UNCOMPRESSED])
def test_public_key_is_compressed_whatever_its_form(text):
    """SEC1 in both forms, with 0x and without."""
    [found] = keygen(f"keyId=K:publicKey={text}")
    assert (found.key_id, found.public_key, found.sign_alg) == ("K", bytes.fromhex(KEY), "secp256k1")


def test_ed25519_key_is_32_bytes():
    """It is given as it is."""
    [found] = keygen(f"keyId=K:publicKey={'01' * 32}:signAlg=ed25519", has_names=True)
    assert (found.public_key, found.sign_alg) == (b"\x01" * 32, "ed25519")


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ("", "empty"),
        (None, "not text"),
        (b"keyId=K", "not text"),
        (f"publicKey={KEY}", "keyId is missing"),
        ("keyId=K", "publicKey is missing"),
        (f"keyId=K:keyId=K:publicKey={KEY}", "keyId is repeated"),
        (f"keyId=K:publicKey={KEY}:publicKey={KEY}", "publicKey is repeated"),
        (f"keyId=K:publicKey={KEY}:extra=1", "does not know"),
        (f"keyId=K:publicKey={KEY}:signAlg=secp256k1", "does not know"),
        (f"keyId=K:publicKey={KEY}:", "does not know"),
        (f":keyId=K:publicKey={KEY}", "does not know"),
        (f"publicKey={KEY}:keyId=K", "keyId is not in its place"),
        (f"keyId=K:publicKey={KEY};", "keyId is missing"),
        (f"keyId=K:publicKey={KEY};keyId=L:publicKey={KEY}", "more than one key"),
        (f"keyId=K:publicKey={KEY}\n", "publicKey must be"),
        (f"keyId=K\n:publicKey={KEY}", "keyId must be"),
        (f"keyId=:publicKey={KEY}", "keyId must be"),
        (f"keyId=K=L:publicKey={KEY}", "keyId must be"),
        (f"keyId=é:publicKey={KEY}", "keyId must be"),
        (f"keyId={'K' * 257}:publicKey={KEY}", "keyId must be"),
        (f"keyid=K:publicKey={KEY}", "keyId is missing"),
        (f" keyId=K:publicKey={KEY}", "keyId is missing"),
        ("keyId=K:publicKey=", "publicKey must be"),
        ("keyId=K:publicKey=zz", "publicKey must be"),
        (f"keyId=K:publicKey={KEY[:-1]}", "publicKey must be"),
        (f"keyId=K:publicKey={KEY[:-2]}", "publicKey must be"),
        (f"keyId=K:publicKey={KEY}00", "publicKey must be"),
        (f"keyId=K:publicKey=05{KEY[2:]}", "publicKey must be"),
        (f"keyId=K:publicKey=06{UNCOMPRESSED[2:]}", "publicKey must be"),
        (f"keyId=K:publicKey=04{KEY[2:]}", "publicKey must be"),
        (f"keyId=K:publicKey={OFF_CURVE}", "publicKey is not a point on the curve"),
        (f"keyId=K:publicKey={UNCOMPRESSED[:-2]}00", "publicKey is not a point on the curve"),
        ("ok", "keyId is missing"),
        ('{"keyId":"K"}', "keyId is missing"),
        ("x" * 70_000, "too long"),
        (";" * 64, "too long"),
    ],
)
def test_broken_keygen_result_is_refused(frame, named):
    """The message names the field."""
    with pytest.raises(ProtocolError, match="keygen result breaks the protocol") as caught:
        keygen(frame)
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (f"keyId=K:publicKey={KEY}", "signAlg is missing"),
        (f"keyId=K:publicKey={KEY}:signAlg=", "signAlg must be"),
        (f"keyId=K:publicKey={KEY}:signAlg=rsa", "signAlg must be"),
        (f"keyId=K:publicKey={KEY}:signAlg=ed25519", "publicKey must hold 32 bytes"),
        (f"keyId=K:publicKey={'01' * 32}:signAlg=secp256k1", "publicKey must be"),
        (
            f"keyId=K:publicKey={KEY}:signAlg=secp256k1;keyId=L:publicKey={KEY}:signAlg=secp256k1",
            "signAlg has the same algorithm",
        ),
        (
            f"keyId=K:publicKey={KEY}:signAlg=secp256k1;keyId=K:publicKey={'01' * 32}:signAlg=ed25519",
            "keyId is the same",
        ),
    ],
)
def test_broken_keygen_result_of_revision_1_is_refused(frame, named):
    """Where every key names its algorithm."""
    with pytest.raises(ProtocolError) as caught:
        keygen(frame, has_names=True)
    assert named in caught.value.message


def test_error_shows_what_came_shortened_and_masked():
    """Enough to recognise it, and no key."""
    with pytest.raises(ProtocolError, match="the gateway sent 'error=") as caught:
        keygen(f"error=busy:token={KEY}")
    assert KEY not in str(caught.value)


def test_signature_has_its_65_byte_form():
    """0x, r, s and 1b or 1c."""
    [even] = signgen(f"sign={SIGN}:recid=0")
    [odd] = signgen(f"sign={SIGN}:recid=1")
    assert even.to_bytes().hex() == f"{SIGN}1b"
    assert odd.to_bytes().hex() == f"{SIGN}1c"


def test_signature_is_not_in_the_repr():
    """It stays out of logs."""
    [found] = signgen(f"sign={SIGN}:recid=0")
    assert SIGN[:16] not in repr(found)
    assert "\\x12\\x12" not in repr(found)


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        ("", "empty"),
        (f"sign={SIGN}", "recid is missing"),
        ("recid=0", "sign is missing"),
        (f"sign={SIGN}:recid=2", "recid must be 0 or 1"),
        (f"sign={SIGN}:recid=-1", "recid must be 0 or 1"),
        (f"sign={SIGN}:recid=NaN", "recid must be 0 or 1"),
        (f"sign={SIGN}:recid=00", "recid must be 0 or 1"),
        (f"sign={SIGN}:recid=1.0", "recid must be 0 or 1"),
        (f"sign={SIGN}:recid=", "recid must be"),
        (f"sign={SIGN}:recid=1\n", "recid must be"),
        (f"sign={SIGN[:-2]}:recid=0", "sign must be 128 hex digits"),
        (f"sign=0x{SIGN}:recid=0", "sign must be 128 hex digits"),
        (f"sign={'x' * 128}:recid=0", "sign must be 128 hex digits"),
        (f"sign={SIGN}:recid=0:transactionId=a", "does not know"),
        (f"sign={SIGN}:recid=0;sign={SIGN}:recid=0", "more than one signature"),
    ],
)
def test_broken_signgen_result_is_refused(frame, named):
    """The message names the field."""
    with pytest.raises(ProtocolError, match="signgen result breaks the protocol") as caught:
        signgen(frame)
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (f"sign={SIGN}:recid=0", "transactionId is missing"),
        (f"sign={SIGN}:recid=0:transactionId=", "transactionId must be"),
        (
            f"sign={SIGN}:recid=0:transactionId=a;sign={SIGN}:recid=0:transactionId=a",
            "transactionId is the same",
        ),
    ],
)
def test_broken_signgen_result_of_revision_1_is_refused(frame, named):
    """Where every signature names its message."""
    with pytest.raises(ProtocolError) as caught:
        signgen(frame, has_names=True)
    assert named in caught.value.message


@pytest.mark.parametrize("frame", ["", "OK", "ok\n", "error", None, b"ok", "ok;ok"])
def test_status_is_one_word(frame):
    """Success is said in one way only."""
    with pytest.raises(ProtocolError, match="did not answer 'ok'"):
        decode_status(frame)


def test_status_of_success_is_accepted():
    """The word itself."""
    decode_status("ok")


@pytest.mark.parametrize("value", ["", "a:b", "a;b", "a=b", "a b", "a\n", "é", "k" * 257, None, 1])
def test_token_that_the_grammar_cannot_carry_is_refused(value):
    """Key ids and transaction ids must not look like the grammar's own marks."""
    with pytest.raises(InvalidFieldError, match="transaction_id must be"):
        check_token("transaction_id", value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"key_id": "a:b"}, "key_id"),
        ({"public_key": b""}, "publicKey"),
        ({"public_key": KEY}, "publicKey"),
        ({"public_key": bytearray.fromhex(KEY)}, "publicKey must be bytes"),
        ({"public_key": b"\x01" * 32}, "publicKey"),
        ({"sign_alg": "rsa"}, "sign_alg"),
        ({"sign_alg": "ed25519"}, "publicKey"),
    ],
)
def test_server_cannot_give_a_key_that_the_grammar_cannot_carry(fields, named):
    """Checked when the result is made."""
    with pytest.raises(InvalidFieldError, match=named):
        KeygenResult(**{"key_id": "K", "public_key": bytes.fromhex(KEY), **fields})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"signature": b"\x01" * 63}, "signature"),
        ({"signature": SIGN}, "signature"),
        ({"signature": "x" * 64}, "signature must be 64 bytes"),
        ({"recovery_id": 2}, "recovery_id"),
        ({"recovery_id": True}, "recovery_id"),
        ({"transaction_id": "a;b"}, "transaction_id"),
    ],
)
def test_server_cannot_give_a_signature_that_the_grammar_cannot_carry(fields, named):
    """Checked when the result is made."""
    with pytest.raises(InvalidFieldError, match=named):
        SigngenResult(**{"signature": bytes.fromhex(SIGN), "recovery_id": 0, **fields})


@settings(max_examples=50)
@given(key=strategies.keygen_results(), other=strategies.keygen_results("ed25519"))
def test_keys_survive_the_grammar(key, other):
    """decode(encode(keys)) is the keys, in their order."""
    assert keygen(encode_keygen_results([key], has_names=False)) == (key,)
    if key.key_id != other.key_id:
        frame = encode_keygen_results([other, key], has_names=True)
        assert keygen(frame, has_names=True) == (other, key)


@settings(max_examples=50)
@given(names=st.lists(strategies.tokens(), min_size=1, max_size=5, unique=True), data=st.data())
def test_signatures_survive_the_grammar(names, data):
    """decode(encode(signatures)) is the signatures, in their order."""
    found = tuple(data.draw(strategies.signgen_results(name)) for name in names)
    assert signgen(encode_signgen_results(found), has_names=True) == found
    bare = data.draw(strategies.signgen_results())
    assert signgen(encode_signgen_results([bare])) == (bare,)


@settings(max_examples=80)
@given(text=st.text(st.sampled_from("keyIdpublicKysgnArot=:;\n0123456789abcdefx")), at=st.integers(0, 120))
def test_grammar_like_text_raises_nothing_else(text, at):
    """Text made of the grammar's own pieces, inserted anywhere."""
    good = f"keyId=K:publicKey={KEY}:signAlg=secp256k1"
    for read in (keygen, lambda frame: keygen(frame, has_names=True), signgen):
        try:
            read(good[:at] + text + good[at:])
        except ProtocolError as error:
            assert error.message  # noqa: PT017  # any other error fails the test by itself

"""Passkeys on the wire."""

import json

import pytest
from hypothesis import given, settings

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.setups import (
    PasskeySetup,
    PasskeySignature,
    decode_credential_id,
    decode_passkey_setup,
    decode_passkey_signature,
    encode_passkey_setup,
    encode_passkey_signature,
)
from tests import strategies

CREDENTIAL = (
    '{"id":"YWJj","rawId":"YWJj","response":{"attestationObject":"","clientDataJSON":""},"type":"public-key"}'
)
GOOD = {"rawCredential": CREDENTIAL, "origin": "https://dan.example", "rpId": "dan.example"}


def test_signature_has_the_recorded_order():
    """rawCredential, origin, rpId, without spaces."""
    signature = PasskeySignature(raw_credential="{}", origin="o", rp_id="r")
    assert encode_passkey_signature(signature) == '{"rawCredential":"{}","origin":"o","rpId":"r"}'


def test_signature_survives_its_text():
    """The credential's text is kept exactly."""
    signature = PasskeySignature(raw_credential=CREDENTIAL, origin=GOOD["origin"], rp_id=GOOD["rpId"])
    assert decode_passkey_signature(encode_passkey_signature(signature)) == signature
    assert decode_passkey_signature(json.dumps(GOOD)) == signature


def test_credential_is_not_in_the_repr():
    """It stays out of logs."""
    assert "YWJj" not in repr(decode_passkey_signature(json.dumps(GOOD)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rawCredential": None}, "raw_credential"),
        ({"rawCredential": {}}, "raw_credential"),
        ({"rawCredential": "[]"}, "rawCredential must be the JSON text of an object"),
        ({"rawCredential": "x"}, "not JSON"),
        ({"origin": ""}, "origin"),
        ({"origin": 1}, "origin"),
        ({"rpId": "r" * 256}, "rp_id"),
        ({"more": 1}, "does not know"),
    ],
)
def test_wrong_signature_is_refused(change, named):
    """Each member with its own message."""
    with pytest.raises((InvalidFieldError, ProtocolError), match=named):
        decode_passkey_signature(json.dumps({**GOOD, **change}))


@settings(max_examples=50)
@given(options=strategies.texts())
def test_setup_survives_its_text(options):
    """With options and without."""
    for setup in (PasskeySetup(options=options), PasskeySetup()):
        assert decode_passkey_setup(encode_passkey_setup(setup)) == setup


@pytest.mark.parametrize(
    "text", ['{"options":null}', '{"options":1}', '{"options":""}', '{"other":"a"}', "[]"]
)
def test_wrong_setup_is_refused(text):
    """It has one member at most."""
    with pytest.raises(InvalidFieldError):
        decode_passkey_setup(text)


@pytest.mark.parametrize("frame", ["", "a b", "a+b", "a=", "a\n", "k" * 1025, None, b"YWJj"])
def test_result_is_a_base64url_credential_id(frame):
    """Anything else is an error of the gateway's."""
    with pytest.raises(ProtocolError, match="not a credential id"):
        decode_credential_id(frame)


def test_credential_id_is_given():
    """As it came."""
    assert decode_credential_id("YWJj-_") == "YWJj-_"


@pytest.mark.parametrize("name", ["rawCredential", "more"])
def test_a_long_answer_is_refused_unread(name):
    """A node reads it at once, whoever sent it."""
    long = json.dumps({"a": "x" * 64 * 1024})
    text = json.dumps({**GOOD, name: long} if name == "rawCredential" else {**GOOD, name: [0] * 60_000})
    with pytest.raises(InvalidFieldError, match="characters long"):
        decode_passkey_signature(text)

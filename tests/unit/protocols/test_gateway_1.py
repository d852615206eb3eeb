"""What is revision 1's own: claims that name their algorithm, and the message beside an ephemeral signature."""

import json

import pytest
from attrs import evolve

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import EphemeralClaim, EphemeralKeySetup, TaggedValue

EOA = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
CLAIM = EphemeralClaim(eph_id="id", eph_pk=b"\x04" + b"\x01" * 64, expiry=7, sign_alg="secp256k1")
TEXT = '{"ephId":"id","ephPK":"0x04' + "01" * 64 + '","expiry":7,"signAlg":"secp256k1"}'


def test_claim_names_its_algorithm():
    """Last of its members."""
    assert REVISION_1.encode_claim(CLAIM) == TEXT
    assert REVISION_1.decode_claim(TEXT) == CLAIM


@pytest.mark.parametrize(
    "change",
    [
        {"ephPK": "0x03" + "01" * 64},
        {"ephPK": "0x" + "01" * 32},
        {"signAlg": "ed25519"},
        {"signAlg": "rsa"},
        {"signAlg": None},
        {"signAlg": ["ed25519"]},
        {"more": 1},
    ],
)
def test_wrong_claim_is_refused(change):
    """The key must be one of its algorithm."""
    with pytest.raises(InvalidFieldError):
        REVISION_1.decode_claim(json.dumps(json.loads(TEXT) | change))


def test_add_and_revoke_carry_metadata_only():
    """Key id, then claim."""
    setup = REVISION_1.ephemeral_key_setup(claim=CLAIM, key_id="key", n=3)
    value = json.loads(REVISION_1.encode_setup(setup))
    assert [entry["tag"] for entry in value.pop("metadata")] == [3, 2]
    assert value == {}


@pytest.mark.parametrize(("fields", "named"), [({"n": 3}, "n is not"), ({"key_id": "key"}, "key_id is not")])
def test_setup_of_revision_0_3_cannot_be_sent(fields, named):
    """Its members would be lost without a word."""
    setup = EphemeralKeySetup(metadata=(TaggedValue(3, "key"), TaggedValue(2, TEXT)), **fields)
    with pytest.raises(InvalidFieldError, match=named):
        REVISION_1.encode_setup(setup)


def test_ephemeral_signature_repeats_the_message():
    """base64Message, then signature; for a setup without a message the signature alone."""
    auth = REVISION_1.ephemeral_authentication(claim=CLAIM, owner_id=EOA, message="YQ==", signature="0xab")
    assert auth.signature == '{"base64Message":"YQ==","signature":"0xab"}'
    assert (auth.id, auth.method, auth.credentials) == ("id", "ephemeral", TEXT)
    assert REVISION_1.read_ephemeral_signature(auth, "YQ==") == "0xab"
    bare = REVISION_1.ephemeral_authentication(claim=CLAIM, owner_id=EOA, message=None, signature="0xab")
    assert bare.signature == '{"signature":"0xab"}'
    assert REVISION_1.read_ephemeral_signature(bare, None) == "0xab"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0xab", "YQ=="),
        ('{"signature":"0xab"}', "YQ=="),
        ('{"base64Message":"YQ==","signature":"0xab"}', None),
        ('{"base64Message":"Yg==","signature":"0xab"}', "YQ=="),
        ('{"base64Message":"YQ==","signature":1}', "YQ=="),
        ('{"base64Message":"YQ==","signature":""}', "YQ=="),
        ('{"base64Message":"YQ=="}', "YQ=="),
    ],
)
def test_wrong_ephemeral_signature_is_refused(text, message):
    """Without the message, with another one, or without a signature."""
    auth = REVISION_1.ephemeral_authentication(claim=CLAIM, owner_id=EOA, message="YQ==", signature="0xab")
    with pytest.raises((InvalidFieldError, ProtocolError)):
        REVISION_1.read_ephemeral_signature(evolve(auth, signature=text), message)

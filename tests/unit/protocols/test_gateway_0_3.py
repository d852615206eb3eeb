"""What is revision 0.3's own: claims without an algorithm, and addEphemeralKey with n and key_id."""

import json

import pytest
from attrs import evolve

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway_0_3 import REVISION_0_3
from dan_async.protocols.setups import EphemeralClaim, EphemeralKeySetup, TaggedValue

EOA = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
CLAIM = EphemeralClaim(eph_id="id", eph_pk=b"\x01" * 32, expiry=7, sign_alg="ed25519")
TEXT = '{"ephId":"id","ephPK":"0x' + "01" * 32 + '","expiry":7}'


def test_claim_has_id_key_and_expiry():
    """In this order, without spaces."""
    assert REVISION_0_3.encode_claim(CLAIM) == TEXT
    assert REVISION_0_3.decode_claim(TEXT) == CLAIM


@pytest.mark.parametrize(
    "change",
    [
        {"ephId": ""},
        {"ephId": None},
        {"ephPK": "01" * 32},
        {"ephPK": "0x04" + "01" * 64},
        {"ephPK": 1},
        {"expiry": -1},
        {"expiry": 2**53 - 1 + 1},
        {"expiry": True},
        {"signAlg": "ed25519"},
    ],
)
def test_wrong_claim_is_refused(change):
    """Every member in turn; an algorithm is not yet known."""
    with pytest.raises((InvalidFieldError, ProtocolError)):
        REVISION_0_3.decode_claim(json.dumps(json.loads(TEXT) | change))


def test_secp256k1_ephemeral_key_is_refused():
    """The revision has ed25519 only."""
    claim = EphemeralClaim(eph_id="id", eph_pk=b"\x04" + b"\x01" * 64, expiry=7, sign_alg="secp256k1")
    with pytest.raises(InvalidFieldError, match="eph_alg"):
        REVISION_0_3.encode_claim(claim)


def test_added_key_names_its_key_twice():
    """As key_id and as tag 3."""
    setup = REVISION_0_3.ephemeral_key_setup(claim=CLAIM, key_id="key", n=3)
    assert setup.key_id == setup.tagged_key_id == "key"
    assert list(json.loads(REVISION_0_3.encode_setup(setup))) == ["n", "key_id", "metadata"]


def test_key_id_that_the_owner_did_not_sign_is_refused():
    """The wallet signs tag 3 only, so key_id must be the same."""
    text = REVISION_0_3.encode_setup(REVISION_0_3.ephemeral_key_setup(claim=CLAIM, key_id="key", n=3))
    with pytest.raises(InvalidFieldError, match="key_id is not the key id of the metadata"):
        REVISION_0_3.decode_setup("addEphemeralKey", text.replace('"key_id":"key"', '"key_id":"other"'))


@pytest.mark.parametrize("change", [{"n": None}, {"n": 0}, {"key_id": None}, {"key_id": ""}, {"t": 2}])
def test_wrong_setup_is_refused(change):
    """Every member in turn."""
    text = REVISION_0_3.encode_setup(REVISION_0_3.ephemeral_key_setup(claim=CLAIM, key_id="key", n=3))
    with pytest.raises(InvalidFieldError):
        REVISION_0_3.decode_setup("addEphemeralKey", json.dumps(json.loads(text) | change))


@pytest.mark.parametrize(("fields", "named"), [({"n": 3}, "key_id"), ({"key_id": "key"}, "n is needed")])
def test_setup_of_revision_1_cannot_be_sent(fields, named):
    """It lacks what this revision needs."""
    setup = EphemeralKeySetup(metadata=(TaggedValue(3, "key"), TaggedValue(2, TEXT)), **fields)
    with pytest.raises(InvalidFieldError, match=named):
        REVISION_0_3.encode_setup(setup)


def _keygen(text):
    value = {"t": 2, "n": 3, "metadata": [{"tag": 2, "value": text}]}
    return protocol_for("0.3").decode_setup("keygen", json.dumps(value))


def test_owner_vouches_for_the_claim_that_was_signed():
    """Setup and credentials must say the same, however each is written."""
    auth = REVISION_0_3.owner_authentication(claim=CLAIM, method="eoa", owner_id=EOA, signature="0x00")
    assert protocol_for("0.3").owner_claim(_keygen(TEXT), auth) == CLAIM
    assert protocol_for("0.3").owner_claim(_keygen(json.dumps(json.loads(TEXT), indent=1)), auth) == CLAIM


@pytest.mark.parametrize("change", [{"ephId": "other"}, {"ephPK": "0x" + "02" * 32}, {"expiry": 8}])
def test_credentials_with_another_claim_are_refused(change):
    """One second more of life is already another claim."""
    auth = REVISION_0_3.owner_authentication(claim=CLAIM, method="eoa", owner_id=EOA, signature="0x00")
    other = evolve(auth, credentials=json.dumps(json.loads(TEXT) | change))
    with pytest.raises(InvalidFieldError, match="another claim"):
        protocol_for("0.3").owner_claim(_keygen(TEXT), other)


def test_ephemeral_key_signs_under_its_own_id():
    """The id beside the credentials must be the one in them."""
    setup = REVISION_0_3.signgen_setup(t=2, key_id="k", message="m")
    auth = REVISION_0_3.ephemeral_authentication(claim=CLAIM, owner_id=EOA, message=None, signature="0xab")
    assert protocol_for("0.3").ephemeral_proof(setup, auth) == (CLAIM, "0xab")
    with pytest.raises(InvalidFieldError, match="id is not the ephId"):
        protocol_for("0.3").ephemeral_proof(setup, evolve(auth, id="other"))


def test_setup_without_a_claim_has_no_owner_claim():
    """A signgen is not vouched for by an owner."""
    auth = REVISION_0_3.owner_authentication(claim=CLAIM, method="eoa", owner_id=EOA, signature="0x00")
    with pytest.raises(InvalidFieldError, match="no ephemeral claim"):
        protocol_for("0.3").owner_claim(REVISION_0_3.signgen_setup(t=2, key_id="k", message="m"), auth)

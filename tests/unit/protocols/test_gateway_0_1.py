"""What is revision 0.1's own: the ephemeral key without an id, and the owner in the credentials."""

import json

import pytest
from attrs import evolve

from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway_0_3 import REVISION_0_1
from dan_async.protocols.setups import EphemeralClaim

PUBLIC_KEY = "0x" + "01" * 32
EOA = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
CLAIM = EphemeralClaim(eph_id=PUBLIC_KEY, eph_pk=b"\x01" * 32, expiry=7, sign_alg="ed25519")
SECP256K1 = EphemeralClaim(eph_id="id", eph_pk=b"\x04" + b"\x01" * 64, expiry=7, sign_alg="secp256k1")


def credentials(**changes):
    return json.dumps({"eoa": EOA, "ephPK": PUBLIC_KEY, "expiry": 7, **changes})


def test_claim_is_the_bare_public_key():
    """Neither id nor expiry is in it; read back, the key names itself and has no expiry."""
    assert REVISION_0_1.encode_claim(CLAIM) == PUBLIC_KEY
    assert REVISION_0_1.decode_claim(PUBLIC_KEY) == evolve(CLAIM, expiry=0)


@pytest.mark.parametrize("text", ["", "01" * 32, PUBLIC_KEY[:-2], PUBLIC_KEY + "00", "{}", None])
def test_what_is_no_public_key_is_no_claim(text):
    """0x and 32 bytes."""
    with pytest.raises(InvalidFieldError, match="ephPK"):
        REVISION_0_1.decode_claim(text)


def test_secp256k1_ephemeral_key_is_refused():
    """The revision has ed25519 only."""
    for write in (REVISION_0_1.encode_claim, lambda claim: REVISION_0_1.encode_credentials(claim, EOA)):
        with pytest.raises(InvalidFieldError, match="eph_alg"):
            write(SECP256K1)
    with pytest.raises(InvalidFieldError, match="eph_alg"):
        REVISION_0_1.ephemeral_authentication(claim=SECP256K1, owner_id=EOA, message=None, signature="0x00")


def test_credentials_name_the_owner():
    """In whatever case the address is given."""
    assert REVISION_0_1.decode_credentials(credentials(), EOA) == CLAIM
    assert REVISION_0_1.decode_credentials(credentials(eoa=EOA.lower()), EOA) == CLAIM


@pytest.mark.parametrize(
    "text",
    [
        credentials(eoa="0x" + "00" * 20),
        credentials(eoa="0x00"),
        credentials(eoa=None),
        credentials(ephPK="01" * 32),
        credentials(ephPK=None),
        credentials(expiry=-1),
        credentials(expiry="7"),
        credentials(expiry=None),
        credentials(ephId="id"),
        "{}",
        "x",
    ],
)
def test_wrong_credentials_are_refused(text):
    """Another owner, and every wrong member."""
    with pytest.raises((InvalidFieldError, ProtocolError)):
        REVISION_0_1.decode_credentials(text, EOA)


def test_ephemeral_key_signs_without_an_expiry():
    """The credentials say 0, and the owner stands as the id."""
    auth = REVISION_0_1.ephemeral_authentication(
        claim=CLAIM, owner_id=EOA, message="bWVzc2FnZQ==", signature="0xab"
    )
    assert json.loads(auth.credentials)["expiry"] == 0
    assert (auth.id, auth.method, auth.signature) == (EOA, "ephemeral", "0xab")


def test_claim_of_an_owner_takes_its_expiry_from_the_credentials():
    """The setup has none; the key must be the same in both."""
    setup = protocol_for("0.1").decode_setup(
        "keygen", f'{{"t":2,"n":3,"metadata":[{{"tag":2,"value":"{PUBLIC_KEY}"}}]}}'
    )
    auth = REVISION_0_1.owner_authentication(claim=CLAIM, method="eoa", owner_id=EOA, signature="0x00")
    assert protocol_for("0.1").owner_claim(setup, auth) == CLAIM
    other = evolve(auth, credentials=credentials(ephPK="0x" + "02" * 32))
    with pytest.raises(InvalidFieldError, match="another claim"):
        protocol_for("0.1").owner_claim(setup, other)

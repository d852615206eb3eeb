"""The gateway's side: which revision a client speaks, and what it may ask."""

import json

import pytest
from attrs import evolve

from dan_async.config import Threshold
from dan_async.devnet.gateway import accept, detect_revision
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.exchange import keygen_exchange, passkey_exchange, protocol_for, signgen_exchange
from dan_async.protocols.gateway_0_3 import REVISION_0_3
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import EphemeralClaim
from dan_async.protocols.sign_request import SignRequest

EOA = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
CLAIM = EphemeralClaim(eph_id="id", eph_pk=b"\x01" * 32, expiry=7, sign_alg="ed25519")
ONE, TWO = "ab" * 32, "cd" * 32


def keygen(revision="1", **changes):
    return keygen_exchange(
        protocol_for(revision), **{"threshold": Threshold(2, 3), "claim": CLAIM, **changes}
    )


def signgen(revision):
    request = SignRequest(
        request_type="accountAbstractionTx",
        message='{"userOperation":{},"entryPointVersion":"v0.6.0","entryPointAddress":"0x00","chainId":1}',
        transaction_id="a" if revision == "1" else None,
    )
    return signgen_exchange(protocol_for(revision), t=2, key_id="k", requests=[request])


def owner(exchange):
    return exchange.protocol.owner_authentication(claim=CLAIM, method="eoa", owner_id=EOA, signature="0xab")


@pytest.mark.parametrize("revision", ["0.1", "0.3", "1"])
def test_keygen_tells_its_revision(revision):
    """By the array, or by the claim."""
    assert detect_revision("keygen", keygen(revision).setup_frame) == revision
    assert detect_revision("keygen", keygen(revision, permissions="0x").setup_frame) == revision


@pytest.mark.parametrize(
    ("operation", "frame", "revision"),
    [
        ("addEphemeralKey", '{"n":3,"key_id":"k","metadata":[]}', "0.3"),
        ("addEphemeralKey", '{"metadata":[]}', "1"),
        ("revokeEphemeralKey", '{"metadata":[]}', "1"),
        ("registerPasskey", "{}", "1"),
        ("signgen", '{"t":2,"key_id":"k","message":"","signAlg":"secp256k1"}', "1"),
        ("signgen", '{"t":2,"key_id":"k","message":""}', "0.3"),
        ("keygen", "{}", "0.3"),
        ("keygen", "[]", "1"),
        ("keygen", "null", "1"),
    ],
)
def test_setup_tells_its_revision(operation, frame, revision):
    """By its members; whether it is right is not checked here."""
    assert detect_revision(operation, frame) == revision


@pytest.mark.parametrize("revision", ["0.1", "0.3", "1"])
def test_signgen_tells_its_revision_by_its_message(revision):
    """The setups of 0.1 and 0.3 are the same; the messages in them are not."""
    exchange = signgen(revision)
    auth = exchange.ephemeral_authentication("secp256k1", claim=CLAIM, owner_id=EOA, signature="0xab")
    served = accept("signgen", exchange.setup_frame)
    served = served.read_authentications(exchange.authentication_frame({"secp256k1": auth}))
    assert served.protocol.revision == revision
    claim, signature = served.protocol.ephemeral_proof(
        served.setups["secp256k1"].setup, served.authentications["secp256k1"]
    )
    assert (claim.eph_pk, signature) == (CLAIM.eph_pk, "0xab")


@pytest.mark.parametrize("message", ["", "{}", '{"message":"00","requestType":"none"}', "hello"])
def test_message_of_no_old_revision_is_refused_at_once(message):
    """Before the nodes are asked for nonces. Insisting on a revision leaves the message to whoever signs it."""
    setup = REVISION_0_3.signgen_setup(t=2, key_id="k", message=message)
    frame = REVISION_0_3.encode_setup(setup)
    with pytest.raises((InvalidFieldError, ProtocolError)):
        accept("signgen", frame)
    assert accept("signgen", frame, revision="0.3").setups["secp256k1"].setup == setup


def test_keygen_keeps_the_revision_of_its_setup():
    """Credentials of 0.1 do not turn a setup of 0.3 into one of 0.1: nobody signed them."""
    exchange = keygen("0.3")
    auth = evolve(owner(exchange), credentials=f'{{"eoa":"{EOA}","ephPK":"0x00","expiry":7}}')
    served = accept("keygen", exchange.setup_frame)
    served = served.read_authentications(exchange.authentication_frame({"secp256k1": auth}))
    assert served.protocol.revision == "0.3"


def test_revision_can_be_insisted_on():
    """A client of another one is refused."""
    assert accept("keygen", keygen("0.3").setup_frame, revision="0.3").protocol.revision == "0.3"
    with pytest.raises(InvalidFieldError):
        accept("keygen", keygen("0.3").setup_frame, revision="1")
    with pytest.raises(InvalidFieldError):
        accept("keygen", keygen("1").setup_frame, revision="0.3")


def test_one_shot_of_an_old_revision_is_refused():
    """There is no such form."""
    with pytest.raises(InvalidFieldError, match="api_version"):
        accept("keygen", "{}", api_version="v2", revision="0.3")


def test_two_setups_for_one_algorithm_are_refused():
    """Their challenges and keys could not be told apart."""
    text = keygen().setups["secp256k1"].text
    with pytest.raises(InvalidFieldError, match="signAlg is the same in two setups"):
        accept("keygen", f"[{text},{text}]")


@pytest.mark.parametrize("claim", ["", "{}", "0x12", '{"ephId":"id"}'])
def test_setup_with_a_wrong_claim_is_refused_at_once(claim):
    """Before anyone is asked to sign it."""
    value = json.loads(keygen().setups["secp256k1"].text)
    value["metadata"][0]["value"] = claim
    with pytest.raises((InvalidFieldError, ProtocolError)):
        accept("keygen", json.dumps([value]))


@pytest.mark.parametrize("challenges", [{}, {"main": ONE}, {"secp256k1": ONE, "ed25519": TWO}])
def test_challenges_must_be_for_the_slots(challenges):
    """Neither fewer nor more."""
    with pytest.raises(InvalidFieldError, match="challenges must be one for each of secp256k1"):
        accept("keygen", keygen().setup_frame).challenge_frame(challenges)


def test_challenges_stand_in_the_order_of_the_setups():
    """As the TypeScript clients' gateway gives them."""
    served = accept("keygen", keygen(sign_algs=["ed25519", "secp256k1"]).setup_frame)
    frame = served.challenge_frame({"secp256k1": ONE, "ed25519": TWO})
    assert list(json.loads(frame)) == ["ed25519", "secp256k1"]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_authentication_by_another_method_is_refused(version):
    """A one-shot one as well."""
    exchange = keygen(api_version=version)
    frame = exchange.authentication_frame({"secp256k1": owner(exchange)}).replace('"eoa"', '"ephemeral"')
    with pytest.raises(InvalidFieldError, match="method must be"):
        if version == "v2":
            accept("keygen", frame, api_version="v2")
        else:
            accept("keygen", exchange.setup_frame).read_authentications(frame)


def test_exchange_has_no_authentications_until_they_are_read():
    """Reading gives another exchange; the first is as it was."""
    exchange = keygen()
    served = accept("keygen", exchange.setup_frame)
    authorised = served.read_authentications(exchange.authentication_frame({"secp256k1": owner(exchange)}))
    assert served.authentications is None
    assert authorised.authentications == {"secp256k1": owner(exchange)}


def test_passkey_result_needs_a_passkey():
    """It is the id of the credential that was shown."""
    exchange = passkey_exchange(REVISION_1)
    served = accept("registerPasskey", exchange.setup_frame)
    with pytest.raises(InvalidFieldError, match="operation"):
        served.passkey_frame()
    auth = exchange.protocol.owner_authentication(
        claim=None, method="passkey", owner_id="YWJj", signature="{}"
    )
    assert (
        served.read_authentications(exchange.authentication_frame({"main": auth})).passkey_frame() == "YWJj"
    )
    with pytest.raises(InvalidFieldError, match="operation"):
        accept("keygen", keygen().setup_frame).passkey_frame()

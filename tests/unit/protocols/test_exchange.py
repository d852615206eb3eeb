"""The client's side: what it sends for what was asked, and what it takes for an answer."""

import json

import pytest

from dan_async.config import Threshold
from dan_async.devnet.gateway import accept
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.protocols.exchange import (
    ephemeral_key_exchange,
    keygen_exchange,
    passkey_exchange,
    protocol_for,
    signgen_exchange,
)
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication
from dan_async.protocols.sign_request import SignRequest

EOA = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
KEY = "039e75ef3377c418b3521816c399363901259a4429c9826d0676a5515ef768fba9"
OTHER_KEY = "01" * 32
SIGN = "12" * 64
CLAIM = EphemeralClaim(eph_id="id", eph_pk=b"\x01" * 32, expiry=7, sign_alg="ed25519")
ONE, TWO = "ab" * 32, "cd" * 32


def keygen(revision="1", **changes):
    fields = {"threshold": Threshold(2, 3), "claim": CLAIM, **changes}
    return keygen_exchange(protocol_for(revision), **fields)


def signgen(revision="1", names=("a", "b"), **changes):
    requests = [
        SignRequest(request_type="rawBytes", message=f"{index:064x}", transaction_id=name)
        for index, name in enumerate(names)
    ]
    return signgen_exchange(
        protocol_for(revision), **{"t": 2, "key_id": "k", "requests": requests, **changes}
    )


def owner(exchange, **changes):
    fields = {"claim": CLAIM, "method": "eoa", "owner_id": EOA, "signature": "0xab", **changes}
    return exchange.protocol.owner_authentication(**fields)


def test_texts_are_built_once():
    """The frame that is sent and the bytes that are signed hold the same string."""
    exchange = signgen()
    assert exchange.setup_frame is exchange.setups["secp256k1"].text
    assert exchange.setups["secp256k1"].text.encode() in exchange.ephemeral_payload("secp256k1", ONE)


def test_each_algorithm_has_its_slot():
    """In the order asked for."""
    assert tuple(keygen(sign_algs=["ed25519", "secp256k1"]).setups) == ("ed25519", "secp256k1")
    assert tuple(signgen().setups) == ("secp256k1",)
    assert tuple(passkey_exchange(REVISION_1).setups) == ("main",)


@pytest.mark.parametrize(
    ("revision", "algorithms"),
    [
        ("1", []),
        ("1", ["rsa"]),
        ("1", ["secp256k1", "secp256k1"]),
        ("0.3", ["ed25519"]),
        ("0.3", ["secp256k1", "ed25519"]),
        ("0.1", ["ed25519"]),
    ],
)
def test_algorithms_that_a_revision_cannot_make_are_refused(revision, algorithms):
    """None, unknown, twice, or too new."""
    with pytest.raises(InvalidFieldError, match="sign_algs must be"):
        keygen(revision, sign_algs=algorithms)


@pytest.mark.parametrize("field", ["permissions", "key_label"])
def test_lone_surrogate_is_refused_before_anything_is_sent(field):
    """JavaScript would escape it and the signature would be over another text."""
    with pytest.raises(InvalidFieldError, match="lone surrogate"):
        keygen(**{field: "\ud800"})


def test_old_revisions_sign_one_message():
    """Without a name."""
    with pytest.raises(InvalidFieldError, match="requests must be exactly one"):
        signgen("0.3")
    assert signgen("0.3", names=(None,)).transaction_ids == (None,)
    assert signgen("1").transaction_ids == ("a", "b")


@pytest.mark.parametrize("operation", ["keygen", "signgen", "registerPasskey"])
def test_ephemeral_key_exchange_is_for_adding_and_revoking(operation):
    """Other operations have their own beginning."""
    with pytest.raises(InvalidFieldError, match="operation must be addEphemeralKey or revokeEphemeralKey"):
        ephemeral_key_exchange(protocol_for("1"), operation, claim=CLAIM, key_id="k", n=3)


def test_typed_data_is_of_the_slot():
    """Each algorithm's setup with its own challenge; an unknown slot is named."""
    exchange = keygen(sign_algs=["secp256k1", "ed25519"])
    assert exchange.typed_data("ed25519", TWO)["message"]["setup"]["signAlg"] == "ed25519"
    with pytest.raises(InvalidFieldError, match="slot must be one of secp256k1, ed25519"):
        exchange.typed_data("main", ONE)


def test_authentication_frame_needs_every_slot():
    """And no other."""
    exchange = keygen(sign_algs=["secp256k1", "ed25519"])
    for slots in ([], ["secp256k1"], ["secp256k1", "ed25519", "main"]):
        with pytest.raises(InvalidFieldError, match="authentications must be one for each"):
            exchange.authentication_frame({slot: owner(exchange) for slot in slots})


def test_authentication_frame_has_the_slots_order():
    """Whatever the order in which they were signed."""
    exchange = keygen(sign_algs=["secp256k1", "ed25519"])
    frame = exchange.authentication_frame({"ed25519": owner(exchange), "secp256k1": owner(exchange)})
    assert list(json.loads(frame)) == ["secp256k1", "ed25519"]


def test_authentication_by_another_method_is_refused():
    """An ephemeral key cannot authorise a keygen."""
    exchange = keygen()
    auth = exchange.ephemeral_authentication("secp256k1", claim=CLAIM, owner_id=EOA, signature="0xab")
    with pytest.raises(InvalidFieldError, match="method must be eoa or passkey"):
        exchange.authentication_frame({"secp256k1": auth})


def test_ephemeral_key_may_revoke_itself():
    """Its signature stands without a message, for there is none."""
    exchange = ephemeral_key_exchange(protocol_for("1"), "revokeEphemeralKey", claim=CLAIM, key_id="k", n=3)
    auth = exchange.ephemeral_authentication("main", claim=CLAIM, owner_id=EOA, signature="0xab")
    assert auth.signature == '{"signature":"0xab"}'
    served = accept("revokeEphemeralKey", exchange.setup_frame).read_authentications(
        exchange.authentication_frame({"main": auth})
    )
    assert REVISION_1.ephemeral_proof(served.setups["main"].setup, served.authentications["main"]) == (
        CLAIM,
        "0xab",
    )


def test_passkey_is_registered_without_a_claim():
    """There is no ephemeral key yet."""
    exchange = passkey_exchange(REVISION_1, options="{}")
    auth = owner(exchange, claim=None, method="passkey", owner_id="YWJj")
    assert auth == UserAuthentication(method="passkey", id="YWJj", credentials="", signature="0xab")
    assert exchange.read_result("YWJj") == "YWJj"


def test_keys_come_in_the_order_asked_for():
    """The gateway's order does not matter."""
    exchange = keygen(sign_algs=["secp256k1", "ed25519"])
    frame = f"keyId=L:publicKey={OTHER_KEY}:signAlg=ed25519;keyId=K:publicKey={KEY}:signAlg=secp256k1"
    assert [key.key_id for key in exchange.read_result(frame)] == ["K", "L"]


@pytest.mark.parametrize(
    "frame",
    [
        f"keyId=K:publicKey={KEY}:signAlg=secp256k1",
        f"keyId=K:publicKey={OTHER_KEY}:signAlg=ed25519",
    ],
)
def test_too_few_keys_are_refused(frame):
    """The error says which came and which were asked for."""
    with pytest.raises(ProtocolError, match=r"gave keys for .* where secp256k1, ed25519 was asked for"):
        keygen(sign_algs=["secp256k1", "ed25519"]).read_result(frame)


def test_key_of_another_algorithm_is_refused():
    """Also as an extra."""
    both = f"keyId=K:publicKey={KEY}:signAlg=secp256k1;keyId=L:publicKey={OTHER_KEY}:signAlg=ed25519"
    for frame in (f"keyId=K:publicKey={OTHER_KEY}:signAlg=ed25519", both):
        with pytest.raises(ProtocolError, match="where secp256k1 was asked for"):
            keygen().read_result(frame)


def test_signatures_come_in_the_order_asked_for():
    """The gateway's order does not matter."""
    frame = f"sign={SIGN}:recid=1:transactionId=b;sign={SIGN}:recid=0:transactionId=a"
    assert [s.transaction_id for s in signgen().read_result(frame)] == ["a", "b"]


@pytest.mark.parametrize("names", ["a", "c", "abc", "ac"])
def test_signatures_of_other_messages_are_refused(names):
    """Too few, too many, or another one."""
    frame = ";".join(f"sign={SIGN}:recid=0:transactionId={name}" for name in names)
    with pytest.raises(ProtocolError, match="signed messages other than"):
        signgen().read_result(frame)


def test_status_must_be_success():
    """Anything else is an error."""
    exchange = ephemeral_key_exchange(protocol_for("0.3"), "addEphemeralKey", claim=CLAIM, key_id="k", n=3)
    assert exchange.read_result("ok") is None
    with pytest.raises(ProtocolError, match="did not answer"):
        exchange.read_result("failed")


def test_one_shot_signs_challenges_of_its_own():
    """One for each setup, each a hash of that setup alone."""
    exchange = keygen(sign_algs=["secp256k1", "ed25519"], api_version="v2")
    assert exchange.own_challenges() == {
        slot: REVISION_1.oneshot_challenge(part.text) for slot, part in exchange.setups.items()
    }
    assert len(set(exchange.own_challenges().values())) == 2

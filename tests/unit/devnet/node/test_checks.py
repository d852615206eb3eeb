"""What a node checks before it takes part, one wrong thing at a time: each has its own code."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from dan_async.config import Threshold
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.devnet.context import NodeIdentity
from dan_async.devnet.node.checks import check_owner, check_request, read_request
from dan_async.devnet.node.rpc import RefusalError
from dan_async.errors import NodeCode
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.fields import encode
from dan_async.protocols.node import KeygenParams
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication

NOW = 1_700_000_000
YEAR = 365 * 24 * 3600
OWNER = NodeIdentity.from_hex("07" * 32)  # any key will do for a wallet
NODES = sorted((NodeIdentity.from_hex(f"{n:064x}").operator for n in (1, 2, 3, 4)), key=str.lower)
STRANGER = NodeIdentity.from_hex("99" * 32).operator
REVISIONS = ["0.1", "0.3", "1"]


def make_params(
    revision="1", *, t=2, n=3, expiry=NOW + 3600, permissions=None, participants=None, sign_alg="secp256k1"
):
    """A request that is right in every way but the owner's signature, which ``signed`` adds."""
    algorithm = "secp256k1" if revision == "1" else "ed25519"
    key = EphemeralKey.generate(algorithm)
    claim = EphemeralClaim(eph_id=key.default_id, eph_pk=key.public_key, expiry=expiry, sign_alg=algorithm)
    module = protocol_for(revision)
    setup = module.keygen_setup(threshold=Threshold(2, 3), claim=claim, permissions=permissions)
    setup = evolve(setup, t=t, n=n, sign_alg=sign_alg)
    participants = tuple(participants or NODES[:3])
    return KeygenParams(
        request_id="0x" + "11" * 32,
        revision=revision,
        setup=module.encode_setup(setup),
        participants=participants,
        nonces=tuple(bytes([i]) * 32 for i in range(len(participants))),
        user_authentication=UserAuthentication(
            method="eoa",
            id=OWNER.operator,
            credentials=module.encode_credentials(claim, OWNER.operator),
            signature="0x00",
        ),
    )


def check(params, **options):
    return check_request(
        params, **{"operator": NODES[1], "roster": frozenset({NODES[0], NODES[2]}), "now": NOW, **options}
    )


def signed(params, signer=OWNER):
    checked = check(params)
    typed_data = protocol_for(params.revision).typed_data("keygen", checked.setup, checked.challenge)
    signature = "0x" + signer.sign(typed_data_digest(typed_data)).hex()
    return evolve(checked, params=with_authentication(params, signature=signature))


def with_authentication(params, **changes):
    return evolve(params, user_authentication=evolve(params.user_authentication, **changes))


def code_of(function, *arguments, **options):
    with pytest.raises(RefusalError) as caught:
        function(*arguments, **options)
    return caught.value.code


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_right_request_passes(revision):
    """In whichever revision the owner signed."""
    checked = signed(make_params(revision, permissions='{"chains":[1]}'))
    check_owner(checked)
    assert checked.threshold == Threshold(2, 3)
    assert checked.nonce == b"\x01" * 32
    assert checked.setup.permissions == '{"chains":[1]}'


@pytest.mark.parametrize("revision", REVISIONS)
def test_somebody_elses_signature_is_refused(revision):
    """The signature must be the owner's."""
    assert (
        code_of(check_owner, signed(make_params(revision), signer=NodeIdentity.from_hex("08" * 32)))
        == NodeCode.WRONG_OWNER
    )


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "0x" + "12" * 32},
        {"nonces": (b"\x09" * 32, b"\x01" * 32, b"\x02" * 32)},
        {"participants": tuple(sorted((NODES[1], NODES[2], NODES[3]), key=str.lower))},
    ],
    ids=["request", "nonces", "participants"],
)
def test_the_signature_covers_the_whole_request(change):
    """What was signed for one request does not do for another."""
    whole = signed(make_params()).params
    checked = check(evolve(whole, **change), roster=frozenset(NODES))
    assert code_of(check_owner, checked) == NodeCode.WRONG_OWNER


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_signature_covers_the_permissions(revision):
    """They are not in the typed data, but in the setup's hash and so in the challenge."""
    whole = signed(make_params(revision, permissions='{"limit":1}')).params
    checked = check(evolve(whole, setup=whole.setup.replace('limit\\":1', 'limit\\":2')))
    assert checked.setup.permissions == '{"limit":2}'
    assert code_of(check_owner, checked) == NodeCode.WRONG_OWNER


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("shift", [-1, 1])
def test_the_signature_covers_the_expiry(revision, shift):
    """A second more or less, in setup and credentials alike, is another request; but in 0.1 nobody signs the expiry."""
    whole = signed(make_params(revision)).params
    was, is_now = str(NOW + 3600), str(NOW + 3600 + shift)
    credentials = whole.user_authentication.credentials
    assert was in credentials
    shifted = with_authentication(whole, credentials=credentials.replace(was, is_now))
    checked = check(evolve(shifted, setup=shifted.setup.replace(was, is_now)))
    if revision == "0.1":
        check_owner(checked)
    else:
        assert code_of(check_owner, checked) == NodeCode.WRONG_OWNER


@pytest.mark.parametrize(
    "signature", ["0x", "zz", "0x" + "00" * 65, "0x" + "11" * 64, "0x" + "ff" * 64 + "1b"]
)
def test_what_is_no_signature_is_not_the_owners(signature):
    """Malformed ones have the same code: none is the owner's."""
    checked = signed(make_params())
    wrong = evolve(checked, params=with_authentication(checked.params, signature=signature))
    assert code_of(check_owner, wrong) == NodeCode.WRONG_OWNER


def test_a_high_s_signature_is_taken():
    """Some hardware wallets make them; it is the same signature."""
    checked = signed(make_params())
    raw = bytes.fromhex(checked.params.user_authentication.signature[2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big")
    signature = "0x" + (raw[:32] + high + bytes([55 - raw[64]])).hex()
    check_owner(evolve(checked, params=with_authentication(checked.params, signature=signature)))


def test_the_owner_must_be_an_address():
    """A name is no owner."""
    checked = signed(make_params())
    wrong = evolve(checked, params=with_authentication(checked.params, id="me"))
    assert code_of(check_owner, wrong) == NodeCode.INVALID_PARAMS


@pytest.mark.parametrize("expiry", [0, NOW - 1, NOW])
def test_an_expired_claim_is_refused(expiry):
    """At its expiry it has expired."""
    assert code_of(check, make_params(expiry=expiry)) == NodeCode.CLAIM_EXPIRED


def test_a_claim_may_live_for_a_year_and_a_minute():
    """The minute is for clocks that differ; one second more is refused."""
    check(make_params(expiry=NOW + YEAR + 60))
    assert code_of(check, make_params(expiry=NOW + YEAR + 61)) == NodeCode.CLAIM_EXPIRED


@pytest.mark.parametrize(("t", "n"), [(1, 3), (4, 3), (2, 21), (1, 1)])
def test_thresholds_out_of_range_are_unsupported(t, n):
    """2 <= t <= n <= 20."""
    assert code_of(check, make_params(t=t, n=n)) == NodeCode.UNSUPPORTED


def test_ed25519_keys_are_unsupported():
    """This node makes secp256k1 keys only."""
    assert code_of(check, make_params(sign_alg="ed25519")) == NodeCode.UNSUPPORTED


def test_an_ephemeral_key_makes_no_keys():
    """Only an owner authorises: a wallet or a passkey."""
    assert code_of(check, with_authentication(make_params(), method="ephemeral")) == NodeCode.UNSUPPORTED


def test_revision_0_1_has_no_passkeys():
    """The method is newer."""
    assert code_of(check, with_authentication(make_params("0.1"), method="passkey")) == NodeCode.UNSUPPORTED


def test_a_passkey_is_not_taken_without_its_signature():
    """A passkey's signature is looked at as one, not as a wallet's."""
    checked = check(with_authentication(make_params(), method="passkey"))
    assert code_of(check_owner, checked) == NodeCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("participants", "options"),
    [
        (NODES[:2], {}),
        ((NODES[0], NODES[2], NODES[3]), {"roster": frozenset(NODES)}),
        (tuple(sorted((NODES[1], NODES[2], STRANGER), key=str.lower)), {}),
    ],
    ids=["not n", "without this node", "with a stranger"],
)
def test_wrong_participants_are_refused(participants, options):
    """n of them, this node one of them, all of them known."""
    assert code_of(check, make_params(participants=participants), **options) == NodeCode.WRONG_PARTICIPANTS


@pytest.mark.parametrize(
    "setup", ["", "[]", "{}", "nonsense", '{"t":2,"n":3,"metadata":[],"signAlg":"secp256k1"}']
)
def test_a_malformed_setup_is_refused(setup):
    """It must be one setup of its revision."""
    assert code_of(check, evolve(make_params(), setup=setup)) == NodeCode.INVALID_PARAMS


@pytest.mark.parametrize("revision", ["0.3", "1"])
def test_credentials_are_the_setups_claim_to_the_letter(revision):
    """The same claim with a space in it is another text."""
    params = make_params(revision)
    text = params.user_authentication.credentials.replace(":", ": ", 1)
    assert code_of(check, with_authentication(params, credentials=text)) == NodeCode.INVALID_PARAMS


def test_credentials_of_another_key_are_refused_in_0_1():
    """There the setup has the public key only."""
    other = make_params("0.1").user_authentication.credentials
    assert (
        code_of(check, with_authentication(make_params("0.1"), credentials=other)) == NodeCode.INVALID_PARAMS
    )


@pytest.mark.parametrize(
    "permissions", ["{", "1", '"text"', "null", '{"a":NaN}', "[" * 60_000, "[1]" + " " * 65_536]
)
def test_permissions_that_are_not_json_are_refused(permissions):
    """An object or a list, of bounded length and depth."""
    assert code_of(check, make_params(permissions=permissions)) == NodeCode.INVALID_PARAMS


@pytest.mark.parametrize("permissions", ["{}", "[]", '{"a":1.5,"b":[true,null,"é"]}'])
def test_permissions_may_be_any_json_object_or_list(permissions):
    """They are kept as they are."""
    assert check(make_params(permissions=permissions)).setup.permissions == permissions


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"revision": "2"}, NodeCode.UNSUPPORTED),
        ({"participants": list(reversed(NODES[:3]))}, NodeCode.WRONG_PARTICIPANTS),
        ({"participants": [NODES[0]] * 3}, NodeCode.WRONG_PARTICIPANTS),
        ({"participants": []}, NodeCode.WRONG_PARTICIPANTS),
        ({"participants": ["0x12"]}, NodeCode.WRONG_PARTICIPANTS),
        ({"nonces": ["0x" + "00" * 32]}, NodeCode.INVALID_PARAMS),
        ({"nonces": ["0x00"] * 3}, NodeCode.INVALID_PARAMS),
        ({"requestId": "0x12"}, NodeCode.INVALID_PARAMS),
        ({"requestId": 5}, NodeCode.INVALID_PARAMS),
        ({"setup": 5}, NodeCode.INVALID_PARAMS),
        ({"userAuthentication": {}}, NodeCode.INVALID_PARAMS),
        ({"more": 1}, NodeCode.INVALID_PARAMS),
    ],
    ids=str,
)
def test_malformed_parameters_have_the_code_of_their_member(change, code):
    """As the protocol's table of codes says."""
    value = {**json.loads(encode(make_params())), **change}
    assert code_of(read_request, value) == code


def test_an_unknown_method_is_unsupported():
    """A method that the protocol has no name for."""
    value = json.loads(encode(make_params()))
    value["userAuthentication"]["method"] = "oath"
    assert code_of(read_request, value) == NodeCode.UNSUPPORTED

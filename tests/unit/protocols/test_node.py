"""dan-node/1 against the vectors of its specification, and its decoders against everything else."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
from contextlib import nullcontext
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async._json import load
from dan_async.config import Threshold
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import base_multiply, decode, encode, points_fit_degree
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.hashes import tagged_hash
from dan_async.crypto.signature import recover_address, sign_digest
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError
from dan_async.protocols.fields import decode as decode_message
from dan_async.protocols.fields import encode as encode_message
from dan_async.protocols.fields import operators, to_json
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    Acknowledgement,
    CertifyParams,
    ChallengeParams,
    ChallengeResult,
    ChangeClaims,
    ChangeReceipt,
    IdentifyParams,
    Identity,
    KeygenClaims,
    KeygenParams,
    PasskeyClaims,
    PasskeyReceipt,
    Settlement,
    compute_key_id,
    final_challenge,
    identity_digest,
    oneshot_request_id,
    restarted_request_id,
    setup_hash,
)
from tests.fake_nodes import altered
from tests.interpolation import interpolate_scalar

VECTOR_FILE = Path(__file__).parents[2] / "vectors" / "node_1.json"
VECTORS = json.loads(VECTOR_FILE.read_text())
REQUEST = VECTORS["request"]
ACKS = VECTORS["acknowledgements"]
CLAIMS = json.loads(ACKS[0]["result"]["claims"])


def raw(text):
    return bytes.fromhex(text.removeprefix("0x"))


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_the_vectors_are_what_their_script_makes():
    """The script shares no code with the package, so it is a second implementation."""
    script = VECTOR_FILE.with_name("make_node_1.py")
    made = io.StringIO()
    with contextlib.redirect_stdout(made):
        runpy.run_path(str(script))
    assert made.getvalue() == VECTOR_FILE.read_text()


@pytest.mark.parametrize("vector", VECTORS["hash"])
def test_the_tagged_hash(vector):
    """Tag and parts, each with its length before it."""
    assert tagged_hash(vector["tag"], *map(raw, vector["parts"])) == raw(vector["hash"])


def test_parts_cannot_be_moved_into_one_another():
    """The lengths see to that."""
    assert tagged_hash("t", b"ab", b"c") != tagged_hash("t", b"a", b"bc")
    assert tagged_hash("t", b"") != tagged_hash("t")


@pytest.mark.parametrize("vector", VECTORS["operators"])
def test_operators_are_the_addresses_of_their_keys(vector):
    """As Ethereum makes addresses."""
    public_key = encode(base_multiply(int(vector["privateKey"], 16)))
    assert public_key_to_address(public_key) == vector["operator"]


def test_the_identity_digest_and_signature():
    """What dan_identify answers."""
    vector = VECTORS["identity"]
    digest = identity_digest(operator=vector["operator"], nonce=raw(vector["nonce"]), time_ms=vector["time"])
    assert digest == raw(vector["digest"])
    assert sign_digest(raw(VECTORS["operators"][0]["privateKey"]), digest) == raw(vector["signature"])
    assert recover_address(digest, vector["signature"]) == vector["operator"]


def test_the_setup_hash():
    """Over the setup's exact text, non-ASCII characters included."""
    vector = VECTORS["setup"]
    found = setup_hash(operation=vector["operation"], revision=vector["revision"], setup=vector["setup"])
    assert found == raw(vector["hash"])


def test_the_final_challenge():
    """Over operation, request, setup, and each participant with its nonce."""
    vector = VECTORS["challenge"]
    found = final_challenge(
        operation=vector["operation"],
        request_id=vector["requestId"],
        setup_digest=raw(vector["setupHash"]),
        participants=vector["participants"],
        nonces=list(map(raw, vector["nonces"])),
    )
    assert found.hex() == vector["finalChallenge"]


def test_what_the_owner_signs():
    """The typed data of the setup and the challenge, its digest, and the signature over it."""
    vector = VECTORS["owner"]
    setup = REVISION_1.decode_setup("keygen", VECTORS["setup"]["setup"])
    typed_data = REVISION_1.typed_data("keygen", setup, VECTORS["challenge"]["finalChallenge"])
    assert typed_data_digest(typed_data) == typed_data_digest(vector["typedData"]) == raw(vector["digest"])
    assert recover_address(raw(vector["digest"]), vector["signature"]) == vector["address"]


def test_the_whole_request():
    """Its encoding, and what a node reads from it."""
    params = decode_message(KeygenParams, REQUEST)
    assert json.loads(encode_message(params)) == REQUEST
    claim = REVISION_1.owner_claim(
        REVISION_1.decode_setup("keygen", params.setup), params.user_authentication
    )
    assert (claim.eph_id, claim.expiry) == ("ephemeral ключ", 1_900_000_000)


def test_the_key_id():
    """Over public key, t, participants, owner and request."""
    vector = VECTORS["key"]
    found = compute_key_id(
        public_key=raw(vector["publicKey"]),
        t=vector["t"],
        participants=vector["participants"],
        owner_id=vector["ownerId"],
        request_id=vector["requestId"],
    )
    assert found == vector["keyId"]


def test_the_key_and_its_shares_belong_together():
    """So the vectors can be used to test a client's interpolation."""
    vector = VECTORS["key"]
    shares = dict(enumerate(vector["secretShares"], 1))
    assert encode(base_multiply(interpolate_scalar(shares))) == raw(vector["publicKey"])
    public = map(raw, (vector["publicKey"], *CLAIMS["publicShares"]))
    assert points_fit_degree(dict(enumerate(map(decode, public))), vector["t"] - 1)


def test_a_receipt_proves_the_threshold():
    """The key's id is the hash of what it says; with anything changed, or for another owner, it is not."""
    claims = ChangeReceipt.read(VECTORS["receipt"]["result"]).claims
    owner = VECTORS["key"]["ownerId"]
    assert claims.is_of_key(owner)
    assert claims.is_of_key(owner.lower())
    assert not claims.is_of_key(VECTORS["operators"][0]["operator"])
    assert not evolve(claims, t=3).is_of_key(owner)
    with pytest.raises(InvalidFieldError, match="participants must be n"):
        evolve(claims, n=2)


@pytest.mark.parametrize("index", range(3))
def test_acknowledgements(index):
    """Decoded, encoded, hashed and signed."""
    vector = ACKS[index]
    ack = Acknowledgement.read(vector["result"])
    assert to_json(ack) == vector["result"]
    assert encode_message(ack.claims) == vector["result"]["claims"]
    digest = ack.digest(vector["requestId"])
    assert digest == raw(vector["digest"])
    assert sign_digest(raw(VECTORS["operators"][index]["privateKey"]), digest) == ack.signature
    assert ack.public_share == encode(base_multiply(VECTORS["key"]["secretShares"][index]))


def test_a_place_beyond_the_participants_has_no_public_share():
    """An acknowledgement that nobody has checked yet may claim any place."""
    ack = evolve(Acknowledgement.read(ACKS[0]["result"]), party_index=4)
    with pytest.raises(NodeProtocolError, match="partyIndex is more than n"):
        _ = ack.public_share


@pytest.mark.parametrize("vector", VECTORS["restart"])
def test_restarted_request_ids(vector):
    """Whoever knows the first id knows those of its restarts."""
    assert restarted_request_id(vector["requestId"], vector["restart"]) == vector["next"]


def test_one_shot_requests():
    """The id that the setup gives, and the challenge that the owner signs."""
    vector = VECTORS["oneShot"]
    assert oneshot_request_id(raw(vector["setupHash"])) == vector["requestId"]
    assert REVISION_1.oneshot_challenge(VECTORS["setup"]["setup"]) == vector["challenge"]


@pytest.mark.parametrize(
    ("kind", "name"), [(ChangeReceipt, "receipt"), (PasskeyReceipt, "passkeyReceipt")], ids=str
)
def test_receipts(kind, name):
    """Decoded, encoded, hashed and signed."""
    vector = VECTORS[name]
    receipt = kind.read_whole(vector["result"])
    assert to_json(receipt) == vector["result"]
    assert encode_message(receipt.claims) == vector["result"]["claims"]
    digest = receipt.digest(vector["requestId"])
    assert digest == raw(vector["digest"])
    assert recover_address(digest, receipt.signature) == receipt.operator


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (IdentifyParams, {"nonce": VECTORS["identity"]["nonce"]}),
        (
            ChallengeParams,
            {"requestId": REQUEST["requestId"], "operation": "keygen", "setupHash": VECTORS["setup"]["hash"]},
        ),
        (KeygenParams, REQUEST),
        (
            Identity,
            {
                "protocol": "dan-node/1",
                "operator": VECTORS["identity"]["operator"],
                "time": VECTORS["identity"]["time"],
                "signature": VECTORS["identity"]["signature"],
            },
        ),
        *((Acknowledgement, vector["result"]) for vector in ACKS),
        (KeygenClaims, CLAIMS),
        (ChangeReceipt, VECTORS["receipt"]["result"]),
        (ChangeClaims, json.loads(VECTORS["receipt"]["result"]["claims"])),
        (PasskeyReceipt, VECTORS["passkeyReceipt"]["result"]),
        (PasskeyClaims, json.loads(VECTORS["passkeyReceipt"]["result"]["claims"])),
        (Settlement, {"acknowledgements": [vector["result"] for vector in ACKS]}),
    ],
)
def test_what_is_read_is_written_again(kind, value):
    """Member for member, in the same order: for claims, to the letter."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert encode_message(decode_message(kind, json.loads(text))) == text


# --- what the hashes cover --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "0x" + "a2" * 32},
        {"operator": VECTORS["operators"][1]["operator"]},
        {"party_index": 2},
        {"key_id": "00" * 32},
        {"public_key": raw(CLAIMS["publicShares"][0])},
        {"public_shares": tuple(map(raw, reversed(CLAIMS["publicShares"])))},
        {"threshold": Threshold(3, 3)},
        {"participants": tuple(REQUEST["participants"][::-1])},
        {"transcript_hash": bytes(32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_acknowledgement_cannot_be_changed_after_signing(change):
    """Every field is in the digest."""
    ack = Acknowledgement.read(ACKS[0]["result"])
    changed = altered(ack, **change)
    request_id = change.get("request_id", REQUEST["requestId"])
    assert changed.digest(request_id) != ack.digest(REQUEST["requestId"])


def test_the_digest_covers_the_request_besides_the_text():
    """And what is claimed: the same text says nothing under another request, or as another kind of claims."""
    ack = Acknowledgement.read(ACKS[0]["result"])
    digest = ack.digest(REQUEST["requestId"])
    assert ack.digest("0x" + "a2" * 32) != digest
    result = {name: value for name, value in ACKS[0]["result"].items() if name != "certificate"}
    assert ChangeReceipt.read(result).digest(REQUEST["requestId"]) != digest


def test_a_certificate_is_not_without_bound():
    """4096 bytes at most, whatever is in it."""
    for length, is_right in ((4096, True), (4097, False)):
        value = {**VECTORS["certify"], "certificate": "0x" + "00" * length}
        with nullcontext() if is_right else pytest.raises(InvalidFieldError):
            assert len(decode_message(CertifyParams, value).certificate) == length


def rewritten(change):
    """The vector's acknowledgement with another text of the same claims."""
    return {**ACKS[0]["result"], "claims": change(ACKS[0]["result"]["claims"])}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: " " + text,
        lambda text: text.replace(":", ": ", 1),
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")),
        lambda text: text.replace("0xa1a1", "0xA1A1", 1),
        lambda text: text.replace(CLAIMS["keyId"], CLAIMS["keyId"].upper()),
        lambda text: text.replace(CLAIMS["publicKey"], "0x" + CLAIMS["publicKey"][2:].upper()),
        lambda text: text.replace(CLAIMS["participants"][0], CLAIMS["participants"][0].lower()),
        lambda text: text.replace("requestId", "request\\u0049d", 1),
    ],
    ids=["space", "inner space", "order", "request id", "key id", "point", "address", "escape"],
)
def test_claims_have_one_text(change):
    """Whatever reads as the same claims and is written otherwise is refused."""
    ack = Acknowledgement.read(rewritten(change))
    assert (
        decode_message(KeygenClaims, json.loads(ack.text)) == Acknowledgement.read(ACKS[0]["result"]).claims
    )
    with pytest.raises(NodeProtocolError, match="claims are not in their canonical form"):
        _ = ack.claims


@pytest.mark.parametrize("text", ["x", "[]", "{}", '{"t":1.0}', "[" * 100, '{"t":2,"t":2}', "\ufeff{}"])
def test_what_is_no_text_of_claims_is_malformed(text):
    """No JSON, other JSON, JSON that the protocol does not have."""
    with pytest.raises(NodeProtocolError, match="the acknowledgement is malformed"):
        Acknowledgement.read_whole({**ACKS[0]["result"], "claims": text})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"operator": VECTORS["operators"][1]["operator"]}, "speaks for another operator"),
        ({"party_index": 2}, "claims index 2"),
        ({"signature": bytes(65)}, "signature is malformed"),
        ({"signature": raw(ACKS[1]["result"]["signature"])}, "not signed by"),
        ({"transcript_hash": bytes(32)}, "not signed by"),
    ],
)
def test_whose_word_it_is(change, problem):
    """That of the node that was asked, in its place, over this text."""
    ack = altered(Acknowledgement.read(ACKS[0]["result"]), **change)
    found = ack.problem(
        request_id=REQUEST["requestId"], operator=VECTORS["operators"][0]["operator"], party_index=1
    )
    assert (problem in found) if problem else found == ""


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "addEphemeralKey"},
        {"request_id": "0x" + "a2" * 32},
        {"setup_digest": bytes(32)},
        {"participants": REQUEST["participants"][::-1]},
        {"nonces": [bytes(32)] * 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_final_challenge_covers(change):
    """Everything that makes the request."""
    whole = {
        "operation": "keygen",
        "request_id": REQUEST["requestId"],
        "setup_digest": raw(VECTORS["setup"]["hash"]),
        "participants": REQUEST["participants"],
        "nonces": list(map(raw, REQUEST["nonces"])),
    }
    assert final_challenge(**{**whole, **change}) != final_challenge(**whole)


def test_the_owner_of_a_key_id_is_the_same_in_any_case():
    """Checksummed or not: the hash takes it in lower case."""
    vector = VECTORS["key"]

    def key_id(owner):
        return compute_key_id(
            public_key=raw(vector["publicKey"]),
            t=2,
            participants=vector["participants"],
            owner_id=owner,
            request_id=vector["requestId"],
        )

    assert (
        key_id(vector["ownerId"].lower()) == key_id(vector["ownerId"]) != key_id(REQUEST["participants"][0])
    )


# --- decoders ---------------------------------------------------------------------------------------------------------


DECODERS = {
    IdentifyParams: {"nonce": "0x" + "00" * 32},
    ChallengeParams: {
        "requestId": REQUEST["requestId"],
        "operation": "keygen",
        "setupHash": VECTORS["setup"]["hash"],
    },
    KeygenParams: REQUEST,
    CertifyParams: VECTORS["certify"],
}
RESULT_DECODERS = {
    Identity: {
        "protocol": "dan-node/1",
        "operator": VECTORS["identity"]["operator"],
        "time": VECTORS["identity"]["time"],
        "signature": VECTORS["identity"]["signature"],
    },
    ChallengeResult: {"nonce": "0x" + "00" * 32, "expiresAt": 1_700_000_000},
    Acknowledgement: ACKS[0]["result"],
    ChangeReceipt: VECTORS["receipt"]["result"],
    PasskeyReceipt: VECTORS["passkeyReceipt"]["result"],
}
CLAIMS_OF = {
    Acknowledgement: CLAIMS,
    ChangeReceipt: json.loads(VECTORS["receipt"]["result"]["claims"]),
    PasskeyReceipt: json.loads(VECTORS["passkeyReceipt"]["result"]["claims"]),
}
WRONG = [None, True, -1, 2**53, "", "0x", "0x00", "é", [], {}, ["0x" + "00" * 32] * 21]

#: Values that a member may have as far as its decoder can tell.
RIGHT = {
    "operation": ["0x", "0x00", "é"],
    "setup": ["0x", "0x00", "é"],
    "ephId": ["0x", "0x00", "é"],
    "credentialId": ["0x", "0x00", "é"],
    "nonces": [[]],  # a one-shot request
    "certificate": ["0x", "0x00"],
}


def variations(decoders):
    found = []
    for kind, good in decoders.items():
        name = kind.__name__
        for member in good:
            found += [
                pytest.param(kind, {**good, member: value}, id=f"{name}-{member}-{value!r:.12}")
                for value in WRONG
                if value not in RIGHT.get(member, ())
            ]
            without = {key: value for key, value in good.items() if key != member}
            found.append(pytest.param(kind, without, id=f"{name}-without {member}"))
        found += [pytest.param(kind, value, id=f"{name}-{value!r}") for value in (None, 5, "text", [])]
        found.append(pytest.param(kind, {**good, "more": 1}, id=f"{name}-more"))
    return found


@pytest.mark.parametrize(("kind", "value"), variations(DECODERS))
def test_wrong_parameters_are_refused_by_name(kind, value):
    """Every member of every request, with everything that it cannot be."""
    with pytest.raises(InvalidFieldError) as caught:
        decode_message(kind, value)
    assert caught.value.field


@pytest.mark.parametrize(("kind", "value"), variations(RESULT_DECODERS))
def test_wrong_results_are_protocol_errors(kind, value):
    """A node that answers so does not speak this protocol."""
    with pytest.raises(NodeProtocolError):
        getattr(kind, "read_whole", kind.read)(value)


@pytest.mark.parametrize(("kind", "value"), variations(CLAIMS_OF))
def test_wrong_claims_are_protocol_errors(kind, value):
    """Every member of every text of claims, with everything that it cannot be."""
    with pytest.raises(NodeProtocolError):
        kind.read_whole({**RESULT_DECODERS[kind], "claims": json.dumps(value, separators=(",", ":"))})


@pytest.mark.parametrize(
    "participants",
    [
        REQUEST["participants"][::-1],
        [REQUEST["participants"][0]] * 2,
        [REQUEST["participants"][0], REQUEST["participants"][0].lower()],
        [REQUEST["participants"][0][:-1] + "a"],
    ],
    ids=["descending", "twice", "twice in another case", "wrong checksum"],
)
def test_a_set_of_participants_has_one_form(participants):
    """Strictly ascending, each with a right checksum."""
    with pytest.raises(InvalidFieldError, match="participants"):
        operators(1, 20).read("participants", participants)


def test_participants_may_come_without_checksum():
    """They are given it."""
    lower = [participant.lower() for participant in REQUEST["participants"]]
    assert list(operators(1, 20).read("participants", lower)) == REQUEST["participants"]


def test_a_challenge_may_name_its_key():
    """For operations on a key that exists."""
    params = ChallengeParams(
        request_id=REQUEST["requestId"], operation="addEphemeralKey", setup_hash=bytes(32), key_id="ab" * 32
    )
    assert decode_message(ChallengeParams, json.loads(encode_message(params))) == params


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["0x", *REQUEST]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*REQUEST]), inner, max_size=7)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "kind",
    [*DECODERS, *RESULT_DECODERS, KeygenClaims, ChangeClaims, PasskeyClaims],
    ids=lambda kind: kind.__name__,
)
def test_no_json_raises_anything_but_our_own_error(kind):
    """Whatever arrives."""

    @settings(max_examples=40)
    @given(JSON)
    def run(value):
        with pytest.raises(DanError):
            decode_message(kind, value)

    run()


def test_requests_survive_the_way_as_text():
    """Through the strict reader, as on the wire."""
    params = decode_message(KeygenParams, REQUEST)
    assert decode_message(KeygenParams, load(encode_message(params))) == params

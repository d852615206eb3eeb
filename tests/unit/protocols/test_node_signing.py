"""Presignatures and signatures in dan-node/1, against the vectors of the specification, and against everything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from dan_async._json import dump, load
from dan_async.crypto.curve import ORDER
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import recover_address, recover_public_key
from dan_async.errors import DanError, InvalidFieldError, NodeProtocolError
from dan_async.protocols import node as node_1
from dan_async.protocols.fields import decode, encode, to_json
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    PresignatureOffer,
    PresignParams,
    SignatureClaims,
    SignatureShares,
    SignParams,
    setup_hash,
)
from tests.fake_nodes import altered

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "node_1.json").read_text())
PRESIGN = VECTORS["presign"]
SIGN = VECTORS["sign"]
SHARES = VECTORS["signatureShares"]
PARAMS = PRESIGN["params"]
CLAIMS = json.loads(SHARES[0]["result"]["claims"])
SHARE = CLAIMS["shares"][0]


def raw(text):
    return bytes.fromhex(text.removeprefix("0x"))


def presign_digest(**changes):
    whole = {
        "request_id": PARAMS["requestId"],
        "key_id": PARAMS["keyId"],
        "eph_id": PARAMS["ephId"],
        "signers": PARAMS["signers"],
        "expires_at": PARAMS["expiresAt"],
    }
    return node_1.presign_digest(**{**whole, **changes})


def sign_challenge(**changes):
    whole = {
        "request_id": SIGN["params"]["requestId"],
        "setup_digest": raw(SIGN["setupHash"]),
        "signers": SIGN["params"]["signers"],
        "presignature_ids": list(map(raw, SIGN["params"]["presignatureIds"])),
    }
    return node_1.sign_challenge(**{**whole, **changes})


# --- vectors ----------------------------------------------------------------------------------------------------------


def test_what_the_ephemeral_key_signs_for_a_presignature():
    """The digest, and the signature over it as a personal message."""
    digest = presign_digest()
    assert digest == raw(PRESIGN["digest"])
    assert EphemeralKey.from_hex(SIGN["ephemeralKey"]).sign_message(digest) == PARAMS["signature"]


def test_the_presignature_id():
    """Over the session and R."""
    found = node_1.presignature_id(raw(PRESIGN["session"]), raw(PRESIGN["results"][0]["noncePoint"]))
    assert found == raw(PRESIGN["results"][0]["presignatureId"])


def test_what_the_ephemeral_key_signs_for_a_signature():
    """Setup hash, challenge, payload, and what a node reads of the authentication."""
    params = decode(SignParams, SIGN["params"])
    found = setup_hash(operation=node_1.SIGNGEN, revision=params.revision, setup=params.setup)
    assert found == raw(SIGN["setupHash"])
    assert sign_challenge().hex() == SIGN["challenge"]
    payload = REVISION_1.ephemeral_payload(params.setup, SIGN["challenge"])
    assert payload.decode() == SIGN["payload"]
    _, signature = REVISION_1.ephemeral_proof(
        REVISION_1.decode_setup("signgen", params.setup), params.user_authentication
    )
    assert EphemeralKey.from_hex(SIGN["ephemeralKey"]).sign_message(payload) == signature


@pytest.mark.parametrize("vector", SHARES)
def test_signature_shares(vector):
    """Decoded, encoded, hashed and signed."""
    shares = SignatureShares.read_whole(vector["result"])
    assert to_json(shares) == vector["result"]
    assert encode(shares.claims) == vector["result"]["claims"]
    digest = shares.digest(vector["requestId"])
    assert digest == raw(vector["digest"])
    assert recover_address(digest, shares.signature) == shares.operator


def nonce_shift(**changes):
    share = SignatureShares.read(SHARES[0]["result"]).claims.shares[0]
    whole = {
        "presignature_id": share.presignature_id,
        "public_key": raw(PRESIGN["results"][0]["publicKey"]),
        "digest": share.digest,
        "signers": PARAMS["signers"],
    }
    return node_1.nonce_shift(**{**whole, **changes})


def test_the_shift_of_the_nonce():
    """δ, and R' = R + δ·G."""
    shift = nonce_shift()
    assert shift == int(VECTORS["nonceShift"]["shift"], 16)
    shifted = node_1.shift_nonce(raw(PRESIGN["results"][0]["noncePoint"]), shift)
    assert shifted == raw(VECTORS["nonceShift"]["noncePoint"])
    assert shifted[1:] == raw(VECTORS["combined"]["signature"])[:32]


@pytest.mark.parametrize(
    "change",
    [
        {"presignature_id": bytes(32)},
        {"public_key": bytes(33)},
        {"digest": bytes(32)},
        {"signers": PARAMS["signers"][::-1]},
        {"signers": PARAMS["signers"][:1]},
    ],
    ids=str,
)
def test_the_shift_covers(change):
    """All that is known of a signature: nobody can know it, or R', before all of this is fixed."""
    assert nonce_shift(**change) != nonce_shift()


@pytest.mark.parametrize("place", [0, 1])
def test_a_commitment_is_the_hash_of_the_commitments(place):
    """Presignature, points and proof."""
    share = SignatureShares.read(SHARES[place]["result"]).claims.shares[0]
    promised = raw(PRESIGN["results"][place]["commitment"])
    assert node_1.commitments_hash(share.presignature_id, share.commitments) == promised
    for changed in (b"", share.commitments[:-1], share.commitments[::-1]):
        assert node_1.commitments_hash(share.presignature_id, changed) != promised
    assert node_1.commitments_hash(bytes(32), share.commitments) != promised


def test_the_shares_make_a_signature():
    """The sums, divided, made low: it recovers to the key."""
    shares = [SignatureShares.read(vector["result"]).claims.shares[0] for vector in SHARES]
    s = sum(share.w for share in shares) * pow(sum(share.u for share in shares), -1, ORDER) % ORDER
    assert (s > ORDER // 2) is VECTORS["combined"]["wasHigh"] is True
    combined = raw(VECTORS["combined"]["signature"])
    assert int.from_bytes(combined[32:64], "big") == ORDER - s
    assert recover_public_key(shares[0].digest, combined) == raw(PRESIGN["results"][0]["publicKey"])


def test_requests_and_results_survive_the_way_as_text():
    """Through the strict reader, as on the wire."""
    presign = decode(PresignParams, PARAMS)
    assert json.loads(encode(presign)) == PARAMS
    assert decode(PresignParams, load(encode(presign))) == presign
    sign = decode(SignParams, SIGN["params"])
    assert json.loads(encode(sign)) == SIGN["params"]
    assert decode(SignParams, load(encode(sign))) == sign
    offer = PresignatureOffer.read(PRESIGN["results"][0])
    assert to_json(offer) == PRESIGN["results"][0]


def test_a_request_with_nonces_survives_too():
    """The form for gateways."""
    sign = evolve(
        decode(SignParams, SIGN["params"]),
        presignature_ids=(),
        participants=tuple(VECTORS["request"]["participants"]),
        nonces=tuple(map(raw, VECTORS["request"]["nonces"])),
    )
    assert decode(SignParams, load(encode(sign))) == sign


# --- what the hashes cover --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "0x" + "00" * 32},
        {"key_id": "00" * 32},
        {"eph_id": "another"},
        {"signers": PARAMS["signers"][::-1]},
        {"expires_at": PARAMS["expiresAt"] + 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_presign_digest_covers(change):
    """Every parameter."""
    assert presign_digest(**change) != presign_digest()


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "0x" + "00" * 32},
        {"setup_digest": bytes(32)},
        {"signers": SIGN["params"]["signers"][:1]},
        {"presignature_ids": [bytes(32)]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_challenge_of_a_signature_covers(change):
    """Request, setup, signers and presignatures, so that it fits nothing else."""
    assert sign_challenge(**change) != sign_challenge()


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "0x" + "00" * 32},
        {"operator": PARAMS["signers"][1]},
        {"party_index": 2},
        {"key_id": "00" * 32},
        {"public_key": bytes(33)},
        {"shares": ()},
        *(
            {"shares": {name: value}}
            for name, value in {
                "presignature_id": bytes(32),
                "nonce_point": bytes(33),
                "digest": bytes(32),
                "u": 1,
                "w": 1,
                "commitments": b"\0",
            }.items()
        ),
    ],
    ids=str,
)
def test_shares_cannot_be_changed_after_signing(change):
    """Every field is in the digest."""
    shares = SignatureShares.read(SHARES[0]["result"])
    if isinstance(change.get("shares"), dict):
        change = {"shares": (evolve(shares.claims.shares[0], **change["shares"]),)}
    request_id = change.get("request_id", SHARES[0]["requestId"])
    assert altered(shares, **change).digest(request_id) != shares.digest(SHARES[0]["requestId"])


def test_no_share_is_shown():
    """Neither in the claims nor in their text."""
    shares = SignatureShares.read(SHARES[0]["result"])
    for shown in (repr(shares), repr(shares.claims)):
        assert SHARE["u"][2:] not in shown
        assert str(shares.claims.shares[0].w) not in shown


# --- decoders ---------------------------------------------------------------------------------------------------------

DECODERS = {PresignParams: PARAMS, SignParams: SIGN["params"]}
RESULTS = {
    PresignatureOffer: PRESIGN["results"][0],
    SignatureShares: SHARES[0]["result"],
}
WRONG = [None, True, -1, 2**53, "", "0x", "0x00", "é", [], {}, ["0x" + "00" * 32] * 65]

#: Values that a member may have as far as its decoder can tell.
RIGHT = {
    "ephId": ["0x", "0x00", "é"],
    "setup": ["0x", "0x00", "é"],
    "presignatureIds": [[]],
    "participants": [[]],
    "nonces": [[]],
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
        decode(kind, value)
    assert caught.value.field


@pytest.mark.parametrize(("kind", "value"), variations(RESULTS))
def test_wrong_results_are_protocol_errors(kind, value):
    """A node that answers so does not speak this protocol."""
    with pytest.raises(NodeProtocolError):
        getattr(kind, "read_whole", kind.read)(value)


@pytest.mark.parametrize(("kind", "value"), variations({SignatureShares: CLAIMS}))
def test_wrong_claims_are_protocol_errors(kind, value):
    """Every member of the claims, with everything that it cannot be."""
    with pytest.raises(NodeProtocolError):
        kind.read_whole({**SHARES[0]["result"], "claims": dump(value)})


@pytest.mark.parametrize("member", SHARE)
@pytest.mark.parametrize("value", [None, 1, "0x00", "0x" + "ff" * 32, "0x" + "ff" * 34])
def test_wrong_members_of_a_share_are_protocol_errors(member, value):
    """Each with everything that it cannot be; u and w are below the order."""
    if member in {"presignatureId", "digest"} and value == "0x" + "ff" * 32:
        value = "ff" * 32
    if member == "commitments" and value not in {None, 1}:
        value += "ff" * 1500
    broken = {**CLAIMS, "shares": [{**SHARE, member: value}]}
    with pytest.raises(NodeProtocolError):
        SignatureShares.read_whole({**SHARES[0]["result"], "claims": dump(broken)})


OTHERS = VECTORS["request"]["participants"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"signers": OTHERS[:2][::-1]}, "signers"),
        ({"signers": OTHERS[:1]}, "signers"),
        ({"signers": [OTHERS[0], OTHERS[0].lower()]}, "signers"),
        ({"presignatureIds": ["0x" + "00" * 32] * 2}, "presignatureIds"),
        ({"participants": OTHERS[:2], "nonces": ["0x" + "00" * 32] * 2}, "participants"),
        (
            {"presignatureIds": [], "participants": OTHERS[1:], "nonces": ["0x" + "00" * 32] * 2},
            "signers",
        ),
        ({"presignatureIds": [], "participants": OTHERS, "nonces": ["0x" + "00" * 32] * 2}, "nonces"),
        ({"presignatureIds": [], "nonces": ["0x" + "00" * 32] * 2}, "nonces"),
        ({"revision": "2"}, "revision"),
    ],
)
def test_members_that_do_not_fit_together_are_refused(change, field):
    """Signers ascending and at least two, one form at a time, nonces for participants."""
    with pytest.raises(InvalidFieldError) as caught:
        decode(SignParams, {**SIGN["params"], **change})
    assert caught.value.field == field


@pytest.mark.parametrize("signature", ["0x" + "00" * 63, "0x" + "00" * 66, "00" * 65])
def test_a_presign_signature_has_64_or_65_bytes(signature):
    """One of ed25519, one of secp256k1."""
    with pytest.raises(InvalidFieldError, match="signature"):
        decode(PresignParams, {**PARAMS, "signature": signature})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["0x", *SHARE]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*PARAMS, *SIGN["params"], *PRESIGN["results"][0], *SHARES[0]["result"], *CLAIMS]
            ),
            inner,
            max_size=8,
        )
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("kind", [*DECODERS, *RESULTS, SignatureClaims], ids=lambda kind: kind.__name__)
def test_no_json_raises_anything_but_our_own_error(kind):
    """Whatever arrives."""

    @settings(max_examples=40)
    @given(JSON)
    def run(value):
        with pytest.raises(DanError):
            decode(kind, value)

    run()

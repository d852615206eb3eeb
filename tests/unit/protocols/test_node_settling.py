"""dan_settle_keygen: what is signed, what is read, what is refused."""

from __future__ import annotations

import json

import pytest
from attrs import evolve

from dan_async._values import to_hex
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import InvalidFieldError, NodeProtocolError
from dan_async.protocols.fields import decode, encode, to_json
from dan_async.protocols.node import (
    MOST_RESTARTS,
    Settlement,
    SettleParams,
    request_ids,
    restarted_request_id,
    settle_digest,
)
from tests.fake_nodes import REQUEST_ID, DealtKey, identities

OPERATOR, OTHER = (identity.operator for identity in identities(2))


def signed(key: EphemeralKey) -> SettleParams:
    digest = settle_digest(request_id=REQUEST_ID, operator=OPERATOR, eph_pk=key.public_key)
    return SettleParams(
        request_id=REQUEST_ID,
        eph_pk=key.public_key,
        sign_alg=key.algorithm,
        signature=key.sign_message(digest),
    )


@pytest.mark.parametrize("algorithm", ["secp256k1", "ed25519"])
def test_what_is_written_is_read(algorithm: str) -> None:
    """Parameters survive the wire, and the signature counts for the node that it names."""
    params = signed(EphemeralKey.generate(algorithm))
    read = decode(SettleParams, json.loads(encode(params)))
    assert read == params
    assert read.is_signed_for(OPERATOR)


@pytest.mark.parametrize("algorithm", ["secp256k1", "ed25519"])
def test_a_signature_counts_for_one_thing(algorithm: str) -> None:
    """Not for another node, another request, another ephemeral key, nor when a digit of it is changed."""
    params = signed(EphemeralKey.generate(algorithm))
    assert not params.is_signed_for(OTHER)
    assert not evolve(params, request_id="0x" + "cd" * 32).is_signed_for(OPERATOR)
    assert not evolve(params, eph_pk=EphemeralKey.generate(algorithm).public_key).is_signed_for(OPERATOR)
    last = "0" if params.signature[10] != "0" else "1"
    changed = params.signature[:10] + last + params.signature[11:]
    assert not evolve(params, signature=changed).is_signed_for(OPERATOR)


def test_a_point_off_the_curve_has_signed_nothing() -> None:
    """A public key that is none is no crash."""
    params = evolve(signed(EphemeralKey.generate()), eph_pk=b"\x04" + b"\x01" * 64)
    assert not params.is_signed_for(OPERATOR)


@pytest.mark.parametrize(
    "changes",
    [
        {"requestId": "0x12"},
        {"ephPK": "0x" + "11" * 33},
        {"ephPK": 7},
        {"signAlg": "rsa"},
        {"signature": ""},
        {"signature": "0x" + "11" * 100},
        {"more": 1},
    ],
)
def test_wrong_parameters_are_refused(changes: dict[str, object]) -> None:
    """Each of them."""
    value = json.loads(encode(signed(EphemeralKey.generate())))
    with pytest.raises(InvalidFieldError):
        decode(SettleParams, value | changes)


def test_the_ids_are_the_first_one_and_its_new_starts() -> None:
    """As docs/reference/node-protocol.md derives them, and more than any client starts anew."""
    ids = request_ids(REQUEST_ID)
    assert ids[:3] == (REQUEST_ID, restarted_request_id(REQUEST_ID, 1), restarted_request_id(REQUEST_ID, 2))
    assert len(set(ids)) == MOST_RESTARTS + 1


def test_results_survive_the_wire() -> None:
    """None, one or several acknowledgements."""
    key = DealtKey(2, identities(3))
    for count in range(3):
        acks = tuple(key.acknowledgement(index) for index in range(1, count + 1))
        assert Settlement.read(to_json(Settlement(acknowledgements=acks))).acknowledgements == acks


ACK = to_json(DealtKey(2, identities(3)).acknowledgement(1))


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"acknowledgements": 1},
        {"acknowledgements": [{}]},
        {"acknowledgements": [{}] * 34},
        {"acknowledgements": [{**ACK, "claims": "{}"}]},
        {"acknowledgements": [ACK, {**ACK, "claims": ACK["claims"] + " "}]},
    ],
)
def test_malformed_results_are_the_nodes_fault(value: object) -> None:
    """Whatever is wrong with them."""
    with pytest.raises(NodeProtocolError):
        Settlement.read(value)


def test_the_digest_is_the_documented_hash() -> None:
    """H("dan-node/1 settle", requestId, operator, ephPK), written out by hand."""
    import hashlib

    key = EphemeralKey.generate()
    parts = [b"dan-node/1 settle", bytes.fromhex(REQUEST_ID[2:]), bytes.fromhex(OPERATOR[2:]), key.public_key]
    expected = hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()
    found = settle_digest(request_id=REQUEST_ID, operator=OPERATOR, eph_pk=key.public_key)
    assert to_hex(found) == to_hex(expected)

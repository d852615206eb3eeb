"""What a node keeps of a key, and finds again."""

from __future__ import annotations

import itertools
import json

import pytest
from attrs import evolve

from dan_async.crypto.curve import base_multiply, encode
from dan_async.devnet.mpc.dkg import KeyShare
from dan_async.devnet.node.keys import EphemeralRegistry, KeyRecord, KeyRing
from dan_async.devnet.node.rpc import RefusalError
from dan_async.devnet.share_store import MemoryShareStore, ShareStoreError
from dan_async.errors import NodeCode
from dan_async.protocols.fields import decode, to_json
from dan_async.protocols.node import Acknowledgement, ChangeClaims, ChangeReceipt, KeygenClaims
from dan_async.protocols.setups import EphemeralClaim

POINT = encode(base_multiply(5))
PARTICIPANTS = ("0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF", "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf")


@pytest.fixture
def record():
    share = KeyShare(
        index=1,
        t=2,
        n=2,
        secret_share=123456789123456789,
        public_key=POINT,
        public_shares=(encode(base_multiply(123456789123456789)), POINT),
        transcript_hash=b"\x06" * 32,
    )
    claims = KeygenClaims(
        request_id="0x" + "11" * 32,
        key_id="22" * 32,
        t=2,
        n=2,
        public_key=POINT,
        public_shares=share.public_shares,
        participants=PARTICIPANTS,
        transcript_hash=b"\x06" * 32,
    )
    acknowledgement = Acknowledgement.make(
        claims, operator=PARTICIPANTS[0], party_index=1, sign=lambda _: b"\x01" * 65
    )
    return KeyRecord(
        content=b"\x05" * 32,
        acknowledgement=acknowledgement,
        share=share,
        owner_id=PARTICIPANTS[1],
        claim=EphemeralClaim(eph_id="e", eph_pk=b"\x04" + bytes(64), expiry=5, sign_alg="secp256k1"),
        permissions='{"a":1.5}',
    )


def test_a_record_survives_the_store(record):
    """decode(encode(r)) == r, with and without permissions."""
    assert KeyRecord.decode(record.encode()) == record
    assert KeyRecord.decode(evolve(record, permissions=None).encode()).permissions is None


def test_a_ring_finds_keys_by_request_and_by_id(record):
    """And nothing that it does not have."""
    ring = KeyRing(MemoryShareStore())
    ring.put(record)
    assert ring.by_request("0x" + "11" * 32) is record
    assert ring.by_key("22" * 32) is record
    assert ring.by_request("0x" + "33" * 32) is None
    assert ring.by_key("33" * 32) is None


def test_a_new_ring_over_the_same_store_has_the_same_keys(record):
    """That is a restart."""
    store = MemoryShareStore()
    KeyRing(store).put(record)
    ring = KeyRing(store)
    ring.load()
    assert ring.by_key("22" * 32) == record
    assert len(ring) == 1


def test_nobody_is_told_of_a_key_that_was_not_stored(record):
    """If the store fails, the ring does not have the key either."""

    class Full(MemoryShareStore):
        def put(self, name, data):
            raise OSError("disk full")

    ring = KeyRing(Full())
    with pytest.raises(OSError, match="disk full"):
        ring.put(record)
    assert ring.by_key("22" * 32) is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"content": "0x11"},
        {"share": {}},
        {"claim": {}},
        {"acknowledgement": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_malformed_record_is_a_store_error(record, change):
    """A node says so and does not start, rather than forget a share."""
    members = {**json.loads(record.encode()), **change}
    with pytest.raises(ShareStoreError):
        KeyRecord.decode(json.dumps(members).encode())


def test_a_share_that_does_not_fit_is_refused(record):
    """The secret share must belong to the public one."""
    members = json.loads(record.encode())
    members["share"]["secretShare"] = "0x" + "07" * 32
    with pytest.raises(ShareStoreError):
        KeyRecord.decode(json.dumps(members).encode())


def test_the_secret_is_not_in_the_repr(record):
    """A record may be logged by mistake."""
    assert str(record.share.secret_share) not in repr(record)
    assert f"{record.share.secret_share:x}" not in repr(record)


# --- the ephemeral keys of one key ------------------------------------------------------------------------------------

PROOF = {"key_id": "22" * 32, "t": 2, "n": 2, "public_key": POINT, "participants": PARTICIPANTS}
_requests = itertools.count(1)


def change(operation, eph_id, registry, *, request_id=None, eph_pk=b"\x04" + bytes(64)):
    """The registry after a change, and the receipt."""
    claims = ChangeClaims(
        **PROOF,
        request_id=request_id or f"0x{next(_requests):064x}",
        keygen_id="0x" + "11" * 32,
        operation=f"{operation}EphemeralKey",
        eph_id=eph_id,
    )
    receipt = ChangeReceipt.make(claims, operator=PARTICIPANTS[0], party_index=1, sign=lambda _: b"\x01" * 65)
    claim = EphemeralClaim(eph_id=eph_id, eph_pk=eph_pk, expiry=5, sign_alg="secp256k1")
    return registry.changed(claim, b"\x05" * 32, receipt), receipt


@pytest.fixture(scope="module")
def full():
    """As many ephemeral keys as a node takes."""
    registry = EphemeralRegistry()
    for number in range(256):
        registry, _ = change("add", f"e{number}", registry)
    return registry


def test_a_full_registry_refuses_new_keys(full):
    """More would never end; a known one may be prolonged."""
    with pytest.raises(RefusalError, match="too many ephemeral keys"):
        change("add", "one more", full)
    change("add", "e7", full)


def test_a_full_registry_revokes_each_of_its_keys(full):
    """Again and again; and what is stored of it can be read again."""
    registry = full
    for _ in range(2):
        for number in range(256):
            registry, _ = change("revoke", f"e{number}", registry)
    assert all(key.is_revoked for key in registry.keys)
    assert decode(EphemeralRegistry, to_json(registry)) == registry


def test_a_full_registry_takes_the_revocation_of_a_key_that_it_does_not_know(full):
    """Nothing has to be remembered: it can never be added."""
    registry, _ = change("revoke", "unknown", full)
    assert registry == full
    with pytest.raises(RefusalError):
        change("add", "unknown", registry)


def test_a_registry_that_had_too_many_additions_still_revokes():
    """1,024 of the same few keys; with every key revoked afterwards, what is stored can be read again."""
    registry = EphemeralRegistry()
    for number in range(1024):
        registry, _ = change("add", f"e{number % 4}", registry)
    with pytest.raises(RefusalError, match="too many ephemeral keys"):
        change("add", "e1", registry)
    for number in range(256):
        registry, _ = change("revoke", f"e{number}", registry)
    assert all(key.is_revoked for key in registry.keys)
    assert decode(EphemeralRegistry, to_json(registry)) == registry


def test_an_addition_under_way_comes_too_late():
    """Of a key that was never added, and of one that was: revoked is for good."""
    never, _ = change("revoke", "e", EphemeralRegistry())
    added, _ = change("add", "e", EphemeralRegistry())
    revoked, _ = change("revoke", "e", added)
    for registry in (never, revoked):
        with pytest.raises(RefusalError, match="for good") as caught:
            change("add", "e", registry)
        assert caught.value.code == NodeCode.REQUEST_CONFLICT


def test_a_repeated_change_has_the_same_receipt_until_it_is_undone():
    """An addition that was revoked is refused; the revocation is confirmed again."""
    added, addition = change("add", "e", EphemeralRegistry())
    assert added.repeated(addition.claims.request_id, b"\x05" * 32) == addition
    revoked, revocation = change("revoke", "e", added)
    assert revoked.repeated(revocation.claims.request_id, b"\x05" * 32) == revocation
    with pytest.raises(RefusalError, match="superseded"):
        revoked.repeated(addition.claims.request_id, b"\x05" * 32)

"""What a node keeps about its pairs, and what it never forgets."""

from __future__ import annotations

import json

import pytest

from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.peers.pairs import PairStore
from dan_async.devnet.share_store import DiskShareStore, MemoryShareStore, ShareStoreError
from tests.unit.devnet.mpc.signing_group import dealt_pair

PEER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
NAME = "pair-2b5ad5c4795c026514f8317c7a215e218dccd6cf"


@pytest.fixture
def disk():
    return MemoryShareStore()


def reopened(disk):
    store = PairStore(disk)
    store.load()
    return store


def test_a_set_up_survives_the_store(disk):
    """Every member of it."""
    state, _ = dealt_pair()
    PairStore(disk).put(PEER, state)
    found = reopened(disk).get(PEER)
    assert found.to_dict() == state.to_dict()
    assert found.setup_id == state.setup_id
    assert disk.names() == [NAME]


def test_a_ban_survives_the_store(disk):
    """It is there when ban() returns; the rest is kept."""
    store = PairStore(disk)
    state, _ = dealt_pair()
    store.put(PEER, state)
    store.ban(PEER)
    assert reopened(disk).get(PEER).banned
    assert state.banned  # for whoever is using it right now


def test_a_ban_outlives_the_set_up(disk):
    """What is made after it is banned as well, also after a restart in between."""
    store = PairStore(disk)
    store.put(PEER, dealt_pair()[0])
    store.ban(PEER)
    again = reopened(disk)
    fresh, _ = dealt_pair()
    again.put(PEER, fresh)
    assert fresh.banned
    assert reopened(disk).get(PEER).banned


def test_a_later_set_up_takes_the_place_of_an_earlier(disk):
    """One for each node."""
    store = PairStore(disk)
    first, second = dealt_pair()[0], dealt_pair()[0]
    store.put(PEER, first)
    store.put(PEER, second)
    assert len(store) == len(reopened(disk)) == 1
    assert reopened(disk).get(PEER).setup_id == second.setup_id


def test_on_disk_it_is_encrypted(tmp_path):
    """No seed shows in any file, and another key does not read it."""
    state, _ = dealt_pair()
    store = DiskShareStore(tmp_path, b"\1" * 32)
    PairStore(store).put(PEER, state)
    store.close()
    written = (tmp_path / f"{NAME}.record").read_bytes()
    for secret in (state.common_seed, state.sender.chosen[0], state.receiver.pairs[0][0]):
        assert secret not in written
        assert secret.hex().encode() not in written
    other = DiskShareStore(tmp_path, b"\2" * 32)
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        reopened(other)
    other.close()


def test_a_key_ring_does_not_take_it_for_a_key(disk):
    """Both kinds of records share a store."""
    PairStore(disk).put(PEER, dealt_pair()[0])
    ring = KeyRing(disk)
    ring.load()
    assert len(ring) == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record.update(version=2), "of version 2, not 1"),
        (lambda record: record.pop("operator"), "operator is missing"),
        (lambda record: record["state"].pop("banned"), "banned is missing"),
        (lambda record: record["state"].update(banned=0), "banned must be true or false"),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error(disk, change, problem):
    """A node that forgot a ban would be worse than one that does not start."""
    PairStore(disk).put(PEER, dealt_pair()[0])
    record = json.loads(disk.get(NAME))
    change(record)
    disk.put(NAME, json.dumps(record, separators=(",", ":")).encode())
    with pytest.raises(ShareStoreError, match=problem):
        reopened(disk)

"""What a node keeps about its pairs, and what it never forgets."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.peers.presigning import PairStore
from dan_async.devnet.share_store import BanList, DiskShareStore, MemoryShareStore, ShareStoreError
from tests.helpers import no_byte_more
from tests.unit.devnet.mpc.signing_group import dealt_pair

PEER = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
NAME = "pair-2b5ad5c4795c026514f8317c7a215e218dccd6cf"


@pytest.fixture
def disk():
    return MemoryShareStore()


@pytest.fixture
def bans():
    return BanList()


def reopened(disk, bans):
    store = PairStore(disk, bans)
    store.load()
    return store


def test_a_set_up_survives_the_store(disk, bans):
    """Every member of it."""
    state, _ = dealt_pair()
    PairStore(disk, bans).put(PEER, state)
    found = reopened(disk, bans).get(PEER)
    assert found.to_dict() == state.to_dict()
    assert found.setup_id == state.setup_id
    assert disk.names() == [NAME]


def test_a_later_set_up_takes_the_place_of_an_earlier(disk, bans):
    """One for each node."""
    store = PairStore(disk, bans)
    first, second = dealt_pair()[0], dealt_pair()[0]
    store.put(PEER, first)
    store.put(PEER, second)
    assert len(store) == len(reopened(disk, bans)) == 1
    assert reopened(disk, bans).get(PEER).setup_id == second.setup_id


def test_on_disk_it_is_encrypted(tmp_path):
    """No seed shows in any file, and another key does not read it."""
    state, _ = dealt_pair()
    store, bans = DiskShareStore(tmp_path / "records", b"\1" * 32), BanList(tmp_path / "bans")
    PairStore(store, bans).put(PEER, state)
    store.close()
    written = b"".join(file.read_bytes() for file in (tmp_path / "records").iterdir())
    for secret in (state.common_seed, state.sender.chosen[0], state.receiver.pairs[0][0]):
        assert secret not in written
        assert secret.hex().encode() not in written
    other = DiskShareStore(tmp_path / "records", b"\2" * 32)
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        reopened(other, bans)
    other.close()


def test_a_key_ring_does_not_take_it_for_a_key(disk, bans):
    """Both kinds of records share a store."""
    PairStore(disk, bans).put(PEER, dealt_pair()[0])
    ring = KeyRing(disk)
    ring.load()
    assert len(ring) == 0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record.update(version=1), "of version 1, not 2"),
        (lambda record: record.pop("operator"), "operator is missing"),
        (lambda record: record["state"].pop("delta"), "delta is missing"),
        (lambda record: record["state"].update(banned=False), "members that this revision does not know"),
    ],
)
def test_a_record_that_cannot_be_read_is_an_error(disk, bans, change, problem):
    """Of a version that kept bans in the record, too: a node that forgot a ban would be worse than one that does not start."""
    PairStore(disk, bans).put(PEER, dealt_pair()[0])
    record = json.loads(disk.get(NAME))
    change(record)
    disk.put(NAME, json.dumps(record, separators=(",", ":")).encode())
    with pytest.raises(ShareStoreError, match=problem):
        reopened(disk, bans)


# --- bans -------------------------------------------------------------------------------------------------------------


class Node:
    """A node's folders, and what it reads from them when it starts."""

    def __init__(self, folder):
        self.folder = folder
        self.start()

    def start(self):
        self.disk = DiskShareStore(self.folder / "records", b"\1" * 32)
        self.bans = BanList(self.folder / "bans")
        self.store = reopened(self.disk, self.bans)

    def restart(self):
        self.disk.close()
        self.start()

    @property
    def place(self):
        return self.folder / "bans" / PEER.lower()


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path)
    yield made
    made.disk.close()


def test_the_place_of_a_ban_is_kept_before_the_set_up(node):
    """Without it there is no set-up, so that nothing is ever checked whose failure could not be written down."""
    node.place.parent.touch()  # a file where the folder should be
    with pytest.raises(NotADirectoryError):
        node.store.put(PEER, dealt_pair()[0])
    assert node.store.get(PEER) is None
    assert node.disk.names() == []
    node.place.parent.unlink()
    node.store.put(PEER, dealt_pair()[0])
    assert node.place.read_bytes()
    assert node.place.stat().st_mode & 0o777 == 0o600


def test_a_ban_survives_a_restart(node):
    """It is there when ban() returns; the set-up is kept, and whoever uses it right now sees the ban."""
    state, _ = dealt_pair()
    node.store.put(PEER, state)
    node.store.ban(PEER)
    assert state.ban.is_set
    node.restart()
    assert node.store.get(PEER).ban.is_set
    assert node.store.is_banned(PEER)


def test_a_ban_covers_all_set_ups(node):
    """One that an earlier presignature still holds, one that was made since, and one that comes after a restart."""
    earlier, current, later = (dealt_pair()[0] for _ in range(3))
    node.store.put(PEER, earlier)
    node.store.put(PEER, current)
    current.ban.is_set = True  # as a check does that fails in the middle of a signature
    assert earlier.ban.is_set
    assert node.store.is_banned(PEER)
    node.store.ban(PEER)
    node.restart()
    node.store.put(PEER, later)
    assert later.ban.is_set


def test_restoring_or_deleting_a_set_up_does_not_lift_the_ban(node, tmp_path):
    """All records from a backup made before the ban; then none at all."""
    node.store.put(PEER, dealt_pair()[0])
    backup = shutil.copytree(tmp_path / "records", tmp_path / "backup")
    node.store.ban(PEER)
    node.disk.close()
    shutil.rmtree(tmp_path / "records")
    shutil.copytree(backup, tmp_path / "records")
    node.start()
    assert node.store.get(PEER).ban.is_set
    node.disk.close()
    shutil.rmtree(tmp_path / "records")
    node.start()
    assert node.store.get(PEER) is None
    assert node.store.is_banned(PEER)


def test_a_set_up_without_the_place_of_its_ban_keeps_the_node_from_starting(node):
    """It may have been banned."""
    node.store.put(PEER, dealt_pair()[0])
    node.place.unlink()
    with pytest.raises(ShareStoreError, match="whether that node is banned"):
        node.restart()


def test_a_damaged_place_is_a_ban(node):
    """Whatever is not the text that says otherwise."""
    node.store.put(PEER, dealt_pair()[0])
    node.place.write_bytes(node.place.read_bytes()[:-1])
    node.restart()
    assert node.store.is_banned(PEER)


def test_a_full_disk_does_not_prevent_a_ban(node):
    """No byte can be written any more, neither to a new file nor to an old one; the ban is there after a restart."""
    node.store.put(PEER, dealt_pair()[0])
    with no_byte_more():
        with pytest.raises(OSError, match="too large"):
            (node.folder / "new").write_bytes(b"x")
        with pytest.raises(ShareStoreError, match="cannot be used"):
            node.store.put(PEER, dealt_pair()[0])
        node.store.ban(PEER)
    node.restart()
    assert node.store.is_banned(PEER)


def test_a_ban_that_cannot_be_stored_holds(node, monkeypatch):
    """Whoever bans hears of it, and the pair does not run, also when the node is started again in the same process."""
    state, _ = dealt_pair()
    node.store.put(PEER, state)
    monkeypatch.setattr(os, "open", out_of_space)
    with pytest.raises(OSError, match="No space"):
        node.store.ban(PEER)
    assert state.ban.is_set
    assert node.store.is_banned(PEER)
    monkeypatch.undo()
    assert node.place.read_bytes()
    assert reopened(node.disk, node.bans).is_banned(PEER)


def out_of_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")

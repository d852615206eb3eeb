"""The share store: what is written is there after a restart, and only for its owner."""

from __future__ import annotations

import os
import stat

import pytest

from dan_async.devnet import share_store
from dan_async.devnet.share_store import DiskShareStore, MemoryShareStore, ShareStoreError

KEY = b"\x01" * 32


@pytest.fixture
def store(tmp_path):
    opened = DiskShareStore(tmp_path / "records", KEY)
    yield opened
    opened.close()


def reopened(store, key=KEY):
    """The same folder as a node finds it when it starts again."""
    store.close()
    return DiskShareStore(store._folder, key)


@pytest.fixture(params=["memory", "disk"])
def any_store(request, tmp_path):
    opened = MemoryShareStore() if request.param == "memory" else DiskShareStore(tmp_path / "r", KEY)
    yield opened
    opened.close()


def test_a_record_comes_back(any_store):
    """What was put is what is got."""
    any_store.put("a", b"one")
    assert any_store.get("a") == b"one"


def test_a_later_record_replaces_the_former(any_store):
    """One record per name."""
    any_store.put("a", b"one")
    any_store.put("a", b"two")
    assert any_store.get("a") == b"two"
    assert list(any_store.names()) == ["a"]


def test_a_missing_record_is_none(any_store):
    """Nothing is not an error."""
    assert any_store.get("a") is None


@pytest.mark.parametrize("name", ["", "../a", "a/b", "a.b", "x" * 81, "a\0"])
def test_names_cannot_leave_the_folder(any_store, name):
    """A name is letters, digits, dash and underscore."""
    with pytest.raises(ShareStoreError):
        any_store.put(name, b"")
    with pytest.raises(ShareStoreError):
        any_store.get(name)


def test_records_survive_reopening(store):
    """A node that starts again finds its records."""
    store.put("a", b"one")
    again = reopened(store)
    assert again.get("a") == b"one"
    again.close()


def test_the_content_is_encrypted(store):
    """The bytes on disk do not show the record."""
    store.put("a", b"very secret share")
    assert b"secret" not in (store._folder / "a.record").read_bytes()


def test_equal_records_look_different(store):
    """Each encryption has a nonce of its own."""
    store.put("a", b"one")
    first = (store._folder / "a.record").read_bytes()
    store.put("a", b"one")
    assert (store._folder / "a.record").read_bytes() != first


@pytest.mark.parametrize("position", [0, 25, 40, -1], ids=["magic", "nonce", "content", "tag"])
def test_a_flipped_bit_is_noticed(store, position):
    """A changed file is refused, whichever byte it is."""
    store.put("a", b"a record of some length")
    path = store._folder / "a.record"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        store.get("a")


def test_a_cut_file_is_noticed(store):
    """Half a file is refused."""
    store.put("a", b"one")
    path = store._folder / "a.record"
    path.write_bytes(path.read_bytes()[:24])
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        store.get("a")


def test_swapped_files_are_noticed(store):
    """A record under another name is refused."""
    store.put("a", b"one")
    store.put("b", b"two")
    (store._folder / "a.record").replace(store._folder / "b.record")
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        store.get("b")


def test_another_nodes_key_does_not_open_it(store):
    """The key comes from the node's identity."""
    store.put("a", b"one")
    other = reopened(store, b"\x02" * 32)
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        other.get("a")
    other.close()


def test_files_are_for_the_owner_only(tmp_path):
    """Mode 0600 and 0700, also where the umask would allow more."""
    before = os.umask(0)
    try:
        store = DiskShareStore(tmp_path / "records", KEY)
        store.put("a", b"one")
        store.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "records").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "records" / "a.record").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_old_record(store, monkeypatch, step):
    """Whatever step fails: the old record is there, and no half of the new one."""
    store.put("a", b"old")

    def fail(*_):
        raise OSError("disk full")

    target = {"write": (os, "fdopen"), "fsync": (os, "fsync"), "replace": (share_store.Path, "replace")}[step]
    monkeypatch.setattr(*target, fail)
    with pytest.raises(OSError, match="disk full"):
        store.put("a", b"new")
    monkeypatch.undo()
    assert store.get("a") == b"old"
    assert [path.name for path in store._folder.glob("*.new")] == []


def test_the_content_is_flushed_before_it_takes_the_place(store, monkeypatch):
    """Order of the steps: flush the file, put it in place, flush the folder."""
    steps = []
    fsync, replace = os.fsync, share_store.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(
        share_store.Path, "replace", lambda *args: (steps.append("replace"), replace(*args))[1]
    )
    store.put("a", b"one")
    assert steps == ["fsync", "replace", "fsync"]


def test_leftovers_of_a_crash_are_removed(store):
    """A file that was being written when the node died is no record, and goes."""
    (store._folder / "a.record.0011.new").write_bytes(b"half")
    again = reopened(store)
    assert list(again.names()) == []
    assert list(again._folder.glob("*.new")) == []
    again.close()


def test_two_nodes_cannot_share_a_folder(store):
    """The second is refused while the first has it open, and not after."""
    with pytest.raises(ShareStoreError, match="in use"):
        DiskShareStore(store._folder, KEY)
    store.close()
    DiskShareStore(store._folder, KEY).close()


def test_reprs_show_no_record(any_store):
    """Neither content nor key."""
    any_store.put("a", b"very secret share")
    assert "secret" not in repr(any_store)

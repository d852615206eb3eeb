"""The share store: what is written is there after a restart, and only for its owner."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dan_async.devnet.share_store import DiskShareStore, MemoryShareStore, ShareStoreError
from tests.helpers import no_byte_more

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


def sealed(store, name="a"):
    """The row as it stands in the file."""
    return store._rows.execute("SELECT sealed FROM records WHERE name = ?", (name,)).fetchone()[0]


def change(store, content, name="a"):
    """Write a row as somebody else would."""
    store._rows.execute("UPDATE records SET sealed = ? WHERE name = ?", (bytes(content), name))


def test_the_content_is_encrypted(store):
    """The bytes on disk do not show the record."""
    store.put("a", b"very secret share")
    files = list(store._folder.iterdir())
    assert len(files) > 1
    assert not any(b"secret" in file.read_bytes() for file in files)


def test_equal_records_look_different(store):
    """Each encryption has a nonce of its own."""
    store.put("a", b"one")
    first = sealed(store)
    store.put("a", b"one")
    assert sealed(store) != first


@pytest.mark.parametrize("position", [0, 25, 40, -1], ids=["magic", "nonce", "content", "tag"])
def test_a_flipped_bit_is_noticed(store, position):
    """A changed record is refused, whichever byte it is."""
    store.put("a", b"a record of some length")
    content = bytearray(sealed(store))
    content[position] ^= 1
    change(store, content)
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        store.get("a")


def test_a_cut_record_is_noticed(store):
    """Half a record is refused."""
    store.put("a", b"one")
    change(store, sealed(store)[:24])
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        store.get("a")


def test_swapped_records_are_noticed(store):
    """A record under another name is refused."""
    store.put("a", b"one")
    store.put("b", b"two")
    change(store, sealed(store, "a"), "b")
    with pytest.raises(ShareStoreError, match="cannot be decrypted"):
        store.get("b")


def test_a_file_that_is_no_database_is_named(store):
    """Nothing is made anew in its place."""
    store.close()
    (store._folder / "records.db").write_bytes(b"no database, and long enough to be looked at as one" * 100)
    with pytest.raises(ShareStoreError, match="not a database"):
        DiskShareStore(store._folder, KEY)


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
        modes = {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "records").iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "records").stat().st_mode) == 0o700
    assert modes == {0o600}


def test_a_full_disk_leaves_the_old_record(store):
    """The old record is there, and no half of the new one; nor after a restart."""
    store.put("a", b"old")
    with no_byte_more(), pytest.raises(ShareStoreError, match="cannot be used"):
        store.put("a", b"new")
    assert store.get("a") == b"old"
    again = reopened(store)
    assert again.get("a") == b"old"
    again.put("a", b"new")
    assert again.get("a") == b"new"
    again.close()


WRITER = """
import sys
from pathlib import Path
from dan_async.devnet.share_store import DiskShareStore
store = DiskShareStore(Path(sys.argv[1]), b"\\1" * 32)
for number in range(100_000):
    store.put(f"r-{number}", b"%d" % number * 50)
    print(number, flush=True)
"""


def test_what_was_written_survives_a_kill(tmp_path):
    """Whenever the process dies: each record whose put() had returned is there, whole."""
    for count in (1, 7, 40):
        folder = tmp_path / str(count)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as writer:
            for _ in range(count):
                last = int(writer.stdout.readline())
            writer.kill()
        store = DiskShareStore(folder, KEY)
        assert all(store.get(f"r-{number}") == b"%d" % number * 50 for number in range(last + 1))
        assert len(store.names()) >= last + 1
        assert len(list(folder.iterdir())) <= 3
        store.close()


def test_threads_may_share_it(store):
    """Writers of many threads at once lose nothing."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.put(f"r-{number}", b"x"), range(200)))
    assert len(store.names()) == 200


def test_records_that_are_files_are_taken_in(store):
    """As an earlier version kept them: the content is the same."""
    store.put("a", b"one")
    content = sealed(store)
    store._rows.execute("DELETE FROM records")
    (store._folder / "a.record").write_bytes(content)
    again = reopened(store)
    assert again.get("a") == b"one"
    assert not (again._folder / "a.record").exists()
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

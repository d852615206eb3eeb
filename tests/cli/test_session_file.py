"""The file that holds a session: whole or absent, private, never over another."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from unittest import mock

import pytest

from dan_async.cli.session_file import reserve, write_new
from dan_async.errors import ConfigurationError, DanError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writes_the_text_with_mode_0600(tmp_path: Path) -> None:
    """Only the owner may read the file, even where the umask would let everybody."""
    target = tmp_path / "session.json"
    before = os.umask(0)
    try:
        with reserve(target) as write:
            write("secret\n")
    finally:
        os.umask(before)
    assert target.read_text() == "secret\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert _names(tmp_path) == ["session.json"]


def test_leaves_nothing_behind_when_nothing_is_written(tmp_path: Path) -> None:
    """A job that fails or is cancelled leaves neither the target nor the temporary file."""
    with pytest.raises(KeyboardInterrupt), reserve(tmp_path / "session.json"):
        assert len(_names(tmp_path)) == 1
        raise KeyboardInterrupt
    assert _names(tmp_path) == []


def test_the_target_does_not_exist_before_it_is_whole(tmp_path: Path) -> None:
    """Nobody ever sees half a session under the target's name."""
    target = tmp_path / "session.json"
    with reserve(target) as write:
        assert not target.exists()
        write("whole")
        assert target.read_text() == "whole"


def test_refuses_to_overwrite(tmp_path: Path) -> None:
    """An existing file is left alone, and the error says how to replace it."""
    target = tmp_path / "session.json"
    target.write_text("old")
    with pytest.raises(ConfigurationError, match=r"already exists\. .*--force"), reserve(target):
        pytest.fail("the body must not run")
    assert target.read_text() == "old"


def test_force_replaces_and_makes_it_private(tmp_path: Path) -> None:
    """With force the old content and its looser mode are gone."""
    target = tmp_path / "session.json"
    target.write_text("old")
    target.chmod(0o644)
    with reserve(target, force=True) as write:
        write("new")
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_force_keeps_the_old_file_when_nothing_is_written(tmp_path: Path) -> None:
    """A failed job does not cost the session that was there before."""
    target = tmp_path / "session.json"
    target.write_text("old")
    with pytest.raises(RuntimeError), reserve(target, force=True):
        raise RuntimeError
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["session.json"]


def test_does_not_overwrite_what_appears_meanwhile(tmp_path: Path) -> None:
    """Another program that takes the name during the job keeps its file."""
    target = tmp_path / "session.json"
    with pytest.raises(DanError, match="could not be written"), reserve(target) as write:
        target.write_text("somebody else's")
        write("ours")
    assert target.read_text() == "somebody else's"
    assert _names(tmp_path) == ["session.json"]


def test_works_without_hard_links(tmp_path: Path) -> None:
    """On a file system that has none, the file is renamed into place."""
    target = tmp_path / "session.json"
    refused = OSError(errno.EPERM, "Operation not permitted")
    with mock.patch("os.link", side_effect=refused), reserve(target) as write:
        write("text")
    assert target.read_text() == "text"
    assert _names(tmp_path) == ["session.json"]


def test_does_not_overwrite_without_hard_links_either(tmp_path: Path) -> None:
    """The fallback looks before it renames."""
    target = tmp_path / "session.json"
    refused = OSError(errno.EPERM, "Operation not permitted")
    with mock.patch("os.link", side_effect=refused), pytest.raises(DanError), reserve(target) as write:
        target.write_text("somebody else's")
        write("ours")
    assert target.read_text() == "somebody else's"


@pytest.mark.parametrize(("is_stored", "left"), [(False, "is lost"), (True, "is in the store")])
def test_a_full_disk_is_reported_without_the_text(tmp_path: Path, is_stored: bool, left: str) -> None:
    """The error says what happened, whether the session is lost, and never what it was."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(DanError, match=r"could not be written .*No space left") as caught,
        mock.patch("os.fsync", side_effect=full),
        reserve(tmp_path / "session.json", is_stored=is_stored) as write,
    ):
        write("the secret")
    assert "the secret" not in str(caught.value)
    assert left in caught.value.hint
    assert _names(tmp_path) == []


def test_a_disk_that_is_full_already_costs_no_session(tmp_path: Path) -> None:
    """It is found out before anything is asked of a network."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        mock.patch("os.write", side_effect=full),
        pytest.raises(ConfigurationError, match=r"--output: cannot write .*No space left"),
        reserve(tmp_path / "session.json"),
    ):
        pytest.fail("the body must not run")
    assert _names(tmp_path) == []


def test_a_key_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    """Or the next command would find an empty key file."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        mock.patch("os.fsync", side_effect=full),
        pytest.raises(ConfigurationError, match="the key cannot be"),
    ):
        write_new(tmp_path / "owner.key", "the key", what="the key")
    assert _names(tmp_path) == []


def test_a_key_is_found_whole_or_not_at_all(tmp_path: Path) -> None:
    """By another program that looks for it meanwhile, and after a kill."""
    key, found = tmp_path / "keys.db.key", []
    with mock.patch("os.fsync", side_effect=lambda _: found.append(key.exists() and key.read_text())):
        write_new(key, "the key", what="the key")
    assert found == [False, "the key"]  # the content was flushed, then the name
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="exists"):
        write_new(key, "another one", what="the key")
    assert key.read_text() == "the key"
    assert _names(tmp_path) == ["keys.db.key"]


def test_a_working_folder_that_is_gone_is_wrong_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As any other folder that is not there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError, match="--output: cannot write"), reserve(Path("session.json")):
        pytest.fail("the body must not run")


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing folder", "file as folder", "stdout", "nul"])
def test_refuses_what_cannot_hold_a_file(tmp_path: Path, kind: str) -> None:
    """Folders, devices, missing folders and impossible names are refused before anything is asked of a network."""
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    target = {
        "folder": tmp_path,
        "pipe": tmp_path / "pipe",
        "missing folder": tmp_path / "missing" / "session.json",
        "file as folder": tmp_path / "file" / "session.json",
        "stdout": Path("-"),
        "nul": Path("a\0b"),
    }[kind]
    with pytest.raises(ConfigurationError, match="--output"), reserve(target, force=True):
        pytest.fail("the body must not run")


def test_follows_a_symbolic_link_to_a_file(tmp_path: Path) -> None:
    """With force, a link stays a link and the file it points to is replaced."""
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    link.symlink_to(real)
    with reserve(link, force=True) as write:
        write("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_key_given_as_file_name_is_not_repeated(tmp_path: Path) -> None:
    """Whoever puts a private key in the wrong place does not see it on the screen as well."""
    name = "ab" * 32
    (tmp_path / name).write_text("")
    with pytest.raises(ConfigurationError) as caught, reserve(tmp_path / name):
        pytest.fail("the body must not run")
    assert name not in str(caught.value)


def test_a_folder_that_cannot_be_synced_does_not_matter(tmp_path: Path) -> None:
    """Where the system does not let a folder be opened, the file is still written."""
    real_open = os.open

    def open_files_only(path: object, flags: int, *args: int, **options: object) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, flags, *args, **options)

    with mock.patch("os.open", side_effect=open_files_only), reserve(tmp_path / "session.json") as write:
        write("text")
    assert (tmp_path / "session.json").read_text() == "text"

"""--permissions as text and as a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dan_async.cli.options import read_permissions
from dan_async.errors import ConfigurationError

TEXT = '{"callLimit": 1,  "permissions": []}'


def test_no_permissions() -> None:
    """Without the option there are no limits."""
    assert read_permissions(None) is None


def test_text_is_kept_letter_for_letter() -> None:
    """The nodes keep the text, so its spaces and order stay."""
    assert read_permissions(TEXT) == TEXT


def test_a_file_is_read(tmp_path: Path) -> None:
    """@FILE stands for its content, without the line break at its end."""
    path = tmp_path / "permissions.json"
    path.write_text(TEXT + "\n", encoding="utf-8")
    assert read_permissions(f"@{path}") == TEXT
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode() + b"\r\n")  # as Windows writes it
    assert read_permissions(f"@{path}") == TEXT


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", "1", '"text"', "@", "@/nowhere/at/all", "@.", "[" * 100_000]
)
def test_what_is_not_a_json_object_is_refused(text: str) -> None:
    """Text, file name or content: the error names the option."""
    with pytest.raises(ConfigurationError, match="--permissions"):
        read_permissions(text)


def test_what_the_nodes_could_not_read_is_refused() -> None:
    """The error has the place of the wrong member."""
    with pytest.raises(ConfigurationError, match=r"--permissions: permissions\[0\]\.to is missing$"):
        read_permissions('[{"type": "call"}]')


@pytest.mark.parametrize("content", [b"\xff", b"[" + b" " * 300_000 + b"]", b""])
def test_a_file_with_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    """Not UTF-8, too long, empty."""
    path = tmp_path / "permissions.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="--permissions"):
        read_permissions(f"@{path}")


def test_a_key_given_as_permissions_is_not_repeated() -> None:
    """The wrong value is never shown."""
    with pytest.raises(ConfigurationError) as caught:
        read_permissions("@0x" + "ab" * 32)
    assert "ab" * 32 not in str(caught.value)

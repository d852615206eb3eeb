"""Which wallet authorises, and that no key is ever repeated."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import IO, Any
from unittest import mock

import pytest

from dan_async.cli.options import PRIVATE_KEY_VARIABLE, OwnerOptions, WalletOpener
from dan_async.errors import ConfigurationError
from dan_async.wallets import LocalWallet

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
OTHER_KEY = "01" * 32


def choose(
    *,
    key_file: Path | None = None,
    rpc_url: str | None = None,
    rpc_address: str | None = None,
    environment: dict[str, str] | None = None,
    throwaway: str = "",
) -> WalletOpener:
    with mock.patch.dict(os.environ, environment or {}, clear=True):
        given = OwnerOptions(private_key_file=key_file, wallet_rpc=rpc_url, wallet_address=rpc_address)
        return given.choose(throwaway=throwaway)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(KEY)
    return path


@pytest.mark.parametrize("text", [KEY, f"0x{KEY}", f"0x{KEY.upper()}\n", f"  {KEY}\r\n", f"\ufeff{KEY}\r\n"])
async def test_a_key_file_gives_its_address(key_file: Path, text: str) -> None:
    """With or without 0x, in any case, with white space around it."""
    key_file.write_text(text)
    async with choose(key_file=key_file)() as wallet:
        assert wallet.address == ADDRESS
        assert not wallet.interactive


async def test_the_environment_gives_the_wallet() -> None:
    """The variable holds the key itself."""
    async with choose(environment={PRIVATE_KEY_VARIABLE: KEY + "\n"})() as wallet:
        assert wallet.address == ADDRESS


async def test_an_option_wins_over_the_environment(key_file: Path) -> None:
    """What was typed for this run counts."""
    async with choose(key_file=key_file, environment={PRIVATE_KEY_VARIABLE: OTHER_KEY})() as wallet:
        assert wallet.address == ADDRESS


async def test_standard_input_gives_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password manager can pipe it in."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(KEY.encode() + b"\n")))
    async with choose(key_file=Path("-"))() as wallet:
        assert wallet.address == ADDRESS


async def test_a_throwaway_key_is_announced_and_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """On a devnet a key is made, another one each time, and standard error says so."""
    addresses = set()
    for _ in range(2):
        async with choose(throwaway="a throwaway key")() as wallet:
            assert isinstance(wallet, LocalWallet)
            addresses.add(wallet.address)
    out, err = capsys.readouterr()
    assert len(addresses) == 2
    assert out == ""
    assert "throwaway" in err


async def test_the_environment_wins_over_a_throwaway_key() -> None:
    """A devnet uses the named owner if there is one."""
    async with choose(environment={PRIVATE_KEY_VARIABLE: KEY}, throwaway="a throwaway key")() as wallet:
        assert wallet.address == ADDRESS


def test_no_wallet_is_refused_where_it_matters() -> None:
    """Outside a devnet somebody must be the owner; the error lists the ways."""
    with pytest.raises(
        ConfigurationError, match=f"(?s)--private-key-file.*{PRIVATE_KEY_VARIABLE}.*--wallet-rpc"
    ):
        choose()


def test_two_wallets_are_refused(key_file: Path) -> None:
    """A file and a JSON-RPC wallet exclude each other."""
    with pytest.raises(ConfigurationError, match="both name a wallet"):
        choose(key_file=key_file, rpc_url="http://127.0.0.1:8545")


def test_an_address_without_a_json_rpc_wallet_is_refused(key_file: Path) -> None:
    """It would silently mean nothing."""
    with pytest.raises(ConfigurationError, match="--wallet-address needs --wallet-rpc"):
        choose(key_file=key_file, rpc_address=ADDRESS)


@pytest.mark.parametrize("url", ["127.0.0.1:8545", "http://wallet.example", "ftp://127.0.0.1", "http://"])
def test_a_wrong_wallet_url_is_refused(url: str) -> None:
    """Before anything is opened, and in clear only to loopback."""
    with pytest.raises(ConfigurationError, match="--wallet-rpc"):
        choose(rpc_url=url)


@pytest.mark.parametrize("address", ["", "0x12", ADDRESS[:-1] + "4", KEY])
def test_a_wrong_wallet_address_is_refused(address: str) -> None:
    """Its form and its checksum are looked at before anything is opened."""
    with pytest.raises(ConfigurationError, match="--wallet-address"):
        choose(rpc_url="http://127.0.0.1:8545", rpc_address=address)


@pytest.mark.parametrize(
    "content",
    [b"", b"0x", KEY[:-1].encode(), KEY.encode() + b"00", b"z" * 64, b"00" * 32, b"ff" * 32, b"\xff\xfe"],
)
def test_a_malformed_key_is_refused_and_not_repeated(key_file: Path, content: bytes) -> None:
    """The error names the option and what a key looks like, never the content."""
    key_file.write_bytes(content)
    with pytest.raises(ConfigurationError, match="--private-key-file") as caught:
        choose(key_file=key_file)
    assert len(content) < 8 or content.decode("latin-1") not in str(caught.value)


def test_a_malformed_key_in_the_environment_names_the_variable() -> None:
    """And does not repeat it."""
    with pytest.raises(ConfigurationError, match=PRIVATE_KEY_VARIABLE) as caught:
        choose(environment={PRIVATE_KEY_VARIABLE: KEY[:-2]})
    assert KEY[:-2] not in str(caught.value)


def test_a_long_file_is_not_read_to_its_end(key_file: Path) -> None:
    """A wrong path to something big costs nothing."""
    key_file.write_bytes(b"0" * 5000)
    with pytest.raises(ConfigurationError, match="too long"):
        choose(key_file=key_file)


@pytest.mark.parametrize("name", ["missing", "a\0b", "."])
def test_an_unreadable_file_is_refused(tmp_path: Path, name: str) -> None:
    """One clear error, whatever is wrong with the path."""
    with pytest.raises(ConfigurationError, match="--private-key-file: cannot read"):
        choose(key_file=tmp_path / name)


def test_a_key_given_as_file_name_is_not_repeated() -> None:
    """A key on the command line is a mistake; it is not shown a second time."""
    with pytest.raises(ConfigurationError) as caught:
        choose(key_file=Path(f"0x{KEY}"))
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_a_readable_key_file_is_pointed_out(
    key_file: Path, mode: int, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that others can read still works, with a line about it."""
    key_file.chmod(mode)
    choose(key_file=key_file)
    assert ("chmod 600" in capsys.readouterr().err) is warned


def test_the_mode_is_that_of_the_file_that_was_read(
    key_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file that takes its name after it was opened hides nothing."""
    open_file = Path.open

    def open_and_replace(path: Path, mode: str) -> IO[Any]:
        file = open_file(path, mode)
        path.unlink()
        path.touch(mode=0o600)
        return file

    key_file.chmod(0o640)
    monkeypatch.setattr(Path, "open", open_and_replace)
    choose(key_file=key_file)
    assert "chmod 600" in capsys.readouterr().err


def test_a_file_of_other_bytes_holds_no_key(key_file: Path) -> None:
    """The error says what is missing, not how the bytes were to be read."""
    key_file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="does not hold a private key in hex"):
        choose(key_file=key_file)

"""A private key in this process."""

import copy
import pickle

import pytest
from eth_account import Account

from dan_async.crypto.eip712 import typed_data_digest
from dan_async.errors import InvalidFieldError
from dan_async.wallets import LocalWallet, Wallet
from tests.unit.crypto.vectors import WALLET_CASES, name

SECRET = bytes(range(1, 33))


@pytest.mark.parametrize("key", [SECRET, SECRET.hex(), "0x" + SECRET.hex(), "0x" + SECRET.hex().upper()])
def test_the_address_is_that_of_the_key(key):
    """Bytes, and hex with and without 0x, are the same key."""
    assert LocalWallet(key).address == Account.from_key(SECRET).address


@pytest.mark.parametrize("case", WALLET_CASES, ids=name)
async def test_it_signs_as_recorded(case):
    """Every recorded authorisation is signed again, byte for byte."""
    wallet = LocalWallet(case["inputs"]["eoa_private_key"])
    assert await wallet.sign_typed_data(case["wallet"]["typed_data"]) == case["wallet"]["signature"]


async def test_it_signs_a_digest():
    """The same signature as over the data that has the digest."""
    wallet, typed_data = LocalWallet(SECRET), WALLET_CASES[0]["wallet"]["typed_data"]
    signed = wallet.sign_digest(typed_data_digest(typed_data))
    assert "0x" + signed.hex() == await wallet.sign_typed_data(typed_data)


@pytest.mark.parametrize("digest", [b"", bytes(31), bytes(33), "11" * 32])
def test_what_is_no_digest_is_not_signed(digest):
    """Exactly 32 bytes."""
    with pytest.raises(InvalidFieldError, match="digest must be 32 bytes"):
        LocalWallet(SECRET).sign_digest(digest)


async def test_malformed_typed_data_is_refused():
    """What cannot be hashed is not signed."""
    with pytest.raises(InvalidFieldError):
        await LocalWallet(SECRET).sign_typed_data({})


def test_it_is_a_wallet_that_asks_nobody():
    """It has what the protocol asks for."""
    wallet = LocalWallet(SECRET)
    assert isinstance(wallet, Wallet)
    assert wallet.interactive is False


@pytest.mark.parametrize(
    "key",
    ["", "0x", "11" * 31, "11" * 33, "zz" * 32, "00" * 32, "ff" * 32, b"", bytes(32), b"\x11" * 31, None, 5],
)
def test_what_is_no_private_key_is_refused(key):
    """The error names the field and does not repeat the key."""
    with pytest.raises(InvalidFieldError) as caught:
        LocalWallet(key)
    assert caught.value.field == "private_key"
    assert not key or str(key).removeprefix("0x") not in str(caught.value) or key == "0x"


@pytest.mark.parametrize("show", [repr, str, format, ascii, lambda wallet: str([wallet])])
def test_no_text_shows_the_key(show):
    """Neither as hex nor as a number."""
    text = show(LocalWallet(SECRET))
    assert "***" in text
    assert SECRET.hex() not in text
    assert str(int.from_bytes(SECRET, "big")) not in text


def test_vars_has_nothing_to_show():
    """There is no __dict__ for a logger or a debugger to dump."""
    with pytest.raises(TypeError):
        vars(LocalWallet(SECRET))


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_is_neither_pickled_nor_copied(duplicate):
    """The key stays where it was put."""
    with pytest.raises(TypeError, match="neither pickled nor copied"):
        duplicate(LocalWallet(SECRET))


def test_it_does_not_give_its_state():
    """The hook that serialisers use is closed too."""
    with pytest.raises(TypeError, match="does not give its state"):
        LocalWallet(SECRET).__getstate__()

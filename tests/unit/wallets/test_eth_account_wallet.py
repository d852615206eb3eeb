"""Accounts of eth-account."""

import asyncio
import subprocess
import sys
import threading

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from dan_async.errors import InvalidFieldError, MissingExtraError
from dan_async.wallets import LocalWallet, Wallet
from dan_async.wallets.eth_account_wallet import EthAccountWallet
from tests.unit.crypto.vectors import WALLET_CASES, name

SECRET = bytes(range(1, 33))


@pytest.mark.parametrize("case", WALLET_CASES[:8], ids=name)
async def test_it_signs_as_recorded(case):
    """Recorded authorisations are signed again, byte for byte."""
    wallet = EthAccountWallet(Account.from_key(case["inputs"]["eoa_private_key"]))
    assert wallet.address == case["wallet"]["from"]
    assert await wallet.sign_typed_data(case["wallet"]["typed_data"]) == case["wallet"]["signature"]


async def test_it_signs_as_a_local_wallet_does():
    """The same key, held in two ways, makes the same signature."""
    typed_data = WALLET_CASES[0]["wallet"]["typed_data"]
    theirs = await EthAccountWallet(Account.from_key(SECRET)).sign_typed_data(typed_data)
    assert theirs == await LocalWallet(SECRET).sign_typed_data(typed_data)


def test_it_is_a_wallet():
    """It has what the protocol asks for; an account in this process asks nobody, unless told otherwise."""
    account = Account.from_key(SECRET)
    assert isinstance(EthAccountWallet(account), Wallet)
    assert EthAccountWallet(account).interactive is False
    assert EthAccountWallet(account, interactive=True).interactive is True


class DeviceAccount(LocalAccount):
    """An account that blocks until a button is pressed."""

    def sign_typed_data(self, *args, **kwargs):
        """Wait in whatever thread it is called in."""
        self.asked.set()
        assert self.pressed.wait(20)
        return super().sign_typed_data(*args, **kwargs)


async def test_an_account_that_blocks_does_not_hold_the_loop():
    """Signing runs in a thread."""
    account = DeviceAccount(Account.from_key(SECRET)._key_obj, Account())
    account.asked, account.pressed = threading.Event(), threading.Event()
    signing = asyncio.create_task(
        EthAccountWallet(account, interactive=True).sign_typed_data(WALLET_CASES[0]["wallet"]["typed_data"])
    )
    await asyncio.to_thread(account.asked.wait, 20)
    assert not signing.done()
    account.pressed.set()
    assert (await signing).startswith("0x")


@pytest.mark.parametrize("account", [None, "0x" + SECRET.hex(), SECRET, object()])
def test_what_is_no_account_is_refused(account):
    """The error names its type only: it may be a private key."""
    with pytest.raises(InvalidFieldError) as caught:
        EthAccountWallet(account)
    assert caught.value.field == "account"
    assert SECRET.hex() not in str(caught.value)


def test_without_eth_account_the_pip_line_is_given(monkeypatch):
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "eth_account.signers.base", None)
    with pytest.raises(MissingExtraError) as caught:
        EthAccountWallet(Account.from_key(SECRET))
    assert 'pip install "dan-async[eth-account]"' in str(caught.value)


def test_its_repr_does_not_show_the_key():
    """Only the address and whether a person is asked."""
    wallet = EthAccountWallet(Account.from_key(SECRET))
    assert repr(wallet) == f"EthAccountWallet(address='{wallet.address}', interactive=False)"


def test_importing_the_wallets_imports_no_extra():
    """Neither eth-account nor anything heavy comes with ``import dan_async.wallets``, nor with the adapter's module."""
    code = (
        "import sys, dan_async.wallets, dan_async.wallets.eth_account_wallet\n"
        "print([m for m in ('eth_account', 'eth_utils', 'aiohttp', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"

"""Passkeys in the jobs: who the owner is, the session's address, and limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.config import Timeouts
from dan_async.errors import (
    ConfigurationError,
    InvalidFieldError,
    WalletError,
    WalletRefusedError,
    WalletTimeoutError,
)
from dan_async.wallets import PasskeyAuth, PasskeyRegister
from dan_async.wallets.base import EoaAuth
from tests.fake_nodes import OWNER, FakeNetwork
from tests.helpers import error_of
from tests.passkeys.authenticator import ORIGIN, RP_ID, Authenticator

WALLET = LocalWallet("0x" + "00" * 31 + "01")


class Account:
    """A smart account client without a signer."""

    signer = None
    bundler_url = None
    chain_id = 5

    def __init__(self, answer: Any = OWNER) -> None:
        self.answer = answer

    async def get_address(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def client(**timeouts: float) -> tuple[DanClient, FakeNetwork]:
    fake = FakeNetwork(2, 3)
    return DanClient(fake.network(), timeouts=Timeouts(**({"total_s": 5, "wallet_s": 0.05} | timeouts))), fake


def owner(device: Authenticator, get: Any = None) -> PasskeyAuth:
    return PasskeyAuth(device.id, get or device.get, rp_id=RP_ID, origin=ORIGIN)


async def fails(**parameters: Any) -> BaseException:
    """Give the error of a job that must not begin: no node is asked."""
    dan, fake = client()
    async with dan:
        error = await error_of(dan.generate_session_key(**parameters))
    assert fake.calls == []
    return error


@pytest.mark.parametrize("given", ["wallet", "browser_wallet"])
async def test_one_owner_only(given: str) -> None:
    """A wallet as well as auth is a mistake."""
    error = await fails(auth=owner(Authenticator()), chain_id=1, **{given: WALLET})
    assert isinstance(error, InvalidFieldError)
    assert error.field == "wallet"


async def test_a_passkey_needs_an_address() -> None:
    """It has none of its own."""
    error = await fails(auth=owner(Authenticator()), chain_id=1)
    assert isinstance(error, InvalidFieldError)
    assert error.field == "eoa_address"


async def test_an_account_that_gives_no_address() -> None:
    """What it returns is checked like any other address."""
    error = await fails(auth=owner(Authenticator()), smart_account_client=Account("0x12"))
    assert isinstance(error, InvalidFieldError)


async def test_an_account_that_fails() -> None:
    """Its exception is the cause, and its text is not repeated."""
    error = await fails(auth=owner(Authenticator()), smart_account_client=Account(OSError("secret url")))
    assert type(error) is WalletError
    assert "secret" not in str(error)
    assert isinstance(error.__cause__, OSError)


async def test_an_accounts_own_error_is_passed_on() -> None:
    """An error of ours needs no wrapping."""
    error = await fails(auth=owner(Authenticator()), smart_account_client=Account(WalletRefusedError("no")))
    assert type(error) is WalletRefusedError


async def test_an_ephemeral_key_is_no_owner() -> None:
    """Only a wallet or a passkey authorises a key."""

    class Ephemeral(EoaAuth):
        method = "ephemeral"

    error = await fails(auth=Ephemeral(WALLET), chain_id=1)
    assert isinstance(error, InvalidFieldError)
    assert error.field == "auth"


async def test_a_wallet_may_come_as_auth() -> None:
    """Its address is the session's, and no other may be given."""
    dan, _ = client()
    async with dan:
        session = await dan.generate_session_key(auth=EoaAuth(WALLET), chain_id=1)
    assert session.eoa_address == WALLET.address
    error = await fails(
        auth=EoaAuth(WALLET),
        chain_id=1,
        hardcoded_values={"eoa_address": "0x52908400098527886E0F7030069857D2E4169EE7"},
    )
    assert isinstance(error, InvalidFieldError)


async def test_a_slow_person_has_the_wallets_limit() -> None:
    """``Timeouts.wallet_s`` holds for whoever is given as auth."""

    async def wait(_: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    dan, _ = client()
    async with dan:
        job = dan.generate_session_key(auth=owner(Authenticator(), wait), smart_account_client=Account())
        error = await error_of(job)
    assert type(error) is WalletTimeoutError
    assert "0.05 s" in str(error)


async def test_what_is_registered_must_be_a_passkey() -> None:
    """A ``PasskeyAuth`` signs; it makes nothing."""
    dan, fake = client()
    async with dan:
        error = await error_of(dan.register_passkey(owner(Authenticator())))  # type: ignore[arg-type]
        assert isinstance(error, InvalidFieldError)
        device = Authenticator()
        passkey = PasskeyRegister("a", b"1", device.create, rp_id=RP_ID, rp_name="W", origin=ORIGIN)
        error = await error_of(dan.register_passkey(passkey, timeout=-1))
        assert isinstance(error, ConfigurationError)
    assert fake.calls == []

"""Who authorises which row of a batch."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest

from dan_async.cli.batch import BatchRow, RowWallets
from dan_async.cli.options import WalletOptions
from dan_async.errors import ConfigurationError
from dan_async.wallets import LocalWallet
from tests.servers import rpc_server

OWN = LocalWallet("11" * 32)
OTHER = LocalWallet("12" * 32)


def choose(*, environment: dict[str, str] | None = None, **options: Any) -> RowWallets:
    with mock.patch.dict(os.environ, environment or {}, clear=True):
        return RowWallets.choose(WalletOptions(**options))


async def test_a_row_with_a_key_needs_nobody_else() -> None:
    """Whatever else is named."""
    row = BatchRow(number=1, wallet=OWN, address=OWN.address)
    async with choose() as wallets:
        assert wallets.problem_with(row) == ""
        assert wallets.of(row) is OWN


async def test_a_row_without_a_key_uses_the_one_for_all() -> None:
    """If there is one, and if the row names no other address."""
    async with choose(environment={"DAN_ASYNC_PRIVATE_KEY": "12" * 32}) as wallets:
        plain = BatchRow(number=1)
        assert wallets.problem_with(plain) == ""
        assert wallets.of(plain).address == OTHER.address
        assert "not the wallet's" in wallets.problem_with(BatchRow(number=2, address=OWN.address))
    async with choose() as wallets:
        assert "no wallet is named" in wallets.problem_with(BatchRow(number=1))


async def test_addresses_are_accounts_of_a_json_rpc_wallet() -> None:
    """Each row's own account is asked to sign, over one connection."""

    async def sign(method: str, params: Any) -> Any:
        return "0x" + "00" * 65

    async with rpc_server(sign) as server:
        async with choose(wallet_rpc=f"http://127.0.0.1:{server.port}/v1/rpc") as wallets:
            for address in (OWN.address, OTHER.address):
                wallet = wallets.of(BatchRow(number=1, address=address))
                assert wallet.address == address
                await wallet.sign_typed_data({})
            assert "no address" in wallets.problem_with(BatchRow(number=3))
    assert [call["method"] for call in server.requests] == ["eth_signTypedData_v4"] * 2
    assert [call["params"][0] for call in server.requests] == [OWN.address, OTHER.address]


async def test_two_wallets_for_all_are_refused(tmp_path: Any) -> None:
    """As everywhere."""
    with pytest.raises(ConfigurationError, match="both name a wallet"):
        choose(private_key_file=tmp_path / "key", wallet_rpc="http://127.0.0.1:1")

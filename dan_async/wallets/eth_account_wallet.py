"""Adapter for an account object of the package eth-account (extra ``eth-account``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dan_async._values import check_bool, to_hex
from dan_async.crypto.address import parse_address
from dan_async.errors import InvalidFieldError, require_extra
from dan_async.types import Address, Hex, TypedData

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

__all__ = ["EthAccountWallet"]


class EthAccountWallet:
    """
    Signs with an account of eth-account, for example ``Account.from_key(…)`` or one from a mnemonic.

    Args:
        account: The account. A class of your own that derives from eth-account's may reach a hardware key or a key
            service: signing runs in a thread, so it may block. If the call is cancelled, that thread still ends by itself.
        interactive: Whether a person must confirm, at a device for example.

    Raises:
        MissingExtraError: eth-account is not installed.
        InvalidFieldError: It is not such an account.
    """

    __slots__ = ("_account", "address", "interactive")

    address: Address
    interactive: bool

    def __init__(self, account: LocalAccount, *, interactive: bool = False) -> None:
        base = require_extra("eth_account.signers.base", extra="eth-account", purpose="EthAccountWallet")
        if not isinstance(account, base.BaseAccount) or not hasattr(account, "sign_typed_data"):
            raise InvalidFieldError(
                "account", f"must be an account of eth-account, not {type(account).__name__}"
            )
        self.address = parse_address("account.address", account.address)
        self.interactive = check_bool("interactive", interactive)
        self._account = account

    async def sign_typed_data(self, typed_data: TypedData) -> Hex:
        """Have the account sign, in a thread; see ``Wallet``. Its exceptions pass through."""
        signed = await asyncio.to_thread(self._account.sign_typed_data, full_message=dict(typed_data))
        return to_hex(bytes(signed.signature))

    async def sign_authorisation(self, *, chain_id: int, address: str, nonce: int) -> Hex:
        """
        Have the account sign, in a thread, that it runs the code of a contract (EIP-7702). Its exceptions pass through.

        Args:
            chain_id: The chain; 0 for every chain.
            address: The contract, which may do anything with the account: know it.
            nonce: The account's nonce for which it holds.

        Returns:
            ``0x`` and 65 bytes r, s, v in hex.
        """
        asked = {"chainId": chain_id, "address": address, "nonce": nonce}
        signed = await asyncio.to_thread(self._account.sign_authorization, asked)
        return to_hex(signed.signature.to_bytes())

    def __repr__(self) -> str:
        return f"EthAccountWallet(address={self.address!r}, interactive={self.interactive})"

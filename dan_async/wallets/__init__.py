"""The owner's authorisation: wallets, and passkeys in place of one."""

from __future__ import annotations

from dan_async.wallets.base import CallbackWallet, Wallet
from dan_async.wallets.json_rpc_wallet import JsonRpcWallet
from dan_async.wallets.local_key import LocalWallet
from dan_async.wallets.passkey import PasskeyAuth, PasskeyRegister

__all__ = ["CallbackWallet", "JsonRpcWallet", "LocalWallet", "PasskeyAuth", "PasskeyRegister", "Wallet"]

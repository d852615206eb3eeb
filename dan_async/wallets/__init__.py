"""
Who signs for the owner.

``EthAccountWallet`` needs an extra and is imported by its full path, ``dan_async.wallets.eth_account_wallet``.
"""

from dan_async.wallets.base import Wallet
from dan_async.wallets.callback_wallet import CallbackWallet
from dan_async.wallets.json_rpc_wallet import JsonRpcWallet
from dan_async.wallets.local_key import LocalWallet

__all__ = ["CallbackWallet", "JsonRpcWallet", "LocalWallet", "Wallet"]

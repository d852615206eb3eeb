"""
dan_async: the async-first Python client for DAN, the Delegated Authorisation Network.

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dan_async.account import DanAccount
    from dan_async.client import DanClient, generate_session_key, sign_message
    from dan_async.config import NodeEndpoint, Threshold, Timeouts, TransportOptions
    from dan_async.crypto.ephemeral_key import EphemeralKey
    from dan_async.devnet.cluster import Devnet
    from dan_async.errors import (
        ConfigurationError,
        DanError,
        DeadlineExceededError,
        GatewayError,
        InvalidFieldError,
        NodeError,
        PermissionDeniedError,
        QuorumError,
        SessionExpiredError,
        SignatureCheckError,
        StoreError,
        UserOperationError,
        WalletError,
        WalletRefusedError,
    )
    from dan_async.gateway.network import GatewayNetwork
    from dan_async.nodes.network import NodeNetwork
    from dan_async.request import DanSessionKeyRequestParams
    from dan_async.retry import RetryPolicy
    from dan_async.session import DanModuleInfo, DanSessionKeyPayload
    from dan_async.wallets.base import CallbackWallet
    from dan_async.wallets.json_rpc_wallet import JsonRpcWallet
    from dan_async.wallets.local_key import LocalWallet

__all__ = [
    "CallbackWallet",
    "ConfigurationError",
    "DanAccount",
    "DanClient",
    "DanError",
    "DanModuleInfo",
    "DanSessionKeyPayload",
    "DanSessionKeyRequestParams",
    "DeadlineExceededError",
    "Devnet",
    "EphemeralKey",
    "GatewayError",
    "GatewayNetwork",
    "InvalidFieldError",
    "JsonRpcWallet",
    "LocalWallet",
    "NodeEndpoint",
    "NodeError",
    "NodeNetwork",
    "PermissionDeniedError",
    "QuorumError",
    "RetryPolicy",
    "SessionExpiredError",
    "SignatureCheckError",
    "StoreError",
    "Threshold",
    "Timeouts",
    "TransportOptions",
    "UserOperationError",
    "WalletError",
    "WalletRefusedError",
    "__version__",
    "generate_session_key",
    "sign_message",
]

#: Module -> its names among these, but for those of ``errors``.
_NAMES = {
    "account": ("DanAccount",),
    "client": ("DanClient", "generate_session_key", "sign_message"),
    "config": ("NodeEndpoint", "Threshold", "Timeouts", "TransportOptions"),
    "crypto.ephemeral_key": ("EphemeralKey",),
    "devnet.cluster": ("Devnet",),
    "gateway.network": ("GatewayNetwork",),
    "nodes.network": ("NodeNetwork",),
    "request": ("DanSessionKeyRequestParams",),
    "retry": ("RetryPolicy",),
    "session": ("DanModuleInfo", "DanSessionKeyPayload"),
    "wallets.base": ("CallbackWallet",),
    "wallets.json_rpc_wallet": ("JsonRpcWallet",),
    "wallets.local_key": ("LocalWallet",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from dan_async._version import __version__ as value
    elif name in __all__:
        value = getattr(importlib.import_module(f"dan_async.{_HOMES.get(name, 'errors')}"), name)
    else:
        raise AttributeError(f"module 'dan_async' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

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

#: Public name -> the module that has it.
_HOMES = {
    "CallbackWallet": "wallets.base",
    "ConfigurationError": "errors",
    "DanAccount": "account",
    "DanClient": "client",
    "DanError": "errors",
    "DanModuleInfo": "session",
    "DanSessionKeyPayload": "session",
    "DanSessionKeyRequestParams": "request",
    "DeadlineExceededError": "errors",
    "Devnet": "devnet.cluster",
    "EphemeralKey": "crypto.ephemeral_key",
    "GatewayError": "errors",
    "GatewayNetwork": "gateway.network",
    "InvalidFieldError": "errors",
    "JsonRpcWallet": "wallets.json_rpc_wallet",
    "LocalWallet": "wallets.local_key",
    "NodeEndpoint": "config",
    "NodeError": "errors",
    "NodeNetwork": "nodes.network",
    "PermissionDeniedError": "errors",
    "QuorumError": "errors",
    "RetryPolicy": "retry",
    "SessionExpiredError": "errors",
    "SignatureCheckError": "errors",
    "StoreError": "errors",
    "Threshold": "config",
    "Timeouts": "config",
    "TransportOptions": "config",
    "UserOperationError": "errors",
    "WalletError": "errors",
    "WalletRefusedError": "errors",
    "generate_session_key": "client",
    "sign_message": "client",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from dan_async._version import __version__ as value
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"dan_async.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'dan_async' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

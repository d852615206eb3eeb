"""
dan_async: the async-first Python client for DAN, the Delegated Authorisation Network.

The names below are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dan_async.client import DanClient as DanClient
    from dan_async.client import generate_session_key as generate_session_key
    from dan_async.client import sign_message as sign_message
    from dan_async.config import NodeEndpoint as NodeEndpoint
    from dan_async.config import RetryPolicy as RetryPolicy
    from dan_async.config import Threshold as Threshold
    from dan_async.config import Timeouts as Timeouts
    from dan_async.config import TransportOptions as TransportOptions
    from dan_async.crypto.ephemeral_key import EphemeralKey as EphemeralKey
    from dan_async.errors import DanError as DanError
    from dan_async.models.request_params import DanSessionKeyRequestParams as DanSessionKeyRequestParams
    from dan_async.models.session import DanModuleInfo as DanModuleInfo
    from dan_async.models.session import DanSessionKeyPayload as DanSessionKeyPayload
    from dan_async.networks.direct import NodeNetwork as NodeNetwork
    from dan_async.networks.gateway import GatewayNetwork as GatewayNetwork
    from dan_async.wallets.callback_wallet import CallbackWallet as CallbackWallet
    from dan_async.wallets.json_rpc_wallet import JsonRpcWallet as JsonRpcWallet
    from dan_async.wallets.local_key import LocalWallet as LocalWallet

#: Public name -> the module that has it.
_HOMES = {
    "CallbackWallet": "wallets.callback_wallet",
    "DanClient": "client",
    "DanError": "errors",
    "DanModuleInfo": "models.session",
    "DanSessionKeyPayload": "models.session",
    "DanSessionKeyRequestParams": "models.request_params",
    "EphemeralKey": "crypto.ephemeral_key",
    "GatewayNetwork": "networks.gateway",
    "JsonRpcWallet": "wallets.json_rpc_wallet",
    "LocalWallet": "wallets.local_key",
    "NodeEndpoint": "config",
    "NodeNetwork": "networks.direct",
    "RetryPolicy": "config",
    "Threshold": "config",
    "Timeouts": "config",
    "TransportOptions": "config",
    "generate_session_key": "client",
    "sign_message": "client",
}

__all__ = [
    "CallbackWallet",
    "DanClient",
    "DanError",
    "DanModuleInfo",
    "DanSessionKeyPayload",
    "DanSessionKeyRequestParams",
    "EphemeralKey",
    "GatewayNetwork",
    "JsonRpcWallet",
    "LocalWallet",
    "NodeEndpoint",
    "NodeNetwork",
    "RetryPolicy",
    "Threshold",
    "Timeouts",
    "TransportOptions",
    "__version__",
    "generate_session_key",
    "sign_message",
]


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

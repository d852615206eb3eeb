"""Smart accounts (ERC-4337): user operations built, paid for, signed by a session or a wallet, and sent."""

from dan_async.crypto.set_code import Authorisation
from dan_async.user_operation import Call
from dan_async.userops.account_kinds import AccountKind, BiconomyV2, Nexus, SimpleAccount
from dan_async.userops.paymasters import BiconomyPaymaster, Erc7677Paymaster, Paymaster
from dan_async.userops.sending import NonceLanes, lane_key
from dan_async.userops.session_policies import AbiPolicy, AbiRule, Erc20Policy, SessionContracts, SessionLeaf
from dan_async.userops.session_validator import grant_session_key, revoke_session_key
from dan_async.userops.sessions_on_chain import (
    SessionOnChain,
    SessionRevocation,
    create_session_with_distributed_key,
    export_biconomy_sessions,
    import_biconomy_sessions,
    open_session_on_chain,
)
from dan_async.userops.sign_user_operation import (
    SessionSigner,
    UserOperationSigner,
    WalletSigner,
    sign_user_operation,
)
from dan_async.userops.smart_account import SmartAccountClient, create_smart_account_client

__all__ = [
    "AbiPolicy",
    "AbiRule",
    "AccountKind",
    "Authorisation",
    "BiconomyPaymaster",
    "BiconomyV2",
    "Call",
    "Erc20Policy",
    "Erc7677Paymaster",
    "Nexus",
    "NonceLanes",
    "Paymaster",
    "SessionContracts",
    "SessionLeaf",
    "SessionOnChain",
    "SessionRevocation",
    "SessionSigner",
    "SimpleAccount",
    "SmartAccountClient",
    "UserOperationSigner",
    "WalletSigner",
    "create_session_with_distributed_key",
    "create_smart_account_client",
    "export_biconomy_sessions",
    "grant_session_key",
    "import_biconomy_sessions",
    "lane_key",
    "open_session_on_chain",
    "revoke_session_key",
    "sign_user_operation",
]

"""
The whole public surface, given wrong types and huge numbers: only our own errors come out.

Every public name that takes a caller's values is a door here. Each of its parameters is tried with every awkward value,
one at a time, and then several at once as hypothesis draws them.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from attrs import fields, frozen
from eth_account import Account
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dan_async import (
    DanClient,
    EphemeralKey,
    GatewayNetwork,
    LocalWallet,
    NodeEndpoint,
    NodeNetwork,
    crypto,
    devnet,
    permissions,
    storage,
    userops,
    wallets,
)
from dan_async.account import DanAccount
from dan_async.batch import BatchRun
from dan_async.config import Threshold, Timeouts, TransportOptions, check_url
from dan_async.crypto.abi import encode_arguments, function_selector
from dan_async.crypto.set_code import authorisation_digest
from dan_async.dask_batch import WorkerSetup
from dan_async.errors import (
    ConfigurationError,
    DanError,
    InvalidFieldError,
    PendingNotFoundError,
    PermissionDeniedError,
    QuorumError,
    RecordConflictError,
    WalletRefusedError,
)
from dan_async.network import KeygenQuestion, SigningOptions
from dan_async.network_file import ChainEndpoints, NetworkFile, find_network_file
from dan_async.nodes import RestPolicy
from dan_async.protocols.sign_request import RequestType, SignRequest
from dan_async.request import DanSessionKeyRequestParams, HardcodedValues, SessionKeyRequest
from dan_async.retry import RetryPolicy, RetryTable
from dan_async.session import DanModuleInfo, DanSessionKeyPayload
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from dan_async.transport import HttpTransport, InMemoryTransport, WebSocketTransport
from dan_async.user_operation import (
    Call,
    PackedUserOperation,
    UserOperationReceipt,
    UserOperationV06,
    UserOperationV07,
    user_operation_from_dict,
    user_operation_hash,
)
from dan_async.userops.delegation import delegation_code
from dan_async.userops.service import JsonRpcService
from dan_async.wallets.eth_account_wallet import EthAccountWallet
from tests.fake_nodes import FakeNetwork
from tests.fake_signing import SigningNetwork
from tests.stored import active, session
from tests.unit.userops.biconomy import BiconomyWorld, FakeDan, owners_account
from tests.unit.userops.services import EoaWorld, account_in

ADDRESS = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"
ENTRY_POINT = "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"
WALLET = LocalWallet("0x" + "00" * 31 + "01")
TYPED_DATA = {
    "types": {"Main": [{"name": "a", "type": "string"}]},
    "primaryType": "Main",
    "domain": {"name": "x"},
    "message": {"a": "b"},
}
OPERATION = UserOperationV06(
    sender=ADDRESS,
    nonce=1,
    call_data=b"\xb6\x1d",
    call_gas_limit=1,
    verification_gas_limit=2,
    pre_verification_gas=3,
    max_fee_per_gas=4,
    max_priority_fee_per_gas=5,
)


class _Unprintable:
    """Stands for a list in a list in a list …: to print it can crash the interpreter."""

    def __repr__(self) -> str:
        raise AssertionError("it was printed")


AWKWARD: dict[str, Any] = {
    "None": None,
    "True": True,
    "False": False,
    "zero": 0,
    "negative": -1,
    "beyond JSON": 2**53,
    "beyond a word": 2**256,
    "too long to print": 10**5000,
    "negative, too long to print": -(10**5000),
    "float": 1.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "huge float": 1e300,
    "tiny float": 5e-324,
    "decimal": Decimal("1e400"),
    "complex": 1j,
    "no text": "",
    "text": "x",
    "control characters": "\x00\x1b[2J\n",
    "lone surrogate": "\ud800",
    "digits that are none": "²٣",
    "long text": "f" * 5000,
    "broken URL": "https://[::1",
    "URL with a bad port": "https://host:99999/",
    "hex": "0x00",
    "no bytes": b"",
    "bytes": b"\xff",
    "bytearray": bytearray(b"\xff"),
    "memoryview": memoryview(b"\xff"),
    "empty list": [],
    "list": [1],
    "nested list": [[[]]],
    "tuple": ("a", None),
    "set": {1},
    "empty dict": {},
    "dict": {"a": 1},
    "dict without names": {1: 2},
    "object": object(),
    "function": lambda *_, **__: None,
    "range": range(3),
    "what must not be printed": _Unprintable(),
    "signalling NaN": Decimal("sNaN"),
    "writable view": memoryview(bytearray(4)),
    "URL without a label": "https://a..b/",
    "exception": ValueError("x"),
}


@frozen
class Door:
    """Something public that takes a caller's values, and values that it takes."""

    call: Callable[..., Any]
    valid: Mapping[str, Any]
    #: Parameters that are not the caller's to get wrong: functions that are called later, hooks for tests.
    leave: frozenset[str] = frozenset({"clock", "sleep", "random", "before_sleep"})


def _client_door(name: str, **valid: Any) -> Door:
    """A method of a client over scripted nodes that never hold a call for long."""
    method = getattr(DanClient, name)

    async def call(**values: Any) -> Any:
        net = SigningNetwork(2, 3)
        store = storage.MemorySessionStore(clock=lambda: net.now)
        async with DanClient(net.network(), clock=lambda: net.now, store=store, timeouts=_LIMITS) as dan:
            if values.get("session") is _OF_THE_NET:
                values["session"] = net.session(expires_at=int(net.now) + 60, chain_id=1, eoa_address=ADDRESS)
            made = method(dan, **values)
            if name in ("keep_alive", "session"):
                async with made as live:
                    return live.session
            return await made if inspect.isawaitable(made) else [result async for result in made]

    return Door(_with_signature(call, method), valid)


def _store_door(name: str, **valid: Any) -> Door:
    """A method of a store that holds a record."""
    method = getattr(storage.MemorySessionStore, name)

    async def call(**values: Any) -> Any:
        store = storage.MemorySessionStore()
        await store.save(_RECORD)
        return await method(store, **values)

    return Door(_with_signature(call, method), valid)


def _on_chain_door(function: Callable[..., Any], **valid: Any) -> Door:
    """A function about the sessions of an account on a chain."""

    async def call(**values: Any) -> Any:
        world = BiconomyWorld()
        ours = {
            "smart_account": await owners_account(world),
            "client": FakeDan(),
            "store": storage.MemorySessionStore(),
        }
        given = {name: ours[name] if value is _OURS else value for name, value in values.items()}
        return await function(**given, clock=world.clock)

    signature = inspect.signature(function).parameters
    usual = {name: _OURS for name in ("smart_account", "client", "store") if name in signature}
    return Door(_with_signature(call, function), usual | valid)


def _nexus_door(function: Callable[..., Any], *, is_installed: bool) -> Door:
    """A function about the session keys of an ERC-7579 account, which has one if their module is installed."""

    async def call(**values: Any) -> Any:
        world, kind = EoaWorld(), userops.Nexus(is_delegated=True)
        world.code = delegation_code(kind.implementation)
        for name, types, found in (
            ("isModuleInstalled(uint256,address,bytes)", "(bool)", (is_installed,)),
            ("getOwners(address)", "(address[])", ([ADDRESS],)),
            (
                "getValidatorsPaginated(address,uint256)",
                "(address[],address)",
                ([kind.session_validator], ADDRESS),
            ),
        ):
            world.reads[function_selector(name)] = encode_arguments(types, found)
        if values["account"] is _OURS:
            values["account"] = await account_in(world, account=kind)
        return await function(**values)

    return Door(_with_signature(call, function), {"account": _OURS, "session_key": ADDRESS})


def _with_signature(call: Callable[..., Any], method: Callable[..., Any]) -> Callable[..., Any]:
    given = [p for p in inspect.signature(method).parameters.values() if p.name not in {"self", "parameters"}]
    call.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    return call


_RECORD = active()
_LIMITS = Timeouts(total_s=0.5, attempt_s=0.3, wallet_s=0.3)
_OF_THE_NET = object()
_OURS = object()
_TOKEN_POLICY = userops.Erc20Policy(token=ADDRESS, recipient=ADDRESS, max_amount=1, valid_until=2**40)


async def _answer(*_: Any) -> Any:
    return None


def _fields(valid: Any) -> dict[str, Any]:
    return {a.name: getattr(valid, a.name) for a in fields(type(valid)) if a.init}


_SESSION = session()
_CLIENT = DanClient(FakeNetwork(2, 3).network())
_SERVICE = JsonRpcService("paymaster", InMemoryTransport(_answer))
_REQUEST = SignRequest(request_type=RequestType.EIP191, message="0x12")
_PASSKEY = {"rp_id": "wallet.example", "origin": "https://wallet.example"}
_CREDENTIAL = "A" * 22
_NODES = [{"url": f"wss://node{i}.example", "operator": "0x" + f"{i:02x}" * 20} for i in range(1, 4)]
_SIGNATURE = crypto.sign_digest(b"\x01" * 32, bytes(32))

_OPERATION = {
    "userOperation": OPERATION.to_dict(),
    "entryPointVersion": "v0.6.0",
    "entryPointAddress": ENTRY_POINT,
    "chainId": 1,
}
_RECEIPT = {
    "userOpHash": "0x" + "ab" * 32,
    "success": True,
    "actualGasCost": "0x1",
    "actualGasUsed": "0x1",
    "receipt": {"transactionHash": "0x" + "cd" * 32, "blockNumber": "0x1"},
}
_PERMISSIONS = {
    "chainId": 1,
    "validUntil": 1_900_000_000,
    "account": ADDRESS,
    "gasCostLimit": "20000000000000000",
    "callLimit": 2,
    "permissions": [
        {
            "type": "erc20",
            "method": "approve",
            "to": ADDRESS,
            "args": {"spender": ADDRESS, "value": "5000000000000000000", "eq": "<="},
        },
        {"type": "call", "to": ADDRESS, "selectors": ["swap(address,address,uint256,uint256)"]},
    ],
}

DOORS: dict[str, Door] = {
    "DanClient": Door(DanClient, {"network": FakeNetwork(2, 3).network()}),
    "generate_session_key": _client_door("generate_session_key", wallet=WALLET, chain_id=1),
    "generate_session_keys": _client_door(
        "generate_session_keys", requests=[{"wallet": WALLET, "chain_id": 1}]
    ),
    "sign_many": _client_door("sign_many", messages=["hello"], session=_OF_THE_NET),
    "keep_alive": _client_door("keep_alive", session=_OF_THE_NET, wallet=WALLET),
    "session": _client_door("session", wallet=WALLET, chain_id=1, revoke=False),
    "begin_session_key": _client_door("begin_session_key", owner=ADDRESS, chain_id=1),
    "complete_session_key": _client_door("complete_session_key", pending_id="x", signature="0x"),
    "cancel_session_key": _client_door("cancel_session_key", pending_id="x"),
    "connect": Door(DanClient.connect, {"where": "wss://gateway.example/v1"}),
    "NodeNetwork.from_file": Door(NodeNetwork.from_file, {"path": "/none.toml"}, frozenset({"options"})),
    "GatewayNetwork.from_file": Door(
        GatewayNetwork.from_file, {"path": "/none.toml"}, frozenset({"options"})
    ),
    "ChainEndpoints": Door(ChainEndpoints, {"id": 1, "rpc_url": "https://chain.example"}),
    "NetworkFile": Door(NetworkFile, {}),
    "NetworkFile.read": Door(NetworkFile.read, {"path": "/none.toml"}, frozenset({"environment"})),
    "find_network_file": Door(find_network_file, {"name": "./net.toml"}),
    "from_json": Door(DanSessionKeyPayload.from_json, {"text": _SESSION.to_json()}),
    "sign_message": _client_door("sign_message", message="hello", session=_OF_THE_NET),
    "sign_message, typed data": _client_door(
        "sign_message", message=TYPED_DATA, session=_OF_THE_NET, request_type="EIP712"
    ),
    "sign_message, raw": _client_door(
        "sign_message", message=bytes(32), session=_OF_THE_NET, request_type="rawBytes"
    ),
    "sign_user_operation": _client_door("sign_user_operation", user_op=OPERATION, session=_OF_THE_NET),
    "sign_message, user operation": _client_door("sign_message", message=_OPERATION, session=_OF_THE_NET),
    "sign_user_operation, permissions": _client_door(
        "sign_user_operation", user_op=OPERATION, session=_OF_THE_NET, permissions=_PERMISSIONS
    ),
    "add_ephemeral_key": _client_door("add_ephemeral_key", session=_OF_THE_NET, wallet=WALLET),
    "revoke_ephemeral_key": _client_door("revoke_ephemeral_key", session=_OF_THE_NET, wallet=WALLET),
    "register_passkey": _client_door(
        "register_passkey",
        passkey=wallets.PasskeyRegister("ada", b"1", _answer, rp_name="x", timeout_s=0.1, **_PASSKEY),
    ),
    "recover": _client_door("recover"),
    "revoke_stored_session": _client_door("revoke_stored_session", record_id="0x" + "ab" * 32, wallet=WALLET),
    "rotate_stored_session": _client_door("rotate_stored_session", record_id="0x" + "ab" * 32, wallet=WALLET),
    "BatchRun": Door(BatchRun, {"requests": [], "work": _answer, "concurrency": 1}),
    "AbiRule": Door(userops.AbiRule, {"offset": 0, "condition": "==", "value": 1}),
    "AbiPolicy": Door(userops.AbiPolicy, {"target": ADDRESS, "function": "mint(address)"}),
    "Erc20Policy": Door(userops.Erc20Policy, {"token": ADDRESS, "recipient": ADDRESS, "max_amount": 1}),
    "SessionContracts": Door(userops.SessionContracts, {"manager": ADDRESS}),
    "create_session_with_distributed_key": _on_chain_door(
        userops.create_session_with_distributed_key, policy=_TOKEN_POLICY
    ),
    "open_session_on_chain": _on_chain_door(userops.open_session_on_chain, session_id="a"),
    "import_biconomy_sessions": _on_chain_door(
        userops.import_biconomy_sessions, sessions='{"merkleRoot": "", "leafNodes": []}'
    ),
    "export_biconomy_sessions": _on_chain_door(userops.export_biconomy_sessions),
    "Threshold": Door(Threshold, {"t": 2, "n": 3}),
    "Threshold.parse": Door(Threshold.parse, {"text": "2-of-3"}),
    "NodeEndpoint": Door(NodeEndpoint, _NODES[0]),
    "NodeEndpoint.of": Door(NodeEndpoint.of, {"value": _NODES[0]}),
    "Timeouts": Door(Timeouts, {}),
    "TransportOptions": Door(TransportOptions, {"ssl_context": ssl.create_default_context()}),
    "check_url": Door(
        check_url,
        {"name": "url", "url": "https://a.example", "schemes": ("https",)},
        frozenset({"name", "schemes"}),
    ),
    "EphemeralKey.from_hex": Door(EphemeralKey.from_hex, {"text": "01" * 32}),
    "EphemeralKey.generate": Door(EphemeralKey.generate, {}),
    "keccak256": Door(crypto.keccak256, {"data": b""}),
    "parse_address": Door(crypto.parse_address, {"field": "x", "value": ADDRESS}, frozenset({"field"})),
    "parse_signature": Door(crypto.parse_signature, {"value": _SIGNATURE}, frozenset({"field"})),
    "personal_message_digest": Door(crypto.personal_message_digest, {"message": b""}),
    "public_key_to_address": Door(crypto.public_key_to_address, {"public_key": "0x02" + "01" * 32}),
    "recover_address": Door(crypto.recover_address, {"digest": bytes(32), "signature": _SIGNATURE}),
    "recover_public_key": Door(crypto.recover_public_key, {"digest": bytes(32), "signature": _SIGNATURE}),
    "sign_digest": Door(crypto.sign_digest, {"private_key": b"\x01" * 32, "digest": bytes(32)}),
    "to_checksum_address": Door(crypto.to_checksum_address, {"raw": bytes(20)}),
    "typed_data_digest": Door(crypto.typed_data_digest, {"typed_data": TYPED_DATA}),
    "typed data's parts": Door(
        lambda types, primary, domain, message: crypto.typed_data_digest(
            {"types": types, "primaryType": primary, "domain": domain, "message": message}
        ),
        {"types": TYPED_DATA["types"], "primary": "Main", "domain": {}, "message": {"a": "b"}},
    ),
    "typed data's members": Door(
        lambda name, kind, value, chain: crypto.typed_data_digest(
            {
                "types": {"Main": [{"name": name, "type": kind}]},
                "primaryType": "Main",
                "domain": {"chainId": chain},
                "message": {"a": value},
            }
        ),
        {"name": "a", "kind": "uint8", "value": 1, "chain": 1},
    ),
    "Devnet": Door(devnet.Devnet, {}),
    "NodeLimits": Door(devnet.NodeLimits, {}),
    **{
        name: Door(kind, {"seconds": 1.0} if name == "Delay" else {})
        for name in devnet.__all__
        if isinstance(kind := getattr(devnet, name), type) and issubclass(kind, devnet.Fault)
    },
    "GatewayNetwork": Door(GatewayNetwork, {"url": "wss://gateway.example/v1"}),
    "NodeNetwork": Door(NodeNetwork, {"nodes": _NODES, "threshold": Threshold(2, 3)}),
    "NodeNetwork.health": Door(
        lambda timeout_s: FakeNetwork(2, 3).network().health(timeout_s=timeout_s), {"timeout_s": 1}
    ),
    "NodeNetwork.clock_skew": Door(lambda t: FakeNetwork(2, 3).network().clock_skew(t), {"t": 2}),
    "RestPolicy": Door(RestPolicy, {}),
    "SigningOptions": Door(SigningOptions, {}),
    "KeygenQuestion": Door(
        KeygenQuestion,
        {
            "request_id": "0x" + "ab" * 32,
            "owner_id": ADDRESS,
            "threshold": Threshold(2, 3),
            "min_parties": None,
            "ephemeral_key": EphemeralKey.generate(),
        },
    ),
    "check_permissions": Door(
        permissions.check_permissions,
        {"permissions": permissions.parse_permissions("[]"), "request": _REQUEST, "now": 1.0},
    ),
    "decode_calls": Door(permissions.decode_calls, {"call_data": b""}),
    "find_refusal": Door(permissions.find_refusal, {"permissions": "[]", "request": _REQUEST, "now": 1.0}),
    "parse_permissions": Door(permissions.parse_permissions, {"text": "[]"}),
    "DanSessionKeyRequestParams": Door(DanSessionKeyRequestParams, {"smart_account_client": None}),
    "HardcodedValues": Door(HardcodedValues, {}),
    "HardcodedValues.from_mapping": Door(HardcodedValues.from_mapping, {"values": {}}),
    "SessionKeyRequest": Door(SessionKeyRequest, {}),
    "RetryPolicy": Door(RetryPolicy, {}),
    "RetryTable": Door(RetryTable, {"rows": {}}),
    "DanModuleInfo": Door(DanModuleInfo, _fields(_SESSION)),
    "DanModuleInfo.from_dict": Door(DanModuleInfo.from_dict, {"data": _SESSION.to_dict()}),
    "DanSessionKeyPayload": Door(DanSessionKeyPayload, _fields(_SESSION)),
    "CallbackKeys": Door(storage.CallbackKeys, {"fetch": _answer}),
    "FixedKeys": Door(storage.FixedKeys, {"keys": [storage.StoreKey("a", bytes(32))]}),
    "KeygenIntent": Door(
        storage.KeygenIntent,
        {
            "hex_eph_sk": "01" * 32,
            "eph_id": "a",
            "eph_alg": "ed25519",
            "owner_id": ADDRESS,
            "threshold": 2,
            "parties_number": 3,
        },
    ),
    "PassphraseKeys": Door(storage.PassphraseKeys, {"passphrase": "correct horse battery"}),
    "SessionFilter": Door(storage.SessionFilter, {}),
    "StoreKey": Door(storage.StoreKey, {"id": "a", "secret": bytes(32)}),
    "StoredSession": Door(storage.StoredSession, _fields(active())),
    "SessionStore.get": _store_door("get", record_id="0x"),
    "SessionStore.get_by_reference": _store_door("get_by_reference", reference="a"),
    "SessionStore.list_page": _store_door("list_page"),
    "SessionStore.save": _store_door("save", record=active()),
    "SessionStore.replace": _store_door("replace", record=_RECORD, expected="active"),
    "SessionStore.change_state": _store_door(
        "change_state", record_id=_RECORD.record_id, state="revoked", expected="active"
    ),
    "SessionStore.delete": _store_door("delete", record_id=_RECORD.record_id),
    "SessionStore.purge_expired": _store_door("purge_expired"),
    "StoredSession.from_dict": Door(storage.StoredSession.from_dict, {"value": active().to_dict()}),
    "keys_from_environment": Door(storage.keys_from_environment, {"environment": {}}),
    "keys_from_file": Door(storage.keys_from_file, {"path": "/nowhere"}),
    "SQLAlchemyStore": Door(
        SQLAlchemyStore,
        {"url": "sqlite:///a.db", "keys": storage.FixedKeys([storage.StoreKey("a", bytes(32))])},
    ),
    "HttpTransport": Door(HttpTransport, {"url": "https://a.example"}),
    "WebSocketTransport": Door(WebSocketTransport, {"url": "wss://a.example"}),
    "InMemoryTransport": Door(InMemoryTransport, {"handler": _answer}),
    "Call": Door(Call, {"target": ADDRESS}),
    "PackedUserOperation": Door(
        PackedUserOperation,
        _fields(
            PackedUserOperation(
                sender=ADDRESS,
                nonce=1,
                call_data=b"",
                account_gas_limits=bytes(32),
                pre_verification_gas=1,
                gas_fees=bytes(32),
            )
        ),
    ),
    "UserOperationV06": Door(UserOperationV06, _fields(OPERATION)),
    "UserOperationV07": Door(
        UserOperationV07,
        {
            "sender": ADDRESS,
            "nonce": 1,
            "call_data": b"",
            "call_gas_limit": 1,
            "verification_gas_limit": 2,
            "pre_verification_gas": 3,
            "max_fee_per_gas": 4,
            "max_priority_fee_per_gas": 5,
        },
    ),
    "UserOperationReceipt.from_dict": Door(UserOperationReceipt.from_dict, {"found": _RECEIPT}),
    "user_operation_from_dict": Door(
        user_operation_from_dict, {"found": OPERATION.to_dict(), "version": "v0.6.0"}
    ),
    "user_operation_hash": Door(
        user_operation_hash,
        {"operation": OPERATION, "entry_point": ENTRY_POINT, "chain_id": 1, "version": "v0.6.0"},
    ),
    "BiconomyPaymaster": Door(userops.BiconomyPaymaster, {"service": _SERVICE}, frozenset({"service"})),
    "Erc7677Paymaster": Door(userops.Erc7677Paymaster, {"service": _SERVICE}, frozenset({"service"})),
    "BiconomyV2": Door(userops.BiconomyV2, {}),
    "Nexus": Door(userops.Nexus, {}),
    "Authorisation": Door(
        userops.Authorisation,
        {
            "chain_id": 1,
            "address": ADDRESS,
            "nonce": 0,
            "signature": WALLET.sign_digest(authorisation_digest(chain_id=1, address=ADDRESS, nonce=0)),
        },
    ),
    "grant_session_key": _nexus_door(userops.grant_session_key, is_installed=False),
    "revoke_session_key": _nexus_door(userops.revoke_session_key, is_installed=True),
    "SimpleAccount": Door(userops.SimpleAccount, {}),
    "NonceLanes": Door(userops.NonceLanes, {"seed": bytes(24), "fetch": _answer}),
    "SessionSigner": Door(
        userops.SessionSigner, {"client": _CLIENT, "session": _SESSION}, frozenset({"client"})
    ),
    "WalletSigner": Door(userops.WalletSigner, {"wallet": WALLET}),
    "create_smart_account_client": Door(
        userops.create_smart_account_client,
        {
            "signer": WALLET,
            "bundler_url": "https://bundler.example/api/v2/1/k",
            "rpc_url": "https://a.example",
        },
    ),
    "lane_key": Door(userops.lane_key, {"seed": bytes(24)}),
    "CallbackWallet": Door(wallets.CallbackWallet, {"address": ADDRESS, "sign": _answer}),
    "JsonRpcWallet": Door(wallets.JsonRpcWallet, {"url": "https://a.example", "address": ADDRESS}),
    "LocalWallet": Door(LocalWallet, {"private_key": b"\x01" * 32}),
    "LocalWallet.sign_typed_data": Door(WALLET.sign_typed_data, {"typed_data": TYPED_DATA}),
    "LocalWallet.sign_digest": Door(WALLET.sign_digest, {"digest": bytes(32)}),
    "LocalWallet.sign_authorisation": Door(
        WALLET.sign_authorisation, {"chain_id": 1, "address": ADDRESS, "nonce": 0}
    ),
    "LocalWallet.sign_message": Door(WALLET.sign_message, {"message": b""}),
    "PasskeyAuth": Door(
        wallets.PasskeyAuth, {"credential_id": _CREDENTIAL, "get_assertion": _answer, **_PASSKEY}
    ),
    "PasskeyRegister": Door(
        wallets.PasskeyRegister,
        {"user_name": "a", "user_id": b"1", "create_credential": _answer, "rp_name": "x", **_PASSKEY},
    ),
    "EthAccountWallet": Door(EthAccountWallet, {"account": Account.from_key(b"\x01" * 32)}),
    "DanAccount": Door(DanAccount, {"client": _CLIENT, "session": _SESSION}),
    "WorkerSetup": Door(
        WorkerSetup,
        {"nodes": (), "threshold": Threshold(2, 3), "store_url": "sqlite:///a.db", "key_file": "/nowhere"},
    ),
}


async def knock(door: Door, values: Mapping[str, Any]) -> None:
    """Call, and let nothing out but our own errors."""
    try:
        made = door.call(**{**door.valid, **values})
        if inspect.isawaitable(made):
            made = await asyncio.wait_for(made, 20)
    except DanError as error:
        str(error)
        repr(error)
    else:
        close = getattr(made, "aclose", None)
        if close is not None:
            await close()


def parameters(door: Door) -> list[str]:
    """The parameters that callers give."""
    return [name for name in inspect.signature(door.call).parameters if name not in door.leave]


def knocks(door: Door) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every parameter with every awkward value, and every member of those that are mappings."""
    for name in parameters(door):
        for label, value in AWKWARD.items():
            yield f"{name}={label}", {name: value}
        usual = door.valid.get(name)
        if isinstance(usual, dict):
            for member in usual:
                for label, value in AWKWARD.items():
                    yield f"{name}[{member}]={label}", {name: {**usual, member: value}}


@pytest.mark.parametrize("name", DOORS)
async def test_one_awkward_value_at_a_time(name: str) -> None:
    """Whatever it is, and in whatever parameter."""
    raw = []
    for label, values in knocks(DOORS[name]):
        try:
            await knock(DOORS[name], values)
        except Exception as error:
            raw.append(f"{label}: {type(error).__name__}: {error}"[:150])
    assert not raw


#: Hypothesis itself could not print these.
_UNPRINTABLE = {"too long to print", "negative, too long to print", "what must not be printed"}


def _awkward(label: str) -> Any:
    # By its label, for hypothesis hashes what it samples, which a writable view does not allow.
    return AWKWARD[label]


_ANYTHING = st.recursive(
    st.sampled_from([label for label in AWKWARD if label not in _UNPRINTABLE]).map(_awkward)
    | st.text(max_size=10)
    | st.integers()
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def altered(draw: st.DrawFn, usual: Any) -> Any:
    """The value with something else in it, near the top or deep down."""
    if isinstance(usual, dict) and usual and draw(st.booleans()):
        member = draw(st.sampled_from(list(usual)))
        return {**usual, member: altered(draw, usual[member])}
    if isinstance(usual, list) and usual and draw(st.booleans()):
        place = draw(st.integers(0, len(usual) - 1))
        return [*usual[:place], altered(draw, usual[place]), *usual[place + 1 :]]
    return draw(_ANYTHING)


@st.composite
def several_knocks(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A door, and up to three of its parameters, altered."""
    name = draw(st.sampled_from(sorted(DOORS)))
    chosen = draw(st.lists(st.sampled_from(parameters(DOORS[name])), max_size=3, unique=True))
    return name, {each: altered(draw, DOORS[name].valid.get(each)) for each in chosen}


@pytest.mark.long
@settings(max_examples=1_500, suppress_health_check=[HealthCheck.too_slow])
@given(knocked=several_knocks())
def test_several_awkward_values_at_once(knocked: tuple[str, dict[str, Any]]) -> None:
    """Also deep within mappings and lists."""
    name, values = knocked
    asyncio.run(knock(DOORS[name], values))


#: Public modules, and their names that take no values of a caller's, or take them under another name.
_NO_DOORS = {
    "account": (),
    "batch": (
        *("ItemMade", "ItemFailed", "ItemResult", "ItemStatus"),
        *("SignedMessage", "UnsignedMessage", "SigningResult", "SigningRun"),
    ),
    "client": (),
    "config": ("MAX_PARTIES",),
    "crypto": (),
    "dask_batch": ("RemoteResult", "generate_session_keys_on"),
    "devnet": ("DevnetNode",),
    "gateway": (),
    "live_session": ("LiveSession",),
    "network_file": (),
    "jobs": ("PendingSessionKey", "RecoveryReport", "SettledRecord", "Settlement"),
    "network": (
        *("AuthModule", "FinishKeygen", "Network", "NetworkSource", "OpensKeygen"),  # interfaces
        *("SettlesKeygen", "MeasuresClock"),
        "ClockSkew",
        *("KeygenSettlement", "NetworkHealth", "NodeHealth", "NodeState", "SigningOrder", "SigningStock"),
        *(
            "EphemeralKeyChange",
            "EphemeralKeyReport",
            "KeygenReport",
            "KeygenRequest",
            "KeygenTimings",
            "OpenedKeygen",
        ),  # made by jobs
    ),
    "nodes": (),
    "permissions": ("Permissions",),
    "request": ("OnReport", "SessionKeyParameters", "SmartAccount"),
    "retry": ("DEFAULT_RETRY_TABLE", "HTTP_STATUSES", "NODE_CODES", "BeforeSleep", "RetryDetails", "Row"),
    "session": (),
    "storage": ("KeySource", "MemorySessionStore", "Page", "SessionState", "SessionStore"),
    "storage.sqlalchemy_store": (),
    "transport": ("Transport",),
    "user_operation": ("ENTRY_POINTS", "UserOperation", "UserOperationReceipt"),
    "userops": (
        *("AccountKind", "Paymaster", "SmartAccountClient", "UserOperationSigner"),
        *("SessionLeaf", "SessionOnChain", "SessionRevocation"),  # made by the functions
    ),
    "wallets": ("Wallet",),
    "wallets.eth_account_wallet": (),
}


@pytest.mark.parametrize("module", _NO_DOORS)
def test_every_public_name_has_a_door(module: str) -> None:
    """Or is listed as one that needs none; neither list has names that are gone."""
    public = set(importlib.import_module(f"dan_async.{module}").__all__)
    assert set(_NO_DOORS[module]) <= public
    doors = {name.split(",")[0].split(".")[0] for name in DOORS}
    assert public - set(_NO_DOORS[module]) <= doors


#: Doors that refuse good values as well, for the state of things: no page makes the passkey, no node changes the key.
_REFUSED_ANYWAY = {
    "sign_user_operation, permissions": PermissionDeniedError,
    "add_ephemeral_key": QuorumError,
    "revoke_ephemeral_key": QuorumError,
    "register_passkey": WalletRefusedError,
    "revoke_stored_session": RecordConflictError,
    "rotate_stored_session": RecordConflictError,
    "complete_session_key": PendingNotFoundError,
    "check_permissions": PermissionDeniedError,
    "decode_calls": PermissionDeniedError,
    "keys_from_environment": ConfigurationError,
    "keys_from_file": ConfigurationError,
    "open_session_on_chain": RecordConflictError,
    "NodeNetwork.from_file": ConfigurationError,
    "GatewayNetwork.from_file": ConfigurationError,
    "NetworkFile.read": ConfigurationError,
}


@pytest.mark.parametrize("name", DOORS)
async def test_every_door_opens_to_good_values(name: str) -> None:
    """A door that refused everybody would pass the other tests."""
    expected = _REFUSED_ANYWAY.get(name)
    with nullcontext() if expected is None else pytest.raises(expected) as caught:
        made = DOORS[name].call(**DOORS[name].valid)
        if inspect.isawaitable(made):
            await made
    assert expected is None or not isinstance(caught.value, InvalidFieldError)


def time_spans(door: Door) -> list[str]:
    """The parameters that are time spans, by their names; *retry_after* is a header's, and *…_per_s* is a rate."""
    names = [n for n in inspect.signature(door.call).parameters if not n.endswith("_per_s")]
    return [n for n in names if n in ("duration", "restart_after", "seconds", "timeout") or n.endswith("_s")]


@pytest.mark.parametrize("name", [name for name, door in DOORS.items() if time_spans(door)])
async def test_every_time_span_may_be_a_timedelta(name: str) -> None:
    """And does the same as that many seconds."""
    door = DOORS[name]
    for span in time_spans(door):
        usual = door.valid.get(span, inspect.signature(door.call).parameters[span].default)
        seconds = usual if isinstance(usual, int | float) and usual > 0 else 1
        expected = _REFUSED_ANYWAY.get(name)
        with nullcontext() if expected is None else pytest.raises(expected) as caught:
            made = door.call(**{**door.valid, span: timedelta(seconds=seconds)})
            if inspect.isawaitable(made):
                made = await made
            assert getattr(made, span, seconds) in (seconds, timedelta(seconds=seconds))
        assert expected is None or not isinstance(caught.value, InvalidFieldError)

"""A bundler, a node and a paymaster without a network: they answer like the real ones, and note what they were asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import rlp
from aiohttp import web

from dan_async import LocalWallet, Timeouts
from dan_async.crypto.abi import encode_arguments, function_selector
from dan_async.crypto.hashes import keccak256
from dan_async.errors import ConnectionLostError, RpcError
from dan_async.retry import RetryPolicy
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.user_operation import ENTRY_POINTS, user_operation_from_dict, user_operation_hash
from dan_async.userops import SimpleAccount, SmartAccountClient, create_smart_account_client
from tests.servers import Handler, serve

CHAIN_ID = 80002
ACCOUNT = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
TARGET = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
TX = "0x" + "ab" * 32

#: topic0 of the entry points' UserOperationEvent, as block explorers show it.
EVENT = "0x49628fd1471006c1482da88028e9ce4dbb080b815c9b0344d39e5a8e6ec1419f"

#: A factory whose code nobody knows.
FACTORY = "0x" + "fa" * 20


async def no_sleep(_: float) -> None:
    """Wait for nothing."""


EAGER = RetryPolicy(attempts=3, sleep=no_sleep)


def event(version: Any, own: str, sender: str, nonce: int) -> dict[str, Any]:
    """The entry point's UserOperationEvent, as a node shows it."""
    paymaster = cost = bytes(32)
    return {
        "address": ENTRY_POINTS[version].lower(),
        "topics": [EVENT, own, "0x" + "00" * 12 + sender[2:].lower(), "0x" + paymaster.hex()],
        "data": "0x" + (nonce.to_bytes(32) + (1).to_bytes(32) + cost * 2).hex(),
        "removed": False,
    }


class World:
    """One chain with an entry point, one account, and a bundler that executes at once unless told otherwise."""

    def __init__(self, version: str = "v0.7.0") -> None:
        self.version: Any = version
        self.chain_id = self.bundler_chain_id = CHAIN_ID
        self.is_deployed = True
        self.executes = True
        self.nonces: dict[int, int] = {}
        self.operations: dict[str, Any] = {}
        self.executed: list[str] = []
        #: Operations whose receipts the bundler keeps to itself.
        self.withheld: set[str] = set()
        self.events: list[dict[str, Any]] = []
        self.calls: list[tuple[str, Any]] = []
        self.price_method: str | None = "pimlico_getUserOperationGasPrice"
        #: Method -> errors to raise before it answers, first one first.
        self.failures: dict[str, list[Exception]] = {}
        self.loses_replies = 0
        self.success = True
        self.reason = "0x08c379a0"

    def methods(self) -> list[str]:
        """What was asked, in order."""
        return [method for method, _ in self.calls]

    def _note(self, method: str, params: Any) -> None:
        self.calls.append((method, params))
        if self.failures.get(method):
            raise self.failures[method].pop(0)

    async def node(self, method: str, params: Any) -> Any:
        """The chain's node."""
        self._note(method, params)
        if method == "eth_chainId":
            return hex(self.chain_id)
        if method == "eth_getCode":
            return "0x60" if self.is_deployed else "0x"
        if method == "eth_getBlockByNumber":
            return {"baseFeePerGas": hex(100)}
        if method == "eth_maxPriorityFeePerGas":
            return hex(7)
        if method == "eth_gasPrice":
            return hex(107)
        if method == "eth_blockNumber":
            return hex(5000 + len(self.events))
        if method == "eth_getLogs":
            return list(self.events)
        assert method == "eth_call"
        data = bytes.fromhex(params[0]["data"][2:])
        if data[:4] == function_selector("getNonce(address,uint192)"):
            key = int.from_bytes(data[36:])
            return "0x" + encode_arguments("(uint256)", (key << 64 | self.nonces.get(key, 0),)).hex()
        return "0x" + encode_arguments("(address)", (ACCOUNT,)).hex()

    async def bundler(self, method: str, params: Any) -> Any:
        """The bundler."""
        self._note(method, params)
        if method == "eth_chainId":
            return hex(self.bundler_chain_id)
        if method == self.price_method:
            price = {"maxFeePerGas": "0x64", "maxPriorityFeePerGas": "0x5"}
            return {"standard": price} if method.startswith("pimlico") else price
        if method == "eth_estimateUserOperationGas":
            gas = {"preVerificationGas": "0x1", "verificationGasLimit": 2, "callGasLimit": "3"}
            return gas | {"paymasterVerificationGasLimit": "0x4", "paymasterPostOpGasLimit": "0x5"}
        if method == "eth_sendUserOperation":
            return self._take(params[0])
        if method == "eth_getUserOperationByHash":
            return {"userOperation": {}} if params[0] in self.operations else None
        if method == "eth_getUserOperationReceipt":
            return self._receipt(params[0])
        raise RpcError(-32601, "no such method")

    def _take(self, sent: Any) -> str:
        operation = user_operation_from_dict(sent, version=self.version)
        own = "0x" + self.hash_of(operation).hex()
        if own in self.operations:
            raise RpcError(-32602, "Already known")
        taken = {one.nonce for one in self.operations.values()}
        if operation.nonce in taken or self.nonces.get(operation.nonce >> 64, 0) > operation.nonce & (
            2**64 - 1
        ):
            raise RpcError(-32602, "AA25 invalid account nonce")
        self.operations[own] = operation
        if self.executes:
            self.execute(own)
        return own

    def hash_of(self, operation: Any) -> bytes:
        """The operation's hash on this chain."""
        return user_operation_hash(
            operation,
            entry_point=ENTRY_POINTS[self.version],
            chain_id=self.chain_id,
            version=self.version,
        )

    def execute(self, own: str) -> None:
        """Put an operation on the chain."""
        nonce = self.operations[own].nonce
        self.nonces[nonce >> 64] = (nonce & (2**64 - 1)) + 1
        self.is_deployed = True
        self.executed.append(own)
        self.events.append(event(self.version, own, self.operations[own].sender, nonce))

    def _receipt(self, own: str) -> Any:
        if own not in self.executed or own in self.withheld:
            return None
        return {
            "userOpHash": own,
            "success": self.success,
            "reason": "" if self.success else self.reason,
            "actualGasCost": "0x10",
            "actualGasUsed": "0x2",
            "receipt": {"transactionHash": TX, "blockNumber": "0x9"},
        }


class EoaWorld(World):
    """A chain on which the owner's EOA can be delegated; and what its contracts say when they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.code = b""
        self.count = 3
        self.sent: list[bytes] = []
        self.status: str | None = "0x1"
        self.applies = True
        self.reads: dict[bytes, bytes] = {}

    async def node(self, method: str, params: Any) -> Any:
        """The chain's node."""
        if method == "eth_call" and (data := bytes.fromhex(params[0]["data"][2:]))[:4] in self.reads:
            self._note(method, params)
            return "0x" + self.reads[data[:4]].hex()
        if method not in _METHODS:
            return await super().node(method, params)
        self._note(method, params)
        if method == "eth_getCode":
            return "0x" + self.code.hex()
        if method == "eth_getTransactionCount":
            return hex(self.count)
        if method == "eth_estimateGas":
            return hex(50_000)
        known = [one for one in self.sent if "0x" + keccak256(one).hex() == params[0]]
        if method == "eth_getTransactionByHash":
            return {} if not known else {"hash": params[0]}
        if method == "eth_getTransactionReceipt":
            return {"status": self.status} if known and self.status else None
        raw = bytes.fromhex(params[0][2:])
        self.sent.append(raw)
        if self.applies:
            (one,) = rlp.decode(raw[1:])[9]
            assert int.from_bytes(one[2]) == self.count + 1
            self.count, self.code = self.count + 2, b"\xef\x01\x00" + one[1] if any(one[1]) else b""
        return params[0]


_METHODS = {
    "eth_getCode",
    "eth_getTransactionCount",
    "eth_estimateGas",
    "eth_getTransactionByHash",
    "eth_getTransactionReceipt",
    "eth_sendRawTransaction",
}


async def account_in(world: World, **options: Any) -> SmartAccountClient:
    """A client for the world's account."""
    defaults: dict[str, Any] = {
        "signer": LocalWallet(b"\x01" * 32),
        "bundler_url": InMemoryTransport(world.bundler, name="bundler"),
        "rpc_url": InMemoryTransport(world.node, name="node"),
        "account": SimpleAccount(world.version, factory=FACTORY),
        "retry": EAGER,
        "chain_id": CHAIN_ID,
        "timeouts": Timeouts(total_s=5, attempt_s=2),
    }
    return await create_smart_account_client(**(defaults | options))


async def cancelled_when_sent(world: World, call: Coroutine[Any, Any, Any]) -> None:
    """Cancel a call that waits for the receipt of what it has sent, and check that it ends so."""
    sending = asyncio.create_task(call)
    while "eth_getUserOperationReceipt" not in world.methods():
        await asyncio.sleep(0.01)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


def answering(handler: Handler) -> Any:
    """An aiohttp handler of JSON-RPC: errors of the service are answers, a lost connection is one."""

    async def on_post(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        try:
            reply["result"] = await handler(asked["method"], asked["params"])
        except RpcError as error:
            reply["error"] = {"code": error.code, "message": error.message}
        except ConnectionLostError:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(text=json.dumps(reply), content_type="application/json")

    return on_post


@contextlib.asynccontextmanager
async def account_at(
    world: World,
    *,
    bundler: Handler | None = None,
    node: Handler | None = None,
    sponsor: Handler | None = None,
    **options: Any,
) -> AsyncIterator[SmartAccountClient]:
    """An account whose bundler and node are servers on loopback, the world's own unless others are given."""
    async with contextlib.AsyncExitStack() as stack:

        async def url(handler: Handler) -> str:
            return (
                f"http://127.0.0.1:{await stack.enter_async_context(serve(post=answering(handler)))}/v1/rpc"
            )

        if sponsor is not None:
            options["paymaster_url"] = await url(sponsor)
        options["bundler_url"] = await url(bundler or world.bundler)
        options["rpc_url"] = await url(node or world.node)
        options.setdefault("timeouts", Timeouts(total_s=3, attempt_s=2))
        yield await stack.enter_async_context(await account_in(world, **options))

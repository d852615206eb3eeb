"""
A client of dan-node/1 for tests only: bare aiohttp, no retries, and every field can be made wrong.

It shares the hashes and codecs of ``wire`` with the nodes, which the vectors in tests/vectors/node_1.json guard, and
nothing of the real client.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
from attrs import define, evolve, field

from dan_async.config import Threshold
from dan_async.crypto.eip712 import typed_data_digest
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.devnet import Devnet, DevnetNode
from dan_async.devnet.context import NodeIdentity
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from dan_async.protocols.exchange import protocol_for
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import Acknowledgement
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication

__all__ = ["Keygen", "RawNode", "RpcFaultError", "changed", "connect", "connect_all", "keygen_on"]


class RpcFaultError(Exception):
    """The node answered with an error object."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error))
        self.code = error["code"]
        self.message = error["message"]
        self.data = error.get("data", {})


class RawNode:
    """One WebSocket to one node."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse, operator: str) -> None:
        self.websocket = websocket
        self.operator = operator
        self._ids = itertools.count(1)
        self._waiting: dict[Any, asyncio.Future[Any]] = {}
        self.unmatched: asyncio.Queue[Any] = asyncio.Queue()

    async def read(self) -> None:
        async for message in self.websocket:
            reply = json.loads(message.data)
            waiting = self._waiting.pop(reply["id"], None)
            if waiting is None:
                self.unmatched.put_nowait(reply)
            elif not waiting.done():
                waiting.set_result(reply)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the node closed the connection"))

    async def call(self, method: str, params: Any, *, timeout_s: float = 20.0) -> Any:
        """Send a request; give its result, or raise its error."""
        rpc_id = next(self._ids)
        waiting = self._waiting[rpc_id] = asyncio.get_running_loop().create_future()
        body = params if isinstance(params, str) else json.dumps(params)
        await self.websocket.send_str(
            f'{{"jsonrpc":"2.0","id":{rpc_id},"method":"{method}","params":{body}}}'
        )
        try:
            async with asyncio.timeout(timeout_s):
                reply = await waiting
        finally:
            self._waiting.pop(rpc_id, None)
        if "error" in reply:
            raise RpcFaultError(reply["error"])
        return reply["result"]

    async def code_of(self, method: str, params: Any) -> int:
        """Give the code with which a request is refused."""
        try:
            result = await self.call(method, params)
        except RpcFaultError as fault:
            return int(fault.code)
        raise AssertionError(f"{method} was not refused: {result}")


@contextlib.asynccontextmanager
async def connect(node: DevnetNode, session: aiohttp.ClientSession | None = None) -> AsyncIterator[RawNode]:
    """Open a connection to a node."""
    async with contextlib.AsyncExitStack() as stack:
        if session is None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
        websocket = await stack.enter_async_context(session.ws_connect(node.url))
        raw = RawNode(websocket, node.operator)
        reading = asyncio.create_task(raw.read())
        try:
            yield raw
        finally:
            await websocket.close()
            await reading


@contextlib.asynccontextmanager
async def connect_all(nodes: Devnet | Sequence[DevnetNode]) -> AsyncIterator[list[RawNode]]:
    """Open a connection to each node, in the order of participants."""
    listed = nodes.nodes if isinstance(nodes, Devnet) else nodes
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        async with contextlib.AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(connect(node, session)) for node in listed]
            yield sorted(opened, key=lambda raw: raw.operator.lower())


@define(kw_only=True)
class Keygen:
    """
    One key generation, step by step: challenge, sign, send. Change any field between the steps.

    ``signer`` signs in the name of ``owner``, which is its own address unless changed.
    """

    nodes: list[RawNode]
    t: int
    revision: str = "1"
    request_id: str = field(factory=lambda: "0x" + secrets.token_hex(32))
    signer: NodeIdentity = field(factory=NodeIdentity.generate)
    expiry: int = field(factory=lambda: int(time.time()) + 3600)
    permissions: str | None = None
    key: EphemeralKey | None = None
    setup: str = ""
    params: node_1.KeygenParams | None = None

    @property
    def participants(self) -> tuple[str, ...]:
        return tuple(node.operator for node in self.nodes)

    @property
    def claim(self) -> EphemeralClaim:
        if self.key is None:
            self.key = EphemeralKey.generate("secp256k1" if self.revision == "1" else "ed25519")
        return EphemeralClaim(
            eph_id=self.key.default_id,
            eph_pk=self.key.public_key,
            expiry=self.expiry,
            sign_alg=self.key.algorithm,
        )

    def make_setup(self) -> str:
        if not self.setup:
            module = protocol_for(self.revision)
            self.setup = module.encode_setup(
                module.keygen_setup(
                    threshold=Threshold(self.t, len(self.nodes)),
                    claim=self.claim,
                    permissions=self.permissions,
                )
            )
        return self.setup

    @property
    def digest(self) -> bytes:
        return node_1.setup_hash(operation="keygen", revision=self.revision, setup=self.make_setup())

    def challenge_params(self) -> dict[str, str]:
        return {"requestId": self.request_id, "operation": "keygen", "setupHash": "0x" + self.digest.hex()}

    async def challenge(self) -> list[bytes]:
        """Ask every node for a nonce."""
        answers = await asyncio.gather(
            *(node.call("dan_challenge", self.challenge_params()) for node in self.nodes)
        )
        return [node_1.ChallengeResult.read(answer).nonce for answer in answers]

    def sign(self, nonces: Sequence[bytes]) -> node_1.KeygenParams:
        """Have the owner sign; gives the whole request."""
        challenge = node_1.final_challenge(
            operation="keygen",
            request_id=self.request_id,
            setup_digest=self.digest,
            participants=self.participants,
            nonces=nonces,
        )
        return self._signed(challenge.hex(), nonces)

    def sign_one_shot(self) -> node_1.KeygenParams:
        """Have the owner sign a request without nonces."""
        return self._signed(REVISION_1.oneshot_challenge(self.make_setup()), ())

    def _signed(self, challenge: str, nonces: Sequence[bytes]) -> node_1.KeygenParams:
        module = protocol_for(self.revision)
        typed_data = module.typed_data("keygen", module.decode_setup("keygen", self.make_setup()), challenge)
        self.params = node_1.KeygenParams(
            request_id=self.request_id,
            revision=self.revision,
            setup=self.setup,
            participants=self.participants,
            nonces=tuple(nonces),
            user_authentication=UserAuthentication(
                method="eoa",
                id=self.signer.operator,
                credentials=module.encode_credentials(self.claim, self.signer.operator),
                signature="0x" + self.signer.sign(typed_data_digest(typed_data)).hex(),
            ),
        )
        return self.params

    async def prepare(self) -> node_1.KeygenParams:
        """Challenge and sign."""
        return self.sign(await self.challenge())

    async def send(self, params: node_1.KeygenParams | None = None) -> list[Acknowledgement]:
        """Send the request to every node; gives the acknowledgements, in the order of participants."""
        text = fields.encode(params or self.params)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(node.call("dan_keygen", text)) for node in self.nodes]
        return [Acknowledgement.read_whole(task.result()) for task in asked]

    async def codes(self, params: node_1.KeygenParams | None = None) -> list[int]:
        """Send the request to every node; gives the codes with which each refuses."""
        text = fields.encode(params or self.params)
        return list(await asyncio.gather(*(node.code_of("dan_keygen", text) for node in self.nodes)))

    async def settle(self, node: RawNode) -> list[Any]:
        """Ask a node what came of it; gives its acknowledgements."""
        self.make_setup()
        assert self.key is not None
        text = signed_settle(self.key, self.request_id, node.operator)
        answer = await node.call(node_1.SETTLE_KEYGEN, text)
        return list(answer["acknowledgements"])

    async def run(self) -> list[Acknowledgement]:
        """Do it all."""
        await self.prepare()
        return await self.send()


def signed_settle(key: EphemeralKey, request_id: str, operator: str, eph_pk: bytes | None = None) -> str:
    """What an ephemeral key asks one node."""
    named = eph_pk or key.public_key
    digest = node_1.settle_digest(request_id=request_id, operator=operator, eph_pk=named)
    return fields.encode(
        node_1.SettleParams(
            request_id=request_id, eph_pk=named, sign_alg=key.algorithm, signature=key.sign_message(digest)
        )
    )


async def keygen_on(devnet: Devnet, t: int, **options: Any) -> list[Acknowledgement]:
    """Make a key with all nodes of a network."""
    async with connect_all(devnet) as nodes:
        return await Keygen(nodes=nodes, t=t, **options).run()


def changed(params: node_1.KeygenParams, **members: Any) -> node_1.KeygenParams:
    """Change members of a request, or of its authentication."""
    authentication = {
        name: members.pop(name) for name in ("method", "id", "credentials", "signature") if name in members
    }
    return evolve(params, **members, user_authentication=evolve(params.user_authentication, **authentication))

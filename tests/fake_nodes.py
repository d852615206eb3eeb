"""
Nodes without sockets: real identities, real shares (dealt by the test), real signatures, scripted misbehaviour.

They are what the client's own logic is tested against, one wrong move at a time; everything end to end runs on the devnet.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from attrs import evolve

from dan_async._values import to_hex
from dan_async.config import NodeEndpoint, Threshold, Timeouts
from dan_async.crypto import curve
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.signature import sign_digest
from dan_async.errors import NodeCode, RpcError
from dan_async.nodes import NodeNetwork
from dan_async.protocols import fields
from dan_async.protocols.node import Acknowledgement, KeygenClaims, SignedClaims, compute_key_id
from dan_async.retry import RetryPolicy
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.types import OperatorAddress, RequestId

REQUEST_ID = RequestId("0x" + "ab" * 32)
OWNER = "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf"

NO_WAIT = RetryPolicy(attempts=3, first_wait_s=0.001, longest_wait_s=0.001)
QUICK = Timeouts(total_s=5, attempt_s=1, connect_s=1, wallet_s=1, grace_s=0.02)


def scalar() -> int:
    """A random secret below the group order."""
    return secrets.randbelow(curve.ORDER - 1) + 1


class Identity:
    """A node's identity key and its operator address."""

    def __init__(self) -> None:
        self.private_key = scalar().to_bytes(32, "big")
        public_key = curve.encode(curve.base_multiply(int.from_bytes(self.private_key, "big")))
        self.operator = OperatorAddress(public_key_to_address(public_key))

    def sign(self, digest: bytes) -> bytes:
        return sign_digest(self.private_key, digest)


def identities(count: int) -> list[Identity]:
    """Identities in the order of participants."""
    return sorted((Identity() for _ in range(count)), key=lambda identity: identity.operator.lower())


S = TypeVar("S", bound=SignedClaims[Any])


def altered(said: S, **changes: Any) -> S:
    """Signed claims with other members, or other claims, under the old signature."""
    outside = {
        name: changes.pop(name) for name in ("operator", "party_index", "signature") if name in changes
    }
    if "threshold" in changes:
        threshold = changes.pop("threshold")
        changes |= {"t": threshold.t, "n": threshold.n}
    return evolve(said, text=fields.encode(evolve(said.claims, **changes)), **outside)


def resigned(said: S, signer: Identity, request_id: RequestId | None = None) -> S:
    """The same under a signature of *signer*."""
    digest = said.digest(request_id or said.claims.request_id)
    return evolve(said, signature=signer.sign(digest))


class DealtKey:
    """A key that the test deals itself, and the acknowledgements that honest nodes would give for it."""

    def __init__(
        self, t: int, nodes: Sequence[Identity], *, request_id: RequestId = REQUEST_ID, owner_id: str = OWNER
    ) -> None:
        self.threshold = Threshold(t, len(nodes))
        self.nodes = list(nodes)
        self.participants = tuple(node.operator for node in nodes)
        self.request_id = request_id
        self.owner_id = owner_id
        coefficients = [scalar() for _ in range(t)]
        self.shares = [
            sum(c * i**k for k, c in enumerate(coefficients)) % curve.ORDER for i in range(1, len(nodes) + 1)
        ]
        self.public_key = curve.encode(curve.base_multiply(coefficients[0]))
        self.public_shares = tuple(curve.encode(curve.base_multiply(share)) for share in self.shares)
        self.transcript_hash = secrets.token_bytes(32)

    def key_id_of(self, public_key: bytes) -> Any:
        return compute_key_id(
            public_key=public_key,
            t=self.threshold.t,
            participants=self.participants,
            owner_id=self.owner_id,
            request_id=self.request_id,
        )

    def acknowledgement(self, index: int, **changes: Any) -> Acknowledgement:
        """The acknowledgement of party *index*, changed before it is signed."""
        claims = KeygenClaims(
            request_id=self.request_id,
            key_id=self.key_id_of(self.public_key),
            t=self.threshold.t,
            n=self.threshold.n,
            public_key=self.public_key,
            public_shares=self.public_shares,
            participants=self.participants,
            transcript_hash=self.transcript_hash,
        )
        node = self.nodes[index - 1]
        honest = Acknowledgement.make(claims, operator=node.operator, party_index=index, sign=node.sign)
        return resigned(altered(honest, **changes), node) if changes else honest


Misbehaviour = Callable[[str, Any], Awaitable[Any]]


class FakeNetwork:
    """n scripted nodes behind a real ``NodeNetwork``."""

    def __init__(self, t: int, n: int) -> None:
        self.t = t
        self.identities = identities(n)
        self.calls: list[tuple[OperatorAddress, str, Any]] = []
        self.misbehaviour: dict[OperatorAddress, Misbehaviour] = {}
        self.owner_id = ""
        #: What honest nodes send along with their acknowledgements.
        self.certificate = b"a certificate"
        self._keys: dict[tuple[str, tuple[str, ...]], DealtKey] = {}

    def operator(self, index: int) -> OperatorAddress:
        return self.identities[index - 1].operator

    def network(self, **options: Any) -> NodeNetwork:
        by_operator = {identity.operator: identity for identity in self.identities}
        endpoints = [NodeEndpoint(f"ws://127.0.0.1:{9000 + i}/v1/rpc", o) for i, o in enumerate(by_operator)]
        defaults: dict[str, Any] = {
            "timeouts": QUICK,
            "retry": NO_WAIT,
            "threshold": Threshold(self.t, len(endpoints)),
        }
        return NodeNetwork(
            endpoints,
            transport_for=lambda endpoint: InMemoryTransport(self._handler(by_operator[endpoint.operator])),
            **(defaults | options),
        )

    def called(self, method: str) -> list[OperatorAddress]:
        return [operator for operator, name, _ in self.calls if name == method]

    def key_for(self, params: Any, owner_id: str) -> DealtKey:
        participants = tuple(params["participants"])
        key = self._keys.get((params["requestId"], participants))
        if key is None:
            nodes = [i for i in self.identities if i.operator in participants]
            key = self._keys[params["requestId"], participants] = DealtKey(
                self.t, nodes, request_id=params["requestId"], owner_id=owner_id
            )
        return key

    def acknowledge(self, operator: OperatorAddress, params: Any, **changes: Any) -> Any:
        """What an honest node answers to dan_keygen, changed before it is signed."""
        key = self.key_for(params, params["userAuthentication"]["id"])
        made = key.acknowledgement(key.participants.index(operator) + 1, **changes)
        return fields.to_json(evolve(made, certificate=self.certificate))

    def _handler(self, identity: Identity) -> Callable[[str, Any], Awaitable[Any]]:
        async def handle(method: str, params: Any) -> Any:
            self.calls.append((identity.operator, method, params))
            special = self.misbehaviour.get(identity.operator)
            if special is not None:
                answer = await special(method, params)
                if answer is not None:
                    return answer
            await asyncio.sleep(0)
            if method == "dan_challenge":
                return {"nonce": to_hex(secrets.token_bytes(32)), "expiresAt": 2**40}
            if method == "dan_keygen":
                return self.acknowledge(identity.operator, params)
            if method == "dan_health":
                return {"time": 1_700_000_000_000}
            raise RpcError(NodeCode.METHOD_NOT_FOUND, "no such method")

        return handle

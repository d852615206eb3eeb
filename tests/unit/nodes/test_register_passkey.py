"""Registering a passkey: what the gateway is sent, which receipts of nodes count, and when nobody is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dan_async import GatewayNetwork
from dan_async.config import NodeEndpoint, Threshold
from dan_async.deadline import Deadline
from dan_async.errors import (
    ClientClosedError,
    GatewayError,
    KeySubstitutionError,
    NodeCode,
    NodeProtocolError,
    ProtocolError,
    QuorumError,
    RpcError,
)
from dan_async.nodes import NodeNetwork
from dan_async.protocols.fields import to_json
from dan_async.protocols.node import PasskeyClaims, PasskeyReceipt
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.types import RequestId
from dan_async.wallets import PasskeyRegister
from tests.fake_nodes import NO_WAIT, QUICK, Identity, altered, identities, resigned
from tests.gateway_server import ONCE, Visit, at_result, replaying, scripted
from tests.helpers import error_of, no_leaks
from tests.passkeys.authenticator import ORIGIN, RP_ID, Authenticator, unb64

CHALLENGE = "ab" * 32


def passkey(device: Authenticator) -> PasskeyRegister:
    return PasskeyRegister("a", b"1", device.create, rp_id=RP_ID, rp_name="W", origin=ORIGIN)


# --- through a gateway ------------------------------------------------------------------------------------------------


async def test_what_the_gateway_is_sent() -> None:
    """An empty setup, then the authentication with method passkey and no credentials."""
    device, seen = Authenticator(), []

    async def script(visit: Visit) -> None:
        seen.append((visit.version, visit.operation, await visit.receive()))
        await visit.send(CHALLENGE)
        seen.append(json.loads(await visit.receive()))
        await visit.send(device.id)
        await visit.gone()

    async with no_leaks(), scripted(script) as gateway:
        network = GatewayNetwork(gateway.url(), revision="1", retry=ONCE)
        assert await network.register_passkey(passkey(device), deadline=Deadline(5)) == device.id
        await network.aclose()
    assert seen[0] == ("v1", "registerPasskey", "{}")
    assert unb64(device.asked[0]["challenge"]) == bytes.fromhex(CHALLENGE)
    sent = seen[1].get("main", seen[1])
    signature = json.loads(sent["signature"])
    assert sent["credentials"] == {"credentials": "", "method": "passkey", "id": device.id}
    assert (signature["origin"], signature["rpId"]) == (ORIGIN, RP_ID)
    assert json.loads(signature["rawCredential"])["id"] == device.id


@pytest.mark.parametrize(
    ("result", "kind"), [("AAAAAAAAAAAAAAAAAAAAAAAA", KeySubstitutionError), ("no id!", ProtocolError)]
)
async def test_a_gateway_that_answers_something_else(result: str, kind: type[Exception]) -> None:
    """The result must be the passkey that was made."""
    async with no_leaks(), scripted(replaying([CHALLENGE, result])) as gateway:
        network = GatewayNetwork(gateway.url(), revision="1", retry=ONCE)
        error = await error_of(network.register_passkey(passkey(Authenticator()), deadline=Deadline(5)))
        await network.aclose()
    assert isinstance(error, kind), repr(error)


async def test_a_gateway_that_refuses_a_passkey() -> None:
    """The error says what may be true all the same, and that repeating is not safe."""

    async def refuse(visit: Visit) -> None:
        await visit.leave(1011, "a node is down")

    async with no_leaks(), scripted(at_result(refuse)) as gateway:
        network = GatewayNetwork(gateway.url(), revision="1", retry=ONCE)
        error = await error_of(network.register_passkey(passkey(Authenticator()), deadline=Deadline(5)))
        await network.aclose()
    assert isinstance(error, GatewayError)
    assert (error.phase, error.close_code, error.retryable) == ("result", 1011, False)
    assert "may be registered" in error.hint


async def test_a_closed_network_registers_nothing() -> None:
    """Neither kind."""
    device = Authenticator()
    for network in (GatewayNetwork("wss://gateway.example/v1"), Nodes(1).network()):
        await network.aclose()
        error = await error_of(network.register_passkey(passkey(device), deadline=Deadline(5)))
        assert type(error) is ClientClosedError
    assert device.asked == []


# --- over the nodes ---------------------------------------------------------------------------------------------------


class Nodes:
    """Nodes that register every passkey, but for those that are told otherwise."""

    def __init__(self, count: int) -> None:
        self.identities = identities(count)
        self.refusing: dict[int, str] = {}
        self.changes: dict[int, Any] = {}

    def network(self, **options: Any) -> NodeNetwork:
        by_operator = {identity.operator: number for number, identity in enumerate(self.identities)}
        return NodeNetwork(
            [NodeEndpoint(f"ws://127.0.0.1:{9000 + i}/v1/rpc", o) for o, i in by_operator.items()],
            transport_for=lambda endpoint: InMemoryTransport(self._handler(by_operator[endpoint.operator])),
            **({"threshold": Threshold(2, 3), "timeouts": QUICK, "retry": NO_WAIT} | options),
        )

    def _handler(self, number: int) -> Any:
        identity: Identity = self.identities[number]

        async def handle(method: str, params: Any) -> Any:
            if self.refusing.get(number) == method:
                raise RpcError(NodeCode.UNSUPPORTED, "not here")
            if method == "dan_challenge":
                return {"nonce": "0x" + "0a" * 32, "expiresAt": 2**33}
            assert method == "dan_register_passkey"
            claims = PasskeyClaims(
                request_id=params["requestId"], credential_id=params["userAuthentication"]["id"]
            )
            changes = self.changes.get(number, {})
            honest = PasskeyReceipt.make(
                claims,
                operator=identity.operator,
                party_index=params["participants"].index(identity.operator) + 1,
                sign=identity.sign,
            )
            receipt = altered(honest, **changes)
            return to_json(receipt if "signature" in changes else resigned(receipt, identity))

        return handle


async def register(nodes: Nodes, device: Authenticator, **options: Any) -> Any:
    network = nodes.network(**options)
    try:
        return await network.register_passkey(passkey(device), deadline=Deadline(5))
    finally:
        await network.aclose()


async def test_every_node_is_told() -> None:
    """Also those beyond n; one that fails does no harm as long as n are left."""
    nodes, device = Nodes(5), Authenticator()
    nodes.refusing = {0: "dan_challenge", 1: "dan_register_passkey"}
    assert await register(nodes, device) == device.id


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": RequestId("0x" + "cd" * 32)},
        {"operator": identities(1)[0].operator},
        {"credential_id": "AAAAAAAAAAAAAAAAAAAAAAAA"},
        {"party_index": 1},
        {"signature": b"\x01" * 65},
        {"signature": b"\xff" * 65},
    ],
)
async def test_a_receipt_for_something_else_does_not_count(changes: dict[str, Any]) -> None:
    """Each member, and the signature."""
    nodes = Nodes(3)
    nodes.changes = {1: changes}
    error = await error_of(register(nodes, Authenticator()))
    assert isinstance(error, QuorumError)
    (outcome,) = error.outcomes
    assert isinstance(outcome.error, NodeProtocolError)
    assert "does not count" in outcome.error.message


async def test_nobody_is_asked_when_too_few_nodes_are_there() -> None:
    """The browser makes no passkey that cannot be registered."""
    nodes, device = Nodes(3), Authenticator()
    nodes.refusing = {2: "dan_challenge"}
    assert isinstance(await error_of(register(nodes, device)), QuorumError)
    assert device.asked == []


async def test_a_small_pool_must_be_complete() -> None:
    """With fewer nodes than n, all must confirm."""
    nodes, device = Nodes(2), Authenticator()
    assert await register(nodes, device) == device.id
    nodes.refusing = {0: "dan_register_passkey"}
    assert isinstance(await error_of(register(nodes, Authenticator())), QuorumError)

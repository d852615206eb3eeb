"""Adding and revoking an ephemeral key over nodes: which receipts count, and how many must."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from dan_async import LocalWallet
from dan_async.config import NodeEndpoint, Threshold
from dan_async.deadline import Deadline
from dan_async.errors import ClientClosedError, NodeCode, NodeProtocolError, QuorumError, RpcError
from dan_async.network import EphemeralKeyChange, EphemeralKeyReport
from dan_async.nodes import NodeNetwork
from dan_async.protocols.fields import to_json
from dan_async.protocols.node import ChangeClaims, ChangeReceipt
from dan_async.protocols.setups import EphemeralClaim
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.types import RequestId
from dan_async.wallets.base import EoaAuth
from tests.fake_nodes import NO_WAIT, QUICK, DealtKey, altered, identities, resigned
from tests.helpers import assert_runs_under, error_of

OWNER = LocalWallet("0x" + "00" * 31 + "07")
CLAIM = EphemeralClaim(eph_id="e", eph_pk=b"\x04" + bytes(64), expiry=2**31, sign_alg="secp256k1")
OPERATIONS = {"dan_add_ephemeral_key": "addEphemeralKey", "dan_revoke_ephemeral_key": "revokeEphemeralKey"}


class Nodes:
    """A pool of nodes; the first n of them hold a key of t. All confirm every change, in whichever words."""

    def __init__(self, t: int, n: int, *, pool: int) -> None:
        self.identities = identities(pool)
        self.key = DealtKey(t, self.identities[:n], owner_id=OWNER.address)
        self.key_id = self.key.key_id_of(self.key.public_key)
        #: What a node's receipts say instead of the truth.
        self.lies: dict[int, dict[str, Any]] = {}
        #: The nodes that refuse everything, and the code with which they do.
        self.down: set[int] = set()
        self.refusal = NodeCode.INTERNAL_ERROR
        #: The nodes that never answer, and to what.
        self.silent: dict[int, str] = {}

    async def change(
        self,
        action: Any,
        threshold: Threshold | None = None,
        *,
        patience_s: float = 0.1,
        timeout_s: float = 5,
        wallet: LocalWallet = OWNER,
    ) -> EphemeralKeyReport:
        places = {identity.operator: place for place, identity in enumerate(self.identities)}
        self.network = network = NodeNetwork(
            [NodeEndpoint(f"ws://127.0.0.1:{9000 + i}/v1/rpc", o) for o, i in places.items()],
            transport_for=lambda endpoint: InMemoryTransport(self._handler(places[endpoint.operator])),
            timeouts=evolve(QUICK, patience_s=patience_s),
            retry=NO_WAIT,
        )
        change = EphemeralKeyChange(
            request_id=RequestId("0x" + "ab" * 32),
            action=action,
            key_id=self.key_id,
            owner_id=OWNER.address,
            claim=CLAIM,
            threshold=threshold,
        )
        run = network.add_ephemeral_key if action == "add" else network.revoke_ephemeral_key
        try:
            return await run(change, EoaAuth(wallet), deadline=Deadline(timeout_s))
        finally:
            await network.aclose()

    def _handler(self, place: int) -> Any:
        identity = self.identities[place]

        async def handle(method: str, params: Any) -> Any:
            if place in self.down:
                raise RpcError(self.refusal, "down")
            if self.silent.get(place, "none") in method:
                await asyncio.Event().wait()
            if method == "dan_challenge":
                return {"nonce": "0x" + "0a" * 32, "expiresAt": 2**33}
            claims = ChangeClaims(
                request_id=params["requestId"],
                key_id=self.key_id,
                t=self.key.threshold.t,
                n=self.key.threshold.n,
                public_key=self.key.public_key,
                participants=self.key.participants,
                keygen_id=self.key.request_id,
                operation=OPERATIONS[method],
                eph_id=CLAIM.eph_id,
            )
            honest = ChangeReceipt.make(
                claims,
                operator=identity.operator,
                party_index=params["participants"].index(identity.operator) + 1,
                sign=identity.sign,
            )
            return to_json(resigned(altered(honest, **self.lies.get(place, {})), identity))

        return handle


@pytest.mark.parametrize(
    ("t", "n", "action", "needed"),
    [(2, 3, "add", 2), (2, 3, "revoke", 2), (3, 5, "add", 3), (3, 5, "revoke", 3), (4, 5, "revoke", 2)],
)
@pytest.mark.parametrize(
    "said", [None, Threshold(5, 5), Threshold(2, 20)], ids=["unknown", "5-of-5", "2-of-20"]
)
async def test_how_many_must_confirm_is_the_keys_own(
    t: int, n: int, action: str, needed: int, said: Threshold | None
) -> None:
    """t to add, n - t + 1 to revoke: whatever a session says that somebody has changed."""
    nodes = Nodes(t, n, pool=n)
    nodes.down = set(range(needed, n))
    assert len((await nodes.change(action, said)).confirmed_by) == needed
    nodes.down.add(0)
    error = await error_of(nodes.change(action, said))
    assert isinstance(error, QuorumError)
    assert error.threshold == needed


@pytest.mark.parametrize("action", ["add", "revoke"])
async def test_a_network_that_is_closed_meanwhile_says_so(action: str) -> None:
    """And blames no node."""
    nodes = Nodes(2, 3, pool=3)

    class Closing(LocalWallet):
        async def sign_typed_data(self, typed_data: Any) -> str:
            await nodes.network.aclose()
            return await super().sign_typed_data(typed_data)

    with pytest.raises(ClientClosedError):
        await nodes.change(action, wallet=Closing("0x" + "00" * 31 + "07"))


@pytest.mark.parametrize("action", ["add", "revoke"])
@pytest.mark.parametrize("said", [None, Threshold(3, 5)], ids=["unknown", "known"])
async def test_silent_nodes_keep_no_change_waiting(action: str, said: Threshold | None) -> None:
    """One never gives a nonce, another never confirms: the others are enough, and have not until the deadline to say so."""
    nodes = Nodes(3, 5, pool=5)
    nodes.silent = {0: "challenge", 1: "ephemeral_key"}
    with assert_runs_under(2.5):  # three attempts take three seconds
        assert len((await nodes.change(action, said)).confirmed_by) == 3
        report = await nodes.change(action, said, patience_s=60, timeout_s=0.4)  # half of it at most
        assert len(report.confirmed_by) == 3


@pytest.mark.parametrize(
    "lie",
    [
        {"threshold": Threshold(5, 5)},
        {"threshold": Threshold(2, 5)},
        {"t": 2, "n": 2, "participants": "first two"},
        {"participants": "others"},
        {"public_key": DealtKey(2, identities(2)).public_key},
        {"keygen_id": RequestId("0x" + "cd" * 32)},
        {"key_id": "cd" * 32},
        {"operation": "addEphemeralKey"},
        {"eph_id": "other"},
    ],
    ids="+".join,
)
async def test_liars_neither_lower_the_count_nor_are_counted(lie: dict[str, Any]) -> None:
    """Two of 3-of-5 say the same about another key: the two others that are there are one too few, and the two are named."""
    nodes = Nodes(3, 5, pool=5)
    chosen = {"first two": nodes.key.participants[:2], "others": tuple(i.operator for i in identities(5))}
    changed = {
        name: chosen.get(value, value) if isinstance(value, str) else value for name, value in lie.items()
    }
    nodes.lies, nodes.down = {0: changed, 1: changed}, {4}
    error = await error_of(nodes.change("revoke"))
    assert isinstance(error, QuorumError)
    assert (error.threshold, str(error).startswith("2 nodes confirmed revokeEphemeralKey, at least 3")) == (
        3,
        True,
    )
    liars = [o.operator for o in error.outcomes if isinstance(o.error, NodeProtocolError)]
    assert set(liars) == {nodes.identities[0].operator, nodes.identities[1].operator}
    nodes.down = set()
    assert len((await nodes.change("revoke")).confirmed_by) == 3


@pytest.mark.parametrize("action", ["add", "revoke"])
@pytest.mark.parametrize(
    ("refusal", "is_worth_it"),
    [
        (NodeCode.INTERNAL_ERROR, True),
        (NodeCode.CHALLENGE_EXPIRED, True),
        (NodeCode.REQUEST_CONFLICT, False),
        (NodeCode.UNKNOWN_KEY, False),
    ],
)
async def test_what_nodes_refuse_for_good_is_not_worth_repeating(
    action: str, refusal: NodeCode, *, is_worth_it: bool
) -> None:
    """A program that goes by *retryable* does not try for ever to add a key that was revoked."""
    nodes = Nodes(2, 3, pool=3)
    nodes.down, nodes.refusal = {0, 1}, refusal
    error = await error_of(nodes.change(action))
    assert isinstance(error, QuorumError)
    assert (error.retryable, "is safe" in error.hint, "does not help" in error.hint) == (
        is_worth_it,
        is_worth_it,
        not is_worth_it,
    )


async def test_who_holds_no_share_does_not_count() -> None:
    """A node of the pool that is no party of the key cannot confirm that it is revoked, however well it knows the key."""
    nodes = Nodes(2, 3, pool=5)
    nodes.down = {0, 1}
    error = await error_of(nodes.change("revoke"))
    assert isinstance(error, QuorumError)
    assert error.threshold == 2

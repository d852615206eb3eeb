"""NodeNetwork over scripted nodes: selection, replacement, restart, verdicts, errors."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from attrs import evolve

from dan_async._values import to_hex
from dan_async.config import NodeEndpoint, Threshold, TransportOptions
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    DeadlineExceededError,
    InsecureTransportError,
    InvalidFieldError,
    NodeCode,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnreachableError,
    QuorumError,
    RateLimitedError,
    RequestTimeoutError,
    RpcError,
)
from dan_async.events import Event, NodeDown
from dan_async.network import KeygenRequest
from dan_async.nodes import NodeNetwork
from dan_async.nodes.node import Node
from dan_async.protocols.node import identity_digest, restarted_request_id
from dan_async.protocols.setups import EphemeralClaim
from dan_async.retry import RetryPolicy
from dan_async.wallets import CallbackWallet, LocalWallet
from dan_async.wallets.base import EoaAuth
from tests.fake_nodes import OWNER, QUICK, REQUEST_ID, FakeNetwork, Identity

OWNER_KEY = "0x" + "00" * 31 + "01"


def request(t: int, n: int, **changes: Any) -> KeygenRequest:
    key = EphemeralKey.generate()
    claim = EphemeralClaim(eph_id=key.default_id, eph_pk=key.public_key, expiry=2**33, sign_alg="secp256k1")
    made = KeygenRequest(request_id=REQUEST_ID, owner_id=OWNER, threshold=Threshold(t, n), claim=claim)
    return evolve(made, **changes)


def auth(*, interactive: bool = False) -> EoaAuth:
    wallet = LocalWallet(OWNER_KEY)
    if not interactive:
        return EoaAuth(wallet)
    return EoaAuth(CallbackWallet(wallet.address, wallet.sign_typed_data, interactive=True))


async def keygen(
    fake: FakeNetwork, asked: KeygenRequest, *, interactive: bool = False, **options: Any
) -> Any:
    network = fake.network(**options)
    try:
        return await network.keygen(asked, auth(interactive=interactive), deadline=Deadline(5))
    finally:
        await network.aclose()


async def refuse_connections(method: str, params: Any) -> Any:
    raise ConnectError("nobody listens")


def fail(method: str, error: Exception) -> Any:
    async def misbehave(called: str, params: Any) -> Any:
        if called == method:
            raise error
        return None

    return misbehave


async def test_a_keygen() -> None:
    """Every node is asked twice, the owner once, and the report has the key."""
    fake = FakeNetwork(3, 5)
    report = await keygen(fake, request(3, 5))
    assert report.threshold == Threshold(3, 5)
    assert len(fake.called("dan_challenge")) == len(fake.called("dan_keygen")) == 5
    assert [o.is_success for o in report.outcomes] == [True] * 5
    params = [params for _, method, params in fake.calls if method == "dan_keygen"]
    assert all(p == params[0] for p in params)


async def test_a_silent_node_is_replaced_before_the_wallet_is_asked() -> None:
    """A pool of four with one down still makes a 2-of-3 key, with one signature."""
    fake = FakeNetwork(2, 4)
    fake.misbehaviour[fake.operator(1)] = refuse_connections
    report = await keygen(fake, request(2, 3), interactive=True)
    assert fake.operator(1) not in fake.called("dan_keygen")
    assert len(report.outcomes) == 3


async def test_without_a_spare_nothing_is_signed() -> None:
    """n - 1 nodes and no min_parties: an error that names the node, before the wallet is asked."""
    fake = FakeNetwork(2, 3)
    fake.misbehaviour[fake.operator(2)] = refuse_connections
    with pytest.raises(QuorumError, match="2 nodes are ready") as caught:
        await keygen(fake, request(2, 3), interactive=True)
    assert {o.operator: o.is_success for o in caught.value.nodes} == {
        fake.operator(1): True,
        fake.operator(2): False,
        fake.operator(3): True,
    }
    (failed,) = [o for o in caught.value.nodes if not o.is_success]
    assert (failed.attempts, failed.step) == (3, "challenge")
    assert "Allow fewer with min_parties" in caught.value.hint
    assert not fake.called("dan_keygen")
    fake.misbehaviour[fake.operator(3)] = refuse_connections
    with pytest.raises(QuorumError, match="1 node is ready") as caught:
        await keygen(fake, request(2, 3), interactive=True)
    assert "min_parties" not in caught.value.hint  # fewer than t would not do


async def test_a_node_that_hangs_until_the_deadline_has_failed() -> None:
    """Though that is shorter than an attempt's limit: the error names its timeout, and it rests before the next call."""

    async def hang(method: str, params: Any) -> Any:
        await asyncio.Event().wait()

    fake = FakeNetwork(2, 3)
    for index in (1, 2):
        fake.misbehaviour[fake.operator(index)] = hang
    network = fake.network()
    for calls in (1, 2, 3):
        with pytest.raises(QuorumError) as caught:
            await network.keygen(request(2, 3), auth(), deadline=Deadline(0.1))
        errors = [outcome.error for outcome in caught.value.nodes if not outcome.is_success]
        assert [type(error) for error in errors] == [NodeTimeoutError, NodeTimeoutError]
        failures = {node.operator: node.health.failures for node in network.pool.nodes}
        assert failures == {fake.operator(1): calls, fake.operator(2): calls, fake.operator(3): 0}
    await network.aclose()


async def test_min_parties_allows_a_smaller_set() -> None:
    """With min_parties the key is made by the nodes that are there, and n says so."""
    fake = FakeNetwork(2, 3)
    fake.misbehaviour[fake.operator(2)] = refuse_connections
    report = await keygen(fake, request(2, 3, min_parties=2), interactive=True)
    assert report.threshold == Threshold(2, 2)
    assert {o.operator for o in report.outcomes} == {fake.operator(1), fake.operator(3)}


async def test_a_dead_node_rests() -> None:
    """After a failure another node of the pool is preferred, and the dead one is not asked again at once."""
    fake = FakeNetwork(2, 4)
    fake.misbehaviour[fake.operator(1)] = refuse_connections
    network = fake.network()
    for _ in range(3):
        await network.keygen(request(2, 3), auth(), deadline=Deadline(5))
    assert fake.called("dan_challenge").count(fake.operator(1)) == 3  # one call with its retries
    await network.aclose()


async def test_n_minus_t_nodes_may_lose_their_reply() -> None:
    """After the key is made, t acknowledgements are enough."""
    fake = FakeNetwork(3, 5)
    for index in (1, 4):
        fake.misbehaviour[fake.operator(index)] = fail("dan_keygen", ConnectError("cut"))
    report = await keygen(fake, request(3, 5))
    assert sum(o.is_success for o in report.outcomes) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"transcript_hash": bytes(32)}, None),
        ({"key_id": "00" * 32}, "key id is not the hash"),
        ({"party_index": 3}, "claims index 3"),
    ],
)
async def test_a_lying_node_is_outvoted_and_named(
    changes: dict[str, Any], reason: str | None, caplog: Any
) -> None:
    """One lie among three costs a log line."""
    fake = FakeNetwork(2, 3)
    liar = fake.operator(1)

    async def lie(method: str, params: Any) -> Any:
        return fake.acknowledge(liar, params, **changes) if method == "dan_keygen" else None

    fake.misbehaviour[liar] = lie
    with caplog.at_level(logging.WARNING, logger="dan_async"):
        report = await keygen(fake, request(2, 3))
    assert report.threshold == Threshold(2, 3)
    if reason:
        assert reason in caplog.text
        assert liar in caplog.text


async def test_past_a_quorum_every_node_is_named() -> None:
    """t liars: no key, and the error says what each node did."""
    fake = FakeNetwork(2, 3)
    for index in (1, 2):
        fake.misbehaviour[fake.operator(index)] = fail(
            "dan_keygen", RpcError(NodeCode.WRONG_OWNER, "not signed by the owner")
        )
    with pytest.raises(QuorumError) as caught:
        await keygen(fake, request(2, 3), interactive=True)
    text = str(caught.value)
    assert all(fake.operator(index) in text for index in (1, 2))
    assert isinstance(caught.value.nodes[0].error, NodeRefusedError)
    assert caught.value.nodes[0].error.code == NodeCode.WRONG_OWNER


async def test_restart_leaves_out_the_culprit() -> None:
    """A failed key generation is started again without the node that the others blame, for a wallet nobody looks at."""
    fake = FakeNetwork(2, 4)
    culprit = fake.operator(1)
    blame = RpcError(NodeCode.KEYGEN_FAILED, "wrong share", {"culprits": [culprit]})

    def complain(operator: str) -> Any:
        async def misbehave(method: str, params: Any) -> Any:
            if method == "dan_keygen" and culprit in params["participants"]:
                raise blame
            return None

        return misbehave

    for index in range(1, 5):
        fake.misbehaviour[fake.operator(index)] = complain(fake.operator(index))
    report = await keygen(fake, request(2, 3))
    assert culprit not in {o.operator for o in report.outcomes}
    assert report.request_id == restarted_request_id(REQUEST_ID, 1)


async def test_a_person_is_asked_only_once() -> None:
    """The same failure with an interactive wallet is an error, not a second prompt."""
    fake = FakeNetwork(2, 3)
    prompts = 0
    inner = LocalWallet(OWNER_KEY)

    async def prompt(typed_data: Any) -> str:
        nonlocal prompts
        prompts += 1
        return await inner.sign_typed_data(typed_data)

    for index in (1, 2, 3):
        fake.misbehaviour[fake.operator(index)] = fail(
            "dan_keygen", RpcError(NodeCode.KEYGEN_FAILED, "a peer is silent")
        )
    network = fake.network()
    wallet = CallbackWallet(inner.address, prompt, interactive=True)
    with pytest.raises(QuorumError, match="0 of 3"):
        await network.keygen(request(2, 3), EoaAuth(wallet), deadline=Deadline(5))
    assert prompts == 1
    await network.aclose()


async def test_a_retry_sends_the_very_same_request() -> None:
    """A lost reply is asked for again under the same request id, with the same content."""
    fake = FakeNetwork(2, 2)
    lost: list[Any] = []

    async def lose_first(method: str, params: Any) -> Any:
        if method == "dan_keygen" and not lost:
            lost.append(params)
            raise ConnectError("cut")
        return None

    fake.misbehaviour[fake.operator(1)] = lose_first
    report = await keygen(fake, request(2, 2))
    again = [p for o, m, p in fake.calls if m == "dan_keygen" and o == fake.operator(1)]
    assert again == [lost[0], lost[0]]
    assert report.outcomes[0].attempts == 2


async def test_refusals_are_not_retried() -> None:
    """A refused signature will not get better: one attempt."""
    fake = FakeNetwork(2, 2)
    fake.misbehaviour[fake.operator(1)] = fail("dan_challenge", RpcError(NodeCode.UNSUPPORTED, "no"))
    with pytest.raises(QuorumError) as caught:
        await keygen(fake, request(2, 2))
    (failed,) = [o for o in caught.value.nodes if not o.is_success]
    assert (failed.attempts, failed.code) == (1, NodeCode.UNSUPPORTED)


async def test_rate_limits_are_waited_for() -> None:
    """Retry-After sets the wait."""
    fake = FakeNetwork(2, 2)
    waits: list[float] = []
    busy = [RpcError(NodeCode.RATE_LIMITED, "slow down", {"retryAfter": 3})]

    async def limited(method: str, params: Any) -> Any:
        if busy:
            raise busy.pop()
        return None

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    fake.misbehaviour[fake.operator(1)] = limited
    await keygen(fake, request(2, 2), retry=RetryPolicy(sleep=sleep))
    assert waits == [3.0]


@pytest.mark.parametrize(
    ("error", "rests"),
    [
        (RpcError(NodeCode.RATE_LIMITED, "slow down", {"retryAfter": 0}), False),
        (ConnectError("slow down", status=429, retry_after=0.01), False),
        (ConnectError("not now", status=503, retry_after=0.01), True),
        (RpcError(NodeCode.UNAVAILABLE, "not now"), True),
    ],
    ids=["slow down", "HTTP 429", "HTTP 503", "unavailable"],
)
async def test_a_node_that_asks_to_slow_down_has_not_failed(error: Exception, rests: bool) -> None:
    """However often it does: it does not rest. One that is not available does."""
    fake = FakeNetwork(2, 2)
    fake.misbehaviour[fake.operator(1)] = fail("dan_challenge", error)
    heard: list[Event] = []
    with pytest.raises(QuorumError) as caught:
        await keygen(fake, request(2, 2), on_event=heard.append)
    assert caught.value.nodes[0].attempts == 3
    assert any(isinstance(event, NodeDown) for event in heard) is rests


@pytest.mark.parametrize(
    ("status", "kind"), [(None, NodeUnreachableError), (429, RateLimitedError), (503, RateLimitedError)]
)
async def test_only_the_node_itself_limits_its_rate(status: int | None, kind: type) -> None:
    """That we leave an unreachable node alone for a while is not taken for a wish of the node's."""
    fake = FakeNetwork(2, 2)
    error = ConnectError("left alone", status=status, retry_after=0.01)
    fake.misbehaviour[fake.operator(1)] = fail("dan_challenge", error)
    with pytest.raises(QuorumError) as caught:
        await keygen(fake, request(2, 2))
    assert type(caught.value.nodes[0].error) is kind


async def test_the_deadline_cuts_a_hung_attempt() -> None:
    """Nodes that never answer cost the deadline and no more."""
    fake = FakeNetwork(2, 2)

    async def hang(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            await asyncio.Event().wait()

    for index in (1, 2):
        fake.misbehaviour[fake.operator(index)] = hang
    network = fake.network(timeouts=evolve(QUICK, attempt_s=60))
    with pytest.raises(DeadlineExceededError, match="waiting for the nodes to generate the key"):
        await network.keygen(request(2, 2), auth(), deadline=Deadline(0.1))
    await network.aclose()


@pytest.mark.parametrize(
    "answer",
    [None, 1, [], {}, {"nonce": "0x00", "expiresAt": 1}, {"nonce": "0x" + "00" * 32, "expiresAt": "1"}],
)
async def test_a_malformed_challenge_is_that_nodes_error(answer: Any) -> None:
    """What the protocol does not allow is a NodeProtocolError of the node, not a crash."""
    fake = FakeNetwork(2, 2)

    async def nonsense(method: str, params: Any) -> Any:
        return answer if answer is not None else "null"

    fake.misbehaviour[fake.operator(2)] = nonsense
    with pytest.raises(QuorumError) as caught:
        await keygen(fake, request(2, 2))
    (failed,) = [o for o in caught.value.nodes if not o.is_success]
    assert isinstance(failed.error, NodeProtocolError)
    assert failed.attempts == 1


async def test_health_reports_and_never_raises() -> None:
    """A node that is down is a line in the report; a live one shows latency and clock skew."""
    fake = FakeNetwork(2, 3)
    fake.misbehaviour[fake.operator(3)] = fail("dan_health", RequestTimeoutError("no answer"))
    network = fake.network(clock=lambda: 1_700_000_060.0)
    health = await network.health(timeout_s=1)
    assert health.live == 2
    by_name = {node.name: node for node in health.nodes}
    assert "no answer" in by_name[fake.operator(3)].problem
    skew = by_name[fake.operator(1)].clock_skew_s
    assert skew is not None
    assert -61 < skew < -59
    await network.aclose()


@pytest.mark.parametrize("moment", [10**400, -(10**400), 2**53, None, True, "now", 1.5])
async def test_health_reports_a_clock_that_is_none(moment: Any) -> None:
    """A node may claim any time at all: it is a line in the report, and the others are live."""
    fake = FakeNetwork(2, 3)

    async def claim(method: str, params: Any) -> Any:
        del params
        return {"time": moment} if method == "dan_health" else None

    fake.misbehaviour[fake.operator(3)] = claim
    network = fake.network()
    health = await network.health(timeout_s=1)
    assert health.live == 2
    (liar,) = (node for node in health.nodes if node.name == fake.operator(3))
    assert "an impossible time" in liar.problem
    await network.aclose()


async def test_a_closed_network_says_so() -> None:
    """After aclose() a keygen is refused with a clear error."""
    fake = FakeNetwork(2, 2)
    network = fake.network()
    await network.aclose()
    await network.aclose()
    with pytest.raises(ClientClosedError):
        await network.keygen(request(2, 2), auth(), deadline=Deadline(1))


@pytest.mark.parametrize(
    ("nodes", "error"),
    [
        ([], "at least one node"),
        ("ws://127.0.0.1=0x00", "must be a list"),
        (3, "must be a list"),
        ([3], "must be a NodeEndpoint"),
        (["nonsense"], "URL=OPERATOR"),
        ([{"url": "ws://127.0.0.1"}], "must be a NodeEndpoint"),
        ([("ftp://127.0.0.1=" + OWNER)], "begins with"),
        (["ws://127.0.0.1=0x1234"], "operator must be an address"),
        (["ws://127.0.0.1/=" + OWNER] * 2, "names an operator twice"),
    ],
)
def test_wrong_nodes(nodes: Any, error: str) -> None:
    """Each wrong way to name nodes has its own clear error."""
    with pytest.raises(InvalidFieldError, match=error):
        NodeNetwork(nodes)


def test_plain_websockets_only_to_loopback() -> None:
    """ws:// to another host is refused before anything is opened."""
    with pytest.raises(InsecureTransportError, match="not loopback"):
        NodeNetwork(["ws://node.example/v1/rpc=" + OWNER])


def test_credentials_in_a_url_stay_out_of_repr() -> None:
    """A URL's user, password and query are never shown."""
    endpoint = NodeEndpoint("wss://user:hunter2@node.example/v1?key=hunter2", OWNER)
    assert "hunter2" not in repr(endpoint) + repr(NodeNetwork([endpoint]))


async def test_too_small_a_pool() -> None:
    """Asking for more parties than there are nodes is refused before anything is sent."""
    fake = FakeNetwork(2, 3)
    with pytest.raises(InvalidFieldError, match="parties_number asks for 4 nodes, but the network has 3"):
        await keygen(fake, request(2, 4))
    assert not fake.calls


async def test_another_operator_is_found_out_on_connecting() -> None:
    """A node that cannot sign with the pinned operator's key is not talked to."""
    pinned, outsider = Identity(), Identity()
    endpoint = NodeEndpoint("ws://127.0.0.1:1/v1/rpc", pinned.operator)
    node = Node(endpoint, options=TransportOptions(), timeouts=QUICK, retry=RetryPolicy())

    def answering(identity: Identity, name: str) -> Any:
        async def call(method: str, params: str, *, timeout_s: float) -> Any:
            nonce = bytes.fromhex(json.loads(params)["nonce"][2:])
            digest = identity_digest(operator=pinned.operator, nonce=nonce, time_ms=5)
            return {
                "protocol": "dan-node/1",
                "operator": name,
                "time": 5,
                "signature": to_hex(identity.sign(digest)),
            }

        return call

    await node._identify(answering(pinned, pinned.operator))
    with pytest.raises(NodeProtocolError, match="could not prove"):
        await node._identify(answering(outsider, pinned.operator))
    with pytest.raises(NodeProtocolError, match=f"the node is operator {outsider.operator}"):
        await node._identify(answering(outsider, outsider.operator))
    await node.aclose()

"""What both networks tell: which events, in which order, and what they say."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.config import Threshold, Timeouts
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.errors import (
    ConnectError,
    DanError,
    DeadlineExceededError,
    GatewayError,
    InvalidFieldError,
    NodeCode,
    NodeTimeoutError,
    QuorumError,
    RpcError,
    WalletError,
)
from dan_async.events import (
    AttemptAbandoned,
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    NodeDown,
    NodeUp,
    Observable,
    OperationFinished,
    OperationRestarted,
    OperationStarted,
    RetryScheduled,
    Verdict,
    WalletAnswered,
    WalletAsked,
)
from dan_async.listeners import Attempts, EventHub, operation
from dan_async.network import KeygenRequest, Network
from dan_async.nodes import RestPolicy
from dan_async.nodes.health import HealthRecord, NodeUpDown
from dan_async.protocols.setups import EphemeralClaim
from dan_async.retry import RetryPolicy
from dan_async.types import OperatorAddress, RequestId
from dan_async.wallets import CallbackWallet
from dan_async.wallets.base import EoaAuth
from tests.fake_nodes import NO_WAIT, OWNER, REQUEST_ID, FakeNetwork
from tests.gateway_server import CountingWallet, Visit, at_challenge, at_result, honest, run, scripted
from tests.helpers import ManualClock

WALLET = LocalWallet("0x" + "00" * 31 + "01")
NODE = OperatorAddress("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")


def request(t: int, n: int) -> KeygenRequest:
    key = EphemeralKey.generate()
    claim = EphemeralClaim(eph_id=key.default_id, eph_pk=key.public_key, expiry=2**33, sign_alg="secp256k1")
    return KeygenRequest(request_id=REQUEST_ID, owner_id=OWNER, threshold=Threshold(t, n), claim=claim)


async def keygen(fake: FakeNetwork, *, n: int = 3, wallet: Any = WALLET, **options: Any) -> list[Event]:
    """Run a keygen, which may fail, and give what was told."""
    heard: list[Event] = []
    network = fake.network(on_event=heard.append, **options)
    try:
        with contextlib.suppress(DanError):
            await network.keygen(request(fake.t, n), EoaAuth(wallet), deadline=Deadline(5))
    finally:
        await network.aclose()
    return heard


def of(kind: type[Any], heard: list[Event]) -> list[Any]:
    return [event for event in heard if type(event) is kind]


def kinds(heard: list[Event]) -> Counter[str]:
    return Counter(type(event).__name__ for event in heard)


# --- over the nodes ---------------------------------------------------------------------------------------------------


async def test_a_keygen_over_nodes() -> None:
    """The operation, two attempts at each node, the wallet's turn, the verdict: nothing more."""
    fake = FakeNetwork(2, 3)
    heard = await keygen(fake)
    assert kinds(heard) == {
        "OperationStarted": 1,
        "AttemptStarted": 6,
        "AttemptSucceeded": 6,
        "WalletAsked": 1,
        "WalletAnswered": 1,
        "Verdict": 1,
        "OperationFinished": 1,
    }
    assert heard[0] == OperationStarted(request_id=REQUEST_ID, operation="keygen", network="nodes")
    last = heard[-1]
    assert isinstance(last, OperationFinished)
    assert (last.operation, last.error, last.code) == ("keygen", None, None)
    assert 0 < last.elapsed_s < 5
    assert {event.request_id for event in heard} == {REQUEST_ID}
    steps = [event.name for event in heard if event.name.startswith(("wallet", "verdict"))]
    assert steps == ["wallet_asked", "wallet_answered", "verdict"]


async def test_each_attempt_ends_once() -> None:
    """Every start has its end, with the same node, method and number."""
    fake = FakeNetwork(2, 3)
    heard = await keygen(fake)
    started = [(e.node, e.method, e.attempt) for e in of(AttemptStarted, heard)]
    ended = [(e.node, e.method, e.attempt) for e in of(AttemptSucceeded, heard)]
    assert sorted(started) == sorted(ended)
    assert {(node, method) for node, method, _ in started} == {
        (fake.operator(i), method) for i in (1, 2, 3) for method in ("dan_challenge", "dan_keygen")
    }


async def test_the_verdict_of_a_key() -> None:
    """Who agrees on what."""
    (verdict,) = of(Verdict, await keygen(FakeNetwork(2, 3)))
    assert (verdict.operation, verdict.is_won, verdict.threshold, verdict.parties) == ("keygen", True, 2, 3)
    assert (verdict.agreed, verdict.failed) == (3, ())
    assert len(verdict.key_id) == 64
    assert verdict.elapsed_s > 0


async def test_a_liar_is_named_in_the_verdict() -> None:
    """An answer that could be read is a successful attempt; the verdict says that it does not count."""
    fake = FakeNetwork(2, 3)

    async def lie(method: str, params: Any) -> Any:
        return (
            fake.acknowledge(fake.operator(2), params, transcript_hash=b"\1" * 32, party_index=3)
            if method == "dan_keygen"
            else None
        )

    fake.misbehaviour[fake.operator(2)] = lie
    heard = await keygen(fake, timeouts=Timeouts(total_s=5, grace_s=1))
    (verdict,) = of(Verdict, heard)
    assert (verdict.is_won, verdict.agreed, verdict.failed) == (True, 2, (fake.operator(2),))
    assert not of(AttemptFailed, heard)


async def test_failures_retries_and_a_node_that_goes_down() -> None:
    """Each failed attempt, each wait, and one NodeDown, however often the node fails."""
    fake = FakeNetwork(2, 3)

    async def refuse(method: str, params: Any) -> Any:
        raise ConnectError("nobody listens", status=503)

    fake.misbehaviour[fake.operator(1)] = refuse
    heard = await keygen(fake)
    failed = of(AttemptFailed, heard)
    assert [(e.node, e.attempt, e.error, e.is_retryable) for e in failed] == [
        (fake.operator(1), attempt, "NodeUnreachableError", True) for attempt in (1, 2, 3)
    ]
    assert [(e.attempt, e.wait_s <= 0.001, e.error) for e in of(RetryScheduled, heard)] == [
        (attempt, True, "NodeUnreachableError") for attempt in (1, 2)
    ]
    (down,) = of(NodeDown, heard)
    assert (down.node, down.failures) == (fake.operator(1), 1)
    assert down.rest_s > 0
    (finished,) = of(OperationFinished, heard)
    assert (finished.error, finished.phase) == ("QuorumError", "challenge")
    assert not of(WalletAsked, heard)


async def test_a_refusal_has_a_code() -> None:
    """The node protocol's number, and no word of the node's."""
    fake = FakeNetwork(2, 3)

    async def refuse(method: str, params: Any) -> Any:
        raise RpcError(NodeCode.UNAVAILABLE, "words of the node")

    fake.misbehaviour[fake.operator(3)] = refuse
    heard = await keygen(fake)
    assert [(e.error, e.code) for e in of(AttemptFailed, heard)] == [
        ("NodeRefusedError", NodeCode.UNAVAILABLE)
    ] * 3
    assert "words" not in repr(heard)


async def test_a_node_that_is_not_waited_for() -> None:
    """The quorum does without a stalled node: its attempt is abandoned, which is no failure."""
    fake = FakeNetwork(2, 3)

    async def stall(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            await asyncio.get_running_loop().create_future()

    fake.misbehaviour[fake.operator(2)] = stall
    heard = await keygen(fake)
    (abandoned,) = of(AttemptAbandoned, heard)
    assert (abandoned.node, abandoned.method, abandoned.attempt) == (fake.operator(2), "dan_keygen", 1)
    assert not of(AttemptFailed, heard)
    (verdict,) = of(Verdict, heard)
    assert (verdict.is_won, verdict.failed) == (True, (fake.operator(2),))


async def test_a_restart_says_the_new_id() -> None:
    """The events that follow carry it; the operation keeps its own."""
    fake = FakeNetwork(2, 4)

    async def fail_once(method: str, params: Any) -> Any:
        if method == "dan_keygen" and params["requestId"] == REQUEST_ID:
            raise RpcError(NodeCode.KEYGEN_FAILED, "a party misbehaved")

    for index in (1, 2, 3, 4):
        fake.misbehaviour[fake.operator(index)] = fail_once
    heard = await keygen(fake)
    (restarted,) = of(OperationRestarted, heard)
    assert (restarted.request_id, restarted.restart) == (REQUEST_ID, 1)
    lost, won = of(Verdict, heard)
    assert (lost.request_id, lost.is_won, lost.key_id) == (REQUEST_ID, False, None)
    assert (won.request_id, won.is_won) == (restarted.new_request_id, True)
    (finished,) = of(OperationFinished, heard)
    assert (finished.request_id, finished.error) == (REQUEST_ID, None)
    assert len(of(WalletAsked, heard)) == 2


async def test_a_wallet_that_refuses() -> None:
    """The class of the error, and the operation's end."""

    async def refuse(typed_data: Any) -> str:
        raise WalletError("no, and here is a secret")

    heard = await keygen(FakeNetwork(2, 3), wallet=CallbackWallet(WALLET.address, refuse, interactive=True))
    (asked,), (answered,) = of(WalletAsked, heard), of(WalletAnswered, heard)
    assert asked.is_interactive
    assert answered.error == "WalletError"
    assert of(OperationFinished, heard)[0].error == "WalletError"
    assert "secret" not in repr(heard)


async def test_cancellation_ends_everything_that_was_begun() -> None:
    """Each attempt and the operation itself."""
    fake, heard = FakeNetwork(2, 3), list[Event]()
    stalled = asyncio.Event()

    async def stall(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            stalled.set()
            await asyncio.get_running_loop().create_future()

    for index in (1, 2, 3):
        fake.misbehaviour[fake.operator(index)] = stall
    network = fake.network(on_event=heard.append)
    task = asyncio.create_task(network.keygen(request(2, 3), EoaAuth(WALLET), deadline=Deadline(5)))
    await stalled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await network.aclose()
    assert len(of(AttemptStarted, heard)) == len(of(AttemptSucceeded, heard)) + len(
        of(AttemptAbandoned, heard)
    )
    assert of(OperationFinished, heard)[0].error == "CancelledError"


async def test_a_health_check_belongs_to_no_request() -> None:
    """Its attempts have no request id, and there is no operation around them."""
    heard: list[Event] = []
    network = FakeNetwork(2, 3).network(on_event=heard.append)
    await network.health()
    await network.aclose()
    assert kinds(heard) == {"AttemptStarted": 3, "AttemptSucceeded": 3}
    assert {event.request_id for event in heard} == {None}


async def test_a_broken_hook_breaks_no_keygen() -> None:
    """Whatever it raises, the key is made."""

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    network = FakeNetwork(2, 3).network(on_event=broken)
    report = await network.keygen(request(2, 3), EoaAuth(WALLET), deadline=Deadline(5))
    await network.aclose()
    assert len(report.outcomes) == 3


# --- over a gateway ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_keygen_over_a_gateway(version: str) -> None:
    """The operation, one attempt at the gateway, the wallet's turn."""
    heard: list[Event] = []
    async with scripted(honest) as gateway:
        await run(gateway, version=version, revision="1", on_event=heard.append)
        where = gateway.url(version)
    assert kinds(heard) == {
        "OperationStarted": 1,
        "AttemptStarted": 1,
        "AttemptSucceeded": 1,
        "WalletAsked": 1,
        "WalletAnswered": 1,
        "OperationFinished": 1,
    }
    (attempt,) = of(AttemptSucceeded, heard)
    assert (attempt.node, attempt.method, attempt.attempt) == (where, "keygen", 1)
    assert heard[0].to_dict()["network"] == "gateway"
    assert len({event.request_id for event in heard}) == 1


async def test_a_gateway_that_fails_at_first() -> None:
    """The failed attempt with code and phase, the wait, the second one."""
    heard: list[Event] = []
    visits: list[Visit] = []

    async def script(visit: Visit) -> None:
        visits.append(visit)
        await (at_challenge(lambda v: v.leave(1012, "restarting")) if len(visits) == 1 else honest)(visit)

    async with scripted(script) as gateway:
        await run(gateway, revision="1", retry=NO_WAIT, on_event=heard.append)
    (failed,) = of(AttemptFailed, heard)
    assert (failed.error, failed.code, failed.phase, failed.is_retryable) == (
        "GatewayError",
        1012,
        "challenge",
        True,
    )
    (wait,) = of(RetryScheduled, heard)
    assert (wait.attempt, wait.error, wait.code) == (1, "GatewayError", 1012)
    assert [e.attempt for e in of(AttemptStarted, heard)] == [1, 2]
    assert "restarting" not in repr(heard)


async def test_a_failure_after_a_person_has_signed() -> None:
    """The attempt has failed, though nothing is raised where attempts are counted."""
    heard: list[Event] = []

    async def leave(visit: Visit) -> None:
        await visit.leave(1011, "broken")

    async with scripted(at_result(leave)) as gateway:
        with pytest.raises(GatewayError):
            await run(gateway, revision="1", wallet=CountingWallet(interactive=True), on_event=heard.append)
    assert [(e.phase, e.is_retryable) for e in of(AttemptFailed, heard)] == [("result", False)]
    assert not of(AttemptSucceeded, heard)
    assert of(OperationFinished, heard)[0].code == 1011


# --- the client -------------------------------------------------------------------------------------------------------


async def test_a_client_hears_of_its_network() -> None:
    """on_event of the client, beside the network's own."""
    own: list[Event] = []
    clients: list[Event] = []
    network = FakeNetwork(2, 3).network(on_event=own.append)
    async with DanClient(network, on_event=clients.append) as dan:
        await dan.generate_session_key(wallet=WALLET, chain_id=1)
    assert own == clients
    assert kinds(own)["Verdict"] == 1


async def test_a_client_hears_of_changed_ephemeral_keys() -> None:
    """Operations that are not key generations have a verdict as well: of those who confirmed."""
    heard: list[Event] = []
    async with DanClient(FakeNetwork(2, 3).network(), on_event=heard.append) as dan:
        session = await dan.generate_session_key(wallet=WALLET, chain_id=1)
        heard.clear()
        with pytest.raises(QuorumError):  # scripted nodes do not know the method
            await dan.revoke_ephemeral_key(session, wallet=WALLET)
    (verdict,) = of(Verdict, heard)
    assert (verdict.operation, verdict.is_won, verdict.agreed, verdict.threshold) == (
        "revokeEphemeralKey",
        False,
        0,
        2,
    )
    assert len(verdict.failed) == verdict.parties == 3
    assert verdict.key_id == session.mpc_key_id


class Source:
    """Has a network to offer."""

    def __init__(self, network: Any) -> None:
        self.network = network

    async def open_network(self) -> Any:
        return self.network

    async def close_network(self) -> None: ...


async def test_a_client_hears_of_a_network_that_comes_later() -> None:
    """A devnet's network is made when the client is opened."""
    heard: list[Event] = []
    async with DanClient(Source(FakeNetwork(2, 3).network()), on_event=heard.append) as dan:
        await dan.network.health()
    assert kinds(heard) == {"AttemptStarted": 3, "AttemptSucceeded": 3}


class Silent(Network):
    """A network of somebody else's, which tells nothing."""


async def test_a_network_that_tells_nothing_is_refused() -> None:
    """Rather than a hook that is never called."""
    assert not isinstance(Silent(), Observable)
    DanClient(Silent())
    with pytest.raises(InvalidFieldError, match="on_event cannot be used with Silent"):
        DanClient(Silent(), on_event=print)


async def test_a_coroutine_function_is_refused_at_once() -> None:
    """Also where the network comes later."""

    async def hook(event: Event) -> None: ...

    with pytest.raises(InvalidFieldError, match="on_event"):
        DanClient(Source(None), on_event=hook)  # type: ignore[arg-type]  # that it is wrong is the point
    with pytest.raises(InvalidFieldError, match="on_event"):
        FakeNetwork(2, 3).network(on_event=hook)


# --- the tools --------------------------------------------------------------------------------------------------------


async def test_nothing_is_wrapped_while_nobody_listens() -> None:
    """The call itself is made."""

    async def call() -> None: ...

    told = Attempts(EventHub(), node=NODE, method="dan_health", request_id=None)
    assert told.watch(call) is call


async def test_attempts_are_counted_over_retries() -> None:
    """With the policy's own waits."""
    heard: list[Event] = []
    told = Attempts(EventHub(heard.append), node=NODE, method="dan_health", request_id="0x01")

    async def call() -> None:
        raise NodeTimeoutError("late")

    policy = RetryPolicy(attempts=2, first_wait_s=0.001, random=lambda: 1.0)
    with pytest.raises(NodeTimeoutError):
        await policy.run(told.watch(call), deadline=Deadline(None), before_sleep=told.before_sleep)
    assert [event.name for event in heard] == [
        "attempt_started",
        "attempt_failed",
        "retry_scheduled",
        "attempt_started",
        "attempt_failed",
    ]
    assert of(RetryScheduled, heard)[0].wait_s == 0.001


def test_who_hears_the_end_has_heard_the_beginning() -> None:
    """A listener that comes in between hears neither."""
    heard: list[Event] = []
    hub = EventHub()
    with operation(hub, RequestId("0x01"), "keygen", "nodes"):
        hub.add(heard.append)
    assert heard == []


def test_an_operation_that_runs_out_of_time() -> None:
    """The error's class and phase."""
    heard: list[Event] = []
    with pytest.raises(DeadlineExceededError):
        with operation(EventHub(heard.append), RequestId("0x01"), "keygen", "gateway"):
            raise DeadlineExceededError("late", phase="result")
    finished = heard[1]
    assert isinstance(finished, OperationFinished)
    assert (finished.error, finished.phase) == ("DeadlineExceededError", "result")


def test_down_and_up_are_told_once() -> None:
    """Failing on, resting, being probed and failing again changes nothing; the first success does."""
    clock, heard = ManualClock(), list[Event]()
    record = HealthRecord(RestPolicy(first_s=1, clock=clock, random=lambda: 1.0))
    record.on_change = NodeUpDown(record, NODE, EventHub(heard.append))
    record.failed(record.begin())
    for _ in range(2):
        clock.advance(100)
        record.failed(record.begin())
    clock.advance(100)
    asked = record.begin()
    assert record.state == "probing"
    record.succeeded(asked)
    record.succeeded(record.begin())
    record.failed(record.begin())
    assert heard == [
        NodeDown(node=NODE, failures=1, rest_s=1),
        NodeUp(node=NODE, failures=3),
        NodeDown(node=NODE, failures=1, rest_s=1),
    ]


def test_a_probe_that_is_given_up_is_no_news() -> None:
    """The node was down and still is."""
    clock, heard = ManualClock(), list[Event]()
    record = HealthRecord(RestPolicy(first_s=1, clock=clock, random=lambda: 1.0))
    record.on_change = NodeUpDown(record, NODE, EventHub(heard.append))
    record.failed(record.begin())
    clock.advance(100)
    record.gave_up(record.begin())
    assert [event.name for event in heard] == ["node_down"]


async def test_no_event_is_made_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the nodes with failures, and over a gateway: the cost of an event is paid by those who want it."""

    def fail(self: EventHub, event: Event) -> None:
        raise AssertionError(f"{event.name} was made for nobody")

    monkeypatch.setattr(EventHub, "emit", fail)
    fake = FakeNetwork(2, 4)

    async def refuse(method: str, params: Any) -> Any:
        raise ConnectError("nobody listens")

    fake.misbehaviour[fake.operator(1)] = refuse
    network = fake.network()
    await network.keygen(request(2, 3), EoaAuth(WALLET), deadline=Deadline(5))
    await network.aclose()
    async with scripted(honest) as gateway:
        await run(gateway, revision="1")

"""The store and the job: what is kept when, and what becomes of it when something fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dan_async import DanClient, LocalWallet
from dan_async.errors import (
    ClientClosedError,
    ConfigurationError,
    DeadlineExceededError,
    GatewayError,
    InvalidFieldError,
    QuorumError,
    RecordConflictError,
    RpcError,
    StoreUnavailableError,
    WalletRefusedError,
)
from dan_async.jobs.keeping import SessionKeeper
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.storage import MemorySessionStore, StoredSession
from dan_async.types import RequestId
from tests.fake_nodes import FakeNetwork

KEY = "11" * 32


class WatchedStore(MemorySessionStore):
    """A store that can be told to fail, and that notes how many messages the nodes had when something was saved."""

    def __init__(self, nodes: FakeNetwork) -> None:
        super().__init__()
        self.nodes = nodes
        self.messages_at_save: list[int] = []
        self.fails_to_save = self.fails_to_replace = False

    async def save(self, record: StoredSession) -> None:
        await asyncio.sleep(0)
        self.messages_at_save.append(len(self.nodes.calls))
        if self.fails_to_save:
            raise StoreUnavailableError("the disk is full")
        await super().save(record)

    async def replace(self, record: StoredSession, *, expected: Any) -> None:
        if self.fails_to_replace:
            raise StoreUnavailableError("the disk is full")
        await super().replace(record, expected=expected)

    @property
    def records(self) -> list[StoredSession]:
        return list(self._records.values())


@pytest.fixture
def nodes() -> FakeNetwork:
    return FakeNetwork(2, 3)


@pytest.fixture
def store(nodes: FakeNetwork) -> WatchedStore:
    return WatchedStore(nodes)


class Refusing(LocalWallet):
    async def sign_typed_data(self, typed_data: Any) -> str:
        raise WalletRefusedError("no")


async def refuse_keygen(method: str, params: Any) -> Any:
    if method == "dan_keygen":
        raise RpcError(-32030, "failed")


async def test_the_intent_is_stored_before_the_first_byte(nodes: FakeNetwork, store: WatchedStore) -> None:
    """With the ephemeral key, so that nothing is lost from the first message on; then the session."""
    async with DanClient(nodes.network(), store=store) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, reference="row 1")
    assert store.messages_at_save == [0]
    (record,) = store.records
    assert (record.state, record.session, record.reference) == ("active", session, "row 1")
    assert record.intent.hex_eph_sk == session.hex_eph_sk_without_0x
    assert record.expires_at == session.expires_at


async def test_nothing_is_sent_if_the_intent_cannot_be_stored(
    nodes: FakeNetwork, store: WatchedStore
) -> None:
    """A full disk is found out before anybody is asked for anything."""
    store.fails_to_save = True
    async with DanClient(nodes.network(), store=store) as dan:
        with pytest.raises(StoreUnavailableError):
            await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    assert nodes.calls == []


@pytest.mark.parametrize("is_signed", [False, True])
async def test_a_client_that_is_closed_fails_no_row(
    nodes: FakeNetwork, store: WatchedStore, is_signed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The row is as if it had never been tried, or pending without a problem: a resumed batch makes it. No node is blamed."""

    class Hanging(LocalWallet):
        async def sign_typed_data(self, typed_data: Any) -> str:
            signature = await super().sign_typed_data(typed_data)
            await dan.network.aclose()
            if not is_signed:
                raise ClientClosedError("the network was closed")
            return signature

    async with DanClient(nodes.network(), store=store) as dan:
        with pytest.raises(ClientClosedError):
            await dan.generate_session_key(wallet=Hanging(KEY), chain_id=1, reference="row 1")
    assert [(r.state, r.problem) for r in store.records] == ([("pending", "")] if is_signed else [])
    assert not caplog.records


async def test_a_session_that_others_have_stored_meanwhile_is_returned(nodes: FakeNetwork) -> None:
    """They recovered the record while this process was suspended; another outcome of theirs is an error."""

    class Recovered(MemorySessionStore):
        state: Any = "active"

        async def replace(self, record: StoredSession, *, expected: Any) -> None:
            await super().replace(record, expected=expected)
            if self.state != "active":
                await super().replace(record.changed(self.state, now=1), expected="active")
            await super().replace(record, expected=expected)  # now it is theirs that is there

    store = Recovered()
    async with DanClient(nodes.network(), store=store) as dan:
        session = await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
        store.state = "revoked"
        with pytest.raises(RecordConflictError, match="is revoked"):
            await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    assert [record.session async for record in store.find() if record.state == "active"] == [session]


async def test_a_session_that_cannot_be_stored_is_not_returned(
    nodes: FakeNetwork, store: WatchedStore
) -> None:
    """The error says that it is made; the intent stays, so that recover() can find it."""
    store.fails_to_replace = True
    async with DanClient(nodes.network(), store=store) as dan:
        with pytest.raises(StoreUnavailableError) as caught:
            await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    assert any("is made" in note for note in caught.value.__notes__)
    assert [record.state for record in store.records] == ["pending"]


@pytest.mark.parametrize("reference", [None, "row 1"])
async def test_before_the_owner_signed_nothing_can_have_been_made(
    nodes: FakeNetwork, store: WatchedStore, reference: str | None
) -> None:
    """So the intent goes; under a reference it is remembered as failed, with the reason."""
    async with DanClient(nodes.network(), store=store) as dan:
        with pytest.raises(WalletRefusedError):
            await dan.generate_session_key(wallet=Refusing(KEY), chain_id=1, reference=reference)
    assert [(r.state, r.problem) for r in store.records] == (
        [("failed", "WalletRefusedError: no")] if reference else []
    )


async def test_after_the_owner_signed_it_stays_pending(nodes: FakeNetwork, store: WatchedStore) -> None:
    """A key may have been made, whatever the error says."""
    for index in (1, 2, 3):
        nodes.misbehaviour[nodes.operator(index)] = refuse_keygen
    async with DanClient(nodes.network(), store=store) as dan:
        with pytest.raises(QuorumError):
            await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1)
    assert [(record.state, record.problem[:11]) for record in store.records] == [("pending", "QuorumError")]


@pytest.mark.parametrize(("retryable", "state"), [(True, "failed"), (False, "pending")])
async def test_a_gateways_error_may_rule_a_key_out(
    nodes: FakeNetwork, store: WatchedStore, retryable: bool, state: str
) -> None:
    """Where the error says that nothing was created the record fails; otherwise it stays pending."""
    network = nodes.network()

    async def keygen(request: Any, auth: Any, **_: Any) -> Any:
        typed_data = REVISION_1.typed_data(
            "keygen",
            REVISION_1.keygen_setup(
                threshold=request.threshold, claim=request.claim, permissions=None, key_label=None
            ),
            "ab" * 32,
        )
        await auth.authorise(challenge="ab" * 32, typed_data=typed_data)
        raise GatewayError("it is full", retryable=retryable)

    network.keygen = keygen
    async with DanClient(network, store=store) as dan:
        with pytest.raises(GatewayError):
            await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, reference="row")
    assert [record.state for record in store.records] == [state]


async def test_a_cancelled_call_stays_pending(nodes: FakeNetwork, store: WatchedStore) -> None:
    """Nobody waits for the store then; recover() comes to it."""
    reached = asyncio.Event()

    async def hang(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            reached.set()
            await asyncio.Event().wait()

    for index in (1, 2, 3):
        nodes.misbehaviour[nodes.operator(index)] = hang
    async with DanClient(nodes.network(), store=store) as dan:
        call = asyncio.create_task(dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1))
        await reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert [record.state for record in store.records] == ["pending"]


async def test_a_call_under_way_is_not_settled(nodes: FakeNetwork, store: WatchedStore) -> None:
    """recover() leaves alone what this client is still working on."""
    reached, may_go = asyncio.Event(), asyncio.Event()

    async def wait(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            reached.set()
            await may_go.wait()

    for index in (1, 2, 3):
        nodes.misbehaviour[nodes.operator(index)] = wait
    async with DanClient(nodes.network(), store=store) as dan:
        call = asyncio.create_task(dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1))
        await reached.wait()
        assert (await dan.recover()).records == ()
        may_go.set()
        await call
    assert not nodes.called("dan_settle_keygen")
    assert [record.state for record in store.records] == ["active"]


async def test_a_call_under_way_is_not_settled_because_a_second_one_gave_up(nodes: FakeNetwork) -> None:
    """Two calls complete one session key; the one that came too late to begin it is broken off."""
    reached, may_go, both = asyncio.Event(), asyncio.Event(), asyncio.Barrier(2)
    at_work: list[asyncio.Task[Any] | None] = []

    async def wait(method: str, params: Any) -> Any:
        if method == "dan_keygen":
            reached.set()
            await may_go.wait()

    class Store(MemorySessionStore):
        async def get(self, record_id: RequestId) -> StoredSession | None:
            found = await super().get(record_id)
            if found is not None and found.state == "waiting":
                await both.wait()  # both have read it before either changes it
            return found

        async def replace(self, record: StoredSession, *, expected: Any) -> None:
            await super().replace(record, expected=expected)
            at_work.append(asyncio.current_task())

    for index in (1, 2, 3):
        nodes.misbehaviour[nodes.operator(index)] = wait
    async with DanClient(nodes.network(), store=Store()) as dan:
        wallet = LocalWallet(KEY)
        begun = await dan.begin_session_key(owner=wallet.address, chain_id=1)
        signature = await wallet.sign_typed_data(begun.typed_data)
        calls = {asyncio.create_task(dan.complete_session_key(begun.id, signature)) for _ in range(2)}
        await reached.wait()
        (late,) = calls - {at_work[0]}
        late.cancel()
        await asyncio.wait([late])
        assert (await dan.recover()).records == ()
        may_go.set()
        await asyncio.gather(*calls - {late})
    assert not nodes.called("dan_settle_keygen")


async def test_a_reference_is_used_once(nodes: FakeNetwork, store: WatchedStore) -> None:
    """A second call under it is refused before anything is sent."""
    async with DanClient(nodes.network(), store=store) as dan:
        await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, reference="row 1")
        sent = len(nodes.calls)
        with pytest.raises(RecordConflictError):
            await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, reference="row 1")
    assert len(nodes.calls) == sent


async def test_what_needs_a_store_says_so(nodes: FakeNetwork) -> None:
    """References, recovering and revoking by record; and what is no store is refused."""
    async with DanClient(nodes.network()) as dan:
        with pytest.raises(InvalidFieldError, match="reference needs a store"):
            await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, reference="row 1")
        with pytest.raises(ConfigurationError, match="no store"):
            await dan.recover()
        with pytest.raises(ConfigurationError, match="no store"):
            await dan.revoke_stored_session("0x" + "00" * 32, wallet=LocalWallet(KEY))
    with pytest.raises(InvalidFieldError, match="store"):
        DanClient(nodes.network(), store="keys.db")
    assert nodes.calls == []


class HangingStore(WatchedStore):
    """A store of which one method never ends."""

    def __init__(self, nodes: FakeNetwork, method: str) -> None:
        super().__init__(nodes)
        setattr(self, method, self._hang)

    async def _hang(self, *_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()


class TestAStoreThatHangs:
    """A call ends within its own timeout, whatever its store does."""

    async def test_nothing_is_sent_if_the_intent_is_not_stored_in_time(self, nodes: FakeNetwork) -> None:
        """The error says where the time went."""
        start = time.monotonic()
        async with DanClient(nodes.network(), store=HangingStore(nodes, "save")) as dan:
            with pytest.raises(DeadlineExceededError, match="storing the request"):
                await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, timeout=0.3)
        assert time.monotonic() - start < 1.3
        assert nodes.calls == []

    async def test_a_session_that_is_not_stored_in_time_is_made(self, nodes: FakeNetwork) -> None:
        """The error says so, and recover() finds it later."""
        store = HangingStore(nodes, "replace")
        start = time.monotonic()
        async with DanClient(nodes.network(), store=store) as dan:
            with pytest.raises(DeadlineExceededError, match="storing the session") as caught:
                await dan.generate_session_key(wallet=LocalWallet(KEY), chain_id=1, timeout=1)
        assert time.monotonic() - start < 2
        assert any("is made" in note for note in caught.value.__notes__)
        (record,) = store.records
        assert record.state == "pending"
        assert not SessionKeeper(store, time.time).is_busy(record)

    async def test_a_failure_that_cannot_be_stored_hangs_nothing(self, nodes: FakeNetwork) -> None:
        """The call's own error is raised, a little later."""
        start = time.monotonic()
        async with DanClient(nodes.network(), store=HangingStore(nodes, "delete")) as dan:
            with pytest.raises(WalletRefusedError):
                await dan.generate_session_key(wallet=Refusing(KEY), chain_id=1, timeout=0.5)
        assert time.monotonic() - start < 1.5

    @pytest.mark.parametrize("method", ["list_page", "find"])
    async def test_recovering_ends_as_well(self, nodes: FakeNetwork, method: str) -> None:
        """Reading the store is part of it."""
        store = WatchedStore(nodes)
        if method == "list_page":
            store = HangingStore(nodes, method)
        else:

            async def find(_: Any = None) -> AsyncIterator[StoredSession]:
                await asyncio.Event().wait()
                yield

            store.find = find  # type: ignore[method-assign]
        start = time.monotonic()
        async with DanClient(nodes.network(), store=store) as dan:
            with pytest.raises(DeadlineExceededError, match="reading the store"):
                await dan.recover(timeout=0.3)
        assert time.monotonic() - start < 1.3

"""DanClient.generate_session_keys: many requests, one result each, and resuming what was broken off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dan_async import DanClient, DanSessionKeyRequestParams, LocalWallet, RetryPolicy
from dan_async.errors import (
    ClientClosedError,
    ConfigurationError,
    InvalidFieldError,
    QuorumError,
    RecordConflictError,
    RpcError,
    SessionFailedError,
    SessionPendingError,
    WalletRefusedError,
)
from dan_async.storage import MemorySessionStore
from tests.fake_nodes import FakeNetwork
from tests.helpers import no_leaks
from tests.stored import pending

WALLET = LocalWallet("11" * 32)


class Refusing(LocalWallet):
    async def sign_typed_data(self, typed_data: Any) -> str:
        raise WalletRefusedError("no")


class Account:
    signer = WALLET
    bundler_url = None
    chain_id = 5

    async def get_address(self) -> str:
        return WALLET.address


@pytest.fixture
def nodes() -> FakeNetwork:
    return FakeNetwork(2, 3)


async def requests(*chain_ids: int) -> AsyncIterator[dict[str, Any]]:
    for chain_id in chain_ids:
        yield {"chain_id": chain_id}


async def test_each_request_gets_its_own_session(nodes: FakeNetwork) -> None:
    """Under its index, from a sync or an async source; what all share is given once."""
    async with DanClient(nodes.network()) as dan:
        for source in (requests(1, 2, 3), [{"chain_id": 1}, {"chain_id": 2}, {"chain_id": 3}]):
            results = [r async for r in dan.generate_session_keys(source, wallet=WALLET, concurrency=2)]
            assert sorted((r.index, r.status, r.session.chain_id) for r in results) == [
                (0, "made", 1),
                (1, "made", 2),
                (2, "made", 3),
            ]
            assert len({r.session.session_key_eoa for r in results}) == 3


async def test_the_seeds_own_requests_are_taken(nodes: FakeNetwork) -> None:
    """A DanSessionKeyRequestParams is a request as well."""
    request = DanSessionKeyRequestParams(smart_account_client=Account(), duration=60)
    async with DanClient(nodes.network()) as dan:
        (result,) = [r async for r in dan.generate_session_keys([request])]
    assert result.session is not None
    assert result.session.chain_id == 5


async def test_wrong_requests_fail_one_by_one(nodes: FakeNetwork) -> None:
    """Unknown names, wrong values, refusals and things that are no requests: the others go on."""
    given = [
        {"chain_id": 1},
        {"chian_id": 1},
        {"chain_id": 0},
        7,
        {"chain_id": 1, "wallet": Refusing("12" * 32)},
    ]
    async with DanClient(nodes.network()) as dan:
        results = {r.index: r async for r in dan.generate_session_keys(given, wallet=WALLET)}
    assert results[0].is_success
    kinds = [type(results[i].error) for i in range(1, 5)]
    assert kinds == [InvalidFieldError, InvalidFieldError, InvalidFieldError, WalletRefusedError]
    assert all(results[i].status == "failed" for i in range(1, 5))


async def test_results_show_no_secret(nodes: FakeNetwork) -> None:
    """Neither the session's key nor what stood in the request."""
    async with DanClient(nodes.network()) as dan:
        (result,) = [
            r
            async for r in dan.generate_session_keys(
                [{"chain_id": 1, "ephemeral_key": "5a" * 32}], wallet=WALLET
            )
        ]
    assert "5a" * 32 not in repr(result)


async def test_parameters_are_checked_at_once(nodes: FakeNetwork) -> None:
    """Before anything is read."""
    async with DanClient(nodes.network()) as dan:
        for wrong in ({"concurrency": 0}, {"walet": WALLET}, {"retry_failed": True}, {"rate_limit": -1}):
            with pytest.raises(InvalidFieldError):
                dan.generate_session_keys([], **wrong)
        with pytest.raises(ConfigurationError, match="no store"):
            dan.generate_session_keys([], resume=True)


async def test_leaving_the_loop_early_leaves_nothing(nodes: FakeNetwork) -> None:
    """As an async context manager it cancels what is under way."""
    async with DanClient(nodes.network()) as dan:
        async with no_leaks():
            endless = ({"chain_id": 1} for _ in iter(int, 1))
            async with dan.generate_session_keys(endless, wallet=WALLET, concurrency=8) as run:
                async for _ in run:
                    break


async def test_a_closed_client_ends_the_batch(nodes: FakeNetwork) -> None:
    """It does not run through the rest of the requests to say the same of each."""
    read = 0

    def source() -> Any:
        nonlocal read
        for read in range(10_000):  # noqa: B007 - counted
            yield {"chain_id": 1}

    dan = DanClient(nodes.network())
    run = dan.generate_session_keys(source(), wallet=WALLET, concurrency=4)
    await anext(run)
    await dan.aclose()
    with pytest.raises(ClientClosedError):
        async for _ in run:
            pass
    assert read < 20


# --- resuming ---------------------------------------------------------------------------------------------------------


async def run_all(dan: DanClient, given: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    run = dan.generate_session_keys(given, wallet=WALLET, resume=True, **options)
    return {r.request["reference"]: r async for r in run}


ROWS = [{"chain_id": 1, "reference": f"row {i}"} for i in range(5)]


async def test_finished_rows_are_not_done_again(nodes: FakeNetwork) -> None:
    """The second run gives the same sessions from the store, and asks nobody."""
    async with DanClient(nodes.network(), store=MemorySessionStore()) as dan:
        first = await run_all(dan, ROWS[:3])
        second = await run_all(dan, ROWS)
        assert [second[row["reference"]].status for row in ROWS] == ["kept"] * 3 + ["made"] * 2
        assert all(first[name].session == second[name].session for name in first)
        asked = len(nodes.calls)
        await run_all(dan, ROWS)
        assert len(nodes.calls) == asked


async def test_failed_rows_are_tried_again_only_when_asked(nodes: FakeNetwork) -> None:
    """Until then the earlier reason is given."""
    rows = [{"chain_id": 1, "reference": "row", "wallet": Refusing("12" * 32)}]
    async with DanClient(nodes.network(), store=MemorySessionStore()) as dan:
        assert isinstance((await run_all(dan, rows))["row"].error, WalletRefusedError)
        del rows[0]["wallet"]
        again = (await run_all(dan, rows))["row"].error
        assert isinstance(again, SessionFailedError)
        assert "WalletRefusedError: no" in str(again)
        assert (await run_all(dan, rows, retry_failed=True))["row"].status == "made"


async def test_a_row_of_which_nobody_can_tell_is_not_repeated(nodes: FakeNetwork) -> None:
    """A crash left it pending and the nodes do not answer: no second key is made."""
    store = MemorySessionStore()
    await store.save(pending(reference="row 0", expires_at=2**40))
    async with DanClient(nodes.network(), store=store) as dan:
        results = await run_all(dan, ROWS[:1])
    assert isinstance(results["row 0"].error, SessionPendingError)
    assert not nodes.called("dan_keygen")


async def test_a_row_that_nobody_knows_is_done_again(nodes: FakeNetwork) -> None:
    """A crash left it pending, and every node says that there is nothing: it is as if it had never been tried."""
    answer_settling(nodes)
    store = MemorySessionStore()
    await store.save(pending(reference="row 0", expires_at=2**40))
    async with DanClient(nodes.network(), store=store) as dan:
        assert (await run_all(dan, ROWS[:1]))["row 0"].status == "made"
    assert len([record async for record in store.find()]) == 1


async def test_a_failure_after_the_signature_is_settled_at_once(nodes: FakeNetwork) -> None:
    """The nodes say that no key was made: the row is failed rather than pending."""
    answer_settling(nodes, refuses_keygen=True)
    store = MemorySessionStore()
    async with DanClient(nodes.network(), store=store) as dan:
        assert isinstance((await run_all(dan, ROWS[:1]))["row 0"].error, QuorumError)
    (record,) = [record async for record in store.find()]
    assert record.state == "failed"
    assert record.problem.startswith("QuorumError")


async def test_the_same_reference_twice_makes_one_key(nodes: FakeNetwork) -> None:
    """Also when both are worked on at the same time."""
    store = MemorySessionStore()
    async with DanClient(nodes.network(), store=store) as dan:
        run = dan.generate_session_keys([ROWS[0], ROWS[0]], wallet=WALLET, resume=True)
        results = [r async for r in run]
    assert sum(r.status == "made" for r in results) == 1
    assert all(isinstance(r.error, RecordConflictError) for r in results if r.error)
    assert len([record async for record in store.find()]) == 1


async def test_resuming_needs_references(nodes: FakeNetwork) -> None:
    """A request without one fails; it is not made under no name."""
    async with DanClient(nodes.network(), store=MemorySessionStore()) as dan:
        (result,) = [
            r async for r in dan.generate_session_keys([{"chain_id": 1}], wallet=WALLET, resume=True)
        ]
    assert isinstance(result.error, InvalidFieldError)
    assert nodes.calls == []


def answer_settling(nodes: FakeNetwork, *, refuses_keygen: bool = False) -> None:
    """Have every node say that it knows of nothing."""

    async def answer(method: str, params: Any) -> Any:
        await asyncio.sleep(0)
        if method == "dan_settle_keygen":
            return {"acknowledgements": []}
        if method == "dan_keygen" and refuses_keygen:
            raise RpcError(-32030, "failed")
        return None

    for index in (1, 2, 3):
        nodes.misbehaviour[nodes.operator(index)] = answer


async def test_a_key_whose_replies_were_lost_is_found_at_once(nodes: FakeNetwork) -> None:
    """Every node made the key and no reply came: the row is settled with that key, and no second one is made."""
    made: dict[str, Any] = {}

    def losing(operator: Any) -> Any:
        async def answer(method: str, params: Any) -> Any:
            await asyncio.sleep(0)
            if method == "dan_keygen":
                made[operator] = nodes.acknowledge(operator, params)
                raise RpcError(-32030, "the reply is lost")
            if method == "dan_settle_keygen":
                return {"acknowledgements": [made[operator]]}
            return None

        return answer

    for index in (1, 2, 3):
        nodes.misbehaviour[nodes.operator(index)] = losing(nodes.operator(index))
    store = MemorySessionStore()
    network = nodes.network(retry=RetryPolicy(attempts=1))
    async with DanClient(network, store=store) as dan:
        result = (await run_all(dan, ROWS[:1]))["row 0"]
    assert result.status == "settled"
    (record,) = [record async for record in store.find()]
    assert (record.state, record.session) == ("active", result.session)
    assert {json.loads(ack["claims"])["keyId"] for ack in made.values()} == {result.session.mpc_key_id}

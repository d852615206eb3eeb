"""One deadline lies over each job, and cuts even what hangs and looks at no clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dan_async import DanClient, DanSessionKeyPayload, LocalWallet, NodeNetwork, Timeouts
from dan_async.config import NodeEndpoint
from dan_async.errors import DeadlineExceededError
from dan_async.types import Json, TypedData
from dan_async.wallets import PasskeyRegister
from tests.fake_nodes import FakeNetwork, identities
from tests.helpers import assert_runs_under, no_leaks

WALLET = LocalWallet("0x" + "00" * 31 + "01")
TIMEOUTS = Timeouts(total_s=0.2, attempt_s=60, connect_s=60, wallet_s=60)


class HangingTransport:
    """A transport that never answers and does not look at its time limit."""

    def __init__(self) -> None:
        self.is_closed = False

    async def call(self, method: str, params: str, *, timeout_s: float | None) -> Json:
        await asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        self.is_closed = True


class HangingWallet:
    """A wallet that no person looks at and that never signs."""

    interactive = False

    def __init__(self) -> None:
        self.address = WALLET.address

    async def sign_typed_data(self, typed_data: TypedData) -> str:
        return await asyncio.get_running_loop().create_future()


class SlowPerson:
    """A wallet whose person reads for longer than the whole job may take."""

    interactive = True

    def __init__(self) -> None:
        self.address = WALLET.address

    async def sign_typed_data(self, typed_data: TypedData) -> str:
        await asyncio.sleep(0.5)
        return await WALLET.sign_typed_data(typed_data)


def hanging_client() -> DanClient:
    network = NodeNetwork(
        [NodeEndpoint(f"ws://127.0.0.1:9/{i}", node.operator) for i, node in enumerate(identities(5))],
        timeouts=TIMEOUTS,
        transport_for=lambda _: HangingTransport(),
    )
    return DanClient(network, timeouts=TIMEOUTS)


async def hang(request: Any) -> str:
    return await asyncio.get_running_loop().create_future()


async def make_key(client: DanClient, session: DanSessionKeyPayload) -> None:
    await client.generate_session_key(wallet=WALLET, chain_id=1)


async def add_key(client: DanClient, session: DanSessionKeyPayload) -> None:
    await client.add_ephemeral_key(session, wallet=WALLET)


async def revoke_key(client: DanClient, session: DanSessionKeyPayload) -> None:
    await client.revoke_ephemeral_key(session, wallet=WALLET)


async def register(client: DanClient, session: DanSessionKeyPayload) -> None:
    passkey = PasskeyRegister(
        "user", b"id", hang, rp_id="localhost", rp_name="x", origin="http://localhost:8000"
    )
    await client.register_passkey(passkey)


@pytest.fixture(scope="module")
def session() -> DanSessionKeyPayload:
    """A session that nodes once made."""

    async def make() -> DanSessionKeyPayload:
        async with DanClient(FakeNetwork(2, 3).network()) as client:
            return await client.generate_session_key(wallet=WALLET, chain_id=1)

    return asyncio.run(make())


@pytest.mark.parametrize("job", [make_key, add_key, revoke_key, register])
async def test_a_hung_attempt_is_cut(
    job: Callable[[DanClient, DanSessionKeyPayload], Awaitable[None]], session: DanSessionKeyPayload
) -> None:
    """Each job ends soon after its deadline, whatever the transport does, and leaves nothing behind."""
    async with no_leaks(), hanging_client() as client:
        async with assert_runs_under(5):
            with pytest.raises(DeadlineExceededError, match=r"0\.2 s ran out while"):
                await job(client, session)


async def test_a_hung_wallet_that_nobody_looks_at_is_cut() -> None:
    """Its own limit is longer than the job's: the job's counts."""
    network = FakeNetwork(2, 3).network(timeouts=TIMEOUTS)
    async with no_leaks(), DanClient(network, timeouts=TIMEOUTS) as client:
        async with assert_runs_under(5):
            with pytest.raises(DeadlineExceededError) as caught:
                await client.generate_session_key(wallet=HangingWallet(), chain_id=1)
    assert caught.value.request_id is not None


async def test_a_person_is_not_cut() -> None:
    """The time that somebody reads does not count."""
    network = FakeNetwork(2, 3).network(timeouts=TIMEOUTS)
    async with DanClient(network, timeouts=TIMEOUTS) as client:
        payload = await client.generate_session_key(wallet=SlowPerson(), chain_id=1)
    assert payload.eoa_address == WALLET.address

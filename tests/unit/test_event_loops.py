"""A client or a store that is used on a second event loop: one clear error, whatever is called."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dan_async import DanClient, GatewayNetwork, LocalWallet, NodeNetwork
from dan_async.devnet import Devnet
from dan_async.errors import ConfigurationError, ConnectError
from dan_async.jobs.keeping import SessionKeeper
from dan_async.network import Network
from dan_async.storage import FixedKeys, MemorySessionStore, PassphraseKeys, StoreKey
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from dan_async.transport.http import HttpTransport
from dan_async.userops import Call
from tests.fake_nodes import FakeNetwork
from tests.stored import active, pending, session
from tests.unit.userops.services import TARGET, World, account_in

WALLET = LocalWallet("11" * 32)

CALLS: dict[str, Callable[[DanClient], Awaitable[Any]]] = {
    "generate_session_key": lambda dan: dan.generate_session_key(wallet=WALLET, chain_id=1),
    "sign_message": lambda dan: dan.sign_message("hello", session()),
    "recover": lambda dan: dan.recover(),
    "aclose": lambda dan: dan.aclose(),
}


def in_another_thread(call: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    async def on_its_loop() -> Any:
        return await call()

    return asyncio.to_thread(lambda: asyncio.run(on_its_loop()))


@pytest.mark.parametrize("name", CALLS)
async def test_a_client_on_the_loop_of_another_thread(name: str) -> None:
    """It stays of use on its own loop."""
    async with DanClient(FakeNetwork(2, 3).network(), store=MemorySessionStore()) as dan:
        with pytest.raises(ConfigurationError, match="the client is in use on another event loop"):
            await in_another_thread(lambda: CALLS[name](dan))
        assert await dan.generate_session_key(wallet=WALLET, chain_id=1)


async def test_a_network_on_the_loop_of_another_thread() -> None:
    """A pool with open connections, and a gateway: what is called says so, and the network stays of use on its own loop."""

    async def with_a_client_of(network: Network, call: Callable[[DanClient], Awaitable[Any]]) -> None:
        async with DanClient(network) as dan:
            await call(dan)

    async with Devnet(threshold=2, parties=3) as net:
        gateway = await net.add_gateway()
        for network in (NodeNetwork(net.endpoints), GatewayNetwork(gateway, revision="1")):
            dan = DanClient(network)
            key = await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=2, parties_number=3)
            calls = (
                network.health,
                partial(with_a_client_of, network, CALLS["generate_session_key"]),
                partial(with_a_client_of, network, lambda dan, key=key: dan.sign_message("hello", key)),
                network.aclose,
            )
            for call in calls:
                with pytest.raises(ConfigurationError, match="the network is in use on another event loop"):
                    await in_another_thread(call)
            assert all(node.is_live for node in (await network.health()).nodes)
            await dan.aclose()


async def test_a_store_on_the_loop_of_another_thread(tmp_path: Path) -> None:
    """Reading, writing and closing."""
    url = f"sqlite:///{tmp_path}/keys.db"
    async with SQLAlchemyStore(url, FixedKeys([StoreKey.generate()])) as store:
        for call in (lambda: store.save(active()), lambda: store.get("0x00"), store.aclose):
            with pytest.raises(ConfigurationError, match="the store is in use on another event loop"):
                await in_another_thread(call)
        await store.save(active())


async def test_an_account_on_the_loop_of_another_thread() -> None:
    """Lanes and connections belong to one loop."""
    async with await account_in(World()) as account:
        await account.send_user_operation(Call(TARGET, value=1))
        for call in (lambda: account.send_user_operation(Call(TARGET, value=1)), account.get_nonce):
            with pytest.raises(ConfigurationError, match="the account is in use on another event loop"):
                await in_another_thread(call)
        await account.send_user_operation(Call(TARGET, value=1))


def test_a_client_that_is_not_closed_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """In our own words, before aiohttp complains of its sessions; one that was closed, never used or not opened is not."""

    async def use() -> None:
        DanClient(FakeNetwork(2, 3).network())
        opening = asyncio.create_task(DanClient(Devnet(2, 3)).__aenter__())
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        del opening
        async with DanClient(FakeNetwork(2, 3).network()) as dan:
            await dan.generate_session_key(wallet=WALLET, chain_id=1)
        assert not caplog.records
        dan = DanClient(FakeNetwork(2, 3).network())
        await dan.generate_session_key(wallet=WALLET, chain_id=1)
        with pytest.warns(
            ResourceWarning, match=r"DanClient\(NodeNetwork\(3 nodes.* was not closed: use it in 'async"
        ):
            del dan

    asyncio.run(use())
    assert "A DanClient was not closed" in caplog.text


def test_a_connection_in_a_second_run() -> None:
    """A wallet's, or a bundler's."""
    transport = HttpTransport("http://127.0.0.1:1/")

    async def ask() -> None:
        with pytest.raises(ConnectError):
            await transport.call("eth_chainId", "[]", timeout_s=1)
        await transport.aclose()

    asyncio.run(ask())
    with pytest.raises(ConfigurationError, match=r"connection to .* is in use on another event loop"):
        asyncio.run(ask())


def test_one_passphrase_serves_the_stores_of_many_threads() -> None:
    """Each with a loop of its own; the key is derived once."""
    keys, found = PassphraseKeys("correct horse", cost=2**14), []

    async def use() -> None:
        current = await keys.current(None)
        found.append((current, await keys.by_id(current.id)))

    threads = [threading.Thread(target=lambda: asyncio.run(use()), daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 6
    assert len({key.id for pair in found for key in pair if key is not None}) == 1


def test_what_a_parent_works_on_its_forked_child_does_not() -> None:
    """Or its records would stay busy there for ever."""
    keeper, record = SessionKeeper(MemorySessionStore(), time.time), pending()
    keeper.in_flight[record.record_id] = 1
    try:
        assert keeper.is_busy(record)
        child = os.fork()
        if child == 0:
            os._exit(keeper.is_busy(record))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        keeper.in_flight.clear()


def test_a_client_in_a_second_run() -> None:
    """asyncio.run() makes a loop each time: the client of the first one is of no use in the second."""
    dan = DanClient(FakeNetwork(2, 3).network())
    with asyncio.Runner() as first:
        first.run(dan.generate_session_key(wallet=WALLET, chain_id=1))
        with pytest.raises(ConfigurationError, match=r"asyncio\.run"):
            asyncio.run(dan.generate_session_key(wallet=WALLET, chain_id=1))
        first.run(dan.aclose())


def test_a_client_in_a_forked_child(capfd: pytest.CaptureFixture[str]) -> None:
    """The child has the parent's client and not its loop."""

    async def use(dan: DanClient) -> None:
        await dan.generate_session_key(wallet=WALLET, chain_id=1)

    dan = DanClient(FakeNetwork(2, 3).network())
    with asyncio.Runner() as parent:
        parent.run(use(dan))
        child = os.fork()
        if child == 0:
            status = 1
            try:
                asyncio.run(use(dan))
            except ConfigurationError as error:
                status = 0 if "forked" in error.message else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        parent.run(dan.aclose())

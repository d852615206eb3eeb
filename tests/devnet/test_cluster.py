"""Devnet as an object: starting, stopping, what it offers, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dan_async.config import NodeEndpoint, Threshold
from dan_async.devnet import Devnet, NodeLimits
from dan_async.devnet.listening import PortReservation
from dan_async.errors import ClientClosedError, ConfigurationError, InvalidFieldError
from tests.devnet.raw_client import Keygen, connect_all, keygen_on
from tests.helpers import assert_runs_under, cancelled_at, no_leaks


def devnet_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("dan-devnet")]


@pytest.mark.parametrize(
    ("t", "n"), [(1, 3), (4, 3), (0, 0), (2, 21), (2.0, 3), (True, 3), ("2", 3), (2, None)]
)
def test_bad_thresholds_are_refused(t, n):
    """Before anything is started."""
    with pytest.raises(InvalidFieldError, match=r"threshold|parties_number"):
        Devnet(t, n)


@pytest.mark.parametrize("host", ["0.0.0.0", "example.org", ""])
def test_only_loopback_is_served(host):
    """A devnet is no custody software."""
    with pytest.raises(InvalidFieldError, match="host"):
        Devnet(2, 2, host=host)


def test_storage_must_be_a_path():
    """Before anything is started."""
    with pytest.raises(InvalidFieldError, match="storage"):
        Devnet(2, 2, storage=5)


@pytest.mark.parametrize(
    "given",
    [
        {"limits": {"max_keygens": 1}},
        {"limits": NodeLimits},
        {"gateway": "no"},
        {"gateway_token": ""},
        {"processes": 1},
    ],
    ids=str,
)
def test_other_arguments_are_checked_when_it_is_made(given):
    """By name, and not by what fails inside when it starts; an empty token would let everybody in."""
    [name] = given
    with pytest.raises(InvalidFieldError, match=name):
        Devnet(2, 2, **given)


async def test_storage_must_be_a_folder(tmp_path):
    """A file, and a path below one, are told by their parameter's name."""
    (tmp_path / "file").touch()
    for storage in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidFieldError, match="storage cannot be used: Not a directory"):
            await Devnet(2, 2, storage=storage).start()


def test_a_clock_cannot_be_given_to_other_processes():
    """It would be ignored there, silently."""
    with pytest.raises(InvalidFieldError, match="clock"):
        Devnet(2, 2, processes=True, clock=lambda: 0.0)


def test_making_one_does_nothing():
    """No thread, no socket, no event loop is needed before it is started."""
    before = devnet_threads()
    devnet = Devnet(2, 3)
    assert devnet.threshold == Threshold(2, 3)
    assert devnet_threads() == before
    with pytest.raises(ConfigurationError, match="not been started"):
        _ = devnet.nodes


async def test_it_says_what_to_connect_to(devnet):
    """As endpoints and as JSON members."""
    assert [NodeEndpoint(**node) for node in devnet.describe()["nodes"]] == list(devnet.endpoints)
    assert [(node.url, node.operator) for node in devnet.nodes] == [
        (endpoint.url, endpoint.operator) for endpoint in devnet.endpoints
    ]
    assert all(
        node.url.startswith("ws://127.0.0.1:") and node.url.endswith("/v1/rpc") for node in devnet.nodes
    )
    assert [node.index for node in devnet.nodes] == [0, 1, 2]
    assert repr(devnet) == "Devnet(2-of-3, 3 nodes running)"
    assert devnet.nodes[0].operator in repr(devnet.nodes[0])


async def test_ports_and_identities_differ(devnet):
    """Each node has its own."""
    assert len({node.url for node in devnet.nodes}) == len({node.operator for node in devnet.nodes}) == 3


async def test_it_serves_ipv6_as_well(make_devnet):
    """On the other loopback address."""
    devnet = await make_devnet(2, 2, host="::1")
    assert devnet.nodes[0].url.startswith("ws://[::1]:")
    assert len(await keygen_on(devnet, 2)) == 2


async def test_a_network_of_its_nodes(devnet):
    """With the devnet's threshold unless another is given; whoever makes it closes it."""
    network, other = devnet.network(), devnet.network(threshold=Threshold(3, 3))
    assert network.default_threshold == Threshold(2, 3)
    assert other.default_threshold == Threshold(3, 3)
    assert (await network.health()).live == 3
    await network.aclose()
    await other.aclose()


async def test_as_a_source_it_starts_and_stops_itself():
    """What opened it is what closes it."""
    async with no_leaks():
        devnet = Devnet(2, 2)
        network = await devnet.open_network()
        assert (await network.health()).live == 2
        await network.aclose()
        await devnet.close_network()
        with pytest.raises(ClientClosedError):
            await devnet.start()


async def test_as_a_source_it_stays_for_whoever_started_it(devnet):
    """A client that borrows a running devnet does not stop it."""
    network = await devnet.open_network()
    await network.aclose()
    await devnet.close_network()
    assert all(node.is_running for node in devnet.nodes)


async def leave_one_by_one(devnet, networks):
    """Close the networks of two clients: the devnet runs until both have left."""
    for network in networks:
        await network.aclose()
    await devnet.close_network()
    assert devnet.nodes[0].is_running
    await devnet.close_network()
    assert not devnet.nodes[0].is_running


async def test_two_clients_can_share_a_source():
    """The last to leave stops it."""
    devnet = Devnet(2, 2)
    networks = await asyncio.gather(devnet.open_network(), devnet.open_network())
    await leave_one_by_one(devnet, networks)


async def test_a_client_that_comes_while_another_one_starts_it_waits_and_counts():
    """It has a network whose nodes run, and for as long as it needs them."""
    devnet = Devnet(2, 2)
    opening = asyncio.create_task(devnet.open_network())
    while not devnet._nodes:
        await asyncio.sleep(0)
    networks = [await devnet.open_network()]
    assert all(node.is_running for node in devnet.nodes)
    networks.append(await opening)
    await leave_one_by_one(devnet, networks)


async def test_closing_a_source_that_was_never_opened():
    """Nothing happens."""
    await Devnet(2, 2).close_network()


async def test_nothing_is_left_after_a_stop():
    """No task, no socket, no thread."""
    async with no_leaks(), Devnet(2, 3) as devnet:
        await keygen_on(devnet, 2)
        assert devnet_threads()
    assert devnet_threads() == []


async def test_nothing_is_left_after_a_stop_in_the_middle():
    """Key generations under way and open client connections included."""
    limits = NodeLimits(stop_grace_s=0.05, round_s=5)
    async with no_leaks():
        async with Devnet(2, 3, limits=limits) as devnet, connect_all(devnet) as nodes:
            keygens = [Keygen(nodes=nodes, t=2) for _ in range(5)]
            await asyncio.gather(*(keygen.prepare() for keygen in keygens))
            asked = [asyncio.create_task(keygen.send()) for keygen in keygens]
            await asyncio.sleep(0.02)
            with assert_runs_under(5):
                await devnet.aclose()
            await asyncio.gather(*asked, return_exceptions=True)
    assert devnet_threads() == []


async def test_cancelled_at_every_await_of_a_start():
    """Whenever a start is cancelled, nothing is left, and no port stays taken."""

    async def start_and_stop():
        async with Devnet(2, 2):
            pass

    async with no_leaks():
        step = 1
        while await cancelled_at(step, start_and_stop()):
            assert devnet_threads() == []
            step += 1
    assert step > 3


async def test_a_cancelled_stop_is_carried_through():
    """The cancellation goes on afterwards."""
    async with no_leaks():
        devnet = Devnet(2, 3)
        await devnet.start()
        closing = asyncio.create_task(devnet.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert not any(node.is_running for node in devnet.nodes)
    assert devnet_threads() == []


async def test_closing_twice_is_allowed(devnet):
    """The second time nothing happens."""
    await devnet.aclose()
    await devnet.aclose()


async def test_a_closed_devnet_stays_closed(devnet):
    """Its ports are gone; neither it nor its nodes come back."""
    await devnet.aclose()
    with pytest.raises(ClientClosedError):
        await devnet.start()
    with pytest.raises(ClientClosedError):
        await devnet.nodes[0].start()


async def test_starting_twice_is_allowed(devnet):
    """The second time nothing happens."""
    nodes = devnet.nodes
    await devnet.start()
    assert devnet.nodes is nodes


async def test_a_failed_start_leaves_nothing(monkeypatch):
    """Here the operating system has no more ports."""
    made = []

    class Scarce(PortReservation):
        def __init__(self, host):
            if len(made) == 2:
                raise OSError("no more ports")
            super().__init__(host)
            made.append(self)

    monkeypatch.setattr("dan_async.devnet.cluster.PortReservation", Scarce)
    async with no_leaks():
        with pytest.raises(OSError, match="no more ports"):
            await Devnet(2, 3).start()
    assert len(made) == 2
    assert devnet_threads() == []

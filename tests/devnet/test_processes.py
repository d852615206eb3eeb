"""Nodes in processes of their own: the same network, and nothing outlives its parent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from dan_async.devnet import Crash, Devnet, DropRequest, RefuseConnections
from dan_async.errors import ConfigurationError, NodeError
from dan_async.protocols import fields
from dan_async.protocols import node as node_1
from tests.devnet.raw_client import Keygen, connect, connect_all, keygen_on
from tests.helpers import assert_runs_under, no_leaks


def processes_of(devnet):
    return [node._runner._process for node in devnet.nodes]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def accepts(node):
    """Whether a node takes connections."""
    try:
        socket.create_connection(("127.0.0.1", int(node.url.split(":")[2].split("/")[0])), 1).close()
    except ConnectionError:
        return False
    return True


async def until(condition, timeout_s=10):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network():
    """One network for the tests that do not mind what happened before: starting processes takes a while."""
    async with Devnet(2, 3, processes=True) as devnet:
        yield devnet


shared = pytest.mark.asyncio(loop_scope="module")


@shared
async def test_processes_make_keys_together(network):
    """Each is a process of its own, and all agree."""
    assert len({os.getpid(), *(process.pid for process in processes_of(network))}) == 4
    assert len({ack.claims for ack in await keygen_on(network, 2)}) == 1


@shared
async def test_secrets_do_not_show_in_the_list_of_processes(network):
    """The identity goes through a pipe: neither arguments nor environment have it."""
    for node, process in zip(network.nodes, processes_of(network), strict=True):
        secret = node._runner._config.identity.to_hex().encode()
        for file in ("cmdline", "environ"):
            assert secret not in Path(f"/proc/{process.pid}/{file}").read_bytes()


@shared
async def test_a_restarted_process_still_has_its_shares(network):
    """Same port, same operator, same acknowledgement; its memory ended, its folder did not."""
    async with connect_all(network) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        acks = await keygen.run()
    node = network.nodes[0]
    await node.stop()
    assert not node.is_running
    await node.start()
    async with connect_all(network) as nodes:
        keygen.nodes = nodes
        assert await keygen.send() == acks


@shared
async def test_faults_reach_a_process(network):
    """Within a moment, and are taken away again."""
    network.faults[1] = DropRequest(methods=["dan_identify"])
    nonce = fields.encode(node_1.IdentifyParams(nonce=bytes(32)))
    async with connect(network.nodes[1]) as node:
        async with asyncio.timeout(10):
            while True:
                try:
                    await node.call("dan_identify", nonce, timeout_s=0.2)
                except TimeoutError:
                    break
        network.faults[1] = None
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(TimeoutError):
                    await node.call("dan_identify", nonce, timeout_s=0.2)
                    break


@shared
async def test_a_crash_ends_the_process_and_loses_no_key(network):
    """It can be started again, and the key is there."""
    node = network.nodes[0]
    await node.stop()
    network.faults[0] = Crash(methods=["dan_keygen"])
    await node.start()
    async with connect_all(network) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        with pytest.raises(ExceptionGroup):
            await keygen.send()
    await until(lambda: not node.is_running)
    network.faults[0] = None
    await node.start()
    async with connect_all(network) as nodes:
        keygen.nodes = nodes
        assert len({ack.claims for ack in await keygen.send()}) == 1


@shared
async def test_a_crashed_process_comes_back_by_itself(network):
    """Its fault happened once, also to the next process; faults of connections reach it as well."""
    node = network.nodes[1]
    network.faults[1] = [Crash(at_round=1, restart_after=0.01, times=1), RefuseConnections()]
    await until(lambda: not accepts(node))
    network.faults[1] = Crash(at_round=1, restart_after=0.01, times=1)
    await until(lambda: accepts(node))
    before = processes_of(network)[1].pid
    async with connect_all(network) as nodes:
        keygen = Keygen(nodes=nodes, t=2)
        await keygen.prepare()
        with pytest.raises(ExceptionGroup):
            async with asyncio.timeout(20):
                await keygen.send()
    await until(lambda: accepts(node))
    assert processes_of(network)[1].pid != before
    assert len({ack.claims for ack in await keygen_on(network, 2)}) == 1
    network.faults[1] = None


@shared
async def test_starting_a_crashed_process_does_not_wait_for_its_return(network):
    """And stopping it keeps it from coming back."""
    node = network.nodes[1]
    for bring_back in (node.start, node.stop):
        network.faults[1] = Crash(methods=["dan_health"], restart_after=600, times=1)
        async with connect(node) as raw:
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(10):
                    while True:
                        await raw.call("dan_health", {})
        await until(lambda: not node.is_running)
        with assert_runs_under(15):
            await bring_back()
        assert node.is_running is (bring_back == node.start)
        network.faults[1] = None
    assert node._runner._watcher is None
    await node.start()


@shared
async def test_a_hanging_process_is_killed_in_the_end(network):
    """A stop takes a bounded time whatever the process does."""
    node = network.nodes[2]
    hanging = processes_of(network)[2]
    node._runner._stop_s = 0.2
    os.kill(hanging.pid, signal.SIGSTOP)
    with assert_runs_under(5):
        await node.stop()
    assert not is_alive(hanging.pid)
    await node.start()
    async with connect(node) as opened:
        await opened.call("dan_health", {})


@shared
async def test_shares_are_not_revealed_from_other_processes(network):
    """The error says what to use instead."""
    with pytest.raises(ConfigurationError, match="revealed"):
        network.nodes[0].reveal_share("00" * 32)


async def test_nothing_is_left_when_processes_are_stopped():
    """No process, no task, no socket, and not the folder that was made for them."""
    async with no_leaks():
        async with Devnet(2, 2, processes=True) as devnet:
            pids = [process.pid for process in processes_of(devnet)]
            folder = Path(devnet._temporary.name)
            assert folder.exists()
        assert not any(map(is_alive, pids))
        assert not folder.exists()


async def test_a_process_that_cannot_start_says_why():
    """Here its port is taken by somebody who does not share it. The others are stopped again."""
    async with no_leaks():
        devnet = Devnet(2, 2, processes=True)
        build = devnet._build

        def build_and_spoil(identities):
            build(identities)
            reserved = devnet._reservations[1]
            reserved.close()
            spoilt.append(listening_socket_without_sharing(reserved.port))

        spoilt = []
        devnet._build = build_and_spoil
        with pytest.raises(NodeError, match=r"could not start: .*[Aa]ddress already in use"):
            await devnet.start()
        assert all(process is None for process in processes_of(devnet))
        spoilt[0].close()


def listening_socket_without_sharing(port):
    taken = socket.socket()
    taken.bind(("127.0.0.1", port))
    taken.listen()
    return taken


async def test_a_process_that_dies_at_once_says_how():
    """Exit code and last words are in the error."""
    async with no_leaks():
        devnet = Devnet(2, 2, processes=True)
        executable = sys.executable
        try:
            sys.executable = "/bin/false"
            with pytest.raises(NodeError, match="ended with exit code 1"):
                await devnet.start()
        finally:
            sys.executable = executable


async def run_node_process(first_line):
    """Run the module with one line of input; gives exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "dan_async.devnet.node.process"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate(first_line)
    return process.returncode, output


async def test_started_by_hand_it_says_what_it_is():
    """One clear line and exit code 1."""
    code, output = await run_node_process(b"")
    assert code == 1
    assert "no configuration" in json.loads(output)["error"]


PARENT = """
import asyncio, json, sys
from dan_async.devnet import Devnet

async def main():
    async with Devnet(2, 2, processes=True) as devnet:
        print(json.dumps([node._runner._process.pid for node in devnet.nodes]), flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_children_die_with_their_parent(tmp_path):
    """Although it is killed and can stop nothing itself."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", PARENT),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)},
    )
    async with asyncio.timeout(30):
        pids = json.loads(await parent.stdout.readline())
        assert all(map(is_alive, pids))
        parent.kill()
        await parent.wait()
    await until(lambda: not any(map(is_alive, pids)))

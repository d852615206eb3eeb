"""Nodes in processes of their own: the same network, and nothing outlives its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from dan_async.devnet import Crash, Devnet, DropRequest
from dan_async.errors import ConfigurationError, NodeError
from tests.devnet.raw_client import Keygen, connect, connect_all, keygen_on
from tests.helpers import no_leaks


def processes_of(devnet):
    return [node._runner._process for node in devnet.nodes]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition, timeout_s=10):
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


async def test_a_network_of_processes():
    """Keys are made, nodes restart with their shares, faults reach them, secrets do not show, and all end."""
    async with no_leaks():
        async with Devnet(2, 3, processes=True) as devnet:
            pids = [process.pid for process in processes_of(devnet)]
            assert len({os.getpid(), *pids}) == 4
            async with connect_all(devnet) as nodes:
                keygen = Keygen(nodes=nodes, t=2)
                acks = await keygen.run()
                assert len({ack.claims for ack in acks}) == 1

            for node, pid in zip(devnet.nodes, pids, strict=True):
                secret = node._runner._config.identity.to_hex().encode()
                for file in ("cmdline", "environ"):
                    assert secret not in Path(f"/proc/{pid}/{file}").read_bytes()

            await devnet.nodes[0].stop()
            assert not devnet.nodes[0].is_running
            await devnet.nodes[0].start()
            devnet.faults[1] = DropRequest(methods=["dan_health"])
            async with connect_all(devnet) as nodes:
                keygen.nodes = nodes
                assert await keygen.send() == acks
                (dropping,) = [node for node in nodes if node.operator == devnet.nodes[1].operator]
                with pytest.raises(TimeoutError):
                    await dropping.call("dan_health", {}, timeout_s=0.5)

            with pytest.raises(ConfigurationError, match="revealed"):
                devnet.nodes[0].reveal_share(acks[0].key_id)
            pids += [process.pid for process in processes_of(devnet)]
            folder = Path(devnet._temporary.name)
            assert folder.exists()
        assert not any(map(is_alive, pids))
        assert not folder.exists()


async def test_a_crash_ends_the_process_and_loses_no_key(tmp_path):
    """It can be started again, and the key is there."""
    async with Devnet(2, 2, processes=True, storage=tmp_path) as devnet:
        devnet.faults[0] = Crash(methods=["dan_keygen"], times=1)
        async with connect_all(devnet) as nodes:
            # Faults reach a process within a moment; a health round trip is one.
            await asyncio.gather(*(node.call("dan_health", {}) for node in nodes))
            keygen = Keygen(nodes=nodes, t=2)
            await keygen.prepare()
            with pytest.raises(ExceptionGroup):
                await keygen.send()
        await until(lambda: not devnet.nodes[0].is_running)
        devnet.faults[0] = None
        await devnet.nodes[0].start()
        async with connect_all(devnet) as nodes:
            keygen.nodes = nodes
            assert len({ack.claims for ack in await keygen.send()}) == 1


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
        *("-m", "dan_async.devnet.node_process"),
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


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
async def test_children_die_with_their_parent(kill, tmp_path):
    """Also if it is killed and can stop nothing itself."""
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
        parent.send_signal(kill)
        await parent.wait()
    await until(lambda: not any(map(is_alive, pids)))


async def test_a_hanging_process_is_killed_in_the_end(tmp_path):
    """A stop takes a bounded time whatever the process does."""
    async with Devnet(2, 2, processes=True, storage=tmp_path) as devnet:
        (first, _) = processes_of(devnet)
        devnet.nodes[0]._runner._stop_s = 0.2
        os.kill(first.pid, signal.SIGSTOP)
        started = time.monotonic()
        await devnet.nodes[0].stop()
        assert time.monotonic() - started < 5
        assert not is_alive(first.pid)
        await devnet.nodes[0].start()
        async with connect(devnet.nodes[0]) as node:
            await node.call("dan_health", {})
        assert len(await keygen_on(devnet, 2)) == 2

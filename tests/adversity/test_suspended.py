"""A client whose process is suspended (SIGSTOP; a laptop's lid) for longer than its time: on waking it finds what its nodes have done."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

import pytest

from dan_async.devnet import Delay, Devnet
from tests.helpers import assert_runs_under

#: Says when the step is under way, and then how the job ended.
CLIENT = """
import asyncio, json, sys
from dan_async import DanClient, DanError, GatewayNetwork, LocalWallet, NodeEndpoint, NodeNetwork, Threshold, Timeouts
from dan_async.events import AttemptFailed, AttemptStarted

way, job, method, limits = json.loads(sys.argv[1])
endpoints = json.loads(sys.argv[2])
timeouts = Timeouts(**limits)

async def main():
    is_armed, failed = False, 0

    def on_event(event):
        nonlocal is_armed, failed
        failed += isinstance(event, AttemptFailed)
        if is_armed and isinstance(event, AttemptStarted) and event.method == method:
            is_armed = False
            print("begun", flush=True)

    if way == "gateway":
        network = GatewayNetwork(endpoints[0], revision="1", timeouts=timeouts)
    else:
        network = NodeNetwork([NodeEndpoint.of(text) for text in endpoints], threshold=Threshold(2, 3), timeouts=timeouts)
    async with DanClient(network, timeouts=timeouts, on_event=on_event) as dan:
        generous = dict(wallet=LocalWallet("11" * 32), chain_id=1, threshold=2, parties_number=3)
        session = await dan.generate_session_key(**generous, timeout=30)
        await dan.sign_message("warm", session, timeout=30)
        print("ready", flush=True)
        sys.stdin.readline()
        is_armed = True
        try:
            if job == "keygen":
                await dan.generate_session_key(**generous)
            else:
                await dan.sign_message("hello", session)
        except DanError as error:
            print(f"{type(error).__name__}: {error}".replace("\\n", " "), flush=True)
        else:
            print(f"done, {failed} attempts failed", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("way", "job", "method", "step", "limit"),
    [
        ("nodes", "keygen", "dan_keygen", "dan_keygen", "total_s"),
        ("nodes", "sign", "dan_sign", "dan_sign", "total_s"),
        pytest.param("gateway", "sign", "signgen", "dan_sign", "total_s", marks=pytest.mark.long),
        pytest.param("nodes", "keygen", "dan_keygen", "dan_keygen", "attempt_s", marks=pytest.mark.long),
        pytest.param("nodes", "sign", "dan_sign", "dan_sign", "attempt_s", marks=pytest.mark.long),
        pytest.param("http", "keygen", "dan_keygen", "dan_keygen", "total_s", marks=pytest.mark.long),
        pytest.param("gateway", "keygen", "keygen", "dan_keygen", "total_s", marks=pytest.mark.long),
    ],
)
async def test_answers_that_wait_are_read_before_the_time_is_judged(
    way: str, job: str, method: str, step: str, limit: str
) -> None:
    """Stopped when the nodes have the request, and for longer than the limit: the job succeeds with their answers."""
    async with Devnet(threshold=2, parties=3) as net, assert_runs_under(30):
        if way == "gateway":
            endpoints = [await net.add_gateway()]
        else:
            urls = [node.url.replace("ws://", "http://" if way == "http" else "ws://") for node in net.nodes]
            endpoints = [f"{url}={node.operator}" for url, node in zip(urls, net.nodes, strict=True)]
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CLIENT,
            json.dumps([way, job, method, {limit: 1.5}]),
            json.dumps(endpoints),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        try:
            assert await client.stdout.readline() == b"ready\n"
            for node in net.nodes:
                net.faults[node.index] = Delay(seconds=0.7, methods=(step,))
            client.stdin.write(b"go\n")
            assert await client.stdout.readline() == b"begun\n"
            await asyncio.sleep(0.3)  # until every node has the request
            client.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2.2)
            client.send_signal(signal.SIGCONT)
            assert await client.stdout.readline() == b"done, 0 attempts failed\n"
        finally:
            client.kill()
            await client.wait()

"""Every recipe under examples/recipes runs as its README says."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import nbclient
import nbformat
import pytest

from dan_async import DanClient, LocalWallet
from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.userops import SessionSigner, SimpleAccount, create_smart_account_client
from tests.chain.local_chain import CHAIN_ID, LocalChain
from tests.recipes.conftest import OWNER_KEY

pytestmark = [pytest.mark.recipes, pytest.mark.timeout(180)]

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
TESTED = {
    "aiohttp_server",
    "dask_batch",
    "langchain_tool",
    "mcp_agent",
    "notebook",
    "pytest_with_devnet",
    "structlog_and_prometheus",
    "trading_loop",
    "web3_transfer",
}


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def load(name: str) -> ModuleType:
    """Import a recipe's program."""
    spec = importlib.util.spec_from_file_location(name, RECIPES / name / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def run(name: str, *args: str) -> str:
    """Run a recipe's program to its end and return what it prints; it complains about nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(RECIPES / name / f"{name}.py"),
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    stdout, stderr = await process.communicate()
    assert process.returncode == 0, stderr.decode()
    assert b"Traceback" not in stderr
    return stdout.decode()


@asynccontextmanager
async def serving(name: str, *args: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run a recipe's server on a free port, give the URL it prints, and check that it stops cleanly."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(RECIPES / name / f"{name}.py"),
        "0",
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert process.returncode == 0


def test_every_recipe_is_here() -> None:
    """Each folder is tested, listed, and says how it is run."""
    folders = {path.name for path in RECIPES.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == TESTED
    listed = re.findall(r"\]\((\w+)/README\.md\)", (RECIPES / "README.md").read_text())
    assert set(listed) == TESTED
    for name in TESTED:
        command = (RECIPES / name / "README.md").read_text()
        assert f"examples/recipes/{name}" in command
        assert "pip install" in command


async def test_langchain_tool() -> None:
    """A tool call gets a signature; one beyond the permissions gets a refusal as its answer."""
    signed, refused = (await run("langchain_tool")).splitlines()
    assert re.fullmatch("success: 0x[0-9a-f]{130}", signed)
    status, _, answer = refused.partition(": ")
    assert (status, json.loads(answer)["error"]) == ("error", "NotPermittedError")


async def test_langchain_tools_send(dan: DanClient, chain: LocalChain, bundler_url: str) -> None:
    """With a smart account the agent sends: the call is on the chain, and nonsense is an answer too."""
    session = await dan.generate_session_key(wallet=LocalWallet(OWNER_KEY), chain_id=CHAIN_ID)
    async with await create_smart_account_client(
        signer=SessionSigner(dan, session),
        bundler_url=bundler_url,
        rpc_url=chain.url,
        account=SimpleAccount(),
    ) as account:
        chain.fund(await account.get_address())
        sign, send = load("langchain_tool").session_tools(dan, session, account)
        to = "0x" + os.urandom(20).hex()
        transaction = await send.ainvoke({"to": to, "value": 5})
        assert chain.rpc("eth_getTransactionReceipt", transaction)["status"] == "0x1"
        assert chain.balance(to) == 5
        assert json.loads(await send.ainvoke({"to": "nowhere"}))["error"] == "InvalidFieldError"
        assert json.loads(await send.ainvoke({"to": to, "data": "xy"}))["error"] == "ValueError"
        signature = await sign.ainvoke({"message": "hello"})
    assert recover_address(personal_message_digest(b"hello"), signature) == session.session_key_eoa


async def test_structlog_and_prometheus() -> None:
    """Log lines are JSON, /metrics counts in both libraries' words, and neither holds a secret."""
    async with serving("structlog_and_prometheus") as (url, process):
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            metrics = await answer.text()
        assert process.stderr is not None
        lines = [json.loads(await process.stderr.readline()) for _ in range(2)]
    assert re.search(
        r'^dan_operation_seconds_count\{error="",operation="keygen"\} 1\.0$', metrics, re.MULTILINE
    )
    assert re.search(r'^dan_operation_seconds_count\{error="",operation="signgen"\} ', metrics, re.MULTILINE)
    assert "dan_client_operation_duration_seconds_count{" in metrics
    assert [(line["event"], line["operation"], line["level"]) for line in lines] == [
        ("operation_finished", "keygen", "info"),
        ("operation_finished", "signgen", "info"),
    ]


async def test_web3_transfer(anvil_url: str) -> None:
    """A quarter of an ether leaves the session's address."""
    sent, left = (await run("web3_transfer", anvil_url)).splitlines()
    assert re.fullmatch("sent from 0x[0-9a-fA-F]{40} in block [0-9]+", sent)
    assert left.startswith("has left  0.749")


async def test_mcp_agent() -> None:
    """The agent's message is signed without permissions, and refused with them."""
    lines = (await run("mcp_agent")).splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "tools",
        "session",
        "signed",
        "tools",
        "session",
        "refused",
    ]
    assert json.loads(lines[-1].partition(": ")[2])["error"]["code"] == "permission_denied"


async def test_trading_loop() -> None:
    """Every order is signed, and both percentiles are printed."""
    printed = await run("trading_loop", "20")
    assert re.fullmatch(r"20 orders signed, 0 failed\np50 [0-9.]+ ms, p99 [0-9.]+ ms\n", printed)


async def test_aiohttp_server(tmp_path: Path) -> None:
    """Sessions are made and used by reference; errors have a status."""
    store = str(tmp_path / "sessions.db")
    async with serving("aiohttp_server", store) as (url, _), aiohttp.ClientSession(url) as http:

        async def post(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            async with http.post(path, json=body) as answer:
                return answer.status, await answer.json() if answer.content_type == "application/json" else {}

        status, made = await post("/sessions", {"reference": "desk 1"})
        assert status == 201
        status, signed = await post("/sessions/desk%201/signatures", {"message": "hello"})
        assert status == 200
        assert recover_address(personal_message_digest(b"hello"), signed["signature"]) == made["address"]
        assert (await post("/sessions/desk%202/signatures", {"message": "hello"}))[0] == 404
        status, error = await post("/sessions", {"reference": ""})
        assert status == 400
        assert "reference" in error["error"]


def test_notebook() -> None:
    """Its cells run one after the other; the session is a table with the secret masked, the batch has its bar."""
    notebook = nbformat.read(RECIPES / "notebook" / "session_keys.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    first, second, batch, _ = [cell for cell in notebook.cells if cell.cell_type == "code"]
    table = first.outputs[-1]["data"]["text/html"]
    assert "<th>sessionKeyEOA</th>" in table
    assert "<th>hexEphSKWithout0x</th><td>***</td>" in table
    assert re.fullmatch("'0x[0-9a-f]{130}'", second.outputs[-1]["data"]["text/plain"])
    assert batch.outputs[-1]["data"]["text/plain"] == "'10 sessions'"
    assert "progress" in json.dumps(batch.outputs)


def test_pytest_with_devnet() -> None:
    """Its tests pass, in a project of their own."""
    # By its name, for a checkout may be on the path without being installed; installed, pytest finds it by itself.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:dan_async", "-p", "dan_async.pytest_plugin"]
    done = subprocess.run(
        [*command, str(RECIPES / "pytest_with_devnet")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


async def test_dask_batch() -> None:
    """Made once, kept the second time."""
    assert (await run("dask_batch", "6")).splitlines() == ["{'made': 6}", "{'kept': 6}"]

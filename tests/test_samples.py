"""
Every Python sample of README and docs runs as it is printed, one page after the other, over real nodes.

The names that a sample takes for granted are its reader's own, and are made here; addresses of services that nobody runs are
replaced by those of services that run here. What cannot be had here is listed with the test that stands for it.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from eth_account import Account

from dan_async import DanClient, LocalWallet, NodeEndpoint, NodeNetwork
from dan_async.crypto import personal_message_digest, recover_address
from dan_async.crypto.abi import encode_call
from dan_async.devnet import DealWrongShare, Devnet
from dan_async.errors import QuorumError
from dan_async.protocols.sign_request import RequestType, SignRequest
from dan_async.storage import MemorySessionStore, StoreKey
from dan_async.user_operation import ENTRY_POINTS, UserOperationV07
from tests.passkeys.authenticator import Authenticator
from tests.servers import rpc_server

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.md"))]

#: The page and the number of a sample -> the test that runs the like of it, with the services that it needs.
ELSEWHERE = {
    ("batch", 2): "tests/devnet/test_dask.py",
    ("web3", 0): "tests/recipes/test_web3.py",
    ("mcp", 0): "tests/recipes/test_mcp.py",
    ("user-operations", 0): "tests/chain/test_session_on_chain.py",
    ("modern-accounts", 0): "tests/chain/test_nexus.py",
    ("modern-accounts", 1): "tests/chain/test_nexus.py",
    ("sessions-on-chain", 0): "tests/chain/test_biconomy_sessions.py",
    ("sessions-on-chain", 1): "tests/unit/userops/test_sessions_on_chain.py",
}

KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
OWNER = LocalWallet(KEY)
OPERATION = UserOperationV07(
    sender="0xca7746cA393578aae76D6D4575064a4387dE7b98",
    nonce=1,
    call_data=encode_call("execute(address,uint256,bytes)", OWNER.address, 0, b""),
    call_gas_limit=1,
    verification_gas_limit=1,
    pre_verification_gas=1,
    max_fee_per_gas=1,
    max_priority_fee_per_gas=1,
)


def samples(page: Path) -> list[str]:
    return re.findall(r"```python(?: title=.*)?\n(.*?)```", page.read_text(), re.DOTALL)


CASES = [(page, number) for page in PAGES for number in range(len(samples(page)))]


class Page:
    """A reader's web page: its wallet, its passkey, its WebSocket."""

    def __init__(self) -> None:
        self._device = Authenticator(origin="https://wallet.example", rp_id="wallet.example")
        self._answers: asyncio.Queue[dict[str, str]] = asyncio.Queue()

    async def ask(self, options: dict[str, Any]) -> dict[str, Any]:
        return await (self._device.create if "user" in options else self._device.get)(options)

    async def send_json(self, message: dict[str, Any]) -> None:
        await self._answers.put({"signature": await OWNER.sign_typed_data(message["params"][1])})

    async def receive_json(self) -> dict[str, str]:
        return await self._answers.get()


class Ledger:
    """The part of an AsyncWeb3 that the samples use."""

    class eth:  # noqa: N801
        sent: ClassVar[list[bytes]] = []

        @classmethod
        async def send_raw_transaction(cls, raw: bytes) -> None:
            cls.sent.append(raw)


class SmartAccount:
    """A smart account of the reader's."""

    signer, chain_id = OWNER, 80002

    async def get_address(self) -> str:
        return OPERATION.sender


class Running:
    """True a few times."""

    def __init__(self) -> None:
        self.left = 3

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left >= 0


async def wallet_rpc(method: str, params: Any) -> Any:
    """A wallet's JSON-RPC."""
    if method == "eth_accounts":
        return [OWNER.address]
    assert method == "eth_signTypedData_v4"
    typed_data = params[1]
    return await OWNER.sign_typed_data(json.loads(typed_data) if isinstance(typed_data, str) else typed_data)


def network_file_entry(node: NodeEndpoint) -> str:
    return f'[[nodes]]\nurl = "{node.url}"\noperator = "{node.operator}"\n'


async def readers_names(net: Devnet, stack: AsyncExitStack, folder: Path) -> dict[str, Any]:
    """Make what the samples take for granted."""
    store = MemorySessionStore()
    dan = await stack.enter_async_context(DanClient(NodeNetwork(net.endpoints), store=store))
    session = await dan.generate_session_key(wallet=OWNER, chain_id=80002)
    (record,) = [record async for record in store.find()]
    (folder / "keys.key").write_text(StoreKey.generate().to_text())
    (folder / "keys.key").chmod(0o600)
    (folder / "net.toml").write_text('kind = "nodes"\n' + "".join(map(network_file_entry, net.endpoints)))

    async def next_order() -> str:
        return "buy"

    page = Page()
    permissions = json.dumps([{"type": "call", "to": OWNER.address, "selectors": ["0x"]}])
    request = SignRequest(
        request_type=RequestType.USER_OPERATION,
        message=json.dumps(
            {
                "userOperation": OPERATION.to_dict(),
                "entryPointVersion": "v0.7.0",
                "entryPointAddress": ENTRY_POINTS["v0.7.0"],
                "chainId": 80002,
            }
        ),
    )
    return {
        "__name__": "__main__",
        "os": os,
        "time": time,
        "asyncio": asyncio,
        "pytest": pytest,
        "DanClient": DanClient,
        "NodeNetwork": NodeNetwork,
        "Devnet": Devnet,
        "Protocol": Protocol,
        "QuorumError": QuorumError,
        "DealWrongShare": DealWrongShare,
        "Account": Account,
        "dan": dan,
        "nodes": net.endpoints,
        "store": store,
        "session": session,
        "record_id": record.record_id,
        "key": KEY,
        "wallet": OWNER,
        "owner_wallet": OWNER,
        "owner": OWNER.address,
        "address": OWNER.address,
        "keys": [f"{i:064x}" for i in (1, 2, 3)],
        "orders": ["buy", "sell"],
        "next_order": next_order,
        "page": page,
        "websocket": page,
        "account_id": b"account 1",
        "account": SmartAccount(),
        "running": Running(),
        "w3": Ledger,
        "to": OWNER.address,
        "fees": {"gasPrice": 1},
        "text": permissions,
        "request": request,
        "prepared_elsewhere": OPERATION.to_dict(),
        "stored": session.to_dict(),
        "key_gen_data": {
            "sessionPublicKey": session.session_key_eoa,
            "keyId": session.mpc_key_id,
            "ephSK": "0x" + session.hex_eph_sk_without_0x,
            "ephId": session.eph_id,
        },
        "requests": [{"wallet": OWNER, "chain_id": 80002, "reference": f"row {i}"} for i in range(3)],
    }


async def run(sample: str, names: dict[str, Any], net: Devnet) -> None:
    """Run a sample; tests that it defines run as well."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    made = eval(compile(sample, "sample", "exec", flags, dont_inherit=True), names)
    if inspect.isawaitable(made):
        await made
    async with AsyncExitStack() as stack:

        async def make_devnet(**options: Any) -> Devnet:
            return await stack.enter_async_context(Devnet(**options))

        for name, value in list(names.items()):
            if name.startswith("test_"):
                takes = inspect.signature(value).parameters
                fixtures: dict[str, Any] = {"make_devnet": make_devnet}
                if "devnet" in takes:
                    fixtures["devnet"] = await make_devnet(threshold=2, parties=3)
                await value(**{each: fixtures[each] for each in takes})
                del names[name]
            elif name == "main":
                await value()
                del names[name]


@pytest.fixture
async def net(page: Path) -> AsyncIterator[Devnet]:
    # Behind a gateway it is 3-of-5 unless something else is said.
    async with Devnet(3, 5) if page.stem in {"gateway", "from-walletprovider-sdk"} else Devnet(2, 3) as made:
        yield made


@pytest.mark.parametrize(("page", "number"), CASES, ids=[f"{page.stem}-{number}" for page, number in CASES])
async def test_the_sample_runs(
    page: Path, number: int, net: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After those before it on its page, as a reader would type them."""
    if (page.stem, number) in ELSEWHERE:
        assert (ROOT / ELSEWHERE[page.stem, number]).is_file()
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OWNER_KEY", KEY)
    logger = logging.getLogger("dan_async")
    handlers, level = list(logger.handlers), logger.level
    async with AsyncExitStack() as stack:
        names = await readers_names(net, stack, tmp_path)
        wallet = await stack.enter_async_context(rpc_server(wallet_rpc))
        sample = samples(page)[number]
        if "asyncio.run(main())" in sample:  # it runs a loop of its own
            await asyncio.to_thread(exec, compile(sample, page.name, "exec"), {"__name__": "__main__"})
            return
        sample = sample.replace("wss://gateway.example/v1", net.gateway_url)
        sample = sample.replace("http://127.0.0.1:8545", f"http://127.0.0.1:{wallet.port}/v1/rpc")
        try:
            await run(sample, names, net)
        finally:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            for value in names.values():
                if isinstance(value, DanClient | NodeNetwork | Devnet):
                    await value.aclose()


@pytest.mark.long
async def test_the_commands_of_the_first_tutorial_run(tmp_path: Path) -> None:
    """A network that stays, a key from it and a signature, as a reader types them in two terminals."""
    page = (ROOT / "docs" / "tutorials" / "first-key.md").read_text()
    serve, use = re.findall(r"```sh\n(dan-async .*?)```", page, re.DOTALL)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    options: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {**os.environ, "PATH": path},
        "stdout": asyncio.subprocess.PIPE,
    }
    network = await asyncio.create_subprocess_exec(*serve.split(), **options)
    try:
        assert network.stdout is not None
        while b"gateway in front" not in await asyncio.wait_for(network.stdout.readline(), 30):
            pass
        user = await asyncio.create_subprocess_exec("sh", "-ec", use, **options)
        printed, _ = await asyncio.wait_for(user.communicate(), 40)
    finally:
        network.terminate()
        await network.communicate()
    assert user.returncode == 0
    session = json.loads((tmp_path / "session.json").read_text())
    signature = printed.decode().splitlines()[-1]
    assert recover_address(personal_message_digest(b"hello"), signature) == session["sessionKeyEOA"]


def write_modules(folder: Path) -> None:
    """Write each sample as a module for type checkers: a whole program as it is, others with the names that they take for granted."""
    folder.mkdir(parents=True, exist_ok=True)
    for page in PAGES:
        before = ""
        for number, sample in enumerate(samples(page)):
            if "asyncio.run(main())" in sample:
                module = sample
            else:
                body = textwrap.indent(before + sample, "    ")
                module = f"from tests.typing.readers_names import *\n\n\nasync def sample() -> None:\n{body}"
                before += "".join(
                    re.findall(r"^(?:from|import) (?:[^(\n]+|[^(]+\([^)]+\))\n", sample, re.MULTILINE)
                )
            name = re.sub(r"\W", "_", f"{page.stem}_{number}")
            (folder / f"{name}.py").write_text(module)


if __name__ == "__main__":
    write_modules(Path(sys.argv[1]))

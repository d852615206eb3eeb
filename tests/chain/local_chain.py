"""The chain of ``dan-async dev`` for tests: asked synchronously, with contracts of theirs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dan_async.crypto.abi import decode_arguments, encode_arguments, encode_call
from dan_async.devnet.local_chain import LocalChain as DevelopmentChain
from dan_async.user_operation import ENTRY_POINTS
from tests.helpers import loop_in_a_thread

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
ANVIL = MODULES / "@foundry-rs/anvil-linux-amd64/bin/anvil"
ALTO = MODULES / "@pimlico/alto/esm/cli/alto.js"
ARTIFACTS = {
    "v0.6.0": MODULES / "contracts-0.6/artifacts",
    "v0.7.0": MODULES / "contracts-0.7/artifacts",
}
CHAIN_ID = 31337
ETHER = 10**18

_START_S = 240.0


def require_chain(environment: Mapping[str, str] = os.environ) -> None:
    """Skip where Node.js or the packages are not installed; in CI that is a failure."""
    if shutil.which("node") and ANVIL.is_file() and ALTO.is_file():
        return
    reason = "no chain to test on: install Node.js, and run `npm ci --ignore-scripts` in tests/chain"
    if environment.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class LocalChain:
    """A running Anvil, asked synchronously, apart from the code under test."""

    def __init__(self, url: str, bundler_url: str = "") -> None:
        self.url = url
        self.bundler_url = bundler_url
        self.rich = self.rpc("eth_accounts")[0]
        self.factories: dict[str, str] = {}

    def rpc(self, method: str, *params: Any) -> Any:
        """Ask Anvil; its errors are raised."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as response:
            answer = json.load(response)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def transact(self, **transaction: Any) -> dict[str, Any]:
        """Send a transaction from the rich account, and wait until it is in a block."""
        sent = self.rpc("eth_sendTransaction", {"from": self.rich, "gas": hex(15_000_000), **transaction})
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            receipt = self.rpc("eth_getTransactionReceipt", sent)
            if receipt:
                assert receipt["status"] == "0x1", receipt
                return receipt
            time.sleep(0.02)
        raise AssertionError(f"the transaction {sent} is in no block")

    def deploy(self, version: str, name: str, arguments: bytes = b"") -> str:
        """Deploy a contract of the package and give its address."""
        bytecode = json.loads((ARTIFACTS[version] / f"{name}.json").read_text())["bytecode"]
        return self.transact(data=bytecode + arguments.hex())["contractAddress"]

    def call(self, contract: str, signature: str, *arguments: Any, returns: str) -> tuple[Any, ...]:
        """Call a function without changing anything."""
        data = "0x" + encode_call(signature, *arguments).hex()
        answer = self.rpc("eth_call", {"to": contract, "data": data}, "latest")
        return decode_arguments(returns, bytes.fromhex(answer[2:]))

    def fund(self, address: str, wei: int = ETHER) -> None:
        """Give somebody something to pay with."""
        self.transact(to=address, value=hex(wei))

    def balance(self, address: str) -> int:
        """What somebody has, in wei."""
        return int(self.rpc("eth_getBalance", address, "latest"), 16)

    def has_code(self, address: str) -> bool:
        """Whether there is a contract."""
        return self.rpc("eth_getCode", address, "latest") != "0x"


@contextlib.contextmanager
def running_chain() -> Iterator[LocalChain]:
    """Run the chain of ``dan-async dev`` on an event loop of its own, with factories at unusual addresses as well."""
    require_chain()
    with loop_in_a_thread(limit_s=_START_S) as do:
        started = DevelopmentChain(node_modules=MODULES)
        try:
            do(started.start())
            assert started.endpoints.rpc_url is not None
            assert started.endpoints.bundler_url is not None
            chain = LocalChain(started.endpoints.rpc_url, started.endpoints.bundler_url)
            for version, address in ENTRY_POINTS.items():
                arguments = encode_arguments("(address)", (address,))
                chain.factories[version] = chain.deploy(version, "SimpleAccountFactory", arguments)
            yield chain
        finally:
            do(started.aclose())

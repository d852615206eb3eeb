"""A chain of our own: Anvil, the entry points at their well-known addresses, factories, and a bundler (Pimlico's Alto)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dan_async.crypto.abi import decode_arguments, encode_arguments, encode_call
from dan_async.types import EntryPointVersion
from dan_async.user_operation import ENTRY_POINTS
from dan_async.userops.account_kinds import first_created

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

#: The deterministic deployer that is at this address on every chain (Arachnid's proxy).
DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C"

_START_S = 100.0

#: Anvil's development keys, known to everyone: the second and third are Alto's.
_EXECUTOR = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
_UTILITY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"


def require_chain(environment: Mapping[str, str] = os.environ) -> str:
    """Give the path of node; skip where it or the packages are not installed; in CI that is a failure."""
    node = shutil.which("node")
    if node and ANVIL.is_file() and ALTO.is_file():
        return node
    reason = "no chain to test on: install Node.js, and run `npm ci --ignore-scripts` in tests/chain"
    if environment.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class LocalChain:
    """A running Anvil with everything deployed; asked synchronously, apart from the code under test."""

    def __init__(self, url: str, *, is_empty: bool = True) -> None:
        self.url = url
        self.rich = self.rpc("eth_accounts")[0]
        self.factories: dict[str, str] = {}
        if not is_empty:
            return
        for version, address in ENTRY_POINTS.items():
            self._put_entry_point(version, address)
            self.factories[version] = self.deploy(
                version, "SimpleAccountFactory", encode_arguments("(address)", (address,))
            )

    def _put_entry_point(self, version: str, address: str) -> None:
        """Put an entry point where everybody expects it, and the contract that it made when it was constructed, too."""
        deployed = self.deploy(version, "EntryPoint")
        creator, own_creator = first_created(deployed), first_created(address)
        code = self.rpc("eth_getCode", deployed, "latest")
        assert creator[2:].lower() in code  # an immutable
        self.rpc("anvil_setCode", address, code.replace(creator[2:].lower(), own_creator[2:].lower()))
        self.rpc("anvil_setCode", own_creator, self.rpc("eth_getCode", creator, "latest"))

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

    def put_well_known_factory(self, version: EntryPointVersion) -> None:
        """Deploy SimpleAccountFactory where everybody expects it: by the deployer of EIP-1014 that Anvil has, with salt 0."""
        bytecode = json.loads((ARTIFACTS[version] / "SimpleAccountFactory.json").read_text())["bytecode"]
        arguments = encode_arguments("(address)", (ENTRY_POINTS[version],))
        self.transact(to=DEPLOYER, data="0x" + "00" * 32 + bytecode[2:] + arguments.hex())

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
def running_chain(home: Path) -> Iterator[LocalChain]:
    """Run Anvil on a port of the system's choice, with everything deployed."""
    require_chain()
    command = [str(ANVIL), "--host", "127.0.0.1", "--port", "0", "--accounts", "3", "--hardfork", "prague"]
    command += ["--chain-id", str(CHAIN_ID)]
    with _running(command, home / "anvil.log", rb"Listening on (127\.0\.0\.1:[0-9]+)\s") as address:
        yield LocalChain(f"http://{address}")


@contextlib.contextmanager
def running_bundler(chain: LocalChain, home: Path) -> Iterator[str]:
    """Run Alto for the chain; gives its URL."""
    options = {
        "entrypoints": ",".join(ENTRY_POINTS.values()),
        "rpc-url": chain.url,
        "port": "0",
        "executor-private-keys": _EXECUTOR,
        "utility-private-key": _UTILITY,
        "safe-mode": "false",  # Anvil has no JavaScript tracer
        "deploy-simulations-contract": "true",
        "max-gas-per-bundle": "15000000",
        "block-time": "100",
        "min-bundle-interval": "50",
        "max-bundle-interval": "100",
    }
    command = [require_chain(), str(ALTO)]
    command += [part for name, value in options.items() for part in (f"--{name}", value)]
    with _running(command, home / "alto.log", rb"Server listening at http://[0-9.]+:([0-9]+)") as port:
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def _running(command: list[str], log: Path, announced: bytes) -> Iterator[str]:
    environment = {"HOME": str(log.parent), "PATH": os.environ.get("PATH", "")}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            deadline = time.monotonic() + _START_S
            while time.monotonic() < deadline and process.poll() is None:
                if found := re.search(announced, log.read_bytes()):
                    yield found[1].decode()
                    return
                time.sleep(0.05)
            raise AssertionError(f"{command[0]} did not start: {log.read_bytes()[-2000:]!r}")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

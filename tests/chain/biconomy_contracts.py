"""
Biconomy's contracts on a chain of our own, at their well-known addresses.

They are compiled from their package, with the settings of their deployments; what is in no package is in StandIns.sol. The
result is kept beside the compiler's packages, and nothing of it in the repository.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.user_operation import ENTRY_POINTS
from dan_async.userops import BiconomyV2, SessionContracts
from dan_async.userops.account_kinds import first_created
from tests.chain.local_chain import LocalChain

HERE = Path(__file__).parent.parent / "biconomy"
IMPLEMENTATION = "0x0000002512019Dafb59528B82CB92D3c5D2423aC"
HANDLER = "0x0bBa6d96BD616BedC6BFaa341742FD43c60b83C1"
CONTRACTS = SessionContracts()


def compiled() -> dict[str, dict[str, str]]:
    """Code by the contracts' names; skip where the packages are not installed, fail in CI."""
    node = shutil.which("node")
    if node is None or not (HERE / "node_modules/solc").is_dir():
        reason = "no contracts: install Node.js, and run `npm ci --ignore-scripts` in tests/biconomy"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    inputs = [HERE / name for name in ("compile.js", "StandIns.sol", "package-lock.json")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:16]
    kept = HERE / "node_modules/.cache" / f"contracts-{digest}.json"
    kept.parent.mkdir(exist_ok=True)
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process compiles, and the others wait for it
        if not kept.is_file():
            done = subprocess.run(
                [node, "compile.js"], cwd=HERE, capture_output=True, timeout=600, check=True
            )
            part = kept.with_suffix(".part")
            part.write_bytes(done.stdout)
            part.replace(kept)
    return dict(json.loads(kept.read_text()))


class BiconomyContracts:
    """The contracts on a chain, and a token."""

    def __init__(self, chain: LocalChain) -> None:
        self.chain = chain
        self.code = compiled()
        entry_point = encode_arguments("(address)", (ENTRY_POINTS["v0.6.0"],))
        made = self._deploy("SmartAccount", entry_point)
        self._put(IMPLEMENTATION, made, {made: IMPLEMENTATION})
        made = self._deploy(
            "SmartAccountFactory", encode_arguments("(address,address)", (IMPLEMENTATION, chain.rich))
        )
        self._put(HANDLER, first_created(made), {})
        self._put(BiconomyV2().factory, made, {first_created(made): HANDLER})
        for name, address in {
            "EcdsaOwnershipRegistryModule": BiconomyV2().module,
            "SessionKeyManager": CONTRACTS.manager,
            "ERC20SessionValidationModule": CONTRACTS.erc20,
            "AbiModule": CONTRACTS.abi,
            "Router": CONTRACTS.router,
        }.items():
            self._put(address, self._deploy(name), {})
        self.token = self._deploy("Token")

    def _deploy(self, name: str, arguments: bytes = b"") -> str:
        return self.chain.transact(data=self.code[name]["bytecode"] + arguments.hex())["contractAddress"]

    def _put(self, address: str, made: str, immutables: dict[str, str]) -> None:
        """Put a contract's code where everybody expects it, with the addresses in it that go with the place."""
        code = self.chain.rpc("eth_getCode", made, "latest")
        for found, wanted in immutables.items():
            assert found[2:].lower() in code
            code = code.replace(found[2:].lower(), wanted[2:].lower())
        self.chain.rpc("anvil_setCode", address, code)

    def mint(self, to: str, amount: int) -> None:
        """Give somebody tokens."""
        self.chain.transact(to=self.token, data="0x" + encode_call("mint(address,uint256)", to, amount).hex())

    def tokens(self, of: str) -> int:
        """How many somebody has."""
        return int(self.chain.call(self.token, "balanceOf(address)", of, returns="(uint256)")[0])

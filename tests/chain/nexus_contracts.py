"""
Nexus's contracts on a chain of our own, with modules for its owner and for session keys.

Account, factory, bootstrap and proxy are the compiled code that @rhinestone/modulekit has: Nexus 1.0.0 with EIP-7702. The
modules are in no package: small contracts of our own stand in, see tests/biconomy/StandIns.sol.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.user_operation import ENTRY_POINTS
from dan_async.userops import Nexus
from tests.chain.biconomy_contracts import compiled
from tests.chain.local_chain import LocalChain

HERE = Path(__file__).parent.parent / "nexus"
SOURCE = HERE / "node_modules/@rhinestone/modulekit/src/deployment/precompiles/NexusPrecompiles.sol"


def packaged() -> dict[str, str]:
    """Creation code by its constant's name; skip where the package is not installed, fail in CI."""
    if not SOURCE.is_file():
        reason = "no contracts: run `npm ci --ignore-scripts` in tests/nexus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return dict(re.findall(r'constant (\w+)\s*=\s*hex"([0-9a-f]+)"', SOURCE.read_text()))


class NexusContracts:
    """The contracts on a chain, and a token."""

    def __init__(self, chain: LocalChain) -> None:
        self.chain = chain
        code, ours = packaged(), compiled()
        self.implementation = self._deploy(
            code["NEXUS_BYTECODE"], encode_arguments("(address)", (ENTRY_POINTS["v0.7.0"],))
        )
        self.factory = self._deploy(
            code["NEXUS_ACCOUNT_FACTORY_BYTECODE"],
            encode_arguments("(address,address)", (self.implementation, chain.rich)),
        )
        self.bootstrap = self._deploy(code["NEXUS_BOOTSTRAP_BYTECODE"])
        self.owner_validator = self._deploy(ours["OneOwner"]["bytecode"][2:])
        self.proxy_code = bytes.fromhex(code["NEXUS_PROXY_BYTECODE"])
        chain.rpc("anvil_setCode", Nexus().session_validator, ours["SeveralOwners"]["runtime"])
        self.token = self._deploy(ours["Token"]["bytecode"][2:])

    def _deploy(self, code: str, arguments: bytes = b"") -> str:
        return self.chain.transact(data="0x" + code + arguments.hex())["contractAddress"]

    def put(self, implementation: str, factory: str) -> None:
        """Put account and factory at other addresses as well: their well-known ones."""
        code = self.chain.rpc("eth_getCode", self.factory, "latest")
        assert self.implementation[2:] in code  # an immutable
        code = code.replace(self.implementation[2:], implementation[2:].lower())
        self.chain.rpc("anvil_setCode", factory, code)
        self.chain.rpc(
            "anvil_setCode", implementation, self.chain.rpc("eth_getCode", self.implementation, "latest")
        )

    def kind(self, **changes: Any) -> Nexus:
        """The kind of account that these contracts make."""
        fields = ("factory", "bootstrap", "implementation", "owner_validator", "proxy_code")
        return Nexus(**{name: getattr(self, name) for name in fields} | changes)

    def mint(self, to: str, amount: int) -> None:
        """Give somebody tokens."""
        self.chain.transact(to=self.token, data="0x" + encode_call("mint(address,uint256)", to, amount).hex())

    def tokens(self, of: str) -> int:
        """How many somebody has."""
        return int(self.chain.call(self.token, "balanceOf(address)", of, returns="(uint256)")[0])

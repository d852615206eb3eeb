"""A chain on loopback to develop against: Anvil, the ERC-4337 entry points at their own addresses, and the bundler Alto."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

from dan_async.crypto.abi import encode_arguments
from dan_async.deadline import Deadline, cancel_and_wait, carry_through
from dan_async.errors import ConfigurationError, DanError, RpcError
from dan_async.network_file import ChainEndpoints
from dan_async.types import Address
from dan_async.user_operation import ENTRY_POINTS
from dan_async.userops.account_kinds import first_created
from dan_async.userops.service import JsonRpcService

#: What npm installs all of it with, in any folder that the command is run in or below.
NPM_LINE = (
    "npm install @foundry-rs/anvil @pimlico/alto@0.0.20 "
    "contracts-0.6@npm:@account-abstraction/contracts@0.6.0 contracts-0.7@npm:@account-abstraction/contracts@0.7.0"
)

#: The folder of each entry point's package in node_modules.
_PACKAGES = {"v0.6.0": "contracts-0.6", "v0.7.0": "contracts-0.7"}

#: Anvil's development keys, known to everyone: the second and the third are Alto's.
_EXECUTOR = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
_UTILITY = "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a"

#: Deploys at an address that follows from code and salt; Anvil has it from the start.
_DEPLOYER = "0x4e59b44847b379578588920cA78FbF26c0B4956C"

_CHAIN_ID = 31337
_START_S = 120.0
_STOP_S = 5.0


class LocalChain:
    """
    Anvil with both entry points and the factories of SimpleAccount at their own addresses, and Alto in front of it.

    For development only: its keys are known to everyone.

    Attributes:
        endpoints: The chain's id, and the URLs of Anvil and Alto; when it has started.

    Args:
        node_modules: The folder in which npm installed the programs; looked for in the working folder and above if None.
        port: Anvil's port, Alto's is the next one; None for free ones.
        state: A file that keeps the chain's state from one run to the next; None to begin anew.
    """

    endpoints: ChainEndpoints

    def __init__(
        self, *, node_modules: Path | None = None, port: int | None = None, state: Path | None = None
    ) -> None:
        self._modules = node_modules or _node_modules(Path.cwd())
        self._anvil, self._alto = self._program("anvil"), self._program("alto")
        self._artifacts = {
            version: self._modules / package / "artifacts" for version, package in _PACKAGES.items()
        }
        if missing := [str(path.parent.name) for path in self._artifacts.values() if not path.is_dir()]:
            raise _not_found(" and ".join(missing))
        self._port = port
        self._state = state
        self._programs: list[_Program] = []
        self._open = AsyncExitStack()

    def _program(self, name: str) -> str:
        # npm does not always link Anvil: two of its packages claim the name.
        for place in (self._modules / ".bin" / name, self._modules / "@foundry-rs" / name / "bin.mjs"):
            if place.exists():
                return str(place)
        found = shutil.which(name)
        if found is None:
            raise _not_found(f"{name} in {self._modules} or on PATH")
        return found

    def __repr__(self) -> str:
        return f"LocalChain({getattr(self, 'endpoints', None)!r})"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def stopped_programs(self) -> tuple[str, ...]:
        """The names of those of its programs that have ended by themselves."""
        return tuple(program.name for program in self._programs if program.has_ended)

    async def start(self) -> None:
        """
        Start both programs and put the contracts in place.

        Raises:
            DanError: A program ended or did not listen in time; the error has its last words.
        """
        try:
            home = self._open.enter_context(tempfile.TemporaryDirectory(prefix="dan-async-chain-"))
            options = f"--host 127.0.0.1 --port {self._port or 0} --hardfork prague --chain-id {_CHAIN_ID}"
            state = ["--state", str(self._state)] if self._state else []
            anvil = [self._anvil, *options.split(), *state]
            where = await self._run("anvil", anvil, home, rb"Listening on (127\.0\.0\.1:[0-9]+)\s")
            rpc_url = f"http://{where}"
            await self._deploy(rpc_url)
            alto = [self._alto, *_alto_options(rpc_url, self._port + 1 if self._port else 0)]
            port = await self._run("alto", alto, home, rb"Server listening at http://[0-9.]+:([0-9]+)")
            self.endpoints = ChainEndpoints(_CHAIN_ID, rpc_url, f"http://127.0.0.1:{port}")
        except BaseException:
            await carry_through(self.aclose())
            raise

    async def aclose(self) -> None:
        """Stop both programs. May be called twice."""
        await self._open.aclose()

    async def _run(self, name: str, command: Sequence[str], home: str, announced: bytes) -> str:
        program = _Program(name)
        self._open.push_async_callback(program.stop)
        self._programs.append(program)
        return await program.start(command, home, re.compile(announced))

    async def _deploy(self, url: str) -> None:
        service = JsonRpcService("chain", url)
        try:
            contracts = _Contracts(service)
            rich = (await contracts.ask("eth_accounts"))[0]
            for version, address in ENTRY_POINTS.items():
                if await contracts.code_at(address) == "0x":
                    await contracts.put_entry_point(rich, address, self._bytecode(version, "EntryPoint"))
                factory = self._bytecode(version, "SimpleAccountFactory")
                arguments = encode_arguments("(address)", (address,)).hex()
                # The factories' own addresses come of the deployer and the salt 0.
                data = f"0x{bytes(32).hex()}{factory[2:]}{arguments}"
                await contracts.transact(rich, to=_DEPLOYER, data=data)
        finally:
            await carry_through(service.aclose())

    def _bytecode(self, version: str, name: str) -> str:
        try:
            found = json.loads((self._artifacts[version] / f"{name}.json").read_text())["bytecode"]
        except (OSError, ValueError, KeyError):
            raise _not_found(_PACKAGES[version]) from None
        return str(found)


class _Contracts:
    """Puts contracts on Anvil's chain."""

    def __init__(self, service: JsonRpcService) -> None:
        self._service = service
        self._deadline = Deadline(_START_S)

    async def ask(self, method: str, *params: Any) -> Any:
        try:
            return await self._service.ask(method, params, deadline=self._deadline)
        except RpcError as error:
            raise DanError(f"Anvil refused {method}: {error.message}") from error

    async def code_at(self, address: str) -> str:
        return str(await self.ask("eth_getCode", address, "latest"))

    async def transact(self, sender: str, **transaction: str) -> Mapping[str, Any]:
        """Send a transaction and return its receipt; Anvil makes a block of it at once."""
        sent = await self.ask("eth_sendTransaction", {"from": sender, "gas": hex(15_000_000), **transaction})
        while not (receipt := await self.ask("eth_getTransactionReceipt", sent)):
            if self._deadline.is_over:
                raise DanError("Anvil made no block of a transaction in time")
            await asyncio.sleep(0.02)
        return dict(receipt)

    async def put_entry_point(self, sender: str, address: Address, bytecode: str) -> None:
        """Put an entry point at its own address, and beside it the contract that its constructor makes."""
        deployed = (await self.transact(sender, data=bytecode))["contractAddress"]
        creator, own_creator = first_created(deployed), first_created(address)
        code = await self.code_at(deployed)
        # The creator's address is an immutable: part of the code.
        await self.ask("anvil_setCode", address, code.replace(creator[2:].lower(), own_creator[2:].lower()))
        await self.ask("anvil_setCode", own_creator, await self.code_at(creator))


#: Runs a program that ends with this process, however that ends: then standard input is closed.
_WITH_US = 'exec 3<&0; { read -r _ <&3; kill -TERM 0; } >/dev/null 2>&1 & exec 3<&-; exec "$@" </dev/null'


class _Program:
    """A child process in a group of its own, whose output is read as long as it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._output = bytearray()

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.returncode is not None

    async def start(self, command: Sequence[str], home: str, announced: re.Pattern[bytes]) -> str:
        """Start it, and return what it announces when it listens."""
        environment = {"HOME": home, "PATH": os.environ.get("PATH", "")}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WITH_US, self.name),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the command, which stops its programs in order
            )
        except OSError as error:
            raise DanError(f"{self.name} could not be started: {error.strerror}") from error
        self._reading = asyncio.create_task(self._read(), name=f"output of {self.name}")
        with suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                while not self.has_ended:
                    if found := announced.search(self._output):
                        return found[1].decode()
                    await asyncio.sleep(0.02)
        await asyncio.wait([self._reading], timeout=1)  # its last words may still be in the pipe
        words = self._output[-400:].decode(errors="replace").strip()
        raise DanError(f"{self.name} did not start: {words or 'it printed nothing'}")

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while piece := await self._process.stdout.read(65536):
            self._output += piece
            del self._output[:-65536]

    async def stop(self) -> None:
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_S):
                    await self._process.wait()
                break
        if self._reading is not None:
            await cancel_and_wait([self._reading])


def _alto_options(rpc_url: str, port: int) -> list[str]:
    options = {
        "entrypoints": ",".join(ENTRY_POINTS.values()),
        "rpc-url": rpc_url,
        "port": str(port),
        "executor-private-keys": _EXECUTOR,
        "utility-private-key": _UTILITY,
        "safe-mode": "false",  # Anvil has no JavaScript tracer
        "deploy-simulations-contract": "true",
        "max-gas-per-bundle": "15000000",
        "block-time": "100",
        "min-bundle-interval": "50",
        "max-bundle-interval": "100",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _node_modules(start: Path) -> Path:
    for folder in (start, *start.parents):
        if (folder / "node_modules" / _PACKAGES["v0.7.0"]).is_dir():
            return folder / "node_modules"
    raise _not_found("a node_modules folder with the chain's programs")


def _not_found(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot find {what}", hint=f"Install the chain's programs in this folder: {NPM_LINE}"
    )

"""How a devnet node is run: in this process, or in one of its own, whose side of it is ``process``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from attrs import field, frozen

import dan_async
from dan_async.deadline import cancel_and_wait, carry_through
from dan_async.devnet.context import NodeContext, NodeIdentity, NodeLimits, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.faults.kinds import KINDS, Fault
from dan_async.devnet.listening import listening_socket
from dan_async.devnet.node.keys import KeyRecord
from dan_async.devnet.node.server import NodeServer
from dan_async.devnet.share_store import BanList, DiskShareStore, MemoryShareStore, ShareStore
from dan_async.errors import ConfigurationError, DanError, NodeError
from dan_async.types import Clock, MpcKeyId, OperatorAddress

_log = logging.getLogger(__name__)

_START_S = 30.0
_STOP_S = 8.0
_KEPT_LINES = 20


@frozen(kw_only=True)
class NodeConfig:
    """What one node needs to know. The roster is the other nodes' link endpoints; without a folder, all is in memory."""

    identity: NodeIdentity
    host: str
    port: int
    roster: Mapping[OperatorAddress, str]
    folder: Path | None
    limits: NodeLimits = field(repr=False)
    allow_origins: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON members. They hold the identity key, which is why they go through a pipe."""
        return attrs.asdict(self) | {
            "identity": self.identity.to_hex(),
            "folder": None if self.folder is None else str(self.folder),
        }

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> NodeConfig:
        folder, origins = members["folder"], members["allow_origins"]
        read = {
            "identity": NodeIdentity.from_hex(members["identity"]),
            "folder": None if folder is None else Path(folder),
            "limits": NodeLimits(**members["limits"]),
            "allow_origins": tuple(origins),
        }
        return cls(**{**members, **read})


def open_store(config: NodeConfig) -> ShareStore:
    """Open a node's store on disk. Blocks."""
    if config.folder is None:
        return MemoryShareStore()
    return DiskShareStore(config.folder / "records", config.identity.storage_key())


def open_bans(config: NodeConfig) -> BanList:
    """Return a node's bans, which lie beside its store: restoring or clearing the one does not touch the other."""
    return BanList(None if config.folder is None else config.folder / "bans")


class InProcessRunner:
    """Runs a node on this event loop."""

    def __init__(self, config: NodeConfig, *, workers: Workers, clock: Clock) -> None:
        self._config = config
        self._workers = workers
        self._clock = clock
        # These outlive the server: a restarted node still has its shares and bans.
        self._memory = MemoryShareStore()
        self._bans = open_bans(config)
        self._faults = NodeFaults()
        self._server: NodeServer | None = None
        self._last: NodeServer | None = None
        self._crash: asyncio.Task[None] | None = None
        self._comeback: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        await self._give_up_comeback()
        if self._server is None:
            await self._start()

    async def _start(self) -> None:
        await self._wait_for_crash()
        listener = listening_socket(self._config.host, self._config.port)
        try:
            self._server = self._last = await self._serve(listener)
        except BaseException:
            listener.close()
            raise

    async def _serve(self, listener: socket.socket) -> NodeServer:
        config = self._config
        context = NodeContext(
            identity=config.identity,
            limits=config.limits,
            workers=self._workers,
            faults=self._faults,
            # Opened here and not in a thread, which a cancelled start would leave with the lock.
            store=self._memory if config.folder is None else open_store(config),
            bans=self._bans,
            clock=self._clock,
            on_crash=lambda restart_after: self._on_crash(server, restart_after),
        )
        server = NodeServer(context, config.roster, allow_origins=config.allow_origins)
        try:
            await server.start(listener)
        except BaseException:
            await carry_through(server.stop(abrupt=True))
            raise
        return server

    async def stop(self) -> None:
        await self._give_up_comeback()
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        await self._wait_for_crash()

    def set_faults(self, faults: tuple[Fault, ...]) -> None:
        self._faults.set(faults)

    def reveal_record(self, key_id: MpcKeyId) -> KeyRecord | None:
        """Return what the node keeps of a key, also while it is stopped."""
        return self._last.ring.by_key(key_id) if self._last is not None else None

    def _on_crash(self, server: NodeServer, restart_after: float | None) -> None:
        if self._server is not server:
            return  # it is dead already
        self._server = None
        # Not from here: the request that the fault hit is one of the things that are ended.
        self._crash = asyncio.create_task(server.stop(abrupt=True), name="devnet node crash")
        if restart_after is not None:
            self._comeback = asyncio.create_task(self._come_back(restart_after), name="devnet node comeback")

    async def _come_back(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            await self._start()
        except (DanError, OSError) as error:
            _log.error("node %s did not come back: %s", self._config.identity.operator, error)

    async def _give_up_comeback(self) -> None:
        comeback, self._comeback = self._comeback, None
        if comeback is not None:
            await cancel_and_wait([comeback])

    async def _wait_for_crash(self) -> None:
        crash = self._crash
        if crash is not None:
            await asyncio.wait([crash])
            self._crash = None
            crash.result()


class ProcessRunner:
    """Runs a node as a process, which ends when its standard input does, also if this one is killed. Needs a folder."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._faults: tuple[Fault, ...] = ()
        self._uses: dict[int, int] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._log_reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._is_coming_back = False
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._stop_s = config.limits.stop_grace_s + _STOP_S

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        if self.is_running and not self._is_coming_back:
            return
        await self.stop()  # what is left of one that died, or is on its way back
        self._watcher = asyncio.create_task(self._watch(await self._launch()), name="devnet node watcher")

    async def _launch(self) -> asyncio.subprocess.Process:
        self._last_lines.clear()
        # The child imports the very package that runs here, wherever that was imported from.
        path = [str(Path(dan_async.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "dan_async.devnet.node.process"),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in a terminal is for the parent, which stops its nodes
            )
            self._log_reader = asyncio.create_task(self._read_log(self._process), name="devnet node log")
            self._write({"config": self._config.to_dict(), **fault_members(self._faults, self._uses)})
            await self._wait_until_ready(self._process)
        except BaseException:
            await self._kill()
            raise
        return self._process

    async def stop(self) -> None:
        if self._watcher is not None:
            await cancel_and_wait([self._watcher])
            self._watcher = None
        process = self._process
        if process is not None and process.returncode is None:
            assert process.stdin is not None  # a pipe, as the other two
            process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_s):
                    await process.wait()
        await self._kill()

    def set_faults(self, faults: tuple[Fault, ...]) -> None:
        """Send the faults to the process, which puts them in force within a moment."""
        self._faults, self._uses = faults, {}
        if self.is_running:
            self._write(fault_members(faults, {}))

    def reveal_record(self, key_id: MpcKeyId) -> KeyRecord | None:  # noqa: ARG002 - as in the other runner
        raise ConfigurationError(
            "shares cannot be revealed from nodes in processes of their own",
            hint="Use a Devnet without processes=True in tests that look at shares",
        )

    def _write(self, members: dict[str, Any]) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(json.dumps(members).encode() + b"\n")

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Bring the node back as often as a fault has killed it and says so."""
        while (report := await _last_report(process)) is not None:
            self._uses = {int(position): count for position, count in report["uses"].items()}
            if report["restartAfter"] is None:
                return
            self._is_coming_back = True
            try:
                await asyncio.sleep(report["restartAfter"])
                await self._kill()  # what is left of it
                process = await self._launch()
            except (NodeError, OSError) as error:
                _log.error("%s", error)
                return
            finally:
                self._is_coming_back = False

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        problem = "did not get ready in time"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                problem = await self._read_report(process)
        if problem:
            raise NodeError(
                f"the process of devnet node {self._config.identity.operator} {problem}",
                hint="Its last words: " + ("; ".join(self._last_lines) or "none"),
                node=self._config.identity.operator,
            )

    async def _read_report(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            if self._log_reader is not None:
                await asyncio.wait([self._log_reader])
            return f"ended with exit code {code}"
        report: dict[str, Any] = json.loads(line)
        return "" if report.get("ready") else f"could not start: {report.get('error')}"

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = line.decode(errors="replace").rstrip()
            self._last_lines.append(text)
            _log.info("node %s: %s", self._config.identity.operator, text)

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
            assert process.stdin is not None
            process.stdin.close()
        if self._log_reader is not None:
            await cancel_and_wait([self._log_reader])
            self._log_reader = None


#: Starts and stops one node, any number of times, in turns; its faults hold for now and after every start.
NodeRunner: TypeAlias = InProcessRunner | ProcessRunner


async def _last_report(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """Wait for the process to end; return what it said of its crash, or None if it did not crash on purpose."""
    report: dict[str, Any] = {}
    assert process.stdout is not None
    while line := await process.stdout.readline():
        report = json.loads(line)
    await process.wait()
    return report if report.get("crashed") else None


def fault_members(faults: tuple[Fault, ...], uses: Mapping[int, int]) -> dict[str, Any]:
    """Return the faults in force, and how often each was used before, as JSON members for another process."""
    named = [{"kind": fault.name, **attrs.asdict(fault)} for fault in faults]
    return {"faults": named, "uses": dict(uses)}


def read_fault_members(members: Mapping[str, Any]) -> tuple[list[Fault], dict[int, int]]:
    uses = {int(place): count for place, count in members["uses"].items()}
    kinds = {kind.name: kind for kind in KINDS}
    return [kinds[fault.pop("kind")](**fault) for fault in members["faults"]], uses

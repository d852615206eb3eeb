"""
One devnet node as a process: ``python -m dan_async.devnet.node.process``, started by ``Devnet(processes=True)``.

Its configuration, the identity key included, is the first line of standard input, so that it shows neither in the list
of processes nor in the environment. Later lines change the faults in force. When standard input ends, the node stops:
that is how it dies with its parent. One line on standard output says that the node listens, or why not.

Runs a devnet node in a process of its own; ``node_process`` is the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

import dan_async
from dan_async.deadline import cancel_and_wait
from dan_async.devnet.context import NodeIdentity, NodeLimits, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.faults.kinds import Fault
from dan_async.devnet.listening import listening_socket
from dan_async.devnet.node.keys import KeyRecord
from dan_async.devnet.node.runner import NodeConfig, open_store
from dan_async.devnet.node.server import NodeServer
from dan_async.errors import ConfigurationError, DanError, NodeError
from dan_async.types import MpcKeyId

_CRASHED = 70  # EX_SOFTWARE

#: How long closing a node may take beyond its grace, in seconds.
CLOSING_S = 6.0

_READ_SIZE = 65_536


def read_config(members: Mapping[str, Any] | None) -> NodeConfig:
    """
    Read what ``process_runner.config_line`` wrote.

    Raises:
        ConfigurationError: There is nothing.
    """
    if members is None:
        raise ConfigurationError(
            "there is no configuration on standard input",
            hint="This module is started by Devnet(processes=True)",
        )
    folder = members["folder"]
    return NodeConfig(
        identity=NodeIdentity.from_hex(members["identity"]),
        host=members["host"],
        port=members["port"],
        roster=members["roster"],
        folder=None if folder is None else Path(folder),
        limits=NodeLimits(**members["limits"]),
    )


def _set_faults(faults: NodeFaults, members: Mapping[str, Any]) -> None:
    faults.set(map(Fault.from_dict, members["faults"]), {int(k): v for k, v in members["uses"].items()})


def _report(**members: Any) -> None:
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def _read_lines(on_line: Callable[[bytes], None]) -> None:
    # os.read and not sys.stdin: a thread that waits in a buffered reader breaks the interpreter's shutdown.
    rest = b""
    while chunk := os.read(0, _READ_SIZE):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            on_line(line)


def _crash(faults: NodeFaults, restart_after: float | None) -> None:
    # Whoever started the process learns how often each fault was used: the next process goes on counting.
    _report(crashed=True, restartAfter=restart_after, uses=faults.uses)
    os._exit(_CRASHED)


async def serve(config: NodeConfig, faults: NodeFaults, stopped: asyncio.Event) -> None:
    """Run the node until *stopped* is set."""
    with Workers() as workers:
        server = NodeServer(
            identity=config.identity,
            roster=config.roster,
            store=open_store(config),
            workers=workers,
            limits=config.limits,
            faults=faults,
            clock=time.time,
            on_crash=lambda restart_after: _crash(faults, restart_after),
        )
        listener = listening_socket(config.host, config.port)
        try:
            await server.start(listener)
            _report(ready=True)
            await stopped.wait()
        finally:
            await server.stop()
            listener.close()


async def _run(lines: _Lines) -> None:
    stopped = asyncio.Event()
    faults = NodeFaults()
    first = json.loads(lines.first)
    config = read_config(first)
    _set_faults(faults, first)
    loop = asyncio.get_running_loop()

    def set_faults(line: bytes) -> None:
        _set_faults(faults, json.loads(line))

    lines.last_wait_s = config.limits.stop_grace_s + CLOSING_S
    lines.follow(
        lambda line: loop.call_soon_threadsafe(set_faults, line),
        lambda: loop.call_soon_threadsafe(stopped.set),
    )
    await serve(config, faults, stopped)


class _Lines:
    """Standard input, read by a thread of its own, so that its end is noticed even if the event loop hangs."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        self._on_line: Callable[[bytes], object] = self._waiting.append
        self._on_end: Callable[[], object] = self._ready.set
        self._is_over = False
        self.last_wait_s = CLOSING_S
        threading.Thread(target=self._read, name="lifeline", daemon=True).start()

    @property
    def first(self) -> bytes:
        """The first line; waits for it."""
        self._ready.wait()
        return self._waiting.pop(0) if self._waiting else b"null"

    def follow(self, on_line: Callable[[bytes], object], on_end: Callable[[], object]) -> None:
        """Pass on every further line, and the end."""
        with self._lock:
            for line in self._waiting:
                on_line(line)
            self._on_line, self._on_end = on_line, on_end
            if self._is_over:
                on_end()

    def _read(self) -> None:
        _read_lines(self._take)
        with self._lock:
            self._is_over = True
            self._ready.set()
            self._on_end()
        time.sleep(self.last_wait_s)
        os._exit(1)  # the loop did not stop the node, and there is nobody left to be told

    def _take(self, line: bytes) -> None:
        with self._lock:
            self._on_line(line)
            self._ready.set()


def main() -> int:
    """Run a node from standard input; gives the exit code."""
    try:
        asyncio.run(_run(_Lines()))
    except (DanError, OSError) as error:
        _report(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

_log = logging.getLogger(__name__)

_START_S = 30.0

_STOP_S = 8.0

_KEPT_LINES = 20


def _environment() -> dict[str, str]:
    # The child imports the very package that runs here, wherever that was imported from.
    path = [str(Path(dan_async.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def faults_line(faults: tuple[Fault, ...], uses: Mapping[int, int] | None = None) -> bytes:
    """Write what changes the faults in force; *uses* says how often each was used before."""
    return json.dumps(_fault_members(faults, uses or {})).encode() + b"\n"


def _fault_members(faults: tuple[Fault, ...], uses: Mapping[int, int]) -> dict[str, Any]:
    return {"faults": [fault.to_dict() for fault in faults], "uses": dict(uses)}


def config_line(
    config: NodeConfig, faults: tuple[Fault, ...], uses: Mapping[int, int] | None = None
) -> bytes:
    """Write what the process reads first. It holds the identity key, which is why it goes through a pipe."""
    members = {
        "identity": config.identity.to_hex(),
        "host": config.host,
        "port": config.port,
        "roster": dict(config.roster),
        "folder": None if config.folder is None else str(config.folder),
        "limits": attrs.asdict(config.limits),
        **_fault_members(faults, uses or {}),
    }
    return json.dumps(members).encode() + b"\n"


class ProcessRunner:
    """
    Runs a node with ``python -m dan_async.devnet.node.process``.

    The process's standard input is its lifeline: it ends when the pipe does, also if this process is killed.

    Args:
        config: The node. It needs a folder, since a process's memory ends with it.
    """

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
        """Whether the process is alive."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """
        Start the process; return when the node listens.

        Raises:
            NodeError: The process ended first, or took too long; the error says what it said.
        """
        if self.is_running and not self._is_coming_back:
            return
        await self.stop()  # what is left of one that died, or is on its way back
        self._watcher = asyncio.create_task(self._watch(await self._launch()), name="devnet node watcher")

    async def _launch(self) -> asyncio.subprocess.Process:
        self._last_lines.clear()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "dan_async.devnet.node.process"),
                env=_environment(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in a terminal is for the parent, which stops its nodes
            )
            self._log_reader = asyncio.create_task(self._read_log(self._process), name="devnet node log")
            self._write(config_line(self._config, self._faults, self._uses))
            await self._wait_until_ready(self._process)
        except BaseException:
            await self._kill()
            raise
        return self._process

    async def stop(self) -> None:
        """Ask the process to stop, and end it if it does not."""
        if self._watcher is not None:
            await cancel_and_wait([self._watcher])
            self._watcher = None
        process = self._process
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._stop_s):
                    await process.wait()
        await self._kill()

    def set_faults(self, faults: tuple[Fault, ...]) -> None:
        """Send the faults to the process, which puts them in force within a moment."""
        self._faults, self._uses = faults, {}
        if self.is_running:
            self._write(faults_line(faults))

    def reveal_record(self, key_id: MpcKeyId) -> KeyRecord | None:  # noqa: ARG002 - as the protocol has it
        """Refuse: the share is in another process."""
        raise ConfigurationError(
            "shares cannot be revealed from nodes in processes of their own",
            hint="Use a Devnet without processes=True in tests that look at shares",
        )

    def _write(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(line)

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
        if process.stdout is None:
            return "has no output"
        line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            if self._log_reader is not None:
                await asyncio.wait([self._log_reader])
            return f"ended with exit code {code}"
        report: dict[str, Any] = json.loads(line)
        return "" if report.get("ready") else f"could not start: {report.get('error')}"

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
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
            if process.stdin is not None:
                process.stdin.close()
        if self._log_reader is not None:
            await cancel_and_wait([self._log_reader])
            self._log_reader = None


async def _last_report(process: asyncio.subprocess.Process) -> dict[str, Any] | None:
    """Wait for the process to end; give what it said of its crash, or None if it did not crash on purpose."""
    report: dict[str, Any] = {}
    if process.stdout is not None:
        while line := await process.stdout.readline():
            report = json.loads(line)
    await process.wait()
    return report if report.get("crashed") else None

"""
One devnet node as a process: ``python -m dan_async.devnet.node.process``, started by ``Devnet(processes=True)``.

Its configuration, the identity key included, is the first line of standard input, so that it shows neither in the list
of processes nor in the environment. Later lines change the faults in force. When standard input ends, the node stops:
that is how it dies with its parent. One line on standard output says that the node listens, or why not.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from dan_async.devnet.context import NodeContext, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.listening import listening_socket
from dan_async.devnet.node.runner import NodeConfig, open_bans, open_store, read_fault_members
from dan_async.devnet.node.server import NodeServer
from dan_async.errors import ConfigurationError, DanError

_CRASHED = 70  # EX_SOFTWARE
#: How long closing a node may take beyond its grace, in seconds.
CLOSING_S = 6.0
_READ_SIZE = 65_536


def _report(**members: Any) -> None:
    sys.stdout.write(json.dumps(members) + "\n")
    sys.stdout.flush()


def _crash(faults: NodeFaults, restart_after: float | None) -> None:
    # The parent learns how often each fault was used: the next process goes on counting.
    _report(crashed=True, restartAfter=restart_after, uses=faults.uses)
    os._exit(_CRASHED)


async def serve(config: NodeConfig, faults: NodeFaults, stopped: asyncio.Event) -> None:
    with Workers() as workers:
        context = NodeContext(
            identity=config.identity,
            limits=config.limits,
            workers=workers,
            faults=faults,
            store=open_store(config),
            bans=open_bans(config),
            clock=time.time,
            on_crash=lambda restart_after: _crash(faults, restart_after),
        )
        server = NodeServer(context, config.roster, allow_origins=config.allow_origins)
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
    if first is None:
        raise ConfigurationError(
            "there is no configuration on standard input",
            hint="This module is started by Devnet(processes=True)",
        )
    config = NodeConfig.from_dict(first)
    faults.set(*read_fault_members(first))
    loop = asyncio.get_running_loop()

    def set_faults(line: bytes) -> None:
        faults.set(*read_fault_members(json.loads(line)))

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
        with self._lock:
            for line in self._waiting:
                on_line(line)
            self._on_line, self._on_end = on_line, on_end
            if self._is_over:
                on_end()

    def _read(self) -> None:
        # os.read and not sys.stdin: a thread that waits in a buffered reader breaks the interpreter's shutdown.
        rest = b""
        while chunk := os.read(0, _READ_SIZE):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line)
        with self._lock:
            self._is_over = True
            self._ready.set()
            self._on_end()
        time.sleep(self.last_wait_s)
        os._exit(1)  # the loop did not stop the node, and no one is left to report it to

    def _take(self, line: bytes) -> None:
        with self._lock:
            self._on_line(line)
            self._ready.set()


def main() -> int:
    try:
        asyncio.run(_run(_Lines()))
    except (DanError, OSError) as error:
        _report(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
from collections.abc import Iterator
from typing import Any

from dan_async.devnet.context import NodeContext, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.listening import listening_socket
from dan_async.devnet.node.runner import NodeConfig, open_bans, open_store, read_fault_members
from dan_async.devnet.node.server import NodeServer
from dan_async.errors import ConfigurationError, DanError

_CRASHED = 70  # EX_SOFTWARE
#: How long closing a node may take beyond its grace, in seconds.
_CLOSING_S = 6.0
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


async def _run() -> None:
    lines = _read_lines()
    first = json.loads(next(lines, b"null"))
    if first is None:
        raise ConfigurationError(
            "there is no configuration on standard input",
            hint="This module is started by Devnet(processes=True)",
        )
    config = NodeConfig.from_dict(first["config"])
    loop, stopped, faults = asyncio.get_running_loop(), asyncio.Event(), NodeFaults()

    def set_faults(members: dict[str, Any]) -> None:
        faults.set(*read_fault_members(members))

    def follow() -> None:
        for line in lines:
            loop.call_soon_threadsafe(set_faults, json.loads(line))
        loop.call_soon_threadsafe(stopped.set)
        time.sleep(config.limits.stop_grace_s + _CLOSING_S)
        os._exit(1)  # the loop did not stop the node, and no one is left to report it to

    set_faults(first)
    # A thread of its own, so that the end is noticed even if the event loop hangs.
    threading.Thread(target=follow, name="lifeline", daemon=True).start()
    await serve(config, faults, stopped)


def _read_lines() -> Iterator[bytes]:
    # os.read and not sys.stdin: a thread that waits in a buffered reader breaks the interpreter's shutdown.
    rest = b""
    while chunk := os.read(0, _READ_SIZE):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def main() -> int:
    try:
        asyncio.run(_run())
    except (DanError, OSError) as error:
        _report(error=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

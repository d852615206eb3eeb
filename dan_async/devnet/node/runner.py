"""How a devnet node is run: what every way of running one offers, and the way that shares this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from attrs import field, frozen

from dan_async.deadline import cancel_and_wait, carry_through
from dan_async.devnet.context import NodeIdentity, NodeLimits, Workers
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.faults.kinds import Fault
from dan_async.devnet.listening import listening_socket
from dan_async.devnet.node.keys import KeyRecord
from dan_async.devnet.node.server import NodeServer
from dan_async.devnet.share_store import DiskShareStore, MemoryShareStore, ShareStore
from dan_async.errors import DanError
from dan_async.types import Clock, MpcKeyId, OperatorAddress

_log = logging.getLogger(__name__)


@frozen(kw_only=True)
class NodeConfig:
    """
    What one node needs to know.

    Args:
        identity: Who it is.
        host: Where it listens.
        port: The port, held by a ``PortReservation``.
        roster: The link endpoint of every other node, by operator.
        folder: Where it keeps its shares; None for memory.
        limits: What it accepts.
    """

    identity: NodeIdentity
    host: str
    port: int
    roster: Mapping[OperatorAddress, str]
    folder: Path | None
    limits: NodeLimits = field(repr=False)


class NodeRunner(Protocol):
    """Starts and stops one node, any number of times, in turns."""

    @property
    def is_running(self) -> bool:
        """Whether the node is up, as far as is known here."""
        ...

    async def start(self) -> None:
        """Start the node; return when it listens."""
        ...

    async def stop(self) -> None:
        """Stop the node, if it runs; return when nothing of it is left."""
        ...

    def set_faults(self, faults: tuple[Fault, ...]) -> None:
        """Put faults in force, for now and after every start."""
        ...

    def reveal_record(self, key_id: MpcKeyId) -> KeyRecord | None:
        """Give what the node keeps of a key, share included."""
        ...


def open_store(config: NodeConfig) -> ShareStore:
    """
    Open a node's store on disk. Blocks.

    Raises:
        ShareStoreError: The folder is in use.
    """
    if config.folder is None:
        return MemoryShareStore()
    return DiskShareStore(config.folder / "records", config.identity.storage_key())


class InProcessRunner:
    """
    Runs a node on this event loop.

    Args:
        config: The node.
        workers: Where its arithmetic and disk writes run.
        clock: The wall clock.
    """

    def __init__(self, config: NodeConfig, *, workers: Workers, clock: Clock) -> None:
        self._config = config
        self._workers = workers
        self._clock = clock
        self._memory = MemoryShareStore()  # outlives the server: a restarted node still has its shares
        self._faults = NodeFaults()
        self._server: NodeServer | None = None
        self._last: NodeServer | None = None
        self._crash: asyncio.Task[None] | None = None
        self._comeback: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the node is up."""
        return self._server is not None

    async def start(self) -> None:
        """Start the node at its port."""
        await self._give_up_comeback()
        if self._server is None:
            await self._start()

    async def _start(self) -> None:
        await self._wait_for_crash()
        config = self._config
        store: ShareStore = self._memory
        if config.folder is not None:
            store = open_store(
                config
            )  # here and not in a thread, which a cancelled start would leave with the lock
        server = NodeServer(
            identity=config.identity,
            roster=config.roster,
            store=store,
            workers=self._workers,
            limits=self._config.limits,
            faults=self._faults,
            clock=self._clock,
            on_crash=lambda restart_after: self._on_crash(server, restart_after),
        )
        listener = listening_socket(config.host, config.port)
        try:
            await server.start(listener)
        except BaseException:
            await carry_through(server.stop(abrupt=True))
            listener.close()
            raise
        self._server = self._last = server

    async def stop(self) -> None:
        """Stop the node."""
        await self._give_up_comeback()
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        await self._wait_for_crash()

    def set_faults(self, faults: tuple[Fault, ...]) -> None:
        """Put faults in force at once."""
        self._faults.set(faults)

    def reveal_record(self, key_id: MpcKeyId) -> KeyRecord | None:
        """Give what the node keeps of a key, also while it is stopped."""
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

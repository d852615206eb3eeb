"""A whole DAN network on loopback."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dan_async._values import check_bool, check_int, check_text, setting
from dan_async.config import NodeEndpoint, Threshold
from dan_async.deadline import carry_through
from dan_async.devnet.context import NodeIdentity, NodeLimits, Workers
from dan_async.devnet.faults.in_force import FaultBoard, Faults
from dan_async.devnet.faults.kinds import Fault
from dan_async.devnet.listening import PortReservation, check_loopback, check_origins, listening_socket
from dan_async.devnet.mpc.dkg import KeyShare
from dan_async.devnet.node.runner import InProcessRunner, NodeConfig, NodeRunner, ProcessRunner
from dan_async.devnet.node.server import PEER_PATH, RPC_PATH
from dan_async.errors import ClientClosedError, ConfigurationError, InvalidFieldError
from dan_async.types import Clock, MpcKeyId, OperatorAddress

if TYPE_CHECKING:
    from dan_async.devnet.gateway import GatewayLimits, GatewayServer
    from dan_async.nodes.network import NodeNetwork


class DevnetNode:
    """
    One node of a ``Devnet``.

    Attributes:
        index: Its place in ``Devnet.nodes`` and ``Devnet.faults``.
    """

    def __init__(self, index: int, endpoint: NodeEndpoint, runner: NodeRunner) -> None:
        self.index = index
        self.endpoint = endpoint
        self._runner = runner
        self._changing = asyncio.Lock()
        self._is_retired = False

    def __repr__(self) -> str:
        return f"DevnetNode({self.index}, {self.url!r}, {self.operator!r}, is_running={self.is_running})"

    @property
    def operator(self) -> OperatorAddress:
        """Its operator address."""
        return self.endpoint.operator

    @property
    def url(self) -> str:
        """Its RPC URL."""
        return self.endpoint.url

    @property
    def is_running(self) -> bool:
        """Whether it is up."""
        return self._runner.is_running

    async def start(self) -> None:
        """
        Start it again, at the same port, with the same identity and the same shares. Nothing happens if it runs.

        Raises:
            NodeError: Its process could not start.
            ShareStoreError: What it stored cannot be read.
            ClientClosedError: The devnet was closed.
        """
        async with self._changing:
            if self._is_retired:
                raise ClientClosedError("the devnet was closed", hint="Make a new Devnet")
            await self._runner.start()

    async def stop(self) -> None:
        """Stop it: connections to it are refused until it is started again. Nothing happens if it is stopped."""
        async with self._changing:
            await carry_through(self._runner.stop())

    async def retire(self) -> None:
        """Stop it for good, as the devnet does when it is closed."""
        self._is_retired = True
        await self.stop()

    def reveal_share(self, key_id: MpcKeyId | str) -> KeyShare | None:
        """
        Return the node's secret share of a key, or None if it has none. For tests: a real node never reveals it.

        Args:
            key_id: The key's id.

        Raises:
            ConfigurationError: The node is in a process of its own.
        """
        record = self._runner.reveal_record(MpcKeyId(key_id))
        return None if record is None else record.share

    def ephemeral_key_ids(self, key_id: MpcKeyId | str) -> tuple[str, ...]:
        """
        Return the names of the ephemeral keys that may use a key, expired ones included, revoked ones not.

        Args:
            key_id: The key's id.

        Raises:
            ConfigurationError: The node is in a process of its own.
        """
        record = self._runner.reveal_record(MpcKeyId(key_id))
        keys = () if record is None else record.ephemeral_keys.keys
        return tuple(key.claim.eph_id for key in keys if not key.is_revoked)


class Devnet:
    """
    A DAN network on loopback: for development, demos and tests. It is not custody software.

    The nodes are real: each has its own identity, port and share store, generates keys with the others over encrypted
    links, and trusts neither client nor peers. But they all run on one machine under one user, who can read every share.

    Example::

        async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
            session = await dan.generate_session_key(wallet=wallet, chain_id=80002)

    Args:
        threshold: t, used when the caller of a job names none.
        parties: How many nodes to run, 2 to 20; also n when the caller names none.
        processes: Whether each node has a process of its own, instead of sharing this one.
        storage: Folder where identities and shares are kept, so that a later devnet still has them. None keeps them for
            as long as this devnet runs.
        host: The loopback address to listen on.
        port: The first of parties + 1 ports in a row to listen on, the gateway's; the nodes' follow. None for ports that are
            free: those of the run before, if *storage* has been used and they still are.
        clock: The nodes' wall clock, for tests; not with *processes*.
        limits: What each node accepts.
        gateway: Whether to run a gateway in front of the nodes, which speaks the public clients' protocol.
        gateway_token: If given, what the gateway's clients must show: ``Authorization: Bearer …`` or ``X-Api-Key``.
        faults: What goes wrong from the start, as for ``Devnet.faults``: by the node's place in ``nodes``, from 0.
        allow_origins: The origins of web pages that may connect to nodes and gateways, such as
            ``http://localhost:5173``. All other pages are refused, whatever machine's browser they are open in.

    Raises:
        InvalidFieldError: A value is out of range.
    """

    def __init__(
        self,
        threshold: int = 3,
        parties: int = 5,
        *,
        processes: bool = False,
        storage: Path | str | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        clock: Clock = time.time,
        limits: NodeLimits | None = None,
        gateway: bool = True,
        gateway_token: str | None = None,
        faults: Mapping[int, Faults] | None = None,
        allow_origins: Iterable[str] = (),
    ) -> None:
        self.threshold = Threshold(threshold, parties)
        if processes and clock is not time.time:
            raise InvalidFieldError("clock", "cannot be given to nodes in processes of their own")
        if not (storage is None or isinstance(storage, str | Path)):
            raise InvalidFieldError("storage", f"must be a path, not {type(storage).__name__}")
        self._processes = check_bool("processes", processes)
        self._storage = None if storage is None else Path(storage)
        self._host = check_loopback(host)
        if port is not None:
            check_int("port", port, least=1, most=65_535 - parties)
        self._port = port
        self._clock = clock
        self._limits = setting("limits", limits, NodeLimits)
        self._has_gateway = check_bool("gateway", gateway)
        self._gateway_token = None if gateway_token is None else check_text("gateway_token", gateway_token)
        self._allow_origins = check_origins("allow_origins", allow_origins)
        self._gateways: list[tuple[str, GatewayServer]] = []
        self._nodes: tuple[DevnetNode, ...] = ()
        self._runners: list[NodeRunner] = []
        self._reservations: list[PortReservation] = []
        self._workers: Workers | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._starting = asyncio.Lock()
        self._opened = 0
        self._is_closed = False
        #: The faults in force, by the node's place in ``nodes``; see ``dan_async.devnet.faults``.
        self.faults = FaultBoard(parties, self._set_faults, faults)

    def __repr__(self) -> str:
        return f"Devnet({self.threshold}, {sum(node.is_running for node in self._nodes)} nodes running)"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # --- nodes and gateways -------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[DevnetNode, ...]:
        """
        The nodes.

        Raises:
            ConfigurationError: The devnet has not been started.
        """
        if not self._nodes:
            raise ConfigurationError(
                "the devnet has not been started", hint="Use it in 'async with Devnet(...)', or call start()"
            )
        return self._nodes

    @property
    def endpoints(self) -> tuple[NodeEndpoint, ...]:
        """The nodes' URLs and operator addresses, as a ``NodeNetwork`` takes them."""
        return tuple(node.endpoint for node in self.nodes)

    def describe(self) -> dict[str, Any]:
        """Return t and n, and the addresses of nodes and gateway, as JSON members."""
        nodes = [{"url": node.url, "operator": node.operator} for node in self.nodes]
        numbers = {"threshold": self.threshold.t, "parties": self.threshold.n}
        return {**numbers, "nodes": nodes, **({"gateway": self.gateway_url} if self._gateways else {})}

    @property
    def gateway_url(self) -> str:
        """
        The gateway's URL, with its version segment, as a ``GatewayNetwork`` or a public TypeScript client takes it.

        Raises:
            ConfigurationError: There is none.
        """
        if not self._gateways:
            raise ConfigurationError(
                "the devnet has no gateway", hint="Call add_gateway(), or start it with gateway=True"
            )
        return self._gateways[0][0]

    async def add_gateway(self, *, token: str | None = None, limits: GatewayLimits | None = None) -> str:
        """
        Run another gateway in front of the same nodes.

        Args:
            token: What its clients must show, if anything.
            limits: What it accepts.

        Returns:
            Its URL, with the version segment.
        """
        # Here, because a node's own process imports this package too and needs neither gateway nor client.
        from dan_async.devnet.gateway import GatewayLimits, GatewayServer

        reserved = self._reserve(0) if not self._gateways else PortReservation(self._host)
        self._reservations.append(reserved)
        server = GatewayServer(
            self.network(),
            token=token,
            limits=limits or GatewayLimits(),
            allow_origins=self._allow_origins,
        )
        url = f"ws://{reserved.authority}/v1"
        self._gateways.append((url, server))
        listener = listening_socket(reserved.host, reserved.port)
        try:
            await server.start(listener)
        except BaseException:
            listener.close()
            raise
        return url

    def network(self, **options: Any) -> NodeNetwork:
        """
        Make a network of these nodes; the caller closes it.

        Args:
            **options: As for ``NodeNetwork``; *threshold* is the devnet's unless given.

        Returns:
            The network; it is not open yet.
        """
        from dan_async.nodes.network import NodeNetwork

        return NodeNetwork(self.endpoints, **{"threshold": self.threshold, **options})

    # --- starting and stopping ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Start all nodes; return when every one listens. Nothing happens if they were started before.

        Raises:
            ClientClosedError: The devnet was closed; its ports are gone.
            NodeError: A node's process could not start.
            InvalidFieldError: *storage* is no folder in which files can be made.
            ShareStoreError: What a node stored cannot be read, or another devnet uses the folder.
        """
        async with self._starting:
            if self._is_closed:
                raise ClientClosedError("the devnet was closed", hint="Make a new Devnet")
            if not self._nodes:
                await self._start()

    async def _start(self) -> None:
        try:
            self._build(await self._identities())
            async with asyncio.TaskGroup() as group:
                for node in self._nodes:
                    group.create_task(node.start(), name=f"start devnet node {node.index}")
            if self._has_gateway:
                await self.add_gateway(token=self._gateway_token)
            self._keep_ports()
        except BaseExceptionGroup as failures:
            await self.aclose()
            raise failures.exceptions[0] from None  # the others were cancelled, or have the same reason
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Stop all nodes and release everything. May be called twice; carried through even if cancelled."""
        if not self._is_closed:
            self._is_closed = True
            await carry_through(self._close())

    async def open_network(self) -> NodeNetwork:
        """Start the devnet, if it is not running, and return a network of its nodes (see ``NetworkSource``)."""
        is_ours = bool(self._opened or not self._nodes)
        self._opened += is_ours  # at once: others may come while it starts
        try:
            await self.start()
        except BaseException:
            self._opened -= is_ours
            raise
        return self.network()

    async def close_network(self) -> None:
        """Stop the devnet when no one needs it any more, if ``open_network`` started it."""
        if self._opened:
            self._opened -= 1
            if not self._opened:
                await self.aclose()

    async def _identities(self) -> list[NodeIdentity]:
        if self._processes and self._storage is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="dan-devnet-")
        folders = [self._folder(index) for index in range(self.threshold.n)]
        with Workers() as workers:  # new identities are written durably, which takes a while
            return [await workers.use_disk(_identity_in, folder) for folder in folders]

    def _build(self, identities: list[NodeIdentity]) -> None:
        for place, _ in enumerate(identities, start=1):
            self._reservations.append(self._reserve(place))
        peers = {
            identity.operator: f"ws://{reserved.authority}{PEER_PATH}"
            for identity, reserved in zip(identities, self._reservations, strict=True)
        }
        if not self._processes:
            self._workers = Workers()
        nodes = []
        for index, (identity, reserved) in enumerate(zip(identities, self._reservations, strict=True)):
            config = NodeConfig(
                identity=identity,
                host=self._host,
                port=reserved.port,
                roster={operator: url for operator, url in peers.items() if operator != identity.operator},
                folder=self._folder(index),
                limits=self._limits,
                allow_origins=self._allow_origins,
            )
            self._runners.append(self._runner(config))
            self._runners[-1].set_faults(self.faults[index])
            endpoint = NodeEndpoint(f"ws://{reserved.authority}{RPC_PATH}", identity.operator)
            nodes.append(DevnetNode(index, endpoint, self._runners[-1]))
        self._nodes = tuple(nodes)

    def _reserve(self, place: int) -> PortReservation:
        """Reserve the port of the gateway (place 0) or of a node."""
        if self._port is not None:
            return PortReservation(self._host, self._port + place)
        try:
            return PortReservation(self._host, self._ports_before()[place])
        except (OSError, IndexError):
            return PortReservation(self._host)

    def _ports_before(self) -> list[int]:
        if self._storage is None:
            return []
        try:
            found = json.loads((self._storage / "ports.json").read_text())
        except (OSError, ValueError):
            return []
        ports = found if isinstance(found, list) else []
        return [port if type(port) is int and 0 < port < 65_536 else 0 for port in ports]

    def _keep_ports(self) -> None:
        if self._storage is not None:
            nodes = [reservation.port for reservation in self._reservations[: self.threshold.n]]
            gateway = self._reservations[self.threshold.n].port if self._gateways else 0
            with _storing():
                (self._storage / "ports.json").write_text(json.dumps([gateway, *nodes]))

    def _folder(self, index: int) -> Path | None:
        root = self._storage if self._temporary is None else Path(self._temporary.name)
        return None if root is None else root / f"node-{index}"

    def _runner(self, config: NodeConfig) -> NodeRunner:
        if self._workers is None:
            return ProcessRunner(config)
        return InProcessRunner(config, workers=self._workers, clock=self._clock)

    def _set_faults(self, index: int, faults: tuple[Fault, ...]) -> None:
        if self._nodes:  # else they are given to the nodes when these are made
            self._runners[index].set_faults(faults)

    async def _close(self) -> None:
        try:
            await asyncio.gather(*(server.stop() for _, server in self._gateways), return_exceptions=True)
            results = await asyncio.gather(*(node.retire() for node in self._nodes), return_exceptions=True)
        finally:
            for reservation in self._reservations:
                reservation.close()
            if self._workers is not None:
                self._workers.close()
            if self._temporary is not None:
                self._temporary.cleanup()
        for result in results:
            if isinstance(result, BaseException):
                raise result


def _identity_in(folder: Path | None) -> NodeIdentity:
    if folder is None:
        return NodeIdentity.generate()
    with _storing():
        return NodeIdentity.load_or_create(folder / "identity")


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidFieldError(
            "storage", f"cannot be used: {error.strerror}", hint="Name a folder that you may write to"
        ) from error

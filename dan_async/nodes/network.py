"""NodeNetwork: the nodes themselves, spoken to in dan-node/1."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import define, evolve, field

from dan_async._values import MAX_SAFE_INT, check_instance, check_int, check_seconds, setting
from dan_async.config import NodeEndpoint, Threshold, Timeouts, TransportOptions, check_operators
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline, OneLoop, carry_through
from dan_async.errors import (
    TIME_CODES,
    ClientClosedError,
    ConfigurationError,
    DanError,
    InvalidFieldError,
    QuorumError,
)
from dan_async.listeners import EventHub, operation
from dan_async.network import (
    AuthModule,
    ClockSkew,
    EphemeralKeyChange,
    EphemeralKeyReport,
    KeygenQuestion,
    KeygenReport,
    KeygenRequest,
    KeygenSettlement,
    NetworkHealth,
    NodeHealth,
    OpenedKeygen,
    SigningOptions,
    SigningOrder,
    SigningStock,
)
from dan_async.nodes.changes import change_ephemeral_key, register_passkey
from dan_async.nodes.health import NetworkClock, RestPolicy
from dan_async.nodes.keygen import NodeKeygen, OpenedRound, settle_keygen
from dan_async.nodes.keygen_batch import KeygenBatches
from dan_async.nodes.node import Node
from dan_async.nodes.round import SetupText, authenticate
from dan_async.protocols.fields import decode_key_id, new_request_id
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import REGISTER_PASSKEY
from dan_async.protocols.setups import PasskeySetup, UserAuthentication
from dan_async.retry import RetryPolicy
from dan_async.transport.rpc import Transport
from dan_async.types import Clock, KeyAlgorithm, OperatorAddress, RequestId, TimeSpan

if TYPE_CHECKING:
    from dan_async.events import OnEvent
    from dan_async.nodes.signing import NodeSigner


@define(eq=False, kw_only=True, repr=False)
class NodePool:
    """The nodes of one network, with everything that a job needs; the network owns it and closes it."""

    nodes: tuple[Node, ...]
    by_operator: Mapping[OperatorAddress, Node]
    events: EventHub
    timeouts: Timeouts
    default_threshold: Threshold
    signing: SigningOptions
    clock: NetworkClock
    batches: KeygenBatches = field(factory=KeygenBatches)
    is_closed: bool = False
    loop: OneLoop = field(factory=partial(OneLoop, "network"))
    _signer: NodeSigner | None = field(default=None, init=False)
    #: The context of all operations that nobody listens to.
    _unheard: _Operation = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._unheard = _Operation(self.clock, None)

    @property
    def signer(self) -> NodeSigner:
        """Return what signs; it is loaded and made when it is first asked for."""
        if self._signer is None:
            from dan_async.nodes.signing import NodeSigner

            self._signer = NodeSigner(self.nodes, options=self.signing, clock=self.clock)
        return self._signer

    def refuse_if_closed(self) -> None:
        """Raise a ClientClosedError if the network was closed, and a ConfigurationError on another event loop."""
        if self.is_closed:
            raise ClientClosedError("the network was closed", hint="Make a new NodeNetwork")
        self.loop.check()

    async def aclose(self) -> None:
        """Close every connection; carried through even if cancelled."""
        self.is_closed = True
        await carry_through(self._close())

    async def _close(self) -> None:
        closing = [node.aclose() for node in self.nodes]  # first: what is ended next goes on, and asks them
        closing.append(self.batches.aclose())
        if self._signer is not None:
            closing.append(self._signer.aclose())
        await asyncio.gather(*closing)

    def operation(self, request_id: RequestId, name: str) -> _Operation:
        """
        Report that an operation begins, and how it ends: ``with pool.operation(request_id, "keygen"): …``.

        Where it fails for the time, the error says so if it is this machine's clock that is wrong.
        """
        events = self.events
        if not events.listeners:
            return self._unheard
        return _Operation(self.clock, operation(events, request_id, name, "nodes"))


@define(eq=False, repr=False)
class _Operation:
    """The context of ``NodePool.operation``."""

    _clock: NetworkClock
    #: Tells the listeners; None if there are none.
    _report: AbstractContextManager[None] | None

    def __enter__(self) -> None:
        if self._report is not None:
            self._report.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, QuorumError):
            skew = self._clock.skew(error.threshold)
            if skew is not None and TIME_CODES.intersection(outcome.code for outcome in error.outcomes):
                error.hint = f"{skew}. {error.hint}"
        if self._report is not None:
            self._report.__exit__(kind, error, trace)


class NodeNetwork:
    """
    A pool of nodes that the client talks to directly: one multiplexed WebSocket each, opened on first use.

    Args:
        nodes: The pool: ``NodeEndpoint``s, texts ``URL=OPERATOR``, or mappings with url and operator. It may be larger
            than n: the healthiest n take part, the others are spares.
        threshold: t and n when the caller of a job names none; if None, all nodes (20 at most) and a majority of them.
        options: TLS, proxy, headers and size limits of the connections.
        timeouts: Limits within a job.
        retry: When a failed request is tried again.
        clock: The wall clock, for measuring how far a node's is off.
        rest: How long a node that failed is left alone.
        signing: How to sign: how many presignatures are made ahead.
        transport_for: Makes the way to a node, instead of a connection; for tests with ``InMemoryTransport``.
        on_event: Called with each event; see ``dan_async.events``.

    Raises:
        InvalidFieldError: A node is not given properly, or an operator is given twice.
        InsecureTransportError: A URL has no TLS and its host is not loopback.
    """

    default_eph_alg: KeyAlgorithm = "secp256k1"

    def __init__(
        self,
        nodes: Iterable[NodeEndpoint | str | Mapping[str, Any]],
        *,
        threshold: Threshold | None = None,
        options: TransportOptions | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        clock: Clock = time.time,
        rest: RestPolicy | None = None,
        signing: SigningOptions | None = None,
        transport_for: Callable[[NodeEndpoint], Transport] | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        if isinstance(nodes, str | Mapping | NodeEndpoint) or not isinstance(nodes, Iterable):
            raise InvalidFieldError(
                "nodes", "must be a list of nodes", hint="Each as NodeEndpoint(url, operator)"
            )
        endpoints = [NodeEndpoint.of(node) for node in nodes]
        if not endpoints:
            raise InvalidFieldError("nodes", "must name at least one node")
        check_operators(endpoints)
        if transport_for is not None and not callable(transport_for):
            raise InvalidFieldError("transport_for", "must be a function that makes a node's transport")
        self._clock = clock
        nodes_clock = NetworkClock(clock)
        timeouts, events = setting("timeouts", timeouts, Timeouts), EventHub(on_event)
        made = tuple(
            Node(
                endpoint,
                options=setting("options", options, TransportOptions),
                timeouts=timeouts,
                retry=setting("retry", retry, RetryPolicy),
                transport=transport_for(endpoint) if transport_for else None,
                rest=rest,
                events=events,
                clock=nodes_clock,
            )
            for endpoint in endpoints
        )
        #: The nodes, for code that passes on what others have signed, as the devnet's gateway does.
        self.pool = NodePool(
            nodes=made,
            by_operator={node.operator: node for node in made},
            events=events,
            timeouts=timeouts,
            default_threshold=Threshold.of_pool(len(made))
            if threshold is None
            else check_instance("threshold", threshold, Threshold),
            signing=setting("signing", signing, SigningOptions),
            clock=nodes_clock,
        )

    @property
    def default_threshold(self) -> Threshold:
        """Return t and n when the caller of a job names none."""
        return self.pool.default_threshold

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> Self:
        """
        Return the network that a network file describes (docs/how-to/networks.md).

        Args:
            path: The file.
            **options: Any other argument of the class; it wins over the file's.

        Raises:
            ConfigurationError: The file cannot be read, or is that of a gateway; see ``NetworkFile.read``.
        """
        from dan_async.network_file import NetworkFile

        found = NetworkFile.read(path)
        if not found.nodes:
            raise ConfigurationError(
                f"{path} is the file of a gateway", hint="Use GatewayNetwork.from_file()"
            )
        return cls(found.nodes, **{"threshold": found.threshold, "options": found.options} | options)

    def __repr__(self) -> str:
        return f"NodeNetwork({len(self.pool.nodes)} nodes, default {self.default_threshold})"

    def observe(self, on_event: OnEvent) -> None:
        """Have one more function called with each event; see ``dan_async.events.Observable``."""
        self.pool.events.add(on_event)

    @property
    def signing_stock(self) -> SigningStock:
        """How many presignatures were made ahead so far, and what became of them."""
        stock = self.pool.signer.stock
        return SigningStock(kept=len(stock), made=stock.made, used=stock.used_up, wasted=stock.wasted)

    def check_keygen(self, request: KeygenRequest) -> None:
        """
        Check, without I/O, that the pool is large enough.

        Raises:
            InvalidFieldError: It is not.
            ClientClosedError: The network was closed.
        """
        self.pool.refuse_if_closed()
        least = request.fewest_parties
        if len(self.pool.nodes) < least:
            raise InvalidFieldError(
                "parties_number",
                f"asks for {least} nodes, but the network has {len(self.pool.nodes)}",
                hint="Ask for fewer with threshold and parties_number, or add nodes",
            )

    async def keygen(self, request: KeygenRequest, auth: AuthModule, *, deadline: Deadline) -> KeygenReport:
        """Make a distributed key; see ``Network.keygen``."""
        self.check_keygen(request)
        with self.pool.operation(request.request_id, "keygen"):
            return await self._keygen(request, deadline).run(auth)

    def _keygen(self, request: KeygenRequest, deadline: Deadline) -> NodeKeygen:
        pool = self.pool
        return NodeKeygen(
            pool.by_operator,
            request,
            pool.events,
            deadline=deadline,
            timeouts=pool.timeouts,
            batches=pool.batches if request.in_batch else None,
        )

    async def open_keygen(self, request: KeygenRequest, *, deadline: Deadline) -> OpenedKeygen:
        """Go as far as the challenge; see ``OpensKeygen.open_keygen``."""
        self.check_keygen(request)
        with self.pool.operation(request.request_id, "openKeygen"):
            opened = await self._keygen(request, deadline).open()
        correction_s = self.pool.clock.correction_s(opened.threshold.t)
        return self._opened(request, evolve(opened, expires_at=math.floor(opened.expires_at - correction_s)))

    def reopen_keygen(self, request: KeygenRequest, text: str) -> OpenedKeygen:
        """Take up a key generation that was opened before; see ``OpensKeygen.reopen_keygen``."""
        self.pool.refuse_if_closed()
        return self._opened(request, OpenedRound.read(request, text, self.pool.by_operator))

    def _opened(self, request: KeygenRequest, opened: OpenedRound) -> OpenedKeygen:
        async def finish(auth: AuthModule, *, deadline: Deadline) -> KeygenReport:
            self.pool.refuse_if_closed()
            with self.pool.operation(request.request_id, "keygen"):
                return await self._keygen(request, deadline).run(auth, opened)

        return OpenedKeygen(
            challenge=opened.round.challenge,
            typed_data=opened.typed_data,
            expires_at=opened.expires_at,
            text=opened.text,
            finish=finish,
        )

    async def add_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """Let another ephemeral key use a key; t nodes must confirm. See ``Network.add_ephemeral_key``."""
        return await self._change("addEphemeralKey", change, auth, deadline)

    async def revoke_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """End an ephemeral key's use of a key; n - t + 1 nodes must confirm. See ``Network.revoke_ephemeral_key``."""
        return await self._change("revokeEphemeralKey", change, auth, deadline)

    async def signgen(
        self, order: SigningOrder, key: EphemeralKey, *, deadline: Deadline
    ) -> tuple[bytes, ...]:
        """Sign with a key that these nodes hold; see ``Network.signgen`` and ``NodeSigner.sign``."""
        self.pool.refuse_if_closed()
        with self.pool.operation(new_request_id(), "signgen"):
            return await self.pool.signer.sign(order, key, deadline=deadline)

    async def _change(
        self, operation: str, change: EphemeralKeyChange, auth: AuthModule, deadline: Deadline
    ) -> EphemeralKeyReport:
        self.pool.refuse_if_closed()
        key_id = decode_key_id(change.key_id)
        setup = REVISION_1.ephemeral_key_setup(claim=change.claim, key_id=key_id)
        text = SetupText.of(change.request_id, operation, setup, key_id)

        async def owner_signs(challenge: str) -> UserAuthentication:
            return await authenticate(
                auth,
                challenge,
                typed_data=REVISION_1.typed_data(operation, setup, challenge),
                credentials=REVISION_1.encode_claim(change.claim),
                request_id=change.request_id,
                deadline=deadline,
                events=self.pool.events,
            )

        with self.pool.operation(text.request_id, operation):
            return await change_ephemeral_key(
                self.pool.by_operator,
                text,
                owner_signs,
                eph_id=change.claim.eph_id,
                threshold=change.threshold,
                deadline=deadline,
                patience_s=self.pool.timeouts.patience_s,
            )

    async def register_passkey(self, auth: AuthModule, *, deadline: Deadline) -> str:
        """
        Register a passkey with the nodes; see ``Network.register_passkey``.

        The network's default n of them must confirm, or all if the pool is smaller.

        Raises:
            WalletError: No passkey was made; nothing was registered.
            QuorumError: Too few nodes confirmed.
            ClientClosedError: The network was closed.
            DanError: Any other failure, named.
        """
        self.pool.refuse_if_closed()
        text = SetupText.of(new_request_id(), REGISTER_PASSKEY, PasskeySetup())
        owner_makes_passkey = partial(
            authenticate,
            auth,
            typed_data={},
            credentials="",
            request_id=text.request_id,
            deadline=deadline,
            events=self.pool.events,
        )
        needed = min(self.default_threshold.n, len(self.pool.nodes))
        with self.pool.operation(text.request_id, text.operation):
            return await register_passkey(
                self.pool.by_operator,
                text,
                owner_makes_passkey,
                needed=needed,
                deadline=deadline,
                patience_s=self.pool.timeouts.patience_s,
            )

    async def settle_keygen(self, question: KeygenQuestion, *, deadline: Deadline) -> KeygenSettlement:
        """Find out what came of a key generation; see ``SettlesKeygen.settle_keygen``."""
        self.pool.refuse_if_closed()
        return await settle_keygen(self.pool.nodes, question, deadline=deadline)

    def clock_skew(self, t: int) -> ClockSkew | None:
        """Return how far this machine's clock is off; see ``MeasuresClock.clock_skew``."""
        return self.pool.clock.skew(check_int("t", t, least=1, most=MAX_SAFE_INT))

    def is_time_known(self) -> bool:
        """Return whether t nodes have told the time; see ``MeasuresClock.is_time_known``."""
        return self.pool.clock.is_known(self.default_threshold.t)

    async def health(self, *, timeout_s: TimeSpan | None = None) -> NetworkHealth:
        """
        Ask every node how it is, all at once; a node that is down is reported, never raised.

        Args:
            timeout_s: Seconds to wait for the slowest; one attempt's time if None.
        """
        self.pool.loop.check()
        limit = self.pool.timeouts.attempt_s if timeout_s is None else check_seconds("timeout_s", timeout_s)
        return NetworkHealth(
            nodes=tuple(await asyncio.gather(*(self._look_at(node, limit) for node in self.pool.nodes)))
        )

    async def _look_at(self, node: Node, timeout_s: float) -> NodeHealth:
        started = time.monotonic()
        facts: dict[str, Any]
        try:
            node_time = await node.look(deadline=Deadline(timeout_s))
        except DanError as error:
            facts = {"is_live": False, "problem": str(error)}
        else:
            latency = time.monotonic() - started
            skew = node_time - (self._clock() - latency / 2)
            state = node.health.state
            facts = {"is_live": True, "latency_s": latency, "clock_skew_s": skew, "state": state}
        record = node.health
        return NodeHealth(
            name=node.operator,
            url=node.shown_url,
            average_latency_s=record.latency_s,
            failures=record.failures,
            rests_for_s=record.rests_for_s,
            requests=record.requests,
            keygens=record.keygens,
            suspicion=record.suspicion,
            **facts,
        )

    async def aclose(self) -> None:
        """Close every connection. May be called twice."""
        if not self.pool.is_closed:
            self.pool.loop.check()
        await self.pool.aclose()

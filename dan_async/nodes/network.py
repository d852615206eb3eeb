"""NodeNetwork: the nodes themselves, spoken to in dan-node/1."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from dan_async.config import DEFAULT_THRESHOLD, NodeEndpoint, Threshold, Timeouts, TransportOptions
from dan_async.deadline import Deadline
from dan_async.errors import ClientClosedError, DanError, InvalidFieldError
from dan_async.events import EventHub, OnEvent, operation, wallet_turn
from dan_async.network import (
    EphemeralKeyChange,
    EphemeralKeyReport,
    KeygenReport,
    KeygenRequest,
    NetworkHealth,
    NodeHealth,
    SigningOptions,
    SigningOrder,
)
from dan_async.nodes.changes import Authenticate, change_ephemeral_key, register_passkey
from dan_async.nodes.health import RestPolicy, rank
from dan_async.nodes.keygen import NodeKeygen, not_ready
from dan_async.nodes.node import Node, probing
from dan_async.nodes.round import NodeRound, SetupText, open_round, run_keygen
from dan_async.nodes.settling import KeygenQuestion, KeygenSettlement, settle_keygen
from dan_async.nodes.sign_relay import RelayedOrder, relay_signgen
from dan_async.nodes.signing import NodeSigner
from dan_async.protocols import gateway_1 as revision_1
from dan_async.protocols.fields import decode_key_id
from dan_async.protocols.node import REGISTER_PASSKEY
from dan_async.protocols.setups import PasskeySetup, UserAuthentication
from dan_async.retry import RetryPolicy
from dan_async.transport.rpc import Transport
from dan_async.types import Clock, KeyAlgorithm, RequestId, new_request_id

if TYPE_CHECKING:
    from dan_async.crypto.ephemeral_key import EphemeralKey
    from dan_async.network import AuthModule


class NodeNetwork:
    """
    A pool of nodes that the client talks to directly: one multiplexed WebSocket each, opened on first use.

    Args:
        nodes: The pool: ``NodeEndpoint``s, texts ``URL=OPERATOR``, or mappings with url and operator. It may be larger
            than n: the healthiest n take part, the others are spares.
        threshold: t and n when the caller of a job names none; 3-of-5 if None.
        options: TLS, proxy, headers and size limits of the connections.
        timeouts: Limits within a job.
        retry: When a failed request is tried again.
        clock: The wall clock, for measuring how far a node's is off.
        rest: How long a node that failed is left alone.
        signing: How to sign: how many presignatures are made ahead.
        transport_for: Makes the way to a node, instead of a connection; for tests with ``InMemoryTransport``.
        on_event: Told of what happens; see ``dan_async.events``.

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
        if len({endpoint.operator for endpoint in endpoints}) != len(endpoints):
            raise InvalidFieldError("nodes", "names an operator twice")
        self.default_threshold = threshold or DEFAULT_THRESHOLD
        self._timeouts = timeouts or Timeouts()
        self._clock = clock
        self._is_closed = False
        self._events = EventHub(on_event)
        self._nodes = tuple(
            Node(
                endpoint,
                options=options or TransportOptions(),
                timeouts=self._timeouts,
                retry=retry or RetryPolicy(),
                transport=transport_for(endpoint) if transport_for else None,
                rest=rest,
                events=self._events,
            )
            for endpoint in endpoints
        )
        self._signer = NodeSigner(self._nodes, options=signing or SigningOptions(), clock=clock)

    def __repr__(self) -> str:
        return f"NodeNetwork({len(self._nodes)} nodes, default {self.default_threshold})"

    def observe(self, on_event: OnEvent) -> None:
        """Have one more function told of what happens; see ``dan_async.events.Observable``."""
        self._events.add(on_event)

    def _operation(self, request_id: RequestId, name: str) -> AbstractContextManager[None]:
        return operation(self._events, request_id, name, "nodes")

    def check_keygen(self, request: KeygenRequest) -> None:
        """
        Check, without I/O, that the pool is large enough.

        Raises:
            InvalidFieldError: It is not.
            ClientClosedError: The network was closed.
        """
        self._refuse_if_closed()
        least = request.min_parties or request.threshold.n
        if len(self._nodes) < least:
            raise InvalidFieldError(
                "parties_number",
                f"asks for {least} nodes, and the network has {len(self._nodes)}",
                hint="Name threshold and parties_number, or add nodes",
            )

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ClientClosedError("the network was closed", hint="Make a new NodeNetwork")

    async def keygen(self, request: KeygenRequest, auth: AuthModule, *, deadline: Deadline) -> KeygenReport:
        """Make a distributed key; see ``Network.keygen``."""
        self.check_keygen(request)
        run = NodeKeygen(self._nodes, request, auth, deadline=deadline, timeouts=self._timeouts)
        with self._operation(request.request_id, "keygen"):
            return await run.run()

    async def add_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """Let another ephemeral key use a key; t nodes must confirm. See ``Network.add_ephemeral_key``."""
        return await self._change("addEphemeralKey", change, auth, deadline)

    async def revoke_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """Take a key from an ephemeral key; n - t + 1 nodes must confirm. See ``Network.add_ephemeral_key``."""
        return await self._change("revokeEphemeralKey", change, auth, deadline)

    async def signgen(
        self, order: SigningOrder, key: EphemeralKey, *, deadline: Deadline
    ) -> tuple[bytes, ...]:
        """Sign with a key that these nodes hold; see ``Network.signgen`` and ``NodeSigner.sign``."""
        self._refuse_if_closed()
        with self._operation(new_request_id(), "signgen"):
            return await self._signer.sign(order, key, deadline=deadline)

    async def _change(
        self, operation: str, change: EphemeralKeyChange, auth: AuthModule, deadline: Deadline
    ) -> EphemeralKeyReport:
        key_id = decode_key_id(change.key_id)
        setup = revision_1.ephemeral_key_setup(claim=change.claim, key_id=key_id)

        async def authenticate(challenge: str) -> UserAuthentication:
            typed_data = revision_1.ephemeral_key_typed_data(setup, challenge)
            waiting = deadline.paused() if auth.interactive else nullcontext()
            with waiting, wallet_turn(self._events, change.request_id, auth.interactive):
                signature = await auth.authorise(challenge=challenge, typed_data=typed_data)
            credentials = revision_1.encode_claim(change.claim)
            return UserAuthentication(
                method=auth.method, id=auth.id, credentials=credentials, signature=signature
            )

        text = SetupText(
            request_id=change.request_id,
            operation=operation,
            revision="1",
            text=revision_1.encode_ephemeral_key_setup(setup),
            key_id=key_id,
        )
        return await self.relay_change(
            text, authenticate, eph_id=change.claim.eph_id, threshold=change.threshold, deadline=deadline
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
        request_id = new_request_id()

        async def authenticate(challenge: str) -> UserAuthentication:
            waiting = deadline.paused() if auth.interactive else nullcontext()
            with waiting, wallet_turn(self._events, request_id, auth.interactive):
                signature = await auth.authorise(challenge=challenge, typed_data={})
            return UserAuthentication(method=auth.method, id=auth.id, credentials="", signature=signature)

        text = SetupText(
            request_id=request_id,
            operation=REGISTER_PASSKEY,
            revision="1",
            text=revision_1.encode_passkey_setup(PasskeySetup()),
        )
        return await self.relay_passkey(text, authenticate, deadline=deadline)

    async def settle_keygen(self, question: KeygenQuestion, *, deadline: Deadline) -> KeygenSettlement:
        """Find out what came of a key generation; see ``SettlesKeygen.settle_keygen``."""
        self._refuse_if_closed()
        return await settle_keygen(self._nodes, question, deadline=deadline)

    # --- for those who relay what somebody else signed ----------------------------------------------------------------

    async def relay_keygen(
        self, setup: SetupText, threshold: Threshold, authenticate: Authenticate, *, deadline: Deadline
    ) -> KeygenReport:
        """
        Make a key for an owner who signs elsewhere, in whichever revision: what a gateway does.

        Args:
            setup: The owner's setup, as it was sent.
            threshold: The t and n it names.
            authenticate: Takes the challenge to the owner and brings the signature back.
            deadline: The job's deadline.

        Raises:
            QuorumError: Fewer than n nodes are ready, or fewer than t agree on a key.
            DanError: Any other failure, named.
        """
        self._refuse_if_closed()
        nodes = {node.operator: node for node in self._nodes}
        with self._operation(setup.request_id, setup.operation):
            ranked = rank(self._nodes)
            async with probing(ranked[threshold.n :], deadline=deadline):
                opened, asked = await open_round(
                    ranked, setup, threshold.n, deadline=deadline, hedge_s=self._timeouts.hedge_s
                )
                ready = len(opened.participants)
                if ready < threshold.n:
                    raise not_ready(ready, threshold, asked, setup.request_id, deadline=deadline)
                authentication = await authenticate(opened.challenge)
                return await run_keygen(
                    nodes,
                    opened,
                    authentication,
                    threshold,
                    deadline=deadline,
                    grace_s=self._timeouts.grace_s,
                )

    async def relay_passkey(self, setup: SetupText, authenticate: Authenticate, *, deadline: Deadline) -> str:
        """Register a passkey that is made elsewhere; see ``register_passkey``."""
        self._refuse_if_closed()
        needed = min(self.default_threshold.n, len(self._nodes))
        with self._operation(setup.request_id, setup.operation):
            return await register_passkey(self._nodes, setup, authenticate, needed=needed, deadline=deadline)

    async def relay_oneshot_keygen(
        self,
        setup: SetupText,
        threshold: Threshold,
        authentication: UserAuthentication,
        *,
        deadline: Deadline,
    ) -> KeygenReport:
        """
        Make a key for an owner who signed without a challenge (revision 1, "v2"); see ``relay_keygen``.

        Raises:
            QuorumError: The pool is smaller than n, or fewer than t nodes agree on a key.
            DanError: Any other failure, named.
        """
        self._refuse_if_closed()
        nodes = {node.operator: node for node in self._nodes}
        if len(nodes) < threshold.n:
            raise not_ready(len(nodes), threshold, (), setup.request_id, deadline=deadline)
        opened = NodeRound.oneshot(setup, self._nodes, threshold.n)
        with self._operation(setup.request_id, setup.operation):
            return await run_keygen(
                nodes, opened, authentication, threshold, deadline=deadline, grace_s=self._timeouts.grace_s
            )

    async def relay_signgen(
        self, order: RelayedOrder, authenticate: Authenticate, *, deadline: Deadline
    ) -> tuple[bytes, ...]:
        """Sign for an ephemeral key that is elsewhere; see ``node_sign_relay.relay_signgen``."""
        self._refuse_if_closed()
        with self._operation(order.setup.request_id, order.setup.operation):
            return await relay_signgen(self._signer, self._nodes, order, authenticate, deadline=deadline)

    async def relay_change(
        self,
        setup: SetupText,
        authenticate: Authenticate,
        *,
        eph_id: str,
        threshold: Threshold | None,
        deadline: Deadline,
        is_oneshot: bool = False,
    ) -> EphemeralKeyReport:
        """Add or revoke an ephemeral key for an owner who signs elsewhere; see ``change_ephemeral_key``."""
        self._refuse_if_closed()
        with self._operation(setup.request_id, setup.operation):
            return await change_ephemeral_key(
                self._nodes,
                setup,
                authenticate,
                eph_id=eph_id,
                threshold=threshold,
                deadline=deadline,
                is_oneshot=is_oneshot,
            )

    # ------------------------------------------------------------------------------------------------------------------

    async def health(self, *, timeout_s: float | None = None) -> NetworkHealth:
        """
        Ask every node how it is, all at once; a node that is down is reported, never raised.

        Args:
            timeout_s: Seconds to wait for the slowest; one attempt's time if None.
        """
        limit = timeout_s or self._timeouts.attempt_s
        return NetworkHealth(
            nodes=tuple(await asyncio.gather(*(self._look_at(node, limit) for node in self._nodes)))
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
            **facts,
        )

    async def aclose(self) -> None:
        """Close every connection. May be called twice."""
        self._is_closed = True
        await self._signer.aclose()
        await asyncio.gather(*(node.aclose() for node in self._nodes))

"""Who we talk to: both networks look the same to the jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from attrs import Factory, field, frozen

from dan_async._tasks import Deadline
from dan_async.models.ephemeral_key_change import EphemeralKeyChange, EphemeralKeyReport
from dan_async.models.keygen import KeygenReport, KeygenRequest
from dan_async.models.threshold import Threshold
from dan_async.types import KeyAlgorithm, OperatorAddress

if TYPE_CHECKING:
    from dan_async.auth.base import AuthModule
    from dan_async.crypto.ephemeral_key import EphemeralKey
    from dan_async.networks.signing import SigningOrder

__all__ = ["Network", "NetworkHealth", "NetworkSource", "NodeHealth", "NodeState"]

#: ``live``: it answers and takes part. ``resting``: it answers, and is left alone for a while because it failed before.
#: ``probing``: it has rested, and one request is under way that lets it prove itself. ``down``: it does not answer.
NodeState = Literal["live", "resting", "probing", "down"]


@frozen(kw_only=True)
class NodeHealth:
    """
    How one node is doing.

    Args:
        name: Its operator address, or a gateway's URL without credentials.
        url: Where it is, without credentials.
        is_live: Whether it answered just now.
        latency_s: Round-trip time in seconds, if it answered.
        clock_skew_s: Its clock minus ours in seconds, if it told.
        problem: Why it is not live, in one line.
        state: ``live``, ``resting``, ``probing`` or ``down``; see docs/node-pool.md.
        average_latency_s: Exponentially weighted moving average of its latency in seconds; None if it never answered.
        failures: Failures in a row; 0 after a success.
        rests_for_s: Seconds for which it is still left alone, unless nothing better is there; 0 if it is not.
        requests: Requests that this client has sent it, attempts counted one by one.
        keygens: Key generations in which it was asked to take part.
    """

    name: OperatorAddress | str
    url: str
    is_live: bool
    latency_s: float | None = None
    clock_skew_s: float | None = None
    problem: str = ""
    state: NodeState = field(
        default=Factory(lambda self: "live" if self.is_live else "down", takes_self=True)
    )
    average_latency_s: float | None = None
    failures: int = 0
    rests_for_s: float = 0.0
    requests: int = 0
    keygens: int = 0


@frozen(kw_only=True)
class NetworkHealth:
    """How the network is doing: one entry per node."""

    nodes: tuple[NodeHealth, ...]

    @property
    def live(self) -> int:
        """How many nodes answered."""
        return sum(node.is_live for node in self.nodes)


@runtime_checkable
class Network(Protocol):
    """
    A DAN network, reached through a gateway or node by node.

    Attributes:
        default_threshold: t and n when the caller names none.
        default_eph_alg: The ephemeral key's algorithm when the caller names none.
    """

    @property
    def default_threshold(self) -> Threshold:
        """Give t and n when the caller names none."""
        ...

    @property
    def default_eph_alg(self) -> KeyAlgorithm:
        """Give the ephemeral key's algorithm when the caller names none."""
        ...

    def check_keygen(self, request: KeygenRequest) -> None:
        """
        Check, without I/O, that this network can carry the request.

        Raises:
            ConfigurationError: It cannot; the error names the field.
        """
        ...

    async def keygen(self, request: KeygenRequest, auth: AuthModule, *, deadline: Deadline) -> KeygenReport:
        """
        Have the network make a distributed key.

        Args:
            request: What is asked for.
            auth: Who authorises it.
            deadline: The job's deadline.

        Returns:
            The key, its id and what each node answered.

        Raises:
            ConfigurationError: The network cannot carry the request; nothing was sent.
            WalletError: The owner did not authorise; nothing was created.
            QuorumError: Fewer than t nodes agree.
            DeadlineExceededError: The time ran out.
            DanError: Any other failure of the network, named.
        """
        ...

    async def add_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """
        Let another ephemeral key use a distributed key.

        Args:
            change: Which key, and the ephemeral key's claim.
            auth: The owner.
            deadline: The job's deadline.

        Raises:
            ConfigurationError: The network cannot carry the request; nothing was sent.
            WalletError: The owner did not authorise it; nothing was changed.
            QuorumError: Too few nodes confirmed.
            DanError: Any other failure of the network, named.
        """
        ...

    async def revoke_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """Take the use of a distributed key from an ephemeral key; see ``add_ephemeral_key``."""
        ...

    async def signgen(
        self, order: SigningOrder, key: EphemeralKey, *, deadline: Deadline
    ) -> tuple[bytes, ...]:
        """
        Have t nodes sign.

        Args:
            order: The messages, and which key signs them.
            key: The ephemeral key that asks.
            deadline: The job's deadline.

        Returns:
            For each message 65 bytes r, s, v. The caller checks them with ``SigningOrder.check``.

        Raises:
            ConfigurationError: The network cannot carry the request; nothing was sent.
            EphemeralKeyRefusedError: The nodes refuse the ephemeral key.
            NotPermittedError: The session's permissions do not allow it.
            QuorumError: No t nodes signed, for other reasons.
            DeadlineExceededError: The time ran out.
            DanError: Any other failure of the network, named.
        """
        ...

    async def register_passkey(self, auth: AuthModule, *, deadline: Deadline) -> str:
        """
        Register a passkey, so that it can own keys.

        Args:
            auth: Has the passkey made: a ``PasskeyRegister``.
            deadline: The job's deadline.

        Returns:
            Its credential id, base64url.

        Raises:
            ConfigurationError: The network cannot do it; nothing was sent.
            WalletError: No passkey was made; nothing was registered.
            DanError: Any other failure of the network, named.
        """
        ...

    async def health(self, *, timeout_s: float | None = None) -> NetworkHealth:
        """Ask every node how it is; never raises for a node that is down."""
        ...

    async def aclose(self) -> None:
        """Close every connection. May be called twice."""
        ...


@runtime_checkable
class NetworkSource(Protocol):
    """Something that has a network to offer, such as a devnet; a client opens it and closes it again."""

    async def open_network(self) -> Network:
        """Start what must be started and give a network to it."""
        ...

    async def close_network(self) -> None:
        """Stop what ``open_network`` started."""
        ...

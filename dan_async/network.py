"""The contract between jobs and networks: requests, reports, orders, health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol, runtime_checkable

from attrs import Factory, field, frozen

from dan_async._values import (
    MAX_PERMISSIONS_LENGTH,
    check_int,
    check_seconds,
    check_text,
    in_seconds,
    optional,
    required,
    to_hex,
)
from dan_async.config import Threshold
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import read_signature
from dan_async.deadline import Deadline
from dan_async.errors import DanError, InvalidFieldError, NodeOutcome, SignatureCheckError
from dan_async.protocols.node import Acknowledgement
from dan_async.protocols.setups import AuthMethod, EphemeralClaim
from dan_async.protocols.sign_request import SignRequest
from dan_async.types import (
    Address,
    Clock,
    Hex,
    KeyAlgorithm,
    MpcKeyId,
    OperatorAddress,
    RequestId,
    TimeSpan,
    TypedData,
)

__all__ = [
    "AuthModule",
    "ClockSkew",
    "EphemeralKeyChange",
    "EphemeralKeyReport",
    "FinishKeygen",
    "KeygenQuestion",
    "KeygenReport",
    "KeygenRequest",
    "KeygenSettlement",
    "KeygenTimings",
    "MeasuresClock",
    "Network",
    "NetworkHealth",
    "NetworkSource",
    "NodeHealth",
    "NodeState",
    "OpenedKeygen",
    "OpensKeygen",
    "SettlesKeygen",
    "SigningOptions",
    "SigningOrder",
    "SigningStock",
]


class AuthModule(Protocol):
    """One scheme by which an owner authorises a setup."""

    @property
    def method(self) -> AuthMethod:
        """Return the scheme's name on the wire."""

    @property
    def id(self) -> str:
        """Return the id of the one who authorises: the EOA's address, or the passkey's credential id."""

    @property
    def interactive(self) -> bool:
        """Whether a person is asked."""

    async def authorise(self, *, challenge: str, typed_data: TypedData) -> str:
        """
        Have the owner sign, and check the result before anyone sees it.

        Args:
            challenge: 64 hex digits, no 0x: the final challenge.
            typed_data: The EIP-712 form of the request, which contains the challenge.

        Returns:
            The ``signature`` member of the authentication object.

        Raises:
            WalletError: The owner refused, did not answer in time, or signed with another key.
        """


@frozen(kw_only=True)
class EphemeralKeyChange:
    """
    An ephemeral key to add or to revoke, independent of the network that does it.

    Args:
        request_id: Names it on every node; the same over all attempts.
        action: What to do.
        key_id: The key it is about.
        owner_id: Whose key it is: the EOA's address, or the passkey's credential id.
        claim: The ephemeral key that is added or revoked.
        threshold: t and n of the key, if known.
    """

    request_id: RequestId
    action: Literal["add", "revoke"]
    key_id: MpcKeyId = field(validator=required(check_text, most=256))
    owner_id: str = field(validator=required(check_text))
    claim: EphemeralClaim
    threshold: Threshold | None = None


@frozen(kw_only=True)
class EphemeralKeyReport:
    """
    The result of adding or revoking an ephemeral key.

    Args:
        request_id: The request it answers.
        confirmed_by: The operators that signed a receipt; empty for a gateway, which does not say.
        failures: The other nodes' answers, one line each.
    """

    request_id: RequestId
    confirmed_by: tuple[OperatorAddress, ...] = ()
    failures: tuple[str, ...] = ()


@frozen(kw_only=True)
class KeygenRequest:
    """
    One key generation, independent of the network that runs it.

    Args:
        request_id: Names it on every node; the same over all attempts.
        owner_id: Who owns the key: the EOA's address, or the passkey's credential id.
        threshold: t and n.
        claim: The ephemeral key the owner vouches for.
        permissions: JSON text that limits what the key may sign, or None for no limits.
        key_label: A label the network may keep with the key.
        min_parties: The smallest number of parties to accept, t to n; n if None.
        min_holders: How many nodes must acknowledge that they hold a share, t to n; t if None.
        allow_resign: Whether a person may be asked to sign again when key generation failed after the first signature.
        in_batch: Whether the network may put it together with others, and let it wait for them a moment.
    """

    request_id: RequestId
    owner_id: str = field(validator=required(check_text))
    threshold: Threshold
    claim: EphemeralClaim
    permissions: str | None = field(default=None, validator=optional(check_text, most=MAX_PERMISSIONS_LENGTH))
    key_label: str | None = field(default=None, validator=optional(check_text, most=256))
    min_parties: int | None = None
    min_holders: int | None = None
    allow_resign: bool = False
    in_batch: bool = False

    def __attrs_post_init__(self) -> None:
        for name in ("min_parties", "min_holders"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), least=self.threshold.t, most=self.threshold.n)

    @property
    def fewest_parties(self) -> int:
        """The smallest number of parties that will do: each holder that is wanted has to be one."""
        return max(self.min_parties or self.threshold.n, self.min_holders or 0)


@frozen(kw_only=True)
class KeygenTimings:
    """
    The time that the steps of a key generation took, in seconds.

    Args:
        challenge_s: Until enough nodes were ready.
        wallet_s: Until the owner had signed.
        keygen_s: From sending the authorised request to the verdict: the key generation itself and its acknowledgements.
        total_s: Everything, earlier rounds that were given up included.
    """

    challenge_s: float = 0.0
    wallet_s: float = 0.0
    keygen_s: float = 0.0
    total_s: float = 0.0


@frozen(kw_only=True)
class KeygenReport:
    """
    A finished key generation.

    Args:
        request_id: The request it answers.
        key_id: The MPC key id.
        public_key: The distributed public key: 33 bytes, compressed.
        threshold: t and n as they came to be; n is smaller than asked only if ``min_parties`` allowed it.
        outcomes: The outcome of every participant; empty for a gateway, which does not say. One that had not answered yet
            when the verdict was clear has neither acknowledgement nor error: as a rule it holds a share as well.
        replaced: The outcomes of nodes that were asked and do not take part: too late, or failed, at the challenge or
            in a round that was given up.
        culprits: The nodes that most of the others blamed for rounds that were given up.
        disputes: Pairs of nodes of which one blamed the other for such a round, and nothing shows which is right: one of
            each pair is faulty.
        restarts: How many rounds were given up after the owner had signed.
        timings: The time that each step took.
    """

    request_id: RequestId
    key_id: MpcKeyId
    public_key: bytes
    threshold: Threshold
    outcomes: tuple[NodeOutcome[Acknowledgement], ...] = ()
    replaced: tuple[NodeOutcome[Any], ...] = ()
    culprits: tuple[OperatorAddress, ...] = ()
    disputes: tuple[tuple[OperatorAddress, OperatorAddress], ...] = ()
    restarts: int = 0
    timings: KeygenTimings = KeygenTimings()

    @property
    def holders(self) -> tuple[OperatorAddress, ...]:
        """The operators that acknowledged: each is known to hold a share."""
        return tuple(outcome.operator for outcome in self.outcomes if outcome.is_success)

    def describe(self) -> str:
        """
        Several lines for a log or a screen; nothing in them is secret.

        Returns:
            The text, without a line break at its end.
        """
        timings = self.timings
        steps = f"challenge {timings.challenge_s:.2f} s, wallet {timings.wallet_s:.2f} s, keygen {timings.keygen_s:.2f} s"
        lines = [
            f"key {self.key_id}: {self.threshold}, {len(self.holders)} nodes acknowledged, {self.restarts} restarts",
            f"  {timings.total_s:.2f} s: {steps}",
        ]
        lines += [f"  blamed by most of the others: node {culprit}" for culprit in self.culprits]
        lines += [f"  in dispute: nodes {one} and {other}" for one, other in self.disputes]
        lines += [f"  {outcome.describe()}" for outcome in self.outcomes]
        lines += [f"  replaced: {outcome.describe()}" for outcome in self.replaced]
        return "\n".join(lines)


#: Most presignatures that are kept for one session: Groth and Shoup (EUROCRYPT 2022, section 6) show what many at a time
#: cost in security margin; the nodes re-randomise theirs with the message, as they advise.
MAX_STOCK = 32


@frozen(kw_only=True)
class SigningOptions:
    """
    How a ``NodeNetwork`` signs.

    Args:
        stock: Most presignatures to have made ahead for one session, so that a signature is one round trip: 0 (never) to 32.
            How many there are follows from use: one after the first signature, one more for each that found none, one less
            for each that expired, and none for a session that does not sign.
        stock_s: Seconds for which a presignature is kept; the nodes keep it 60 seconds as a rule.
        at_once: How many calls may be signing at the same time, 1 to 4096; one session alone gets half of these places.
            The others wait for their turn, the sessions one after the other.
        max_waiting: How many calls may wait, 0 to 1,000,000.

    Raises:
        InvalidFieldError: A value is out of range.
    """

    stock: int = field(default=16, validator=required(check_int, least=0, most=MAX_STOCK))
    stock_s: float = field(default=45.0, converter=in_seconds, validator=required(check_seconds, most=300.0))
    at_once: int = field(default=64, validator=required(check_int, least=1, most=4096))
    max_waiting: int = field(default=10_000, validator=required(check_int, least=0, most=1_000_000))


@frozen(kw_only=True)
class SigningStock:
    """
    The presignatures that a ``NodeNetwork`` has had made ahead. Each costs the nodes about as much as a signature.

    Args:
        kept: How many there are now, of all sessions.
        made: How many were made since the network was opened.
        used: How many of them became signatures.
        wasted: How many were thrown away: they expired, or their signers failed since.
    """

    kept: int
    made: int
    used: int
    wasted: int


@frozen(kw_only=True)
class SigningOrder:
    """
    Messages that one session has signed, with one key.

    Args:
        key_id: The key.
        address: Its address, to which every signature must recover.
        t: How many nodes must sign.
        claim: The ephemeral key that asks, and its expiry as far as it is known.
        owner_id: The owner's address, which gateway revision 0.1 names.
        requests: The messages.
        digests: What gets signed of each, 32 bytes.
    """

    key_id: MpcKeyId = field(validator=required(check_text, most=256))
    address: Address
    t: int
    claim: EphemeralClaim
    owner_id: str | None
    requests: tuple[SignRequest, ...]
    digests: tuple[bytes, ...]

    def __attrs_post_init__(self) -> None:
        if not self.requests or len(self.requests) != len(self.digests):
            raise InvalidFieldError("requests", "must be at least one, each with its digest")

    def check(self, signatures: tuple[bytes, ...]) -> tuple[Hex, ...]:
        """
        Check that every signature recovers to the key's address over its digest.

        Args:
            signatures: 65 bytes each: r, s, v, in the order of the digests.

        Returns:
            The signatures as 0x hex, r, s and v, with low s.

        Raises:
            SignatureCheckError: One does not; then none is returned.
        """
        if len(signatures) != len(self.digests):
            raise _mismatch(self.address)
        found = []
        for signature, digest in zip(signatures, self.digests, strict=True):
            try:
                low, signer = read_signature(digest, signature)
            except DanError:
                raise _mismatch(self.address) from None
            if signer != self.address:
                raise _mismatch(self.address)
            found.append(to_hex(low))
        return tuple(found)


def _mismatch(address: Address) -> SignatureCheckError:
    return SignatureCheckError(
        f"the network's signature does not recover to the session's address {address}; it was discarded",
        hint="The network signed another message or with another key: the gateway or the nodes may be dishonest",
        phase="signing",
    )


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
        clock_skew_s: Its clock minus ours in seconds, if it answered.
        problem: Why it is not live, in one line.
        state: ``live``, ``resting``, ``probing`` or ``down``; see docs/explanation/node-pool.md.
        average_latency_s: Exponentially weighted moving average of its latency in seconds; None if it never answered.
        failures: Failures in a row; 0 after a success.
        rests_for_s: Seconds for which it is still left alone, unless nothing better is there; 0 if it is not.
        requests: Requests that this client has sent it, attempts counted one by one.
        keygens: Key generations in which it was asked to take part.
        suspicion: How much speaks against it in signing, from 0 to 8; halves every minute. docs/reference/sign-message.md.
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
    suspicion: float = 0.0


@frozen(kw_only=True)
class NetworkHealth:
    """
    How the network is doing: one entry per node.

    Args:
        nodes: One entry for each node.
    """

    nodes: tuple[NodeHealth, ...]

    @property
    def live(self) -> int:
        """How many nodes answered."""
        return sum(node.is_live for node in self.nodes)


@runtime_checkable
class Network(Protocol):
    """A DAN network, reached through a gateway or node by node."""

    @property
    def default_threshold(self) -> Threshold:
        """Return t and n when the caller names none."""

    @property
    def default_eph_alg(self) -> KeyAlgorithm:
        """Return the ephemeral key's algorithm when the caller names none."""

    def check_keygen(self, request: KeygenRequest) -> None:
        """
        Check, without I/O, that this network can carry the request.

        Args:
            request: What is going to be asked for.

        Raises:
            ConfigurationError: It cannot; the error names the field.
        """

    async def keygen(self, request: KeygenRequest, auth: AuthModule, *, deadline: Deadline) -> KeygenReport:
        """
        Have the network make a distributed key.

        Args:
            request: The key that is asked for.
            auth: The owner, who authorises it.
            deadline: The job's deadline.

        Returns:
            The key, its id and the outcome of each node.

        Raises:
            ConfigurationError: The network cannot carry the request; nothing was sent.
            WalletError: The owner did not authorise; nothing was created.
            QuorumError: Fewer than t nodes agree.
            DeadlineExceededError: The deadline passed.
            DanError: Any other failure of the network, named.
        """

    async def add_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """
        Let another ephemeral key use a distributed key.

        Args:
            change: Which key, and the ephemeral key's claim.
            auth: The owner.
            deadline: The job's deadline.

        Returns:
            Who has confirmed, and who has not.

        Raises:
            ConfigurationError: The network cannot carry the request; nothing was sent.
            WalletError: The owner did not authorise it; nothing was changed.
            QuorumError: Too few nodes confirmed.
            DanError: Any other failure of the network, named.
        """

    async def revoke_ephemeral_key(
        self, change: EphemeralKeyChange, auth: AuthModule, *, deadline: Deadline
    ) -> EphemeralKeyReport:
        """
        End an ephemeral key's use of a distributed key; see ``add_ephemeral_key``.

        Args:
            change: Which key, and the ephemeral key.
            auth: The owner.
            deadline: The job's deadline.

        Returns:
            Who has confirmed, and who has not.

        Raises:
            DanError: As for ``add_ephemeral_key``.
        """

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
            DeadlineExceededError: The deadline passed.
            DanError: Any other failure of the network, named.
        """

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

    async def health(self, *, timeout_s: TimeSpan | None = None) -> NetworkHealth:
        """
        Ask every node how it is; never raises for a node that is down.

        Args:
            timeout_s: Seconds to wait for a node, or a ``timedelta``; the network's ``attempt_s`` if not given.

        Returns:
            One entry for each node.
        """

    async def aclose(self) -> None:
        """Close every connection. May be called twice."""


@frozen(kw_only=True)
class KeygenQuestion:
    """
    A key generation whose outcome is not known.

    Args:
        request_id: Its first request id.
        owner_id: Who owns the key: the EOA's address, or the passkey's credential id.
        threshold: t and n that were asked for.
        min_parties: The smallest n that was allowed; n if None.
        ephemeral_key: The ephemeral key it was for.
    """

    request_id: RequestId
    owner_id: str
    threshold: Threshold
    min_parties: int | None
    ephemeral_key: EphemeralKey


@frozen(kw_only=True)
class KeygenSettlement:
    """
    The outcome of a key generation, as far as the nodes know it.

    Args:
        report: The key, if there is one.
        is_certain: Whether that will not change; without a report: that there is none and never will be.
        outcomes: The outcome of each node.
    """

    report: KeygenReport | None
    is_certain: bool
    outcomes: tuple[NodeOutcome[Acknowledgement], ...] = ()


@runtime_checkable
class SettlesKeygen(Protocol):
    """A network that can be asked for the outcome of a key generation."""

    async def settle_keygen(self, question: KeygenQuestion, *, deadline: Deadline) -> KeygenSettlement:
        """
        Find out the outcome of a key generation, and see to it that it does not change any more.

        Args:
            question: Which one.
            deadline: The job's deadline.

        Returns:
            Whether there is a key, is none, or too few nodes have answered.

        Raises:
            ClientClosedError: The network was closed.
        """


class FinishKeygen(Protocol):
    """Has the owner sign an opened key generation, and the network carry it out; see ``Network.keygen``."""

    def __call__(self, auth: AuthModule, *, deadline: Deadline) -> Awaitable[KeygenReport]:
        """Begin it."""


@frozen(kw_only=True)
class OpenedKeygen:
    """
    A key generation that waits for its owner's signature. Nothing has been made.

    Args:
        challenge: The final challenge: 64 hex digits.
        typed_data: The EIP-712 form of the request, which the owner signs.
        expires_at: When the network stops waiting, in Unix seconds by this machine's clock.
        text: All that ``reopen_keygen`` needs beside the request. Nothing in it is secret.
        finish: Goes on with it. With the same signature it may be repeated: there is one key at most.
    """

    challenge: str
    typed_data: TypedData
    expires_at: int
    text: str
    finish: FinishKeygen


@runtime_checkable
class OpensKeygen(Protocol):
    """A network whose key generations can wait for the owner without a connection, and go on in another process."""

    async def open_keygen(self, request: KeygenRequest, *, deadline: Deadline) -> OpenedKeygen:
        """
        Go as far as the challenge.

        Args:
            request: The key that is asked for.
            deadline: The job's deadline.

        Returns:
            The typed data for the owner to sign, and the way to go on.

        Raises:
            ConfigurationError: The network cannot carry the request; nothing was sent.
            QuorumError: Too few nodes are ready.
            DeadlineExceededError: The deadline passed.
            DanError: Any other failure of the network, named.
        """

    def reopen_keygen(self, request: KeygenRequest, text: str) -> OpenedKeygen:
        """
        Take up a key generation that was opened before, without I/O.

        Args:
            request: The request it was opened for.
            text: Its ``OpenedKeygen.text``.

        Returns:
            The same as was returned then.

        Raises:
            ConfigurationError: The network lacks a node that takes part.
            ClientClosedError: The network was closed.
        """


#: Most that a clock is corrected by, in seconds.
_MOST_CORRECTION_S = 900.0

_UNITS = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}


@frozen(kw_only=True)
class ClockSkew:
    """
    How far this machine's clock is off, as t nodes agree.

    Args:
        seconds: The nodes' clocks minus this one.
        agreeing: How many nodes say so.
        asked: How many have said anything.
    """

    seconds: float
    agreeing: int
    asked: int

    @property
    def correction_s(self) -> float:
        """Return the seconds to add to this machine's clock: none if it is off by more than 15 minutes."""
        return self.seconds if abs(self.seconds) <= _MOST_CORRECTION_S else 0.0

    def __str__(self) -> str:
        off_s, where = abs(self.seconds), "behind" if self.seconds > 0 else "ahead of"
        unit = next(unit for unit, seconds in _UNITS.items() if off_s >= 2 * seconds or seconds == 1)
        number = f"{off_s / _UNITS[unit]:.0f} {unit}"
        return f"This machine's clock is {number} {where} {self.agreeing} of {self.asked} nodes; set it"


@runtime_checkable
class MeasuresClock(Protocol):
    """A network whose nodes tell the time."""

    def clock_skew(self, t: int) -> ClockSkew | None:
        """
        Return how far this machine's clock is off, as far as it is known; without asking anybody.

        Args:
            t: How many nodes must agree.

        Returns:
            The skew; None if it is small, or t nodes have not said the same.
        """

    def is_time_known(self) -> bool:
        """
        Return whether the nodes have told the time, which their first answers do; without asking anybody.

        Returns:
            Whether as many have as the network's usual t, and this machine's clock has not jumped since.
        """


def known_skew(network: Network, t: int | None) -> ClockSkew | None:
    """Return how far this machine's clock is off, as far as t nodes have said so far; the network's usual t if None."""
    # Not isinstance(): for a network that is no MeasuresClock that takes 15 µs, of every call.
    measure: Callable[[int], ClockSkew | None] | None = getattr(network, "clock_skew", None)
    return None if measure is None else measure(t or network.default_threshold.t)


def network_time(network: Network, clock: Clock, t: int | None) -> float:
    """Return the time in Unix seconds, corrected by ``known_skew``."""
    skew = known_skew(network, t)
    return clock() + (0.0 if skew is None else skew.correction_s)


@runtime_checkable
class NetworkSource(Protocol):
    """A source of a network, such as a devnet; a client opens it and closes it again."""

    async def open_network(self) -> Network:
        """
        Start it if need be, and return its network.

        Returns:
            The network, open.
        """

    async def close_network(self) -> None:
        """Stop what ``open_network`` started."""

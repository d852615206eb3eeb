"""What every part of one node is given: who the node is, its limits, its threads, its faults, its store and its clock."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import IntEnum
from functools import partial
from pathlib import Path
from queue import Empty, PriorityQueue
from typing import Any, NoReturn, Self, TypeVar

from attrs import define, field, frozen
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dan_async._values import check_int, check_rate, check_seconds, from_hex, in_seconds, required
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import ORDER
from dan_async.crypto.signature import sign_digest, signing_key
from dan_async.devnet.faults.in_force import NodeFaults
from dan_async.devnet.share_store import BanList, ShareStore, replace_file
from dan_async.protocols.node import Claims, SignedClaims
from dan_async.types import Clock, OperatorAddress

T = TypeVar("T")
S = TypeVar("S", bound=SignedClaims[Any])

_STORAGE_INFO = b"dan-devnet share store key"


class NodeIdentity:
    """Who a node is: a secp256k1 key whose Ethereum address is the node's operator address."""

    __slots__ = ("_key", "operator")

    def __init__(self, secret: bytes) -> None:
        self._key = signing_key(secret)
        self.operator = OperatorAddress(public_key_to_address(self._key.public_key.format()))

    @classmethod
    def generate(cls) -> Self:
        return cls((1 + secrets.randbelow(ORDER - 1)).to_bytes(32, "big"))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read a private key: 64 hex digits, no 0x."""
        return cls(from_hex(text, field="identity", length=32, prefix=False))

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read the identity in a file of mode 0600, or make one and keep it there. Who can read the file is the node."""
        try:
            text = path.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            identity = cls.generate()
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, identity.to_hex().encode() + b"\n")
            return identity
        return cls.from_hex(text.strip())

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest: 65 bytes r, s, v."""
        return sign_digest(self._key, digest)

    def storage_key(self) -> bytes:
        """Derive the key that encrypts this node's records (HKDF-SHA256)."""
        return HKDF(SHA256(), 32, salt=None, info=_STORAGE_INFO).derive(self._key.secret)

    def to_hex(self) -> str:
        """Return the private key as 64 hex digits, for the node's own process or file and for nobody else."""
        return self._key.secret.hex()

    def __repr__(self) -> str:
        return f"NodeIdentity(operator={self.operator!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a node's identity is not pickled: it would carry the private key")


def _count(default: int, *, most: int = 2**31 - 1) -> Any:
    return field(default=default, validator=required(check_int, least=1, most=most))


def _seconds(default: float) -> Any:
    return field(default=default, converter=in_seconds, validator=required(check_seconds))


@frozen(kw_only=True)
class NodeLimits:
    """
    Limits of one devnet node. What is beyond them is refused with an error code, never queued without bound.

    Args:
        max_request_bytes: Longest request. One of up to twice that length is answered with ``TOO_LARGE``; anything
            longer closes the connection.
        max_in_flight: Requests being worked on per connection.
        max_in_flight_bytes: Their length together: while it is more, nothing further is read from the connection. All
            bodies of POST requests together may be eight times as long.
        max_connections: Client connections at a time, and as many of peers.
        requests_per_s: Requests per second from one address, on average.
        request_burst: Requests from one address at once.
        max_keygens: Key generations running at a time.
        max_nonces: Used nonces remembered at a time; beyond them, nothing is begun that needs one, but revocations.
        max_settled: Settled key generations remembered at a time, for an hour each; a quarter of them for one address.
        nonce_lifetime_s: How long a nonce may be used, in seconds; a person may be reading a wallet prompt meanwhile.
        round_s: How long one round of the distributed key generation waits for the slowest peer, in seconds.
        sign_round_s: The same for one round of making a presignature, and for the set-up of a pair.
        sign_quiet_s: How long a peer may give no sign of life in these, in seconds: a busy peer gives them, and has a
            round's time; one that is gone does not.
        max_presigns: Presignatures being made at a time.
        max_presignatures: Presignatures kept ready at a time, and as many being made, for one ephemeral key.
        presignature_lifetime_s: How long a presignature is kept, in seconds.
        max_signs: Requests for signatures being worked on at a time.
        stop_grace_s: How long a stopping node waits for what it is working on, in seconds.
        handshake_s: How long opening one link between nodes may take, in seconds.
        max_peer_frame_bytes: Longest message from another node.
        max_peer_queue_bytes: What may wait to be sent to one node, or wait for a session that has not begun here, in
            bytes for each node.
        early_message_s: How long a peer's message for a session that has not begun here is kept, in seconds.

    Raises:
        InvalidFieldError: A number is out of range.
    """

    max_request_bytes: int = _count(1024 * 1024, most=64 * 1024 * 1024)
    max_in_flight: int = _count(1024)
    max_in_flight_bytes: int = _count(8 * 1024 * 1024)
    max_connections: int = _count(1024)
    requests_per_s: float = field(default=5000.0, validator=required(check_rate))
    request_burst: int = _count(10_000)
    max_keygens: int = _count(256)
    max_nonces: int = _count(65_536)
    max_settled: int = _count(65_536)
    nonce_lifetime_s: float = _seconds(300.0)
    round_s: float = _seconds(10.0)
    sign_round_s: float = _seconds(15.0)
    sign_quiet_s: float = _seconds(2.5)
    max_presigns: int = _count(1024)
    max_presignatures: int = _count(256)
    presignature_lifetime_s: float = _seconds(60.0)
    max_signs: int = _count(1024)
    stop_grace_s: float = _seconds(1.0)
    handshake_s: float = _seconds(5.0)
    max_peer_frame_bytes: int = _count(1024 * 1024, most=64 * 1024 * 1024)
    max_peer_queue_bytes: int = _count(16 * 1024 * 1024)
    early_message_s: float = _seconds(20.0)


@define(eq=False, repr=False)
class RateLimit:
    """Allows so many requests per second and address, and short bursts."""

    _per_s: float
    _burst: int
    _clock: Callable[[], float] = field(kw_only=True)
    _max_addresses: int = field(default=4096, kw_only=True)
    _buckets: OrderedDict[str, tuple[float, float]] = field(factory=OrderedDict, init=False)

    def take(self, address: str) -> float:
        """Take one token; return 0.0 if there was one, else the seconds until there is."""
        now = self._clock()
        level, at = self._buckets.pop(address, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._per_s)
        allowed = level >= 1.0
        self._buckets[address] = (level - 1.0 if allowed else level, now)
        if len(self._buckets) > self._max_addresses:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - level) / self._per_s


class Urgency(IntEnum):
    """Which computation comes first: work under way before new work, so that a busy node finishes what it began."""

    NEW = 0
    UNDER_WAY = 1
    AWAITED = 2


class _Arithmetic:
    """One thread that takes the most urgent task, and of those the first. It starts with its first task."""

    def __init__(self) -> None:
        #: Tasks by their urgency and number; the last has no work.
        self._waiting: PriorityQueue[tuple[int, int, Future[Any], Callable[[], Any] | None]] = PriorityQueue()
        self._numbers = itertools.count()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def submit(self, urgency: Urgency, function: Callable[..., T], *arguments: Any) -> Future[T]:
        if self._is_closed:
            raise RuntimeError("the workers are closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dan-devnet-arithmetic", daemon=True)
            self._thread.start()
        future: Future[Any] = Future()
        self._waiting.put((-urgency, next(self._numbers), future, partial(function, *arguments)))
        return future

    def shutdown(self) -> None:
        self._is_closed = True
        with suppress(Empty):
            while True:
                self._waiting.get_nowait()[2].cancel()
        self._waiting.put((0, next(self._numbers), Future(), None))
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            _, _, future, work = self._waiting.get()
            if work is None:
                return
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:  # noqa: BLE001 - it goes to the caller that waits
                    future.set_exception(error)
            del future, work  # neither what was computed nor what it was computed from outlives it here


class Workers:
    """Two threads: one for arithmetic, one for the disk."""

    # One for arithmetic is the best number, not the least: Python code in several threads fights the event loop for the
    # interpreter lock, and with two the loop stalls longer while fewer keys get done.

    def __init__(self) -> None:
        self._arithmetic = _Arithmetic()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="dan-devnet-disk")

    async def compute(
        self, function: Callable[..., T], *arguments: Any, urgency: Urgency = Urgency.UNDER_WAY
    ) -> T:
        """Run a computation off the event loop, when nothing more urgent is waiting."""
        return await asyncio.wrap_future(self._arithmetic.submit(urgency, function, *arguments))

    async def use_disk(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function, *arguments)

    def close(self) -> None:
        """Drop what has not begun, and wait for what has: a few milliseconds."""
        self._arithmetic.shutdown()
        self._disk.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@frozen(kw_only=True, eq=False)
class NodeContext:
    """One node, as each of its parts sees it. The workers are its runner's."""

    identity: NodeIdentity
    limits: NodeLimits = field(repr=False)
    workers: Workers
    faults: NodeFaults
    store: ShareStore
    bans: BanList
    clock: Clock
    #: Called when a fault kills the node, with the seconds until it is to come back, if it is.
    on_crash: Callable[[float | None], None]

    def signed(self, kind: type[S], claims: Claims, participants: Sequence[OperatorAddress]) -> S:
        """Make claims as one of these participants, and sign them."""
        operator, sign = self.identity.operator, self.identity.sign
        return kind.make(claims, operator=operator, party_index=participants.index(operator) + 1, sign=sign)

"""What a node remembers of requests: the nonces it gave out for them, and what came of each. Work is done once a request."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import frozen

from dan_async.crypto.hashes import tagged_hash
from dan_async.deadline import cancel_and_wait
from dan_async.devnet.context import NodeContext
from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.node.rpc import RefusalError, rate_limited
from dan_async.errors import NodeCode
from dan_async.protocols.node import (
    CHANGES,
    METHODS,
    REGISTER_PASSKEY,
    SIGN,
    SIGNGEN,
    ChallengeParams,
    ChallengeResult,
)
from dan_async.types import Clock, RequestId

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MOST_ENDED = 16_384

#: Lengths in a nonce: its first half, and in that the second in which it ends.
_HEAD_BYTES, _EXPIRY_BYTES = 16, 5

#: Operations that are about no key that exists, and those that are about one.
_WITHOUT_KEY = frozenset({"keygen", REGISTER_PASSKEY})
_WITH_KEY = frozenset({*CHANGES, SIGNGEN})
#: The RPC method that carries out an operation.
_METHODS = {**METHODS, SIGNGEN: SIGN}


class NonceStore:
    """
    The nonces that one node gives out: each for one request, once, and not for long. A restart ends them all.

    A nonce says when it ends, and a keyed hash in it binds that to its request, operation and setup. So only used ones have
    to be remembered, for twice as long as one lives, and no flood of challenges keeps anybody from having a nonce. When too
    many were used, new work is refused, but no revocation: to carry one out twice does no harm.
    """

    def __init__(self, context: NodeContext, ring: KeyRing) -> None:
        self._clock = context.clock
        self._lifetime_s = context.limits.nonce_lifetime_s
        self._capacity = context.limits.max_nonces
        self._faults = context.faults
        self._ring = ring
        self._key = secrets.token_bytes(32)
        #: Until when each is remembered, the earliest first.
        self._used: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._used)

    def issue(self, params: ChallengeParams) -> ChallengeResult:
        if params.operation not in _WITHOUT_KEY | _WITH_KEY:
            known = ", ".join(sorted(_WITHOUT_KEY | _WITH_KEY))
            raise RefusalError(NodeCode.UNSUPPORTED, f"operation must be one of {known}")
        if params.key_id is not None:
            self._ring.get(params.key_id)
        self._check_room(params.operation)
        expires_at = int(self._clock() + self._lifetime_s)
        head = expires_at.to_bytes(_EXPIRY_BYTES, "big") + secrets.token_bytes(_HEAD_BYTES - _EXPIRY_BYTES)
        tag = self._tag(head, params.request_id, params.operation, params.setup_hash)
        return ChallengeResult(nonce=head + tag, expires_at=expires_at)

    @contextmanager
    def spending(
        self, nonce: bytes | None, request_id: RequestId, operation: str, setup_hash: bytes
    ) -> Iterator[None]:
        """Check a nonce first, and use it up only if the body succeeds. A one-shot request has none."""
        if nonce is None:
            yield
            return
        self._check(nonce, request_id, operation, setup_hash)
        if self._faults.expires_nonce(_METHODS.get(operation, "")):
            raise _expired()
        self._check_room(operation)
        yield
        self._check(nonce, request_id, operation, setup_hash)
        if len(self._used) < self._capacity:
            self._used[nonce] = self._clock() + 2 * self._lifetime_s

    def _tag(self, head: bytes, request_id: RequestId, operation: str, setup_hash: bytes) -> bytes:
        """Bind the first half of a nonce to its purpose: 16 bytes, the other half."""
        purpose = tagged_hash("dan-devnet nonce", head, request_id, operation.encode(), setup_hash)
        return hmac.digest(self._key, purpose, "sha256")[:_HEAD_BYTES]

    def _check(self, nonce: bytes, request_id: RequestId, operation: str, setup_hash: bytes) -> None:
        head, tag = nonce[:_HEAD_BYTES], nonce[_HEAD_BYTES:]
        if not hmac.compare_digest(tag, self._tag(head, request_id, operation, setup_hash)):
            problem = "the nonce was not given out by this node for this request, operation and setup"
            raise RefusalError(NodeCode.CHALLENGE_MISMATCH, problem)
        if nonce in self._used:
            raise RefusalError(NodeCode.CHALLENGE_REUSED, "the nonce was used before")
        if self._clock() >= int.from_bytes(head[:_EXPIRY_BYTES], "big"):
            raise _expired()

    def _check_room(self, operation: str) -> None:
        now = self._clock()
        while self._used and next(iter(self._used.values())) <= now:
            del self._used[next(iter(self._used))]
        if len(self._used) >= self._capacity and operation != "revokeEphemeralKey":
            raise rate_limited("too many nonces were used", next(iter(self._used.values())) - now)


def _expired() -> RefusalError:
    return RefusalError(NodeCode.CHALLENGE_EXPIRED, "the nonce has expired")


@frozen
class _Run(Generic[T]):
    content: bytes
    task: asyncio.Task[T]


class Remembered(Generic[K, V]):
    """The last *most* values that were put in, each for *keep_s* seconds."""

    def __init__(self, *, most: int, keep_s: float, clock: Clock) -> None:
        self._most = most
        self._keep_s = keep_s
        self._clock = clock
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()  # oldest first

    def get(self, key: K) -> V | None:
        value, forget_at = self._entries.get(key, (None, 0.0))
        return value if self._clock() < forget_at else None

    def put(self, key: K, value: V) -> None:
        now = self._clock()
        self._entries.pop(key, None)
        self._entries[key] = value, now + self._keep_s
        while len(self._entries) > self._most or next(iter(self._entries.values()))[1] <= now:
            self._entries.popitem(last=False)


@frozen
class _Ended(Generic[T]):
    content: bytes
    result: T | RefusalError


class RequestRuns(Generic[T]):
    """The requests of one method: the work of each is done once, and repeats of it get the same result."""

    def __init__(self, context: NodeContext, name: str, *, most: int) -> None:
        self._name = name  # in the plural
        self._most = most
        self._running: dict[Hashable, _Run[T]] = {}
        # For as long as a client may wonder what became of a request whose nonce is spent.
        keep_s = context.limits.nonce_lifetime_s
        self._ended = Remembered[Hashable, _Ended[T]](most=_MOST_ENDED, keep_s=keep_s, clock=context.clock)

    async def run(self, request: Hashable, content: bytes, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """
        Do the work of a request, or wait for it, or return its result again; *content* is a hash of all of the request.

        *begin* checks the request without waiting for anything, and a refusal there costs nothing. The work that it returns
        belongs to the node: it goes on when the caller is gone, since other nodes may count on it.
        """
        result = self._known(request, content)
        if result is not None:
            return result
        run = self._running.get(request)
        if run is None:
            run = self.begin(request, content, begin)
        check_same(run.content, content)
        return await result_of(run.task)

    def run_at_once(self, request: Hashable, content: bytes, work: Callable[[], T]) -> T:
        """Do as ``run`` where the work waits for nothing, and so needs no task. Every refusal of it is remembered."""
        result = self._known(request, content)
        if result is None:
            run = self._running.get(request)
            if run is not None:
                check_same(run.content, content)
            try:
                result = work()
            except RefusalError as refusal:
                self._ended.put(request, _Ended(content, refusal.bare()))
                raise
            self._ended.put(request, _Ended(content, result))
        return result

    def _known(self, request: Hashable, content: bytes) -> T | None:
        """Return the result of work that has ended, or raise its refusal; None for a request that is to be worked on."""
        ended = self._ended.get(request)
        if ended is None:
            return None
        if not isinstance(ended.result, RefusalError):
            check_same(ended.content, content)
            return ended.result
        if ended.content == content:
            raise ended.result.bare()
        return None

    def knows(self, request: Hashable) -> bool:
        """Return whether the work of a request is under way, or has ended not long ago."""
        return request in self._running or self._ended.get(request) is not None

    def check_room(self, count: int) -> None:
        """Refuse *count* more requests if they are too many."""
        if len(self._running) + count > self._most:
            raise rate_limited(f"too many {self._name} are running", 1.0)

    async def wait_for(self, request: Hashable) -> None:
        """Wait until the work of a request has ended, if it is under way."""
        run = self._running.get(request)
        if run is not None:
            await asyncio.wait([run.task])

    async def aclose(self) -> None:
        await cancel_and_wait([run.task for run in self._running.values()])

    def begin(
        self, request: Hashable, content: bytes, begin: Callable[[], Coroutine[Any, Any, T]]
    ) -> _Run[T]:
        """Begin the work of a request that is not known."""
        self.check_room(1)
        named = request[0] if isinstance(request, tuple) else request
        task = asyncio.create_task(begin(), name=f"{self._name} {named}")
        run = self._running[request] = _Run(content, task)
        task.add_done_callback(partial(self._end, request, content))
        return run

    def _end(self, request: Hashable, content: bytes, task: asyncio.Task[T]) -> None:
        del self._running[request]
        if task.cancelled():
            return
        error = task.exception()
        result: T | RefusalError
        if error is None:
            result = task.result()
        elif isinstance(error, RefusalError):
            if error.code == NodeCode.RATE_LIMITED:
                return  # the same request may come again later
            result = error.bare()
        else:
            result = RefusalError(NodeCode.INTERNAL_ERROR, "the node has failed")
        self._ended.put(request, _Ended(content, result))


async def result_of(task: asyncio.Task[T]) -> T:
    """Wait for work of the node's own, which goes on when the caller is gone."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise RefusalError(NodeCode.UNAVAILABLE, "the node is stopping") from None
        raise


def check_same(known: bytes, content: bytes) -> None:
    if known != content:
        raise RefusalError(NodeCode.REQUEST_CONFLICT, "the request id is known with other content")

"""What a node remembers of requests: the nonces it gave out for them, and what came of each. Work is done once a request."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define, frozen

from dan_async.deadline import cancel_and_wait
from dan_async.devnet.context import NodeContext
from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.node.rpc import RefusalError, rate_limited
from dan_async.errors import NodeCode
from dan_async.protocols.fields import encode
from dan_async.protocols.node import CHANGES, METHODS, REGISTER_PASSKEY, ChallengeParams, ChallengeResult
from dan_async.protocols.node_signing import OPERATION as SIGNGEN
from dan_async.protocols.node_signing import SIGN
from dan_async.types import Clock, RequestId

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MOST_ENDED = 16_384

#: Operations that are about no key that exists, and those that are about one.
_WITHOUT_KEY = frozenset({"keygen", REGISTER_PASSKEY})
_WITH_KEY = frozenset({*CHANGES, SIGNGEN})
#: The RPC method that carries out an operation.
_METHODS = {**METHODS, SIGNGEN: SIGN}


@frozen
class _Purpose:
    request_id: RequestId
    operation: str
    setup_hash: bytes


@define
class _Nonce:
    purpose: _Purpose
    expires_at: int
    is_used: bool = False


class NonceStore:
    """
    The nonces that one node gives out: each for one request, once, and not for long. A restart forgets them.

    One is remembered for as long again as it may be used, so that a late or repeated one gets its own error. A full store
    refuses new ones: a flood of challenges must not push out the nonce of an owner who is looking at the wallet prompt.
    """

    def __init__(
        self, context: NodeContext, ring: KeyRing, *, entropy: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._clock = context.clock
        self._lifetime_s = context.limits.nonce_lifetime_s
        self._capacity = context.limits.max_nonces
        self._faults = context.faults
        self._ring = ring
        self._entropy = entropy
        self._nonces: dict[bytes, _Nonce] = {}  # oldest first, since all live equally long

    def __len__(self) -> int:
        return len(self._nonces)

    def issue(self, params: ChallengeParams) -> ChallengeResult:
        if params.operation not in _WITHOUT_KEY | _WITH_KEY:
            known = ", ".join(sorted(_WITHOUT_KEY | _WITH_KEY))
            raise RefusalError(NodeCode.UNSUPPORTED, f"operation must be one of {known}")
        if params.key_id is not None:
            self._ring.get(params.key_id)
        now = self._clock()
        self._forget(now)
        if len(self._nonces) >= self._capacity:
            oldest = next(iter(self._nonces.values()))
            wait_s = oldest.expires_at + self._lifetime_s - now
            raise rate_limited("too many challenges are outstanding", wait_s)
        nonce = self._entropy(32)
        expires_at = int(now + self._lifetime_s)
        purpose = _Purpose(params.request_id, params.operation, params.setup_hash)
        self._nonces[nonce] = _Nonce(purpose, expires_at)
        return ChallengeResult(nonce=nonce, expires_at=expires_at)

    @contextmanager
    def spending(
        self, nonce: bytes | None, request_id: RequestId, operation: str, setup_hash: bytes
    ) -> Iterator[None]:
        """Check a nonce first, and use it up only if the body succeeds. A one-shot request has none."""
        if nonce is None:
            yield
            return
        purpose = _Purpose(request_id, operation, setup_hash)
        self._find(nonce, purpose)
        if self._faults.expires_nonce(_METHODS.get(operation, "")):
            raise _expired()
        yield
        self._find(nonce, purpose).is_used = True

    def _find(self, nonce: bytes, purpose: _Purpose) -> _Nonce:
        found = self._nonces.get(nonce)
        if found is None:
            raise RefusalError(NodeCode.CHALLENGE_MISMATCH, "the nonce was not given out by this node")
        if found.purpose != purpose:
            problem = "the nonce was given out for another request, operation or setup"
            raise RefusalError(NodeCode.CHALLENGE_MISMATCH, problem)
        if found.is_used:
            raise RefusalError(NodeCode.CHALLENGE_REUSED, "the nonce was used before")
        if self._clock() >= found.expires_at:
            raise _expired()
        return found

    def _forget(self, now: float) -> None:
        while self._nonces:
            nonce, oldest = next(iter(self._nonces.items()))
            if now < oldest.expires_at + self._lifetime_s:
                return
            del self._nonces[nonce]


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
        ended = self._ended.get(request)
        if ended is not None and ended.content == content:
            if isinstance(ended.result, RefusalError):
                raise ended.result.bare()
            return ended.result
        if ended is not None and not isinstance(ended.result, RefusalError):
            check_same(ended.content, content)
        run = self._running.get(request)
        if run is None:
            run = self._begin(request, content, begin)
        check_same(run.content, content)
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            if run.task.cancelled():
                raise RefusalError(NodeCode.UNAVAILABLE, "the node is stopping") from None
            raise

    async def wait_for(self, request: Hashable) -> None:
        """Wait until the work of a request has ended, if it is under way."""
        run = self._running.get(request)
        if run is not None:
            await asyncio.wait([run.task])

    async def aclose(self) -> None:
        await cancel_and_wait([run.task for run in self._running.values()])

    def _begin(
        self, request: Hashable, content: bytes, begin: Callable[[], Coroutine[Any, Any, T]]
    ) -> _Run[T]:
        if len(self._running) >= self._most:
            raise rate_limited(f"too many {self._name} are running", 1.0)
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


def content_hash(params: object, *, operation: str = "") -> bytes:
    """Hash all of a request, which tells it from another under its id."""
    return hashlib.sha256(operation.encode() + encode(params).encode()).digest()


def check_same(known: bytes, content: bytes) -> None:
    if known != content:
        raise RefusalError(NodeCode.REQUEST_CONFLICT, "the request id is known with other content")

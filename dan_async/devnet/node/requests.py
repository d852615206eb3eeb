"""
Where a node gives out nonces and takes them back, with the error codes of dan-node/1.

Nonces that a node gives out: each for one request, once, and not for long.

Work that is done once for each request, however often the request comes: who repeats it waits for the same result.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import define, frozen

from dan_async.deadline import cancel_and_wait
from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.node.rpc import RefusalError, rate_limited
from dan_async.errors import DanError, NodeCode
from dan_async.protocols.node import CHANGES, METHODS, REGISTER_PASSKEY, ChallengeParams, ChallengeResult
from dan_async.protocols.node_signing import OPERATION as SIGNGEN
from dan_async.protocols.node_signing import SIGN
from dan_async.types import Clock, RequestId


class NonceError(DanError):
    """A nonce that does not count."""


class UnknownNonceError(NonceError):
    """This node never gave it out, or so long ago that it has forgotten."""


class MismatchedNonceError(NonceError):
    """It was given out for another request, operation or setup."""


class ExpiredNonceError(NonceError):
    """Its time has passed."""


class UsedNonceError(NonceError):
    """It was used before."""


class NonceBookFullError(DanError):
    """
    Too many nonces are outstanding.

    Args:
        retry_after: Seconds until the oldest is forgotten.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("too many challenges are outstanding")
        self.retry_after = retry_after


@frozen
class _Purpose:
    request_id: RequestId
    operation: str
    setup_hash: bytes


@define
class _Entry:
    purpose: _Purpose
    expires_at: int
    is_used: bool = False


class NonceBook:
    """
    The nonces of one node, in memory: a restart forgets them, and what was forgotten is refused.

    A nonce is remembered for as long again as it may be used, so that a late or repeated one gets its own error.

    Args:
        clock: The wall clock.
        lifetime_s: How long a nonce may be used, in seconds.
        capacity: How many are remembered. A full book refuses new ones: making room by dropping old ones would let a
            flood of challenges push out the nonce of a request whose owner is looking at the wallet prompt.
        entropy: Gives random bytes.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        lifetime_s: float,
        capacity: int,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._capacity = capacity
        self._entropy = entropy
        self._entries: dict[bytes, _Entry] = {}  # oldest first, since all live equally long

    def __len__(self) -> int:
        return len(self._entries)

    def issue(self, request_id: RequestId, operation: str, setup_hash: bytes) -> ChallengeResult:
        """
        Give out a nonce for one request.

        Raises:
            NonceBookFullError: Too many are remembered.
        """
        now = self._clock()
        self._forget(now)
        if len(self._entries) >= self._capacity:
            oldest = next(iter(self._entries.values()))
            raise NonceBookFullError(oldest.expires_at + self._lifetime_s - now)
        nonce = self._entropy(32)
        expires_at = int(now + self._lifetime_s)
        self._entries[nonce] = _Entry(_Purpose(request_id, operation, setup_hash), expires_at)
        return ChallengeResult(nonce=nonce, expires_at=expires_at)

    def check(self, nonce: bytes, request_id: RequestId, operation: str, setup_hash: bytes) -> None:
        """
        See whether a nonce may be used for this.

        Raises:
            UnknownNonceError: It is not in the book.
            MismatchedNonceError: It is for something else.
            UsedNonceError: It was used.
            ExpiredNonceError: It is too old.
        """
        self._usable(nonce, _Purpose(request_id, operation, setup_hash))

    def use(self, nonce: bytes, request_id: RequestId, operation: str, setup_hash: bytes) -> None:
        """Use a nonce up; raises as ``check`` does."""
        self._usable(nonce, _Purpose(request_id, operation, setup_hash)).is_used = True

    def _usable(self, nonce: bytes, purpose: _Purpose) -> _Entry:
        entry = self._entries.get(nonce)
        if entry is None:
            raise UnknownNonceError("the nonce was not given out by this node")
        if entry.purpose != purpose:
            raise MismatchedNonceError("the nonce was given out for another request, operation or setup")
        if entry.is_used:
            raise UsedNonceError("the nonce was used before")
        if self._clock() >= entry.expires_at:
            raise ExpiredNonceError("the nonce has expired")
        return entry

    def _forget(self, now: float) -> None:
        while self._entries:
            nonce, entry = next(iter(self._entries.items()))
            if now < entry.expires_at + self._lifetime_s:
                return
            del self._entries[nonce]


#: Operations that are about no key that exists, and those that are about one.
_WITHOUT_KEY = frozenset({"keygen", REGISTER_PASSKEY})

_WITH_KEY = frozenset({*CHANGES, SIGNGEN})

#: The RPC method that carries out an operation.
_METHODS = {**METHODS, SIGNGEN: SIGN}


class NonceDesk:
    """
    The nonces of one node.

    Args:
        book: Remembers them.
        ring: The keys that the node holds.
        is_expired: Tells for an RPC method whether, by a fault, a nonce counts as expired.
    """

    def __init__(
        self, book: NonceBook, ring: KeyRing, *, is_expired: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._book = book
        self._ring = ring
        self._is_expired = is_expired

    def issue(self, params: ChallengeParams) -> ChallengeResult:
        """
        Give out a nonce.

        Raises:
            RefusalError: ``UNSUPPORTED`` for another operation, ``UNKNOWN_KEY`` for a key that this node does not hold,
                ``RATE_LIMITED`` if too many are outstanding.
        """
        if params.operation not in _WITHOUT_KEY | _WITH_KEY:
            known = ", ".join(sorted(_WITHOUT_KEY | _WITH_KEY))
            raise RefusalError(NodeCode.UNSUPPORTED, f"operation must be one of {known}")
        if params.key_id is not None and self._ring.by_key(params.key_id) is None:
            raise RefusalError(NodeCode.UNKNOWN_KEY, "this node holds no such key")
        try:
            return self._book.issue(params.request_id, params.operation, params.setup_hash)
        except NonceBookFullError as error:
            raise rate_limited(error.message, error.retry_after) from error

    @contextmanager
    def spending(
        self, nonce: bytes | None, request_id: RequestId, operation: str, setup_hash: bytes
    ) -> Iterator[None]:
        """
        Check the nonce first, and use it up only if what is inside succeeds: a refused request costs it nothing.

        Args:
            nonce: The nonce; None for a one-shot request, which has none.
            request_id: The request.
            operation: Its operation.
            setup_hash: Its setup's hash.

        Raises:
            RefusalError: ``CHALLENGE_MISMATCH``, ``CHALLENGE_EXPIRED`` or ``CHALLENGE_REUSED``.
        """
        if nonce is None:
            yield
            return
        try:
            self._book.check(nonce, request_id, operation, setup_hash)
            if self._is_expired(_METHODS.get(operation, "")):
                raise ExpiredNonceError("the nonce has expired")
            yield
            self._book.use(nonce, request_id, operation, setup_hash)
        except NonceError as error:
            raise _refusal(error) from error


def _refusal(error: NonceError) -> RefusalError:
    if isinstance(error, UsedNonceError):
        return RefusalError(NodeCode.CHALLENGE_REUSED, error.message)
    if isinstance(error, ExpiredNonceError):
        return RefusalError(NodeCode.CHALLENGE_EXPIRED, error.message)
    return RefusalError(NodeCode.CHALLENGE_MISMATCH, error.message)


T = TypeVar("T")

_MOST_ENDED = 16_384


@frozen
class _Run(Generic[T]):
    content: bytes
    task: asyncio.Task[T]


@frozen
class _Ended(Generic[T]):
    content: bytes
    result: T | RefusalError
    forget_at: float


class RequestRuns(Generic[T]):
    """
    The requests of one method.

    Args:
        name: What the work is, in the plural.
        task_name: What its tasks are called, before the request's id.
        most: How many may run at a time.
        keep_s: How long what came of a request is remembered, in seconds.
        clock: The wall clock.
    """

    def __init__(self, name: str, *, task_name: str, most: int, keep_s: float, clock: Clock) -> None:
        self._name = name
        self._task_name = task_name
        self._most = most
        self._keep_s = keep_s
        self._clock = clock
        self._running: dict[Hashable, _Run[T]] = {}
        self._ended: OrderedDict[Hashable, _Ended[T]] = OrderedDict()  # oldest first

    async def run(self, request: Hashable, content: bytes, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """
        Do the work of a request, or wait for it, or say again what came of it.

        The work belongs to the node, not to the caller: it goes on when the caller is gone, since other nodes may
        count on it.

        Args:
            request: What tells it from all others.
            content: Hash of all of it.
            begin: Checks the request without waiting for anything, and gives the work. What it refuses costs nothing:
                the same request may come again.

        Raises:
            RefusalError: ``REQUEST_CONFLICT``, ``RATE_LIMITED``, ``UNAVAILABLE``, or what the work or *begin* raises.
        """
        ended = self._remembered(request)
        if ended is not None and ended.content == content:
            if isinstance(ended.result, RefusalError):
                raise RefusalError(ended.result.code, ended.result.message, data=ended.result.data)
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
        """Give up what is running, and wait until it has ended."""
        await cancel_and_wait([run.task for run in self._running.values()])

    def _begin(
        self, request: Hashable, content: bytes, begin: Callable[[], Coroutine[Any, Any, T]]
    ) -> _Run[T]:
        if len(self._running) >= self._most:
            raise rate_limited(f"too many {self._name} are running", 1.0)
        named = request[0] if isinstance(request, tuple) else request
        task = asyncio.create_task(begin(), name=f"{self._task_name} {named}")
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
                return  # whoever was told to come back later may
            result = error
        else:
            result = RefusalError(NodeCode.INTERNAL_ERROR, "the node has failed")
        self._ended.pop(request, None)
        self._ended[request] = _Ended(content, result, self._clock() + self._keep_s)
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    def _remembered(self, request: Hashable) -> _Ended[T] | None:
        now = self._clock()
        while self._ended:
            oldest, ended = next(iter(self._ended.items()))
            if now < ended.forget_at:
                break
            del self._ended[oldest]
        return self._ended.get(request)


def check_same(known: bytes, content: bytes) -> None:
    """
    Check that a request is the one known under its id.

    Raises:
        RefusalError: ``REQUEST_CONFLICT``: it is not.
    """
    if known != content:
        raise RefusalError(NodeCode.REQUEST_CONFLICT, "the request id is known with other content")

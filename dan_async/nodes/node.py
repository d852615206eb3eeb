"""One node as the client sees it: its pinned identity, its connection, its health."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from dan_async._values import setting
from dan_async.config import NodeEndpoint, Timeouts, TransportOptions, redact_url
from dan_async.crypto.address import has_address_form
from dan_async.crypto.signature import signer_of
from dan_async.deadline import Deadline, cancel_and_wait
from dan_async.errors import (
    NODE_FAILURES,
    TIME_CODES,
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    DanError,
    FailureKind,
    NodeCode,
    NodeError,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnreachableError,
    ProtocolError,
    RateLimitedError,
    RequestTimeoutError,
    RpcError,
)
from dan_async.listeners import Attempts, EventHub
from dan_async.nodes.health import Asked, HealthRecord, NetworkClock, NodeUpDown, RestPolicy
from dan_async.protocols.fields import encode
from dan_async.protocols.node import KEYGEN_BATCH, IdentifyParams, Identity, identity_digest
from dan_async.retry import RetryPolicy, Tries
from dan_async.transport.http import HttpTransport
from dan_async.transport.rpc import Transport
from dan_async.transport.websocket import Call, Connection, WebSocketTransport
from dan_async.types import Json, OperatorAddress, RequestId

_log = logging.getLogger(__name__)

T = TypeVar("T")

#: Methods whose time says nothing about one node: what nodes do together takes as long as the slowest of them.
_COLLECTIVE = frozenset({"dan_keygen", KEYGEN_BATCH, "dan_presign"})


@frozen(eq=False, repr=False)
class Request(Generic[T]):
    """A request of dan-node/1, the same for every node that it is sent to."""

    method: str
    params: str = field(repr=False)  # JSON
    decode: Callable[[Json], T]
    request_id: RequestId | None = None
    #: Checks a decoded answer by the node that gave it; raises the DanError that says why it does not count.
    check: Callable[[OperatorAddress, T], None] | None = None

    def within(self, deadline: Deadline) -> Callable[[Node, Tries], asyncio.Future[T]]:
        """Return the question that ``ask_many`` puts to each node."""
        return partial(Node.ask, request=self, deadline=deadline)


def _node_time(value: Json) -> float:
    """Read the node's clock from the result of ``dan_health``, or from a refusal: ``time``, in Unix milliseconds."""
    milliseconds = value.get("time") if isinstance(value, dict) else None
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int) or abs(milliseconds) >= 2**53:
        raise NodeProtocolError(
            "the node's answer has an impossible time",
            hint="The node does not speak dan-node/1",
        )
    return milliseconds / 1000


_LOOK = Request("dan_health", "{}", _node_time)


class Node:
    """A node of a ``NodeNetwork``; *transport* stands in for a connection of its own, *events* are the network's."""

    def __init__(
        self,
        endpoint: NodeEndpoint,
        *,
        options: TransportOptions,
        timeouts: Timeouts,
        retry: RetryPolicy,
        transport: Transport | None = None,
        rest: RestPolicy | None = None,
        events: EventHub | None = None,
        clock: NetworkClock | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.operator = endpoint.operator
        self.events = events or EventHub()
        self.health = HealthRecord(setting("rest", rest, RestPolicy))
        self.health.on_change = NodeUpDown(self.health, self.operator, self.events)
        self.clock = clock or NetworkClock(time.time)
        self._timeouts = timeouts
        self.retry = retry
        self._transport = transport or self._make_transport(options)
        self._socket = self._transport if isinstance(self._transport, WebSocketTransport) else None

    def _make_transport(self, options: TransportOptions) -> Transport:
        url, connect_s = self.endpoint.url, self._timeouts.connect_s
        if url.startswith("http"):
            return HttpTransport(url, options=options, connect_timeout_s=connect_s)
        return WebSocketTransport(
            url,
            options=options,
            connect_timeout_s=connect_s,
            on_connect=self._identify,
            longest_retry_after_s=self.retry.longest_retry_after_s,
        )

    async def _identify(self, call: Callable[..., Any]) -> None:
        """Make the node prove, on each new connection, that it holds the pinned operator's key."""
        nonce, asked = secrets.token_bytes(32), time.monotonic()
        answer = await call(
            "dan_identify", encode(IdentifyParams(nonce=nonce)), timeout_s=self._timeouts.connect_s
        )
        identity = Identity.read(answer)
        digest = identity_digest(operator=self.operator, nonce=nonce, time_ms=identity.time_ms)
        if identity.operator != self.operator or signer_of(digest, identity.signature) != self.operator:
            raise NodeProtocolError(
                f"the node is operator {identity.operator}, not {self.operator}"
                if identity.operator != self.operator
                else f"the node could not prove that it is operator {self.operator}",
                hint="Check the URL and the operator; the client talks only to operators that it was given",
            )
        self.clock.note(self.operator, identity.time_ms / 1000, waited_s=time.monotonic() - asked)

    async def call(
        self, tries: Tries | None = None, *, request: Request[T], deadline: Deadline, is_look: bool = False
    ) -> T:
        """
        Ask the node, again if that is safe and may help. Every method of dan-node/1 is idempotent by its request id.

        *tries* counts the attempts, for a caller that may not wait for the end. *is_look*: see ``HealthRecord.begin``.
        Raised is the last attempt's NodeError, or a DeadlineExceededError.
        """
        attempts = self.attempts_at(request)
        attempt = attempts.watch(partial(self._attempt, request, deadline, tries, is_look=is_look))
        started = self.retry.clock()
        try:
            return await attempt()
        except DanError as error:
            return await self.retry.go_on(
                error, attempt, started=started, deadline=deadline, before_sleep=attempts.before_sleep
            )

    def ask(self, tries: Tries, *, request: Request[T], deadline: Deadline) -> asyncio.Future[T]:
        """Do as ``call``. Over an open connection the request is sent at once, and a task is made only if that fails."""
        connection = None if self._socket is None else self._socket.connection
        limit_s = deadline.cap(self._timeouts.attempt_s)
        if connection is not None and limit_s != 0.0:
            sent = _Sent(self, connection, request, deadline, tries)
            if connection.send(sent, request.method, request.params, limit_s):
                tries.made += 1
                sent.asked = self.health.begin()
                if self.events.wants_all_attempts:
                    sent.attempts = self.attempts_at(request)
                    sent.attempts.began()
                return sent
        return asyncio.create_task(self.call(tries, request=request, deadline=deadline))

    async def ask_for_many(self, request: Request[T]) -> T:
        """Ask on behalf of several calls, which report nothing of it, for as long as one attempt may take."""
        deadline = Deadline(self._timeouts.attempt_s)
        attempt = partial(self._attempt, request, deadline, None, is_look=False)
        return await self.retry.run(attempt, deadline=deadline)

    def attempts_at(self, request: Request[Any]) -> Attempts:
        """Return what reports the attempts of one call."""
        method, request_id = request.method, request.request_id
        return Attempts(self.events, node=self.operator, method=method, request_id=request_id)

    async def go_on(self, first: DanError, sent: _Sent[T]) -> T:
        """Make the other attempts of a call after the first one failed, if that is safe and may help."""
        attempts = sent.attempts or self.attempts_at(sent.request)
        attempt = attempts.watch(
            partial(self._attempt, sent.request, sent.deadline, sent.tries, is_look=False)
        )
        return await self.retry.go_on(
            first,
            attempt,
            started=self.retry.clock() - sent.elapsed_s,
            deadline=sent.deadline,
            before_sleep=attempts.before_sleep,
        )

    async def _attempt(
        self, request: Request[T], deadline: Deadline, tries: Tries | None, *, is_look: bool
    ) -> T:
        if tries is not None:
            tries.made += 1
        limit_s = deadline.cap(self._timeouts.attempt_s)
        if limit_s == 0.0:
            doing = f"asking node {self.operator}"
            raise deadline.error(doing, node=self.operator, request_id=request.request_id)
        asked = self.health.begin(is_look=is_look)
        try:
            answer = await self._transport.call(request.method, request.params, timeout_s=limit_s)
            return self.accept(request, asked, answer)
        except DanError as error:
            failure = self.failed(request, asked, error)
            if failure is error:
                raise
            raise failure from error
        except BaseException:  # cancelled, as a rule: the verdict did not need this node
            self.health.gave_up(asked, is_timed=request.method not in _COLLECTIVE)
            raise

    # --- the end of an attempt ----------------------------------------------------------------------------------------

    def accept(self, request: Request[T], asked: Asked, answer: Json) -> T:
        """Read and check an answer, and note a right one; raise the DanError that says why it does not count."""
        value = request.decode(answer)
        if request.check is not None:
            request.check(self.operator, value)
        self.health.succeeded(asked, is_timed=request.method not in _COLLECTIVE)
        return value

    def failed(self, request: Request[T], asked: Asked, error: DanError) -> DanError:
        """Note a failure, and return it as an error about this node; that the client was closed is none."""
        if isinstance(error, ClientClosedError):
            self.health.gave_up(asked, is_timed=False)
            return error
        if isinstance(error, RpcError) and error.code in TIME_CODES:
            self._note_time(error.data, asked)
        translated = self._translate(error, request)
        self._note_failure(asked, translated)
        return translated

    async def look(self, *, deadline: Deadline) -> float:
        """Ask for the node's health, and let it prove itself if it has rested; return its clock in Unix seconds."""
        return await self.call(request=_LOOK, deadline=deadline, is_look=True)

    def _note_time(self, data: Mapping[str, Any], asked: Asked) -> None:
        with suppress(NodeProtocolError):
            waited_s = self.health.policy.clock() - asked.started
            self.clock.note(self.operator, _node_time(dict(data)), waited_s=waited_s)

    def _note_failure(self, asked: Asked, error: NodeError) -> None:
        asked_s = min(getattr(error, "retry_after", None) or 0.0, self.retry.longest_retry_after_s)
        if getattr(error, "code", None) == NodeCode.RATE_LIMITED:
            self.health.busy(asked, asked_s)
        elif isinstance(error, NodeRefusedError) and not error.retryable:
            self.health.gave_up(asked, is_timed=False)  # it is there, and has its reasons
        else:
            self.health.failed(asked, least_rest_s=asked_s)

    def _translate(self, error: DanError, request: Request[Any]) -> NodeError:
        """Turn an error of the transport or a decoder into one about this node: the one place where it is done."""
        method, request_id = request.method, request.request_id
        context: dict[str, Any] = {"node": self.operator, "method": method, "request_id": request_id}
        if isinstance(error, RpcError):
            return _refusal(error, context)
        kind: type[NodeError] = NodeError
        if isinstance(error, RequestTimeoutError):
            kind = NodeTimeoutError
        elif isinstance(error, ConnectError | ConnectionLostError):
            kind = NodeUnreachableError
            retry_after = getattr(error, "retry_after", None)
            status = getattr(error, "status", None)
            if retry_after and status is not None:
                # It answered and asks for the wait, which is not only our own patience.
                code = NodeCode.RATE_LIMITED if status == 429 else NodeCode.UNAVAILABLE
                return RateLimitedError(
                    error.message, hint=error.hint, code=code, retry_after=retry_after, **context
                )
        elif isinstance(error, ProtocolError):
            kind = NodeProtocolError
        return kind(error.message, hint=error.hint, retryable=error.retryable, **context)

    @property
    def is_unreachable(self) -> bool:
        """Whether it failed when it was last asked, and has no connection."""
        return self.health.failures > 0 and self._socket is not None and self._socket.connection is None

    @property
    def shown_url(self) -> str:
        """Its URL without credentials."""
        return redact_url(self.endpoint.url)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._transport.aclose()


class _Sent(Call[T]):
    """A call of a node whose first attempt was sent at once; if that fails, a task goes on."""

    __slots__ = (
        "_connection",
        "_node",
        "_rest",
        "asked",
        "attempts",
        "deadline",
        "request",
        "tries",
    )

    asked: Asked
    #: Report it; None while nobody wants to hear of what goes well.
    attempts: Attempts | None

    def __init__(
        self, node: Node, connection: Connection, request: Request[T], deadline: Deadline, tries: Tries
    ) -> None:
        super().__init__()
        self.request, self.deadline, self.tries = request, deadline, tries
        self._node, self._connection = node, connection
        self._rest: asyncio.Task[T] | None = None
        self.attempts = self.on_end = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since it was sent."""
        return self._node.health.policy.clock() - self.asked.started

    def end(self, answer: Json, error: DanError | None) -> None:
        """Take the end of the request."""
        if self.done():
            return  # cancelled
        if error is not None:
            self._fail(error)
            return
        try:
            value = self._node.accept(self.request, self.asked, answer)
        except DanError as failure:
            self._fail(failure)
            return
        except Exception as bug:  # noqa: BLE001 - of ours, for whoever asked
            self._node.health.gave_up(self.asked, is_timed=False)
            self._report(bug)
            self.set_exception(bug)
        else:
            if self.attempts is not None:
                self._report(value)
            self.set_result(value)
        if self.on_end is not None:
            self.on_end(self)

    def _report(self, outcome: object) -> None:
        node = self._node
        if self.attempts is None:
            if not node.events.listeners or not isinstance(outcome, BaseException):
                return
            self.attempts = node.attempts_at(self.request)
            self.attempts.began()
        self.attempts.ended(outcome, self.elapsed_s)

    def _fail(self, error: DanError) -> None:
        failure = self._node.failed(self.request, self.asked, error)
        if failure is not error:
            failure.__cause__ = error
        self._report(failure)
        self._rest = asyncio.create_task(self._node.go_on(failure, self))
        self._rest.add_done_callback(self._take_over)

    def _take_over(self, rest: asyncio.Task[T]) -> None:
        if rest.cancelled():
            super().cancel()
        elif error := rest.exception():
            self.set_exception(error)
        else:
            self.set_result(rest.result())
        if self.on_end is not None:
            self.on_end(self)

    def cancel(self, msg: Any = None) -> bool:
        """Give the request up. As a task does, it ends when whatever is under way has ended."""
        if self.done():
            return False
        if self._rest is not None:
            return self._rest.cancel(msg)
        self._connection.forget(self)
        self._node.health.gave_up(self.asked, is_timed=self.request.method not in _COLLECTIVE)
        self._report(asyncio.CancelledError())
        return super().cancel(msg)


def _refusal(error: RpcError, context: dict[str, Any]) -> NodeRefusedError:
    retry_after = error.data.get("retryAfter")
    if error.code == NodeCode.RATE_LIMITED:
        seconds = float(retry_after) if isinstance(retry_after, int) and 0 <= retry_after <= 3600 else 1.0
        return RateLimitedError(
            f"the node asks to slow down: {error.message}", code=error.code, retry_after=seconds, **context
        )
    culprits, aborted_by = error.data.get("culprits"), error.data.get("abortedBy")
    # Whatever else it says for the name of a node is in no error, and no log.
    named = tuple(filter(has_address_form, culprits)) if isinstance(culprits, list) else ()
    evidence = error.data.get("evidence")
    return NodeRefusedError(
        f"the node refused: {error.message}",
        code=error.code,
        culprits=named[:20],
        evidence=evidence if evidence in ("proof", "silence") else "",
        aborted_by=aborted_by if has_address_form(aborted_by) else None,
        retryable=FailureKind.RETRYABLE in NODE_FAILURES.get(error.code, FailureKind.NONE),
        **context,
    )


# --- proving itself ------------------------------------------------------------------------------------------------


def probing(spares: Iterable[Node], *, deadline: Deadline) -> AbstractAsyncContextManager[None]:
    """
    Probe one of the spares, best first, whose rest is over while the block runs, if there is one.

    A node that failed is ranked behind those that did not. In a pool with enough of them it would never be asked again, so
    its health is asked for on the side: that takes no place and no time from the job, and ends with the block.
    """
    due = next((node for node in spares if node.health.is_due), None)
    return nullcontext() if due is None else _probing(due, deadline)


@asynccontextmanager
async def _probing(node: Node, deadline: Deadline) -> AsyncIterator[None]:
    task = asyncio.create_task(_probe(node, deadline), name="dan-probe")
    try:
        yield
    finally:
        await cancel_and_wait([task])


async def _probe(node: Node, deadline: Deadline) -> None:
    if not node.health.is_due:  # somebody else was faster: one probe at a time
        return
    try:
        await node.look(deadline=deadline)
    except DanError as error:
        _log.info("node %s still rests: %s", node.operator, error.message)

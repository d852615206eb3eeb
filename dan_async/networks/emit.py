"""
Telling what networks do as events (``dan_async.events``), in one line where it happens.

Everything here looks first whether anybody listens, and costs next to nothing if nobody does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Literal, TypeVar

from dan_async._event_hub import EventHub, failure_of
from dan_async._request_log import RequestLog
from dan_async.errors import DanError, NodeOutcome
from dan_async.events import (
    AttemptAbandoned,
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    NodeDown,
    NodeUp,
    OperationFinished,
    OperationStarted,
    RetryScheduled,
    Verdict,
    WalletAnswered,
    WalletAsked,
)
from dan_async.networks.node_health import HealthRecord, RestState
from dan_async.retry import RetryDetails
from dan_async.types import MpcKeyId, OperatorAddress, RequestId

__all__ = ["Attempts", "NodeUpDown", "operation", "tell_verdict", "wallet_turn"]

_log = logging.getLogger(__name__)

T = TypeVar("T")


class operation:  # noqa: N801 - reads as a statement
    """
    Tells that an operation begins and ends: ``with operation(events, request_id, "keygen", "nodes"): …``.

    Args:
        events: Who listens.
        request_id: The operation's id.
        name: What is done.
        network: Over what.
    """

    __slots__ = ("_events", "_name", "_network", "_request_id", "_started")

    _started: float | None  # None if nobody listened then: who hears the end has heard the beginning

    def __init__(
        self, events: EventHub, request_id: RequestId, name: str, network: Literal["nodes", "gateway"]
    ) -> None:
        self._events = events
        self._request_id = request_id
        self._name = name
        self._network: Literal["nodes", "gateway"] = network

    def __enter__(self) -> None:
        self._started = None
        if self._events.hooks:
            self._started = time.monotonic()
            self._events.emit(
                OperationStarted(request_id=self._request_id, operation=self._name, network=self._network)
            )

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._started is not None:
            name, code = (None, None) if error is None else failure_of(error)
            self._events.emit(
                OperationFinished(
                    request_id=self._request_id,
                    operation=self._name,
                    network=self._network,
                    elapsed_s=time.monotonic() - self._started,
                    error=name,
                    code=code,
                    phase=getattr(error, "phase", None),
                )
            )


class wallet_turn:  # noqa: N801 - reads as a statement
    """
    Tells that the owner's wallet is asked, and that it has answered: ``with wallet_turn(events, request_id, True): …``.

    Args:
        events: Who listens.
        request_id: The operation's id.
        is_interactive: Whether a person sees a prompt.
    """

    __slots__ = ("_events", "_is_interactive", "_request_id", "_started")

    _started: float | None

    def __init__(self, events: EventHub, request_id: RequestId, is_interactive: bool) -> None:  # noqa: FBT001 - see above
        self._events = events
        self._request_id = request_id
        self._is_interactive = is_interactive

    def __enter__(self) -> None:
        self._started = None
        if self._events.hooks:
            self._started = time.monotonic()
            self._events.emit(WalletAsked(request_id=self._request_id, is_interactive=self._is_interactive))

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if self._started is not None:
            self._events.emit(
                WalletAnswered(
                    request_id=self._request_id,
                    elapsed_s=time.monotonic() - self._started,
                    error=None if error is None else failure_of(error)[0],
                )
            )


class Attempts:
    """
    Tells of each attempt at one peer, and of the waits between them.

    Args:
        events: Who listens.
        node: The peer.
        method: What it is asked.
        request_id: The request, if there is one.
    """

    __slots__ = ("_attempt", "_events", "_method", "_node", "_request_id")

    def __init__(
        self, events: EventHub, *, node: OperatorAddress | str, method: str, request_id: str | None
    ) -> None:
        self._events = events
        self._node = node
        self._method = method
        self._request_id = None if request_id is None else RequestId(request_id)
        self._attempt = 0

    def watch(self, call: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Give *call* itself if nobody listens; otherwise what calls it, and tells how it went."""
        if not self._events.hooks:
            return call

        async def watched() -> T:
            self._attempt += 1
            about: dict[str, Any] = {
                "request_id": self._request_id,
                "node": self._node,
                "method": self._method,
                "attempt": self._attempt,
            }
            emit, started = self._events.emit, time.monotonic()
            emit(AttemptStarted(**about))
            try:
                value = await call()
            except BaseException as error:
                elapsed_s = time.monotonic() - started
                if isinstance(error, Exception):
                    emit(_failed(error, elapsed_s, about))
                else:
                    emit(AttemptAbandoned(elapsed_s=elapsed_s, **about))
                raise
            elapsed_s = time.monotonic() - started
            # Some give the error after which there is to be no other attempt, instead of raising it.
            if isinstance(value, DanError):
                emit(_failed(value, elapsed_s, about))
            else:
                emit(AttemptSucceeded(elapsed_s=elapsed_s, **about))
            return value

        return watched

    def before_sleep(self, details: RetryDetails) -> None:
        """Tell of a wait, and log it: a ``BeforeSleep``."""
        RequestLog(_log, self._request_id).info(
            "attempt %d of %s at %s failed (%s), trying again in %.2f s",
            details.attempt,
            self._method,
            self._node,
            details.error.message,
            details.wait_s,
        )
        if self._events.hooks:
            error, code = failure_of(details.error)
            self._events.emit(
                RetryScheduled(
                    request_id=self._request_id,
                    node=self._node,
                    method=self._method,
                    attempt=details.attempt,
                    wait_s=details.wait_s,
                    error=error,
                    code=code,
                )
            )


def _failed(error: BaseException, elapsed_s: float, about: dict[str, Any]) -> AttemptFailed:
    name, code = failure_of(error)
    return AttemptFailed(
        elapsed_s=elapsed_s,
        error=name,
        code=code,
        is_retryable=getattr(error, "retryable", False),
        phase=getattr(error, "phase", None),
        **about,
    )


class NodeUpDown:
    """
    Tells when a node goes down and when it is back: what ``HealthRecord.on_change`` takes.

    Args:
        record: The node's record.
        operator: The node.
        events: Who listens.
    """

    __slots__ = ("_events", "_failures", "_operator", "_record")

    def __init__(self, record: HealthRecord, operator: OperatorAddress, events: EventHub) -> None:
        self._record = record
        self._operator = operator
        self._events = events
        self._failures = 0

    def __call__(self, state: RestState) -> None:
        """Hear of a change of state."""
        before, self._failures = self._failures, self._record.failures
        if state == "resting" and not before:
            _log.info("node %s failed and rests for %.2f s", self._operator, self._record.rests_for_s)
            if self._events.hooks:
                self._events.emit(
                    NodeDown(node=self._operator, failures=self._failures, rest_s=self._record.rests_for_s)
                )
        elif state == "live" and before:
            _log.info("node %s is back after %d failures", self._operator, before)
            if self._events.hooks:
                self._events.emit(NodeUp(node=self._operator, failures=before))


def tell_verdict(
    events: EventHub,
    request_id: RequestId,
    operation: str,
    *,
    is_won: bool,
    needed: int,
    agreed: Collection[OperatorAddress],
    outcomes: Sequence[NodeOutcome[Any]],
    elapsed_s: float,
    key_id: MpcKeyId | None = None,
) -> None:
    """
    Tell how the nodes' answers were counted.

    Args:
        events: Who listens.
        request_id: The request.
        operation: What was asked for.
        is_won: Whether enough of them agree, and nothing contradicts them.
        needed: How many nodes must agree.
        agreed: Who does.
        outcomes: What became of those that do not, at least.
        elapsed_s: Seconds since they were asked.
        key_id: What they agree on.
    """
    if _log.isEnabledFor(logging.INFO):
        RequestLog(_log, request_id).info(
            "%s: %d nodes agree, %d must; %s after %.3f s",
            operation,
            len(agreed),
            needed,
            "won" if is_won else "lost",
            elapsed_s,
        )
    if not events.hooks:
        return
    failed = {outcome.operator: None for outcome in outcomes if outcome.operator not in agreed}
    events.emit(
        Verdict(
            request_id=request_id,
            operation=operation,
            is_won=is_won,
            agreed=len(agreed),
            threshold=needed,
            parties=len(agreed) + len(failed),
            failed=tuple(failed),
            elapsed_s=elapsed_s,
            key_id=key_id,
        )
    )

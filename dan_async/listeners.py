"""
Those who hear of the client's work: event listeners and loggers, and how each step reports to them.

The events themselves are loaded with the first one that somebody hears.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from attrs import define, field

from dan_async.errors import InvalidFieldError, NodeOutcome
from dan_async.retry import RetryDetails
from dan_async.types import MpcKeyId, OperatorAddress, RequestId

if TYPE_CHECKING:
    from dan_async.events import Event, OnEvent

_log = logging.getLogger(__name__)

T = TypeVar("T")


def failure_of(error: BaseException) -> tuple[str, int | None]:
    """Return what an event says of an error: its class and its number, never its text."""
    for attribute in ("code", "status", "close_code"):
        number = getattr(error, attribute, None)
        if isinstance(number, int):
            return type(error).__name__, int(number)
    return type(error).__name__, None


def check_listener(on_event: OnEvent) -> None:
    """Refuse what cannot be called, and coroutine functions, which nobody would await."""
    if not callable(on_event):
        raise InvalidFieldError("on_event", f"must be a function, not {type(on_event).__name__}")
    called = on_event if inspect.isroutine(on_event) else type(on_event).__call__
    if inspect.iscoroutinefunction(on_event) or inspect.iscoroutinefunction(called):
        raise InvalidFieldError(
            "on_event",
            "must be a plain function, not a coroutine function",
            hint="Put the event into an asyncio.Queue with put_nowait(), and await elsewhere",
        )


class EventHub:
    """
    The event listeners of one network.

    Making an event costs more than looking whether anybody listens, so look first::

        if events.listeners:
            events.emit(NodeUp(node=operator, failures=3))
    """

    __slots__ = ("_broken", "listeners", "wants_all_attempts")

    listeners: tuple[OnEvent, ...]
    #: False if none of them wants to hear of what goes well at once, which is most of all events: attempts that begin, or
    #: succeed the first time, and wallets that ask nobody and sign within ``AT_ONCE_S``.
    wants_all_attempts: bool

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self.listeners, self.wants_all_attempts = (), False
        self._broken: list[OnEvent] = []
        if on_event is not None:
            self.add(on_event)

    def add(self, on_event: OnEvent) -> None:
        """Add a listener; one that was added before is not called twice."""
        check_listener(on_event)
        if on_event not in self.listeners:
            self.listeners = (*self.listeners, on_event)
            self.wants_all_attempts |= getattr(on_event, "wants_all_attempts", True)

    def emit(self, event: Event) -> None:
        """Call every listener. What one raises is logged the first time, and goes no further."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener's bug must not become a failed key generation
                if listener not in self._broken:
                    self._broken.append(listener)
                    _log.exception(
                        "the on_event function %r failed at %s; further failures of it are not logged",
                        getattr(listener, "__qualname__", type(listener).__name__),
                        event.name,
                    )


class RequestLog(logging.LoggerAdapter[logging.Logger]):
    """
    A logger for one request: messages begin with ``request 0x…: ``, records have the attribute ``request_id``.

    Without a request messages stay as they are.
    """

    def __init__(self, logger: logging.Logger, request_id: str | None) -> None:
        super().__init__(logger, {"request_id": request_id})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the id in front of the message and onto the record, beside what the caller puts there."""
        extra = self.extra or {}
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        request_id = extra["request_id"]
        if request_id is None:
            return msg, kwargs
        return f"request {str(request_id).replace('%', '%%')}: {msg}", kwargs


# --- emitting ---------------------------------------------------------------------------------------------------------


@contextmanager
def operation(
    events: EventHub, request_id: RequestId, name: str, network: Literal["nodes", "gateway"]
) -> Iterator[None]:
    """Emit that an operation begins and ends. A listener that is added in between hears neither."""
    if not events.listeners:
        yield
        return
    from dan_async.events import OperationFinished, OperationStarted

    started = time.monotonic()
    events.emit(OperationStarted(request_id=request_id, operation=name, network=network))
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        kind, code = (None, None) if failure is None else failure_of(failure)
        events.emit(
            OperationFinished(
                request_id=request_id,
                operation=name,
                network=network,
                elapsed_s=time.monotonic() - started,
                error=kind,
                code=code,
                phase=getattr(failure, "phase", None),
            )
        )


def wallet_turn(
    events: EventHub,
    request_id: RequestId,
    is_interactive: bool,  # noqa: FBT001 - reads as a statement
) -> AbstractContextManager[None]:
    """Emit that the owner's wallet is asked, and that it has answered; of one that signs at once only if asked for."""
    return _heard_turn(events, request_id, is_interactive) if events.listeners else nullcontext()


@contextmanager
def _heard_turn(events: EventHub, request_id: RequestId, is_interactive: bool) -> Iterator[None]:  # noqa: FBT001 - as above
    from dan_async.events import AT_ONCE_S, WalletAnswered, WalletAsked

    started = time.monotonic()
    is_wanted = is_interactive or events.wants_all_attempts
    if is_wanted:
        events.emit(WalletAsked(request_id=request_id, is_interactive=is_interactive))
    failure: str | None = None
    try:
        yield
    except BaseException as error:
        failure = type(error).__name__
        raise
    finally:
        elapsed_s = time.monotonic() - started
        if is_wanted or failure is not None or elapsed_s >= AT_ONCE_S:
            events.emit(
                WalletAnswered(
                    request_id=request_id,
                    is_interactive=is_interactive,
                    elapsed_s=elapsed_s,
                    error=failure,
                )
            )


@define(eq=False, repr=False)
class Attempts:
    """Emits each attempt at one peer, and the waits between them."""

    _events: EventHub
    _node: OperatorAddress | str = field(kw_only=True)
    _method: str = field(kw_only=True)
    _request_id: RequestId | None = field(kw_only=True)
    _attempt: int = field(default=0, init=False)

    def watch(self, call: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        """Return *call* itself if nobody listens; otherwise a function that calls it and emits how it went."""
        if not self._events.listeners:
            return call

        async def watched() -> T:
            started = time.monotonic()
            self.began()
            try:
                value = await call()
            except BaseException as error:
                self.ended(error, time.monotonic() - started)
                raise
            self.ended(value, time.monotonic() - started)
            return value

        return watched

    def began(self) -> None:
        """Emit that an attempt began."""
        self._attempt += 1
        if self._events.wants_all_attempts:
            from dan_async.events import AttemptStarted

            self._events.emit(AttemptStarted(**self._about))

    def ended(self, outcome: object, elapsed_s: float) -> None:
        """Emit how the attempt went: by its error, which some return instead of raising it, or whatever else came of it."""
        from dan_async.events import AttemptAbandoned, AttemptFailed, AttemptSucceeded

        if isinstance(outcome, Exception):
            name, code = failure_of(outcome)
            self._events.emit(
                AttemptFailed(
                    elapsed_s=elapsed_s,
                    error=name,
                    code=code,
                    is_retryable=getattr(outcome, "retryable", False),
                    phase=getattr(outcome, "phase", None),
                    **self._about,
                )
            )
        elif isinstance(outcome, BaseException):
            self._events.emit(AttemptAbandoned(elapsed_s=elapsed_s, **self._about))
        elif self._attempt > 1 or self._events.wants_all_attempts:
            self._events.emit(AttemptSucceeded(elapsed_s=elapsed_s, **self._about))

    @property
    def _about(self) -> dict[str, Any]:
        return {
            "request_id": self._request_id,
            "node": self._node,
            "method": self._method,
            "attempt": self._attempt,
        }

    def before_sleep(self, details: RetryDetails) -> None:
        """Log a wait and emit it: a ``BeforeSleep``."""
        RequestLog(_log, self._request_id).info(
            "attempt %d of %s at %s failed (%s), trying again in %.2f s",
            details.attempt,
            self._method,
            self._node,
            details.error.message,
            details.wait_s,
        )
        if self._events.listeners:
            from dan_async.events import RetryScheduled

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


def report_verdict(
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
    Log and emit how the nodes' answers were counted.

    *is_won* says whether enough nodes agree and nothing contradicts them; *outcomes* has at least those of the other nodes.
    """
    if _log.isEnabledFor(logging.INFO):
        RequestLog(_log, request_id).info(
            "%s: %d nodes agree, %d are needed; %s after %.3f s",
            operation,
            len(agreed),
            needed,
            "succeeded" if is_won else "failed",
            elapsed_s,
        )
    if not events.listeners:
        return
    from dan_async.events import Verdict

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

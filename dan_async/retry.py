"""
When to try again: one policy for every network call.

Tenacity decides between attempts, ``asyncio.timeout`` limits each attempt, and one ``Deadline`` limits everything. The wait
before attempt k + 1 (k = 1, 2, …) is drawn evenly from 0.5 to 1 times
``min(longest_wait_s, first_wait_s * 2**(k - 1))``, or is what the peer asked for (Retry-After, RFC 9110
section 10.2.3), if that is longer, but at most ``longest_retry_after_s``.

A failure is worth another attempt if two things come together. The error is ``retryable``: repeating the request is known
to be safe. (A gateway that has the owner's signature may be at work, for example, so its error is not retryable then.) And
the ``RetryTable`` does not say, by the error's class and number, that it is pointless. Texts decide nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias, TypeVar

from attrs import define, field, frozen

from dan_async._values import check_int, check_seconds, in_seconds, required
from dan_async.deadline import Deadline
from dan_async.errors import (
    FAILURE_KINDS,
    HTTP_FAILURES,
    NODE_FAILURES,
    DanError,
    FailureKind,
    InvalidFieldError,
    failure_number,
)

__all__ = [
    "DEFAULT_RETRY_TABLE",
    "HTTP_STATUSES",
    "NODE_CODES",
    "BeforeSleep",
    "RetryDetails",
    "RetryPolicy",
    "RetryTable",
    "Row",
]

_log = logging.getLogger(__name__)

T = TypeVar("T")


def _retryable(kinds: Mapping[int, FailureKind]) -> frozenset[int]:
    return frozenset(number for number, kind in kinds.items() if FailureKind.RETRYABLE in kind)


#: HTTP statuses of a server in trouble or in a hurry.
HTTP_STATUSES = _retryable(HTTP_FAILURES)

#: Codes of dan-node/1 after which the same call may be made again.
NODE_CODES = _retryable(NODE_FAILURES)

#: True: whatever its number. False: never. Numbers: if the error's is among them, or if it has none.
Row: TypeAlias = bool | frozenset[int]


def _to_rows(value: Any) -> Mapping[type[DanError], Row]:
    if not isinstance(value, Mapping):
        raise InvalidFieldError("rows", "must be a mapping of error classes")
    for kind, row in value.items():
        if not (isinstance(kind, type) and issubclass(kind, DanError)):
            raise InvalidFieldError("rows", "must have classes of dan_async.errors as keys")
        if not isinstance(row, bool | frozenset):
            raise InvalidFieldError(
                "rows", f"must say True, False or a frozenset of numbers for {kind.__name__}"
            )
    return MappingProxyType(dict(value))


@frozen
class RetryTable:
    """
    Which failures are worth another attempt.

    Args:
        rows: A row for each class of error. A class that is not listed is as its nearest listed ancestor; one without such
            an ancestor is tried again if the error says ``retryable``.

    Raises:
        InvalidFieldError: A row is malformed.

    Example::

        RetryPolicy(table=DEFAULT_RETRY_TABLE.but({NodeTimeoutError: False}))     # a late node is not asked again
    """

    rows: Mapping[type[DanError], Row] = field(converter=_to_rows)

    def __reduce__(self) -> tuple[type[RetryTable], tuple[dict[type[DanError], Row]]]:
        return RetryTable, (dict(self.rows),)

    def but(self, rows: Mapping[type[DanError], Row]) -> RetryTable:
        """
        Return a table in which these rows replace the present ones.

        Args:
            rows: Error class -> whether, or when, it is tried again.
        """
        return RetryTable({**self.rows, **_to_rows(rows)})

    def allows(self, error: BaseException) -> bool:
        """
        Return whether another attempt is safe and may help.

        Args:
            error: The error of the attempt.
        """
        if not isinstance(error, DanError) or not error.retryable:
            return False
        row = next((self.rows[kind] for kind in type(error).__mro__ if kind in self.rows), True)
        if isinstance(row, bool):
            return row
        number = failure_number(error)
        return number is None or number in row


#: Used by a ``RetryPolicy`` that is not given another table.
DEFAULT_RETRY_TABLE = RetryTable(
    {
        kind: FailureKind.RETRYABLE in listed if isinstance(listed, FailureKind) else _retryable(listed)
        for kind, listed in FAILURE_KINDS.items()
    }
)


@define(eq=False, repr=False)
class Tries:
    """How many attempts of one call were made so far; counts up while it runs."""

    made: int = 0


@frozen(kw_only=True)
class RetryDetails:
    """
    Passed to *before_sleep*: what failed and what comes next, without the arguments of the call, which may be secret.

    Args:
        attempt: The attempt that failed, from 1.
        error: Why. It names node, method and request id where they are known.
        wait_s: Seconds until the next one.
        elapsed_s: Seconds since the first attempt began.
    """

    attempt: int
    error: DanError
    wait_s: float
    elapsed_s: float = 0.0


class BeforeSleep(Protocol):
    """A plain function that is called before each wait. What it raises is logged and changes nothing."""

    def __call__(self, details: RetryDetails, /) -> None:
        """React to a wait that is about to begin."""


def _table(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, RetryTable):
        raise InvalidFieldError(attribute.name, "must be a RetryTable", hint="DEFAULT_RETRY_TABLE.but({…})")


def _hook(_: object, attribute: Any, value: object) -> None:
    if value is not None and (not callable(value) or inspect.iscoroutinefunction(value)):
        raise InvalidFieldError(
            attribute.name, "must be a plain function", hint="It is called before each wait"
        )


@frozen(kw_only=True)
class RetryPolicy:
    """
    How often and how patiently a failed call is tried again.

    Args:
        attempts: Attempts in all, the first included; 1 to 100; 1 means never again.
        first_wait_s: The first wait, in seconds, before jitter.
        longest_wait_s: Waits stop growing here.
        longest_retry_after_s: The longest wait, in seconds, that a peer can ask for with Retry-After.
        table: Which failures are worth another attempt, by class and number.
        before_sleep: Called before each wait.
        sleep: Waits; injected by tests.
        clock: Monotonic seconds; injected by tests.
        random: Returns numbers from 0 to 1 for the jitter; injected by tests. Not a source of secrets.

    Raises:
        InvalidFieldError: A field has a wrong value.
    """

    attempts: int = field(default=3, validator=required(check_int, least=1, most=100))
    first_wait_s: float = field(default=0.1, converter=in_seconds, validator=required(check_seconds))
    longest_wait_s: float = field(default=2.0, converter=in_seconds, validator=required(check_seconds))
    longest_retry_after_s: float = field(
        default=60.0, converter=in_seconds, validator=required(check_seconds)
    )
    table: RetryTable = field(default=DEFAULT_RETRY_TABLE, validator=_table, repr=False)
    before_sleep: BeforeSleep | None = field(default=None, validator=_hook, repr=False)
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    def wait_s(self, attempt: int, error: BaseException | None) -> float:
        """
        Return the seconds to wait after *attempt* failed with *error*.

        Args:
            attempt: The number of the attempt, from 1.
            error: Its error; one with *retry_after* (seconds) may lengthen the wait.
        """
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        jittered = longest * (0.5 + 0.5 * self.random())
        asked: float | None = getattr(error, "retry_after", None)
        return jittered if asked is None else max(jittered, min(asked, self.longest_retry_after_s))

    async def run(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        deadline: Deadline,
        before_sleep: BeforeSleep | None = None,
    ) -> T:
        """
        Call until it succeeds, fails for good, or the attempts or the deadline are used up.

        Args:
            call: Makes one attempt. Must be safe to repeat.
            deadline: The job's deadline. A wait that would reach it is not begun.
            before_sleep: Called before each wait, besides the policy's own.

        Returns:
            The result of the attempt that succeeded.

        Raises:
            DanError: The last attempt's error, with ``attempts`` and ``elapsed_s`` set.
        """
        started = self.clock()
        try:
            return await call()
        except DanError as error:
            return await self.go_on(
                error, call, started=started, deadline=deadline, before_sleep=before_sleep
            )

    async def go_on(
        self,
        first: DanError,
        call: Callable[[], Awaitable[T]],
        *,
        started: float,
        deadline: Deadline,
        before_sleep: BeforeSleep | None = None,
    ) -> T:
        """
        Go on after a first attempt, which the caller has made itself, as ``run`` does.

        Tenacity costs 0.07 ms a call, so calls that succeed at once do without it.

        Args:
            first: The failure of the first attempt.
            call: Makes the next one.
            started: When the first one began, by ``clock``.
            deadline: As for ``run``.
            before_sleep: As for ``run``.

        Returns:
            The result of the call.

        Raises:
            DanError: As for ``run``; the first failure itself, if another attempt is not allowed.
        """
        first.attempts, first.elapsed_s = 1, self.clock() - started
        if self.attempts == 1 or not self.table.allows(first):
            raise first
        import tenacity

        hooks = [hook for hook in (self.before_sleep, before_sleep) if hook is not None]

        def wait(state: tenacity.RetryCallState) -> float:
            outcome = state.outcome
            return self.wait_s(state.attempt_number, outcome.exception() if outcome else None)

        def stop(state: tenacity.RetryCallState) -> bool:
            remaining = deadline.remaining()
            return state.attempt_number >= self.attempts or (
                remaining is not None and state.upcoming_sleep >= remaining
            )

        def call_hooks(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if hooks and isinstance(error, DanError):
                details = RetryDetails(
                    attempt=state.attempt_number,
                    error=error,
                    wait_s=state.upcoming_sleep,
                    elapsed_s=error.elapsed_s or 0.0,
                )
                for hook in hooks:
                    _call(hook, details)

        retrying = tenacity.AsyncRetrying(
            sleep=self.sleep,
            stop=stop,
            wait=wait,
            retry=tenacity.retry_if_exception(self.table.allows),
            before_sleep=call_hooks,
            reraise=True,
        )
        async for attempt in retrying:
            number = attempt.retry_state.attempt_number
            with attempt:
                if number == 1:
                    raise first
                try:
                    return await call()
                except DanError as error:
                    error.attempts, error.elapsed_s = number, self.clock() - started
                    raise
        raise AssertionError("tenacity ends with a result or an error")


def _call(hook: BeforeSleep, details: RetryDetails) -> None:
    try:
        hook(details)
    except Exception:  # noqa: BLE001 - a listener's bug must not become a failed call
        _log.exception("before_sleep failed; the call is tried again all the same")

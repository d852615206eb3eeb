"""
When to try again, and when not: one policy for every network call.

Tenacity decides between attempts; the time within an attempt belongs to ``asyncio.timeout``, and one ``Deadline`` lies over
everything. The wait before attempt k (k = 1, 2, …) is drawn evenly from 0.5 to 1 times
``min(longest_wait_s, first_wait_s * 2**(k - 1))``, or is what the peer asked for (Retry-After), if that is longer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import tenacity
from attrs import field, frozen

from dan_async._tasks import Deadline
from dan_async.errors import DanError, InvalidFieldError

__all__ = ["RetryDetails", "RetryPolicy"]

T = TypeVar("T")


@frozen(kw_only=True)
class RetryDetails:
    """
    Passed to *before_sleep*: nothing in it is secret.

    Args:
        attempt: The attempt that failed, from 1.
        error: Why.
        wait_s: Seconds until the next one.
    """

    attempt: int
    error: DanError
    wait_s: float


class BeforeSleep(Protocol):
    """A hook that is called before each wait."""

    def __call__(self, details: RetryDetails) -> None: ...


def _positive(_: object, attribute: object, value: float) -> None:
    name = getattr(attribute, "name", "value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InvalidFieldError(name, "must be a number greater than 0")


@frozen(kw_only=True)
class RetryPolicy:
    """
    How often and how patiently a failed call is tried again.

    Only errors that say ``retryable`` are: a refused signature or a malformed answer will not get better.

    Args:
        attempts: Attempts in all, the first included; 1 means never again.
        first_wait_s: The first wait, in seconds, before jitter.
        longest_wait_s: Waits stop growing here.
        sleep: Waits; injected by tests.
        random: Gives numbers from 0 to 1 for the jitter; injected by tests. Not a source of secrets.

    Raises:
        InvalidFieldError: A number is out of range.
    """

    attempts: int = field(default=3)
    first_wait_s: float = field(default=0.1, validator=_positive)
    longest_wait_s: float = field(default=2.0, validator=_positive)
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)
    random: Callable[[], float] = field(default=random.random, repr=False)

    def __attrs_post_init__(self) -> None:
        if (
            isinstance(self.attempts, bool)
            or not isinstance(self.attempts, int)
            or not 1 <= self.attempts <= 100
        ):
            raise InvalidFieldError("attempts", "must be a whole number from 1 to 100")

    def wait_s(self, attempt: int, error: BaseException | None) -> float:
        """Give the seconds to wait after *attempt* failed with *error*."""
        longest = min(self.longest_wait_s, self.first_wait_s * 2.0 ** (attempt - 1))
        jittered = longest * (0.5 + 0.5 * self.random())
        return max(jittered, getattr(error, "retry_after", None) or 0.0)

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
            deadline: The job's deadline. A wait that would pass it is not begun.
            before_sleep: Told of each wait.

        Returns:
            What the successful attempt returned.

        Raises:
            DanError: The last attempt's error, with ``attempts`` set.
        """
        attempt = 0

        async def counted() -> T:
            nonlocal attempt
            attempt += 1
            try:
                return await call()
            except DanError as error:
                error.attempts = attempt
                raise

        try:
            return await counted()
        except DanError as error:
            if not error.retryable or self.attempts == 1:
                raise
            first = error
        return await self._again(counted, first, deadline, before_sleep)

    async def _again(
        self,
        call: Callable[[], Awaitable[T]],
        first: DanError,
        deadline: Deadline,
        before_sleep: BeforeSleep | None,
    ) -> T:
        """Go on after a first attempt has failed. Most calls never come here, and none pays for it before it does."""

        def wait(state: tenacity.RetryCallState) -> float:
            outcome = state.outcome
            return self.wait_s(state.attempt_number, outcome.exception() if outcome else None)

        def stop(state: tenacity.RetryCallState) -> bool:
            remaining = deadline.remaining()
            return state.attempt_number >= self.attempts or (
                remaining is not None and state.upcoming_sleep >= remaining
            )

        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            if before_sleep is not None and isinstance(error, DanError):
                before_sleep(
                    RetryDetails(attempt=state.attempt_number, error=error, wait_s=state.upcoming_sleep)
                )

        retrying = tenacity.AsyncRetrying(
            sleep=self.sleep,
            stop=stop,
            wait=wait,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, DanError) and error.retryable),
            before_sleep=tell,
            reraise=True,
        )
        failed: DanError | None = first

        async def repeat_first_failure_then_call() -> T:
            nonlocal failed
            error, failed = failed, None
            if error is not None:
                raise error
            return await call()

        return await retrying(repeat_first_failure_then_call)

"""The retry policy, with injected time and chance."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dan_async._tasks import Deadline
from dan_async.errors import InvalidFieldError, NodeUnreachableError, RateLimitedError, WalletRefusedError
from dan_async.retry import RetryDetails, RetryPolicy


class Sleeper:
    """Records waits instead of waiting."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


def policy(sleeper: Sleeper, **changes: Any) -> RetryPolicy:
    return RetryPolicy(
        **(
            {"sleep": sleeper, "random": lambda: 1.0, "attempts": 5, "first_wait_s": 1, "longest_wait_s": 5}
            | changes
        )
    )


def failing(times: int, error: Exception) -> Any:
    calls = []

    async def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return f"call {len(calls)}"

    return call


async def test_waits_grow_to_a_cap() -> None:
    """1, 2, 4, then the cap."""
    sleeper = Sleeper()
    result = await policy(sleeper).run(failing(4, NodeUnreachableError("x")), deadline=Deadline(None))
    assert result == "call 5"
    assert sleeper.waits == [1, 2, 4, 5]


async def test_jitter_halves_at_most() -> None:
    """The least wait is half of the full one."""
    sleeper = Sleeper()
    await policy(sleeper, random=lambda: 0.0).run(
        failing(1, NodeUnreachableError("x")), deadline=Deadline(None)
    )
    assert sleeper.waits == [0.5]


async def test_the_last_error_is_raised_with_its_attempts() -> None:
    """After the attempts are used up, the error says how many there were."""
    with pytest.raises(NodeUnreachableError) as caught:
        await policy(Sleeper(), attempts=3).run(
            failing(9, NodeUnreachableError("x")), deadline=Deadline(None)
        )
    assert caught.value.attempts == 3


@pytest.mark.parametrize("error", [WalletRefusedError("no"), ZeroDivisionError()])
async def test_only_retryable_errors_are_retried(error: Exception) -> None:
    """A refusal, and an error that is not ours, end it at once."""
    sleeper = Sleeper()
    with pytest.raises(type(error)):
        await policy(sleeper).run(failing(9, error), deadline=Deadline(None))
    assert sleeper.waits == []


async def test_retry_after_is_honoured() -> None:
    """What the peer asks for is waited, if it is longer."""
    sleeper = Sleeper()
    error = RateLimitedError("slow down", code=1, retry_after=7.0)
    await policy(sleeper).run(failing(1, error), deadline=Deadline(None))
    assert sleeper.waits == [7.0]


async def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    """If the wait would outlast the deadline, the error comes now."""
    sleeper = Sleeper()
    with pytest.raises(NodeUnreachableError):
        await policy(sleeper, first_wait_s=3).run(failing(9, NodeUnreachableError("x")), deadline=Deadline(2))
    assert sleeper.waits == []


async def test_before_sleep_is_told() -> None:
    """The hook sees attempt, error and wait."""
    told: list[RetryDetails] = []
    error = NodeUnreachableError("x")
    await policy(Sleeper()).run(failing(2, error), deadline=Deadline(None), before_sleep=told.append)
    assert [(d.attempt, d.wait_s) for d in told] == [(1, 1), (2, 2)]
    assert told[0].error is error


async def test_cancellation_passes() -> None:
    """A cancelled attempt is not an attempt to repeat."""
    sleeper = Sleeper()
    with pytest.raises(asyncio.CancelledError):
        await policy(sleeper).run(failing(1, asyncio.CancelledError()), deadline=Deadline(None))
    assert sleeper.waits == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"attempts": 0}, "attempts"),
        ({"attempts": True}, "attempts"),
        ({"attempts": 1.0}, "attempts"),
        ({"attempts": 101}, "attempts"),
        ({"first_wait_s": 0}, "first_wait_s"),
        ({"longest_wait_s": "1"}, "longest_wait_s"),
    ],
)
def test_bad_policies(change: dict[str, Any], field: str) -> None:
    """Each number names itself when it is wrong."""
    with pytest.raises(InvalidFieldError, match=field):
        RetryPolicy(**change)

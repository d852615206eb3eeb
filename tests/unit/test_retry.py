"""The retry policy, with injected time and chance, and the table of failures worth another attempt."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import sys
from typing import Any

import pytest
from attrs import fields_dict
from hypothesis import given
from hypothesis import strategies as st

from dan_async.deadline import Deadline
from dan_async.errors import (
    ConnectError,
    ConnectionLostError,
    DanError,
    DeadlineExceededError,
    GatewayError,
    InvalidFieldError,
    NodeCode,
    NodeProtocolError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnreachableError,
    QuorumError,
    RateLimitedError,
    RequestTimeoutError,
    WalletRefusedError,
)
from dan_async.retry import (
    DEFAULT_RETRY_TABLE,
    HTTP_STATUSES,
    NODE_CODES,
    RetryDetails,
    RetryPolicy,
    RetryTable,
)
from tests.helpers import ManualClock


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


def test_details_have_no_room_for_arguments() -> None:
    """What a call was made with may be secret."""
    assert set(fields_dict(RetryDetails)) == {"attempt", "error", "wait_s", "elapsed_s"}


async def test_the_policys_own_hook_is_told_as_well() -> None:
    """Both hear of each wait, with the time that has passed."""
    clock = ManualClock(0.0)
    own: list[RetryDetails] = []
    other: list[RetryDetails] = []
    chosen = policy(Sleeper(), sleep=clock.sleep, clock=clock, before_sleep=own.append)
    await chosen.run(
        failing(2, NodeUnreachableError("x")), deadline=Deadline(None), before_sleep=other.append
    )
    assert own == other
    assert [(d.wait_s, d.elapsed_s) for d in own] == [(1, 0), (2, 1)]


async def test_a_broken_hook_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the other one is called, and the call is tried again."""
    told: list[RetryDetails] = []

    def broken(details: RetryDetails) -> None:
        raise ZeroDivisionError

    chosen = policy(Sleeper(), before_sleep=broken)
    with caplog.at_level(logging.DEBUG, logger="dan_async"):
        result = await chosen.run(
            failing(1, NodeUnreachableError("x")), deadline=Deadline(None), before_sleep=told.append
        )
    assert result == "call 2"
    assert len(told) == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_the_table_decides() -> None:
    """What a changed table forbids is not tried again."""
    sleeper = Sleeper()
    chosen = policy(sleeper, table=DEFAULT_RETRY_TABLE.but({NodeTimeoutError: False}))
    with pytest.raises(NodeTimeoutError):
        await chosen.run(failing(1, NodeTimeoutError("x")), deadline=Deadline(None))
    assert sleeper.waits == []
    assert await chosen.run(failing(1, NodeUnreachableError("x")), deadline=Deadline(None)) == "call 2"


async def test_a_later_error_that_is_not_worth_it_ends_the_attempts() -> None:
    """Each attempt's own error decides."""
    errors = iter([NodeUnreachableError("x"), WalletRefusedError("no"), NodeUnreachableError("x")])
    sleeper = Sleeper()

    async def call() -> str:
        raise next(errors)

    with pytest.raises(WalletRefusedError) as caught:
        await policy(sleeper).run(call, deadline=Deadline(None))
    assert caught.value.attempts == 2
    assert len(sleeper.waits) == 1


async def test_the_error_says_how_long_it_all_took() -> None:
    """From the first attempt to the last failure, waits included."""
    clock = ManualClock(0.0)

    async def call() -> None:
        clock.advance(10)
        raise NodeUnreachableError("x")

    chosen = policy(Sleeper(), attempts=3, clock=clock, sleep=clock.sleep)
    with pytest.raises(NodeUnreachableError) as caught:
        await chosen.run(call, deadline=Deadline(None))
    assert caught.value.elapsed_s == 33  # three calls of 10 s, waits of 1 and 2


async def test_who_made_the_first_attempt_itself_goes_on_as_if_it_had_been_made_here() -> None:
    """Attempts and time are counted from that one, and its wait comes before the next."""
    clock = ManualClock(0.0)
    first = NodeUnreachableError("first")
    chosen = policy(Sleeper(), attempts=3, clock=clock, sleep=clock.sleep)
    clock.advance(10)
    with pytest.raises(NodeUnreachableError, match="again") as caught:
        await chosen.go_on(
            first, failing(9, NodeUnreachableError("again")), started=0.0, deadline=Deadline(None)
        )
    assert (first.attempts, first.elapsed_s) == (1, 10)
    assert (caught.value.attempts, caught.value.elapsed_s) == (3, 13)  # waits of 1 and 2


async def test_a_first_failure_that_is_not_worth_it_is_raised_as_it_is() -> None:
    """Nothing is called."""
    first = WalletRefusedError("no")
    with pytest.raises(WalletRefusedError) as caught:
        await policy(Sleeper()).go_on(
            first, failing(0, ZeroDivisionError()), started=0.0, deadline=Deadline(None)
        )
    assert caught.value is first
    assert first.attempts == 1


@given(
    asked=st.floats(0, 1e9),
    cap=st.floats(0.001, 1e6),
    attempt=st.integers(1, 100),
    chance=st.floats(0, 1),
)
def test_retry_after_is_a_floor_with_a_cap(asked: float, cap: float, attempt: int, chance: float) -> None:
    """Never sooner than the peer asked, unless it asked for more than the cap; never longer than cap or own wait."""
    chosen = RetryPolicy(random=lambda: chance, longest_retry_after_s=cap)
    usual = chosen.wait_s(attempt, NodeUnreachableError("x"))
    error = ConnectError("x", status=503, retry_after=asked)
    assert chosen.wait_s(attempt, error) == max(usual, min(asked, cap))


@given(
    first=st.floats(0.001, 100),
    longest=st.floats(0.001, 1000),
    chances=st.lists(st.floats(0, 1), min_size=1, max_size=30),
)
async def test_the_waits_follow_the_formula(first: float, longest: float, chances: list[float]) -> None:
    """The wait before attempt k + 1 is half to all of min(longest, first * 2**(k - 1)), by the number drawn for it."""
    sleeper, drawn = Sleeper(), iter(chances)
    chosen = policy(
        sleeper,
        first_wait_s=first,
        longest_wait_s=longest,
        attempts=len(chances) + 1,
        random=lambda: next(drawn, 0.0),
    )
    with pytest.raises(NodeUnreachableError) as caught:
        await chosen.run(failing(99, NodeUnreachableError("x")), deadline=Deadline(None))
    assert caught.value.attempts == len(chances) + 1
    assert len(sleeper.waits) == len(chances)
    for place, (wait, chance) in enumerate(zip(sleeper.waits, chances, strict=True)):
        full = min(longest, first * 2.0**place)
        assert full / 2 <= wait <= full
        assert wait == pytest.approx(full * (0.5 + chance / 2))


@given(
    total=st.floats(0.1, 100),
    per_call=st.floats(0, 10),
    asked=st.none() | st.floats(0, 200),
    attempts=st.integers(1, 20),
)
async def test_nothing_is_begun_at_or_after_the_deadline(
    total: float, per_call: float, asked: float | None, attempts: int
) -> None:
    """No wait reaches the deadline, whatever peers ask for, and no attempt begins after it."""
    clock = ManualClock(0.0)
    deadline = Deadline(total, clock=clock)
    begun: list[float] = []

    async def call() -> None:
        begun.append(clock())
        clock.advance(min(per_call, deadline.remaining() or 0.0))  # an attempt is capped by the deadline
        raise ConnectError("x", status=503, retry_after=asked)

    chosen = policy(Sleeper(), sleep=clock.sleep, clock=clock, attempts=attempts)
    with pytest.raises(ConnectError) as caught:
        await chosen.run(call, deadline=deadline)
    assert max(begun) < total
    assert clock() <= total
    assert caught.value.attempts == len(begun) <= attempts


async def test_the_first_attempt_needs_no_tenacity(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that succeeds pays for none of it."""
    monkeypatch.setitem(sys.modules, "tenacity", None)
    assert await policy(Sleeper()).run(failing(0, ZeroDivisionError()), deadline=Deadline(None)) == "call 1"


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
        ({"longest_wait_s": float("inf")}, "longest_wait_s"),
        ({"longest_retry_after_s": float("nan")}, "longest_retry_after_s"),
        ({"table": {}}, "table"),
        ({"before_sleep": "log"}, "before_sleep"),
        ({"before_sleep": asyncio.sleep}, "before_sleep"),
    ],
)
def test_bad_policies(change: dict[str, Any], field: str) -> None:
    """Each number names itself when it is wrong."""
    with pytest.raises(InvalidFieldError, match=field):
        RetryPolicy(**change)


# --- which failures are worth another attempt -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NodeUnreachableError("x"), True),
        (NodeTimeoutError("x"), True),
        (RequestTimeoutError("x"), True),
        (ConnectionLostError("x", close_code=1006), True),
        (RateLimitedError("x", code=NodeCode.RATE_LIMITED, retry_after=1.0), True),
        (NodeRefusedError("x", code=NodeCode.UNAVAILABLE, retryable=True), True),
        (NodeRefusedError("x", code=-32000, retryable=True), False),
        (ConnectError("x"), True),
        (ConnectError("x", status=503), True),
        (ConnectError("x", status=404), False),
        (GatewayError("x", retryable=True), True),
        (GatewayError("x", status=429, retryable=True), True),
        (GatewayError("x", status=403, retryable=True), False),
        (GatewayError("x"), False),
        (NodeProtocolError("x"), False),
        (WalletRefusedError("x"), False),
        (DeadlineExceededError("x"), False),
        (QuorumError("x", threshold=2, outcomes=()), False),
        (ZeroDivisionError(), False),
        (TimeoutError(), False),
    ],
)
def test_class_and_number_decide(error: BaseException, expected: bool) -> None:
    """The default table, line by line."""
    assert DEFAULT_RETRY_TABLE.allows(error) is expected


@pytest.mark.parametrize("error", [NodeTimeoutError, NodeUnreachableError, RequestTimeoutError])
def test_what_is_not_safe_is_never_tried_again(error: type[DanError]) -> None:
    """Whoever made the error knows whether the request may have done its work."""
    assert not DEFAULT_RETRY_TABLE.allows(error("x", retryable=False))


@given(text=st.text())
def test_words_decide_nothing(text: str) -> None:
    """The same class and number give the same answer, whatever the peer says."""
    assert DEFAULT_RETRY_TABLE.allows(NodeTimeoutError(text))
    assert not DEFAULT_RETRY_TABLE.allows(NodeRefusedError(text, code=-32001, retryable=True))


def test_the_node_protocol_is_the_source_of_its_codes() -> None:
    """The numbers are those of the wire."""
    assert {NodeCode.INTERNAL_ERROR, NodeCode.RATE_LIMITED, NodeCode.UNAVAILABLE} == NODE_CODES


def test_statuses_that_judge_the_request_are_not_listed() -> None:
    """A request that was refused will be refused again."""
    assert not HTTP_STATUSES & {400, 401, 403, 404, 407, 409, 410, 413, 501, 505}


class OurOwnError(DanError):
    """An error that no table knows."""

    is_retryable = True


class LateNodeError(NodeTimeoutError):
    """An error whose ancestor is listed."""


def test_an_unlisted_class_is_as_it_says() -> None:
    """Errors that are added later need no line."""
    assert DEFAULT_RETRY_TABLE.allows(OurOwnError("x"))
    assert not DEFAULT_RETRY_TABLE.allows(OurOwnError("x", retryable=False))


def test_a_class_is_as_its_nearest_listed_ancestor() -> None:
    """Rows hold for what is derived from them."""
    table = DEFAULT_RETRY_TABLE.but({NodeTimeoutError: False})
    assert DEFAULT_RETRY_TABLE.allows(LateNodeError("x"))
    assert not table.allows(LateNodeError("x"))
    assert table.but({LateNodeError: True}).allows(LateNodeError("x"))


def test_a_policy_is_copied_and_pickled_like_every_setting() -> None:
    """For another process, or the default of somebody's own settings."""
    table = DEFAULT_RETRY_TABLE.but({NodeTimeoutError: False})
    policy = RetryPolicy(attempts=5, table=table)
    for copied in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert (copied.attempts, copied.table) == (5, table)


def test_rows_can_be_changed_without_changing_the_default() -> None:
    """`but` gives a new table."""
    table = DEFAULT_RETRY_TABLE.but({NodeTimeoutError: False, ConnectError: frozenset({503})})
    assert not table.allows(NodeTimeoutError("x"))
    assert table.allows(NodeUnreachableError("x"))
    assert not table.allows(ConnectError("x", status=502))
    assert DEFAULT_RETRY_TABLE.allows(NodeTimeoutError("x"))
    with pytest.raises(TypeError):
        DEFAULT_RETRY_TABLE.rows[NodeTimeoutError] = False  # type: ignore[index]  # that it cannot be set is the point


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {ValueError: True},
        {"NodeTimeoutError": True},
        {NodeTimeoutError: 1},
        {NodeTimeoutError: {503}},
    ],
)
def test_malformed_rows_are_refused(rows: Any) -> None:
    """When the table is made, not when something fails."""
    with pytest.raises(InvalidFieldError, match="rows"):
        RetryTable(rows)

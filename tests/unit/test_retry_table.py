"""Which failures are worth another attempt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from dan_async.retry import DEFAULT_RETRY_TABLE, HTTP_STATUSES, NODE_CODES, RetryTable


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

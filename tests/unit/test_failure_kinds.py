"""Each node code and each error class: worth another attempt, cured by a new round, final, or nobody's fault."""

from __future__ import annotations

import pytest

from dan_async import errors
from dan_async.errors import DanError, FailureKind, NodeCode, NodeRefusedError, failure_kind
from dan_async.retry import DEFAULT_RETRY_TABLE

#: Retryable, curable, final, blameless: each code of dan-node/1 by its number.
CODES = {
    -32700: "----",
    -32600: "----",
    -32601: "--f-",
    -32602: "--f-",
    -32603: "rc--",
    -32010: "----",
    -32011: "rc--",
    -32012: "rc--",
    -32020: "-c--",
    -32021: "-c--",
    -32022: "-c--",
    -32023: "----",
    -32024: "--f-",
    -32025: "----",
    -32026: "---b",
    -32027: "--f-",
    -32030: "-c--",
    -32031: "---b",
    -32040: "--f-",
    -32041: "--f-",
    -32042: "--f-",
    -32043: "---b",
    -32044: "---b",
    # no code of ours
    -32000: "----",
    0: "----",
    1: "----",
}

RETRYABLE_CLASSES = {
    "ConnectError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "NodeTimeoutError",
    "NodeUnreachableError",
    "QuorumDeadlineError",
    "QuorumError",
    "RateLimitedError",
    "RequestTimeoutError",
    "SessionPendingError",
    "StoreLockedError",
    "StoreUnavailableError",
}

#: The end of a whole job: worth calling again, and no policy does that by itself.
WHOLE_JOBS = {"DeadlineExceededError", "QuorumDeadlineError", "QuorumError"}


def kinds_of(code: int) -> str:
    error = NodeRefusedError("no", code=code)
    flags = (FailureKind.RETRYABLE, FailureKind.CURABLE, FailureKind.FINAL, FailureKind.BLAMELESS)
    return "".join(
        letter if flag in failure_kind(error) else "-" for letter, flag in zip("rcfb", flags, strict=True)
    )


@pytest.mark.parametrize(("code", "expected"), CODES.items())
def test_each_code(code: int, expected: str) -> None:
    """All four, for each number; the retry policy goes by the first."""
    assert kinds_of(code) == expected
    assert DEFAULT_RETRY_TABLE.allows(NodeRefusedError("no", code=code, retryable=True)) is ("r" in expected)


def test_no_code_is_left_out() -> None:
    """A new code needs a line here, and a thought."""
    assert set(NodeCode) <= CODES.keys()


def classes() -> list[type[DanError]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, DanError)]


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_each_class(kind: type[DanError]) -> None:
    """Whether calling again is safe and may help, and whether the retry policy does it."""
    error = kind.__new__(kind)
    DanError.__init__(error, "x")
    assert error.retryable is (kind.__name__ in RETRYABLE_CLASSES)
    if not isinstance(error, NodeRefusedError):
        assert (FailureKind.RETRYABLE in failure_kind(error)) is error.retryable
    assert DEFAULT_RETRY_TABLE.allows(error) is (kind.__name__ in RETRYABLE_CLASSES - WHOLE_JOBS)

"""One tree, with context, that survives pickling and shows no secrets; each class and node code has its kind."""

from __future__ import annotations

import inspect
import pickle

import pytest

from dan_async import errors
from dan_async._values import from_hex, to_hex
from dan_async.errors import (
    DanError,
    FailureKind,
    NodeCode,
    NodeOutcome,
    NodeRefusedError,
    failure_kind,
    require_extra,
)
from dan_async.retry import DEFAULT_RETRY_TABLE

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]


@pytest.mark.parametrize("cls", CLASSES)
def test_one_except_catches_them_all(cls: type) -> None:
    """Every error of the module is a DanError."""
    assert issubclass(cls, errors.DanError)


def test_context_and_hint() -> None:
    """The message says what happened, the hint what to do, and the context is there to program against."""
    error = errors.NodeTimeoutError(
        "no answer", hint="Wait", node="0xabc", request_id="0x1", method="m", phase="keygen"
    )
    assert str(error) == "no answer. Wait"
    assert (error.node, error.request_id, error.method, error.phase) == ("0xabc", "0x1", "m", "keygen")
    assert error.retryable
    assert error.nodes == ()
    assert not errors.WalletRefusedError("no").retryable
    assert errors.DanError("x", retryable=True).retryable


def test_quorum_errors_list_the_nodes() -> None:
    """One line for each node that was asked."""
    outcomes = [
        NodeOutcome(operator="0xa", error=errors.NodeTimeoutError("no answer"), attempts=3, elapsed_s=1.5),
        NodeOutcome(operator="0xb", error=ValueError()),
        NodeOutcome(operator="0xc"),
        NodeOutcome(operator="0xd", step="challenge", answer=b"nonce"),
        NodeOutcome(
            operator="0xe", step="keygen", error=errors.NodeRefusedError("no", code=-32030, culprits=("0xa",))
        ),
    ]
    error = errors.QuorumError("0 of 3 agree", threshold=2, outcomes=outcomes, hint="Look")
    assert str(error).splitlines() == [
        "0 of 3 agree. Look",
        "  blamed by most of the others: node 0xa",
        "  node 0xa: no answer (1.50 s, 3 attempts)",
        "  node 0xb: ValueError (0.00 s, 1 attempt)",
        "  node 0xc: had not answered yet (0.00 s, 1 attempt)",
        "  node 0xd: challenge: ready (0.00 s, 1 attempt)",
        "  node 0xe: keygen: no; it blames 0xa (0.00 s, 1 attempt, code -32030)",
    ]
    assert error.nodes == tuple(outcomes)


def blame(*culprits: str) -> NodeOutcome:
    return NodeOutcome(operator="0x0", error=errors.NodeRefusedError("no", code=-32030, culprits=culprits))


@pytest.mark.parametrize(
    ("outcomes", "culprits"),
    [
        ([], ()),
        ([blame("0xa")], ("0xa",)),
        ([blame("0xa"), blame()], ()),
        ([blame("0xa"), blame("0xb")], ()),
        ([blame("0xa", "0xa"), blame("0xb"), blame("0xc")], ()),
        ([blame("0xa"), blame("0xb", "0xa"), blame("0xc")], ("0xa",)),
        ([blame("0xb", "0xa"), blame("0xb", "0xa"), blame("0xc")], ("0xa", "0xb")),
        ([blame("0xa"), NodeOutcome(operator="0x1", error=errors.NodeTimeoutError("late"))], ("0xa",)),
        ([blame("0xa"), NodeOutcome(operator="0xa", error=errors.NodeRefusedError("no", code=-1))], ("0xa",)),
        ([blame("0xa"), blame(), NodeOutcome(operator="0xa", error=blame("0xa").error)], ()),
    ],
)
def test_whom_most_blame(outcomes: list[NodeOutcome], culprits: tuple[str, ...]) -> None:
    """A culprit is who more than half of the other refusing nodes name; one node's word counts once."""
    assert errors.QuorumError("none", threshold=2, outcomes=outcomes).culprits == culprits


def test_a_quorum_that_ran_out_of_time_is_both() -> None:
    """Whoever catches deadlines and whoever catches missing quorums gets it."""
    error = errors.QuorumDeadlineError("late", threshold=2, outcomes=())
    assert isinstance(error, errors.QuorumError | TimeoutError)
    assert isinstance(error, errors.DeadlineExceededError)
    assert error.retryable


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidFieldError("duration", "must be more", hint="x"),
        errors.RateLimitedError("slow", code=-1, retry_after=2.0, node="0xa"),
        errors.ConnectionLostError("lost", close_code=1006, close_reason="r"),
        errors.ConnectError("lost", status=503, retry_after=3.0),
        errors.GatewayError("lost", close_code=1000, status=403),
        errors.RpcError(-5, "no", {"a": 1}),
        errors.QuorumError("none", threshold=2, outcomes=()),
        errors.QuorumDeadlineError("none", threshold=2, outcomes=()),
    ],
)
def test_errors_cross_process_boundaries(error: errors.DanError) -> None:
    """Pickling keeps type, text and context."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_a_missing_extra_names_the_pip_line() -> None:
    """The hint can be pasted."""
    with pytest.raises(errors.MissingExtraError) as caught:
        require_extra("no_such_package_here", extra="cli", purpose="The command line")
    assert 'pip install "dan-async[cli]"' in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert require_extra("json", extra="cli", purpose="x").loads("1") == 1


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("0x123", {}),
        ("zz", {}),
        ("0x 12", {}),
        ("12\n", {}),
        (12, {}),
        (b"12", {}),
        ("1234", {"length": 3}),
        ("1234", {"prefix": True}),
        ("0x1234", {"prefix": False}),
        ("１２", {}),
    ],
)
def test_bad_hex(text: object, rules: dict[str, object]) -> None:
    """Strict, and the text is never repeated."""
    with pytest.raises(errors.InvalidFieldError, match=r"^secret ") as caught:
        from_hex(text, field="secret", **rules)
    assert str(text) not in str(caught.value)


def test_good_hex() -> None:
    """Both forms, both cases."""
    assert from_hex("0xAbCd", field="x") == from_hex("abcd", field="x", length=2) == b"\xab\xcd"
    assert to_hex(b"\xab\xcd") == "0xabcd"
    assert from_hex("", field="x") == b""


def test_no_error_commands_a_terminal() -> None:
    """Control and format characters of a peer's text are escaped, in message, hint and arguments; line breaks stay."""
    told = "reverted: \x1b]0;owned\x07\x9b2J\u202etxt.exe\r\nwell, é"
    error = errors.TransportError(told, hint=told)
    assert error.message == error.hint == error.args[0]
    assert error.message == "reverted: \\x1b]0;owned\\x07\\x9b2J\\u202etxt.exe\\r\nwell, é"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


# --- failure kinds: of each node code and each error class ------------------------------------------------------------

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
    "BatchInterruptedError",
    "ConnectError",
    "ConnectionLostError",
    "DeadlineExceededError",
    "NodeTimeoutError",
    "NodeUnreachableError",
    "OverloadedError",
    "QuorumDeadlineError",
    "QuorumError",
    "RateLimitedError",
    "RequestTimeoutError",
    "SessionPendingError",
    "StoreConnectionError",
    "StoreLockedError",
    "StoreUnavailableError",
}

#: The end of a whole job: worth calling again, and no policy does that by itself.
WHOLE_JOBS = {"DeadlineExceededError", "OverloadedError", "QuorumDeadlineError", "QuorumError"}


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

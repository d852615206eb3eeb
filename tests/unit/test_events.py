"""Events, their listeners, and the log records of a request."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from attrs import fields, fields_dict
from attrs.exceptions import FrozenInstanceError

from dan_async import DanClient, LocalWallet, events
from dan_async.errors import (
    ConnectError,
    ConnectionLostError,
    InvalidFieldError,
    NodeRefusedError,
    NodeTimeoutError,
    QuorumError,
)
from dan_async.events import AttemptFailed, Event, NodeDown, NodeUp, Verdict
from dan_async.listeners import EventHub, RequestLog, failure_of
from dan_async.types import MpcKeyId, OperatorAddress, RequestId
from tests.fake_nodes import FakeNetwork

NODE = OperatorAddress("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")
UP = NodeUp(node=NODE, failures=2)

EVENTS = [
    kind
    for kind in vars(events).values()
    if inspect.isclass(kind) and issubclass(kind, Event) and not kind.__name__.startswith("_")
]


def test_events_are_frozen() -> None:
    """A listener cannot change what the next one sees."""
    with pytest.raises(FrozenInstanceError):
        UP.failures = 3  # type: ignore[misc]  # that it cannot be set is the point


def test_events_have_names_for_logs() -> None:
    """Name and fields are what json.dumps takes."""
    event = Verdict(
        request_id=RequestId("0x01"),
        operation="keygen",
        is_won=False,
        agreed=1,
        threshold=2,
        parties=3,
        failed=(NODE,),
        elapsed_s=0.5,
        key_id=MpcKeyId("ab"),
    )
    read = json.loads(json.dumps(event.to_dict()))
    assert read["event"] == event.name == "verdict"
    assert read["failed"] == [NODE]
    assert AttemptFailed.name == "attempt_failed"


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_field_is_plain(kind: type[Event]) -> None:
    """Ids, names, numbers: there is no field that an error, a payload or a key would fit into."""
    plain = {"str", "int", "float", "bool", "None", "RequestId", "MpcKeyId", "OperatorAddress"}
    for field in fields(kind):
        words = set(str(field.type).replace("tuple[", "").replace(", ...]", "").split(" | "))
        assert words <= plain or "Literal" in str(field.type), field.name


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_every_field_is_described(kind: type[Event]) -> None:
    """The docstring of an event or of what it extends names each of its fields."""
    described = " ".join(inspect.cleandoc(base.__doc__ or "") for base in kind.__mro__)
    assert {name for name in fields_dict(kind) if f"{name}: " not in described} == set()


@pytest.mark.parametrize(
    "kind", [kind for kind in EVENTS if kind is not Event], ids=lambda kind: kind.__name__
)
def test_every_event_is_in_the_table(kind: type[Event]) -> None:
    """docs/reference/events.md has a row with its name and class."""
    page = Path(__file__).parent.parent.parent / "docs" / "reference" / "events.md"
    assert f"| `{kind.name}` | `{kind.__name__}` |" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NodeTimeoutError("late"), ("NodeTimeoutError", None)),
        (NodeRefusedError("no", code=-32001), ("NodeRefusedError", -32001)),
        (ConnectError("no", status=503), ("ConnectError", 503)),
        (ConnectionLostError("gone", close_code=1006), ("ConnectionLostError", 1006)),
        (ZeroDivisionError("secret"), ("ZeroDivisionError", None)),
    ],
)
def test_a_failure_is_a_class_and_a_number(error: BaseException, expected: tuple[str, int | None]) -> None:
    """What the error says in words is left out."""
    assert failure_of(error) == expected


# --- event listeners --------------------------------------------------------------------------------------------------


def test_nobody_listens_at_first() -> None:
    """So that whoever has an event need not make it."""
    assert EventHub().listeners == ()
    EventHub().emit(UP)


def test_every_listener_hears_every_event_in_order() -> None:
    """The first one and those that were added."""
    heard: list[tuple[str, Event]] = []
    hub = EventHub(lambda event: heard.append(("first", event)))
    hub.add(lambda event: heard.append(("second", event)))
    down = NodeDown(node=NODE, failures=1, rest_s=1.0)
    hub.emit(down)
    hub.emit(UP)
    assert heard == [("first", down), ("second", down), ("first", UP), ("second", UP)]


def test_a_listener_that_is_added_twice_hears_once() -> None:
    """A client and its network may be given the same function."""
    heard: list[Event] = []
    hub = EventHub(heard.append)
    hub.add(heard.append)
    hub.emit(UP)
    assert heard == [UP]


def test_what_a_listener_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The others hear all the same, and the log is not flooded."""
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ZeroDivisionError

    hub = EventHub(broken)
    hub.add(heard.append)
    with caplog.at_level(logging.DEBUG, logger="dan_async"):
        for _ in range(3):
            hub.emit(UP)
    assert heard == [UP, UP, UP]
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "broken" in record.getMessage()
    assert "node_up" in record.getMessage()


def test_each_broken_listener_is_logged() -> None:
    """That one has failed does not hide another."""
    hub = EventHub()
    seen: list[Any] = []

    def first(event: Event) -> None:
        raise KeyError

    def second(event: Event) -> None:
        raise ValueError

    hub.add(first)
    hub.add(second)
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]  # a handler that only collects
    logger = logging.getLogger("dan_async.listeners")
    logger.addHandler(handler)
    try:
        hub.emit(UP)
        hub.emit(UP)
    finally:
        logger.removeHandler(handler)
    assert [record.exc_info[0] for record in seen] == [KeyError, ValueError]


def test_cancellation_in_a_listener_passes() -> None:
    """Interrupts are not the listener's failures."""

    def interrupted(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EventHub(interrupted).emit(UP)


class Listening:
    """An object that is called."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.heard.append(event)


class Awaited:
    """An object whose call nobody would await."""

    async def __call__(self, event: Event) -> None: ...


async def awaited(event: Event) -> None: ...


def test_an_object_can_listen() -> None:
    """Whatever can be called."""
    listening = Listening()
    EventHub(listening).emit(UP)
    assert listening.heard == [UP]


@pytest.mark.parametrize("hook", [awaited, Awaited(), Awaited().__call__, "log", 7])
def test_what_cannot_listen_is_refused(hook: Any) -> None:
    """Coroutine functions would never run."""
    with pytest.raises(InvalidFieldError, match="on_event"):
        EventHub(hook)


# --- log records that belong to a request -----------------------------------------------------------------------------

WALLET = LocalWallet("0x" + "00" * 31 + "01")
LOG = logging.getLogger("dan_async.test")


def test_the_id_stands_in_the_message_and_on_the_record(caplog: pytest.LogCaptureFixture) -> None:
    """For people and for formatters."""
    with caplog.at_level(logging.INFO, logger="dan_async"):
        RequestLog(LOG, "0x01").info("%d nodes", 3, extra={"node": "0xab"})
    (record,) = caplog.records
    assert record.getMessage() == "request 0x01: 3 nodes"
    assert (record.__dict__["request_id"], record.__dict__["node"]) == ("0x01", "0xab")


def test_what_belongs_to_no_request_is_logged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """The attribute is there all the same, so that a format with it works."""
    with caplog.at_level(logging.INFO, logger="dan_async"):
        RequestLog(LOG, None).info("hello")
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["request_id"]) == ("hello", None)


def test_an_id_is_not_a_format(caplog: pytest.LogCaptureFixture) -> None:
    """Ids of relayed requests come from outside."""
    with caplog.at_level(logging.INFO, logger="dan_async"):
        RequestLog(LOG, "%s%d").info("%s", "x")
    assert caplog.records[0].getMessage() == "request %s%d: x"


async def test_everything_that_a_keygen_logs_has_its_request(caplog: pytest.LogCaptureFixture) -> None:
    """Retries, outcomes, verdict and result: one id, in both places."""
    fake = FakeNetwork(2, 4)

    async def refuse(method: str, params: object) -> None:
        raise ConnectError("nobody listens")

    fake.misbehaviour[fake.operator(1)] = refuse
    async with DanClient(fake.network()) as dan:
        with caplog.at_level(logging.DEBUG, logger="dan_async"):
            await dan.generate_session_key(wallet=WALLET, chain_id=1, threshold=2, parties_number=3)
    ids = {record.__dict__.get("request_id") for record in caplog.records if "node " not in record.msg}
    assert len(ids) == 1
    (request_id,) = ids
    assert isinstance(request_id, str)
    messages = [record.getMessage() for record in caplog.records]
    assert any("attempt 1 of dan_challenge" in message for message in messages)
    assert any(
        message.startswith(f"request {request_id}: keygen: 3 nodes agree, 2 are needed")
        for message in messages
    )
    assert any(f"node {fake.operator(1)} failed and rests" in message for message in messages)
    assert {record.levelname for record in caplog.records} == {"INFO"}


async def test_a_keygen_that_starts_again_warns(caplog: pytest.LogCaptureFixture) -> None:
    """Under the id of the attempt that failed; the nodes' failures are warnings as well."""
    fake = FakeNetwork(2, 3)

    async def lose(method: str, params: object) -> None:
        if method == "dan_keygen":
            raise ConnectError("gone")

    fake.misbehaviour = {fake.operator(i): lose for i in (1, 2, 3)}
    async with DanClient(fake.network()) as dan:
        with caplog.at_level(logging.WARNING, logger="dan_async"), pytest.raises(QuorumError):
            await dan.generate_session_key(wallet=WALLET, chain_id=1)
    assert any("starting again" in record.getMessage() for record in caplog.records)
    for record in caplog.records:
        assert record.getMessage().startswith(f"request {record.__dict__['request_id']}: ")

"""Events: what they are made of."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from attrs import fields, fields_dict
from attrs.exceptions import FrozenInstanceError

from dan_async import events
from dan_async.errors import ConnectError, ConnectionLostError, NodeRefusedError, NodeTimeoutError
from dan_async.events import AttemptFailed, Event, NodeUp, Verdict, failure_of
from dan_async.types import MpcKeyId, OperatorAddress, RequestId

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
    """docs/observability.md has a row with its name and class."""
    page = Path(__file__).parent.parent.parent / "docs" / "observability.md"
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

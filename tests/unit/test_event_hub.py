"""Telling events to those who listen."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from dan_async.errors import InvalidFieldError
from dan_async.events import Event, EventHub, NodeDown, NodeUp
from dan_async.types import OperatorAddress

NODE = OperatorAddress("0x2c7536E3605D9C16a7a3D7b1898e529396a65c23")
UP = NodeUp(node=NODE, failures=2)


def test_nobody_listens_at_first() -> None:
    """So that whoever has an event need not make it."""
    assert EventHub().hooks == ()
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
    logger = logging.getLogger("dan_async.events")
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

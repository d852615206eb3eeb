"""Telling events to those who listen."""

from __future__ import annotations

import inspect
import logging

from dan_async.errors import InvalidFieldError
from dan_async.events import Event, OnEvent

_log = logging.getLogger(__name__)


def failure_of(error: BaseException) -> tuple[str, int | None]:
    """Give what an event says of an error: its class and its number, never its text."""
    for attribute in ("code", "status", "close_code"):
        number = getattr(error, attribute, None)
        if isinstance(number, int):
            return type(error).__name__, int(number)
    return type(error).__name__, None


def check_hook(on_event: OnEvent) -> None:
    """
    Check that a function can listen.

    Raises:
        InvalidFieldError: It cannot be called, or is a coroutine function, which nobody would await.
    """
    if not callable(on_event):
        raise InvalidFieldError("on_event", f"must be a function, not {type(on_event).__name__}")
    called = on_event if inspect.isroutine(on_event) else type(on_event).__call__
    if inspect.iscoroutinefunction(on_event) or inspect.iscoroutinefunction(called):
        raise InvalidFieldError(
            "on_event",
            "must be a plain function, not a coroutine function",
            hint="Put the event into an asyncio.Queue with put_nowait(), and await elsewhere",
        )


class EventHub:
    """
    Passes events on to those who listen.

    Making an event costs more than looking whether anybody wants it, so whoever has one to tell looks first::

        if events.hooks:
            events.emit(NodeUp(node=operator, failures=3))

    Args:
        on_event: The first listener, if there is one.

    Attributes:
        hooks: Who listens; empty if nobody does.

    Raises:
        InvalidFieldError: *on_event* is not a plain function.
    """

    __slots__ = ("_broken", "hooks")

    hooks: tuple[OnEvent, ...]

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self.hooks = ()
        self._broken: list[OnEvent] = []
        if on_event is not None:
            self.add(on_event)

    def add(self, on_event: OnEvent) -> None:
        """
        Let one more function listen; one that listens already is not called twice.

        Raises:
            InvalidFieldError: It cannot be called, or is a coroutine function, which nobody would await.
        """
        check_hook(on_event)
        if on_event not in self.hooks:
            self.hooks = (*self.hooks, on_event)

    def emit(self, event: Event) -> None:
        """Call every listener. What one raises is logged the first time, and is nobody else's business."""
        for hook in self.hooks:
            try:
                hook(event)
            except Exception:  # noqa: BLE001 - a listener's bug must not become a failed key generation
                if hook not in self._broken:
                    self._broken.append(hook)
                    _log.exception(
                        "the on_event function %r failed at %s; further failures of it are not logged",
                        getattr(hook, "__qualname__", type(hook).__name__),
                        event.name,
                    )

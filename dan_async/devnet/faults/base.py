"""What every fault has in common, and how a fault in force ends a request or a node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
from attrs import field, frozen

from dan_async.errors import InvalidFieldError
from dan_async.models._fields import check_int, check_text, optional
from dan_async.types import Json

__all__ = ["Fault", "NodeCrashed", "RequestDropped"]


class RequestDropped(Exception):  # noqa: N818 - nothing went wrong that was not asked for
    """The fault in force is that this request gets no answer."""


class NodeCrashed(Exception):  # noqa: N818 - as above
    """
    The fault in force is that the node dies here.

    Args:
        restart_after: Seconds until it comes back by itself; None for never.
    """

    def __init__(self, restart_after: float | None = None) -> None:
        super().__init__()
        self.restart_after = restart_after


def _check_methods(_: object, attribute: Any, value: object) -> None:
    if not isinstance(value, tuple):
        raise InvalidFieldError(attribute.name, "must be a list of RPC methods")
    for method in value:
        check_text("methods", method, most=64)


def _to_methods(value: Any) -> Any:
    # A text would silently become a tuple of letters.
    return value if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class Fault:
    """
    Something a node does wrong.

    Args:
        methods: The RPC methods concerned; all, if there are none. Not for faults that are about no method.
        times: How often it happens; always, if None. Not for faults that are a state.

    Raises:
        InvalidFieldError: A value is out of range, or the fault does not take it.
    """

    #: Whether the fault can be limited to some methods.
    takes_methods: ClassVar[bool] = True
    #: Whether the fault can be limited to so many times.
    takes_times: ClassVar[bool] = True

    methods: tuple[str, ...] = field(default=(), converter=_to_methods, validator=_check_methods)
    times: int | None = field(default=None, validator=optional(check_int, least=1, most=2**31))

    def __attrs_post_init__(self) -> None:
        if self.methods and not self.takes_methods:
            raise InvalidFieldError("methods", f"are not for {type(self).__name__}, which is about no method")
        if self.times is not None and not self.takes_times:
            raise InvalidFieldError(
                "times", f"is not for {type(self).__name__}, which lasts until it is taken away"
            )

    def to_dict(self) -> dict[str, Json]:
        """Give it as JSON members, for a node in another process."""
        members = attrs.asdict(self)
        return {**members, "kind": type(self).__name__, "methods": list(self.methods)}

    @staticmethod
    def from_dict(members: Mapping[str, Json]) -> Fault:
        """
        Read it back.

        Raises:
            InvalidFieldError: There is no such fault.
        """
        from dan_async.devnet.faults.kinds import KINDS

        values = dict(members)
        name = values.pop("kind", None)
        kind = next((kind for kind in KINDS if kind.__name__ == name), None)
        if kind is None:
            raise InvalidFieldError("fault", "is of an unknown kind")
        return kind(**values)

"""A transport without a network, for tests of code that uses one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from dan_async._json import is_too_deep
from dan_async.errors import InvalidFieldError, ProtocolError
from dan_async.transport.connecting import InFlight
from dan_async.transport.rpc import MAX_DEPTH, check_method
from dan_async.types import Json


class InMemoryTransport:
    """
    Answers calls with a function of yours.

    It behaves as a real transport does: every call gives way to the event loop, results go through JSON text (a tuple
    comes back as a list), time limits and closing end a handler that does not come to an end.

    Args:
        handler: Takes the method and the decoded parameters and gives the result. It may raise ``RpcError``, or any
            other error that a transport can raise, such as ``ConnectionLostError``; the caller gets it as it is.
        name: Stands for the peer's URL in errors.

    Example:
        >>> async def handler(method, params):
        ...     return {"echo": params}
        >>> transport = InMemoryTransport(handler)
    """

    def __init__(self, handler: Callable[[str, Json], Awaitable[Json]], *, name: str = "memory") -> None:
        self._handler = handler
        self._name = name
        self._in_flight = InFlight(name)

    def __repr__(self) -> str:
        return f"InMemoryTransport(name={self._name!r})"

    async def call(self, method: str, params: str, *, timeout_s: float | None) -> Json:
        """
        Have the handler answer; see ``Transport.call``.

        Raises:
            InvalidFieldError: The method is not a name, or the parameters are not JSON.
            ProtocolError: The handler's result is not JSON.
            RequestTimeoutError: The handler took longer than *timeout_s*.
            ClientClosedError: The transport was closed.
        """
        check_method(method)
        if is_too_deep(params, MAX_DEPTH):
            raise InvalidFieldError("params", f"must not be nested more than {MAX_DEPTH} levels deep")
        try:
            decoded = json.loads(params)
        except ValueError:
            raise InvalidFieldError("params", "must be JSON text") from None
        async with self._in_flight.call(method, timeout_s):
            await asyncio.sleep(0)
            result = await self._handler(method, decoded)
            await asyncio.sleep(0)
        try:
            return json.loads(json.dumps(result, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise ProtocolError(f"the result of {method} at {self._name} is not JSON") from None

    async def aclose(self) -> None:
        """Fail what is pending with ``ClientClosedError``. May be called twice."""
        await self._in_flight.aclose()

"""A JSON-RPC service over HTTP, asked with the package's retry rules: bundler, paymaster, the chain's node."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dan_async._tasks import Deadline
from dan_async.config import RetryPolicy, TransportOptions
from dan_async.errors import InvalidFieldError, ProtocolError, RpcError
from dan_async.models._fields import number_of
from dan_async.types import Json
from dan_async.userops.bundler_errors import bundler_error

if TYPE_CHECKING:
    from dan_async.retry import RetryDetails
    from dan_async.transport.base import Transport

__all__ = ["JsonRpcService", "read_quantity"]

_read_number = number_of(256)


class JsonRpcService:
    """
    One service.

    What is asked here may be asked twice: reading changes nothing, and a user operation is known by its hash. So connections
    that failed or broke, and replies that did not come, are tried again as *retry* says; an error that the service answered
    with is not.

    Args:
        name: What it is called in errors: ``"bundler"``, ``"paymaster"`` or ``"node"``.
        url: Its URL: ``https``, or ``http`` to loopback. A ``Transport`` is taken as well and is not closed here.
        options: How to connect.
        retry: How often a failed attempt is repeated.
        attempt_s: Seconds that one attempt may take.

    Raises:
        InvalidFieldError: The URL is wrong.
        InsecureTransportError: It has no TLS and its host is not loopback.
    """

    def __init__(
        self,
        name: str,
        url: str | Transport,
        *,
        options: TransportOptions | None = None,
        retry: RetryPolicy | None = None,
        attempt_s: float = 15.0,
    ) -> None:
        self.name = name
        self._is_owner = isinstance(url, str)
        self._transport = _open(url, options) if isinstance(url, str) else url
        self._retry = retry or RetryPolicy()
        self._attempt_s = attempt_s

    async def call(
        self, method: str, params: Sequence[Json], *, deadline: Deadline, about: str | None = None
    ) -> Json:
        """
        Ask, and ask again where that is safe and may help.

        Args:
            method: The method.
            params: Its parameters.
            deadline: The job's.
            about: The hash of the user operation concerned.

        Raises:
            BundlerError: The service answered with an error.
            TransportError: It could not be reached, or did not answer.
            ProtocolError: It answered with something that is not JSON-RPC.
        """
        try:
            return await self.ask(method, params, deadline=deadline)
        except RpcError as error:
            raise bundler_error(error, service=self.name, method=method, user_operation_hash=about) from error

    async def ask(
        self,
        method: str,
        params: Sequence[Json],
        *,
        deadline: Deadline,
        before_sleep: Callable[[RetryDetails], None] | None = None,
    ) -> Json:
        """
        Ask like ``call``, and leave the service's error as it is.

        Args:
            method: The method.
            params: Its parameters.
            deadline: The job's.
            before_sleep: Told of each wait before another attempt.

        Raises:
            RpcError: The service answered with an error.
            TransportError: It could not be reached, or did not answer.
            ProtocolError: It answered with something that is not JSON-RPC.
        """
        text = json.dumps(list(params), separators=(",", ":"), allow_nan=False)

        async def attempt() -> Json:
            return await self._transport.call(method, text, timeout_s=deadline.cap(self._attempt_s))

        return await self._retry.run(attempt, deadline=deadline, before_sleep=before_sleep)

    def broken(self, method: str, problem: str) -> ProtocolError:
        """Make the error for an answer that is not what the method's specification says."""
        return ProtocolError(
            f"the {self.name}'s answer to {method} {problem}",
            hint="Check that the URL is that of the right service",
        )

    async def aclose(self) -> None:
        """Close the connections, if they were opened here. May be called twice."""
        if self._is_owner:
            await self._transport.aclose()

    def __repr__(self) -> str:
        return f"JsonRpcService({self.name!r}, {self._transport!r})"


def read_quantity(value: Any, service: JsonRpcService, method: str, name: str = "result") -> int:
    """
    Read a number out of an answer.

    Raises:
        ProtocolError: It is none.
    """
    try:
        return _read_number(value, name)
    except InvalidFieldError as error:
        raise service.broken(method, f"has a wrong member: {error.message}") from error


def _open(url: str, options: TransportOptions | None) -> Transport:
    # Imported here: aiohttp takes its time, and other transports need none of it.
    from dan_async.transport.http import HttpTransport

    return HttpTransport(url, options=options)

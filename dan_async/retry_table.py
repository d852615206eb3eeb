"""
Which failures are worth another attempt: a table, by the error's class and number. Nothing is decided by what an error says.

Two things must come together. The error must be ``retryable``: where it was made, it was known that repeating the request is
safe (a gateway that has the owner's signature may be at work, for example, so an error is not retryable then). And the table
must not say that it is pointless.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from attrs import field, frozen

from dan_async.errors import (
    VERDICTS,
    ConnectError,
    ConnectionLostError,
    DanError,
    DeadlineExceededError,
    GatewayError,
    InvalidFieldError,
    NodeRefusedError,
    NodeTimeoutError,
    NodeUnreachableError,
    QuorumError,
    RateLimitedError,
    RequestTimeoutError,
    Verdict,
)

__all__ = ["DEFAULT_RETRY_TABLE", "HTTP_STATUSES", "NODE_CODES", "RetryTable", "Row"]

#: HTTP statuses of a server in trouble or in a hurry (RFC 9110 section 15, RFC 6585 section 4, RFC 8470 section 5.2).
HTTP_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

#: Codes of dan-node/1 after which the same call may be made again.
NODE_CODES = frozenset(code for code, verdict in VERDICTS.items() if Verdict.RETRYABLE in verdict)

#: True: whatever its number. False: never. Numbers: if the error's is among them, or if it has none.
Row: TypeAlias = bool | frozenset[int]


def _to_rows(value: Any) -> Mapping[type[DanError], Row]:
    if not isinstance(value, Mapping):
        raise InvalidFieldError("rows", "must be a mapping of error classes")
    for kind, row in value.items():
        if not (isinstance(kind, type) and issubclass(kind, DanError)):
            raise InvalidFieldError("rows", "must have classes of dan_async.errors as keys")
        if not isinstance(row, bool | frozenset):
            raise InvalidFieldError(
                "rows", f"must say True, False or a frozenset of numbers for {kind.__name__}"
            )
    return MappingProxyType(dict(value))


@frozen
class RetryTable:
    """
    The table.

    Args:
        rows: What each class of error is worth. A class that is not listed is as its nearest listed ancestor; one without
            such an ancestor is tried again if the error says ``retryable``.

    Raises:
        InvalidFieldError: A row is malformed.

    Example::

        RetryPolicy(table=DEFAULT_RETRY_TABLE.but({NodeTimeoutError: False}))     # whoever is late is not asked again
    """

    rows: Mapping[type[DanError], Row] = field(converter=_to_rows)

    def but(self, rows: Mapping[type[DanError], Row]) -> RetryTable:
        """Give a table in which these rows are others."""
        return RetryTable({**self.rows, **_to_rows(rows)})

    def allows(self, error: BaseException) -> bool:
        """Tell whether another attempt is safe and may help."""
        if not isinstance(error, DanError) or not error.retryable:
            return False
        row = next((self.rows[kind] for kind in type(error).__mro__ if kind in self.rows), True)
        if isinstance(row, bool):
            return row
        number = _number_of(error)
        return number is None or number in row


def _number_of(error: DanError) -> int | None:
    number = getattr(error, "code", None)
    return getattr(error, "status", None) if number is None else number


DEFAULT_RETRY_TABLE = RetryTable(
    {
        ConnectError: HTTP_STATUSES,
        ConnectionLostError: True,
        RequestTimeoutError: True,
        NodeUnreachableError: True,
        NodeTimeoutError: True,
        NodeRefusedError: NODE_CODES,
        RateLimitedError: True,
        GatewayError: HTTP_STATUSES,
        # Those are the end of a whole job; a job is not one call that is made again.
        DeadlineExceededError: False,
        QuorumError: False,
    }
)

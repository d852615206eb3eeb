"""How a node says no: one error object per reason, with the codes of dan-node/1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dan_async.errors import DanError, InvalidFieldError, NodeCode
from dan_async.types import Json

__all__ = ["RefusalError", "invalid_params", "rate_limited"]


class RefusalError(DanError):
    """
    A request that the node refuses.

    Args:
        code: One of ``wire.node_1.Code``.
        message: Why, in words; it goes to the client.
        data: The error object's ``data`` member.
        rpc_id: The JSON-RPC id, where the refusal comes before the request could be taken apart.
        **context: As for ``DanError``.
    """

    def __init__(
        self,
        code: int,
        message: str,
        *,
        data: Mapping[str, Any] | None = None,
        rpc_id: int | str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.code = code
        self.data = dict(data or {})
        self.rpc_id = rpc_id

    def error_object(self) -> Json:
        """Give the ``error`` member of a JSON-RPC reply."""
        shown: dict[str, Any] = {"code": self.code, "message": self.message}
        return {**shown, "data": self.data} if self.data else shown


def invalid_params(error: DanError) -> RefusalError:
    """Refuse parameters that could not be read; ``data.field`` names the member, where one is to blame."""
    data = {"field": error.field} if isinstance(error, InvalidFieldError) else None
    return RefusalError(NodeCode.INVALID_PARAMS, error.message, data=data)


def rate_limited(message: str, retry_after_s: float) -> RefusalError:
    """Ask to come back later; ``data.retryAfter`` is in whole seconds, rounded up."""
    return RefusalError(NodeCode.RATE_LIMITED, message, data={"retryAfter": max(1, math.ceil(retry_after_s))})

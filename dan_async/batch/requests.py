"""What a request of a batch may be, and its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from dan_async.errors import InvalidFieldError
from dan_async.models.request_params import DanSessionKeyRequestParams

__all__ = ["check_names", "read_request"]


def read_request(make: Callable[..., object], request: object) -> Mapping[str, Any]:
    """
    Give the parameters of one request.

    Args:
        make: What they are parameters of.
        request: A mapping, or a ``DanSessionKeyRequestParams``.

    Raises:
        InvalidFieldError: It is neither, or a name is unknown.
    """
    if isinstance(request, DanSessionKeyRequestParams):
        return {
            "smart_account_client": request.smart_account_client,
            "browser_wallet": request.browser_wallet,
            "hardcoded_values": request.hardcoded_values,
            "duration": request.duration,
            "chain_id": request.chain_id,
        }
    if not isinstance(request, Mapping):
        raise InvalidFieldError("request", f"must be a mapping, not {type(request).__name__}")
    check_names(make, request)
    return request


def check_names(make: Callable[..., object], parameters: Mapping[Any, object]) -> None:
    """
    Check that all names are parameters.

    Raises:
        InvalidFieldError: One is not.
    """
    known = inspect.signature(make).parameters
    for name in parameters:
        if name not in known:
            shown = name if isinstance(name, str) and name.isidentifier() and len(name) <= 40 else "a name"
            raise InvalidFieldError(shown, "is not a parameter of generate_session_key")

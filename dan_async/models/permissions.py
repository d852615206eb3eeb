"""What a session key may sign: JSON text on the wire, any JSON object for the caller."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dan_async._json_depth import is_too_deep
from dan_async.errors import InvalidFieldError
from dan_async.models._fields import MAX_PERMISSIONS_LENGTH, check_text

_MAX_DEPTH = 64


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def permissions_text(value: str | Mapping[str, Any] | Sequence[Any] | None) -> str | None:
    """
    Give the permissions as the JSON text that goes on the wire.

    Args:
        value: JSON text, which is kept exactly as it is; or an object or list, which is written compactly.

    Raises:
        InvalidFieldError: It is not JSON, not an object or list, or too long.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = check_text("permissions", value, most=MAX_PERMISSIONS_LENGTH)
        if is_too_deep(text, _MAX_DEPTH):
            raise InvalidFieldError("permissions", f"must not be nested more than {_MAX_DEPTH} levels deep")
        try:
            parsed = json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            raise InvalidFieldError("permissions", "is not JSON text") from None
        if not isinstance(parsed, dict | list):
            raise InvalidFieldError("permissions", "must be a JSON object or list")
        return text
    if not isinstance(value, Mapping | Sequence) or isinstance(value, bytes | bytearray):
        raise InvalidFieldError("permissions", f"must be JSON text or an object, not {type(value).__name__}")
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidFieldError("permissions", "holds something that JSON cannot carry") from None
    return check_text("permissions", text, most=MAX_PERMISSIONS_LENGTH)

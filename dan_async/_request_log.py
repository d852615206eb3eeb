"""
One convention for log records that belong to a request.

The message begins with ``request 0x…: ``, and the record has the attribute ``request_id``, which formatters and filters can
use.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any


class RequestLog(logging.LoggerAdapter[logging.Logger]):
    """
    A logger for one request.

    Args:
        logger: The module's logger.
        request_id: The request; None for what belongs to none, which is logged as it is.
    """

    def __init__(self, logger: logging.Logger, request_id: str | None) -> None:
        super().__init__(logger, {"request_id": request_id})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the id in front of the message and onto the record, beside what the caller puts there."""
        extra = self.extra or {}
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        request_id = extra["request_id"]
        if request_id is None:
            return msg, kwargs
        return f"request {str(request_id).replace('%', '%%')}: {msg}", kwargs

"""``--timeout``: the limits of a job from one number."""

from __future__ import annotations

from dan_async.config import Timeouts
from dan_async.errors import InvalidFieldError

__all__ = ["choose_timeouts"]


def choose_timeouts(seconds: float | None) -> Timeouts:
    """
    Give the limits of a job that may take so long in all; the usual ones if nothing was typed.

    Args:
        seconds: What was typed, greater than 0.

    Raises:
        InvalidFieldError: It cannot be a time limit; the error names the option.
    """
    if seconds is None:
        return Timeouts()
    try:
        return Timeouts(total_s=seconds)
    except InvalidFieldError as error:
        raise InvalidFieldError("--timeout", error.message.removeprefix(error.field + " ")) from None

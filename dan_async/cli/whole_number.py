"""Whole numbers as options: digits and nothing else, so that 1.0 or a key in the wrong place is no number."""

from __future__ import annotations

import re
from collections.abc import Callable

import typer

__all__ = ["whole_number"]

_DIGITS = re.compile(r"[+-]?[0-9]{1,18}\Z", re.ASCII)


def whole_number(least: int, most: int) -> Callable[[str | int], int]:
    """
    Make a parser of whole numbers within bounds.

    Args:
        least: The smallest one allowed.
        most: The largest.
    """

    def parse(value: str | int) -> int:
        # An option's default passes through here as well.
        if isinstance(value, str) and not _DIGITS.match(value):
            raise typer.BadParameter("must be a whole number")
        number = int(value)
        if not least <= number <= most:
            raise typer.BadParameter(f"must be from {least} to {most}")
        return number

    return parse

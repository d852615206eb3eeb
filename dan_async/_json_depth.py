"""
How deeply a JSON text is nested, found out without parsing it.

The standard library's parser recurses for each level and counts on Python's recursion limit to stop it. A program that has
raised that limit would be crashed by a long enough row of brackets from a peer, so texts from outside are looked at first.
"""

from __future__ import annotations

import re

#: A whole string, or one that never ends: brackets inside do not nest anything.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(r"[\[{\]}]")


def is_too_deep(text: str, most: int) -> bool:
    """
    Tell whether arrays and objects are nested in each other more than *most* times.

    Args:
        text: The text; it need not be JSON.
        most: The deepest nesting that is still allowed.
    """
    if text.count("[") + text.count("{") <= most:
        return False  # almost every text: few brackets cannot nest deeply
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > most:
            return True
    return False

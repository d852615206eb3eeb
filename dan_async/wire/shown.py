"""Foreign text in our own messages: short, printable, and without anything that could be a key or a signature."""

from __future__ import annotations

import re

__all__ = ["shown"]

_MOST = 80
_HEX_RUN = re.compile(r"[0-9a-fA-F]{64,}")

#: How far to look: enough to see a run of hex digits that begins before the cut.
_LOOK_AT = 4 * _MOST


def shown(text: object) -> str:
    """
    Quote what a peer sent, for an error message.

    Args:
        text: A frame, a close reason, or whatever came instead.

    Returns:
        At most about 80 characters in quotes: control characters and lone surrogates escaped, every run of 64 or
        more hex digits masked. Binary data is only counted.
    """
    if isinstance(text, bytes | bytearray | memoryview):
        return f"{len(text)} bytes of binary data"
    if not isinstance(text, str):
        return type(text).__name__
    masked = _HEX_RUN.sub("[hex masked]", text[:_LOOK_AT])
    cut = len(masked) > _MOST or len(text) > _LOOK_AT
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in masked[:_MOST])
    return f"'{escaped}{'…' if cut else ''}'"

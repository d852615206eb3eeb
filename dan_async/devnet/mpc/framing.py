"""Parts of a message, joined and split."""

from __future__ import annotations

from collections.abc import Sequence

from dan_async.errors import ProtocolError


def join_parts(parts: Sequence[bytes]) -> bytes:
    """Put parts one after the other, each preceded by its length as a 32-bit big-endian number."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def split_parts(body: bytes, count: int) -> list[bytes]:
    """
    Take parts apart again.

    Raises:
        ProtocolError: They are not exactly *count*.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        if end > len(body) or len(parts) == count:
            raise ProtocolError("the parts of a peer's message do not add up")
        parts.append(body[at + 4 : end])
        at = end
    if len(parts) != count:
        raise ProtocolError("the parts of a peer's message do not add up")
    return parts

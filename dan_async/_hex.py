"""Bytes to 0x text and back, with length checks."""

from __future__ import annotations

from dan_async.errors import InvalidFieldError


def to_hex(data: bytes) -> str:
    """Give ``0x`` and lower-case hex digits."""
    return "0x" + data.hex()


def from_hex(text: object, *, field: str, length: int | None = None, prefix: bool | None = None) -> bytes:
    """
    Decode hex text, strictly.

    Args:
        text: The text. Anything but a string is refused.
        field: Its name, for the error.
        length: How many bytes it must hold, if that is fixed.
        prefix: Whether it must (True) or must not (False) begin with 0x; None allows both.

    Raises:
        InvalidFieldError: It is not such text. The text is not repeated, since it may be a secret.
    """
    if not isinstance(text, str):
        raise InvalidFieldError(field, f"must be hex text, not {type(text).__name__}")
    has_prefix = text.startswith(("0x", "0X"))
    digits = text[2:] if has_prefix else text
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        data = None
    if data is None or 2 * len(data) != len(digits):  # fromhex() passes over white space
        raise InvalidFieldError(field, "must be an even number of hex digits")
    if prefix is not None and has_prefix is not prefix:
        raise InvalidFieldError(field, f"must be {'given with' if prefix else 'given without'} the 0x prefix")
    if length is not None and len(data) != length:
        raise InvalidFieldError(field, f"must hold {length} bytes, not {len(data)}")
    return data

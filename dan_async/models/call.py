"""One call that a smart account makes."""

from __future__ import annotations

from attrs import field, frozen

from dan_async.crypto.address import parse_address
from dan_async.models._fields import number_of
from dan_async.models._user_operation_fields import data, shorten
from dan_async.types import Address

__all__ = ["Call"]

_SELECTOR_LENGTH = 4
_read_value = number_of(256)


@frozen
class Call:
    """
    A call of the smart account.

    Args:
        target: Who is called.
        value: Wei sent with it; an int, or decimal or ``0x`` text.
        data: The call data, as bytes or hex text. Nothing for a plain transfer.

    Raises:
        InvalidFieldError: A field is wrong.
    """

    target: Address
    value: int = 0
    data: bytes = field(default=b"", repr=shorten)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "target", parse_address("target", self.target))
        object.__setattr__(self, "value", _read_value(self.value, "value"))
        object.__setattr__(self, "data", data(self.data, "data"))

    @property
    def selector(self) -> bytes:
        """The first four bytes of the call data; empty for a plain transfer."""
        return self.data[:_SELECTOR_LENGTH]
